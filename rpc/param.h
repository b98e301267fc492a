/* What a client says beside the path of its request: query, cookies,
 * credentials. Values come out decoded, and only if they are good text. */
#ifndef RPC_PARAM_H
#define RPC_PARAM_H

#include "rpc/http.h"

/* head: the bytes that r was parsed from. False: not there, longer than
 * size - 1 bytes, or not valid text; out is "" then. */
bool param_query(const struct http_request *r, const char *head,
		 const char *name, char *out, size_t size);
/* The cookie, or else the query's. */
bool param_cookie_or_query(const struct http_request *r, const char *head,
			   const char *name, char *out, size_t size);

#define PARAM_MAX_CREDENTIAL 256

/* HTTP Basic (RFC 7617). */
bool param_basic(const struct http_request *r, const char *head,
		 char user[PARAM_MAX_CREDENTIAL],
		 char password[PARAM_MAX_CREDENTIAL]);
/* Is word one of a header's comma-separated items? */
bool param_lists(const struct http_text *t, const char *head, const char *word);

/* Percent-encodes all but letters, digits and "-._~". */
void param_encode(struct buf *b, const char *text);

#endif
