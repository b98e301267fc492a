#include "raftdb/transport.h"

#include <string.h>

#include "raftdb/pump.h"

struct connect {
	struct transport *transport;
	struct raft_uv_connect *req;
	struct link_conn *conn;
	uint64_t id;
	struct list in_transport;
};

static void on_pump_gone(void *data)
{
	struct transport *t = data;

	t->n_pumps--;
	if (t->n_pumps == 0 && t->idle)
		t->idle(t->idle_data);
}

/* The stream's memory is libraft's to free. NULL on failure. */
static struct uv_stream_s *make_stream(struct transport *t, struct link_conn *c)
{
	uv_pipe_t *pipe = raft_malloc(sizeof *pipe);

	xassert(pipe);
	memset(pipe, 0, sizeof *pipe);
	if (pump_new(t->loop, c, pipe, on_pump_gone, t) < 0) {
		raft_free(pipe);
		return NULL;
	}
	t->n_pumps++;
	return (struct uv_stream_s *)pipe;
}

static void finish(struct connect *k, struct uv_stream_s *stream, int status)
{
	struct raft_uv_connect *req = k->req;

	list_remove(&k->in_transport);
	free(k);
	req->cb(req, stream, status);
}

static void on_ready(void *data)
{
	struct connect *k = data;
	struct transport *t = k->transport;
	struct uv_stream_s *s = make_stream(t, k->conn);

	if (s)
		t->connected(t->connected_data, k->id);
	finish(k, s, s ? 0 : RAFT_NOCONNECTION);
}

static void on_closed(void *data, const char *why)
{
	finish(data, NULL, RAFT_NOCONNECTION);
}

static const struct link_conn_ops connect_ops = {
	.ready = on_ready,
	.closed = on_closed,
};

static int do_init(struct raft_uv_transport *uv, raft_id id, const char *address)
{
	struct transport *t = uv->impl;

	uv_timer_init(t->loop, &t->closer);
	t->closer.data = t;
	return 0;
}

static int do_listen(struct raft_uv_transport *uv, raft_uv_accept_cb cb)
{
	struct transport *t = uv->impl;

	t->accept = cb;
	return 0;
}

static int do_connect(struct raft_uv_transport *uv, struct raft_uv_connect *req,
		      raft_id id, const char *address, raft_uv_connect_cb cb)
{
	struct transport *t = uv->impl;
	struct connect *k;

	if (!t->link || t->closing)
		return RAFT_NOCONNECTION;
	k = xcalloc(1, sizeof *k);
	k->transport = t;
	k->req = req;
	k->id = id;
	req->cb = cb;
	k->conn = link_connect(t->link, LINK_STREAM, id, address, &connect_ops,
			       k);
	if (!k->conn) {
		free(k);
		return RAFT_NOCONNECTION;
	}
	list_push(&t->connects, &k->in_transport);
	return 0;
}

static void on_closer_closed(uv_handle_t *h)
{
	struct transport *t = h->data;

	t->close_cb(&t->uv);
}

static void on_close_timer(uv_timer_t *timer)
{
	struct transport *t = timer->data;

	list_for_each_safe(it, &t->connects) {
		struct connect *k = list_entry(it, struct connect, in_transport);

		link_conn_close(k->conn);
		finish(k, NULL, RAFT_CANCELED);
	}
	uv_close((uv_handle_t *)timer, on_closer_closed);
}

/* libraft is in the middle of closing its clients when it calls this: cancel
 * their requests from the loop. */
static void do_close(struct raft_uv_transport *uv, raft_uv_transport_close_cb cb)
{
	struct transport *t = uv->impl;

	t->closing = true;
	t->accept = NULL;
	t->close_cb = cb;
	uv_timer_start(&t->closer, on_close_timer, 0, 0);
}

void transport_init(struct transport *t, uv_loop_t *loop, struct link *link,
		    void (*connected)(void *data, uint64_t id), void *data)
{
	memset(t, 0, sizeof *t);
	t->connected = connected;
	t->connected_data = data;
	t->loop = loop;
	t->link = link;
	list_init(&t->connects);
	t->uv.version = 1;
	t->uv.impl = t;
	t->uv.init = do_init;
	t->uv.listen = do_listen;
	t->uv.connect = do_connect;
	t->uv.close = do_close;
}

void transport_accept(struct transport *t, struct link_conn *c,
		      const struct db_member *m)
{
	struct uv_stream_s *s;

	if (!t->accept)
		return;
	s = make_stream(t, c);
	if (s)
		t->accept(&t->uv, m->id, m->address, s);
}

void transport_when_idle(struct transport *t, void (*idle)(void *data),
			 void *data)
{
	xassert(t->closing);
	t->idle = idle;
	t->idle_data = data;
	if (t->n_pumps == 0)
		idle(data);
}
