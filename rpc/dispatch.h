/* From a method's name and loosely typed parameters to a struct call that fits
 * the schema, or to an answer that needs no pool. */
#ifndef RPC_DISPATCH_H
#define RPC_DISPATCH_H

#include "rpc/request.h"
#include "schema/call.h"

/* Fills c (name, mode, method, session, args) from the request. Returns true
 * when the call is for the pool; false when c->result or c->error has been set
 * here (c->done has not been called). Borrows r.
 *
 * An unknown method with parameters goes to the pool with method NULL: the
 * session, its first parameter, is to be judged before the name is. */
bool dispatch_request(const struct rpc_request *r, struct call *c);

/* Is it the method whose XML-RPC result stands alone, without a Status? */
bool dispatch_is_bare(const char *method);

#endif
