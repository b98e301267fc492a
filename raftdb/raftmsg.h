/* One message of libraft's as bytes (docs/formats.md), and the memory of one.
 *
 * What comes from another member is checked: every length, every flag, and that
 * nothing is left over.
 */
#ifndef RAFTDB_RAFTMSG_H
#define RAFTDB_RAFTMSG_H

#include "base/buf.h"

#include <raft.h>

#define RAFTMSG_VERSION 1

/* Appends the message. Of a snapshot's data it has the length only. False, and
 * nothing is appended: of a type that is not known. */
bool raftmsg_put(struct buf *b, const struct raft_message *m);
/* About as many bytes raftmsg_put() appends, and not fewer. */
size_t raftmsg_size(const struct raft_message *m);
/* Reads all that there is. ret gets no server id and no address. Its entries are
 * copies in one batch, as libraft wants to free them; a snapshot's data has its
 * length and no memory. False: malformed, nothing to free. */
bool raftmsg_get(struct reader *r, struct raft_message *ret);
/* Frees what raftmsg_get() or the real I/O has left to libraft to free. */
void raftmsg_free(struct raft_message *m);

#endif
