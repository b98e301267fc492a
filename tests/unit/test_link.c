/* The links between members, and what strangers and broken peers do to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "raftdb/link.h"
#include "tests/unit/db_help.h"

/* One side: a link, and what it saw. */
struct side {
	struct node *node;
	struct link *link;
	struct link_conn *accepted, *out;
	unsigned n_ready, n_frames, n_closed, n_accepted;
	uint64_t from;
	size_t bytes;
	uint64_t sum;
	char why[160], frame[64];
	uint8_t frame_type;
};

static void on_ready(void *data)
{
	((struct side *)data)->n_ready++;
}

static void on_frame(void *data, uint8_t type, const char *p, size_t n)
{
	struct side *s = data;

	s->n_frames++;
	s->frame_type = type;
	s->bytes += n;
	for (size_t i = 0; i < n; i++)
		s->sum = s->sum * 31 + (uint8_t)p[i];
	snprintf(s->frame, sizeof s->frame, "%.*s", (int)MIN(n, 60), p);
}

static void on_closed(void *data, const char *why)
{
	struct side *s = data;

	s->n_closed++;
	snprintf(s->why, sizeof s->why, "%s", why);
	s->accepted = s->out = NULL;
}

static const struct link_conn_ops conn_ops = {
	.ready = on_ready,
	.frame = on_frame,
	.closed = on_closed,
};

static void on_accepted(void *data, struct link_conn *c, enum link_kind kind,
			const struct db_member *m)
{
	struct side *s = data;

	s->n_accepted++;
	s->from = m->id;
	s->accepted = c;
	link_conn_attach(c, &conn_ops, s);
}

static const struct db_member *on_trusted(void *data, const char *fingerprint)
{
	return node_trusted(((struct side *)data)->node, fingerprint);
}

static void side_open(struct side *s, struct node *n)
{
	const struct link_config cfg = {
		.address = n->me.address,
		.id = n->cfg.id,
		.cert_file = n->cert,
		.key_file = n->key,
	};
	const struct link_ops ops = { s, on_trusted, on_accepted };

	memset(s, 0, sizeof *s);
	s->node = n;
	assert_int_equal(link_new(&n->pool->loop, &cfg, &ops, &s->link), 0);
}

static void side_close(struct side *s)
{
	bool closed = false;

	link_close(s->link, set_true, &closed);
	wait_for(s->node->pool, 5000, closed);
}

static void side_connect(struct side *s, enum link_kind kind, struct node *to)
{
	s->out = link_connect(s->link, kind, to->me.id, to->me.address,
			      &conn_ops, s);
	assert_non_null(s->out);
}

struct world {
	struct pool *pool;
	struct side a, b;
};

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);

	w->pool = pool_new_in("/tmp");
	side_open(&w->a, &w->pool->nodes[0]);
	side_open(&w->b, &w->pool->nodes[1]);
	log_set_level(getenv("VERBOSE") ? LOG_LEVEL_DEBUG : -1);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	side_close(&w->a);
	side_close(&w->b);
	pool_free(w->pool);
	free(w);
	return 0;
}

static void send_frame(struct link_conn *c, uint8_t type, const void *p, size_t n)
{
	struct buf *b = link_frame_begin(c, type);

	assert_non_null(b);
	buf_append(b, p, n);
	link_frame_end(c);
}

static void connected(struct world *w, enum link_kind kind)
{
	side_connect(&w->a, kind, w->b.node);
	wait_for(w->pool, 5000, w->a.n_ready && w->b.n_accepted);
	assert_int_equal(w->b.from, w->a.node->me.id);
}

static void test_frames(void **state)
{
	struct world *w = *state;
	char *big = xcalloc(1, LINK_FRAME_MAX);

	connected(w, LINK_MESSAGES);
	send_frame(w->a.out, 7, "hello", 5);
	send_frame(w->a.out, 8, NULL, 0);
	link_flush(w->a.link);
	wait_for(w->pool, 5000, w->b.n_frames == 2);
	assert_int_equal(w->b.frame_type, 8);
	send_frame(w->a.out, 9, big, LINK_FRAME_MAX);
	send_frame(w->a.out, 10, "end", 3);
	link_flush(w->a.link);
	wait_for(w->pool, 5000, w->b.n_frames == 4);
	assert_int_equal(w->b.bytes, 5 + LINK_FRAME_MAX + 3);
	assert_string_equal(w->b.frame, "end");
	/* the other way */
	send_frame(w->b.accepted, 1, "back", 4);
	link_flush(w->b.link);
	wait_for(w->pool, 5000, w->a.n_frames == 1);
	/* a queue that nobody empties has an end */
	while (link_frame_begin(w->a.out, 1)) {
		struct buf *b;

		link_frame_end(w->a.out);
		b = link_frame_begin(w->a.out, 1);
		if (!b)
			break;
		buf_append(b, big, LINK_FRAME_MAX);
		link_frame_end(w->a.out);
	}
	assert_in_range(link_conn_queued(w->a.out), LINK_QUEUE_MAX,
			LINK_QUEUE_MAX + 2 * LINK_FRAME_MAX);
	free(big);
	link_conn_close(TAKE_PTR(w->a.out));
	wait_for(w->pool, 5000, w->b.n_closed == 1);
	assert_int_equal(w->a.n_closed, 0);
}

static void test_pause(void **state)
{
	struct world *w = *state;
	static char chunk[100000];
	uint64_t sum = 0;
	size_t sent = 0;

	connected(w, LINK_MESSAGES);
	link_conn_pause(w->b.accepted, true);
	while (link_conn_queued(w->a.out) < LINK_QUEUE_HIGH) {
		for (size_t i = 0; i < sizeof chunk; i++) {
			chunk[i] = (char)(i * 7 + sent);
			sum = sum * 31 + (uint8_t)chunk[i];
		}
		send_frame(w->a.out, 9, chunk, sizeof chunk);
		link_flush(w->a.link);
		sent += sizeof chunk;
		run_for(w->pool, 1);
	}
	run_for(w->pool, 50);
	assert_int_equal(w->b.bytes, 0);
	link_conn_pause(w->b.accepted, false);
	wait_for(w->pool, 5000, w->b.bytes == sent);
	assert_true(w->b.sum == sum);
	wait_for(w->pool, 1000, link_conn_queued(w->a.out) == 0);
}

static void test_refusals(void **state)
{
	struct world *w = *state;
	struct side c;
	struct node *other = &w->pool->nodes[2];

	/* not trusted by the acceptor */
	side_open(&c, &w->pool->nodes[3]);
	side_connect(&c, LINK_MESSAGES, w->b.node);
	wait_for(w->pool, 5000, c.n_closed == 1);
	assert_int_equal(w->b.n_accepted, 0);
	/* not trusted by the connector */
	c.n_closed = 0;
	side_connect(&w->a, LINK_MESSAGES, c.node);
	wait_for(w->pool, 5000, w->a.n_closed == 1);
	assert_non_null(strstr(w->a.why, "not a member of this pool"));
	assert_non_null(strstr(w->a.why, c.node->me.fingerprint));
	assert_int_equal(c.n_accepted, 0);
	/* a member that claims to be another */
	other->cfg.id = 12345;
	side_close(&c);
	side_open(&c, other);
	side_connect(&c, LINK_MESSAGES, w->b.node);
	wait_for(w->pool, 5000, c.n_closed == 1);
	assert_int_equal(w->b.n_accepted, 0);
	/* another member answers at that address */
	other->cfg.id = other->me.id;
	w->a.n_closed = 0;
	w->a.out = link_connect(w->a.link, LINK_MESSAGES, other->me.id,
				w->b.node->me.address, &conn_ops, &w->a);
	wait_for(w->pool, 5000, w->a.n_closed == 1);
	assert_non_null(strstr(w->a.why, "in the place of"));
	/* nobody listens; an address that is none */
	side_close(&c);
	side_connect(&w->a, LINK_MESSAGES, other);
	wait_for(w->pool, 5000, w->a.n_closed == 2);
	assert_null(link_connect(w->a.link, LINK_MESSAGES, 5, "nowhere",
				 &conn_ops, &w->a));
	assert_int_equal(w->b.n_accepted, 0);
}

static void test_trust_ends(void **state)
{
	struct world *w = *state;

	connected(w, LINK_MESSAGES);
	w->pool->trusted[0] = false;
	wait_for(w->pool, 2000, w->a.n_closed == 1 && w->b.n_closed == 1);
}

/* --- raw bytes at the port --- */

static int dial(struct node *n)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_storage ss;

	assert_int_equal(link_parse_address(n->me.address, &ss), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss,
				 sizeof(struct sockaddr_in)), 0);
	return fd;
}

static bool hung_up(int fd)
{
	char c[512];
	ssize_t n = recv(fd, c, sizeof c, MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void test_garbage(void **state)
{
	struct world *w = *state;
	int fd = dial(w->b.node);

	assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
	wait_for(w->pool, 1000, hung_up(fd));
	close(fd);
	connected(w, LINK_MESSAGES);
}

static void test_silent_strangers(void **state)
{
	struct world *w = *state;
	int fds[LINK_STRANGERS_MAX + 10];
	unsigned refused = 0;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = dial(w->b.node);
		uv_run(&w->pool->loop, UV_RUN_NOWAIT);
	}
	run_for(w->pool, 50);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		refused += hung_up(fds[i]);
	assert_int_equal(refused, 10);
	/* they fall off after the handshake time, and a member gets in */
	wait_for(w->pool, LINK_HANDSHAKE_MS + 1000, hung_up(fds[0]));
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	connected(w, LINK_MESSAGES);
}

/* A TLS client of our own, to send what a link would not. */
struct tls {
	int fd;
	SSL_CTX *ctx;
	SSL *ssl;
};

static void tls_dial(struct tls *t, struct world *w, struct node *as,
		     struct node *to)
{
	int64_t end = env_mono_ms() + 5000;
	int r;

	t->ctx = SSL_CTX_new(TLS_client_method());
	if (as) {
		SSL_CTX_use_certificate_chain_file(t->ctx, as->cert);
		SSL_CTX_use_PrivateKey_file(t->ctx, as->key, SSL_FILETYPE_PEM);
	}
	t->fd = dial(to);
	t->ssl = SSL_new(t->ctx);
	SSL_set_fd(t->ssl, t->fd);
	fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) | O_NONBLOCK);
	while ((r = SSL_connect(t->ssl)) != 1) {
		assert_int_equal(SSL_get_error(t->ssl, r),
				 SSL_ERROR_WANT_READ);
		assert_true(env_mono_ms() < end);
		uv_run(&w->pool->loop, UV_RUN_ONCE);
	}
}

static bool tls_ended(struct tls *t)
{
	char c[512];
	int n = SSL_read(t->ssl, c, sizeof c);

	return n <= 0 && SSL_get_error(t->ssl, n) != SSL_ERROR_WANT_READ;
}

static void tls_close(struct tls *t)
{
	SSL_free(t->ssl);
	SSL_CTX_free(t->ctx);
	close(t->fd);
}

static void test_no_client_certificate(void **state)
{
	struct world *w = *state;
	struct tls t;

	tls_dial(&t, w, NULL, w->b.node);
	wait_for(w->pool, 2000, tls_ended(&t));
	tls_close(&t);
	assert_int_equal(w->b.n_accepted, 0);
}

static void put_preamble(struct buf *b, const char *magic, uint8_t version,
			 uint8_t kind, uint64_t from, uint64_t to)
{
	buf_puts(b, magic);
	buf_put_u8(b, version);
	buf_put_u8(b, kind);
	buf_put_u64(b, from);
	buf_put_u64(b, to);
}

static void test_bad_greetings(void **state)
{
	struct world *w = *state;
	uint64_t a = w->a.node->me.id, b = w->b.node->me.id;
	const struct {
		const char *magic;
		uint8_t version, kind;
		uint64_t from, to;
	} bad[] = {
		{ "XXXX", 2, 1, a, b }, { "XPLK", 1, 1, a, b },
		{ "XPLK", 2, 3, a, b }, { "XPLK", 2, 2, a, b }, { "XPLK", 2, 1, b, b },
		{ "XPLK", 2, 1, a, a }, { "XPLK", 2, 1, 0, b },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		_cleanup_(buf_deinit) struct buf p = BUF_INIT;
		struct tls t;

		tls_dial(&t, w, w->a.node, w->b.node);
		put_preamble(&p, bad[i].magic, bad[i].version, bad[i].kind,
			     bad[i].from, bad[i].to);
		assert_int_equal(SSL_write(t.ssl, p.data, (int)p.len), p.len);
		wait_for(w->pool, 2000, tls_ended(&t));
		tls_close(&t);
	}
	assert_int_equal(w->b.n_accepted, 0);
}

static void test_bad_frames(void **state)
{
	struct world *w = *state;
	const uint32_t lengths[] = { 0, LINK_FRAME_MAX + 2, 0xffffffff };

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		_cleanup_(buf_deinit) struct buf p = BUF_INIT;
		struct tls t;

		tls_dial(&t, w, w->a.node, w->b.node);
		put_preamble(&p, "XPLK", 2, LINK_MESSAGES, w->a.node->me.id,
			     w->b.node->me.id);
		buf_put_u32(&p, lengths[i]);
		buf_put_u8(&p, 1);
		assert_int_equal(SSL_write(t.ssl, p.data, (int)p.len), p.len);
		wait_for(w->pool, 2000, tls_ended(&t));
		tls_close(&t);
		wait_for(w->pool, 2000, w->b.n_closed == i + 1);
		assert_int_equal(w->b.n_accepted, i + 1);
		assert_int_equal(w->b.n_frames, 0);
	}
}

/* Greeting and frames byte by byte. */
static void test_slow_peer(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_deinit) struct buf p = BUF_INIT;
	struct tls t;

	tls_dial(&t, w, w->a.node, w->b.node);
	put_preamble(&p, "XPLK", 2, LINK_MESSAGES, w->a.node->me.id,
		     w->b.node->me.id);
	buf_put_u32(&p, 4);
	buf_put_u8(&p, 5);
	buf_puts(&p, "abc");
	for (size_t i = 0; i < p.len; i++) {
		assert_int_equal(SSL_write(t.ssl, p.data + i, 1), 1);
		run_for(w->pool, 1);
	}
	wait_for(w->pool, 1000, w->b.n_frames == 1);
	assert_string_equal(w->b.frame, "abc");
	tls_close(&t);
	wait_for(w->pool, 1000, w->b.n_closed == 1);
}

static void test_addresses(void **state)
{
	struct sockaddr_storage ss;
	const char *const bad[] = { "", ":", "1.2.3.4", "1.2.3.4:", ":80",
				    "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:x",
				    "host:80", "[::1:80", "1.2.3:80" };

	assert_int_equal(link_parse_address("1.2.3.4:80", &ss), 0);
	assert_int_equal(ss.ss_family, AF_INET);
	assert_int_equal(link_parse_address("[::1]:80", &ss), 0);
	assert_int_equal(ss.ss_family, AF_INET6);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(link_parse_address(bad[i], &ss), -EINVAL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_frames),
		T(test_pause),
		T(test_refusals),
		T(test_trust_ends),
		T(test_garbage),
		T(test_silent_strangers),
		T(test_no_client_certificate),
		T(test_bad_greetings),
		T(test_bad_frames),
		T(test_slow_peer),
		cmocka_unit_test(test_addresses),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
