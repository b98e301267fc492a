/* A member whose disk gets full sequences no writes, and hands over. */
#include "base/log.h"
#include "raftdb/db_impl.h"

#define CHECK_MS 500
#define TRANSFER_EVERY_MS 2000

/* A live voter with room on its disk, the most up to date first. */
static uint64_t successor(struct db *db)
{
	const struct peer *best = NULL;

	for (unsigned i = 0; i < db->n_members; i++) {
		const struct peer *p = peers_get(db->peers, db->members[i].id);

		if (!p || db->members[i].role != DB_VOTER || p->disk_low ||
		    !db_member_alive(db, p->id, 1000))
			continue;
		if (!best || p->applied_index > best->applied_index)
			best = p;
	}
	return best ? best->id : 0;
}

static void on_transferred(void *data, int error)
{
}

static void hand_over(struct db *db, int64_t now)
{
	uint64_t to;

	if (!db->serving || now < db->low_transfer_at + TRANSFER_EVERY_MS)
		return;
	db->low_transfer_at = now;
	to = successor(db);
	if (to && db_transfer(db, to, on_transferred, NULL) == 0)
		log_warn("disk full: handing leadership over to %016llx",
			 (unsigned long long)to);
}

void disk_tick(struct db *db, int64_t now)
{
	bool low;

	if (now < db->disk_at + CHECK_MS)
		return;
	db->disk_at = now;
	if (!disk_room(db->raft_dir, &db->disk_free))
		return;
	low = db->disk_free < (uint64_t)db->min_free_mib << 20;
	if (low && !db->disk_low)
		log_error("disk full: %llu MiB are left below %s, at least %u "
			  "are needed; this member sequences no writes until "
			  "there is room again: remove files, or enlarge it",
			  (unsigned long long)(db->disk_free >> 20), db->dir,
			  db->min_free_mib);
	else if (!low && db->disk_low)
		log_info("disk: %llu MiB are free again below %s",
			 (unsigned long long)(db->disk_free >> 20), db->dir);
	if (low != db->disk_low)
		db_kick(db);
	db->disk_low = low;
	if (low)
		hand_over(db, now);
}
