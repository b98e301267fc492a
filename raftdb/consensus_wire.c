#include "raftdb/consensus_wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "raftdb/db_impl.h"
#include "raftdb/raftmsg.h"

#define TURN_BYTES ((size_t)256 * 1024) /* of a snapshot */
#define HEAD_BYTES 128 /* more than a message's, or an entry's */
#define QUEUE_BYTES ((size_t)512 * 1024) /* with more waiting, it waits too */

void wire_init(struct wire *w, struct raft *raft, struct peers *peers)
{
	memset(w, 0, sizeof *w);
	w->raft = raft;
	w->peers = peers;
}

/* --- out --- */

static bool put_part(struct peer *p, enum wire_what what, uint64_t total,
		     uint64_t at, const char *bytes, size_t n)
{
	struct buf *b = peer_frame_begin(p, FRAME_RAFT_PART);

	if (!b)
		return false;
	buf_put_u8(b, (uint8_t)what);
	buf_put_u64(b, total);
	buf_put_u64(b, at);
	buf_append(b, bytes, n);
	peer_frame_end(p);
	return true;
}

static bool put_long(struct peer *p, const struct raft_message *m)
{
	_cleanup_(buf_deinit) struct buf all = BUF_INIT;
	size_t n;

	buf_reserve(&all, raftmsg_size(m));
	if (!raftmsg_put(&all, m))
		return false;
	for (size_t at = 0; at < all.len; at += n) {
		n = MIN(all.len - at, (size_t)WIRE_PART);
		if (!put_part(p, WIRE_MESSAGE, all.len, at, all.data + at, n))
			return false;
	}
	return true;
}

static bool put_message(struct peer *p, const struct raft_message *m)
{
	struct buf *b;

	if (raftmsg_size(m) > WIRE_PART)
		return put_long(p, m);
	b = peer_frame_begin(p, FRAME_RAFT);
	if (!b)
		return false;
	xassert(raftmsg_put(b, m));
	peer_frame_end(p);
	return true;
}

/* The first entries are a message as well. */
static void shorten(struct raft_append_entries *a)
{
	size_t n = HEAD_BYTES;

	for (unsigned i = 0; i < a->n_entries; i++) {
		n += HEAD_BYTES + a->entries[i].buf.len;
		if (n > WIRE_MESSAGE_MAX)
			a->n_entries = i;
	}
}

static struct peer *reach(struct wire *w, uint64_t id)
{
	struct peer *p = w->closing ? NULL : peers_get(w->peers, id);

	return p && p->connected ? p : NULL;
}

static void start_snapshot(struct wire *w, struct raft_io_send *req,
			   const struct raft_message *m, raft_io_send_cb cb,
			   const struct peer *p)
{
	xassert(!w->out.req);
	w->out = (struct wire_out){
		.req = req, .cb = cb, .m = *m, .epoch = p->epoch,
	};
}

int wire_send(struct wire *w, struct raft_io_send *req,
	      const struct raft_message *message, raft_io_send_cb cb)
{
	struct peer *p = reach(w, message->server_id);
	struct raft_message m = *message;

	req->cb = cb;
	if (p && m.type == RAFT_INSTALL_SNAPSHOT) {
		start_snapshot(w, req, &m, cb, p);
		return 0;
	}
	if (m.type == RAFT_APPEND_ENTRIES)
		shorten(&m.append_entries);
	cb(req, p && put_message(p, &m) ? 0 : RAFT_NOCONNECTION);
	return 0;
}

static void end_snapshot(struct wire *w, int status)
{
	struct wire_out out = w->out;

	w->out.req = NULL;
	out.cb(out.req, status);
}

static bool still_leads(const struct wire *w)
{
	return raft_state(w->raft) == RAFT_LEADER &&
	       raft_current_term(w->raft) == w->out.m.install_snapshot.term;
}

bool wire_turn(struct wire *w)
{
	struct wire_out *out = &w->out;
	const struct raft_buffer *data = &out->m.install_snapshot.data;
	struct peer *p;
	size_t n;

	if (!out->req)
		return false;
	p = reach(w, out->m.server_id);
	if (!p || p->epoch != out->epoch || !still_leads(w)) {
		end_snapshot(w, RAFT_NOCONNECTION);
		return false;
	}
	for (size_t sum = 0; out->at < data->len; sum += n) {
		if (sum >= TURN_BYTES)
			return true;
		n = MIN(data->len - out->at, (size_t)WIRE_PART);
		/* When it has gone out, the loop turns. */
		if (peer_queued(p) > QUEUE_BYTES ||
		    !put_part(p, WIRE_SNAPSHOT, data->len, out->at,
			      (char *)data->base + out->at, n))
			return false;
		out->at += n;
	}
	end_snapshot(w, put_message(p, &out->m) ? 0 : RAFT_NOCONNECTION);
	return false;
}

/* --- in --- */

static const size_t limits[WIRE_N] = {
	[WIRE_MESSAGE] = WIRE_MESSAGE_MAX,
	[WIRE_SNAPSHOT] = WIRE_SNAPSHOT_MAX,
};

static void parts_drop(struct wire_parts *in)
{
	free(in->p);
	*in = (struct wire_parts){ 0 };
}

/* Whoever begins has the place. */
static void parts_begin(struct wire_parts *in, uint64_t from, uint64_t total)
{
	parts_drop(in);
	in->p = malloc(total);
	if (!in->p) {
		log_error("no memory for %llu bytes from %016llx",
			  (unsigned long long)total, (unsigned long long)from);
		return;
	}
	in->from = from;
	in->total = total;
}

/* The member's data, if all of it is there; data->base stays NULL otherwise. */
static void take_data(struct wire *w, uint64_t from, struct raft_buffer *data)
{
	struct wire_parts *in = &w->in[WIRE_SNAPSHOT];

	if (in->from != from)
		return;
	if (in->got == in->total && in->total == data->len)
		data->base = TAKE_PTR(in->p);
	parts_drop(in);
}

static bool finish(struct wire *w, const struct peer *from, struct reader *r,
		   struct raft_message *ret)
{
	if (!raftmsg_get(r, ret)) {
		log_warn("peer %016llx sent a malformed message",
			 (unsigned long long)from->id);
		return false;
	}
	ret->server_id = from->id;
	ret->server_address = from->address;
	if (ret->type != RAFT_INSTALL_SNAPSHOT)
		return true;
	take_data(w, from->id, &ret->install_snapshot.data);
	if (ret->install_snapshot.data.base)
		return true;
	raftmsg_free(ret);
	return false;
}

bool wire_on_message(struct wire *w, const struct peer *from, struct reader *r,
		     struct raft_message *ret)
{
	return !w->closing && finish(w, from, r, ret);
}

bool wire_on_part(struct wire *w, const struct peer *from, struct reader *r,
		  struct raft_message *ret)
{
	uint8_t what = reader_u8(r);
	uint64_t total = reader_u64(r), at = reader_u64(r);
	size_t n = (size_t)(r->end - r->p);
	struct wire_parts *in;
	struct reader all;
	bool ok;

	if (w->closing || r->bad || n == 0 || what >= WIRE_N ||
	    total > limits[what])
		return false;
	in = &w->in[what];
	if (at == 0)
		parts_begin(in, from->id, total);
	if (in->from != from->id || in->total != total || in->got != at ||
	    n > total - at)
		return false;
	memcpy(in->p + at, r->p, n);
	in->got += n;
	if (what != WIRE_MESSAGE || in->got < in->total)
		return false;
	all = reader_of(in->p, in->total);
	ok = finish(w, from, &all, ret);
	parts_drop(in);
	return ok;
}

void wire_unheard(struct wire *w, uint64_t id)
{
	for (unsigned i = 0; i < WIRE_N; i++)
		if (w->in[i].from == id)
			parts_drop(&w->in[i]);
}

void wire_close(struct wire *w)
{
	w->closing = true;
	if (w->out.req)
		end_snapshot(w, RAFT_CANCELED);
	for (unsigned i = 0; i < WIRE_N; i++)
		parts_drop(&w->in[i]);
}
