/* Keeps libraft from flooding a network that is slower than it thinks.
 *
 * libraft calls a member unreachable after some heartbeats without an answer,
 * and from then on sends it everything that it has not acknowledged with every
 * heartbeat; a snapshot it loads from the disk and sends again likewise. Where
 * a megabyte takes longer than a few heartbeats, nothing ever arrives any more.
 *
 * So, for each member, what went out over the same connection is not sent again
 * before there was time for an answer: an AppendEntries loses the entries that
 * are on their way (what is left is a heartbeat, or only the newer ones). And
 * snapshots go out one at a time in all, loaded when it is their turn. For Raft
 * these are messages that are lost or late, which it stands.
 *
 * Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_CONSENSUS_SEND_H
#define RAFTDB_CONSENSUS_SEND_H

#include "base/list.h"
#include "raftdb/consensus_wire.h"

#include <raft.h>

struct send_install;

struct send_peer {
	uint64_t id; /* 0: free */
	int64_t used_at;
	/* Entries prev+1 .. upto of this term are on their way; upto 0: none. */
	uint64_t term, prev, upto, match;
	size_t bytes;
	int64_t since; /* of the last progress */
	/* It needs a snapshot, in the words of this message. */
	bool wants;
	struct raft_message want;
	char address[64];
	uint64_t installed_index; /* went out not long ago; 0: none */
	int64_t install_again_at; /* time for that one to arrive */
};

struct sender {
	struct raft *raft;
	struct raft_io *io;
	struct raft_io real; /* its functions, before sender_arm() */
	struct wire *wire;   /* in place of its send; NULL: none */
	struct list late;    /* requests to be answered by the next turn */
	struct send_install *install; /* NULL: none is under way */
	struct send_peer peers[DB_MEMBERS_MAX];
	bool wanted; /* of some peer, perhaps: wants */
	bool closing;
};

/* io has been set up, and libraft has not seen it yet. raft->data becomes ours.
 * What goes out takes the wire, or (NULL) io's own send. */
void sender_arm(struct sender *s, struct raft_io *io, struct raft *raft,
		struct wire *wire);
/* Often, not from inside libraft. */
void sender_turn(struct sender *s);
/* A new connection to the member: what went over the old one may be lost. */
void sender_connected(struct sender *s, uint64_t id);
/* Whom a snapshot is on its way to; 0: nobody. */
uint64_t sender_installing(const struct sender *s);
/* Before raft_close(). */
void sender_close(struct sender *s);

#endif
