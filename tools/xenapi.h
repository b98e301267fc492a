/* A blocking XenAPI client for the command line tools: JSON-RPC 2.0 over TLS,
 * plain TCP or a Unix socket. Certificates are not verified: a member's is
 * self-signed, and the tools are for its own operator.
 */
#ifndef TOOLS_XENAPI_H
#define TOOLS_XENAPI_H

#include <json-c/json.h>
#include <openssl/ssl.h>

#include "base/buf.h"

struct xenapi_endpoint {
	char host[128]; /* or the path of a Unix socket */
	char port[8];
	bool tls, unix_socket;
	bool http2; /* is what TLS shall offer */
};

/* http://HOST[:PORT], https://HOST[:PORT] or unix:PATH. -EINVAL otherwise. */
int xenapi_parse_url(const char *url, struct xenapi_endpoint *ret);

struct xenapi {
	int fd; /* -1: closed */
	SSL *ssl;
	char host[128]; /* for the Host header */
	struct buf in;
	char error[512]; /* of the last call that failed */
};

#define XENAPI_INIT { -1, NULL, "", BUF_INIT, "" }

/* 0 or a negative errno. timeout_s bounds every read. */
int xenapi_open(struct xenapi *x, const struct xenapi_endpoint *e,
		unsigned timeout_s);
void xenapi_close(struct xenapi *x);

/* As read(2) and send(2), over TLS where that is on. */
ssize_t xenapi_read(struct xenapi *x, void *p, size_t n);
ssize_t xenapi_write(struct xenapi *x, const void *p, size_t n);

/* Appends the JSON text of a call whose arguments are strings; one that begins
 * with { is taken as JSON. */
void xenapi_put_call(struct buf *b, const char *method,
		     const char *const *args, unsigned n);
/* Length of the whole HTTP reply in b and where its body begins; 0: more bytes
 * are needed; -1: no HTTP reply with a length. */
ssize_t xenapi_reply_length(struct buf *b, size_t *ret_body);

/* The call's result, to be json_object_put(); NULL with x->error set. */
struct json_object *xenapi_call(struct xenapi *x, const char *method,
				const char *const *args, unsigned n);
/* The result, or the first element of a set, as text that the caller frees. */
char *xenapi_call_text(struct xenapi *x, const char *method,
		       const char *const *args, unsigned n);

#endif
