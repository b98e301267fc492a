/* A client's connection that has become a stream of bytes (a console): the other
 * end of it, which is a descriptor of this host or, through TLS, another member
 * that has it.
 *
 * One block a direction is in memory: nothing is read from one side before the
 * other has taken what came last. So a client that never reads stops its own
 * stream, and costs no more than that.
 */
#ifndef RPC_STREAM_H
#define RPC_STREAM_H

#include "rpc/conn.h"

/* Where another member has it. */
struct stream_target {
	const char *address; /* numeric */
	unsigned port;
	const char *fingerprint; /* of its certificate */
	const char *request;     /* head to send; copied */
};

/* How this host watches over a stream of its own. */
struct stream_watch {
	struct lease *lease; /* ends with the stream; taken, or NULL */
	bool rfb;
	uint64_t idle_ms;    /* without a key or the pointer; 0: for ever */
};

/* Begin: c is in CONN_STREAM from then on, with nothing to send. websocket: the
 * client's bytes are frames. 0, or a negative errno with nothing changed. */
int stream_open(struct conn *c, int takes_fd, bool websocket,
		const struct stream_watch *watch);
/* The same, but the stream is open once the member has said 200: then
 * console_ready(c), or console_refused(). */
int stream_relay(struct conn *c, const struct stream_target *to,
		 bool websocket);
/* Ends with c; it may be NULL. */
void stream_close(struct stream *s);

/* What the connection tells its stream. */
void stream_client_bytes(struct stream *s); /* in c->in */
void stream_client_drained(struct stream *s);
/* Does it want more of the client's bytes? */
bool stream_wants(const struct stream *s);
void stream_tick(struct stream *s, uint64_t now);

#endif
