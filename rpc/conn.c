/* One connection, in the order in which things happen to it:
 *
 *   accept -> HEAD -> BODY -> CALL -> WRITE -> HEAD ...
 *                \________\______/^ |      \-> LINGER -> closed
 *                                   \-> STREAM -^
 *
 * HEAD and BODY read into c->in; BODY ends in the decoded call, which the core
 * gets (CALL); its outcome is formatted into c->out and sent (WRITE). What is
 * answered without the core goes to WRITE directly. While a call is under way
 * the connection still reads, so that a client that leaves is noticed and one
 * that pipelines is served, but only PIPELINE_MAX bytes ahead.
 *
 * After a reply that ends the connection the client may still be sending;
 * closing at once would reset the connection and could take the reply with it.
 * So our side is shut down and the rest read and thrown away for a while.
 */
#include "rpc/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "rpc/console.h"
#include "rpc/dispatch.h"
#include "rpc/jsonrpc.h"
#include "rpc/route.h"
#include "rpc/stream.h"
#include "rpc/xmlrpc.h"

#define PIPELINE_MAX 65536
#define KEPT_BUFFER 65536 /* larger ones are given back when empty */
#define TLS_SLICE 262144  /* of a reply, encrypted at a time */
#define LINGER_MS 2000
#define REJECT_MS 5000
#define REJECT_MAX 64     /* connections being told that there are too many */
#define SLOW_FACTOR 10    /* progress may stretch a timeout so many times */
#define MEMORY_MAX ((size_t)1 << 30) /* of all large buffers together */

static const unsigned moves[] = {
	[CONN_HEAD] = 1 << CONN_BODY | 1 << CONN_CALL | 1 << CONN_WRITE |
		      1 << CONN_CLOSED,
	[CONN_BODY] = 1 << CONN_CALL | 1 << CONN_WRITE | 1 << CONN_CLOSED,
	[CONN_CALL] = 1 << CONN_WRITE | 1 << CONN_STREAM | 1 << CONN_CLOSED,
	[CONN_STREAM] = 1 << CONN_WRITE | 1 << CONN_LINGER | 1 << CONN_CLOSED,
	[CONN_WRITE] = 1 << CONN_HEAD | 1 << CONN_LINGER | 1 << CONN_CLOSED,
	[CONN_LINGER] = 1 << CONN_CLOSED,
	[CONN_CLOSED] = 0,
};

static void conn_process(struct conn *c);

static void conn_move(struct conn *c, enum conn_state next)
{
	xassert(moves[c->state] & 1u << next);
	c->state = next;
}

static uint64_t now_of(const struct conn *c)
{
	return uv_now(&c->thread->loop);
}

/* Until `seconds` from now, and with progress until SLOW_FACTOR times that. */
static void set_deadline(struct conn *c, unsigned seconds)
{
	c->deadline = now_of(c) + 1000 * (uint64_t)seconds;
	c->limit = now_of(c) + SLOW_FACTOR * 1000 * (uint64_t)seconds;
}

static void extend_deadline(struct conn *c, unsigned seconds)
{
	c->deadline = MIN(c->limit, now_of(c) + 1000 * (uint64_t)seconds);
}

/* Memory and the end. */

static void buf_trim(struct buf *b)
{
	b->len = 0;
	if (b->cap > KEPT_BUFFER)
		buf_deinit(b);
}

/* Charges the connection's large buffers to the front end; false when there
 * are too many of them now. */
static bool charge(struct conn *c)
{
	atomic_size_t *memory = &c->thread->front->memory;
	size_t size = c->in.cap + c->out.cap + c->cipher.cap + c->flight.cap;
	size_t total;

	if (size <= 2 * KEPT_BUFFER)
		size = 0;
	/* Unsigned arithmetic wraps: the difference may be negative. */
	total = atomic_fetch_add(memory, size - c->charged) + size -
		c->charged;
	c->charged = size;
	return size == 0 || total <= MEMORY_MAX;
}

void conn_free(struct conn *c)
{
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	buf_deinit(&c->cipher);
	buf_deinit(&c->flight);
	charge(c);
	tls_stream_free(c->tls);
	rpc_request_deinit(&c->rpc);
	call_free(c->call);
	console_free(c->console);
	free(c);
}

static atomic_uint *counter_of(struct conn *c)
{
	struct front *f = c->thread->front;

	return c->kind == LISTEN_UNIX ? &f->n_unix : &f->n_tcp;
}

static void on_closed(uv_handle_t *h)
{
	struct conn *c = h->data;

	atomic_fetch_sub(counter_of(c), 1);
	c->handle_closed = true;
	if (!c->call)
		conn_free(c);
}

static void conn_close(struct conn *c)
{
	if (c->state == CONN_CLOSED)
		return;
	if (c->call)
		atomic_store(&c->call->gone, true);
	conn_move(c, CONN_CLOSED);
	stream_close(TAKE_PTR(c->stream));
	list_remove(&c->link);
	uv_close(&c->h.handle, on_closed);
}

/* Sending. */

static void on_written(uv_write_t *req, int status);
static void write_done(struct conn *c);
static void stream_sent(struct conn *c);

/* Sends what the socket takes of n bytes now; the rest, which must stay where
 * it is, in the background. */
static void send_bytes(struct conn *c, char *p, size_t n)
{
	uv_buf_t b = uv_buf_init(p, (unsigned)n);
	int r;

	xassert(!c->writing && n <= UINT32_MAX);
	r = uv_try_write(&c->h.stream, &b, 1);
	if (r < 0 && r != UV_EAGAIN) {
		conn_close(c);
		return;
	}
	r = MAX(r, 0);
	if ((size_t)r == n)
		return;
	b = uv_buf_init(p + r, (unsigned)(n - (size_t)r));
	r = uv_write(&c->write, &c->h.stream, &b, 1, on_written);
	if (r < 0)
		conn_close(c);
	else
		c->writing = true;
}

/* TLS: sends the ciphertext that has gathered, unless some is on its way. */
static void flush_cipher(struct conn *c)
{
	struct buf empty;

	if (c->writing || c->cipher.len == 0 || c->state == CONN_CLOSED)
		return;
	empty = c->flight;
	c->flight = c->cipher;
	c->cipher = empty;
	c->cipher.len = 0;
	send_bytes(c, c->flight.data, c->flight.len);
	if (!c->writing)
		c->flight.len = 0;
}

static void pump_tls(struct conn *c)
{
	while (!c->writing && c->sent < c->out.len) {
		size_t n = MIN(c->out.len - c->sent, (size_t)TLS_SLICE);

		if (tls_stream_write(c->tls, c->out.data + c->sent, n,
				     &c->cipher) < 0) {
			conn_close(c);
			return;
		}
		c->sent += n;
		flush_cipher(c);
		if (c->state == CONN_CLOSED)
			return;
	}
}

/* Goes on with the reply in c->out. */
static void pump(struct conn *c)
{
	if (c->tls) {
		pump_tls(c);
	} else if (c->sent < c->out.len) {
		size_t from = c->sent;

		c->sent = c->out.len;
		send_bytes(c, c->out.data + from, c->out.len - from);
	}
	if (c->writing || c->sent < c->out.len)
		return;
	if (c->state == CONN_WRITE)
		write_done(c);
	else if (c->state == CONN_STREAM)
		stream_sent(c);
}

static void on_written(uv_write_t *req, int status)
{
	struct conn *c = req->handle->data;

	c->writing = false;
	c->flight.len = 0;
	if (c->state == CONN_CLOSED)
		return;
	if (status < 0) {
		conn_close(c);
		return;
	}
	flush_cipher(c);
	if (c->state == CONN_WRITE || c->state == CONN_STREAM) {
		pump(c);
		conn_process(c);
	}
}

static size_t left_to_send(const struct conn *c)
{
	return uv_stream_get_write_queue_size(&c->h.stream) + c->out.len -
	       c->sent;
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
	/* The deadline or the client's end closes. */
}

static void linger(struct conn *c)
{
	conn_move(c, CONN_LINGER);
	c->deadline = now_of(c) + LINGER_MS;
	buf_deinit(&c->in);
	if (c->tls) {
		tls_stream_end(c->tls, &c->cipher);
		flush_cipher(c);
	}
	if (c->state == CONN_CLOSED)
		return;
	if (c->eof || uv_shutdown(&c->shutdown, &c->h.stream, on_shutdown) < 0)
		conn_close(c);
}

static void write_done(struct conn *c)
{
	buf_trim(&c->out);
	buf_trim(&c->cipher);
	buf_trim(&c->flight);
	c->sent = c->out_start = 0;
	charge(c);
	if (!c->keep) {
		linger(c);
		return;
	}
	conn_move(c, CONN_HEAD);
	http_request_reset(&c->req);
	c->timed = false;
	set_deadline(c, c->thread->front->cfg.idle_timeout_s);
}

/* Replies. */

static void start_sending(struct conn *c)
{
	conn_move(c, CONN_WRITE);
	set_deadline(c, c->thread->front->cfg.write_timeout_s);
	c->sent = c->out_start;
	c->queued = SIZE_MAX;
	pump(c);
}

static void error_page(struct conn *c, int status, const char *detail)
{
	struct front *f = c->thread->front;

	atomic_fetch_add(status < 500 ? &f->errors_4xx : &f->errors_5xx, 1);
	buf_trim(&c->out);
	http_write_error(&c->out, &c->req, status, detail);
	c->out_start = 0;
	c->keep = false;
	buf_deinit(&c->in);
	charge(c);
	start_sending(c);
}

/* call: the one that was made, NULL when the request was none. */
static void rpc_reply(struct conn *c, const struct value *result,
		      const struct value *error, const struct call *call)
{
	const struct rpc_request *r = &c->rpc;
	bool xml = r->encoding == RPC_XML;
	char head[HTTP_RPC_HEAD_MAX];
	size_t n;

	/* The head's length depends on the body's: leave room before it. */
	buf_reserve(&c->out, HTTP_RPC_HEAD_MAX);
	c->out.len = HTTP_RPC_HEAD_MAX;
	if (xml)
		xmlrpc_write_reply(&c->out, result, error,
				   r->method && dispatch_is_bare(r->method));
	else
		jsonrpc_write_reply(&c->out, r->encoding, r->id, result, error);
	rpc_request_deinit(&c->rpc);
	if (!charge(c) || c->out.len > UINT32_MAX) {
		buf_deinit(&c->out);
		error_page(c, 503, "Too many large replies at this time");
		return;
	}
	c->keep = c->req.keep_alive && !(c->eof && c->in.len == 0) &&
		  c->thread->stop_at == 0;
	n = http_rpc_head(head, &c->req, c->out.len - HTTP_RPC_HEAD_MAX,
			  xml ? "text/xml" : "application/json", c->keep,
			  call);
	c->out_start = HTTP_RPC_HEAD_MAX - n;
	memcpy(c->out.data + c->out_start, head, n);
	start_sending(c);
}

static void send_file(struct conn *c)
{
	const char *dir = c->thread->front->cfg.www_dir, *type = NULL;
	_cleanup_(buf_deinit) struct buf content = BUF_INIT;
	int r = route_read_file(dir, c->req.path, &content, &type);

	if (r < 0) {
		error_page(c, r == -EFBIG ? 500 : 404, r == -EFBIG ?
			   "The file is larger than this server sends" :
			   "There is no such file");
		return;
	}
	http_write_file_head(&c->out, &c->req, content.len, type);
	buf_append(&c->out, content.data, content.len);
	c->out_start = 0;
	c->keep = false;
	charge(c);
	start_sending(c);
}

/* Streams. */

void conn_refuse(struct conn *c, int status, const char *detail)
{
	stream_close(TAKE_PTR(c->stream));
	error_page(c, status, detail);
	conn_adjust_reading(c);
}

void conn_begin_stream(struct conn *c)
{
	conn_move(c, CONN_STREAM);
	c->out.len = c->sent = 0;
	c->deadline = UINT64_MAX;
}

/* A client that reads may take for ever, one that does not has its time. */
void conn_send_stream(struct conn *c)
{
	c->deadline = now_of(c) +
		      1000 * (uint64_t)c->thread->front->cfg.write_timeout_s;
	c->limit = UINT64_MAX;
	c->queued = SIZE_MAX;
	pump(c);
}

static void stream_sent(struct conn *c)
{
	c->out.len = c->sent = 0;
	c->deadline = UINT64_MAX;
	stream_client_drained(c->stream);
}

void conn_end_stream(struct conn *c)
{
	stream_close(TAKE_PTR(c->stream));
	linger(c);
}

/* Requests. */

void conn_fill_origin(const struct conn *c, struct call_origin *o)
{
	memcpy(o->address, c->address, sizeof(o->address));
	memcpy(o->user_agent, c->req.user_agent, sizeof(o->user_agent));
	o->local_root = c->local_root;
	o->secure = c->kind == LISTEN_HTTPS;
	o->read = c->req.read;
	o->min_generation = c->req.min_generation;
}

void conn_submit(struct conn *c, struct call *call)
{
	c->call = call;
	if (c->state == CONN_HEAD || c->state == CONN_BODY) {
		conn_move(c, CONN_CALL);
		c->deadline = UINT64_MAX;
	}
	if (c->eof)
		atomic_store(&call->gone, true);
	front_submit(c);
}

static void start_call(struct conn *c)
{
	struct call *call = call_new();

	conn_fill_origin(c, &call->origin);
	if (dispatch_request(&c->rpc, call)) {
		conn_submit(c, call);
		return;
	}
	rpc_reply(c, call->result, call->error, call);
	call_free(call);
}

/* The whole request is in c->in. */
static void handle_rpc(struct conn *c)
{
	const struct rpc_limits limits = { c->thread->front->cfg.max_depth };
	size_t n = (size_t)c->req.content_length;
	const char *body = c->in.data + c->req.head_len;
	struct rpc_parse_error err = { .error = NULL };
	enum rpc_parse_result r;

	if (route_find(&c->req).kind == ROUTE_JSONRPC)
		r = jsonrpc_parse(body, n, &limits, &c->rpc, &err);
	else
		r = xmlrpc_parse(body, n, &limits, &c->rpc, &err);
	buf_consume(&c->in, c->req.head_len + n);
	if (c->in.len == 0) {
		buf_trim(&c->in);
		charge(c);
	}
	if (r == RPC_PARSE_OK)
		start_call(c);
	else if (r == RPC_PARSE_BAD_TEXT)
		rpc_reply(c, NULL, err.error, NULL);
	else
		error_page(c, 500, err.reason);
	value_unref(err.error);
}

static void send_continue(struct conn *c)
{
	static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
	uv_buf_t b = uv_buf_init((char *)text, sizeof(text) - 1);

	if (c->tls) {
		if (tls_stream_write(c->tls, text, sizeof(text) - 1,
				     &c->cipher) < 0)
			conn_close(c);
		flush_cipher(c);
	} else if (!c->writing) {
		/* A socket so full that it takes nothing cannot be: all
		 * earlier replies have been sent. Clients go on unasked. */
		uv_try_write(&c->h.stream, &b, 1);
	}
}

static void start_body(struct conn *c)
{
	const struct front_config *cfg = &c->thread->front->cfg;
	char text[120];

	if (c->req.chunked) {
		error_page(c, 500, "A transfer encoding of the request is not "
			   "supported: send a content-length");
	} else if (!c->req.has_length) {
		error_page(c, 500, "A call needs a content-length");
	} else if (c->req.content_length > cfg->max_body_bytes) {
		snprintf(text, sizeof(text),
			 "The request is larger than the limit of %u bytes",
			 cfg->max_body_bytes);
		error_page(c, 500, text);
	} else {
		conn_move(c, CONN_BODY);
		set_deadline(c, cfg->header_timeout_s);
		if (c->req.expect_continue && c->req.minor > 0 &&
		    c->in.len - c->req.head_len < c->req.content_length)
			send_continue(c);
	}
}

static void absent_page(struct conn *c, const char *handler)
{
	char text[120];

	snprintf(text, sizeof(text),
		 "The handler %s is not part of this server", handler);
	error_page(c, 501, text);
}

static void send_options(struct conn *c)
{
	http_write_options(&c->out, &c->req);
	c->out_start = 0;
	c->keep = false;
	start_sending(c);
}

static void start_request(struct conn *c)
{
	struct route route = route_find(&c->req);

	atomic_fetch_add(&c->thread->front->requests, 1);
	if (c->rejected) {
		error_page(c, 503, "Too many connections");
		return;
	}
	switch (route.kind) {
	case ROUTE_XMLRPC:
	case ROUTE_JSONRPC:
		start_body(c);
		break;
	case ROUTE_OPTIONS:
		send_options(c);
		break;
	case ROUTE_CONSOLE:
		console_start(c);
		break;
	case ROUTE_FILE:
		if (c->req.upgrade)
			absent_page(c, "websocket");
		else
			send_file(c);
		break;
	case ROUTE_ABSENT:
		absent_page(c, route.handler);
		break;
	case ROUTE_FORBIDDEN:
		error_page(c, 403, "There is no such handler");
		break;
	case ROUTE_UNKNOWN:
		error_page(c, 501, "Method not implemented");
		break;
	}
}

/* True when something was done. */
static bool head_step(struct conn *c)
{
	const struct front_config *cfg = &c->thread->front->cfg;
	int r;

	if (c->in.len == 0)
		return false;
	r = http_parse_head(&c->req, c->in.data, c->in.len,
			    cfg->max_header_bytes);
	if (r == HTTP_HEAD_DONE) {
		start_request(c);
	} else if (r != HTTP_MORE) {
		error_page(c, r, r == 431 ? "The request's head is too large" :
					    "The request's head is malformed");
	} else if (!c->timed) {
		/* The idle time ended with the first byte. */
		c->timed = true;
		set_deadline(c, cfg->header_timeout_s);
	}
	return r != HTTP_MORE;
}

static bool body_step(struct conn *c)
{
	if (c->in.len - c->req.head_len < c->req.content_length)
		return false;
	handle_rpc(c);
	return true;
}

/* Reading. */

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct conn *c = h->data;

	*b = uv_buf_init(c->thread->chunk, READ_CHUNK);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b);

static bool wants_bytes(const struct conn *c)
{
	if (c->eof)
		return false;
	switch (c->state) {
	case CONN_HEAD:
	case CONN_BODY:
	case CONN_LINGER:
		return true;
	case CONN_CALL:
		return c->in.len < PIPELINE_MAX;
	case CONN_STREAM:
		return stream_wants(c->stream);
	case CONN_WRITE:
	case CONN_CLOSED:
		break;
	}
	return false;
}

void conn_adjust_reading(struct conn *c)
{
	bool want = wants_bytes(c);

	if (c->state == CONN_CLOSED || want == c->reading)
		return;
	c->reading = want;
	if (!want)
		uv_read_stop(&c->h.stream);
	else if (uv_read_start(&c->h.stream, on_alloc, on_read) < 0)
		conn_close(c);
}

/* Does what the bytes at hand allow. */
static void conn_process(struct conn *c)
{
	bool moved = true;

	while (moved) {
		moved = c->state == CONN_HEAD ? head_step(c) :
			c->state == CONN_BODY ? body_step(c) : false;
	}
	if (c->state == CONN_STREAM)
		stream_client_bytes(c->stream);
	if (c->eof && (c->state == CONN_HEAD || c->state == CONN_BODY ||
		       c->state == CONN_STREAM))
		conn_close(c);
	conn_adjust_reading(c);
}

/* The client sends no more; it may still wait for a reply. */
static void on_end(struct conn *c)
{
	c->eof = true;
	if (c->call)
		atomic_store(&c->call->gone, true);
	if (c->state == CONN_LINGER)
		conn_close(c);
}

static void on_bytes(struct conn *c, const char *p, size_t n)
{
	int r = 0;

	if (c->tls)
		r = tls_stream_read(c->tls, p, n, &c->in, &c->cipher);
	else
		buf_append(&c->in, p, n);
	flush_cipher(c);
	if (r < 0 || c->cipher.len > PIPELINE_MAX)
		conn_close(c);
	else if (r == TLS_STREAM_END)
		on_end(c);
	if (c->state == CONN_BODY)
		extend_deadline(c, c->thread->front->cfg.header_timeout_s);
	if (!charge(c) && c->state == CONN_BODY)
		error_page(c, 503, "Too many large requests at this time");
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct conn *c = s->data;

	if (n == 0 || (n > 0 && c->state == CONN_LINGER))
		return;
	if (n > 0)
		on_bytes(c, b->base, (size_t)n);
	else if (n == UV_EOF)
		on_end(c);
	else
		conn_close(c);
	if (n < 0)
		c->reading = false;
	conn_process(c);
}

/* Outcomes, time, the end. */

void conn_answered(struct conn *c)
{
	struct call *call = TAKE_PTR(c->call);

	if (c->console && console_answered(c, TAKE_PTR(call)))
		return;
	if (c->state == CONN_CLOSED) {
		call_free(call);
		if (c->handle_closed)
			conn_free(c);
		return;
	}
	if (c->console) {
		conn_process(c);
		return;
	}
	failpoint("answer.write");
	rpc_reply(c, call->result, call->error, call);
	failpoint("answer.written");
	call_free(call);
	conn_process(c);
}

static void note_progress(struct conn *c)
{
	size_t left = left_to_send(c);

	if (left < c->queued)
		extend_deadline(c, c->thread->front->cfg.write_timeout_s);
	c->queued = left;
}

void conn_tick(struct conn *c, uint64_t now)
{
	bool answerable = !c->tls || tls_stream_ready(c->tls);

	if (c->state == CONN_WRITE ||
	    (c->state == CONN_STREAM && (c->writing || c->sent < c->out.len)))
		note_progress(c);
	if (c->state == CONN_STREAM) {
		stream_tick(c->stream, now);
		if (c->state != CONN_STREAM)
			return;
	}
	if (now < c->deadline)
		return;
	if (answerable && ((c->state == CONN_HEAD && c->in.len > 0) ||
			   c->state == CONN_BODY))
		error_page(c, 408, "The request did not arrive in time");
	else
		conn_close(c);
	conn_adjust_reading(c);
}

void conn_stop(struct conn *c, bool now)
{
	if (now || c->state != CONN_WRITE)
		conn_close(c);
}

/* The beginning. */

static void name_peer(struct conn *c)
{
	struct sockaddr_storage sa;
	int n = sizeof(sa);

	if (uv_tcp_getpeername(&c->h.tcp, (struct sockaddr *)&sa, &n) < 0)
		return;
	if (uv_ip_name((struct sockaddr *)&sa, c->address,
		       sizeof(c->address)) < 0)
		c->address[0] = '\0';
	/* An IPv4 client of an IPv6 socket. */
	if (strncmp(c->address, "::ffff:", 7) == 0 && strchr(c->address, '.'))
		memmove(c->address, c->address + 7, strlen(c->address) - 6);
}

static bool peer_is_root(struct conn *c)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);
	uv_os_fd_t fd;

	return uv_fileno(&c->h.handle, &fd) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 &&
	       n == sizeof(cred) && cred.uid == 0;
}

static int init_handle(struct conn *c)
{
	int r;

	if (c->kind == LISTEN_UNIX)
		r = uv_pipe_init(&c->thread->loop, &c->h.pipe, 0);
	else
		r = uv_tcp_init(&c->thread->loop, &c->h.tcp);
	c->h.handle.data = c;
	return r;
}

static void describe_peer(struct conn *c)
{
	if (c->kind == LISTEN_UNIX) {
		c->local_root = peer_is_root(c);
		return;
	}
	uv_tcp_nodelay(&c->h.tcp, 1);
	uv_tcp_keepalive(&c->h.tcp, 1, 60);
	name_peer(c);
}

void conn_accept(struct listener *l)
{
	struct front_thread *t = l->thread;
	const struct front_config *cfg = &t->front->cfg;
	struct conn *c = xcalloc(1, sizeof(*c));
	unsigned others;

	c->thread = t;
	c->kind = l->kind;
	c->timed = true;
	list_init(&c->queue);
	list_init(&c->link);
	http_request_reset(&c->req);
	xassert(init_handle(c) == 0);
	others = atomic_fetch_add(counter_of(c), 1);
	if (uv_accept(&l->h.stream, &c->h.stream) < 0 ||
	    others >= cfg->max_connections + REJECT_MAX) {
		conn_close(c);
		return;
	}
	list_push(&t->conns, &c->link);
	c->rejected = others >= cfg->max_connections;
	set_deadline(c, cfg->header_timeout_s);
	if (c->rejected)
		c->deadline = MIN(c->deadline, now_of(c) + REJECT_MS);
	describe_peer(c);
	if (c->kind == LISTEN_HTTPS)
		c->tls = tls_stream_new(t->front->tls, true);
	conn_adjust_reading(c);
}
