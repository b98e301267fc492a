/* The network: pipes behave as TCP connections do. What one end sends arrives
 * in order and once, late when the network is slow or loses packets (they are
 * sent again); when the way is cut it waits, and is delivered when the way is
 * back, or is lost with the connection when the kernel gives up. Another pipe's
 * messages may overtake it.
 */
#include "tests/sim/sim.h"

#include <string.h>

#define GIVE_UP_US (3 * SEC) /* unacknowledged for so long: link_conn.c */
#define HANDSHAKE_US (5 * SEC) /* LINK_HANDSHAKE_MS */
#define BYTES_PER_US 100

static struct list pipes;

void net_init(void)
{
	list_init(&pipes);
	memset(sim->cut, 0, sizeof sim->cut);
}

int64_t net_delay(size_t bytes)
{
	const struct shape *s = &sim->shape;
	int64_t d = s->delay_min + sim_spread(s->delay_mean) +
		    (int64_t)(bytes / BYTES_PER_US);

	if (sim_chance(s->spike_permille))
		d += sim_chance(300) ? sim_between(200 * MS, 900 * MS)
				     : sim_spread(30 * MS);
	return d;
}

static struct node *node_of(const struct pipe *p, int side)
{
	return side == 1 ? p->to
	       : p->end[0].life ? p->end[0].life->node
				: NULL;
}

static bool is_cut(const struct pipe *p, int to)
{
	const struct node *a = node_of(p, !to), *b = node_of(p, to);

	return a && b && sim->cut[a->i][b->i];
}

/* --- one message --- */

static void message_drop(void *data)
{
	struct message *m = data;

	m->free(m);
}

static void hold(struct pipe *p, struct message *m);

static void on_message(void *data)
{
	struct message *m = data;
	struct pipe_end *e = &m->pipe->end[m->to];

	if (!e->open || !e->ops) {
		m->free(m);
		return;
	}
	e->ops->message(e->data, m);
}

/* The way may have been cut while it travelled. */
static void on_arrive(void *data)
{
	struct message *m = data;
	struct pipe_end *e = &m->pipe->end[m->to];

	if (!e->open || !e->life) {
		m->free(m);
	} else if (is_cut(m->pipe, m->to) || !list_empty(&e->held)) {
		hold(m->pipe, m);
	} else {
		sim_at(sim->now, e->life, on_message, message_drop, m);
	}
}

static void send_at(struct pipe *p, struct message *m, int64_t at)
{
	struct pipe_end *e = &p->end[m->to];

	e->last_at = MAX(at, e->last_at + 1);
	sim_at(e->last_at, NULL, on_arrive, message_drop, m);
}

void pipe_send(struct pipe *p, int from, struct message *m)
{
	m->pipe = p;
	m->to = !from;
	list_init(&m->in_held);
	if (!p->end[from].open || !life_effect(sim->cur)) {
		m->free(m);
		return;
	}
	send_at(p, m, sim->now + net_delay(m->n));
}

/* --- ends --- */

struct closing {
	struct pipe *pipe;
	int side;
	const char *why;
};

static void free_held(struct pipe_end *e)
{
	while (!list_empty(&e->held)) {
		struct message *m =
			list_entry(e->held.next, struct message, in_held);

		list_remove(&m->in_held);
		m->free(m);
	}
}

static void end_shut(struct pipe_end *e)
{
	e->open = false;
	list_remove(&e->in_life);
	free_held(e);
}

static void on_closed(void *data)
{
	struct closing *c = data;
	struct pipe_end *e = &c->pipe->end[c->side];

	if (e->open) {
		end_shut(e);
		if (e->ops)
			e->ops->closed(e->data, c->why);
	}
	free(c);
}

static void close_end_at(struct pipe *p, int side, int64_t at, const char *why)
{
	struct closing *c = xcalloc(1, sizeof *c);

	*c = (struct closing){ p, side, why };
	sim_at(at, p->end[side].life, on_closed, free, c);
}

/* The other end learns of it behind what was sent, or never while the way is
 * cut: then its own keepalive finds out. */
static void tell_other(struct pipe *p, int side, const char *why)
{
	struct pipe_end *o = &p->end[!side];
	int64_t at = MAX(sim->now + net_delay(0), o->last_at + 1);

	if (!o->open || !o->life)
		return;
	if (is_cut(p, !side))
		at = sim->now + sim_between(GIVE_UP_US, 8 * SEC);
	close_end_at(p, !side, at, why);
}

void pipe_close(struct pipe *p, int side)
{
	if (!p->end[side].open)
		return;
	end_shut(&p->end[side]);
	tell_other(p, side, "closed by the peer");
}

void net_life_ended(struct life *l)
{
	list_for_each_safe(it, &l->conns) {
		struct pipe_end *e = list_entry(it, struct pipe_end, in_life);
		struct pipe *p = e->pipe;

		end_shut(e);
		tell_other(p, e == &p->end[1], "reset");
	}
}

/* --- cuts --- */

static void on_give_up(void *data)
{
	struct pipe *p = data;

	for (int to = 0; to < 2; to++) {
		struct pipe_end *e = &p->end[to];

		e->dead_check = false;
		if (list_empty(&e->held))
			continue;
		free_held(e);
		for (int side = 0; side < 2; side++)
			if (p->end[side].open && p->end[side].life)
				close_end_at(p, side,
					     side == to
						     ? sim->now + sim_spread(
								     2 * SEC)
						     : sim->now,
					     "no acknowledgement");
	}
}

static void hold(struct pipe *p, struct message *m)
{
	struct pipe_end *e = &p->end[m->to];

	list_push(&e->held, &m->in_held);
	if (e->dead_check)
		return;
	e->dead_check = true;
	sim_at(sim->now + GIVE_UP_US, NULL, on_give_up, NULL, p);
}

static void release(struct pipe_end *e)
{
	struct list some;
	/* TCP backs off: the next attempt may be some time away. */
	int64_t at = sim->now + sim_spread(300 * MS);

	list_init(&some);
	list_splice(&some, &e->held);
	while (!list_empty(&some)) {
		struct message *m = list_entry(some.next, struct message,
					       in_held);

		list_remove(&m->in_held);
		send_at(m->pipe, m, at);
	}
}

static void release_all(void)
{
	list_for_each(it, &pipes) {
		struct pipe *p = list_entry(it, struct pipe, in_all);

		for (int side = 0; side < 2; side++)
			if (p->end[side].open && !is_cut(p, side))
				release(&p->end[side]);
	}
}

void net_cut(int from, int to, bool cut)
{
	sim->cut[from][to] = cut;
	if (!cut)
		release_all();
}

void net_heal(void)
{
	memset(sim->cut, 0, sizeof sim->cut);
	release_all();
}

void net_break(struct node *a, struct node *b)
{
	list_for_each(it, &pipes) {
		struct pipe *p = list_entry(it, struct pipe, in_all);
		struct node *x = node_of(p, 0), *y = node_of(p, 1);

		if (!((x == a && y == b) || (x == b && y == a)))
			continue;
		for (int side = 0; side < 2; side++)
			if (p->end[side].open && p->end[side].life)
				close_end_at(p, side, sim->now + net_delay(0),
					     "reset");
	}
}

/* --- making a connection --- */

static void on_ready(void *data)
{
	struct pipe *p = data;

	if (!p->end[0].open)
		return;
	p->ready = true;
	p->end[0].ops->ready(p->end[0].data);
}

static void on_accept(void *data)
{
	struct pipe *p = data;
	struct life *l = p->end[1].life;

	if (!p->end[1].open)
		return;
	if (l->accept[p->kind])
		l->accept[p->kind](l->accept_data[p->kind], p);
	if (!p->end[1].ops) {
		pipe_close(p, 1);
		return;
	}
	sim_at(sim->now + net_delay(100), p->end[0].life, on_ready, NULL, p);
}

static void on_syn(void *data)
{
	struct pipe *p = data;
	struct life *l = p->to->life;
	bool cut = is_cut(p, 1) || is_cut(p, 0);

	if (!p->end[0].open)
		return;
	if (cut) {
		close_end_at(p, 0, sim->now + HANDSHAKE_US, "no handshake");
	} else if (!l || l->dead || !l->accept[p->kind]) {
		close_end_at(p, 0, sim->now + net_delay(0), "refused");
	} else {
		p->end[1].life = l;
		p->end[1].open = true;
		list_push(&l->conns, &p->end[1].in_life);
		sim_at(sim->now, l, on_accept, NULL, p);
	}
}

struct pipe *pipe_connect(enum pipe_kind kind, struct node *to,
			  const struct pipe_ops *ops, void *data)
{
	struct pipe *p = xcalloc(1, sizeof *p);

	p->kind = kind;
	p->to = to;
	for (int i = 0; i < 2; i++) {
		p->end[i].pipe = p;
		list_init(&p->end[i].held);
		list_init(&p->end[i].in_life);
	}
	p->end[0].life = sim->cur;
	p->end[0].ops = ops;
	p->end[0].data = data;
	p->end[0].open = true;
	list_push(&sim->cur->conns, &p->end[0].in_life);
	list_push(&pipes, &p->in_all);
	sim_at(sim->now + net_delay(100) + net_delay(2000), NULL, on_syn, NULL,
	       p);
	return p;
}

void pipe_attach(struct pipe *p, const struct pipe_ops *ops, void *data)
{
	p->end[1].ops = ops;
	p->end[1].data = data;
}

void net_free(void)
{
	while (!list_empty(&pipes)) {
		struct pipe *p = list_entry(pipes.next, struct pipe, in_all);

		free_held(&p->end[0]);
		free_held(&p->end[1]);
		list_remove(&p->in_all);
		free(p);
	}
}
