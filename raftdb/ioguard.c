#include "raftdb/ioguard.h"

#include <string.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "raftdb/raftmsg.h"

enum held_kind { HELD_APPEND, HELD_PUT, HELD_SEND };

/* A request of libraft's: while the real I/O has it, and when held. */
struct held {
	struct list in_held;
	struct ioguard *guard;
	enum held_kind kind;
	void *request; /* libraft's */
	union {
		raft_io_append_cb append;
		raft_io_snapshot_put_cb put;
		raft_io_send_cb send;
	} cb;
	union { /* what the real I/O gets */
		struct raft_io_append append;
		struct raft_io_snapshot_put put;
	};
};

static struct ioguard *of(struct raft_io *io)
{
	return container_of(io, struct ioguard, io);
}

static void fail(struct ioguard *g, const char *what, int rv)
{
	if (!g->failed)
		log_error("raft log: %s failed: %s: %s", what,
			  raft_strerror(rv), g->io.errmsg);
	g->failed = true;
}

/* --- requests --- */

static struct held *held_new(struct ioguard *g, enum held_kind kind,
			     void *request)
{
	struct held *h = xcalloc(1, sizeof *h);

	h->guard = g;
	h->kind = kind;
	h->request = request;
	list_init(&h->in_held);
	return h;
}

static void hold(struct held *h)
{
	list_push(&h->guard->held, &h->in_held);
}

static void answer(struct held *h, int status)
{
	list_remove(&h->in_held);
	switch (h->kind) {
	case HELD_APPEND:
		h->cb.append(h->request, status);
		break;
	case HELD_PUT:
		h->cb.put(h->request, status);
		break;
	case HELD_SEND:
		h->cb.send(h->request, status);
		break;
	}
	free(h);
}

/* Written, or not. After another write failed, a good end is not told either:
 * what came before it may be missing. */
static void written(struct held *h, const char *what, int status)
{
	struct ioguard *g = h->guard;

	if (status == RAFT_CANCELED) { /* closing */
		answer(h, status);
		return;
	}
	if (status != 0)
		fail(g, what, status);
	if (g->failed)
		hold(h);
	else
		answer(h, 0);
}

static void on_appended(struct raft_io_append *req, int status)
{
	failpoint("log.written");
	written(req->data, "a write", status);
}

static int do_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct ioguard *g = of(io);
	struct held *h = held_new(g, HELD_APPEND, req);
	int rv;

	req->cb = cb;
	h->cb.append = cb;
	h->append.data = h;
	if (g->failed) {
		hold(h);
		return 0;
	}
	failpoint("log.write");
	rv = g->real.append(io, &h->append, entries, n, on_appended);
	failpoint("log.writing");
	if (rv != 0) {
		fail(g, "a write", rv);
		hold(h);
	}
	return 0;
}

static void install_free(struct ioguard *g)
{
	struct raft_message *m = TAKE_PTR(g->install);

	if (!m)
		return;
	raft_configuration_close(&m->install_snapshot.conf);
	raft_free(m->install_snapshot.data.base);
	free((char *)m->server_address);
	free(m);
}

static void install_go_on(struct ioguard *g)
{
	struct raft_message *m = g->install;
	char *address;

	if (!m || g->putting || g->failed || g->closing)
		return;
	g->install = NULL;
	address = (char *)m->server_address;
	g->recv(&g->io, m);
	free(address);
	free(m);
}

/* The leader sends one only, until a long timeout, so none may be lost; of two
 * the newer counts. */
static void on_install(struct ioguard *g, struct raft_message *message)
{
	if (!g->putting) {
		g->recv(&g->io, message);
		return;
	}
	install_free(g);
	g->install = xmalloc(sizeof *g->install);
	*g->install = *message;
	g->install->server_address = xstrdup(message->server_address);
}

/* Entries from..to of a message, in memory of their own: one batch. */
static struct raft_entry *entries_copy(const struct raft_entry *all,
				       unsigned from, unsigned to)
{
	struct raft_entry *ret = raft_calloc(to - from, sizeof *ret);
	size_t total = 8, at = 0;
	char *batch;

	for (unsigned i = from; i < to; i++)
		total += (all[i].buf.len + 7) / 8 * 8;
	batch = raft_malloc(total);
	xassert(ret && batch);
	for (unsigned i = from; i < to; i++) {
		struct raft_entry *e = &ret[i - from];

		*e = all[i];
		e->batch = batch;
		e->buf.base = batch + at;
		memcpy(batch + at, all[i].buf.base, all[i].buf.len);
		at += (all[i].buf.len + 7) / 8 * 8;
	}
	return ret;
}

/* libraft's part of a message: it takes the entries. */
static void give_entries(struct ioguard *g, const struct raft_message *whole,
			 unsigned from, unsigned to)
{
	const struct raft_append_entries *w = &whole->append_entries;
	const struct raft *r = g->io.data;
	struct raft_message part = *whole;
	struct raft_append_entries *a = &part.append_entries;

	if (from > 0) {
		a->prev_log_index = w->prev_log_index + from;
		a->prev_log_term = w->entries[from - 1].term;
	}
	a->n_entries = to - from;
	if (a->n_entries < w->n_entries)
		a->entries = entries_copy(w->entries, from, to);
	/* What is committed stays so. */
	if (a->prev_log_index + a->n_entries < r->commit_index)
		a->leader_commit = MIN(a->leader_commit, r->commit_index);
	g->recv(&g->io, &part);
}

/* A configuration's entry comes first in its part. */
static void on_append_entries(struct ioguard *g,
			      const struct raft_message *message)
{
	const struct raft_append_entries *a = &message->append_entries;
	unsigned from = 0;

	for (unsigned i = 1; i < a->n_entries; i++) {
		if (a->entries[i].type != RAFT_CHANGE)
			continue;
		give_entries(g, message, from, i);
		from = i;
	}
	give_entries(g, message, from, a->n_entries);
	if (from > 0) { /* libraft has got copies */
		raft_free(a->entries[0].batch);
		raft_free(a->entries);
	}
}

static void on_recv(struct raft_io *io, struct raft_message *message)
{
	struct ioguard *g = of(io);
	struct raft *r = g->io.data;

	switch (message->type) {
	case RAFT_APPEND_ENTRIES:
		on_append_entries(g, message);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		on_install(g, message);
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		if (raft_state(r) == RAFT_CANDIDATE)
			g->recv(&g->io, message);
		break;
	default:
		g->recv(&g->io, message);
		break;
	}
}

void ioguard_receive(struct ioguard *g, struct raft_message *message)
{
	if (g->recv && !g->closing)
		on_recv(&g->io, message);
	else
		raftmsg_free(message);
}

static int do_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick,
		    raft_io_recv_cb recv)
{
	struct ioguard *g = of(io);

	g->recv = recv;
	return g->real.start(io, ms, tick, on_recv);
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	struct held *h = req->data;
	struct ioguard *g = h->guard;

	failpoint("snapshot.written");
	g->putting = false;
	written(h, "the write of a snapshot", status);
	if (status == 0)
		install_go_on(g);
}

static int do_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct ioguard *g = of(io);
	struct held *h = held_new(g, HELD_PUT, req);
	int rv;

	req->cb = cb;
	h->cb.put = cb;
	h->put.data = h;
	if (g->failed) {
		hold(h);
		return 0;
	}
	g->putting = true;
	failpoint("snapshot.write");
	rv = g->real.snapshot_put(io, trailing, &h->put, snapshot, on_put);
	if (rv != 0) {
		fail(g, "the write of a snapshot", rv);
		hold(h);
	}
	return 0;
}

/* Nobody may hear what rests on a write that failed. And what libraft has to
 * tell its leader is for nobody when there is none: consensus_suspect(). */
static int do_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *message, raft_io_send_cb cb)
{
	struct ioguard *g = of(io);
	struct raft_message filled = *message;
	struct held *h;

	req->cb = cb;
	if (message->server_id == 0) {
		cb(req, RAFT_NOCONNECTION);
		return 0;
	}
	if (message->type == RAFT_APPEND_ENTRIES_RESULT &&
	    message->append_entries_result.rejected > 0)
		filled.append_entries_result.last_log_index =
			raft_last_index(g->io.data);
	if (message->type == RAFT_REQUEST_VOTE_RESULT)
		filled.request_vote_result.term =
			MAX(message->request_vote_result.term,
			    raft_current_term(g->io.data));
	if (!g->failed)
		return g->real.send(io, req, &filled, cb);
	h = held_new(g, HELD_SEND, req);
	h->cb.send = cb;
	hold(h);
	return 0;
}

/* --- writes that are done when they return --- */

static int done(struct ioguard *g, const char *what, int rv)
{
	if (rv != 0)
		fail(g, what, rv);
	return 0;
}

static int do_set_term(struct raft_io *io, raft_term term)
{
	struct ioguard *g = of(io);

	failpoint("term.write");
	return g->failed ? 0
			 : done(g, "the write of the term",
				g->real.set_term(io, term));
}

static int do_set_vote(struct raft_io *io, raft_id id)
{
	struct ioguard *g = of(io);

	failpoint("vote.write");
	return g->failed ? 0
			 : done(g, "the write of the vote",
				g->real.set_vote(io, id));
}

static int do_truncate(struct raft_io *io, raft_index index)
{
	struct ioguard *g = of(io);

	failpoint("log.truncate");
	return g->failed ? 0
			 : done(g, "a truncation", g->real.truncate(io, index));
}

static void do_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct ioguard *g = of(io);

	g->closing = true;
	install_free(g);
	while (!list_empty(&g->held))
		answer(list_entry(g->held.next, struct held, in_held),
		       RAFT_CANCELED);
	g->real.close(io, cb);
}

void ioguard_arm(struct ioguard *g)
{
	g->real = g->io;
	g->failed = g->closing = g->putting = false;
	g->install = NULL;
	g->io.start = do_start;
	list_init(&g->held);
	g->io.append = do_append;
	g->io.snapshot_put = do_snapshot_put;
	g->io.send = do_send;
	g->io.set_term = do_set_term;
	g->io.set_vote = do_set_vote;
	g->io.truncate = do_truncate;
	g->io.close = do_close;
}
