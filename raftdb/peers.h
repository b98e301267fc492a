/* The message links of a member: one outgoing connection to every other member,
 * made again whenever it breaks; what comes in over theirs; when each was last
 * heard. Frames to a member go over our own connection to it, in order while it
 * stands; of a member's connections to us only the newest is read, so nothing
 * that it sent over an older one arrives after it is back.
 */
#ifndef RAFTDB_PEERS_H
#define RAFTDB_PEERS_H

#include "base/list.h"
#include "raftdb/link.h"

struct peers;

struct peer {
	uint64_t id;
	char address[64];
	bool connected;   /* our connection to it stands */
	bool disowns_us;  /* it said that we are no member */
	uint64_t epoch;   /* counts the times it came to stand */
	int64_t heard_at; /* env_mono_ms of its last frame; -1: never */
	/* For the owner: what it said of itself. */
	uint64_t applied_index, generation, term;
	struct hash128 digest;
	uint64_t lost; /* number of its loss */
	bool disk_low, digest_known, digest_differs;
	int64_t pinged_at;
	/* private */
	struct peers *peers;
	struct link_conn *out, *in;
	int64_t retry_at;
	unsigned backoff_ms;
	bool wanted, complained;
	struct list in_peers;
};

struct peers_ops {
	void *data;
	void (*frame)(void *data, struct peer *from, uint8_t type, const char *p,
		      size_t n);
	/* p->connected changed, or its connection to us is gone. */
	void (*changed)(void *data, struct peer *p);
};

/* tick_ms: how soon it notices that a connection is to be made or ended. */
struct peers *peers_new(uv_loop_t *loop, struct link *link, uint64_t own_id,
			unsigned tick_ms, const struct peers_ops *ops);
/* Closes all connections; peers is freed later by the loop, before which cb is
 * called. */
void peers_close(struct peers *ps, void (*cb)(void *data), void *data);

/* Between these two every member of the configuration is told; peers that are
 * not wanted any more, and are not connected to us, are forgotten at the end. */
void peers_begin_set(struct peers *ps);
void peers_want(struct peers *ps, uint64_t id, const char *address);
void peers_end_set(struct peers *ps);

/* A member's LINK_MESSAGES connection. It becomes a peer if it is none. */
void peers_accept(struct peers *ps, struct link_conn *c,
		  const struct db_member *m);

struct peer *peers_get(struct peers *ps, uint64_t id); /* NULL: unknown */
struct peer *peers_next(struct peers *ps, const struct peer *p); /* NULL: first */

/* NULL: not connected, or too much is waiting. Else append and end. */
struct buf *peer_frame_begin(struct peer *p, uint8_t type);
void peer_frame_end(struct peer *p);
/* Bytes that wait for the network; p is connected. */
size_t peer_queued(const struct peer *p);

#endif
