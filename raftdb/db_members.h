/* Who is in the pool. Only for raftdb/db*.c. */
#ifndef RAFTDB_DB_MEMBERS_H
#define RAFTDB_DB_MEMBERS_H

#include "base/buf.h"
#include "raftdb/consensus.h"
#include "raftdb/db.h"
#include "raftdb/peers.h"

#define DB_DIGESTS 4096 /* remembered by log index */

struct digest_at {
	uint64_t index, generation;
	struct hash128 digest;
};

struct change_op {
	int kind; /* enum change_kind of db_members.c; 0: none */
	bool started;
	uint64_t id;
	char address[64];
	enum db_role role;
	db_change_cb cb;
	void *data;
	int64_t asked_at;
};

void members_flush(struct db *db);
void members_tick(struct db *db, int64_t now);
void members_cancel(struct db *db);
void members_on_ping(struct db *db, struct peer *from, struct reader *r);
/* As the configuration that was read last has it; NULL: not in it. */
const struct consensus_member *members_find(const struct db *db, uint64_t id);

#endif
