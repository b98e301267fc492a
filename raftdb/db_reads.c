/* Linearizable reads without a log write.
 *
 * A reader may look at the local store once it has applied the read index: the
 * leader's commit index at some time after the reader asked, of a leader that
 * was still the only one then. The leader knows that it was when a majority of
 * voters says, after the question came, that its term is theirs too (one round
 * of CONFIRM for all who wait). docs/consistency.md has the argument.
 *
 * On the leader readers go waiting -> round -> applying -> done; elsewhere
 * waiting -> asked (one READ for all) -> applying -> done. Whatever is lost on
 * the way is asked again until the reader's deadline.
 */
#include <errno.h>

#include "base/env.h"
#include "raftdb/db_impl.h"

#define ROUND_MS 100 /* a round without a majority: ask again */
#define ASKED_MS 300 /* a question without an answer */
#define RETRY_MS 20  /* after a "no" */
#define REMOTE_MAX 256 /* questions of peers waiting */

struct reader_req {
	struct list in_all, in_batch;
	int64_t deadline;
	db_read_cb cb;
	void *data;
	int error;
};

struct batch {
	struct list in_list;
	struct list readers;
	uint64_t seq, to, index;
	int64_t asked_at;
};

struct remote_read {
	struct list in_list;
	uint64_t from, seq;
};

void reads_init(struct reads *rs)
{
	/* No answer to an earlier life of ours may fit. */
	env_random(&rs->next_seq, sizeof rs->next_seq);
	rs->fresh_at = -1;
	list_init(&rs->all);
	list_init(&rs->waiting);
	list_init(&rs->asked);
	list_init(&rs->applying);
	list_init(&rs->done);
	list_init(&rs->remote);
	list_init(&rs->round.batches);
	list_init(&rs->round.remote);
}

/* --- one reader's way --- */

static void reader_done(struct db *db, struct reader_req *q, int error)
{
	list_remove(&q->in_all);
	list_remove(&q->in_batch);
	q->error = error;
	list_push(&db->reads.done, &q->in_batch);
	db->reads.n_readers--;
	db_kick(db);
}

bool reads_fire(struct db *db)
{
	struct list done;
	bool any = false;

	list_init(&done);
	list_splice(&done, &db->reads.done);
	while (!list_empty(&done)) {
		struct reader_req *q =
			list_entry(done.next, struct reader_req, in_batch);

		list_remove(&q->in_batch);
		q->cb(q->data, q->error);
		free(q);
		any = true;
	}
	return any;
}

static void batch_free(struct batch *b)
{
	list_remove(&b->in_list);
	free(b);
}

static struct batch *batch_of_waiting(struct reads *rs, struct list *to)
{
	struct batch *b = xcalloc(1, sizeof *b);

	list_init(&b->in_list);
	list_init(&b->readers);
	list_splice(&b->readers, &rs->waiting);
	list_push(to, &b->in_list);
	return b;
}

static void batch_finish(struct db *db, struct batch *b)
{
	db->reads.fresh_at = MAX(db->reads.fresh_at, b->asked_at);
	while (!list_empty(&b->readers))
		reader_done(db, list_entry(b->readers.next, struct reader_req,
					   in_batch), 0);
	batch_free(b);
}

/* Back to waiting, before those who came later. */
static void batch_again(struct reads *rs, struct batch *b)
{
	list_splice(&b->readers, &rs->waiting);
	list_splice(&rs->waiting, &b->readers);
	batch_free(b);
}

static void batch_apply(struct db *db, struct batch *b, uint64_t index)
{
	b->index = index;
	if (db->st.applied_index >= index) {
		batch_finish(db, b);
		return;
	}
	list_remove(&b->in_list);
	list_push(&db->reads.applying, &b->in_list);
}

void db_read_barrier(struct db *db, db_read_cb cb, void *data)
{
	struct reads *rs = &db->reads;
	struct reader_req *q;

	if (db->closing || rs->n_readers >= DB_READERS_MAX) {
		cb(data, db->closing ? -ECANCELED : -EBUSY);
		return;
	}
	q = xcalloc(1, sizeof *q);
	q->cb = cb;
	q->data = data;
	q->deadline = env_mono_ms() + db->read_timeout_ms;
	list_push(&rs->all, &q->in_all);
	list_push(&rs->waiting, &q->in_batch);
	rs->n_readers++;
	db_kick(db);
}

void reads_cancel_all(struct db *db, int error)
{
	struct reads *rs = &db->reads;
	struct list *lists[] = { &rs->asked, &rs->applying, &rs->round.batches };
	struct list *remotes[] = { &rs->remote, &rs->round.remote };

	list_for_each_safe(it, &rs->all)
		reader_done(db, list_entry(it, struct reader_req, in_all), error);
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		list_for_each_safe(it, lists[i])
			batch_free(list_entry(it, struct batch, in_list));
	for (size_t i = 0; i < ARRAY_LEN(remotes); i++)
		list_for_each_safe(it, remotes[i]) {
			list_remove(it);
			free(list_entry(it, struct remote_read, in_list));
		}
	rs->round.active = false;
}

int64_t db_age_ms(const struct db *db)
{
	int64_t at = db->reads.fresh_at;

	return at < 0 ? DB_AGE_UNKNOWN : env_mono_ms() - at;
}

static void on_refreshed(void *data, int error)
{
	struct db *db = data;

	db->reads.refreshing = false;
}

/* A reader without a question: its batch tells how fresh the store is. */
static void refresh(struct db *db, int64_t now)
{
	struct reads *rs = &db->reads;

	if (rs->refreshing || (rs->fresh_at >= 0 &&
			       now - rs->fresh_at < DB_FRESH_MS))
		return;
	rs->refreshing = true;
	db_read_barrier(db, on_refreshed, db);
}

void reads_tick(struct db *db, int64_t now)
{
	refresh(db, now);
	list_for_each_safe(it, &db->reads.all) {
		struct reader_req *q = list_entry(it, struct reader_req, in_all);

		if (q->deadline > now)
			break;
		reader_done(db, q, -ETIMEDOUT);
	}
}

/* --- leader: rounds --- */

static void answer(struct db *db, uint64_t to, uint64_t seq, bool ok,
		   uint64_t index)
{
	struct peer *p = peers_get(db->peers, to);
	struct buf *b = p ? peer_frame_begin(p, FRAME_READ_AT) : NULL;

	if (!b)
		return; /* it asks again */
	buf_put_u64(b, seq);
	buf_put_u8(b, ok);
	buf_put_u64(b, index);
	peer_frame_end(p);
}

static void answer_all(struct db *db, struct list *remote, bool ok,
		       uint64_t index)
{
	list_for_each_safe(it, remote) {
		struct remote_read *q =
			list_entry(it, struct remote_read, in_list);

		answer(db, q->from, q->seq, ok, index);
		list_remove(it);
		free(q);
	}
}

static void round_abandon(struct db *db)
{
	struct reads *rs = &db->reads;

	list_for_each_safe(it, &rs->round.batches)
		batch_again(rs, list_entry(it, struct batch, in_list));
	list_splice(&rs->remote, &rs->round.remote);
	rs->round.active = false;
}

static bool said_yes(const struct reads *rs, uint64_t id)
{
	for (unsigned i = 0; i < rs->round.n_yes; i++)
		if (rs->round.yes[i] == id)
			return true;
	return false;
}

static bool round_has_majority(const struct db *db)
{
	unsigned voters = 0, yes = 0;

	for (unsigned i = 0; i < db->n_members; i++) {
		if (db->members[i].role != DB_VOTER)
			continue;
		voters++;
		if (db->members[i].id == db->id ||
		    said_yes(&db->reads, db->members[i].id))
			yes++;
	}
	return yes > voters / 2;
}

static void round_finish(struct db *db)
{
	struct reads *rs = &db->reads;

	rs->round.active = false;
	answer_all(db, &rs->round.remote, true, rs->round.index);
	list_for_each_safe(it, &rs->round.batches)
		batch_apply(db, list_entry(it, struct batch, in_list),
			    rs->round.index);
}

static void round_ask(struct db *db)
{
	struct reads *rs = &db->reads;

	for (unsigned i = 0; i < db->n_members; i++) {
		struct peer *p = db->members[i].role == DB_VOTER
					 ? peers_get(db->peers,
						     db->members[i].id)
					 : NULL;
		struct buf *b;

		if (!p)
			continue;
		b = peer_frame_begin(p, FRAME_CONFIRM);
		if (!b)
			continue;
		buf_put_u64(b, rs->round.seq);
		buf_put_u64(b, rs->round.term);
		peer_frame_end(p);
	}
}

static void round_start(struct db *db, int64_t now)
{
	struct reads *rs = &db->reads;

	rs->round.active = true;
	rs->round.seq = ++rs->next_seq;
	rs->round.term = db->st.term;
	rs->round.index = db->st.commit_index;
	rs->round.configuration_index = db->st.configuration_index;
	rs->round.n_yes = 0;
	rs->round.started_at = now;
	list_splice(&rs->round.remote, &rs->remote);
	if (!list_empty(&rs->waiting))
		batch_of_waiting(rs, &rs->round.batches)->asked_at = now;
	if (round_has_majority(db))
		round_finish(db);
	else
		round_ask(db);
}

static void lead(struct db *db, int64_t now)
{
	struct reads *rs = &db->reads;

	if (!db->serving) {
		answer_all(db, &rs->remote, false, 0);
		return;
	}
	if (rs->round.active && now >= rs->round.started_at + ROUND_MS)
		round_abandon(db);
	if (!rs->round.active &&
	    !(list_empty(&rs->waiting) && list_empty(&rs->remote)))
		round_start(db, now);
}

/* A round belongs to one term of ours and one configuration. */
static void check_round(struct db *db)
{
	struct reads *rs = &db->reads;

	if (!rs->round.active)
		return;
	if (!db->serving || rs->round.term != db->st.term ||
	    rs->round.configuration_index != db->st.configuration_index)
		round_abandon(db);
}

void reads_on_read(struct db *db, struct peer *from, struct reader *r)
{
	struct reads *rs = &db->reads;
	uint64_t seq = reader_u64(r);
	struct remote_read *q;
	unsigned n = 0;

	list_for_each(it, &rs->remote)
		n++;
	if (r->bad || !db_serving_now(db) || n >= REMOTE_MAX) {
		answer(db, from->id, seq, false, 0);
		return;
	}
	q = xcalloc(1, sizeof *q);
	q->from = from->id;
	q->seq = seq;
	list_init(&q->in_list);
	list_push(&rs->remote, &q->in_list);
	db_kick(db);
}

void reads_on_confirm(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t seq = reader_u64(r), term = reader_u64(r);
	struct buf *b;

	consensus_get(db->consensus, &db->st);
	b = peer_frame_begin(from, FRAME_CONFIRMED);
	if (!b)
		return;
	buf_put_u64(b, seq);
	buf_put_u8(b, !r->bad && db->st.term == term);
	peer_frame_end(from);
	db_kick(db);
}

void reads_on_confirmed(struct db *db, struct peer *from, struct reader *r)
{
	struct reads *rs = &db->reads;
	uint64_t seq = reader_u64(r);
	bool yes = reader_u8(r);

	if (r->bad || !yes || !rs->round.active || seq != rs->round.seq ||
	    said_yes(rs, from->id) || rs->round.n_yes == DB_MEMBERS_MAX)
		return;
	rs->round.yes[rs->round.n_yes++] = from->id;
	db_kick(db);
}

/* --- others: ask the leader --- */

static void follow(struct db *db, struct peer *leader, int64_t now)
{
	struct reads *rs = &db->reads;
	struct batch *q;
	struct buf *b;

	answer_all(db, &rs->remote, false, 0);
	list_for_each_safe(it, &rs->asked) {
		q = list_entry(it, struct batch, in_list);
		if (!leader || q->to != leader->id ||
		    now >= q->asked_at + ASKED_MS)
			batch_again(rs, q);
	}
	if (!leader || list_empty(&rs->waiting) || now < rs->retry_at)
		return;
	b = peer_frame_begin(leader, FRAME_READ);
	if (!b)
		return;
	q = batch_of_waiting(rs, &rs->asked);
	q->seq = ++rs->next_seq;
	q->to = leader->id;
	q->asked_at = now;
	buf_put_u64(b, q->seq);
	peer_frame_end(leader);
}

void reads_on_read_at(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t seq = reader_u64(r);
	bool ok = reader_u8(r);
	uint64_t index = reader_u64(r);

	if (r->bad)
		return;
	list_for_each_safe(it, &db->reads.asked) {
		struct batch *q = list_entry(it, struct batch, in_list);

		if (q->seq != seq || q->to != from->id)
			continue;
		if (ok) {
			batch_apply(db, q, index);
		} else {
			batch_again(&db->reads, q);
			db->reads.retry_at = env_mono_ms() + RETRY_MS;
		}
	}
	db_kick(db);
}

void reads_flush(struct db *db)
{
	struct reads *rs = &db->reads;
	int64_t now = env_mono_ms();

	check_round(db);
	if (rs->round.active && round_has_majority(db))
		round_finish(db);
	if (db->st.is_leader) {
		list_for_each_safe(it, &rs->asked)
			batch_again(rs, list_entry(it, struct batch, in_list));
		lead(db, now);
	} else {
		follow(db, peers_get(db->peers, db->st.leader_id), now);
	}
	list_for_each_safe(it, &rs->applying) {
		struct batch *b = list_entry(it, struct batch, in_list);

		if (db->st.applied_index >= b->index)
			batch_finish(db, b);
	}
}
