#include "xen/xl_tls.h"

#include <errno.h>
#include <json-c/json.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/text.h"
#include "xen/files.h"

#define HANDSHAKE_S 20
#define MAX_TRUST (1u << 20)
#define READ_AHEAD (1u << 17) /* more is moved about more in its buffer */

static int fail(struct xl_tls *t, int r, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	if (!*t->why)
		snprintf(t->why, sizeof(t->why), "%s: %s", what,
			 reason ? reason : strerror(-r));
	ERR_clear_error();
	return r;
}

/* ---- whom to trust ---- */

static bool has_fingerprint(struct json_object *list, const char *fingerprint)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		char one[65];

		if (json_str(json_object_array_get_idx(list, i), "fingerprint",
			     one, sizeof(one)) &&
		    !strcasecmp(one, fingerprint))
			return true;
	}
	return false;
}

static bool is_trusted(const char *path, const char *fingerprint)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	_cleanup_(json_putp) struct json_object *list = NULL;

	if (file_read(path, MAX_TRUST, &b) < 0)
		return false;
	list = json_tokener_parse(buf_cstr(&b));
	return list && json_object_is_type(list, json_type_array) &&
	       has_fingerprint(list, fingerprint);
}

static int check_peer(struct xl_tls *t, const char *trust)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	X509 *cert = SSL_get0_peer_certificate(t->ssl);
	char fingerprint[65];

	if (!cert || X509_digest(cert, EVP_sha256(), digest, &n) != 1 ||
	    n != 32)
		return fail(t, -EACCES, "no certificate");
	hex_encode(digest, n, fingerprint);
	if (!is_trusted(trust, fingerprint))
		return fail(t, -EACCES, "not a host of this pool");
	return 0;
}

/* ---- the handshake ---- */

/* Who a peer is gets decided by its fingerprint, once the handshake has proved
 * that it holds the key. */
static int accept_any_chain(X509_STORE_CTX *ctx, void *arg)
{
	X509_STORE_CTX_set_error(ctx, X509_V_OK);
	return 1;
}

static int context_open(struct xl_tls *t, const struct xl_tls_files *f)
{
	SSL_CTX *ctx = t->ctx = SSL_CTX_new(TLS_method());

	xassert(ctx);
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_AUTO_RETRY);
	/* What has come is read at once: one system call for several records,
	 * not two for each. */
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	SSL_CTX_set_verify(
		ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, accept_any_chain, NULL);
	if (SSL_CTX_use_certificate_chain_file(ctx, f->cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM) != 1)
		return fail(t, -EIO, "this host's certificate and key");
	return 0;
}

void xl_tls_patience(struct xl_tls *t, int seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(t->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

int xl_tls_open(struct xl_tls *t, const struct xl_tls_files *f, int fd,
		bool server)
{
	int r;

	memset(t, 0, sizeof(*t));
	t->fd = fd;
	xl_tls_patience(t, HANDSHAKE_S);
	ERR_clear_error();
	r = context_open(t, f);
	if (r < 0)
		return r;
	t->ssl = SSL_new(t->ctx);
	xassert(t->ssl && SSL_set_fd(t->ssl, fd) == 1);
	if ((server ? SSL_accept(t->ssl) : SSL_connect(t->ssl)) != 1)
		return fail(t, -ECONNABORTED, "TLS handshake");
	return check_peer(t, f->trust);
}

void xl_tls_close(struct xl_tls *t)
{
	if (t->ssl)
		SSL_free(t->ssl);
	if (t->ctx)
		SSL_CTX_free(t->ctx);
	buf_deinit(&t->out);
	if (t->fd >= 0)
		close(t->fd);
	t->ssl = t->ctx = NULL;
	t->fd = -1;
}

const char *xl_tls_cipher(const struct xl_tls *t)
{
	return SSL_get_cipher_name(t->ssl);
}

/* ---- bytes ---- */

int xl_tls_write(struct xl_tls *t, const char *p, size_t n)
{
	size_t done;

	if (n > 0 && SSL_write_ex(t->ssl, p, n, &done) != 1)
		return fail(t, -EPIPE, "sending");
	t->sent += n;
	return 0;
}

int xl_tls_read(struct xl_tls *t, char *p, size_t n)
{
	while (n > 0) {
		size_t k;

		if (SSL_read_ex(t->ssl, p, n, &k) != 1)
			return fail(t, -EPIPE, "the link broke");
		p += k;
		n -= k;
	}
	return 0;
}

/* ---- a guest's stream ---- */

/* So many bytes are looked at as one: of a page of zeros, wherever it begins,
 * seven eighths are found. */
#define UNIT 512

static bool unit_is_zero(const char *p)
{
	uint64_t words[UNIT / 8], any = 0;

	memcpy(words, p, sizeof(words));
	for (size_t i = 0; i < UNIT / 8; i++)
		any |= words[i];
	return any == 0;
}

/* How many bytes from p on are zero, or are not, in whole units. What is left
 * at the end, less than a unit, is taken as it is. */
static size_t stretch(const char *p, size_t n, bool zero)
{
	size_t k = 0;

	n = MIN(n, (size_t)XL_TLS_RUN);
	while (n - k >= UNIT && unit_is_zero(p + k) == zero)
		k += UNIT;
	return zero || n - k >= UNIT ? k : n;
}

static void put_run(struct buf *b, size_t zeros, const char *p, size_t n)
{
	buf_put_u32(b, (uint32_t)zeros);
	buf_put_u32(b, (uint32_t)n);
	buf_append(b, p, n);
}

static int send_runs(struct xl_tls *t)
{
	int r = xl_tls_write(t, t->out.data, t->out.len);

	t->out.len = 0;
	return r;
}

ssize_t xl_tls_put_chunk(void *data, char *p, size_t n)
{
	struct xl_tls *t = data;
	int r;

	for (size_t done = 0; done < n;) {
		size_t zeros = stretch(p + done, n - done, true);
		size_t begin = done + zeros;
		size_t bytes = stretch(p + begin, n - begin, false);

		put_run(&t->out, zeros, p + begin, bytes);
		done = begin + bytes;
	}
	r = send_runs(t);
	return r < 0 ? r : (ssize_t)n;
}

int xl_tls_end_chunks(struct xl_tls *t)
{
	put_run(&t->out, 0, NULL, 0);
	return send_runs(t);
}

static int get_run(struct xl_tls *t)
{
	char head[8];
	struct reader rd = reader_of(head, sizeof(head));
	int r = xl_tls_read(t, head, sizeof(head));

	if (r < 0)
		return r;
	t->zeros = reader_u32(&rd);
	t->left = reader_u32(&rd);
	t->ended = t->zeros == 0 && t->left == 0;
	if (t->zeros <= XL_TLS_RUN && t->left <= XL_TLS_RUN)
		return 0;
	snprintf(t->why, sizeof(t->why), "the other host sends nonsense");
	return -EBADMSG;
}

/* At most n bytes of the run: none only at the end of all. */
static ssize_t get_part(struct xl_tls *t, char *p, size_t n)
{
	size_t k = 0;
	int r = t->zeros || t->left ? 0 : get_run(t);

	if (r < 0)
		return r;
	if (t->zeros > 0) {
		k = MIN(n, (size_t)t->zeros);
		memset(p, 0, k);
		t->zeros -= (uint32_t)k;
	} else if (t->left > 0) {
		if (SSL_read_ex(t->ssl, p, MIN(n, (size_t)t->left), &k) != 1)
			return fail(t, -EPIPE, "the link broke");
		t->left -= (uint32_t)k;
	}
	return (ssize_t)k;
}

ssize_t xl_tls_get_chunk(void *data, char *p, size_t n)
{
	struct xl_tls *t = data;
	size_t done = 0;

	while (done < n && !t->ended) {
		ssize_t k = get_part(t, p + done, n - done);

		if (k < 0)
			return k;
		done += (size_t)k;
		/* Many runs are one write, but nothing that is here waits
		 * for what is still to come. */
		if (done > 0 && t->zeros == 0 && !SSL_has_pending(t->ssl))
			break;
	}
	return (ssize_t)done;
}
