#include "raftdb/link_impl.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"

#define SWEEP_MS 250
#define TRUST_EVERY 2 /* sweeps */
#define LOG_EVERY 40  /* sweeps: 10 s */
#define LOG_BURST 20  /* lines in that time */

int link_parse_address(const char *address, struct sockaddr_storage *ret)
{
	const char *colon = strrchr(address, ':');
	char host[64];
	int64_t port;
	size_t n;

	memset(ret, 0, sizeof *ret);
	if (!colon || !int_parse(colon + 1, strlen(colon + 1), &port) ||
	    port < 1 || port > 65535)
		return -EINVAL;
	n = (size_t)(colon - address);
	if (n > 2 && address[0] == '[' && colon[-1] == ']') {
		address++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof host)
		return -EINVAL;
	memcpy(host, address, n);
	host[n] = 0;
	if (uv_ip4_addr(host, (int)port, (struct sockaddr_in *)ret) == 0 ||
	    uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)ret) == 0)
		return 0;
	return -EINVAL;
}

void link_log(struct link *l, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (l->log_tokens == 0) {
		l->log_dropped++;
		return;
	}
	l->log_tokens--;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	log_warn("peer link: %s", text);
}

void link_handle_closed(struct link *l)
{
	xassert(l->n_handles > 0);
	if (--l->n_handles > 0 || !l->closing)
		return;
	SSL_CTX_free(l->ctx);
	if (l->close_cb)
		l->close_cb(l->close_data);
	free(l);
}

static void on_closed(uv_handle_t *h)
{
	link_handle_closed(h->data);
}

/* A member that was removed from the pool, or has a new certificate, is cut
 * off here. */
static void check_trust(struct link *l, struct link_conn *c)
{
	const struct db_member *m;

	if (c->state != CONN_READY)
		return;
	m = l->ops.trusted(l->ops.data, c->fingerprint);
	if (!m || m->id != c->peer_id)
		conn_fail(c, "no longer a member of this pool");
}

static void on_sweep(uv_timer_t *t)
{
	struct link *l = t->data;
	int64_t now = env_mono_ms();

	if (++l->sweeps % LOG_EVERY == 0) {
		l->log_tokens = LOG_BURST;
		if (l->log_dropped > 0)
			log_warn("peer link: %u more refusals like these",
				 l->log_dropped);
		l->log_dropped = 0;
	}
	list_for_each_safe(it, &l->conns) {
		struct link_conn *c = list_entry(it, struct link_conn, in_link);

		if (c->state < CONN_READY && now >= c->deadline)
			conn_fail(c, "no handshake in %d ms", LINK_HANDSHAKE_MS);
		else if (l->sweeps % TRUST_EVERY == 0)
			check_trust(l, c);
	}
}

static void on_connection(uv_stream_t *s, int status)
{
	struct link *l = s->data;
	struct link_conn *c;

	if (status < 0) {
		link_log(l, "accept: %s", uv_strerror(status));
		return;
	}
	c = conn_new(l);
	if (uv_accept(s, (uv_stream_t *)&c->tcp) < 0) {
		conn_fail(c, "accept failed");
		return;
	}
	c->stranger = true;
	if (++l->n_strangers > LINK_STRANGERS_MAX) {
		conn_fail(c, "too many connections not yet authenticated");
		return;
	}
	conn_start(c, false);
}

static int listen_at(struct link *l, const char *address)
{
	struct sockaddr_storage ss;
	int r = link_parse_address(address, &ss);

	if (r < 0) {
		log_error("peer link: %s is not an address like 10.0.0.1:8444",
			  address);
		return r;
	}
	r = uv_tcp_bind(&l->listener, (struct sockaddr *)&ss, 0);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&l->listener, 128, on_connection);
	if (r < 0)
		log_error("peer link: cannot listen on %s: %s; is the address "
			  "this host's, and the port free?",
			  address, uv_strerror(r));
	return r;
}

int link_new(uv_loop_t *loop, const struct link_config *cfg,
	     const struct link_ops *ops, struct link **ret)
{
	struct link *l;
	SSL_CTX *ctx = link_tls_context(cfg->cert_file, cfg->key_file);
	int r;

	if (!ctx)
		return -EINVAL;
	/* A peer that hangs up must be an error code, not a signal. */
	signal(SIGPIPE, SIG_IGN);
	l = xcalloc(1, sizeof *l);
	l->loop = loop;
	l->ctx = ctx;
	l->id = cfg->id;
	l->ops = *ops;
	l->log_tokens = LOG_BURST;
	list_init(&l->conns);
	list_init(&l->dirty);
	uv_tcp_init(loop, &l->listener);
	uv_timer_init(loop, &l->sweeper);
	l->listener.data = l->sweeper.data = l;
	l->n_handles = 2;
	r = listen_at(l, cfg->address);
	if (r < 0) {
		link_close(l, NULL, NULL);
		return r;
	}
	uv_timer_start(&l->sweeper, on_sweep, SWEEP_MS, SWEEP_MS);
	*ret = l;
	return 0;
}

void link_close(struct link *l, void (*cb)(void *data), void *data)
{
	xassert(!l->closing);
	l->closing = true;
	l->close_cb = cb;
	l->close_data = data;
	list_for_each_safe(it, &l->conns)
		conn_fail(list_entry(it, struct link_conn, in_link),
			  "shutting down");
	uv_close((uv_handle_t *)&l->listener, on_closed);
	uv_close((uv_handle_t *)&l->sweeper, on_closed);
}

static void on_connect(uv_connect_t *req, int status)
{
	struct link_conn *c = req->data;

	if (c->state == CONN_CLOSED)
		return;
	if (status < 0)
		conn_fail(c, "%s", uv_strerror(status));
	else
		conn_start(c, true);
}

struct link_conn *link_connect(struct link *l, enum link_kind kind, uint64_t id,
			       const char *address,
			       const struct link_conn_ops *ops, void *data)
{
	struct sockaddr_storage ss;
	struct link_conn *c;
	int r;

	if (l->closing)
		return NULL;
	if (link_parse_address(address, &ss) < 0) {
		link_log(l, "member %016llx has the address \"%.64s\", which is "
			    "not like 10.0.0.1:8444",
			 (unsigned long long)id, address);
		return NULL;
	}
	c = conn_new(l);
	c->outgoing = true;
	c->kind = kind;
	c->peer_id = id;
	c->ops = ops;
	c->data = data;
	snprintf(c->address, sizeof c->address, "%s", address);
	c->connect.data = c;
	r = uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&ss,
			   on_connect);
	if (r < 0)
		conn_fail(c, "%s", uv_strerror(r));
	return c;
}

void link_flush(struct link *l)
{
	while (!list_empty(&l->dirty)) {
		struct link_conn *c =
			list_entry(l->dirty.next, struct link_conn, in_dirty);

		list_remove(&c->in_dirty);
		conn_flush(c);
	}
}
