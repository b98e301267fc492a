/* Who is in the pool: the configuration, changes of it, who is alive. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "raftdb/db_impl.h"
#include "schema/gen/schema_ids.h"

#define PING_LEADER_MS 100 /* from and to the leader */
#define PING_MS 500        /* between others */
#define INSTALL_WAIT_MS 20000 /* a change waits for a snapshot's way */
#define REMOVED_MS 3000    /* not in the configuration any more, for so long */

enum op_kind { OP_NONE, OP_ADD, OP_ASSIGN, OP_REMOVE, OP_TRANSFER };

/* --- the configuration --- */

const struct consensus_member *members_find(const struct db *db, uint64_t id)
{
	for (unsigned i = 0; i < db->n_members; i++)
		if (db->members[i].id == id)
			return &db->members[i];
	return NULL;
}

static void read_configuration(struct db *db)
{
	db->configuration_seen = db->st.configuration_index;
	db->n_members = consensus_members(db->consensus, db->members,
					  DB_MEMBERS_MAX);
	peers_begin_set(db->peers);
	for (unsigned i = 0; i < db->n_members; i++)
		peers_want(db->peers, db->members[i].id,
			   db->members[i].address);
	peers_end_set(db->peers);
	if (members_find(db, db->id))
		db->was_member = true;
}

/* --- changes --- */

static void end_op(struct change_op *op, int error)
{
	db_change_cb cb = op->cb;
	void *data = op->data;

	op->kind = OP_NONE;
	op->started = false;
	if (cb)
		cb(data, error);
}

static void on_change(void *data, int error)
{
	struct db *db = data;

	end_op(&db->change, error);
	db_kick(db);
}

static void on_transfer(void *data, int error)
{
	struct db *db = data;

	end_op(&db->transfer, error);
	db_kick(db);
}

static int start_op(struct db *db, const struct change_op *op)
{
	if (!db->serving)
		return -EPERM;
	switch ((enum op_kind)op->kind) {
	case OP_ADD:
		return consensus_add(db->consensus, op->id, op->address,
				     on_change, db);
	case OP_ASSIGN:
		return consensus_assign(db->consensus, op->id, op->role,
					on_change, db);
	case OP_REMOVE:
		return consensus_remove(db->consensus, op->id, on_change, db);
	case OP_TRANSFER:
		return consensus_transfer(db->consensus, op->id, on_transfer,
					  db);
	default:
		return -EINVAL;
	}
}

/* A configuration that changes while a snapshot is on its way would be news to
 * its receiver at once. But no receiver that hangs holds up the others' change,
 * nor its own removal. */
static bool must_wait(struct db *db, const struct change_op *op)
{
	uint64_t to = consensus_installing(db->consensus);

	return to != 0 && op != &db->transfer &&
	       !(op->kind == OP_REMOVE && op->id == to) &&
	       env_mono_ms() < op->asked_at + INSTALL_WAIT_MS;
}

static void run_op(struct db *db, struct change_op *op)
{
	int r;

	if (op->kind == OP_NONE || op->started || must_wait(db, op))
		return;
	op->started = true;
	r = start_op(db, op);
	if (r < 0)
		end_op(op, r);
	db_kick(db);
}

void members_flush(struct db *db)
{
	if (db->st.configuration_index != db->configuration_seen)
		read_configuration(db);
	run_op(db, &db->change);
	run_op(db, &db->transfer);
}

void members_cancel(struct db *db)
{
	if (db->change.kind != OP_NONE && !db->change.started)
		end_op(&db->change, -ECANCELED);
	if (db->transfer.kind != OP_NONE && !db->transfer.started)
		end_op(&db->transfer, -ECANCELED);
}

static int queue_op(struct db *db, struct change_op *slot, enum op_kind kind,
		    uint64_t id, db_change_cb cb, void *data)
{
	if (!db->serving || db->closing)
		return -EPERM;
	if (slot->kind != OP_NONE)
		return -EBUSY;
	memset(slot, 0, sizeof *slot);
	slot->kind = kind;
	slot->id = id;
	slot->cb = cb;
	slot->data = data;
	slot->asked_at = env_mono_ms();
	db_kick(db);
	return 0;
}

int db_add_member(struct db *db, uint64_t id, const char *peer_address,
		  db_change_cb cb, void *data)
{
	struct sockaddr_storage ss;
	int r;

	if (id == 0 || strlen(peer_address) >= sizeof db->change.address ||
	    link_parse_address(peer_address, &ss) < 0)
		return -EINVAL;
	if (db->n_members >= DB_MEMBERS_MAX)
		return -E2BIG;
	r = queue_op(db, &db->change, OP_ADD, id, cb, data);
	if (r == 0)
		snprintf(db->change.address, sizeof db->change.address, "%s",
			 peer_address);
	return r;
}

int db_assign(struct db *db, uint64_t id, enum db_role role, db_change_cb cb,
	      void *data)
{
	int r;

	if (role > DB_VOTER || (id == db->id && role != DB_VOTER))
		return -EINVAL;
	r = queue_op(db, &db->change, OP_ASSIGN, id, cb, data);
	if (r == 0)
		db->change.role = role;
	return r;
}

int db_remove_member(struct db *db, uint64_t id, db_change_cb cb, void *data)
{
	if (id == db->id)
		return -EINVAL;
	return queue_op(db, &db->change, OP_REMOVE, id, cb, data);
}

int db_transfer(struct db *db, uint64_t id, db_change_cb cb, void *data)
{
	return queue_op(db, &db->transfer, OP_TRANSFER, id, cb, data);
}

/* --- pings --- */

static void ping(struct db *db, struct peer *p, int64_t now)
{
	struct hash128 digest = store_digest(db->store);
	struct buf *b = peer_frame_begin(p, FRAME_PING);

	if (!b)
		return;
	p->pinged_at = now;
	buf_put_u64(b, db->st.applied_index);
	buf_put_u64(b, store_generation(db->store));
	buf_put_u64(b, digest.lo);
	buf_put_u64(b, digest.hi);
	buf_put_u64(b, db->st.term);
	buf_put_u8(b, db->disk_low ? PING_DISK_LOW : 0);
	buf_put_u64(b, db->heal.lost);
	buf_put_u64(b, consensus_match(db->consensus, p->id));
	peer_frame_end(p);
}

void members_on_ping(struct db *db, struct peer *from, struct reader *r)
{
	struct peer said = *from;
	uint64_t lost, match;
	uint8_t flags;

	said.applied_index = reader_u64(r);
	said.generation = reader_u64(r);
	said.digest.lo = reader_u64(r);
	said.digest.hi = reader_u64(r);
	said.term = reader_u64(r);
	flags = reader_u8(r);
	lost = reader_u64(r);
	match = reader_u64(r);
	if (r->bad)
		return;
	from->term = said.term;
	heal_on_ping(db, from, lost, match);
	from->disk_low = flags & PING_DISK_LOW;
	/* One that we have not applied yet is kept until it was compared. */
	if (from->digest_known && from->applied_index > db->st.applied_index &&
	    from->applied_index <= said.applied_index)
		return;
	from->applied_index = said.applied_index;
	from->generation = said.generation;
	from->digest = said.digest;
	from->digest_known = true;
}

/* All rows of members are of others, ours was among them. */
static bool row_is_gone(struct db *db)
{
	const struct store *s = db->store;
	char id[24];

	if (db->st.applied_index < db->st.commit_index ||
	    store_count(s, CLASS_member) == 0)
		return false;
	snprintf(id, sizeof id, "%llu", (unsigned long long)db->id);
	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m)) {
		if (strcmp(record_str(m, F_member_raft_id), id) != 0)
			continue;
		db->had_row = true;
		return false;
	}
	return db->had_row;
}

/* By most of the other voters, as we know them: one of them alone may be the
 * one that does not know yet. */
static bool is_disowned(const struct db *db)
{
	unsigned voters = 0, disown = 0;

	for (unsigned i = 0; i < db->n_members; i++) {
		const struct peer *p = peers_get(db->peers, db->members[i].id);

		if (!p || db->members[i].role != DB_VOTER)
			continue;
		voters++;
		disown += p->disowns_us;
	}
	return disown > 0 && disown > voters / 2;
}

static bool is_out(struct db *db)
{
	if (db->heal.rebuilding || db->n_members == 0)
		return false;
	return (db->was_member && !members_find(db, db->id)) ||
	       row_is_gone(db) || is_disowned(db);
}

static void check_removed(struct db *db, int64_t now)
{
	if (!is_out(db)) {
		db->not_member_since = 0;
		return;
	}
	if (db->not_member_since == 0)
		db->not_member_since = now;
	else if (now - db->not_member_since > REMOVED_MS)
		db_end(db, DB_END_REMOVED, "this host was removed from the pool");
}

void members_tick(struct db *db, int64_t now)
{
	for (struct peer *p = peers_next(db->peers, NULL); p;
	     p = peers_next(db->peers, p)) {
		bool fast = db->st.is_leader || p->id == db->st.leader_id;

		if (now < p->pinged_at + (fast ? PING_LEADER_MS : PING_MS))
			continue;
		ping(db, p, now);
		heal_pinged(db, p);
	}
	compare_tick(db, now);
	check_removed(db, now);
}

/* --- telling --- */

bool db_member_alive(const struct db *db, uint64_t id, int64_t within_ms)
{
	const struct peer *p;

	if (id == db->id)
		return true;
	p = peers_get(db->peers, id);
	return p && p->heard_at >= 0 &&
	       env_mono_ms() - p->heard_at <= within_ms;
}

static void tell_member(const struct db *db, unsigned i, struct db_status *ret)
{
	const struct consensus_member *m = &db->members[i];
	const struct peer *p = peers_get(db->peers, m->id);

	ret->members[i].id = m->id;
	ret->members[i].role = m->role;
	snprintf(ret->members[i].address, sizeof ret->members[i].address, "%s",
		 m->address);
	ret->members[i].heard_ms_ago = -1;
	if (m->id == db->id) {
		ret->members[i].connected = true;
		ret->members[i].heard_ms_ago = 0;
		ret->members[i].applied_index = db->st.applied_index;
		ret->members[i].digest_generation = store_generation(db->store);
		ret->members[i].digest = store_digest(db->store);
	} else if (p) {
		ret->members[i].connected = p->connected;
		ret->members[i].lost = p->lost != 0;
		if (p->heard_at >= 0)
			ret->members[i].heard_ms_ago =
				env_mono_ms() - p->heard_at;
		ret->members[i].applied_index = p->applied_index;
		ret->members[i].digest_generation = p->generation;
		ret->members[i].digest = p->digest;
	}
}

bool db_is_rebuilding(const struct db *db)
{
	return db->heal.rebuilding || compare_is_odd(&db->compare);
}

void db_get_status(const struct db *db, struct db_status *ret)
{
	const struct consensus_state *st = &db->st;

	*ret = (struct db_status){
		.id = db->id,
		.leader_id = st->leader_id,
		.term = st->term,
		.commit_index = st->commit_index,
		.applied_index = st->applied_index,
		.last_index = st->last_index,
		.snapshot_index = db->snaps.index,
		.is_leader = st->is_leader,
		.is_serving_leader = db->serving,
		.rebuilding = db_is_rebuilding(db),
		.n_members = db->n_members,
		.disk_free_bytes = db->disk_free,
		.pending_txns = db->txns.n_pending,
	};
	for (unsigned i = 0; i < db->n_members; i++)
		tell_member(db, i, ret);
}

uint64_t db_id_of_uuid(const char *uuid)
{
	uint64_t id = 0;
	unsigned digits = 0;

	for (; *uuid && digits < 16; uuid++) {
		const char *hex = "0123456789abcdef";
		char c = (char)(*uuid >= 'A' && *uuid <= 'F' ? *uuid + 32
							     : *uuid);
		const char *at = strchr(hex, c);

		if (c == '-' || !at)
			continue;
		id = id << 4 | (uint64_t)(at - hex);
		digits++;
	}
	return id ? id : 1;
}
