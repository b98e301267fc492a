/* The link of a migration: TLS between two hosts of a pool.
 *
 * Both sides show their host's certificate, and each accepts exactly those
 * whose SHA-256 fingerprint is in the daemon's list of members, read anew for
 * every link. What follows the handshake:
 *
 *   source                          destination
 *   token, 64 bytes             ->
 *                               <-  "OK"
 *   length:u32 and so many bytes, again and again: an image as in xl_image.h
 *   length 0                    ->
 *                               <-  "OK": the guest is here, whole and paused,
 *                                   and the executor there remembers it
 *
 * One thread at a time. Blocking, with a limit for every wait. */
#ifndef XEN_XL_TLS_H
#define XEN_XL_TLS_H

#include "base/util.h"

struct xl_tls_files {
	const char *cert, *key; /* PEM */
	const char *trust;      /* members.json */
};

struct xl_tls {
	void *ctx, *ssl;
	int fd;
	uint32_t left; /* of the chunk that is being read */
	bool ended;    /* its end has come */
	char why[160]; /* what went wrong */
};

/* Shakes hands over fd, which is the link's from here on. Negative errno, and
 * `why`; close it in either case. */
int xl_tls_open(struct xl_tls *t, const struct xl_tls_files *f, int fd,
		bool server);
void xl_tls_close(struct xl_tls *t);
int xl_tls_write(struct xl_tls *t, const char *p, size_t n);
int xl_tls_read(struct xl_tls *t, char *p, size_t n); /* all n */
/* Far sides of a pump; data is the struct xl_tls. */
ssize_t xl_tls_put_chunk(void *data, char *p, size_t n);
ssize_t xl_tls_get_chunk(void *data, char *p, size_t n);
int xl_tls_end_chunks(struct xl_tls *t);
/* The other side's next answer may take so long. */
void xl_tls_patience(struct xl_tls *t, int seconds);

#endif
