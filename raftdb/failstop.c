#include "raftdb/failstop.h"

#include <string.h>

#include "base/log.h"

enum held_kind { HELD_APPEND, HELD_PUT, HELD_SEND };

/* A request of libraft's: while the real I/O has it, and when held. */
struct held {
	struct list in_held;
	struct failstop *failstop;
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

static struct failstop *of(struct raft_io *io)
{
	return container_of(io, struct failstop, io);
}

static void fail(struct failstop *f, const char *what, int rv)
{
	if (!f->failed)
		log_error("raft log: %s failed: %s: %s", what,
			  raft_strerror(rv), f->io.errmsg);
	f->failed = true;
}

/* --- requests --- */

static struct held *held_new(struct failstop *f, enum held_kind kind,
			     void *request)
{
	struct held *h = xcalloc(1, sizeof *h);

	h->failstop = f;
	h->kind = kind;
	h->request = request;
	list_init(&h->in_held);
	return h;
}

static void hold(struct held *h)
{
	list_push(&h->failstop->held, &h->in_held);
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
	struct failstop *f = h->failstop;

	if (status == RAFT_CANCELED) { /* closing */
		answer(h, status);
		return;
	}
	if (status != 0)
		fail(f, what, status);
	if (f->failed)
		hold(h);
	else
		answer(h, 0);
}

static void on_appended(struct raft_io_append *req, int status)
{
	written(req->data, "a write", status);
}

static int do_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct failstop *f = of(io);
	struct held *h = held_new(f, HELD_APPEND, req);
	int rv;

	req->cb = cb;
	h->cb.append = cb;
	h->append.data = h;
	if (f->failed) {
		hold(h);
		return 0;
	}
	rv = f->real.append(io, &h->append, entries, n, on_appended);
	if (rv != 0) {
		fail(f, "a write", rv);
		hold(h);
	}
	return 0;
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	written(req->data, "the write of a snapshot", status);
}

static int do_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct failstop *f = of(io);
	struct held *h = held_new(f, HELD_PUT, req);
	int rv;

	req->cb = cb;
	h->cb.put = cb;
	h->put.data = h;
	if (f->failed) {
		hold(h);
		return 0;
	}
	rv = f->real.snapshot_put(io, trailing, &h->put, snapshot, on_put);
	if (rv != 0) {
		fail(f, "the write of a snapshot", rv);
		hold(h);
	}
	return 0;
}

/* Nobody may hear what rests on a write that failed. */
static int do_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *message, raft_io_send_cb cb)
{
	struct failstop *f = of(io);
	struct held *h;

	if (!f->failed)
		return f->real.send(io, req, message, cb);
	h = held_new(f, HELD_SEND, req);
	req->cb = cb;
	h->cb.send = cb;
	hold(h);
	return 0;
}

/* --- writes that are done when they return --- */

static int done(struct failstop *f, const char *what, int rv)
{
	if (rv != 0)
		fail(f, what, rv);
	return 0;
}

static int do_set_term(struct raft_io *io, raft_term term)
{
	struct failstop *f = of(io);

	return f->failed ? 0
			 : done(f, "the write of the term",
				f->real.set_term(io, term));
}

static int do_set_vote(struct raft_io *io, raft_id id)
{
	struct failstop *f = of(io);

	return f->failed ? 0
			 : done(f, "the write of the vote",
				f->real.set_vote(io, id));
}

static int do_truncate(struct raft_io *io, raft_index index)
{
	struct failstop *f = of(io);

	return f->failed ? 0
			 : done(f, "a truncation", f->real.truncate(io, index));
}

static void do_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct failstop *f = of(io);

	while (!list_empty(&f->held))
		answer(list_entry(f->held.next, struct held, in_held),
		       RAFT_CANCELED);
	f->real.close(io, cb);
}

void failstop_arm(struct failstop *f)
{
	f->real = f->io;
	f->failed = false;
	list_init(&f->held);
	f->io.append = do_append;
	f->io.snapshot_put = do_snapshot_put;
	f->io.send = do_send;
	f->io.set_term = do_set_term;
	f->io.set_vote = do_set_vote;
	f->io.truncate = do_truncate;
	f->io.close = do_close;
}
