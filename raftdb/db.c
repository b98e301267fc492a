#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "raftdb/db_impl.h"

#define ELECTION_MS 150
#define HEARTBEAT_MS 15
#define SNAPSHOT_THRESHOLD 8192
#define MIN_FREE_MIB 64
#define TXN_TIMEOUT_MS 30000
#define READ_TIMEOUT_MS 5000
#define STALL_MS 15000 /* the log takes no writes */
/* As often as the leader sends heartbeats, within these: members that are told
 * to be slow shall not be awake for nothing. */
#define TICK_MIN_MS 50
#define TICK_MAX_MS 250
#define STALL_STEP_MS 1000 /* more between two ticks is our own pause */
#define FLUSH_ROUNDS 16

/* An idle handle keeps the loop from sleeping. */
static void on_idle(uv_idle_t *h)
{
}

void db_kick(struct db *db)
{
	db->kicked = true;
	if (db->opened && !db->flushing && !db->closing)
		uv_idle_start(&db->idle, on_idle);
}

void db_end(struct db *db, enum db_end end, const char *why)
{
	if (!db->fatal) {
		db->fatal = why;
		db->end = end;
	}
	db_kick(db);
}

void db_fail(struct db *db, const char *why)
{
	db_end(db, DB_END_BROKEN, why);
}

const struct store *db_store(const struct db *db)
{
	return db->store;
}

uint64_t db_applied_index(const struct db *db)
{
	return db->applying;
}

/* --- the state machine --- */

static bool apply_txn(struct db *db, const char *p, size_t n)
{
	struct reader r = reader_of(p, n);
	struct txn *t = txn_decode(&r);
	struct txn_result result;

	if (!t) {
		/* The same everywhere: all skip it. */
		log_error("a transaction in the log cannot be read: skipped");
		return true;
	}
	failpoint("txn.apply");
	result = store_apply(db->store, t);
	failpoint("txn.applied");
	db->n_txns++;
	txns_applied(db, t->id, result);
	txn_free(t);
	return true;
}

bool db_apply_entry(struct db *db, const char *p, size_t n)
{
	struct reader r = reader_of(p, n);
	uint8_t version = reader_u8(&r);
	uint32_t count = reader_u32(&r);

	if (version != DB_ENTRY_VERSION) {
		db->broken = true;
		db_fail(db, "the log has an entry of a newer version: upgrade "
			    "this host");
		return false;
	}
	while (count-- > 0 && !r.bad) {
		size_t len;
		const char *bytes = reader_bytes(&r, &len);

		if (bytes)
			apply_txn(db, bytes, len);
	}
	if (r.bad) {
		db->broken = true;
		db_fail(db, "the log has an entry that cannot be read");
	}
	return !r.bad;
}

static void on_apply(void *data, uint64_t index, const char *p, size_t n)
{
	struct db *db = data;

	db->applying = index;
	if (db->broken || !db_apply_entry(db, p, n))
		return;
	compare_note(db, index);
	snaps_applied(db, index, p, n);
	failpoint("entry.applied");
	db_kick(db);
}

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	struct db *db = data;

	if (db->opened && !db->restoring && !db->closing && db->cb.changed)
		db->cb.changed(db->cb.data, t, generation, changes, n);
}

static void on_proposed(void *data, uint64_t tag, bool applied)
{
	txns_proposed(data, tag, applied);
}

static void on_barrier(void *data, uint64_t term, bool applied)
{
	struct db *db = data;

	db->barrier_pending = false;
	if (applied && db->leading && term == db->leading_term)
		db->serving = true;
	failpoint("leader.serving");
	if (!db->closing)
		db_kick(db);
}

static const struct consensus_ops consensus_ops = {
	.apply = on_apply,
	.restore = snaps_restore,
	.snapshot = snaps_take,
	.snapshot_done = snaps_done,
	.proposed = on_proposed,
	.barrier = on_barrier,
};

/* --- leadership --- */

bool db_serving_now(struct db *db)
{
	consensus_get(db->consensus, &db->st);
	return db->serving && db->st.is_leader &&
	       db->st.term == db->leading_term;
}

static void tell_leader(struct db *db)
{
	if (db->told_leader == db->st.leader_id &&
	    db->told_serving == db->serving)
		return;
	db->told_leader = db->st.leader_id;
	db->told_serving = db->serving;
	log_info("leader: %016llx%s, term %llu",
		 (unsigned long long)db->st.leader_id,
		 db->serving ? " (this host)" : "",
		 (unsigned long long)db->st.term);
	if (db->cb.leader)
		db->cb.leader(db->cb.data, db->st.leader_id, db->serving);
}

static void check_leadership(struct db *db)
{
	consensus_get(db->consensus, &db->st);
	if (!db->st.available)
		db_fail(db, "raft gave up: a write to its log failed");
	if (!db->st.is_leader || db->st.term != db->leading_term)
		db->serving = false;
	db->leading = db->st.is_leader;
	db->leading_term = db->st.is_leader ? db->st.term : 0;
	if (db->leading && !db->serving && !db->barrier_pending &&
	    !db->st.transferring && consensus_barrier(db->consensus) == 0)
		db->barrier_pending = true;
	tell_leader(db);
}

static void check_stall(struct db *db, int64_t now)
{
	int64_t passed = MIN(now - db->stall_at, (int64_t)STALL_STEP_MS);

	db->stall_at = now;
	if (db->st.last_index <= db->st.stored_index || db->disk_low ||
	    db->st.stored_index != db->stall_index) {
		db->stall_index = db->st.stored_index;
		db->stalled_ms = 0;
	} else if ((db->stalled_ms += passed) > STALL_MS) {
		db_fail(db, "the disk takes no writes of the raft log");
	}
}

/* --- the turn of the loop --- */

static bool flush_once(struct db *db)
{
	bool fired;

	db->kicked = false;
	check_leadership(db);
	members_flush(db);
	txns_flush(db);
	consensus_turn(db->consensus);
	reads_flush(db);
	snaps_flush(db);
	fired = txns_fire(db);
	fired = reads_fire(db) || fired;
	return fired || db->kicked;
}

/* The callbacks called in it may close the database. */
static void db_flush(struct db *db)
{
	if (db->closing || !db->opened || db->fatal_told)
		return;
	db->flushing = true;
	for (int i = 0; i < FLUSH_ROUNDS && !db->closing; i++)
		if (!flush_once(db))
			break;
	db->flushing = false;
	if (db->closing)
		return;
	if (db->cb.flushed)
		db->cb.flushed(db->cb.data);
	if (consensus_push(db->consensus))
		db->kicked = true;
	link_flush(db->link);
	if (db->kicked)
		db_kick(db);
	else
		uv_idle_stop(&db->idle);
	if (db->fatal && !db->fatal_told) {
		db->fatal_told = true;
		log_error("fatal: %s", db->fatal);
		db->cb.fatal(db->cb.data, db->end, db->fatal);
	}
}

static void on_prepare(uv_prepare_t *h)
{
	db_flush(h->data);
}

static void on_check(uv_check_t *h)
{
	db_flush(h->data);
}

static void on_tick(uv_timer_t *h)
{
	struct db *db = h->data;
	int64_t now = env_mono_ms();

	if (db->closing || !db->opened)
		return;
	txns_tick(db, now);
	reads_tick(db, now);
	members_tick(db, now);
	heal_tick(db, now);
	disk_tick(db, now);
	check_stall(db, now);
}

/* --- links --- */

static void on_user(struct db *db, struct peer *from, struct reader *r)
{
	if (db->message_fn)
		db->message_fn(db->message_data, from->id, r->p,
			       (size_t)(r->end - r->p));
}

static void on_raft(struct db *db, struct peer *from, struct reader *r)
{
	consensus_on_message(db->consensus, from, r);
}

static void on_raft_part(struct db *db, struct peer *from, struct reader *r)
{
	consensus_on_part(db->consensus, from, r);
}

static void (*const frame_fns[])(struct db *, struct peer *, struct reader *) = {
	[FRAME_PING] = members_on_ping,
	[FRAME_FORWARD] = txns_on_forward,
	[FRAME_REFUSED] = txns_on_refused,
	[FRAME_READ] = reads_on_read,
	[FRAME_READ_AT] = reads_on_read_at,
	[FRAME_CONFIRM] = reads_on_confirm,
	[FRAME_CONFIRMED] = reads_on_confirmed,
	[FRAME_SYNC] = txns_on_sync,
	[FRAME_SYNCED] = txns_on_synced,
	[FRAME_USER] = on_user,
	[FRAME_READMIT] = heal_on_readmit,
	[FRAME_ROWS_ASK] = compare_on_rows_ask,
	[FRAME_ROWS] = compare_on_rows,
	[FRAME_ROW_ASK] = compare_on_row_ask,
	[FRAME_ROW] = compare_on_row,
	[FRAME_DIVERGED] = compare_on_diverged,
	[FRAME_RAFT] = on_raft,
	[FRAME_RAFT_PART] = on_raft_part,
};

static void on_frame(void *data, struct peer *from, uint8_t type, const char *p,
		     size_t n)
{
	struct db *db = data;
	struct reader r = reader_of(p, n);

	if (db->closing || !db->opened)
		return;
	/* A type that we do not know comes from a newer member. */
	if (type < ARRAY_LEN(frame_fns) && frame_fns[type])
		frame_fns[type](db, from, &r);
}

static void on_peer_changed(void *data, struct peer *p)
{
	struct db *db = data;

	p->pinged_at = 0;
	if (db->closing || !db->opened)
		return;
	consensus_peer_changed(db->consensus, p);
	db_kick(db);
}

static void on_accepted(void *data, struct link_conn *c, enum link_kind kind,
			const struct db_member *m)
{
	struct db *db = data;

	if (db->closing || !db->opened)
		return;
	peers_accept(db->peers, c, m);
}

static const struct db_member *on_trusted(void *data, const char *fingerprint)
{
	struct db *db = data;

	return db->cb.trusted(db->cb.data, fingerprint);
}

void db_set_message_fn(struct db *db, db_message_fn fn, void *data)
{
	db->message_fn = fn;
	db->message_data = data;
}

int db_send(struct db *db, uint64_t to, const char *p, size_t n)
{
	struct peer *peer = db->closing ? NULL : peers_get(db->peers, to);
	struct buf *b;

	if (n > LINK_FRAME_MAX - 4096)
		return -EMSGSIZE;
	if (!peer || !peer->connected)
		return -ENOTCONN;
	b = peer_frame_begin(peer, FRAME_USER);
	if (!b)
		return -ENOBUFS;
	buf_append(b, p, n);
	peer_frame_end(peer);
	db_kick(db);
	return 0;
}

/* --- open and close --- */

static unsigned or_default(unsigned v, unsigned def)
{
	return v ? v : def;
}

static struct db *db_new(uv_loop_t *loop, const struct db_config *cfg,
			 const struct db_callbacks *cb)
{
	struct db *db = xcalloc(1, sizeof *db);

	db->loop = loop;
	db->dir = xstrdup(cfg->dir);
	db->raft_dir = xasprintf("%s/raft", cfg->dir);
	db->address = xstrdup(cfg->peer_address);
	db->id = cfg->id;
	db->min_free_mib = or_default(cfg->min_free_mib, MIN_FREE_MIB);
	db->txn_timeout_ms = or_default(cfg->txn_timeout_ms, TXN_TIMEOUT_MS);
	db->read_timeout_ms = or_default(cfg->read_timeout_ms, READ_TIMEOUT_MS);
	db->cb = *cb;
	db->heal.lost = cfg->rebuild;
	db->heal.rebuilding = cfg->rebuild != 0;
	db->lock_fd = -1;
	db->store = store_new();
	store_set_observer(db->store, on_changed, db);
	db->digests = xcalloc(DB_DIGESTS, sizeof *db->digests);
	map_init(&db->compare.seen);
	txns_init(&db->txns);
	reads_init(&db->reads);
	snaps_init(&db->snaps, or_default(cfg->snapshot_threshold,
					  SNAPSHOT_THRESHOLD));
	return db;
}

static void db_free(struct db *db)
{
	txns_deinit(&db->txns);
	snaps_deinit(&db->snaps);
	compare_deinit(&db->compare);
	store_free(db->store);
	if (db->lock_fd >= 0)
		close(db->lock_fd);
	free(db->digests);
	free(db->dir);
	free(db->raft_dir);
	free(db->address);
	free(db);
}

/* Before libraft's own handles of the kind, so that ours run after them. */
static void start_handles(struct db *db, unsigned tick_ms)
{
	uv_prepare_init(db->loop, &db->prepare);
	uv_check_init(db->loop, &db->check);
	uv_idle_init(db->loop, &db->idle);
	uv_timer_init(db->loop, &db->timer);
	db->prepare.data = db->check.data = db->idle.data = db->timer.data = db;
	uv_prepare_start(&db->prepare, on_prepare);
	uv_check_start(&db->check, on_check);
	uv_timer_start(&db->timer, on_tick, tick_ms, tick_ms);
}

/* Called once for every part that was counted in closing_parts. */
void db_close_part(struct db *db)
{
	void (*cb)(void *data) = db->close_cb;
	void *data = db->close_data;

	xassert(db->closing_parts > 0);
	if (--db->closing_parts > 0)
		return;
	while (txns_fire(db) || reads_fire(db))
		;
	db_free(db);
	if (cb)
		cb(data);
}

static void on_handle_closed(uv_handle_t *h)
{
	db_close_part(h->data);
}

static void on_part_closed(void *data)
{
	db_close_part(data);
}

/* What is left when libraft is closed, or never was opened. */
static void close_rest(void *data)
{
	struct db *db = data;
	uv_handle_t *handles[] = {
		(uv_handle_t *)&db->prepare, (uv_handle_t *)&db->check,
		(uv_handle_t *)&db->idle, (uv_handle_t *)&db->timer,
	};

	db->consensus = NULL;
	db->closing_parts = ARRAY_LEN(handles) + 2;
	if (!snaps_close(db))
		db->closing_parts++;
	peers_close(db->peers, on_part_closed, db);
	link_close(db->link, on_part_closed, db);
	for (size_t i = 0; i < ARRAY_LEN(handles); i++)
		uv_close(handles[i], on_handle_closed);
}

static void on_close_timer(uv_timer_t *h)
{
	struct db *db = h->data;

	txns_cancel_all(db, -ECANCELED);
	reads_cancel_all(db, -ECANCELED);
	while (txns_fire(db) || reads_fire(db))
		;
	members_cancel(db);
	consensus_close(db->consensus, close_rest, db);
}

/* It may be called by a callback from deep inside libraft: go on from the
 * loop. */
void db_close(struct db *db, void (*cb)(void *data), void *data)
{
	xassert(!db->closing);
	db->closing = true;
	db->close_cb = cb;
	db->close_data = data;
	uv_idle_stop(&db->idle);
	uv_timer_start(&db->timer, on_close_timer, 0, 0);
}

static int open_folder(struct db *db)
{
	int r = disk_make_dir(db->dir);

	if (r == 0)
		r = disk_make_dir(db->raft_dir);
	if (r == 0)
		r = disk_lock(db->dir, &db->lock_fd);
	if (r == 0)
		r = disk_claim(db->raft_dir, db->id);
	return r;
}

static int open_link(struct db *db, const struct db_config *cfg)
{
	const struct link_ops ops = {
		.data = db,
		.trusted = on_trusted,
		.accepted = on_accepted,
	};
	const struct link_config lc = {
		.address = cfg->peer_address,
		.id = cfg->id,
		.cert_file = cfg->cert_file,
		.key_file = cfg->key_file,
	};

	return link_new(db->loop, &lc, &ops, &db->link);
}

static int open_consensus(struct db *db, const struct db_config *cfg)
{
	struct consensus_ops ops = consensus_ops;
	const struct consensus_config cc = {
		.loop = db->loop,
		.peers = db->peers,
		.dir = db->raft_dir,
		.id = db->id,
		.address = db->address,
		.election_ms = or_default(cfg->election_timeout_ms, ELECTION_MS),
		.heartbeat_ms = or_default(cfg->heartbeat_ms, HEARTBEAT_MS),
		.deaf = cfg->rebuild != 0,
	};
	int r;

	ops.data = db;
	r = consensus_open(&cc, &ops, &db->consensus);
	if (r == -EBADMSG || r == -EIO)
		log_error("%s is damaged: move it away and start this host "
			  "again; it is rebuilt from the other members",
			  db->raft_dir);
	return r;
}

/* Everything but libraft is open; libraft refused. */
static void abandon(struct db *db)
{
	close(db->lock_fd);
	db->lock_fd = -1;
	db->closing = true;
	close_rest(db);
}

int db_open(uv_loop_t *loop, const struct db_config *cfg,
	    const struct db_callbacks *cb, struct db **ret)
{
	struct db *db = db_new(loop, cfg, cb);
	const struct peers_ops ops = {
		.data = db,
		.frame = on_frame,
		.changed = on_peer_changed,
	};
	unsigned tick_ms = or_default(cfg->heartbeat_ms, HEARTBEAT_MS);
	int r = open_folder(db);

	tick_ms = MIN(MAX(tick_ms, TICK_MIN_MS), TICK_MAX_MS);
	if (r == 0)
		r = open_link(db, cfg);
	if (r < 0) {
		db_free(db);
		return r;
	}
	start_handles(db, tick_ms);
	db->peers = peers_new(loop, db->link, db->id, tick_ms, &ops);
	r = open_consensus(db, cfg);
	if (r < 0) {
		abandon(db);
		return r;
	}
	consensus_get(db->consensus, &db->st);
	disk_tick(db, env_mono_ms());
	db->opened = true;
	heal_opened(db);
	*ret = db;
	return 0;
}

int db_bootstrap(const struct db_config *cfg)
{
	_cleanup_(freep) char *raft_dir = xasprintf("%s/raft", cfg->dir);
	int fd = -1, r = disk_make_dir(cfg->dir);

	if (r == 0)
		r = disk_make_dir(raft_dir);
	if (r == 0)
		r = disk_lock(cfg->dir, &fd);
	if (r < 0)
		return r;
	if (disk_has_state(raft_dir)) {
		log_error("%s has a database already", cfg->dir);
		r = -EEXIST;
	} else {
		disk_set_floor(cfg->dir, 0);
		r = consensus_bootstrap(raft_dir, cfg->id, cfg->peer_address);
	}
	close(fd);
	return r;
}

bool db_has_state(const struct db_config *cfg)
{
	_cleanup_(freep) char *raft_dir = xasprintf("%s/raft", cfg->dir);

	return disk_has_state(raft_dir);
}
