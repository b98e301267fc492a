#include "raftdb/link_impl.h"

#include <openssl/err.h>
#include <openssl/x509.h>

#include "base/log.h"

/* A chain says nothing here: who a peer is gets decided by its fingerprint,
 * after the handshake has proved that it holds the key. */
static int accept_any_chain(X509_STORE_CTX *ctx, void *arg)
{
	X509_STORE_CTX_set_error(ctx, X509_V_OK);
	return 1;
}

static const char *tls_error(void)
{
	const char *s = ERR_reason_error_string(ERR_peek_last_error());

	return s ? s : "unknown error";
}

SSL_CTX *link_tls_context(const char *cert_file, const char *key_file)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	xassert(ctx);
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(
		ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, accept_any_chain, NULL);
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1) {
		log_error("peer link: cannot use certificate %s: %s", cert_file,
			  tls_error());
	} else if (SSL_CTX_use_PrivateKey_file(ctx, key_file,
					       SSL_FILETYPE_PEM) != 1 ||
		   SSL_CTX_check_private_key(ctx) != 1) {
		log_error("peer link: cannot use key %s with certificate %s: %s; "
			  "restore both, or move the data folder away and "
			  "join the pool again", key_file, cert_file,
			  tls_error());
	} else {
		return ctx;
	}
	ERR_clear_error();
	SSL_CTX_free(ctx);
	return NULL;
}

bool link_tls_fingerprint(SSL *ssl, char ret[65])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	X509 *cert = SSL_get0_peer_certificate(ssl);

	if (!cert || X509_digest(cert, EVP_sha256(), digest, &n) != 1 || n != 32)
		return false;
	hex_encode(digest, n, ret);
	return true;
}
