/* libraft's memory.
 *
 * When it gets none, the library answers its caller with RAFT_NOMEM, leaks or
 * forgets what it was doing, and goes on; parts of it assert instead, in builds
 * that have assertions. Here running out of memory ends the process, as it does
 * everywhere else (base/util.h): what was acknowledged is on a majority's disks.
 *
 * Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_CONSENSUS_HEAP_H
#define RAFTDB_CONSENSUS_HEAP_H

/* Of the whole process; again does no harm. Before libraft is used. */
void consensus_heap_set(void);

#endif
