/* Just enough of gRPC (unary calls over HTTP/2, RFC 9113) to load etcd through
 * its own protocol: one call at a time on a connection, no header decoding.
 */
#ifndef TOOLS_BENCH_GRPC_H
#define TOOLS_BENCH_GRPC_H

#include <stdbool.h>

#include "base/buf.h"

/* Of one connection; all zeroes: about to begin. */
struct grpc {
	uint32_t stream;    /* of the newest call */
	bool answered;      /* that call's message has come */
	struct buf control; /* what goes out before the next call */
};

void grpc_deinit(struct grpc *g); /* all zeroes again */

/* Appends a call to out; the first one brings the connection's preface. */
void grpc_put_call(struct grpc *g, struct buf *out, const char *authority,
		   const char *path, const struct buf *message);

/* Consumes frames from in. 0: more bytes are needed; 1: the call has ended, *ret_ok
 * tells if with a message (a failed call has none); -1: the connection is of
 * no more use. */
int grpc_read(struct grpc *g, struct buf *in, bool *ret_ok);

/* Appends a protobuf field: bytes, or a bool that is true. */
void grpc_put_bytes(struct buf *message, unsigned field, const char *text);
void grpc_put_true(struct buf *message, unsigned field);

#endif
