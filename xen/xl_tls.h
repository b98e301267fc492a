/* The link of a migration: TLS between two hosts of a pool.
 *
 * Both sides show their host's certificate, and each accepts exactly those
 * whose SHA-256 fingerprint is in the daemon's list of members, read anew for
 * every link. What follows the handshake:
 *
 *   source                          destination
 *   token, 64 bytes             ->
 *                               <-  "OK"
 *   zeros:u32, length:u32 and length bytes, again and again: so many zero
 *   bytes, then these; together an image as in xl_image.h
 *   zeros 0, length 0           ->
 *                               <-  "OK": the guest is here, whole and paused,
 *                                   and the executor there remembers it
 *
 * Much of a guest's memory is zero: that is counted, not sent. Neither
 * number is ever larger than XL_TLS_RUN: a source cannot make much of a few
 * bytes.
 *
 * One thread at a time. Blocking, with a limit for every wait. */
#ifndef XEN_XL_TLS_H
#define XEN_XL_TLS_H

#include "base/buf.h"

#define XL_TLS_RUN (1u << 20)

struct xl_tls_files {
	const char *cert, *key; /* PEM */
	const char *trust;      /* members.json */
};

struct xl_tls {
	void *ctx, *ssl;
	int fd;
	uint32_t zeros, left; /* of the run that is being read */
	bool ended;	      /* its end has come */
	struct buf out;	      /* runs, to be sent at once */
	uint64_t sent;	      /* bytes, before their encryption */
	char why[160]; /* what went wrong */
};

/* Shakes hands over fd, which is the link's from here on. Negative errno, and
 * `why`; close it in either case. */
int xl_tls_open(struct xl_tls *t, const struct xl_tls_files *f, int fd,
		bool server);
void xl_tls_close(struct xl_tls *t);
/* Its name, of what encrypts. */
const char *xl_tls_cipher(const struct xl_tls *t);
int xl_tls_write(struct xl_tls *t, const char *p, size_t n);
int xl_tls_read(struct xl_tls *t, char *p, size_t n); /* all n */
/* Far sides of a pump; data is the struct xl_tls. What was put is under way;
 * a get waits for one byte and takes what has come with it. */
ssize_t xl_tls_put_chunk(void *data, char *p, size_t n);
ssize_t xl_tls_get_chunk(void *data, char *p, size_t n);
int xl_tls_end_chunks(struct xl_tls *t);
/* The other side's next answer may take so long. */
void xl_tls_patience(struct xl_tls *t, int seconds);

#endif
