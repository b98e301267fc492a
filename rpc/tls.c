#include "rpc/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "rpc/client.h"

static const char *tls_error(void)
{
	static _Thread_local char text[160];
	unsigned long code = ERR_peek_last_error();

	ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	return text;
}

/* The stream. OpenSSL reads from and writes to a BIO of our own that works on
 * the caller's memory, so ciphertext is copied no more often than it must. */
struct tls_stream {
	SSL *ssl;
	const char *in;
	size_t in_len;
	struct buf *out; /* borrowed, while a function of ours runs */
};

static int bio_read(BIO *bio, char *p, size_t n, size_t *ret_n)
{
	struct tls_stream *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (t->in_len == 0) {
		BIO_set_retry_read(bio);
		return 0;
	}
	n = MIN(n, t->in_len);
	memcpy(p, t->in, n);
	t->in += n;
	t->in_len -= n;
	*ret_n = n;
	return 1;
}

static int bio_write(BIO *bio, const char *p, size_t n, size_t *ret_n)
{
	struct tls_stream *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_append(t->out, p, n);
	*ret_n = n;
	return 1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *p)
{
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
				  "buffer");
	xassert(bio_method);
	BIO_meth_set_read_ex(bio_method, bio_read);
	BIO_meth_set_write_ex(bio_method, bio_write);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

struct tls_stream *tls_stream_new(SSL_CTX *ctx, bool server)
{
	struct tls_stream *t = xcalloc(1, sizeof(*t));
	BIO *bio;

	pthread_once(&bio_once, make_bio_method);
	t->ssl = SSL_new(ctx);
	bio = BIO_new(bio_method);
	xassert(t->ssl && bio);
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	if (server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	return t;
}

void tls_stream_free(struct tls_stream *t)
{
	if (!t)
		return;
	SSL_free(t->ssl);
	free(t);
}

void tls_stream_freep(struct tls_stream **t)
{
	tls_stream_free(*t);
}

#define READ_STEP 16384 /* the most that one TLS record holds */

int tls_stream_read(struct tls_stream *t, const char *p, size_t n,
		    struct buf *plain, struct buf *cipher)
{
	size_t got;
	int error;

	t->in = p;
	t->in_len = n;
	t->out = cipher;
	ERR_clear_error();
	for (;;) {
		buf_reserve(plain, READ_STEP);
		if (SSL_read_ex(t->ssl, plain->data + plain->len, READ_STEP,
				&got) != 1)
			break;
		plain->len += got;
	}
	error = SSL_get_error(t->ssl, 0);
	t->out = NULL;
	if (error == SSL_ERROR_WANT_READ)
		return 0;
	if (error == SSL_ERROR_ZERO_RETURN)
		return TLS_STREAM_END;
	log_debug("TLS: %s", tls_error());
	return -EPROTO;
}

bool tls_stream_ready(const struct tls_stream *t)
{
	return SSL_is_init_finished(t->ssl);
}

int tls_stream_write(struct tls_stream *t, const char *p, size_t n,
		     struct buf *cipher)
{
	size_t done;
	int r;

	if (n == 0)
		return 0;
	t->in_len = 0;
	t->out = cipher;
	ERR_clear_error();
	r = SSL_write_ex(t->ssl, p, n, &done);
	t->out = NULL;
	if (r == 1)
		return 0;
	log_debug("TLS: %s", tls_error());
	return -EPROTO;
}

void tls_stream_end(struct tls_stream *t, struct buf *cipher)
{
	t->in_len = 0;
	t->out = cipher;
	ERR_clear_error();
	if (tls_stream_ready(t))
		SSL_shutdown(t->ssl);
	t->out = NULL;
	ERR_clear_error();
}

static int fingerprint(const X509 *cert, char ret[65])
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (X509_digest(cert, EVP_sha256(), digest, &n) != 1 || n != 32)
		return -EIO;
	hex_encode(digest, n, ret);
	return 0;
}

int tls_stream_fingerprint(const struct tls_stream *t, char ret[65])
{
	const X509 *cert = SSL_get0_peer_certificate(t->ssl);

	return cert ? fingerprint(cert, ret) : -ENOENT;
}

/* Contexts. */

static void ctx_freep(SSL_CTX **ctx)
{
	SSL_CTX_free(*ctx);
}

static void set_common(SSL_CTX *ctx)
{
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION |
				 SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
}

int tls_server_context(const char *cert_file, const char *key_file,
		       SSL_CTX **ret)
{
	_cleanup_(ctx_freep) SSL_CTX *ctx = NULL;

	if (!cert_file || !key_file) {
		log_error("TLS needs a certificate and a key");
		return -EINVAL;
	}
	ctx = SSL_CTX_new(TLS_server_method());
	xassert(ctx);
	set_common(ctx);
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	/* Tickets let a client come back without a session kept here. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 1);
	if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1) {
		log_error("certificate %s: %s", cert_file, tls_error());
		return -EINVAL;
	}
	if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1) {
		log_error("private key %s: %s", key_file, tls_error());
		return -EINVAL;
	}
	*ret = TAKE_PTR(ctx);
	return 0;
}

int tls_client_context(SSL_CTX **ret)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	xassert(ctx);
	set_common(ctx);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	*ret = ctx;
	return 0;
}

/* Certificates. */

static void filep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static void x509_freep(X509 **cert)
{
	X509_free(*cert);
}

static void key_freep(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

int tls_fingerprint_of_file(const char *cert_file, char ret[65])
{
	_cleanup_(filep) FILE *f = fopen(cert_file, "re");
	_cleanup_(x509_freep) X509 *cert = NULL;

	if (!f)
		return -errno;
	cert = PEM_read_X509(f, NULL, NULL, NULL);
	if (!cert) {
		ERR_clear_error();
		return -EINVAL;
	}
	return fingerprint(cert, ret);
}

static bool is_ip(const char *address)
{
	uint8_t bytes[16];

	return inet_pton(AF_INET, address, bytes) == 1 ||
	       inet_pton(AF_INET6, address, bytes) == 1;
}

/* The address goes into an extension's configuration text: nothing in it may
 * have a meaning there. */
static bool address_ok(const char *address)
{
	size_t n = strlen(address);

	return n > 0 && n <= 64 &&
	       strspn(address, "abcdefghijklmnopqrstuvwxyz"
			       "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:") == n &&
	       (is_ip(address) || !strchr(address, ':'));
}

static bool add_extension(X509 *cert, int nid, const char *text)
{
	X509_EXTENSION *ext;
	X509V3_CTX ctx;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
	ok = ext && X509_add_ext(cert, ext, -1) == 1;
	X509_EXTENSION_free(ext);
	return ok;
}

static bool set_serial(X509 *cert)
{
	uint8_t bytes[16];
	BIGNUM *n;
	bool ok;

	env_random(bytes, sizeof(bytes));
	bytes[0] &= 0x7f; /* positive */
	n = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
	BN_free(n);
	return ok;
}

#define DAY 86400L

static bool fill_certificate(X509 *cert, EVP_PKEY *key, const char *address)
{
	_cleanup_(freep) char *san = xasprintf(
		"%s:%s", is_ip(address) ? "IP" : "DNS", address);
	X509_NAME *name = X509_get_subject_name(cert);

	/* A day back: the clocks of a new pool's hosts may differ. */
	return X509_set_version(cert, X509_VERSION_3) == 1 &&
	       set_serial(cert) &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -DAY) &&
	       X509_gmtime_adj(X509_getm_notAfter(cert), 3650 * DAY) &&
	       X509_set_pubkey(cert, key) == 1 &&
	       X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
					  (const uint8_t *)address, -1, -1,
					  0) == 1 &&
	       X509_set_issuer_name(cert, name) == 1 &&
	       add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
	       add_extension(cert, NID_subject_alt_name, san) &&
	       add_extension(cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	       X509_sign(cert, key, EVP_sha256()) > 0;
}

/* Creates path.new for writing; what an earlier run left there is removed. */
static FILE *create_new(const char *path, mode_t mode, char **ret_name)
{
	_cleanup_(freep) char *name = xasprintf("%s.new", path);
	FILE *f;
	int fd;

	unlink(name);
	fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return NULL;
	f = fdopen(fd, "w");
	xassert(f);
	*ret_name = TAKE_PTR(name);
	return f;
}

/* Makes what was written durable and gives it its name. */
static int install(FILE *f, const char *name, const char *path)
{
	if (fflush(f) != 0 || fsync(fileno(f)) < 0 || rename(name, path) < 0)
		return -errno;
	return 0;
}

static int write_key(const char *path, EVP_PKEY *key)
{
	_cleanup_(freep) char *name = NULL;
	_cleanup_(filep) FILE *f = create_new(path, 0600, &name);

	if (!f)
		return -errno;
	if (PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) != 1)
		return -EIO;
	return install(f, name, path);
}

static int write_certificate(const char *path, X509 *cert)
{
	_cleanup_(freep) char *name = NULL;
	_cleanup_(filep) FILE *f = create_new(path, 0644, &name);

	if (!f)
		return -errno;
	if (PEM_write_X509(f, cert) != 1)
		return -EIO;
	return install(f, name, path);
}

int tls_ensure_certificate(const char *cert_file, const char *key_file,
			   const char *address)
{
	_cleanup_(key_freep) EVP_PKEY *key = NULL;
	_cleanup_(x509_freep) X509 *cert = NULL;
	int r;

	if (access(cert_file, F_OK) == 0 && access(key_file, F_OK) == 0)
		return 0;
	if (!address_ok(address)) {
		log_error("no certificate can be made for the address \"%s\"",
			  address);
		return -EINVAL;
	}
	key = EVP_EC_gen("P-256");
	cert = X509_new();
	if (!key || !cert || !fill_certificate(cert, key, address)) {
		log_error("making a certificate: %s", tls_error());
		return -EIO;
	}
	/* The certificate last: while it is missing both are made anew. */
	r = write_key(key_file, key);
	if (r == 0)
		r = write_certificate(cert_file, cert);
	if (r < 0)
		log_error("writing %s and %s: %s", cert_file, key_file,
			  strerror(-r));
	return r;
}
