#include "rpc/stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "rpc/console.h"
#include "rpc/rfb_watch.h"
#include "rpc/websocket.h"

#define CLIENT_ROOM 65536 /* of the client's bytes, waiting */
#define REPLIES_ROOM 4096 /* of pongs */
#define RELAY_HEAD_MAX 4096
#define RELAY_MS 20000 /* in which the other member must have answered */

enum stream_state {
	STREAM_CONNECT,
	STREAM_HANDSHAKE, /* TLS */
	STREAM_HEAD,      /* waits for the member's reply */
	STREAM_OPEN,
	STREAM_ENDED,     /* the other end says no more */
	STREAM_CLOSED,
};

struct stream {
	enum stream_state state;
	struct conn *c; /* NULL: gone, the handle is closing */
	union stream_handle h;
	uv_connect_t connect;
	uv_write_t write;
	bool reading, writing;
	uint64_t deadline; /* of the relay's beginning */
	struct buf out;    /* to be sent: TLS's cipher text, or plain */
	struct buf flight; /* being sent */
	/* Relay. */
	SSL_CTX *ctx;
	struct tls_stream *tls;
	char *request;
	char fingerprint[65];
	struct buf plain; /* decrypted */
	/* WebSocket. */
	struct ws *ws;
	struct buf data, replies;
	/* Of this host's own. */
	struct stream_watch watch;
	struct rfb_watch rfb;
	uint64_t idle_at;
};

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b);

/* ---- the end ---- */

static void on_closed(uv_handle_t *h)
{
	struct stream *s = h->data;

	tls_stream_free(s->tls);
	SSL_CTX_free(s->ctx);
	buf_deinit(&s->out);
	buf_deinit(&s->flight);
	buf_deinit(&s->plain);
	buf_deinit(&s->data);
	buf_deinit(&s->replies);
	free(s->request);
	free(s->ws);
	free(s);
}

void stream_close(struct stream *s)
{
	if (!s || s->state == STREAM_CLOSED)
		return;
	atomic_fetch_sub(&s->c->thread->front->n_streams, 1);
	lease_release(TAKE_PTR(s->watch.lease));
	s->c = NULL;
	s->state = STREAM_CLOSED;
	uv_close(&s->h.handle, on_closed);
}

/* What the client has not got yet it still gets. */
static void other_end_gone(struct stream *s)
{
	struct conn *c = s->c;

	if (s->state < STREAM_OPEN) {
		console_refused(c, 503, "The member that has the console "
					"cannot be reached");
		return;
	}
	s->state = STREAM_ENDED;
	if (s->ws)
		ws_put_close(&s->replies, 1001);
	stream_client_drained(s);
}

/* ---- to the other end ---- */

static void on_written(uv_write_t *req, int status);

static void flush(struct stream *s)
{
	struct buf empty = s->flight;
	uv_buf_t b;
	int r;

	if (s->writing || s->out.len == 0 || s->state == STREAM_CLOSED)
		return;
	s->flight = s->out;
	s->out = empty;
	s->out.len = 0;
	b = uv_buf_init(s->flight.data, (unsigned)s->flight.len);
	r = uv_write(&s->write, &s->h.stream, &b, 1, on_written);
	if (r < 0)
		other_end_gone(s);
	else
		s->writing = true;
}

static void restart_idle(struct stream *s)
{
	if (s->watch.idle_ms > 0)
		s->idle_at = uv_now(&s->c->thread->loop) + s->watch.idle_ms;
}

/* The client's bytes, as they are without WebSocket. */
static void forward(struct stream *s, const char *p, size_t n)
{
	if (!s->watch.rfb || rfb_watch(&s->rfb, p, n))
		restart_idle(s);
	if (!s->tls)
		buf_append(&s->out, p, n);
	else if (tls_stream_write(s->tls, p, n, &s->out) < 0)
		other_end_gone(s);
}

static void forward_frames(struct stream *s)
{
	struct conn *c = s->c;
	enum ws_result r = ws_take(s->ws, c->in.data, c->in.len, &s->data,
				   &s->replies);

	c->in.len = 0;
	if (s->data.len > 0)
		forward(s, s->data.data, s->data.len);
	s->data.len = 0;
	if (r == WS_CLOSED && s->state == STREAM_OPEN)
		s->state = STREAM_ENDED;
	if (s->replies.len > 0)
		stream_client_drained(s);
}

bool stream_wants(const struct stream *s)
{
	return s->state < STREAM_ENDED && s->c->in.len < CLIENT_ROOM &&
	       s->replies.len < REPLIES_ROOM;
}

void stream_client_bytes(struct stream *s)
{
	struct conn *c = s->c;

	if (s->state != STREAM_OPEN || s->writing || c->in.len == 0)
		return;
	if (s->ws) {
		forward_frames(s);
	} else {
		forward(s, c->in.data, c->in.len);
		c->in.len = 0;
	}
	if (s->state == STREAM_OPEN || s->state == STREAM_ENDED)
		flush(s);
}

static void on_written(uv_write_t *req, int status)
{
	struct stream *s = req->handle->data;

	s->writing = false;
	s->flight.len = 0;
	if (s->state == STREAM_CLOSED)
		return;
	if (status < 0 && s->state != STREAM_ENDED) {
		other_end_gone(s);
		return;
	}
	flush(s);
	if (s->state == STREAM_OPEN) {
		stream_client_bytes(s);
		if (s->state != STREAM_CLOSED)
			conn_adjust_reading(s->c);
	}
}

/* ---- from the other end ---- */

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct stream *s = h->data;

	if (s->c)
		*b = uv_buf_init(s->c->thread->chunk, READ_CHUNK);
	else
		*b = uv_buf_init(NULL, 0);
}

static bool client_is_busy(const struct conn *c)
{
	return c->writing || c->sent < c->out.len;
}

static void adjust_reading(struct stream *s)
{
	bool want = s->state == STREAM_HANDSHAKE || s->state == STREAM_HEAD ||
		    (s->state == STREAM_OPEN && !client_is_busy(s->c));

	if (want == s->reading || s->state == STREAM_CLOSED)
		return;
	s->reading = want;
	if (!want)
		uv_read_stop(&s->h.stream);
	else if (uv_read_start(&s->h.stream, on_alloc, on_read) < 0)
		other_end_gone(s);
}

/* Gives the client n bytes; there is nothing on its way to him. */
static void deliver(struct stream *s, const char *p, size_t n)
{
	if (s->ws)
		ws_put_data(&s->c->out, p, n);
	else
		buf_append(&s->c->out, p, n);
	conn_send_stream(s->c);
}

/* The client has all that was sent to it. */
void stream_client_drained(struct stream *s)
{
	struct conn *c = s->c;

	size_t n = s->plain.len;

	if (s->state == STREAM_CLOSED || client_is_busy(c))
		return;
	/* Sending brings us here again, or will: so one thing at a time. */
	if (s->state >= STREAM_OPEN && n > 0) {
		s->plain.len = 0;
		deliver(s, s->plain.data, n);
	} else if (s->replies.len > 0) {
		buf_append(&c->out, s->replies.data, s->replies.len);
		s->replies.len = 0;
		conn_send_stream(c);
	} else if (s->state == STREAM_ENDED) {
		conn_end_stream(c);
	} else {
		adjust_reading(s);
	}
}

/* ---- relay: the beginning ---- */

static void send_request(struct stream *s)
{
	char peer[65];

	if (tls_stream_fingerprint(s->tls, peer) < 0 ||
	    strcasecmp(peer, s->fingerprint) != 0) {
		log_warn("console: the member that answers is not the one "
			 "that was meant");
		other_end_gone(s);
		return;
	}
	s->state = STREAM_HEAD;
	if (tls_stream_write(s->tls, s->request, strlen(s->request),
			     &s->out) < 0)
		other_end_gone(s);
}

static void look_at_head(struct stream *s)
{
	const char *p = s->plain.data, *end;
	int status;

	end = s->plain.len > 0 ? memmem(p, s->plain.len, "\r\n\r\n", 4) : NULL;
	if (!end) {
		if (s->plain.len > RELAY_HEAD_MAX)
			other_end_gone(s);
		return;
	}
	status = http_status_of(p, s->plain.len);
	if (status != 200) {
		console_refused(s->c, status, "The member that has the console "
					      "refuses it");
		return;
	}
	buf_consume(&s->plain, (size_t)(end - p) + 4);
	s->state = STREAM_OPEN;
	console_ready(s->c);
}

static void on_cipher(struct stream *s, const char *p, size_t n)
{
	int r = tls_stream_read(s->tls, p, n, &s->plain, &s->out);

	if (s->state == STREAM_HANDSHAKE && tls_stream_ready(s->tls))
		send_request(s);
	if (s->state == STREAM_HEAD)
		look_at_head(s);
	flush(s);
	if (s->state == STREAM_OPEN && s->plain.len > 0)
		stream_client_drained(s);
	if (r != 0 && s->state <= STREAM_OPEN)
		other_end_gone(s);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct stream *s = h->data;

	if (n == 0 || s->state == STREAM_CLOSED)
		return;
	if (n < 0) {
		s->reading = false;
		other_end_gone(s);
		return;
	}
	if (s->tls)
		on_cipher(s, b->base, (size_t)n);
	else
		deliver(s, b->base, (size_t)n);
	if (s->state != STREAM_CLOSED)
		adjust_reading(s);
}

static void on_connect(uv_connect_t *req, int status)
{
	struct stream *s = req->handle->data;

	if (s->state == STREAM_CLOSED)
		return;
	if (status < 0) {
		other_end_gone(s);
		return;
	}
	uv_tcp_nodelay(&s->h.tcp, 1);
	uv_tcp_keepalive(&s->h.tcp, 1, 60);
	s->state = STREAM_HANDSHAKE;
	s->tls = tls_stream_new(s->ctx, false);
	on_cipher(s, NULL, 0);
	if (s->state != STREAM_CLOSED)
		adjust_reading(s);
}

/* ---- time ---- */

void stream_tick(struct stream *s, uint64_t now)
{
	if ((s->state < STREAM_OPEN && now >= s->deadline) ||
	    (s->state == STREAM_OPEN && now >= s->idle_at))
		other_end_gone(s);
}

/* ---- opening ---- */

static struct stream *stream_new(struct conn *c, bool websocket)
{
	struct stream *s = xcalloc(1, sizeof(*s));

	s->c = c;
	s->idle_at = UINT64_MAX;
	s->h.handle.data = s;
	if (websocket)
		s->ws = xcalloc(1, sizeof(*s->ws));
	atomic_fetch_add(&c->thread->front->n_streams, 1);
	return s;
}

int stream_open(struct conn *c, int fd, bool websocket,
		const struct stream_watch *watch)
{
	struct stream *s = stream_new(c, websocket);
	int r;

	s->watch = *watch;
	restart_idle(s);
	uv_pipe_init(&c->thread->loop, &s->h.pipe, 0);
	s->h.handle.data = s;
	s->state = STREAM_OPEN;
	r = uv_pipe_open(&s->h.pipe, fd);
	if (r < 0) {
		close(fd);
		stream_close(s);
		return r;
	}
	c->stream = s;
	return 0;
}

static int parse_address(const struct stream_target *to,
			 struct sockaddr_storage *ret)
{
	if (uv_ip4_addr(to->address, (int)to->port,
			(struct sockaddr_in *)ret) == 0)
		return 0;
	return uv_ip6_addr(to->address, (int)to->port,
			   (struct sockaddr_in6 *)ret);
}

int stream_relay(struct conn *c, const struct stream_target *to, bool websocket)
{
	struct sockaddr_storage sa = { 0 };
	struct stream *s;
	int r = parse_address(to, &sa);

	if (r < 0 || strlen(to->fingerprint) != 64)
		return -EINVAL;
	s = stream_new(c, websocket);
	uv_tcp_init(&c->thread->loop, &s->h.tcp);
	s->h.handle.data = s;
	s->state = STREAM_CONNECT;
	s->deadline = uv_now(&c->thread->loop) + RELAY_MS;
	s->request = xstrdup(to->request);
	memcpy(s->fingerprint, to->fingerprint, 65);
	r = tls_client_context(&s->ctx);
	if (r == 0)
		r = uv_tcp_connect(&s->connect, &s->h.tcp,
				   (struct sockaddr *)&sa, on_connect);
	if (r < 0) {
		stream_close(s);
		return r;
	}
	c->stream = s;
	return 0;
}
