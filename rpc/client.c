/* One JSON-RPC call over TLS, step by step: look the name up, connect, shake
 * hands, check the fingerprint, send, read to the end of the reply. Every step
 * fails into finish(), which tells the caller once and closes what is open.
 */
#include "rpc/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "rpc/jsonrpc.h"
#include "rpc/tls.h"

#define REPLY_MAX (64 << 20)
#define HEAD_MAX 16384
#define DEFAULT_TIMEOUT_MS 60000
#define CHUNK 65536

enum client_state {
	CLIENT_RESOLVE,
	CLIENT_CONNECT,
	CLIENT_HANDSHAKE,
	CLIENT_REPLY,
	CLIENT_DONE, /* told; handles are closing */
};

struct client {
	enum client_state state;
	rpc_client_cb cb;
	void *data;
	uv_loop_t *loop;
	SSL_CTX *ctx;
	struct tls_stream *tls;
	char host[256];
	char port[8];
	char fingerprint[65]; /* wanted; "" = any */
	char peer[65];        /* shown */
	uv_getaddrinfo_t resolve;
	uv_connect_t connect;
	uv_tcp_t tcp;
	uv_timer_t timer;
	unsigned open;        /* handles and the lookup */
	bool tcp_open;
	struct buf request, plain, cipher;
	char chunk[CHUNK];
};

static void release(struct client *c)
{
	if (--c->open > 0)
		return;
	tls_stream_free(c->tls);
	SSL_CTX_free(c->ctx);
	buf_deinit(&c->request);
	buf_deinit(&c->plain);
	buf_deinit(&c->cipher);
	free(c);
}

static void on_closed(uv_handle_t *h)
{
	release(h->data);
}

static void finish(struct client *c, int error, struct value *result,
		   struct value *api_error)
{
	if (c->state == CLIENT_DONE)
		return;
	c->state = CLIENT_DONE;
	c->cb(c->data, error, result, api_error, c->peer);
	uv_close((uv_handle_t *)&c->timer, on_closed);
	if (c->tcp_open)
		uv_close((uv_handle_t *)&c->tcp, on_closed);
	uv_cancel((uv_req_t *)&c->resolve);
}

/* The reply. */

static void parse_body(struct client *c, const char *p, size_t n)
{
	_cleanup_(value_unrefp) struct value *result = NULL, *error = NULL;

	if (!jsonrpc_parse_reply(p, n, &result, &error))
		finish(c, -EBADMSG, NULL, NULL);
	else
		finish(c, error ? -EREMOTEIO : 0, result, error);
}

/* The value of a header line in the head, as a length; -1: not there or not a
 * number. */
static int64_t find_length(const char *head, size_t n)
{
	static const char name[] = "\ncontent-length:";
	const char *end = head + n;
	int64_t v = 0;

	for (; end - head > (ptrdiff_t)sizeof(name); head++)
		if (strncasecmp(head, name, sizeof(name) - 1) == 0)
			break;
	if (end - head <= (ptrdiff_t)sizeof(name))
		return -1;
	head += sizeof(name) - 1;
	while (head < end && *head == ' ')
		head++;
	if (head == end || *head < '0' || *head > '9')
		return -1;
	for (; head < end && *head >= '0' && *head <= '9'; head++)
		v = MIN(v * 10 + (*head - '0'), INT64_MAX / 16);
	return v;
}

/* What has arrived so far; ended: no more will. */
static void look_at_reply(struct client *c, bool ended)
{
	const char *p = c->plain.data;
	size_t n = c->plain.len, head;
	const char *end = n > 0 ? memmem(p, n, "\r\n\r\n", 4) : NULL;
	int64_t length;

	if (!end) {
		if (ended || n > HEAD_MAX)
			finish(c, n > HEAD_MAX ? -EBADMSG : -ECONNRESET, NULL, NULL);
		return;
	}
	head = (size_t)(end - p) + 4;
	length = find_length(p, head);
	if (n < 12 || memcmp(p, "HTTP/1.", 7) != 0 ||
	    memcmp(p + 8, " 200", 4) != 0) {
		finish(c, -EPROTO, NULL, NULL);
	} else if (length > REPLY_MAX || n - head > REPLY_MAX) {
		finish(c, -EMSGSIZE, NULL, NULL);
	} else if (length >= 0 && n - head >= (size_t)length) {
		parse_body(c, p + head, (size_t)length);
	} else if (ended) {
		if (length < 0)
			parse_body(c, p + head, n - head);
		else
			finish(c, -ECONNRESET, NULL, NULL);
	}
}

/* Sending. */

struct client_write {
	uv_write_t req;
	char *data;
};

static void on_written(uv_write_t *req, int status)
{
	struct client_write *w = (struct client_write *)req;
	struct client *c = req->handle->data;

	free(w->data);
	free(w);
	if (status < 0)
		finish(c, status, NULL, NULL);
}

static void send_cipher(struct client *c)
{
	struct client_write *w;
	uv_buf_t b;
	size_t n;
	int r;

	if (c->cipher.len == 0 || c->state == CLIENT_DONE)
		return;
	w = xcalloc(1, sizeof(*w));
	w->data = buf_steal(&c->cipher, &n);
	b = uv_buf_init(w->data, (unsigned)n);
	r = uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written);
	if (r < 0) {
		free(w->data);
		free(w);
		finish(c, r, NULL, NULL);
	}
}

static bool fingerprint_fits(struct client *c)
{
	if (tls_stream_fingerprint(c->tls, c->peer) < 0)
		return false;
	return !*c->fingerprint ||
	       strcasecmp(c->fingerprint, c->peer) == 0;
}

static void send_request(struct client *c)
{
	if (!fingerprint_fits(c)) {
		finish(c, -EKEYREJECTED, NULL, NULL);
		return;
	}
	c->state = CLIENT_REPLY;
	if (tls_stream_write(c->tls, c->request.data, c->request.len,
			     &c->cipher) < 0)
		finish(c, -EPROTO, NULL, NULL);
	buf_deinit(&c->request);
}

/* Reading. */

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct client *c = h->data;

	*b = uv_buf_init(c->chunk, CHUNK);
}

static void on_bytes(struct client *c, const char *p, size_t n)
{
	int r = tls_stream_read(c->tls, p, n, &c->plain, &c->cipher);

	if (c->state == CLIENT_HANDSHAKE && tls_stream_ready(c->tls))
		send_request(c);
	send_cipher(c);
	if (c->state == CLIENT_REPLY)
		look_at_reply(c, r == TLS_STREAM_END);
	if (r != 0)
		finish(c, r < 0 ? r : -ECONNRESET, NULL, NULL);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct client *c = s->data;

	if (c->state == CLIENT_DONE)
		return;
	if (n > 0) {
		on_bytes(c, b->base, (size_t)n);
		return;
	}
	/* An end without TLS's own may be an attacker's cut: only a reply of
	 * known length would be whole, and that has been looked at. */
	if (n < 0)
		finish(c, n == UV_EOF ? -ECONNRESET : (int)n, NULL, NULL);
}

/* Connecting. */

static void on_connect(uv_connect_t *req, int status)
{
	struct client *c = req->data;

	if (c->state == CLIENT_DONE)
		return;
	if (status < 0) {
		finish(c, status, NULL, NULL);
		return;
	}
	c->state = CLIENT_HANDSHAKE;
	uv_tcp_nodelay(&c->tcp, 1);
	c->tls = tls_stream_new(c->ctx, false);
	if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0)
		finish(c, -EIO, NULL, NULL);
	else
		on_bytes(c, NULL, 0);
}

static void on_resolved(uv_getaddrinfo_t *req, int status,
			struct addrinfo *list)
{
	struct client *c = req->data;
	int r = status;

	if (c->state != CLIENT_DONE && status == 0) {
		c->state = CLIENT_CONNECT;
		uv_tcp_init(c->loop, &c->tcp);
		c->tcp.data = c->connect.data = c;
		c->tcp_open = true;
		c->open++;
		r = uv_tcp_connect(&c->connect, &c->tcp, list->ai_addr,
				   on_connect);
	}
	uv_freeaddrinfo(list);
	if (r < 0)
		finish(c, r, NULL, NULL);
	release(c);
}

static void on_timeout(uv_timer_t *t)
{
	finish(t->data, -ETIMEDOUT, NULL, NULL);
}

/* host, host:port, [v6], [v6]:port or a bare v6 address. */
static bool split_address(struct client *c, const char *address,
			  unsigned default_port)
{
	const char *host = address, *end, *port = NULL;
	size_t n = strlen(address);

	if (*address == '[') {
		end = strchr(++host, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		n = (size_t)(end - host);
		port = end[1] ? end + 2 : NULL;
	} else if ((end = strchr(address, ':')) && !strchr(end + 1, ':')) {
		n = (size_t)(end - host);
		port = end + 1;
	}
	if (n == 0 || n >= sizeof(c->host))
		return false;
	memcpy(c->host, host, n);
	if (!port) {
		snprintf(c->port, sizeof(c->port), "%u", default_port % 65536);
		return true;
	}
	n = strlen(port);
	if (n == 0 || n > 5 || strspn(port, "0123456789") != n)
		return false;
	memcpy(c->port, port, n + 1);
	return true;
}

static void build_request(struct client *c,
			  const struct rpc_client_request *req)
{
	_cleanup_(buf_deinit) struct buf body = BUF_INIT;
	bool v6 = strchr(c->host, ':');

	jsonrpc_write_call(&body, req->method, req->params, req->n_params);
	buf_printf(&c->request,
		   "POST /jsonrpc HTTP/1.1\r\n"
		   "host: %s%s%s:%s\r\n"
		   "content-type: application/json\r\n"
		   "content-length: %zu\r\n"
		   "connection: close\r\n"
		   "\r\n",
		   v6 ? "[" : "", c->host, v6 ? "]" : "", c->port, body.len);
	buf_append(&c->request, body.data, body.len);
}

/* No step has begun: fails from the loop, as every other failure does. */
static void on_start_failed(uv_timer_t *t)
{
	finish(t->data, -EINVAL, NULL, NULL);
}

void rpc_client_call(uv_loop_t *loop, const struct rpc_client_request *req,
		     rpc_client_cb cb, void *data)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct client *c = xcalloc(1, sizeof(*c));
	unsigned timeout = req->timeout_ms ? req->timeout_ms :
					     DEFAULT_TIMEOUT_MS;

	c->cb = cb;
	c->data = data;
	c->loop = loop;
	c->open = 1;
	uv_timer_init(loop, &c->timer);
	c->timer.data = c->resolve.data = c;
	uv_update_time(loop);
	tls_client_context(&c->ctx);
	if (!split_address(c, req->address, req->default_port) ||
	    (req->fingerprint && strlen(req->fingerprint) != 64)) {
		uv_timer_start(&c->timer, on_start_failed, 0, 0);
		return;
	}
	if (req->fingerprint)
		memcpy(c->fingerprint, req->fingerprint, 65);
	build_request(c, req);
	uv_timer_start(&c->timer, on_timeout, timeout, 0);
	c->open++;
	if (uv_getaddrinfo(loop, &c->resolve, on_resolved, c->host, c->port,
			   &hints) < 0) {
		c->open--;
		uv_timer_start(&c->timer, on_start_failed, 0, 0);
	}
}
