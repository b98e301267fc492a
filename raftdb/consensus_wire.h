/* libraft's messages as frames on the links of raftdb/peers.h.
 *
 * A message is one frame, or parts when it is long, and lost like any other
 * where there is no connection or the connection's queue is full: its request
 * ends with RAFT_NOCONNECTION at once. A snapshot's data goes ahead of its
 * message, a piece in each turn of the loop and no faster than the network takes
 * it, so that other frames find their way between.
 *
 * A member takes in one long message and one snapshot at a time, so strangers
 * to the leadership can make it hold no more than that.
 *
 * Only for raftdb/consensus.c.
 */
#ifndef RAFTDB_CONSENSUS_WIRE_H
#define RAFTDB_CONSENSUS_WIRE_H

#include "raftdb/peers.h"

#include <raft.h>

#define WIRE_PART (64 * 1024) /* payload of a part */
/* A message's entries beyond this stay behind, for a later one. */
#define WIRE_MESSAGE_MAX ((size_t)8 * 1024 * 1024)
/* An image, the transactions behind it, what stands before them. */
#define WIRE_SNAPSHOT_MAX ((size_t)3 * 512 * 1024 * 1024)

enum wire_what { WIRE_MESSAGE, WIRE_SNAPSHOT, WIRE_N };

/* What comes in parts. */
struct wire_parts {
	uint64_t from; /* 0: nothing */
	char *p;
	size_t total, got;
};

/* The snapshot that goes out. */
struct wire_out {
	struct raft_io_send *req; /* NULL: none */
	raft_io_send_cb cb;
	struct raft_message m; /* its memory is the request's */
	uint64_t epoch;        /* of our connection */
	size_t at;
};

struct wire {
	struct raft *raft;
	struct peers *peers; /* borrowed */
	bool closing;
	struct wire_out out;
	struct wire_parts in[WIRE_N];
};

void wire_init(struct wire *w, struct raft *raft, struct peers *peers);
/* As raft_io.send. cb comes from inside it, but for a snapshot. */
int wire_send(struct wire *w, struct raft_io_send *req,
	      const struct raft_message *m, raft_io_send_cb cb);
/* Once in a turn of the loop, before the links are flushed. True: there is more
 * for the next turn, which nothing else may bring about soon. */
bool wire_turn(struct wire *w);

/* Frames of a peer's. True: ret is a message, to be freed by raftmsg_free(). */
bool wire_on_message(struct wire *w, const struct peer *from, struct reader *r,
		     struct raft_message *ret);
bool wire_on_part(struct wire *w, const struct peer *from, struct reader *r,
		  struct raft_message *ret);
/* The member's connection to us is gone: half a message is nothing. */
void wire_unheard(struct wire *w, uint64_t id);
/* Ends what is under way; nothing is sent any more. */
void wire_close(struct wire *w);

#endif
