/* The end of libraft's contexts for asynchronous writes.
 *
 * libraft has one for each file of its log. When the file is full, and at every
 * snapshot, it destroys the context on the loop, and io_destroy(2) returns only
 * when the kernel has let two of its RCU grace periods pass: 27 to 45 ms in
 * which the caller sleeps. All writes are back by then, and nobody waits for the
 * end of an empty context, so a thread is made that does.
 *
 * libraft has no hook for it. It makes the call by syscall(3), which is defined
 * here in place of the C library's and hands on everything else.
 *
 * Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_CONSENSUS_AIO_H
#define RAFTDB_CONSENSUS_AIO_H

#include <stdint.h>

/* Before libraft is used; again does no harm. */
void consensus_aio_set(void);

/* How many contexts were given to a thread, in the life of this process. */
uint64_t consensus_aio_ends(void);

#endif
