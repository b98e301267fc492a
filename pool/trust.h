/* The list of members whose certificates this host accepts, kept in a file so
 * that it is there before the database is: a follower applies nothing until a
 * leader, whom it must already trust, has spoken to it.
 *
 * File: JSON array of {"raft_id": "<decimal>", "peer_address", "fingerprint",
 * "uuid"}, replaced as a whole (tmp, fsync, rename).
 */
#ifndef POOL_TRUST_H
#define POOL_TRUST_H

#include "raftdb/db.h"

struct trust {
	char *path;
	struct db_member *members;
	size_t n;
};

#define TRUST_MAX_MEMBERS 64

/* A missing file is an empty list. -EBADMSG when it is damaged. */
int trust_load(struct trust *t, const char *path);
void trust_deinit(struct trust *t);
const struct db_member *trust_find(const struct trust *t, const char *fingerprint);
/* Replaces list and file; nothing is written when they are equal. Negative
 * errno when the file could not be written: the list in memory is new then. */
int trust_replace(struct trust *t, const struct db_member *members, size_t n);
/* Writes such a file for a member list as pool.join gives it: a set of structs
 * {raft_id, peer_address, fingerprint}. */
int trust_write_value(const char *path, const struct value *members);

#endif
