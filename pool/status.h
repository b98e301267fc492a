/* What this member knows of itself and the others, as one struct value. */
#ifndef POOL_STATUS_H
#define POOL_STATUS_H

#include "raftdb/db.h"
#include "rpc/front.h"

struct value *status_of(const struct db *db, const struct front *f);

#endif
