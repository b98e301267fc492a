/* libraft's connections over our links: each is a LINK_STREAM with a pump. Only
 * for raftdb/consensus.c.
 */
#ifndef RAFTDB_TRANSPORT_H
#define RAFTDB_TRANSPORT_H

#include "base/list.h"
#include "raftdb/link.h"

#include <raft.h>
#include <raft/uv.h>

struct transport {
	struct raft_uv_transport uv; /* what libraft holds */
	uv_loop_t *loop;
	struct link *link; /* borrowed; NULL: nothing can connect */
	raft_uv_accept_cb accept;
	raft_uv_transport_close_cb close_cb;
	uv_timer_t closer;
	bool closing;
	unsigned n_pumps;
	struct list connects;
	void (*idle)(void *data);
	void *idle_data;
	void (*connected)(void *data, uint64_t id);
	void *connected_data;
};

/* connected: we have a new connection to the member, none of its bytes is lost
 * yet. */
void transport_init(struct transport *t, uv_loop_t *loop, struct link *link,
		    void (*connected)(void *data, uint64_t id), void *data);
/* A peer's stream from the link's accepted(). */
void transport_accept(struct transport *t, struct link_conn *c,
		      const struct db_member *m);
/* idle(data), perhaps at once, when no pump is left. Only after libraft has
 * closed the transport. */
void transport_when_idle(struct transport *t, void (*idle)(void *data),
			 void *data);

#endif
