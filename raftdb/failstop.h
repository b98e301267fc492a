/* Makes libraft's I/O stop at its first failed write. The library goes on after
 * one: it votes, leads and acknowledges on the strength of what is not on its
 * disk, or frees memory twice. So it is told that all is well, and from then on
 * nothing that it does reaches its disk or another member; its owner sees
 * `failed` and ends the process. Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_FAILSTOP_H
#define RAFTDB_FAILSTOP_H

#include "base/list.h"

#include <raft.h>

struct failstop {
	struct raft_io io;   /* what libraft gets */
	struct raft_io real; /* its functions, before failstop_arm() */
	bool failed;
	struct list held;    /* requests that nobody answers before the close */
};

/* io has been set up, and libraft has not seen it yet. */
void failstop_arm(struct failstop *f);

#endif
