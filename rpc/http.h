/* HTTP/1.1 heads: an incremental parser of requests and the writer of reply
 * heads and error pages. Bytes only, no I/O.
 *
 * A request is a head (request line and header lines up to an empty line) and
 * content-length bytes of body. Lines end in CR LF or LF. Anything that two
 * implementations might read differently is refused: white space before a
 * colon, folded lines, control characters, two different lengths, a length
 * beside a transfer encoding.
 */
#ifndef RPC_HTTP_H
#define RPC_HTTP_H

#include "schema/call.h"

enum http_method {
	HTTP_GET,
	HTTP_POST,
	HTTP_PUT,
	HTTP_CONNECT,
	HTTP_OPTIONS,
	HTTP_HEAD,
	HTTP_OTHER,
};

#define HTTP_MAX_PATH 1024

/* Part of the head, still encoded: n bytes from its start + at on. */
struct http_text {
	uint32_t at, n;
};

struct http_request {
	size_t scanned;   /* bytes in which no end of the head was found */
	size_t head_len;  /* set when the head is complete */
	const char *head; /* while it is parsed */

	enum http_method method;
	unsigned minor;         /* of HTTP/1.x */
	char path[HTTP_MAX_PATH + 1]; /* decoded, without the query */
	bool keep_alive;
	bool has_length;
	uint64_t content_length; /* clamped to INT64_MAX */
	bool chunked;            /* any transfer encoding */
	bool expect_continue;
	bool upgrade;            /* asks for another protocol */
	bool upgrade_websocket;  /* ... for this one, also in connection: */
	bool connection_upgrade;
	bool relayed;            /* x-xenpool-relayed: a member asks */
	struct http_text query, cookie, authorization; /* n 0: none */
	struct http_text ws_key, ws_version, ws_protocol;
	enum call_read read;     /* x-xenpool-read */
	uint64_t min_generation; /* x-xenpool-min-generation */
	char user_agent[128];    /* "" unless it is good text */
	char cors_headers[256];  /* access-control-request-headers */
};

void http_request_reset(struct http_request *r);

enum { HTTP_MORE = 0, HTTP_HEAD_DONE = 1 };

/* p, n: all bytes from the request's first one on, more of them at each call.
 * Returns HTTP_MORE, HTTP_HEAD_DONE (r->head_len bytes are the head), or the
 * status with which to refuse the request (400, 431). */
int http_parse_head(struct http_request *r, const char *p, size_t n,
		    size_t max_head);

/* Room for any reply's head of http_rpc_head(). */
#define HTTP_RPC_HEAD_MAX 448

/* The head of an RPC reply, in the order of lines that the reference has, then
 * what the call tells of the store that it saw; call may be NULL. Returns its
 * length. */
size_t http_rpc_head(char out[HTTP_RPC_HEAD_MAX], const struct http_request *r,
		     size_t content_length, const char *content_type,
		     bool keep_alive, const struct call *call);

/* 503 with a reason of its own. */
#define HTTP_CONNECTION_LIMIT (1000 + 503)

/* Of a reply's first bytes, as http_write_error() takes it; 0: it is none. The
 * text has to end in a NUL or a line's end somewhere. */
int http_status_of(const char *line, size_t n);
/* Replies that end the connection. detail is plain text. */
void http_write_error(struct buf *b, const struct http_request *r, int status,
		      const char *detail);
void http_write_options(struct buf *b, const struct http_request *r);
/* The head of a file's content. */
void http_write_file_head(struct buf *b, const struct http_request *r,
			  size_t content_length, const char *content_type);

#endif
