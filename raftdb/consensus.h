/* Raft, as the rest of raftdb sees it: libraft 0.22.1 with its disk format, over
 * our links. Indexes and terms are libraft's. Nothing here may be called from
 * inside apply, restore or snapshot.
 */
#ifndef RAFTDB_CONSENSUS_H
#define RAFTDB_CONSENSUS_H

#include "raftdb/peers.h"

struct consensus;

struct consensus_config {
	uv_loop_t *loop;
	struct peers *peers; /* borrowed, outlive the consensus */
	const char *dir;   /* exists; libraft's own */
	uint64_t id;
	const char *address;
	unsigned election_ms, heartbeat_ms;
	/* The log that this id stood for is gone: hear nobody, and so neither
	 * vote nor acknowledge, before consensus_readmit(). */
	bool deaf;
};

struct consensus_part {
	void *base;
	size_t len;
};
#define CONSENSUS_PARTS 3

struct consensus_ops {
	void *data;
	/* A committed entry: index rises with every call. */
	void (*apply)(void *data, uint64_t index, const char *p, size_t n);
	/* Replace the state by a snapshot's. Negative errno: the state is
	 * undefined, the process must end. */
	int (*restore)(void *data, const char *p, size_t n);
	/* The state as of this index, in parts that live until snapshot_done.
	 * Comes some time after consensus_snapshot(). Nonzero: not now. */
	int (*snapshot)(void *data, uint64_t index,
			struct consensus_part parts[CONSENSUS_PARTS],
			unsigned *ret_n);
	void (*snapshot_done)(void *data);
	/* A proposal ended: committed and applied, or its outcome is unknown. */
	void (*proposed)(void *data, uint64_t tag, bool applied);
	/* consensus_barrier() ended. */
	void (*barrier)(void *data, uint64_t term, bool applied);
};

/* Loads the log and starts. Negative errno and a log line: -EBADMSG damaged,
 * -EIO. c is freed later by the loop in this case. */
int consensus_open(const struct consensus_config *cfg,
		   const struct consensus_ops *ops, struct consensus **ret);
/* Pending proposals and changes report; then cb when all handles are closed,
 * and c is freed. */
void consensus_close(struct consensus *c, void (*cb)(void *data), void *data);
/* Writes the configuration of a pool of one. -EEXIST when there is one. */
int consensus_bootstrap(const char *dir, uint64_t id, const char *address);
/* Fills an empty folder as that of a pool of one which has come to this index
 * and has nothing but a snapshot of these parts. Blocks. */
int consensus_seed(const char *dir, uint64_t id, const char *address,
		   uint64_t index, const struct consensus_part *parts,
		   unsigned n_parts);

/* FRAME_RAFT and FRAME_RAFT_PART of a member. */
void consensus_on_message(struct consensus *c, const struct peer *from,
			  struct reader *r);
void consensus_on_part(struct consensus *c, const struct peer *from,
		       struct reader *r);

struct consensus_state {
	bool available; /* false: libraft gave up (a write failed) */
	bool is_leader;
	bool transferring;
	uint64_t term, leader_id; /* 0: not known */
	uint64_t commit_index, applied_index, last_index, stored_index;
	uint64_t configuration_index; /* changes with every new configuration */
	bool configuration_changing;  /* the newest is not committed yet */
};
void consensus_get(struct consensus *c, struct consensus_state *ret);

void consensus_deafen(struct consensus *c); /* as config.deaf */
/* Hears messages of this term and later ones from now on. */
void consensus_readmit(struct consensus *c, uint64_t term);
/* On the leader: up to where this member has acknowledged our log; else 0. */
uint64_t consensus_match(struct consensus *c, uint64_t id);
/* On the leader: whom a snapshot is on its way to; 0: nobody. */
uint64_t consensus_installing(const struct consensus *c);

/* A connection with this member came or went. When all have gone and it leads,
 * it is likely dead. */
void consensus_peer_changed(struct consensus *c, const struct peer *p);

/* Memory for an entry. */
void *consensus_alloc(size_t n);
void consensus_free(void *p);
/* Takes p when 0. -EPERM: not the leader, or handing over; p stays the
 * caller's. Another error: libraft cannot go on, p is gone. The result comes
 * with ops.proposed. */
int consensus_propose(struct consensus *c, void *p, size_t n, uint64_t tag);
int consensus_barrier(struct consensus *c);
/* What is due from the loop, often. On the leader: libraft tells its followers
 * what is committed with the next entry or heartbeat only; this tells those that
 * have everything at once, so that they may apply it. */
void consensus_turn(struct consensus *c);
/* Once in a turn of the loop, before the links are flushed. True: another turn is
 * due at once. */
bool consensus_push(struct consensus *c);
/* Asks for a snapshot soon; keeps so many entries (at least 1) behind it. */
void consensus_snapshot(struct consensus *c, unsigned trailing);

struct consensus_member {
	uint64_t id;
	char address[64]; /* a copy: libraft replaces its own at any snapshot */
	enum db_role role;
};
unsigned consensus_members(struct consensus *c, struct consensus_member *ret,
			   unsigned max);

typedef void (*consensus_change_cb)(void *data, int error);
/* On the leader, one at a time (-EBUSY). A negative return: cb is not called.
 * -EPERM not the leader, -EALREADY has this role, -ENOENT, -EEXIST. */
int consensus_add(struct consensus *c, uint64_t id, const char *address,
		  consensus_change_cb cb, void *data);
int consensus_assign(struct consensus *c, uint64_t id, enum db_role role,
		     consensus_change_cb cb, void *data);
int consensus_remove(struct consensus *c, uint64_t id, consensus_change_cb cb,
		     void *data);
/* To this voter, or (0) to the one that has most. No entries are taken until cb;
 * -EINVAL: no such voter. Ends after an election timeout at the latest. */
int consensus_transfer(struct consensus *c, uint64_t id, consensus_change_cb cb,
		       void *data);

#endif
