#include "tools/xenapi.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_host_port(const char *text, struct xenapi_endpoint *e)
{
	size_t n = strcspn(text, "/");
	const char *colon = memchr(text, ':', n);
	size_t host = colon ? (size_t)(colon - text) : n;

	if (host == 0 || host >= sizeof e->host)
		return -EINVAL;
	snprintf(e->host, sizeof e->host, "%.*s", (int)host, text);
	if (colon)
		snprintf(e->port, sizeof e->port, "%.*s",
			 (int)(text + n - colon - 1), colon + 1);
	else
		snprintf(e->port, sizeof e->port, "%s", e->tls ? "443" : "80");
	return 0;
}

int xenapi_parse_url(const char *url, struct xenapi_endpoint *ret)
{
	memset(ret, 0, sizeof *ret);
	if (!strncmp(url, "unix:", 5)) {
		ret->unix_socket = true;
		snprintf(ret->host, sizeof ret->host, "%s", url + 5);
		return strlen(url + 5) < sizeof ret->host ? 0 : -EINVAL;
	}
	ret->tls = !strncmp(url, "https://", 8);
	if (!ret->tls && strncmp(url, "http://", 7))
		return -EINVAL;
	return parse_host_port(url + (ret->tls ? 8 : 7), ret);
}

static int open_unix(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd < 0 ? -errno : fd;
	r = -errno;
	close(fd);
	return r;
}

static int open_tcp(const struct xenapi_endpoint *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
	int fd = -EHOSTUNREACH, one = 1;

	if (getaddrinfo(e->host, e->port, &hints, &list))
		return -EHOSTUNREACH;
	for (a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			int r = -errno;

			close(fd);
			fd = r;
		}
	}
	freeaddrinfo(list);
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static SSL_CTX *tls_context(void)
{
	static SSL_CTX *ctx;

	if (!ctx)
		ctx = SSL_CTX_new(TLS_client_method());
	return ctx;
}

int xenapi_open(struct xenapi *x, const struct xenapi_endpoint *e,
		unsigned timeout_s)
{
	struct timeval limit = { (time_t)timeout_s, 0 };

	x->fd = e->unix_socket ? open_unix(e->host) : open_tcp(e);
	if (x->fd < 0) {
		int r = x->fd;

		x->fd = -1;
		return r;
	}
	snprintf(x->host, sizeof x->host, "%s",
		 e->unix_socket ? "localhost" : e->host);
	setsockopt(x->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (!e->tls)
		return 0;
	x->ssl = SSL_new(tls_context());
	SSL_set_fd(x->ssl, x->fd);
	if (e->http2)
		SSL_set_alpn_protos(x->ssl, (const uint8_t *)"\x02h2", 3);
	if (SSL_connect(x->ssl) != 1) {
		xenapi_close(x);
		return -EPROTO;
	}
	return 0;
}

void xenapi_close(struct xenapi *x)
{
	SSL_free(x->ssl);
	x->ssl = NULL;
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	buf_deinit(&x->in);
}

/* What a failed SSL call means in errno's terms; 0: the peer closed. */
static ssize_t ssl_failed(struct xenapi *x, int r)
{
	int why = SSL_get_error(x->ssl, r);

	ERR_clear_error();
	if (why == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ?
			EAGAIN : EIO;
	return -1;
}

ssize_t xenapi_read(struct xenapi *x, void *p, size_t n)
{
	int r;

	if (!x->ssl)
		return read(x->fd, p, n);
	r = SSL_read(x->ssl, p, (int)n);
	return r > 0 ? r : ssl_failed(x, r);
}

ssize_t xenapi_write(struct xenapi *x, const void *p, size_t n)
{
	int r;

	if (!x->ssl)
		return send(x->fd, p, n, MSG_NOSIGNAL);
	r = SSL_write(x->ssl, p, (int)n);
	return r > 0 ? r : ssl_failed(x, r);
}

void xenapi_put_call(struct buf *b, const char *method,
		     const char *const *args, unsigned n)
{
	buf_printf(b, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\","
		   "\"params\":[", method);
	for (unsigned i = 0; i < n; i++) {
		struct json_object *s = json_object_new_string(args[i]);

		buf_printf(b, "%s%s", i ? "," : "",
			   *args[i] == '{' ? args[i] :
					     json_object_to_json_string(s));
		json_object_put(s);
	}
	buf_puts(b, "]}");
}

ssize_t xenapi_reply_length(struct buf *b, size_t *ret_body)
{
	const char *text = buf_cstr(b);
	const char *end = strstr(text, "\r\n\r\n"), *length;
	size_t total;

	if (!end)
		return b->len > 65536 ? -1 : 0;
	length = strcasestr(text, "\r\ncontent-length:");
	if (!length || length > end)
		return -1;
	*ret_body = (size_t)(end + 4 - text);
	total = *ret_body + strtoul(length + 17, NULL, 10);
	return b->len >= total ? (ssize_t)total : 0;
}

static int exchange(struct xenapi *x, const struct buf *body, size_t *ret_body)
{
	struct buf out = BUF_INIT;
	char chunk[16384];
	size_t sent = 0;
	ssize_t r = 1;

	buf_printf(&out, "POST /jsonrpc HTTP/1.1\r\nHost: %s\r\n"
		   "Content-Type: application/json\r\nContent-Length: %zu\r\n"
		   "\r\n", x->host, body->len);
	buf_append(&out, body->data, body->len);
	while (sent < out.len && (r = xenapi_write(x, out.data + sent,
						   out.len - sent)) > 0)
		sent += (size_t)r;
	buf_deinit(&out);
	x->in.len = 0;
	while (r > 0) {
		ssize_t whole = xenapi_reply_length(&x->in, ret_body);

		if (whole)
			return whole > 0 ? 0 : -EPROTO;
		r = xenapi_read(x, chunk, sizeof chunk);
		if (r > 0)
			buf_append(&x->in, chunk, (size_t)r);
	}
	return r < 0 && errno == EAGAIN ? -ETIMEDOUT : -ECONNRESET;
}

static struct json_object *parse_reply(struct xenapi *x, const char *text)
{
	struct json_object *root = json_tokener_parse(text), *v = NULL;

	if (json_object_object_get_ex(root, "result", &v)) {
		v = json_object_get(v);
	} else if (json_object_object_get_ex(root, "error", &v)) {
		struct json_object *data = NULL;

		json_object_object_get_ex(v, "data", &data);
		v = NULL;
		snprintf(x->error, sizeof x->error, "%s", json_object_to_json_string(
			json_object_object_get(json_object_object_get(root, "error"),
					       "message")));
		if (data && json_object_array_length(data))
			snprintf(x->error + strlen(x->error),
				 sizeof x->error - strlen(x->error), " %s",
				 json_object_to_json_string(data));
	} else {
		snprintf(x->error, sizeof x->error,
			 "not a JSON-RPC reply: %.*s",
			 (int)strcspn(buf_cstr(&x->in), "\r\n"),
			 buf_cstr(&x->in));
	}
	json_object_put(root);
	return v;
}

struct json_object *xenapi_call(struct xenapi *x, const char *method,
				const char *const *args, unsigned n)
{
	struct buf body = BUF_INIT;
	size_t at = 0;
	int r;

	xenapi_put_call(&body, method, args, n);
	r = exchange(x, &body, &at);
	buf_deinit(&body);
	if (r < 0) {
		snprintf(x->error, sizeof x->error, "%s", strerror(-r));
		return NULL;
	}
	return parse_reply(x, buf_cstr(&x->in) + at);
}

char *xenapi_call_text(struct xenapi *x, const char *method,
		       const char *const *args, unsigned n)
{
	struct json_object *v = xenapi_call(x, method, args, n), *first = v;
	char *ret = NULL;

	if (json_object_is_type(v, json_type_array))
		first = json_object_array_get_idx(v, 0);
	if (first)
		ret = xstrdup(json_object_get_string(first));
	json_object_put(v);
	return ret;
}
