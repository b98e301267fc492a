/* JSON-RPC 1.0 and 2.0: requests into values, values into replies, and the
 * client's side of 2.0. */
#ifndef RPC_JSONRPC_H
#define RPC_JSONRPC_H

#include "rpc/request.h"

/* ret and err must be initialised (zero). On RPC_PARSE_OK ret is filled; on
 * RPC_PARSE_BAD_TEXT its encoding and id are, so that the failure can be
 * answered in the form that was asked for. */
enum rpc_parse_result jsonrpc_parse(const char *body, size_t n,
				    const struct rpc_limits *limits,
				    struct rpc_request *ret,
				    struct rpc_parse_error *err);

/* A NULL member of a container is written as null. */
void jsonrpc_write_value(struct buf *b, const struct value *v);

/* Exactly one of result and error is given; id is NULL for 0. */
void jsonrpc_write_reply(struct buf *b, enum rpc_encoding version,
			 const struct value *id, const struct value *result,
			 const struct value *error);

/* A version 2 request with id 0. */
void jsonrpc_write_call(struct buf *b, const char *method,
			struct value *const *params, unsigned n_params);

/* A version 2 reply: one of the two is set, owned by the caller. False when it
 * is neither. */
bool jsonrpc_parse_reply(const char *body, size_t n, struct value **ret_result,
			 struct value **ret_error);

#endif
