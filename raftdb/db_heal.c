#include "raftdb/db_heal.h"

#include <stdio.h>

#include "base/log.h"
#include "raftdb/db_impl.h"

#define FLOOR_MS 1000

bool db_member_lost(const struct db *db, uint64_t id)
{
	const struct peer *p = peers_get(db->peers, id);

	return p && p->lost != 0;
}

/* A member's acknowledgement leaves when the entries are on its disk, and only
 * a leader of a later term makes a log shorter. So in one term the log is never
 * shorter than what its leader was told. */
static void check_own_log(struct db *db, const struct peer *leader,
			  uint64_t match)
{
	const struct consensus_state *st = &db->st;

	consensus_get(db->consensus, &db->st);
	if (db->heal.lost || db->fatal || st->is_leader ||
	    leader->id != st->leader_id || leader->term != st->term ||
	    match <= st->last_index)
		return;
	snprintf(db->heal.why, sizeof db->heal.why,
		 "log entries %llu to %llu, which this member had acknowledged, "
		 "are gone from its disk",
		 (unsigned long long)st->last_index + 1,
		 (unsigned long long)match);
	db_end(db, DB_END_REBUILD, db->heal.why);
}

void heal_on_ping(struct db *db, struct peer *from, uint64_t lost,
		  uint64_t match)
{
	if (lost && from->lost != lost)
		log_warn("member %016llx has lost its log and is out until it "
			 "has been rebuilt", (unsigned long long)from->id);
	else if (!lost && from->lost)
		log_info("member %016llx is ready to be rebuilt",
			 (unsigned long long)from->id);
	from->lost = lost;
	check_own_log(db, from, match);
}

/* Committed without it, so by a majority of the others: what it has forgotten
 * is not asked for any more. */
void heal_pinged(struct db *db, struct peer *p)
{
	struct buf *b;

	if (!p->lost || !db_serving_now(db) || db->st.configuration_changing ||
	    db->st.configuration_index != db->configuration_seen ||
	    members_find(db, p->id))
		return;
	b = peer_frame_begin(p, FRAME_READMIT);
	if (!b)
		return;
	buf_put_u64(b, p->lost);
	buf_put_u64(b, db->st.term);
	buf_put_u64(b, db->st.configuration_index);
	peer_frame_end(p);
}

void heal_on_readmit(struct db *db, struct peer *from, struct reader *r)
{
	uint64_t lost = reader_u64(r), term = reader_u64(r);
	uint64_t index = reader_u64(r);

	if (r->bad || !lost || lost != db->heal.lost)
		return;
	log_info("the pool knows of the loss (term %llu); waiting to be added "
		 "again", (unsigned long long)term);
	db->heal.lost = 0;
	db->heal.out_index = index;
	consensus_readmit(db->consensus, term);
	from->pinged_at = 0;
}

/* What was committed, and on our disk, stays there. Nothing else tells a voter
 * that starts with an older log that it must not vote. */
static void note_floor(struct db *db, int64_t now)
{
	struct heal *h = &db->heal;
	uint64_t index = MIN(db->st.commit_index, db->st.stored_index);

	if (index <= h->floor || now < h->floor_at + FLOOR_MS || h->rebuilding)
		return;
	h->floor_at = now;
	h->floor = index;
	disk_set_floor(db->dir, index);
}

void heal_opened(struct db *db)
{
	struct heal *h = &db->heal;

	if (!disk_has_state(db->raft_dir))
		disk_set_floor(db->dir, 0);
	h->floor = disk_floor(db->dir);
	if (h->floor <= db->st.last_index ||
	    consensus_members(db->consensus, db->members, DB_MEMBERS_MAX) < 2)
		return;
	consensus_deafen(db->consensus);
	snprintf(h->why, sizeof h->why,
		 "the log ends at index %llu, but has been at %llu: an older "
		 "copy of the folder? (docs/operations.md, \"Put back\")",
		 (unsigned long long)db->st.last_index,
		 (unsigned long long)h->floor);
	db_end(db, DB_END_REBUILD, h->why);
}

static void check_rebuilt(struct db *db)
{
	struct heal *h = &db->heal;

	if (!h->rebuilding || h->lost ||
	    db->st.configuration_index <= h->out_index ||
	    db->st.applied_index < h->out_index ||
	    !members_find(db, db->id))
		return;
	h->rebuilding = false;
	log_info("rebuilt: one of the pool again, at index %llu",
		 (unsigned long long)db->st.applied_index);
	if (db->cb.rebuilt)
		db->cb.rebuilt(db->cb.data);
}

void heal_tick(struct db *db, int64_t now)
{
	check_rebuilt(db);
	note_floor(db, now);
}
