/* One connection: TCP bytes <-> TLS <-> preamble, frames.
 *
 * Happy path: uv_read -> rbio -> SSL_read -> on_plain; SSL_write -> wbio ->
 * uv_try_write, and what the kernel does not take at once goes to uv_write.
 * Any failure ends in conn_fail(), which closes the handle; the owner hears of
 * it from the handle's close callback, never from inside a call that it made.
 */
#include "raftdb/link_impl.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"

#define MAGIC "XPLK"
#define VERSION 2
#define DEAD_MS 3000 /* unacknowledged for so long: the peer is gone */

enum answer {
	ANSWER_OK,
	ANSWER_VERSION,
	ANSWER_WRONG_ID,
	ANSWER_KIND,
	ANSWER_STRANGER, /* no member of this pool, as far as we know */
};

struct write_req {
	uv_write_t req;
	struct link_conn *conn;
	size_t n;
	char bytes[];
};

struct link_conn *conn_new(struct link *l)
{
	struct link_conn *c = xcalloc(1, sizeof *c);

	c->link = l;
	c->deadline = env_mono_ms() + LINK_HANDSHAKE_MS;
	c->tcp.data = c;
	list_init(&c->in_dirty);
	list_push(&l->conns, &c->in_link);
	xassert(uv_tcp_init(l->loop, &c->tcp) == 0);
	l->n_handles++;
	return c;
}

static void on_conn_closed(uv_handle_t *h)
{
	struct link_conn *c = h->data;
	struct link *l = c->link;

	if (c->ops)
		c->ops->closed(c->data, c->why);
	SSL_free(c->ssl);
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
	link_handle_closed(l);
}

static void not_a_stranger(struct link_conn *c)
{
	if (c->stranger)
		c->link->n_strangers--;
	c->stranger = false;
}

void conn_fail(struct link_conn *c, const char *fmt, ...)
{
	va_list ap;

	if (c->state == CONN_CLOSED)
		return;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof c->why, fmt, ap);
	va_end(ap);
	if (!c->link->closing && !c->outgoing && c->state < CONN_READY)
		link_log(c->link, "refused %s: %s", c->address, c->why);
	not_a_stranger(c);
	c->state = CONN_CLOSED;
	list_remove(&c->in_link);
	list_remove(&c->in_dirty);
	uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

void link_conn_close(struct link_conn *c)
{
	c->ops = NULL;
	conn_fail(c, "closed");
}

void link_conn_attach(struct link_conn *c, const struct link_conn_ops *ops,
		      void *data)
{
	c->ops = ops;
	c->data = data;
}

size_t link_conn_queued(const struct link_conn *c)
{
	return c->queued + c->out.len;
}

/* --- out --- */

static void on_written(uv_write_t *req, int status)
{
	struct write_req *w = container_of(req, struct write_req, req);
	struct link_conn *c = w->conn;

	c->queued -= w->n;
	free(w);
	if (c->state == CONN_CLOSED)
		return;
	if (status < 0)
		conn_fail(c, "%s", uv_strerror(status));
}

static bool write_cipher(struct link_conn *c, const char *p, size_t n)
{
	struct write_req *w;
	uv_buf_t b = uv_buf_init((char *)p, (unsigned)n);
	int r = 0;

	if (c->queued == 0)
		r = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
	if (r == UV_EAGAIN)
		r = 0;
	if (r >= 0 && (size_t)r == n)
		return true;
	if (r >= 0) {
		n -= (size_t)r;
		w = xmalloc(sizeof *w + n);
		memcpy(w->bytes, p + r, n);
		w->conn = c;
		w->n = n;
		b = uv_buf_init(w->bytes, (unsigned)n);
		r = uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written);
		if (r == 0) {
			c->queued += n;
			return true;
		}
		free(w);
	}
	conn_fail(c, "%s", uv_strerror(r));
	return false;
}

static void push_out(struct link_conn *c)
{
	char *p = c->link->tx;
	int n;

	while (c->state != CONN_CLOSED &&
	       (n = BIO_read(c->wbio, p, LINK_SCRATCH)) > 0)
		if (!write_cipher(c, p, (size_t)n))
			return;
}

static void write_plain(struct link_conn *c, const char *p, size_t n)
{
	/* In pieces, so that neither side needs the whole as ciphertext. */
	while (n > 0 && c->state != CONN_CLOSED) {
		size_t part = MIN(n, (size_t)LINK_SCRATCH);
		size_t done = 0;

		ERR_clear_error();
		if (SSL_write_ex(c->ssl, p, part, &done) != 1) {
			conn_fail(c, "TLS write failed");
			return;
		}
		p += done;
		n -= done;
		push_out(c);
	}
}

void conn_flush(struct link_conn *c)
{
	xassert(!c->framing);
	if (c->state != CONN_READY)
		return;
	write_plain(c, c->out.data, c->out.len);
	failpoint("frames.sent");
	c->out.len = 0;
	if (c->out.cap > LINK_QUEUE_HIGH)
		buf_deinit(&c->out);
}

struct buf *link_frame_begin(struct link_conn *c, uint8_t type)
{
	xassert(!c->framing);
	if (c->state != CONN_READY || link_conn_queued(c) > LINK_QUEUE_MAX)
		return NULL;
	c->framing = true;
	c->frame_at = c->out.len;
	buf_put_u32(&c->out, 0);
	buf_put_u8(&c->out, type);
	return &c->out;
}

void link_frame_end(struct link_conn *c)
{
	size_t n = c->out.len - c->frame_at - 4;

	xassert(c->framing && n <= LINK_FRAME_MAX + 1);
	for (int i = 0; i < 4; i++)
		c->out.data[c->frame_at + (size_t)i] = (char)(n >> (8 * i));
	c->framing = false;
	list_remove(&c->in_dirty);
	list_push(&c->link->dirty, &c->in_dirty);
}

/* --- in --- */

static void handle_frames(struct link_conn *c)
{
	size_t at = 0;

	while (c->state == CONN_READY && c->in.len - at >= 5) {
		struct reader r = reader_of(c->in.data + at, 5);
		uint32_t n = reader_u32(&r);
		uint8_t type = reader_u8(&r);

		if (n == 0 || n > LINK_FRAME_MAX + 1) {
			conn_fail(c, "frame of %u bytes", n);
			return;
		}
		if (c->in.len - at < 4 + (size_t)n)
			break;
		if (c->ops)
			c->ops->frame(c->data, type, c->in.data + at + 5, n - 1);
		at += 4 + (size_t)n;
	}
	buf_consume(&c->in, at);
	if (c->in.len == 0 && c->in.cap > LINK_QUEUE_HIGH)
		buf_deinit(&c->in);
}

static const struct db_member *authenticate(struct link_conn *c)
{
	const struct db_member *m = NULL;

	if (!link_tls_fingerprint(c->ssl, c->fingerprint)) {
		conn_fail(c, "it showed no certificate");
		return NULL;
	}
	m = c->link->ops.trusted(c->link->ops.data, c->fingerprint);
	if (!m) {
		conn_fail(c, "certificate %s is not a member of this pool; use "
			     "pool.join", c->fingerprint);
		if (c->outgoing)
			link_log(c->link, "%s: %s", c->address, c->why);
	}
	return m;
}

static void send_preamble(struct link_conn *c)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_puts(&b, MAGIC);
	buf_put_u8(&b, VERSION);
	buf_put_u8(&b, (uint8_t)c->kind);
	buf_put_u64(&b, c->link->id);
	buf_put_u64(&b, c->peer_id);
	xassert(b.len == LINK_PREAMBLE_LEN);
	write_plain(c, b.data, b.len);
}

static void send_answer(struct link_conn *c, enum answer a)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_puts(&b, MAGIC);
	buf_put_u8(&b, VERSION);
	buf_put_u8(&b, (uint8_t)a);
	buf_put_u64(&b, c->link->id);
	xassert(b.len == LINK_ANSWER_LEN);
	write_plain(c, b.data, b.len);
}

static void set_ready(struct link_conn *c)
{
	c->state = CONN_READY;
	not_a_stranger(c);
}

static void on_preamble(struct link_conn *c)
{
	struct reader r = reader_of(c->in.data, LINK_PREAMBLE_LEN);
	bool magic = reader_u32(&r) == 0x4b4c5058; /* "XPLK" */
	uint8_t version = reader_u8(&r), kind = reader_u8(&r);
	uint64_t from = reader_u64(&r), to = reader_u64(&r);
	const struct db_member *m;
	enum answer a = ANSWER_OK;

	if (magic && version == VERSION &&
	    !c->link->ops.trusted(c->link->ops.data, c->fingerprint))
		send_answer(c, ANSWER_STRANGER);
	m = authenticate(c);
	if (!m)
		return;
	if (!magic || version != VERSION)
		a = ANSWER_VERSION;
	else if (from != m->id || to != c->link->id)
		a = ANSWER_WRONG_ID;
	else if (kind != LINK_MESSAGES)
		a = ANSWER_KIND;
	send_answer(c, a);
	if (a != ANSWER_OK) {
		conn_fail(c, "member %.36s sent a bad greeting (%d): version %u, "
			     "from %016llx to %016llx", m->uuid, a, version,
			  (unsigned long long)from, (unsigned long long)to);
		return;
	}
	c->kind = kind;
	c->peer_id = from;
	buf_consume(&c->in, LINK_PREAMBLE_LEN);
	set_ready(c);
	c->link->ops.accepted(c->link->ops.data, c, kind, m);
	if (!c->ops)
		conn_fail(c, "not wanted");
}

static void on_answer(struct link_conn *c)
{
	struct reader r = reader_of(c->in.data, LINK_ANSWER_LEN);
	bool magic = reader_u32(&r) == 0x4b4c5058;
	uint8_t version = reader_u8(&r), status = reader_u8(&r);
	uint64_t id = reader_u64(&r);

	if (magic && status == ANSWER_STRANGER && id == c->peer_id && c->ops &&
	    c->ops->stranger)
		c->ops->stranger(c->data);
	if (!magic || status != ANSWER_OK || id != c->peer_id) {
		conn_fail(c, "greeting refused (%u), version %u, id %016llx",
			  status, version, (unsigned long long)id);
		link_log(c->link, "%s: %s", c->address, c->why);
		return;
	}
	buf_consume(&c->in, LINK_ANSWER_LEN);
	set_ready(c);
	if (c->ops)
		c->ops->ready(c->data);
}

static void on_plain(struct link_conn *c, const char *p, size_t n)
{
	buf_append(&c->in, p, n);
	if (c->state == CONN_PREAMBLE) {
		if (c->in.len < (size_t)(c->outgoing ? LINK_ANSWER_LEN
						     : LINK_PREAMBLE_LEN))
			return;
		if (c->outgoing)
			on_answer(c);
		else
			on_preamble(c);
	}
}

static void handshake(struct link_conn *c)
{
	const struct db_member *m;
	int r, e;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	e = SSL_get_error(c->ssl, r);
	push_out(c);
	if (c->state == CONN_CLOSED || e == SSL_ERROR_WANT_READ)
		return;
	if (r != 1) {
		const char *s = ERR_reason_error_string(ERR_peek_last_error());

		conn_fail(c, "TLS handshake failed: %s", s ? s : "?");
		return;
	}
	c->state = CONN_PREAMBLE;
	if (!c->outgoing) { /* the answer to its preamble tells what we think */
		if (!link_tls_fingerprint(c->ssl, c->fingerprint))
			conn_fail(c, "it showed no certificate");
		return;
	}
	m = authenticate(c);
	if (!m)
		return;
	if (m->id != c->peer_id) {
		conn_fail(c, "%016llx answered in the place of %016llx",
			  (unsigned long long)m->id,
			  (unsigned long long)c->peer_id);
		link_log(c->link, "%s: %s", c->address, c->why);
		return;
	}
	send_preamble(c);
}

/* Works off what the rbio holds. */
static void progress(struct link_conn *c)
{
	char *p = c->link->plain;
	size_t n;

	if (c->state == CONN_HANDSHAKE)
		handshake(c);
	while (c->state == CONN_PREAMBLE || c->state == CONN_READY) {
		if (c->paused)
			break;
		ERR_clear_error();
		if (SSL_read_ex(c->ssl, p, LINK_SCRATCH, &n) == 1) {
			on_plain(c, p, n);
			continue;
		}
		if (SSL_get_error(c->ssl, 0) != SSL_ERROR_WANT_READ)
			conn_fail(c, "TLS connection ended by the peer");
		break;
	}
	if (c->state == CONN_READY)
		handle_frames(c);
	push_out(c);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
	struct link_conn *c = h->data;

	*b = uv_buf_init(c->link->rx, LINK_SCRATCH);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct link_conn *c = s->data;

	if (n == 0 || c->state == CONN_CLOSED)
		return;
	if (n < 0) {
		conn_fail(c, "%s", n == UV_EOF ? "closed by the peer"
					       : uv_strerror((int)n));
		return;
	}
	xassert(BIO_write(c->rbio, b->base, (int)n) == n);
	progress(c);
}

static void set_reading(struct link_conn *c, bool on)
{
	if (c->reading == on || c->state == CONN_CLOSED)
		return;
	c->reading = on;
	if (!on)
		uv_read_stop((uv_stream_t *)&c->tcp);
	else if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0)
		conn_fail(c, "cannot read");
}

void link_conn_pause(struct link_conn *c, bool pause)
{
	if (c->paused == pause || c->state == CONN_CLOSED)
		return;
	c->paused = pause;
	set_reading(c, !pause);
	if (!pause)
		progress(c);
}

static void name_the_peer(struct link_conn *c)
{
	struct sockaddr_storage ss;
	char ip[48] = "?";
	int n = sizeof ss, port = 0;

	if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&ss, &n) < 0)
		return;
	if (ss.ss_family == AF_INET6) {
		uv_ip6_name((struct sockaddr_in6 *)&ss, ip, sizeof ip);
		port = ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
	} else {
		uv_ip4_name((struct sockaddr_in *)&ss, ip, sizeof ip);
		port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	}
	snprintf(c->address, sizeof c->address, "%s:%d", ip, port);
}

void conn_start(struct link_conn *c, bool outgoing)
{
	unsigned dead = DEAD_MS;
	uv_os_fd_t fd;

	name_the_peer(c);
	uv_tcp_nodelay(&c->tcp, 1);
	uv_tcp_keepalive(&c->tcp, 1, 5);
	if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof dead);
	c->outgoing = outgoing;
	c->ssl = SSL_new(c->link->ctx);
	c->rbio = BIO_new(BIO_s_mem());
	c->wbio = BIO_new(BIO_s_mem());
	xassert(c->ssl && c->rbio && c->wbio);
	BIO_set_mem_eof_return(c->rbio, -1);
	BIO_set_mem_eof_return(c->wbio, -1);
	SSL_set_bio(c->ssl, c->rbio, c->wbio);
	if (outgoing)
		SSL_set_connect_state(c->ssl);
	else
		SSL_set_accept_state(c->ssl);
	c->state = CONN_HANDSHAKE;
	set_reading(c, true);
	if (c->state == CONN_HANDSHAKE)
		handshake(c);
}
