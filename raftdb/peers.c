#include "raftdb/peers.h"

#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define SILENT_MS 5000 /* a peer's connection to us without a frame */

struct peers {
	struct link *link;
	uint64_t own_id;
	struct peers_ops ops;
	struct list all;
	uv_timer_t timer;
	void (*close_cb)(void *data);
	void *close_data;
};

struct peer *peers_get(struct peers *ps, uint64_t id)
{
	list_for_each(it, &ps->all) {
		struct peer *p = list_entry(it, struct peer, in_peers);

		if (p->id == id)
			return p;
	}
	return NULL;
}

struct peer *peers_next(struct peers *ps, const struct peer *p)
{
	struct list *next = p ? p->in_peers.next : ps->all.next;

	return next == &ps->all ? NULL : list_entry(next, struct peer, in_peers);
}

/* --- our connection to the peer --- */

static void set_connected(struct peer *p, bool connected)
{
	if (p->connected == connected)
		return;
	p->connected = connected;
	if (connected)
		p->epoch++;
	p->peers->ops.changed(p->peers->ops.data, p);
}

static void on_out_ready(void *data)
{
	struct peer *p = data;

	log_info("peer %016llx: connected to %s", (unsigned long long)p->id,
		 p->address);
	p->backoff_ms = BACKOFF_MIN_MS;
	p->complained = p->disowns_us = false;
	set_connected(p, true);
}

static void on_out_stranger(void *data)
{
	((struct peer *)data)->disowns_us = true;
}

static void on_out_frame(void *data, uint8_t type, const char *bytes, size_t n)
{
	/* Peers answer over their own connections. */
}

static void on_out_closed(void *data, const char *why)
{
	struct peer *p = data;

	p->out = NULL;
	if (!p->complained)
		log_info("peer %016llx: no connection to %s: %s",
			 (unsigned long long)p->id, p->address, why);
	p->complained = true;
	p->retry_at = env_mono_ms() + p->backoff_ms;
	p->backoff_ms = MIN(p->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
	set_connected(p, false);
}

static const struct link_conn_ops out_ops = {
	.ready = on_out_ready,
	.stranger = on_out_stranger,
	.frame = on_out_frame,
	.closed = on_out_closed,
};

static void connect_out(struct peer *p)
{
	p->out = link_connect(p->peers->link, LINK_MESSAGES, p->id, p->address,
			      &out_ops, p);
	if (!p->out)
		p->retry_at = env_mono_ms() + BACKOFF_MAX_MS;
}

static void drop_out(struct peer *p)
{
	if (p->out)
		link_conn_close(p->out);
	p->out = NULL;
	p->retry_at = 0;
	p->backoff_ms = BACKOFF_MIN_MS;
	set_connected(p, false);
}

struct buf *peer_frame_begin(struct peer *p, uint8_t type)
{
	return p->connected ? link_frame_begin(p->out, type) : NULL;
}

void peer_frame_end(struct peer *p)
{
	link_frame_end(p->out);
}

size_t peer_queued(const struct peer *p)
{
	return link_conn_queued(p->out);
}

/* --- the peer's connection to us --- */

static void on_in_frame(void *data, uint8_t type, const char *bytes, size_t n)
{
	struct peer *p = data;

	p->heard_at = env_mono_ms();
	p->peers->ops.frame(p->peers->ops.data, p, type, bytes, n);
}

static void on_in_closed(void *data, const char *why)
{
	struct peer *p = data;

	p->in = NULL;
	p->peers->ops.changed(p->peers->ops.data, p);
}

static const struct link_conn_ops in_ops = {
	.frame = on_in_frame,
	.closed = on_in_closed,
};

static struct peer *add(struct peers *ps, uint64_t id, const char *address)
{
	struct peer *p = peers_get(ps, id);

	if (p && strcmp(p->address, address) != 0) {
		snprintf(p->address, sizeof p->address, "%s", address);
		drop_out(p);
	}
	if (p)
		return p;
	p = xcalloc(1, sizeof *p);
	p->id = id;
	p->peers = ps;
	p->heard_at = -1;
	p->backoff_ms = BACKOFF_MIN_MS;
	snprintf(p->address, sizeof p->address, "%s", address);
	list_push(&ps->all, &p->in_peers);
	connect_out(p);
	return p;
}

void peers_accept(struct peers *ps, struct link_conn *c,
		  const struct db_member *m)
{
	struct peer *p;

	if (m->id == ps->own_id)
		return;
	p = peers_get(ps, m->id);
	if (!p)
		p = add(ps, m->id, m->address);
	if (p->in)
		link_conn_close(p->in);
	p->in = c;
	p->heard_at = env_mono_ms();
	link_conn_attach(c, &in_ops, p);
	/* It is alive: no need to wait out a long pause. */
	p->backoff_ms = BACKOFF_MIN_MS;
	p->retry_at = MIN(p->retry_at, p->heard_at + BACKOFF_MIN_MS);
}

/* --- who is a peer --- */

static void forget(struct peer *p)
{
	drop_out(p);
	if (p->in)
		link_conn_close(p->in);
	list_remove(&p->in_peers);
	free(p);
}

void peers_begin_set(struct peers *ps)
{
	list_for_each(it, &ps->all)
		list_entry(it, struct peer, in_peers)->wanted = false;
}

void peers_want(struct peers *ps, uint64_t id, const char *address)
{
	if (id != ps->own_id)
		add(ps, id, address)->wanted = true;
}

void peers_end_set(struct peers *ps)
{
	list_for_each_safe(it, &ps->all) {
		struct peer *p = list_entry(it, struct peer, in_peers);

		if (!p->wanted && !p->in)
			forget(p);
	}
}

/* A peer that only its own connection made known goes with that. */
static void on_tick(uv_timer_t *t)
{
	struct peers *ps = t->data;
	int64_t now = env_mono_ms();

	list_for_each_safe(it, &ps->all) {
		struct peer *p = list_entry(it, struct peer, in_peers);

		if (p->in && now - p->heard_at > SILENT_MS) {
			link_conn_close(p->in);
			p->in = NULL;
		}
		if (!p->wanted && !p->in)
			forget(p);
		else if (!p->out && now >= p->retry_at)
			connect_out(p);
	}
}

struct peers *peers_new(uv_loop_t *loop, struct link *link, uint64_t own_id,
			unsigned tick_ms, const struct peers_ops *ops)
{
	struct peers *ps = xcalloc(1, sizeof *ps);

	ps->link = link;
	ps->own_id = own_id;
	ps->ops = *ops;
	list_init(&ps->all);
	uv_timer_init(loop, &ps->timer);
	ps->timer.data = ps;
	uv_timer_start(&ps->timer, on_tick, tick_ms, tick_ms);
	return ps;
}

static void on_closed(uv_handle_t *h)
{
	struct peers *ps = h->data;

	ps->close_cb(ps->close_data);
	free(ps);
}

void peers_close(struct peers *ps, void (*cb)(void *data), void *data)
{
	ps->close_cb = cb;
	ps->close_data = data;
	list_for_each_safe(it, &ps->all)
		forget(list_entry(it, struct peer, in_peers));
	uv_close((uv_handle_t *)&ps->timer, on_closed);
}
