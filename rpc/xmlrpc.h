/* XML-RPC: requests into values, values into replies.
 *
 * Requests are read with libxml2's SAX interface: no DTD, no entities but the
 * five of XML itself, no network, bounded depth and count. Replies are written
 * by hand, without a byte of white space between elements: clients rely on it.
 */
#ifndef RPC_XMLRPC_H
#define RPC_XMLRPC_H

#include "rpc/request.h"

/* Once, before threads start. */
void xmlrpc_init(void);

/* ret and err must be initialised (zero); ret is filled on RPC_PARSE_OK only.
 */
enum rpc_parse_result xmlrpc_parse(const char *body, size_t n,
				   const struct rpc_limits *limits,
				   struct rpc_request *ret,
				   struct rpc_parse_error *err);

/* <value>...</value>. A NULL member of a container is written as nil. */
void xmlrpc_write_value(struct buf *b, const struct value *v);

/* Exactly one of result and error is given. bare: the result alone, without
 * the Status struct (system.listMethods). */
void xmlrpc_write_reply(struct buf *b, const struct value *result,
			const struct value *error, bool bare);

#endif
