/* Stands between libraft and its I/O, for what the library does not stand.
 *
 * A failed write: it goes on, votes, leads and acknowledges on the strength of
 * what is not on its disk, or frees memory twice. So it is told that all is
 * well, and from then on nothing that it does reaches its disk or another
 * member; its owner sees `failed` and ends the process.
 *
 * A snapshot that comes from the leader while one is being written: it follows a
 * null pointer when that is one of its own, and ignores the new one when that was
 * received too, though the leader sends no other before a long timeout. So that
 * message waits for the write to end.
 *
 * A message to server 0, to a leader that it has just stopped believing in: it
 * goes nowhere, where the real I/O would try to connect for ever.
 *
 * An entry with a new configuration that is not the first new one of its
 * message: it takes it for that of the first one's index, so that it never
 * becomes a committed one (no further change is possible, a snapshot carries the
 * configuration before it) and is not taken back with its entry. So such a
 * message is given to it in parts.
 *
 * A message whose entries end before the commit index, with a newer commit
 * index: it moves its own back, and labels the next snapshot with an index that
 * is older than the state in it. So it is not told of the newer one.
 *
 * The result of a vote that comes when the election is over: whether it was a
 * pre-vote it looks up among what only a candidate has, where a follower keeps
 * the address of its leader. Depending on that pointer it takes the term of a
 * pre-vote, which nobody has, for a newer one, and turns its leader down. So it
 * gets such results as a candidate only.
 *
 * Its refusal of what an older term's leader sends: the end of its log in it is
 * not set, and what stood on the stack would go to the other member. So it is
 * filled in.
 *
 * Its answer to a pre-vote: the term in it is the candidate's, also when its own
 * is a later one, which the candidate then never hears of. Where a majority needs
 * both, nobody is elected any more. So its own goes out.
 *
 * Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_IOGUARD_H
#define RAFTDB_IOGUARD_H

#include "base/list.h"

#include <raft.h>

struct ioguard {
	struct raft_io io;   /* what libraft gets */
	struct raft_io real; /* its functions, before ioguard_arm() */
	bool failed;
	bool closing;
	bool putting;        /* a snapshot is being written */
	struct list held;    /* requests that nobody answers before the close */
	raft_io_recv_cb recv;
	struct raft_message *install; /* waits; NULL: none */
};

/* io has been set up, and libraft has not seen it yet. */
void ioguard_arm(struct ioguard *g);
/* What has come in another way than over io; its memory is libraft's from here
 * on. */
void ioguard_receive(struct ioguard *g, struct raft_message *message);

#endif
