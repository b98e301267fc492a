/* Joins a stream that somebody else owns (libraft) to a TLS connection: the
 * owner gets one end of a socket pair, the loop carries bytes between the other
 * end and the connection. Neither side is read while the other is full.
 */
#ifndef RAFTDB_PUMP_H
#define RAFTDB_PUMP_H

#include "raftdb/link.h"

struct pump;

/* Takes the (ready) connection. ret_stream is memory of sizeof(uv_pipe_t) that
 * the owner allocated; it becomes an open handle that the owner closes. Negative
 * errno (descriptors used up): the connection is closed, the memory untouched.
 * gone(data): both handles of ours are closed. */
int pump_new(uv_loop_t *loop, struct link_conn *c, uv_pipe_t *ret_stream,
	     void (*gone)(void *data), void *data);

#endif
