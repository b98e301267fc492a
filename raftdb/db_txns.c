/* Transactions on their way to the log and back.
 *
 * The happy path: db_submit() encodes and queues; the flush packs all that is
 * queued into one log entry (on the leader, at most DB_IN_FLIGHT of them at a
 * time) or into FORWARD frames to the leader; apply, here, completes it by its
 * id. Whoever sequences for us at the moment is the target: one leader in one
 * term over one life of our connection to it.
 *
 * When the target changes, what it had is unsure: it may be in the log or not.
 * It is not sent again before that is known, because the store remembers only
 * so many ids. It is known as soon as we have applied
 *   - our own barrier, when we are the leader now: entries of older terms are
 *     before it or never will be;
 *   - or the index of the leader's answer to SYNC: its log ended there after it
 *     had dropped what it had not proposed of ours; older terms as above.
 * A FORWARD carries the term it is meant for, so one that a deposed leader gets
 * late is refused. What was not applied by then is in no log, and is queued
 * again. docs/consistency.md has the argument in full.
 */
#include <errno.h>
#include <string.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "raftdb/db_impl.h"

#define RETRY_MS 20    /* after a refusal */
#define SYNC_ASK_MS 300 /* without an answer: ask again */
#define STALL_MS 5000  /* sent, and nothing heard of it */
#define FORWARDED_BYTES_MAX (128 * 1024 * 1024)

enum pending_state { PENDING_QUEUED, PENDING_SENT, PENDING_UNSURE };

struct pending {
	struct list in_all, in_state;
	enum pending_state state;
	uint64_t tag; /* of the proposal or forward it went with */
	int64_t deadline, sent_at;
	db_txn_cb cb;
	void *data;
	int error;
	struct txn_result result;
	uint8_t id[TXN_ID_LEN];
	size_t n;
	char bytes[]; /* varint length and the encoded transaction */
};

/* Transactions that a peer forwarded in one frame. */
struct chunk {
	struct list in_forwarded;
	uint64_t from, seq;
	uint64_t count;
	size_t n;
	char bytes[];
};

void txns_init(struct txns *t)
{
	env_random(&t->next_tag, sizeof t->next_tag);
	map_init(&t->by_id);
	list_init(&t->all);
	list_init(&t->queued);
	list_init(&t->sent);
	list_init(&t->unsure);
	list_init(&t->done);
	list_init(&t->forwarded);
}

void txns_deinit(struct txns *t)
{
	list_for_each_safe(it, &t->forwarded)
		free(list_entry(it, struct chunk, in_forwarded));
	map_deinit(&t->by_id);
}

/* --- one transaction's end --- */

static void leave_state(struct txns *t, struct pending *p)
{
	if (p->state == PENDING_SENT)
		t->sent_bytes -= p->n;
	list_remove(&p->in_state);
}

static void complete(struct db *db, struct pending *p, int error,
		     struct txn_result result)
{
	struct txns *t = &db->txns;

	leave_state(t, p);
	list_remove(&p->in_all);
	map_del(&t->by_id, (const char *)p->id, TXN_ID_LEN);
	t->n_pending--;
	t->bytes -= p->n;
	p->error = error;
	p->result = result;
	list_push(&t->done, &p->in_state);
	db_kick(db);
}

static void fail(struct db *db, struct pending *p, int error)
{
	complete(db, p, error, (struct txn_result){ .status = TXN_OK });
}

bool txns_fire(struct db *db)
{
	struct list batch;
	bool any = false;

	list_init(&batch);
	list_splice(&batch, &db->txns.done);
	while (!list_empty(&batch)) {
		struct pending *p =
			list_entry(batch.next, struct pending, in_state);

		list_remove(&p->in_state);
		failpoint("txn.done");
		p->cb(p->data, p->error, p->result);
		free(p);
		any = true;
	}
	return any;
}

void txns_applied(struct db *db, const uint8_t id[TXN_ID_LEN],
		  struct txn_result result)
{
	struct pending *p =
		map_get(&db->txns.by_id, (const char *)id, TXN_ID_LEN);

	if (p)
		complete(db, p, 0, result);
}

void txns_restored(struct db *db, bool ids_full)
{
	list_for_each_safe(it, &db->txns.all) {
		struct pending *p = list_entry(it, struct pending, in_all);
		struct txn_result result;

		if (store_txn_seen(db->store, p->id, &result))
			complete(db, p, 0, result);
		else if (ids_full && p->state != PENDING_QUEUED)
			fail(db, p, -ETIMEDOUT); /* perhaps forgotten */
	}
}

void txns_cancel_all(struct db *db, int error)
{
	list_for_each_safe(it, &db->txns.all)
		fail(db, list_entry(it, struct pending, in_all), error);
}

void txns_tick(struct db *db, int64_t now)
{
	struct txns *t = &db->txns;

	list_for_each_safe(it, &t->all) {
		struct pending *p = list_entry(it, struct pending, in_all);

		if (p->deadline > now)
			break;
		fail(db, p, -ETIMEDOUT);
	}
}

/* --- in --- */

static struct pending *encode(struct db *db, const struct txn *t, db_txn_cb cb,
			      void *data)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT, head = BUF_INIT;
	struct pending *p;

	buf_reserve(&b, txn_size(t) + 64);
	txn_encode(&b, t);
	buf_put_varint(&head, b.len);
	p = xmalloc(sizeof *p + head.len + b.len);
	memset(p, 0, sizeof *p);
	memcpy(p->bytes, head.data, head.len);
	memcpy(p->bytes + head.len, b.data, b.len);
	p->n = head.len + b.len;
	memcpy(p->id, t->id, TXN_ID_LEN);
	p->cb = cb;
	p->data = data;
	p->state = PENDING_QUEUED;
	p->deadline = env_mono_ms() + db->txn_timeout_ms;
	list_init(&p->in_all);
	list_init(&p->in_state);
	return p;
}

static int admission(const struct db *db, const struct pending *p)
{
	const struct txns *t = &db->txns;

	if (db->closing)
		return -ECANCELED;
	if (p->n > TXN_MAX_BYTES + 16)
		return -E2BIG;
	if (t->n_pending >= DB_PENDING_MAX || t->bytes + p->n > DB_PENDING_BYTES)
		return -EBUSY;
	if (map_get(&t->by_id, (const char *)p->id, TXN_ID_LEN))
		return -EALREADY;
	return 0;
}

void db_submit(struct db *db, struct txn *takes_t, db_txn_cb cb, void *data)
{
	struct txns *t = &db->txns;
	struct pending *p = encode(db, takes_t, cb, data);
	int error = admission(db, p);
	bool seen = !error && store_txn_seen(db->store, p->id, &p->result);

	txn_free(takes_t);
	if (error || seen) {
		p->error = error;
		list_push(&t->done, &p->in_state);
	} else {
		map_put(&t->by_id, (const char *)p->id, TXN_ID_LEN, p);
		list_push(&t->all, &p->in_all);
		list_push(&t->queued, &p->in_state);
		t->n_pending++;
		t->bytes += p->n;
		failpoint("txn.queued");
	}
	db_kick(db);
}

/* --- the target --- */

static void all_sent_unsure(struct txns *t)
{
	list_for_each(it, &t->sent)
		list_entry(it, struct pending, in_state)->state = PENDING_UNSURE;
	list_splice(&t->unsure, &t->sent);
	t->sent_bytes = 0;
}

/* Oldest first, before what nobody has seen yet. */
static void requeue_unsure(struct txns *t)
{
	list_for_each(it, &t->unsure)
		list_entry(it, struct pending, in_state)->state = PENDING_QUEUED;
	failpoint("txn.again");
	list_splice(&t->unsure, &t->queued);
	list_splice(&t->queued, &t->unsure);
	t->sync = SYNC_IDLE;
}

static void refuse(struct db *db, uint64_t to, uint64_t seq, enum refusal why)
{
	struct peer *p = peers_get(db->peers, to);
	struct buf *b = p ? peer_frame_begin(p, FRAME_REFUSED) : NULL;

	if (!b)
		return; /* it finds out by SYNC */
	failpoint("forward.refused");
	buf_put_u64(b, seq);
	buf_put_u8(b, (uint8_t)why);
	peer_frame_end(p);
}

static void drop_chunk(struct txns *t, struct chunk *k)
{
	list_remove(&k->in_forwarded);
	t->forwarded_bytes -= k->n;
	free(k);
}

static void refuse_forwarded(struct db *db, enum refusal why)
{
	struct txns *t = &db->txns;

	list_for_each_safe(it, &t->forwarded) {
		struct chunk *k = list_entry(it, struct chunk, in_forwarded);

		refuse(db, k->from, k->seq, why);
		drop_chunk(t, k);
	}
}

static void check_target(struct db *db, const struct peer *leader)
{
	struct txns *t = &db->txns;
	uint64_t epoch = leader && leader->connected ? leader->epoch : 0;

	if (t->target_id == db->st.leader_id && t->target_term == db->st.term &&
	    t->target_epoch == epoch)
		return;
	t->target_id = db->st.leader_id;
	t->target_term = db->st.term;
	t->target_epoch = epoch;
	t->sync = SYNC_IDLE;
	t->retry_at = 0;
	all_sent_unsure(t);
	refuse_forwarded(db, REFUSED_NOT_LEADER);
}

/* --- leader: into the log --- */

#define ENTRY_HEAD 5 /* version and count */

struct packer {
	struct buf entry;
	size_t limit; /* of the entry, unless one transaction needs more */
	uint64_t count;
	uint64_t tag;
	int64_t now;
};

/* An entry goes to every member; all copies together must not keep the network
 * busy for long, because heartbeats wait behind them. */
static size_t entry_limit(const struct db *db)
{
	size_t copies = MAX(db->n_members, 2u) - 1;

	return MIN(MAX(DB_SPREAD_BYTES / copies, (size_t)DB_CHUNK_BYTES),
		   (size_t)DB_ENTRY_BYTES);
}

static bool fits(const struct packer *k, size_t n)
{
	return k->entry.len + n <= (k->count > 0 ? k->limit : DB_ENTRY_BYTES);
}

static void pack_forwarded(struct txns *t, struct packer *k, size_t limit)
{
	while (!list_empty(&t->forwarded) && k->entry.len < limit) {
		struct chunk *c = list_entry(t->forwarded.next, struct chunk,
					     in_forwarded);

		if (!fits(k, c->n))
			return;
		buf_append(&k->entry, c->bytes, c->n);
		k->count += c->count;
		drop_chunk(t, c);
	}
}

static void mark_sent(struct txns *t, struct pending *p, uint64_t tag,
		      int64_t now)
{
	list_remove(&p->in_state);
	p->state = PENDING_SENT;
	p->tag = tag;
	p->sent_at = now;
	list_push(&t->sent, &p->in_state);
	t->sent_bytes += p->n;
}

static void pack_own(struct txns *t, struct packer *k)
{
	while (!list_empty(&t->queued)) {
		struct pending *p =
			list_entry(t->queued.next, struct pending, in_state);

		if (!fits(k, p->n))
			return;
		buf_append(&k->entry, p->bytes, p->n);
		k->count++;
		mark_sent(t, p, k->tag, k->now);
	}
}

static void unsure_of(struct txns *t, uint64_t tag)
{
	list_for_each_safe(it, &t->sent) {
		struct pending *p = list_entry(it, struct pending, in_state);

		if (p->tag != tag)
			continue;
		leave_state(t, p);
		p->state = PENDING_UNSURE;
		list_push(&t->unsure, &p->in_state);
	}
}

/* One entry of everything that waits, up to its limit. False: stop. */
static bool propose(struct db *db)
{
	struct txns *t = &db->txns;
	struct packer k = { .tag = ++t->next_tag,
			    .now = env_mono_ms(),
			    .limit = entry_limit(db) };
	size_t waiting = t->bytes - t->sent_bytes + t->forwarded_bytes;
	char *p;
	size_t n;
	int r;

	buf_reserve(&k.entry, MIN(waiting + 32, k.limit + 8));
	buf_put_u8(&k.entry, DB_ENTRY_VERSION);
	buf_put_u32(&k.entry, 0);
	pack_forwarded(t, &k, k.limit / 2);
	pack_own(t, &k);
	pack_forwarded(t, &k, k.limit);
	for (int i = 0; i < 4; i++)
		k.entry.data[1 + i] = (char)(k.count >> (8 * i));
	/* libraft takes whole words only; readers stop at the count. */
	while (k.entry.len % 8 != 0)
		buf_put_u8(&k.entry, 0);
	p = buf_steal(&k.entry, &n);
	failpoint("entry.packed");
	r = consensus_propose(db->consensus, p, n, k.tag);
	if (r == 0) {
		t->in_flight++;
		failpoint("entry.proposed");
		return true;
	}
	/* Peers whose transactions were in it learn of them by SYNC. */
	unsure_of(t, k.tag);
	if (r == -EPERM)
		free(p);
	else
		db_fail(db, "the raft log takes no entries");
	return false;
}

void txns_proposed(struct db *db, uint64_t tag, bool applied)
{
	struct txns *t = &db->txns;

	xassert(t->in_flight > 0);
	t->in_flight--;
	if (!applied)
		unsure_of(t, tag);
	db_kick(db);
}

static void refuse_all_no_space(struct db *db)
{
	list_for_each_safe(it, &db->txns.queued)
		fail(db, list_entry(it, struct pending, in_state), -ENOSPC);
	refuse_forwarded(db, REFUSED_NO_SPACE);
}

static void lead(struct db *db)
{
	struct txns *t = &db->txns;

	if (!db->serving || db->st.transferring)
		return;
	if (!list_empty(&t->unsure))
		requeue_unsure(t); /* our barrier has been applied */
	if (db->disk_low) {
		refuse_all_no_space(db);
		return;
	}
	while (t->in_flight < DB_IN_FLIGHT &&
	       !(list_empty(&t->queued) && list_empty(&t->forwarded)))
		if (!propose(db))
			return;
}

static struct chunk *read_chunk(struct reader *r, uint64_t from, uint64_t seq)
{
	uint64_t count = reader_varint(r);
	const char *start = r->p;
	struct chunk *k;
	size_t n;

	for (uint64_t i = 0; i < count && !r->bad; i++)
		reader_bytes(r, &n);
	if (r->bad || r->p != r->end || count == 0)
		return NULL;
	n = (size_t)(r->end - start);
	if (n > DB_ENTRY_BYTES - ENTRY_HEAD)
		return NULL;
	k = xmalloc(sizeof *k + n);
	k->from = from;
	k->seq = seq;
	k->count = count;
	k->n = n;
	memcpy(k->bytes, start, n);
	list_init(&k->in_forwarded);
	return k;
}

void txns_on_forward(struct db *db, struct peer *from, struct reader *r)
{
	struct txns *t = &db->txns;
	uint64_t seq = reader_u64(r), term = reader_u64(r);
	struct chunk *k;

	if (!db_serving_now(db) || db->st.term != term) {
		refuse(db, from->id, seq, REFUSED_NOT_LEADER);
	} else if (db->disk_low) {
		refuse(db, from->id, seq, REFUSED_NO_SPACE);
	} else if (failpoint("forward.received") ||
		   t->forwarded_bytes > FORWARDED_BYTES_MAX) {
		refuse(db, from->id, seq, REFUSED_BUSY);
	} else if (!(k = read_chunk(r, from->id, seq))) {
		log_error("peer %016llx forwarded transactions that cannot be "
			  "read", (unsigned long long)from->id);
	} else {
		list_push(&t->forwarded, &k->in_forwarded);
		t->forwarded_bytes += k->n;
		db_kick(db);
	}
}

void txns_on_sync(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t seq = reader_u64(r), term = reader_u64(r);
	struct txns *t = &db->txns;
	struct buf *b;
	bool ok;

	failpoint("sync.received");
	ok = db_serving_now(db) && db->st.term == term;
	list_for_each_safe(it, &t->forwarded) {
		struct chunk *k = list_entry(it, struct chunk, in_forwarded);

		if (k->from == from->id)
			drop_chunk(t, k);
	}
	b = peer_frame_begin(from, FRAME_SYNCED);
	if (!b)
		return;
	buf_put_u64(b, seq);
	buf_put_u8(b, ok);
	buf_put_u64(b, db->st.last_index);
	peer_frame_end(from);
	db_kick(db);
}

/* --- follower: to the leader --- */

static bool forward_one(struct db *db, struct peer *leader, int64_t now)
{
	struct txns *t = &db->txns;
	struct list *it = t->queued.next;
	size_t bytes = 0;
	uint64_t count = 0, seq;
	struct buf *b;

	for (; it != &t->queued; it = it->next) {
		size_t n = list_entry(it, struct pending, in_state)->n;

		if (count > 0 && bytes + n > DB_CHUNK_BYTES)
			break;
		bytes += n;
		count++;
	}
	b = peer_frame_begin(leader, FRAME_FORWARD);
	if (!b)
		return false;
	seq = ++t->next_tag;
	buf_reserve(b, bytes + 32);
	buf_put_u64(b, seq);
	buf_put_u64(b, t->target_term);
	buf_put_varint(b, count);
	while (count-- > 0) {
		struct pending *p =
			list_entry(t->queued.next, struct pending, in_state);

		buf_append(b, p->bytes, p->n);
		mark_sent(t, p, seq, now);
	}
	peer_frame_end(leader);
	failpoint("forward.packed");
	return true;
}

static void ask_sync(struct db *db, struct peer *leader, int64_t now)
{
	struct txns *t = &db->txns;
	struct buf *b;

	if (t->sync == SYNC_ASKED && now < t->sync_at + SYNC_ASK_MS)
		return;
	if (now < t->retry_at)
		return;
	b = peer_frame_begin(leader, FRAME_SYNC);
	if (!b)
		return;
	t->sync = SYNC_ASKED;
	t->sync_seq = ++t->next_tag;
	t->sync_at = now;
	buf_put_u64(b, t->sync_seq);
	buf_put_u64(b, t->target_term);
	peer_frame_end(leader);
	failpoint("sync.asked");
}

static void follow(struct db *db, struct peer *leader)
{
	struct txns *t = &db->txns;
	int64_t now = env_mono_ms();

	if (!leader || !leader->connected)
		return;
	if (!list_empty(&t->sent) && t->sync == SYNC_IDLE &&
	    list_entry(t->sent.next, struct pending, in_state)->sent_at <
		    now - STALL_MS)
		all_sent_unsure(t);
	if (t->sync == SYNC_WAITING && db->st.applied_index >= t->sync_index)
		requeue_unsure(t);
	if (t->sync == SYNC_ASKED ||
	    (t->sync == SYNC_IDLE && !list_empty(&t->unsure)))
		ask_sync(db, leader, now);
	/* Until SYNCED comes, the leader drops what it has of us. */
	if (t->sync == SYNC_ASKED || now < t->retry_at)
		return;
	while (!list_empty(&t->queued) && t->sent_bytes < DB_FORWARD_WINDOW)
		if (!forward_one(db, leader, now))
			return;
}

void txns_on_refused(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t seq = reader_u64(r);
	enum refusal why = reader_u8(r);
	struct txns *t = &db->txns;
	struct list again;

	if (r->bad || from->id != t->target_id)
		return;
	failpoint("forward.turned-down");
	list_init(&again);
	list_for_each_safe(it, &t->sent) {
		struct pending *p = list_entry(it, struct pending, in_state);

		if (p->tag != seq)
			continue;
		if (why == REFUSED_NO_SPACE) {
			fail(db, p, -ENOSPC);
			continue;
		}
		leave_state(t, p);
		p->state = PENDING_QUEUED;
		list_push(&again, &p->in_state);
	}
	list_splice(&again, &t->queued);
	list_splice(&t->queued, &again);
	t->retry_at = env_mono_ms() + RETRY_MS;
	db_kick(db);
}

void txns_on_synced(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t seq = reader_u64(r);
	bool ok = reader_u8(r);
	uint64_t index = reader_u64(r);
	struct txns *t = &db->txns;

	if (r->bad || from->id != t->target_id || t->sync != SYNC_ASKED ||
	    seq != t->sync_seq)
		return;
	failpoint("sync.answered");
	/* Forwarded before SYNC and dropped by it. */
	all_sent_unsure(t);
	t->sync = ok ? SYNC_WAITING : SYNC_IDLE;
	t->sync_index = index;
	if (!ok)
		t->retry_at = env_mono_ms() + RETRY_MS;
	db_kick(db);
}

void txns_flush(struct db *db)
{
	struct peer *leader = db->st.is_leader
				      ? NULL
				      : peers_get(db->peers, db->st.leader_id);

	check_target(db, leader);
	if (db->st.is_leader)
		lead(db);
	else if (db->st.leader_id)
		follow(db, leader);
}
