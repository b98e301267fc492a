/* A member whose log is not what it has stood for: how it is found, kept from
 * doing harm, and built anew. docs/consistency.md has the argument.
 *
 *   found: by an empty folder, by the leader's word of what was acknowledged, or
 *   by a state that differs -> DB_END_REBUILD, and a start with an empty folder
 *   lost: says so in its pings, and hears no Raft message
 *   the leader removes it from the group (pool/member.c), which a majority of
 *   the others commits, and tells it: READMIT
 *   readmitted: an empty member like one that joins; it is added again
 *   rebuilt: it finds itself in a configuration behind the one without it
 *
 * Only for raftdb/db*.c.
 */
#ifndef RAFTDB_DB_HEAL_H
#define RAFTDB_DB_HEAL_H

#include "base/buf.h"

struct db;
struct peer;

struct heal {
	uint64_t lost;      /* number of the loss; 0: none, or readmitted */
	uint64_t out_index; /* of the configuration without us */
	bool rebuilding;
	int64_t floor_at;   /* when it was written */
	uint64_t floor;
	char why[160];
};

/* lost: the number that the peer gives its loss; match: what it says that we
 * have acknowledged to it, if it leads. */
void heal_on_ping(struct db *db, struct peer *from, uint64_t lost,
		  uint64_t match);
/* It was just sent a ping: tells it, where that is due, that it is out. */
void heal_pinged(struct db *db, struct peer *p);
void heal_on_readmit(struct db *db, struct peer *from, struct reader *r);
void heal_tick(struct db *db, int64_t now);
/* The log has been loaded. */
void heal_opened(struct db *db);

#endif
