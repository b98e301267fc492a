/* What this member knows of itself and the others, as JSON text. */
#ifndef POOL_STATUS_H
#define POOL_STATUS_H

#include "pool/pool.h"
#include "raftdb/db.h"
#include "raftdb/pooldb.h"
#include "rpc/front.h"

/* f and p may be NULL; longest_turn_us: of the core's loop since the last time.
 * The caller frees the text. */
char *status_json(const struct db *db, const struct front *f, struct pooldb *p,
		  const struct pool *pool, uint64_t longest_turn_us);

#endif
