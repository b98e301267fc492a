/* raftdb/link.h over the simulated network: frames arrive whole, several of one
 * flush together. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <string.h>

#include "base/env.h"
#include "raftdb/db_impl.h"

struct link {
	struct life *life;
	struct link_ops ops;
	struct list conns;
	struct list dirty; /* conns with frames, in the order of their making */
	uint64_t made;
	uv_timer_t timer; /* to be closed by the loop as the real one */
	void (*close_cb)(void *data);
	void *close_data;
};

struct link_conn {
	struct list in_link, in_dirty;
	uint64_t number;
	struct link *link;
	struct pipe *pipe;
	int side;
	const struct link_conn_ops *ops;
	void *data;
	struct buf out;
	size_t frame_at;
	uint64_t peer;
};

struct frames {
	struct message m;
	struct buf b;
};

static void frames_free(struct message *m)
{
	struct frames *f = container_of(m, struct frames, m);

	buf_deinit(&f->b);
	free(f);
}

static struct link_conn *conn_new(struct link *l, struct pipe *p, int side,
				  uint64_t peer)
{
	struct link_conn *c = xcalloc(1, sizeof *c);

	c->link = l;
	c->pipe = p;
	c->side = side;
	c->peer = peer;
	c->number = l->made++;
	list_init(&c->in_dirty);
	list_push(&l->conns, &c->in_link);
	return c;
}

static void conn_free(struct link_conn *c)
{
	list_remove(&c->in_link);
	list_remove(&c->in_dirty);
	buf_deinit(&c->out);
	free(c);
}

/* --- what the network says --- */

static void on_ready(void *data)
{
	struct link_conn *c = data;

	c->ops->ready(c->data);
}

static void on_message(void *data, struct message *m)
{
	struct link_conn *c = data;
	struct frames *f = container_of(m, struct frames, m);
	struct pipe *p = c->pipe;
	int side = c->side;
	struct reader r = reader_of(f->b.data, f->b.len);

	while (p->end[side].open && r.p < r.end) {
		size_t n = reader_u32(&r);
		uint8_t type = reader_u8(&r);
		const char *bytes = r.p;

		xassert(!r.bad && n <= (size_t)(r.end - r.p));
		r.p += n;
		if (c->ops && c->ops->frame)
			c->ops->frame(c->data, type, bytes, n);
	}
	frames_free(m);
}

static void on_closed(void *data, const char *why)
{
	struct link_conn *c = data;

	if (c->ops)
		c->ops->closed(c->data, why);
	conn_free(c);
}

static const struct pipe_ops pipe_ops = {
	.ready = on_ready,
	.message = on_message,
	.closed = on_closed,
};

static void on_accept(void *data, struct pipe *p)
{
	struct link *l = data;
	const struct db_member *m = &p->end[0].life->node->me;
	struct link_conn *c;

	m = l->ops.trusted(l->ops.data, m->fingerprint);
	if (!m)
		return;
	c = conn_new(l, p, 1, m->id);
	pipe_attach(p, &pipe_ops, c);
	l->ops.accepted(l->ops.data, c, LINK_MESSAGES, m);
	if (p->end[1].open && !c->ops)
		link_conn_close(c);
}

/* --- raftdb/link.h --- */

static void on_tick(uv_timer_t *t)
{
}

int link_new(uv_loop_t *loop, const struct link_config *cfg,
	     const struct link_ops *ops, struct link **ret)
{
	struct link *l = xcalloc(1, sizeof *l);

	l->life = sim->cur;
	l->ops = *ops;
	list_init(&l->conns);
	list_init(&l->dirty);
	l->life->accept[PIPE_LINK] = on_accept;
	l->life->accept_data[PIPE_LINK] = l;
	uv_timer_init(loop, &l->timer);
	l->timer.data = l;
	uv_timer_start(&l->timer, on_tick, 1000, 1000);
	*ret = l;
	return 0;
}

static void on_link_closed(uv_handle_t *h)
{
	struct link *l = h->data;

	l->close_cb(l->close_data);
	free(l);
}

void link_close(struct link *l, void (*cb)(void *data), void *data)
{
	l->close_cb = cb;
	l->close_data = data;
	l->life->accept[PIPE_LINK] = NULL;
	list_for_each_safe(it, &l->conns)
		link_conn_close(list_entry(it, struct link_conn, in_link));
	uv_close((uv_handle_t *)&l->timer, on_link_closed);
}

struct link_conn *link_connect(struct link *l, enum link_kind kind, uint64_t id,
			       const char *address,
			       const struct link_conn_ops *ops, void *data)
{
	struct node *to = node_by_address(address);
	struct link_conn *c;

	xassert(kind == LINK_MESSAGES && to && to->id == id);
	c = conn_new(l, NULL, 0, id);
	c->ops = ops;
	c->data = data;
	c->pipe = pipe_connect(PIPE_LINK, to, &pipe_ops, c);
	return c;
}

void link_conn_attach(struct link_conn *c, const struct link_conn_ops *ops,
		      void *data)
{
	c->ops = ops;
	c->data = data;
}

void link_conn_close(struct link_conn *c)
{
	c->ops = NULL;
	pipe_close(c->pipe, c->side);
	conn_free(c);
}

static void make_dirty(struct link_conn *c)
{
	struct list *at = c->link->dirty.prev;

	while (at != &c->link->dirty &&
	       list_entry(at, struct link_conn, in_dirty)->number > c->number)
		at = at->prev;
	list_push(at->next, &c->in_dirty);
}

struct buf *link_frame_begin(struct link_conn *c, uint8_t type)
{
	if (c->out.len > LINK_QUEUE_MAX)
		return NULL;
	if (c->out.len == 0)
		make_dirty(c);
	c->frame_at = c->out.len;
	buf_put_u32(&c->out, 0);
	buf_put_u8(&c->out, type);
	return &c->out;
}

/* PLANT_NO_CONFIRM: whoever is asked said yes at once. */
static void forge_confirmation(struct link_conn *c, const char *payload)
{
	char yes[9];

	memcpy(yes, payload, 8);
	yes[8] = 1;
	list_for_each(it, &c->link->conns) {
		struct link_conn *in = list_entry(it, struct link_conn, in_link);

		if (in->side == 1 && in->peer == c->peer && in->ops) {
			in->ops->frame(in->data, FRAME_CONFIRMED, yes, 9);
			return;
		}
	}
}

void link_frame_end(struct link_conn *c)
{
	char *head = c->out.data + c->frame_at;
	uint32_t n = (uint32_t)(c->out.len - c->frame_at - 5);

	for (int i = 0; i < 4; i++)
		head[i] = (char)(n >> (8 * i));
	if (sim->plant == PLANT_NO_CONFIRM && head[4] == FRAME_CONFIRM)
		forge_confirmation(c, head + 5);
}

void link_flush(struct link *l)
{
	while (!list_empty(&l->dirty)) {
		struct link_conn *c = list_entry(l->dirty.next,
						 struct link_conn, in_dirty);
		struct frames *f = xcalloc(1, sizeof *f);

		list_remove(&c->in_dirty);
		f->m.free = frames_free;
		f->m.n = c->out.len;
		f->b = c->out;
		c->out = (struct buf)BUF_INIT;
		pipe_send(c->pipe, c->side, &f->m);
	}
}

int link_parse_address(const char *address, struct sockaddr_storage *ret)
{
	return node_by_address(address) ? 0 : -EINVAL;
}

size_t link_conn_queued(const struct link_conn *c)
{
	return 0;
}

void link_conn_pause(struct link_conn *c, bool pause)
{
}
