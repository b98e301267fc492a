/* TLS 1.2 and 1.3 as a transformation of bytes: ciphertext in, plain text out,
 * and the other way round. The owner moves the ciphertext. Certificates of the
 * front end are made here as well (rpc/client.h declares those functions). */
#ifndef RPC_TLS_H
#define RPC_TLS_H

#include <openssl/ssl.h>

#include "base/buf.h"

/* Negative errno and a log line on failure. Free with SSL_CTX_free(). */
int tls_server_context(const char *cert_file, const char *key_file,
		       SSL_CTX **ret);
/* Accepts any certificate: the caller compares the fingerprint. */
int tls_client_context(SSL_CTX **ret);

struct tls_stream;

struct tls_stream *tls_stream_new(SSL_CTX *ctx, bool server);
void tls_stream_free(struct tls_stream *t); /* NULL is fine */
void tls_stream_freep(struct tls_stream **t);

/* Takes n bytes of ciphertext (a client begins with none), appends what it
 * decrypts to plain and what must be sent to cipher. 0; TLS_STREAM_END when the
 * peer has said that it sends no more; -EPROTO when the peer breaks the
 * protocol (cipher may hold an alert). */
enum { TLS_STREAM_END = 1 };
int tls_stream_read(struct tls_stream *t, const char *p, size_t n,
		    struct buf *plain, struct buf *cipher);
/* The handshake is done: tls_stream_write() may be called. */
bool tls_stream_ready(const struct tls_stream *t);
/* Encrypts all of p. -EPROTO when the stream is broken. */
int tls_stream_write(struct tls_stream *t, const char *p, size_t n,
		     struct buf *cipher);
/* Says that no more will be sent. */
void tls_stream_end(struct tls_stream *t, struct buf *cipher);
/* SHA-256 of the peer's certificate, lower-case hex; -ENOENT without one. */
int tls_stream_fingerprint(const struct tls_stream *t, char ret[65]);

#endif
