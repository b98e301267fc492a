/* A small XenAPI client on a libuv loop: one call over TLS, for a host that
 * talks to another pool's front end (pool.join, pool.hello). */
#ifndef RPC_CLIENT_H
#define RPC_CLIENT_H

#include "schema/value.h"

#include <uv.h>

struct rpc_client_request {
	const char *address; /* host or host:port; default port below */
	unsigned default_port;
	const char *method;
	struct value **params; /* borrowed */
	unsigned n_params;
	unsigned timeout_ms;
	/* NULL: any certificate; else the SHA-256 fingerprint (hex) that the
	 * server must show. */
	const char *fingerprint;
};

/* error 0: result is the call's value (JSON typed loosely: map results are
 * STRUCTs), borrowed. error -EREMOTEIO: the server answered with a failure,
 * api_error is [code, params...], borrowed. Other negative errno: no answer.
 * peer_fingerprint is the certificate that the server showed. */
typedef void (*rpc_client_cb)(void *data, int error, struct value *result,
			      struct value *api_error,
			      const char *peer_fingerprint);

/* Copies what it needs of req before it returns. The callback comes exactly
 * once, from the loop. The process must ignore SIGPIPE. */
void rpc_client_call(uv_loop_t *loop, const struct rpc_client_request *req,
		     rpc_client_cb cb, void *data);

/* SHA-256 of a PEM certificate file's DER, lower-case hex. */
int tls_fingerprint_of_file(const char *cert_file, char ret[65]);
/* Writes a self-signed certificate (ECDSA P-256, 10 years, CN and SAN given as
 * IP or DNS name) and its key (mode 0600) unless both exist. */
int tls_ensure_certificate(const char *cert_file, const char *key_file,
			   const char *address);

#endif
