/* libraft's I/O (struct raft_io) on simulated disks and pipes, with the
 * behaviour of the library's own libuv one: terms and votes are on the disk when
 * the call returns; appends, truncations and snapshots are done one after the
 * other, and reported when they are on the disk; a crash leaves what was
 * reported and a random part of what was under way. Messages to a member go
 * over one connection, at most a few wait for it.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <raft.h>
#include <raft/uv.h>
#include <string.h>

#include "base/env.h"
#include "tests/raft_requests.h"

#define CONNECT_RETRY_US (50 * MS)
#define CAPACITY_KIB 32768 /* libraft takes no entries below its own limit */
#define WAITING_MAX 3 /* messages, while there is no connection */

enum op_kind { OP_APPEND_LOG, OP_TRUNCATE, OP_PUT };

/* A disk operation, with copies of all it needs. */
struct op {
	struct list in_ops;
	struct sim_io *io;
	enum op_kind kind;
	uint64_t index; /* first entry; of the snapshot */
	struct disk_entry *entries;
	unsigned n;
	unsigned trailing;
	struct disk_snapshot *snapshot;
	struct raft_io_append *append;
	struct raft_io_snapshot_put *put;
	bool gone; /* never made, or done already */
};

struct get {
	struct sim_io *io;
	struct raft_io_snapshot_get *req;
	struct list in_gets;
};

struct sent { /* a send request to be answered */
	struct sim_io *io;
	struct raft_io_send *req;
	struct list in_sents;
};

struct raft_mail {
	struct message m;
	struct raft_message msg;
};

/* Our connection to another member. */
struct stream {
	struct list in_io;
	struct sim_io *io;
	struct node *to;
	struct pipe *pipe;
	bool ready;
	int64_t retry_at;
	struct list waiting; /* mails, through m.in_held */
	unsigned n_waiting;
};

struct inbound {
	struct list in_io;
	struct sim_io *io;
	struct pipe *pipe;
	struct node *from;
};

struct sim_io {
	struct life *life; /* NULL: bootstrap */
	struct disk *disk;
	struct node *node;
	uv_loop_t *loop;
	struct raft_uv_transport *transport; /* ours, not used */
	struct raft_io *io;
	uv_timer_t timer;
	uv_prepare_t prepare;
	uv_check_t check;
	bool started, closing;
	unsigned n_closing;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	raft_io_close_cb close_cb;
	struct list ops, gets, sents, streams, inbounds;
	bool op_running;
	bool errored; /* a write failed: none works any more */
};

static struct sim_io *of(struct raft_io *io)
{
	return io->impl;
}

/* --- operations --- */

static void disk_put(struct disk *d, struct op *op)
{
	struct disk_snapshot *s = TAKE_PTR(op->snapshot);

	if (op->trailing == 0) {
		disk_truncate(d, 0);
		d->first = s->index + 1;
	} else if (s->index > op->trailing) {
		disk_drop_until(d, s->index - op->trailing);
	}
	snapshot_free(d->snapshot);
	d->snapshot = s;
}

/* n: so many entries of an append only. */
static void disk_do(struct disk *d, struct op *op, unsigned n)
{
	switch (op->kind) {
	case OP_APPEND_LOG:
		for (unsigned i = 0; i < n; i++)
			disk_append(d, op->index + i, &op->entries[i]);
		if (sim->plant == PLANT_LOST_LOG)
			d->unsynced += n;
		break;
	case OP_TRUNCATE:
		disk_truncate(d, op->index);
		break;
	case OP_PUT:
		disk_put(d, op);
		break;
	}
}

static void op_free(struct op *op)
{
	list_remove(&op->in_ops);
	for (unsigned i = 0; i < op->n; i++)
		entry_free(&op->entries[i]);
	free(op->entries);
	snapshot_free(op->snapshot);
	free(op);
}

static void run_ops(struct sim_io *s);

static void op_report(struct op *op, int status)
{
	struct raft_io_append *append = op->append;
	struct raft_io_snapshot_put *put = op->put;

	op_free(op);
	if (append)
		append->cb(append, status);
	if (put)
		put->cb(put, status);
}

static void on_op(void *data)
{
	struct op *op = data;
	struct sim_io *s = op->io;
	struct disk *d = s->disk;

	if (d->stalled_until > sim->now) {
		sim_at(d->stalled_until, s->life, on_op, NULL, op);
		return;
	}
	if (op->kind == OP_APPEND_LOG && d->fail_writes > 0) {
		d->fail_writes--;
		s->errored = true;
		sim_trace("disk: a log write fails");
	}
	if (!s->errored)
		disk_do(d, op, op->n);
	s->op_running = false;
	op_report(op, s->errored ? RAFT_IOERR : 0);
	run_ops(s);
}

static void run_ops(struct sim_io *s)
{
	struct op *op;
	int64_t mean = sim->shape.disk_mean, d;

	if (s->op_running || s->closing)
		return;
	for (;; op_free(op)) {
		if (list_empty(&s->ops))
			return;
		op = list_entry(s->ops.next, struct op, in_ops);
		if (op->kind != OP_TRUNCATE || op->index <= disk_last(s->disk))
			break;
	}
	s->op_running = true;
	d = 20 + sim_spread(mean);
	if (s->disk->slow_until > sim->now)
		d += sim_spread(30 * MS);
	if (op->kind == OP_PUT)
		d += sim_spread(10 * MS);
	sim_at(sim->now + d, s->life, on_op, NULL, op);
}

static struct op *op_new(struct sim_io *s, enum op_kind kind, uint64_t index)
{
	struct op *op = xcalloc(1, sizeof *op);

	op->io = s;
	op->kind = kind;
	op->index = index;
	op->gone = !life_effect(s->life);
	list_push(&s->ops, &op->in_ops);
	return op;
}

/* Some of what was under way got there, in its order; its requests are answered
 * in the closing. */
static void crash_ops(struct sim_io *s)
{
	struct disk *d = s->disk;

	list_for_each(it, &s->ops) {
		struct op *op = list_entry(it, struct op, in_ops);
		unsigned n = op->n;

		if (op->gone || op->io->errored || !sim_chance(500))
			break;
		if (n > 0 && sim_chance(300))
			n = (unsigned)sim_pick(n);
		disk_do(d, op, n);
		if (n < op->n)
			break;
	}
	if (sim->plant == PLANT_LOST_VOTE && sim_chance(500)) {
		d->term = d->synced_term;
		d->vote = d->synced_vote;
	}
	if (sim->plant == PLANT_LOST_LOG && d->unsynced > 0) {
		size_t n = sim_pick(MIN(d->unsynced, (size_t)20) + 1);
		uint64_t keep = d->snapshot ? d->snapshot->index : 1;

		disk_truncate(d, MAX(disk_last(d) + 1 - n, keep + 1));
	}
	d->unsynced = 0;
}

/* An orderly end: all of it. */
void io_life_ending(struct life *l)
{
	if (l->io && !l->io->errored)
		list_for_each(it, &l->io->ops) {
			struct op *op = list_entry(it, struct op, in_ops);

			disk_do(l->io->disk, op, op->n);
			op->gone = true;
		}
}

void io_life_ended(struct life *l)
{
	if (l->io)
		crash_ops(l->io);
}

/* --- struct raft_io: state --- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
	struct sim_io *s = of(io);

	xassert(s->transport->init(s->transport, id, address) == 0);
	uv_timer_init(s->loop, &s->timer);
	uv_prepare_init(s->loop, &s->prepare);
	uv_check_init(s->loop, &s->check);
	s->timer.data = s->prepare.data = s->check.data = s;
	return 0;
}

static char *copy(const void *p, size_t n)
{
	char *q = xmalloc(n + 1);

	if (n > 0)
		memcpy(q, p, n);
	return q;
}

static void *raft_copy(const void *p, size_t n)
{
	void *q = raft_malloc(n + 1);

	xassert(q);
	if (n > 0)
		memcpy(q, p, n);
	return q;
}

/* One batch of memory for all, as libraft wants it. */
static struct raft_entry *batch_of(const struct disk_entry *from, size_t n)
{
	struct raft_entry *ret;
	size_t total = 0, at = 0;
	char *batch;

	if (n == 0)
		return NULL;
	for (size_t i = 0; i < n; i++)
		total += (from[i].n + 7) / 8 * 8;
	ret = raft_calloc(n, sizeof *ret);
	batch = raft_malloc(total + 8);
	xassert(ret && batch);
	for (size_t i = 0; i < n; i++) {
		memcpy(batch + at, from[i].data, from[i].n);
		ret[i].term = from[i].term;
		ret[i].type = (enum raft_entry_type)from[i].type;
		ret[i].buf.base = batch + at;
		ret[i].buf.len = from[i].n;
		ret[i].batch = batch;
		at += (from[i].n + 7) / 8 * 8;
	}
	return ret;
}

static struct raft_snapshot *snapshot_to_raft(const struct disk_snapshot *d)
{
	struct raft_snapshot *ret = raft_calloc(1, sizeof *ret);
	struct raft_buffer conf = { d->configuration, d->configuration_len };

	xassert(ret);
	ret->index = d->index;
	ret->term = d->term;
	ret->configuration_index = d->configuration_index;
	raft_configuration_init(&ret->configuration);
	xassert(raft_configuration_decode(&conf, &ret->configuration) == 0);
	ret->bufs = raft_malloc(sizeof *ret->bufs);
	xassert(ret->bufs);
	ret->bufs[0].base = raft_copy(d->data, d->n);
	ret->bufs[0].len = d->n;
	ret->n_bufs = 1;
	return ret;
}

static struct disk_snapshot *snapshot_of_raft(const struct raft_snapshot *r)
{
	struct disk_snapshot *d = xcalloc(1, sizeof *d);
	struct raft_buffer conf;
	size_t at = 0;

	d->index = r->index;
	d->term = r->term;
	d->configuration_index = r->configuration_index;
	xassert(raft_configuration_encode(&r->configuration, &conf) == 0);
	d->configuration = copy(conf.base, conf.len);
	d->configuration_len = conf.len;
	raft_free(conf.base);
	for (unsigned i = 0; i < r->n_bufs; i++)
		d->n += r->bufs[i].len;
	d->data = xmalloc(d->n + 1);
	for (unsigned i = 0; i < r->n_bufs; i++) {
		memcpy(d->data + at, r->bufs[i].base, r->bufs[i].len);
		at += r->bufs[i].len;
	}
	return d;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote,
		   struct raft_snapshot **snapshot, raft_index *start,
		   struct raft_entry *entries[], size_t *n)
{
	struct disk *d = of(io)->disk;

	*term = d->term;
	*vote = d->vote;
	*snapshot = d->snapshot ? snapshot_to_raft(d->snapshot) : NULL;
	*start = d->n_entries > 0 ? d->first
		 : d->snapshot	  ? d->snapshot->index + 1
				  : 1;
	*entries = batch_of(d->entries, d->n_entries);
	*n = d->n_entries;
	if (d->snapshot && d->n_entries > 0 &&
	    disk_last(d) < d->snapshot->index)
		return RAFT_CORRUPT;
	return 0;
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *c)
{
	struct disk *d = of(io)->disk;
	struct disk_entry e = { .term = 1, .type = RAFT_CHANGE };
	struct raft_buffer buf;

	if (d->term != 0)
		return RAFT_CANTBOOTSTRAP;
	xassert(raft_configuration_encode(c, &buf) == 0);
	e.data = copy(buf.base, buf.len);
	e.n = buf.len;
	raft_free(buf.base);
	d->term = d->synced_term = 1;
	disk_append(d, 1, &e);
	return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *c)
{
	return RAFT_IOERR;
}

/* False: the write of the term or vote fails. */
static bool meta_works(struct sim_io *s)
{
	if (s->life && !life_effect(s->life))
		return false;
	if (s->disk->fail_meta == 0)
		return true;
	s->disk->fail_meta--;
	sim_trace("disk: a write of term or vote fails");
	return false;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
	struct disk *d = of(io)->disk;

	if (!meta_works(of(io)))
		return RAFT_IOERR;
	d->term = term;
	d->vote = 0;
	if (sim->plant != PLANT_LOST_VOTE)
		d->synced_term = d->term;
	return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
	struct disk *d = of(io)->disk;

	if (!meta_works(of(io)))
		return RAFT_IOERR;
	d->vote = id;
	if (sim->plant != PLANT_LOST_VOTE)
		d->synced_vote = d->vote;
	return 0;
}

/* --- log and snapshots --- */

static int io_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct sim_io *s = of(io);
	struct op *op = op_new(s, OP_APPEND_LOG, 0);
	uint64_t next = s->disk->n_entries > 0 ? disk_last(s->disk) + 1
			: s->disk->snapshot   ? s->disk->snapshot->index + 1
					      : 1;

	/* Where it goes is decided by what is queued before it. */
	list_for_each(it, &s->ops) {
		struct op *o = list_entry(it, struct op, in_ops);

		if (o == op)
			break;
		if (o->kind == OP_APPEND_LOG)
			next = o->index + o->n;
		else if (o->kind == OP_TRUNCATE)
			next = MIN(next, o->index);
		else if (o->trailing == 0)
			next = o->index + 1;
	}
	op->index = next;
	req->cb = cb;
	op->append = req;
	op->n = n;
	op->entries = xcalloc(n, sizeof(*op->entries));
	for (unsigned i = 0; i < n; i++) {
		op->entries[i].term = entries[i].term;
		op->entries[i].type = entries[i].type;
		op->entries[i].n = entries[i].buf.len;
		op->entries[i].data = copy(entries[i].buf.base,
					   entries[i].buf.len);
	}
	run_ops(s);
	return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
	op_new(of(io), OP_TRUNCATE, index);
	run_ops(of(io));
	return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct sim_io *s = of(io);
	struct op *op = op_new(s, OP_PUT, snapshot->index);

	op->trailing = trailing;
	op->snapshot = snapshot_of_raft(snapshot);
	req->cb = cb;
	op->put = req;
	if (trailing == 0)
		sim->n_installs++;
	else
		sim->n_snapshots++;
	sim_trace("disk: snapshot %llu of term %llu, %zu bytes%s",
		  (unsigned long long)snapshot->index,
		  (unsigned long long)snapshot->term, op->snapshot->n,
		  trailing == 0 ? ", received" : "");
	run_ops(s);
	return 0;
}

static void get_report(struct get *g, int status)
{
	struct sim_io *s = g->io;
	struct raft_io_snapshot_get *req = g->req;

	list_remove(&g->in_gets);
	free(g);
	xassert(s->disk->snapshot);
	req->cb(req, status ? NULL : snapshot_to_raft(s->disk->snapshot),
		status);
}

static void on_get(void *data)
{
	struct get *g = data;
	struct disk *d = g->io->disk;

	if (d->fail_loads == 0) {
		get_report(g, 0);
		return;
	}
	d->fail_loads--;
	sim_trace("disk: a load of the snapshot fails");
	get_report(g, RAFT_IOERR);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	struct sim_io *s = of(io);
	struct get *g = xcalloc(1, sizeof *g);

	g->io = s;
	g->req = req;
	req->cb = cb;
	list_push(&s->gets, &g->in_gets);
	sim_at(sim->now + sim_spread(5 * MS), s->life, on_get, NULL, g);
	return 0;
}

/* --- messages --- */

static void mail_free(struct message *m)
{
	struct raft_mail *l = container_of(m, struct raft_mail, m);

	if (l->msg.type == RAFT_APPEND_ENTRIES &&
	    l->msg.append_entries.n_entries > 0) {
		raft_free(l->msg.append_entries.entries[0].batch);
		raft_free(l->msg.append_entries.entries);
	} else if (l->msg.type == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&l->msg.install_snapshot.conf);
		raft_free(l->msg.install_snapshot.data.base);
	}
	free(l);
}

static void copy_entries(struct raft_append_entries *a, size_t *bytes)
{
	struct disk_entry *some = xcalloc(a->n_entries + 1, sizeof *some);

	for (unsigned i = 0; i < a->n_entries; i++) {
		some[i].term = a->entries[i].term;
		some[i].type = a->entries[i].type;
		some[i].data = a->entries[i].buf.base;
		some[i].n = a->entries[i].buf.len;
		*bytes += some[i].n;
	}
	a->entries = batch_of(some, a->n_entries);
	free(some);
}

static void copy_install(struct raft_install_snapshot *i, size_t *bytes)
{
	struct raft_buffer conf;

	xassert(raft_configuration_encode(&i->conf, &conf) == 0);
	raft_configuration_init(&i->conf);
	xassert(raft_configuration_decode(&conf, &i->conf) == 0);
	raft_free(conf.base);
	i->data.base = raft_copy(i->data.base, i->data.len);
	*bytes += i->data.len;
}

static struct raft_mail *mail_of(const struct raft_message *msg)
{
	struct raft_mail *l = xcalloc(1, sizeof *l);

	l->msg = *msg;
	l->m.free = mail_free;
	l->m.n = 60;
	if (msg->type == RAFT_APPEND_ENTRIES)
		copy_entries(&l->msg.append_entries, &l->m.n);
	else if (msg->type == RAFT_INSTALL_SNAPSHOT)
		copy_install(&l->msg.install_snapshot, &l->m.n);
	return l;
}

static void stream_send_waiting(struct stream *st)
{
	while (!list_empty(&st->waiting)) {
		struct message *m =
			list_entry(st->waiting.next, struct message, in_held);

		list_remove(&m->in_held);
		st->n_waiting--;
		pipe_send(st->pipe, 0, m);
	}
}

static void stream_drop_waiting(struct stream *st, unsigned keep)
{
	while (st->n_waiting > keep) {
		struct message *m =
			list_entry(st->waiting.next, struct message, in_held);

		list_remove(&m->in_held);
		st->n_waiting--;
		m->free(m);
	}
}

static void on_stream_ready(void *data)
{
	struct stream *st = data;

	st->ready = true;
	stream_send_waiting(st);
}

static void on_stream_message(void *data, struct message *m)
{
	m->free(m);
}

static void on_stream_closed(void *data, const char *why)
{
	struct stream *st = data;

	st->pipe = NULL;
	st->ready = false;
	st->retry_at = sim->now + CONNECT_RETRY_US;
}

static const struct pipe_ops stream_ops = {
	.ready = on_stream_ready,
	.message = on_stream_message,
	.closed = on_stream_closed,
};

static struct stream *stream_to(struct sim_io *s, struct node *to)
{
	struct stream *st;

	list_for_each(it, &s->streams) {
		st = list_entry(it, struct stream, in_io);
		if (st->to == to)
			return st;
	}
	st = xcalloc(1, sizeof *st);
	st->io = s;
	st->to = to;
	list_init(&st->waiting);
	list_push(&s->streams, &st->in_io);
	return st;
}

static void on_sent(void *data)
{
	struct sent *t = data;
	struct raft_io_send *req = t->req;

	list_remove(&t->in_sents);
	free(t);
	req->cb(req, 0);
}

static int io_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *msg, raft_io_send_cb cb)
{
	struct sim_io *s = of(io);
	struct stream *st = stream_to(s, node_by_id(msg->server_id));
	struct raft_mail *l = mail_of(msg);
	struct sent *t = xcalloc(1, sizeof *t);

	if (msg->type == RAFT_APPEND_ENTRIES && !s->life->dead &&
	    !s->life->dying)
		check_leader(s->node, msg->append_entries.term);
	req->cb = cb;
	t->io = s;
	t->req = req;
	list_push(&s->sents, &t->in_sents);
	sim_at(sim->now + 5, s->life, on_sent, NULL, t);
	if (st->ready) {
		pipe_send(st->pipe, 0, &l->m);
		return 0;
	}
	list_init(&l->m.in_held);
	list_push(&st->waiting, &l->m.in_held);
	st->n_waiting++;
	stream_drop_waiting(st, WAITING_MAX);
	if (!st->pipe && sim->now >= st->retry_at && !s->life->dead)
		st->pipe = pipe_connect(PIPE_RAFT, st->to, &stream_ops, st);
	return 0;
}

static void on_in_message(void *data, struct message *m)
{
	struct inbound *in = data;
	struct raft_mail *l = container_of(m, struct raft_mail, m);

	if (in->io->closing || !in->io->started) {
		mail_free(m);
		return;
	}
	l->msg.server_id = in->from->id;
	l->msg.server_address = in->from->me.address;
	in->io->recv(in->io->io, &l->msg);
	free(l);
}

static void on_in_closed(void *data, const char *why)
{
	struct inbound *in = data;

	list_remove(&in->in_io);
	free(in);
}

static const struct pipe_ops in_ops = {
	.message = on_in_message,
	.closed = on_in_closed,
};

static void on_accept(void *data, struct pipe *p)
{
	struct sim_io *s = data;
	struct inbound *in = xcalloc(1, sizeof *in);

	in->io = s;
	in->pipe = p;
	in->from = p->end[0].life->node;
	list_push(&s->inbounds, &in->in_io);
	pipe_attach(p, &in_ops, in);
}

/* --- start and close --- */

static void on_tick(uv_timer_t *t)
{
	struct sim_io *s = t->data;

	s->tick(s->io);
}

static void on_prepare(uv_prepare_t *h)
{
	raft_fire_requests(((struct sim_io *)h->data)->io->data);
}

static void on_check(uv_check_t *h)
{
	raft_fire_requests(((struct sim_io *)h->data)->io->data);
}

static int io_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick,
		    raft_io_recv_cb recv)
{
	struct sim_io *s = of(io);

	s->started = true;
	s->tick = tick;
	s->recv = recv;
	s->life->accept[PIPE_RAFT] = on_accept;
	s->life->accept_data[PIPE_RAFT] = s;
	uv_timer_start(&s->timer, on_tick, ms, ms);
	uv_prepare_start(&s->prepare, on_prepare);
	uv_check_start(&s->check, on_check);
	return 0;
}

static void cancel_all(struct sim_io *s)
{
	while (!list_empty(&s->ops))
		op_report(list_entry(s->ops.next, struct op, in_ops),
			  RAFT_CANCELED);
	while (!list_empty(&s->gets))
		get_report(list_entry(s->gets.next, struct get, in_gets),
			   RAFT_CANCELED);
	while (!list_empty(&s->sents))
		on_sent(list_entry(s->sents.next, struct sent, in_sents));
	list_for_each_safe(it, &s->streams) {
		struct stream *st = list_entry(it, struct stream, in_io);

		stream_drop_waiting(st, 0);
		if (st->pipe)
			pipe_close(st->pipe, 0);
		free(st);
	}
	list_init(&s->streams);
	list_for_each_safe(it, &s->inbounds) {
		struct inbound *in = list_entry(it, struct inbound, in_io);

		pipe_close(in->pipe, 1);
		free(in);
	}
	list_init(&s->inbounds);
}

static void part_closed(struct sim_io *s)
{
	if (--s->n_closing > 0)
		return;
	cancel_all(s);
	s->close_cb(s->io);
}

static void on_handle_closed(uv_handle_t *h)
{
	part_closed(h->data);
}

static void on_transport_closed(struct raft_uv_transport *t)
{
	part_closed(t->data);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct sim_io *s = of(io);

	s->closing = true;
	s->close_cb = cb;
	if (s->life)
		s->life->accept[PIPE_RAFT] = NULL;
	s->n_closing = 4;
	s->transport->data = s;
	s->transport->close(s->transport, on_transport_closed);
	uv_close((uv_handle_t *)&s->timer, on_handle_closed);
	uv_close((uv_handle_t *)&s->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&s->check, on_handle_closed);
}

static raft_time io_time(struct raft_io *io)
{
	return (raft_time)(sim->now / MS + 1000);
}

static int io_random(struct raft_io *io, int min, int max)
{
	return min + (int)sim_pick((uint64_t)(max - min));
}

/* --- in place of raft/uv.h --- */

int raft_uv_init(struct raft_io *io, struct uv_loop_s *loop, const char *dir,
		 struct raft_uv_transport *transport)
{
	struct sim_io *s = xcalloc(1, sizeof *s);
	void *data = io->data;

	/* "sim/N/raft" */
	s->node = node_by_dir(dir);
	s->disk = &s->node->disk;
	s->life = sim->cur;
	s->loop = loop;
	s->transport = transport;
	s->io = io;
	list_init(&s->ops);
	list_init(&s->gets);
	list_init(&s->sents);
	list_init(&s->streams);
	list_init(&s->inbounds);
	if (s->life)
		s->life->io = s;
	memset(io, 0, sizeof *io);
	io->data = data;
	io->version = 2;
	io->capacity = CAPACITY_KIB;
	io->impl = s;
	io->init = io_init;
	io->close = io_close;
	io->load = io_load;
	io->start = io_start;
	io->bootstrap = io_bootstrap;
	io->recover = io_recover;
	io->set_term = io_set_term;
	io->set_vote = io_set_vote;
	io->send = io_send;
	io->append = io_append;
	io->truncate = io_truncate;
	io->snapshot_put = io_snapshot_put;
	io->snapshot_get = io_snapshot_get;
	io->time = io_time;
	io->random = io_random;
	return 0;
}

void raft_uv_close(struct raft_io *io)
{
	struct sim_io *s = of(io);

	if (s->life)
		s->life->io = NULL;
	free(s);
	io->impl = NULL;
}

void raft_uv_set_segment_size(struct raft_io *io, size_t size)
{
}

void raft_uv_set_connect_retry_delay(struct raft_io *io, unsigned ms)
{
}

void raft_uv_set_disk_retry(struct raft_io *io, unsigned ms)
{
}

void raft_uv_set_auto_recovery(struct raft_io *io, bool on)
{
}
