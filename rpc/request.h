/* One decoded RPC request, whichever encoding it came in, and what its two
 * parsers share. */
#ifndef RPC_REQUEST_H
#define RPC_REQUEST_H

#include "schema/value.h"

enum rpc_encoding { RPC_XML, RPC_JSON_V1, RPC_JSON_V2 };

struct rpc_request {
	enum rpc_encoding encoding;
	char *method;         /* owned */
	struct value *params; /* SET, owned */
	struct value *id;     /* JSON: INT or STRING, owned; XML: NULL */
};

#define RPC_REQUEST_INIT { RPC_XML, NULL, NULL, NULL }

void rpc_request_deinit(struct rpc_request *r);

struct rpc_limits {
	unsigned depth; /* of arrays and structs in one parameter */
};

/* What a parser may find. */
enum rpc_parse_result {
	RPC_PARSE_OK,
	RPC_PARSE_MALFORMED, /* answered with an HTTP error page */
	RPC_PARSE_BAD_TEXT,  /* answered with an RPC failure */
};

/* Why the parser did not like it. */
struct rpc_parse_error {
	char reason[160];    /* MALFORMED: one line */
	struct value *error; /* BAD_TEXT: the failure, owned by the caller */
};

/* Values of one request: every one costs memory, however short its text. */
#define RPC_MAX_VALUES 262144
#define RPC_MAX_CONTAINERS 32768
#define RPC_MAX_METHOD_NAME 256

/* INVALID_VALUE about a text that text_valid() refuses: p is shown escaped and
 * cut short. */
struct value *rpc_bad_text(const char *p, size_t n);

/* At most max bytes of n, none of a character that would be cut in two. */
size_t rpc_utf8_prefix(const char *p, size_t n, size_t max);

/* Appends a decimal number. */
void rpc_put_int(struct buf *b, int64_t v);

#endif
