#include "rpc/http.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "rpc/request.h"

struct span {
	const char *p;
	size_t n;
};

#define BAD_REQUEST 400
#define HEAD_TOO_LARGE 431

void http_request_reset(struct http_request *r)
{
	/* path and the rest of the text are only read behind their NULs. */
	memset(r, 0, offsetof(struct http_request, path) + 1);
	memset(&r->keep_alive, 0, offsetof(struct http_request, user_agent) -
				  offsetof(struct http_request, keep_alive));
	r->user_agent[0] = r->cors_headers[0] = '\0';
}

/* Splitting. */

/* The next line without its end; false when there is none. */
static bool next_line(struct span *rest, struct span *ret)
{
	const char *end = memchr(rest->p, '\n', rest->n);

	if (!end)
		return false;
	*ret = (struct span){ rest->p, (size_t)(end - rest->p) };
	rest->n -= ret->n + 1;
	rest->p = end + 1;
	if (ret->n > 0 && ret->p[ret->n - 1] == '\r')
		ret->n--;
	return true;
}

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_token_char(s.p[i]))
			return false;
	return s.n > 0;
}

static bool has_control(struct span s, bool tab_allowed)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = (uint8_t)s.p[i];

		if ((c < 0x20 && !(tab_allowed && c == '\t')) || c == 0x7f)
			return true;
	}
	return false;
}

static struct span trimmed(struct span s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

static bool span_is(struct span s, const char *text)
{
	return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

/* Is word one of the comma-separated items? */
static bool list_has(struct span list, const char *word)
{
	while (list.n > 0) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t n = comma ? (size_t)(comma - list.p) : list.n;

		if (span_is(trimmed((struct span){ list.p, n }), word))
			return true;
		n = MIN(n + 1, list.n);
		list.p += n;
		list.n -= n;
	}
	return false;
}

/* The request line. */

static const struct {
	const char *name;
	enum http_method method;
} methods[] = {
	{ "GET", HTTP_GET },   { "POST", HTTP_POST },
	{ "PUT", HTTP_PUT },   { "CONNECT", HTTP_CONNECT },
	{ "HEAD", HTTP_HEAD }, { "OPTIONS", HTTP_OPTIONS },
};

static enum http_method find_method(struct span s)
{
	/* Methods are case-sensitive (RFC 9110, 9.1). */
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (str_equal_n(methods[i].name, s.p, s.n))
			return methods[i].method;
	return HTTP_OTHER;
}

static bool decode_path(char *out, struct span s)
{
	size_t n = 0;
	uint8_t c;

	for (size_t i = 0; i < s.n; i++) {
		c = (uint8_t)s.p[i];
		if (c == '%') {
			if (s.n - i < 3 || !hex_decode(s.p + i + 1, 2, &c))
				return false;
			i += 2;
		}
		if (n == HTTP_MAX_PATH)
			return false;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return text_valid(out, n);
}

/* Of several the first counts. */
static bool keep_text(struct http_request *r, struct http_text *t,
		      struct span v)
{
	if (t->n == 0)
		*t = (struct http_text){ (uint32_t)(v.p - r->head),
					 (uint32_t)v.n };
	return true;
}

/* /path?query, or the whole URL of it. */
static bool parse_target(struct http_request *r, struct span s)
{
	const char *end;

	if (s.n > 7 && strncasecmp(s.p, "http://", 7) == 0)
		s = (struct span){ s.p + 7, s.n - 7 };
	else if (s.n > 8 && strncasecmp(s.p, "https://", 8) == 0)
		s = (struct span){ s.p + 8, s.n - 8 };
	else if (s.n == 0 || (s.p[0] != '/' && r->method != HTTP_CONNECT &&
			      !span_is(s, "*")))
		return false;
	if (s.p[0] != '/' && r->method != HTTP_CONNECT && !span_is(s, "*")) {
		end = memchr(s.p, '/', s.n);
		s = end ? (struct span){ end, (size_t)(s.p + s.n - end) } :
			  (struct span){ "/", 1 };
	}
	end = memchr(s.p, '?', s.n);
	if (end) {
		keep_text(r, &r->query, (struct span){
			end + 1, (size_t)(s.p + s.n - end) - 1 });
		s.n = (size_t)(end - s.p);
	}
	return decode_path(r->path, s);
}

static bool parse_version(struct http_request *r, struct span s)
{
	if (s.n != 8 || memcmp(s.p, "HTTP/1.", 7) != 0 || s.p[7] < '0' ||
	    s.p[7] > '9')
		return false;
	r->minor = (unsigned)(s.p[7] - '0');
	r->keep_alive = r->minor > 0;
	return true;
}

static bool parse_request_line(struct http_request *r, struct span line)
{
	struct span method, target;
	const char *end;

	end = memchr(line.p, ' ', line.n);
	if (!end)
		return false;
	method = (struct span){ line.p, (size_t)(end - line.p) };
	line.n -= method.n + 1;
	line.p = end + 1;
	end = memchr(line.p, ' ', line.n);
	if (!end)
		return false;
	target = (struct span){ line.p, (size_t)(end - line.p) };
	line.n -= target.n + 1;
	line.p = end + 1;
	r->method = find_method(method);
	return is_token(method) && !has_control(target, false) &&
	       parse_version(r, line) && parse_target(r, target);
}

/* Header lines. Each handler returns false for a value that is an error. */

/* Clamped to INT64_MAX. */
static bool parse_number(struct span v, uint64_t *ret)
{
	uint64_t n = 0;

	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return false;
		n = n > INT64_MAX / 10 - 1 ? INT64_MAX :
					     n * 10 + (uint64_t)(v.p[i] - '0');
	}
	*ret = n;
	return v.n > 0;
}

static bool on_content_length(struct http_request *r, struct span v)
{
	uint64_t n;

	if (!parse_number(v, &n))
		return false;
	if (r->has_length && r->content_length != n)
		return false;
	r->has_length = true;
	r->content_length = n;
	return true;
}

static bool on_transfer_encoding(struct http_request *r, struct span v)
{
	r->chunked = true;
	return true;
}

static bool on_connection(struct http_request *r, struct span v)
{
	if (list_has(v, "close"))
		r->keep_alive = false;
	else if (list_has(v, "keep-alive"))
		r->keep_alive = true;
	if (list_has(v, "upgrade"))
		r->connection_upgrade = true;
	return true;
}

static bool on_expect(struct http_request *r, struct span v)
{
	r->expect_continue = span_is(v, "100-continue");
	return true;
}

static bool on_upgrade(struct http_request *r, struct span v)
{
	r->upgrade = true;
	r->upgrade_websocket |= list_has(v, "websocket");
	return true;
}

static bool on_relayed(struct http_request *r, struct span v)
{
	r->relayed = true;
	return true;
}

#define KEEPS(name)                                                    \
	static bool on_##name(struct http_request *r, struct span v) \
	{                                                              \
		return keep_text(r, &r->name, v);                      \
	}
KEEPS(cookie)
KEEPS(authorization)
KEEPS(ws_key)
KEEPS(ws_version)
KEEPS(ws_protocol)
#undef KEEPS

static bool on_read(struct http_request *r, struct span v)
{
	if (span_is(v, "local"))
		r->read = CALL_READ_LOCAL;
	else if (span_is(v, "linearizable"))
		r->read = CALL_READ_LINEARIZABLE;
	else
		return false;
	return true;
}

static bool on_min_generation(struct http_request *r, struct span v)
{
	return parse_number(v, &r->min_generation);
}

static void copy_text(char *out, size_t size, struct span v)
{
	size_t n = rpc_utf8_prefix(v.p, v.n, size - 1);

	if (!text_valid(v.p, n))
		n = 0;
	memcpy(out, v.p, n);
	out[n] = '\0';
}

static bool on_user_agent(struct http_request *r, struct span v)
{
	copy_text(r->user_agent, sizeof(r->user_agent), v);
	return true;
}

static bool on_cors(struct http_request *r, struct span v)
{
	copy_text(r->cors_headers, sizeof(r->cors_headers), v);
	return true;
}

static const struct {
	const char *name;
	bool (*handle)(struct http_request *r, struct span v);
} headers[] = {
	{ "content-length", on_content_length },
	{ "transfer-encoding", on_transfer_encoding },
	{ "connection", on_connection },
	{ "expect", on_expect },
	{ "upgrade", on_upgrade },
	{ "user-agent", on_user_agent },
	{ "cookie", on_cookie },
	{ "authorization", on_authorization },
	{ "sec-websocket-key", on_ws_key },
	{ "sec-websocket-version", on_ws_version },
	{ "sec-websocket-protocol", on_ws_protocol },
	{ "x-xenpool-relayed", on_relayed },
	{ "x-xenpool-read", on_read },
	{ "x-xenpool-min-generation", on_min_generation },
	{ "access-control-request-headers", on_cors },
};

static bool parse_header(struct http_request *r, struct span line)
{
	const char *colon = memchr(line.p, ':', line.n);
	struct span name, value;

	if (!colon)
		return false;
	name = (struct span){ line.p, (size_t)(colon - line.p) };
	value = trimmed((struct span){ colon + 1, line.n - name.n - 1 });
	if (!is_token(name) || has_control(value, true))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(headers); i++)
		if (span_is(name, headers[i].name))
			return headers[i].handle(r, value);
	return true;
}

static bool parse_head(struct http_request *r, struct span head)
{
	struct span line;

	if (!next_line(&head, &line) || !parse_request_line(r, line))
		return false;
	while (next_line(&head, &line) && line.n > 0)
		if (!parse_header(r, line))
			return false;
	return !(r->chunked && r->has_length);
}

/* Where the empty line's end is, from `from` on; 0: not there yet. */
static size_t find_end(const char *p, size_t from, size_t n)
{
	const char *lf = p + from;

	while ((lf = memchr(lf, '\n', (size_t)(p + n - lf)))) {
		size_t at = (size_t)(++lf - p);

		if (at < n && p[at] == '\n')
			return at + 1;
		if (at + 1 < n && p[at] == '\r' && p[at + 1] == '\n')
			return at + 2;
	}
	return 0;
}

/* Empty lines before a request are left over from an earlier one
 * (RFC 9112, 2.2). */
static size_t skip_empty(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && (p[i] == '\n' || (p[i] == '\r' && i + 1 < n &&
					  p[i + 1] == '\n')))
		i += p[i] == '\r' ? 2 : 1;
	return i;
}

int http_parse_head(struct http_request *r, const char *p, size_t n,
		    size_t max_head)
{
	size_t skip = skip_empty(p, n);
	size_t end = find_end(p, MAX(r->scanned, skip), n);

	if (end == 0) {
		/* The end may begin in the last three bytes. */
		r->scanned = n > 3 ? n - 3 : 0;
		return n > max_head ? HEAD_TOO_LARGE : HTTP_MORE;
	}
	if (end > max_head)
		return HEAD_TOO_LARGE;
	r->head = p;
	if (!parse_head(r, (struct span){ p + skip, end - skip }))
		return BAD_REQUEST;
	r->head_len = end;
	return HTTP_HEAD_DONE;
}

/* Replies. */

static const struct {
	int status;
	const char *reason;
} reasons[] = {
	{ 400, "Bad Request" },
	{ 401, "Unauthorised" },
	{ 403, "Forbidden" },
	{ 404, "Not Found" },
	{ 408, "Request Timeout" },
	{ 431, "Request Header Fields Too Large" },
	{ 500, "Internal Error" },
	{ 501, "Method not implemented" },
	{ 503, "Service Unavailable" },
	{ HTTP_CONNECTION_LIMIT, "Connection Limit Exceeded" },
};

static const char *reason_of(int status)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Error";
}

int http_status_of(const char *line, size_t n)
{
	size_t len;

	if (n < 13 || memcmp(line, "HTTP/1.", 7) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
		len = strlen(reasons[i].reason);
		if (reasons[i].status % 1000 == atoi(line + 9) &&
		    n >= 13 + len && !memcmp(line + 13, reasons[i].reason, len))
			return reasons[i].status;
	}
	return atoi(line + 9);
}

static unsigned minor_of(const struct http_request *r)
{
	return r->head_len > 0 && r->minor == 0 ? 0 : 1;
}

/* Appends to the n bytes in out; returns the new length. */
static int put_told(char *out, int n, const struct call *call)
{
	size_t room = HTTP_RPC_HEAD_MAX;

	if (call && call->generation > 0)
		n += snprintf(out + n, room - (size_t)n,
			      "x-xenpool-generation: %" PRIu64 "\r\n",
			      call->generation);
	if (call && call->age_ms >= 0)
		n += snprintf(out + n, room - (size_t)n,
			      "x-xenpool-age-ms: %" PRId64 "\r\n",
			      call->age_ms);
	return n + snprintf(out + n, room - (size_t)n, "\r\n");
}

size_t http_rpc_head(char out[HTTP_RPC_HEAD_MAX], const struct http_request *r,
		     size_t content_length, const char *content_type,
		     bool keep_alive, const struct call *call)
{
	int n = snprintf(out, HTTP_RPC_HEAD_MAX,
			 "HTTP/1.%u 200 OK\r\n"
			 "content-length: %zu\r\n"
			 "connection: %s\r\n"
			 "cache-control: no-cache, no-store\r\n"
			 "content-type: %s\r\n"
			 "Access-Control-Allow-Origin: *\r\n"
			 "Access-Control-Allow-Headers: X-Requested-With\r\n",
			 minor_of(r), content_length,
			 keep_alive ? "keep-alive" : "close", content_type);

	n = put_told(out, n, call);
	xassert(n > 0 && n < HTTP_RPC_HEAD_MAX);
	return (size_t)n;
}

static void put_html(struct buf *b, const char *s)
{
	for (; *s; s++) {
		switch (*s) {
		case '<':
			buf_puts(b, "&lt;");
			break;
		case '>':
			buf_puts(b, "&gt;");
			break;
		case '&':
			buf_puts(b, "&amp;");
			break;
		case '"':
			buf_puts(b, "&quot;");
			break;
		case '\'':
			buf_puts(b, "&#39;");
			break;
		default:
			buf_putc(b, *s);
		}
	}
}

static void put_page(struct buf *b, const char *reason, const char *detail)
{
	buf_printf(b, "<html><head><title>%s</title></head><body><h1>%s</h1>",
		   reason, reason);
	buf_puts(b, "<h1> Additional information </h1>");
	put_html(b, detail);
	buf_puts(b, "</body></html>");
}

#define HTTP_ASK_BASIC "WWW-Authenticate: Basic realm=\"xenpool\"\r\n"

void http_write_error(struct buf *b, const struct http_request *r, int status,
		      const char *detail)
{
	_cleanup_(buf_deinit) struct buf page = BUF_INIT;
	const char *reason = reason_of(status);

	put_page(&page, reason, detail);
	buf_printf(b,
		   "HTTP/1.%u %d %s\r\n"
		   "content-length: %zu\r\n"
		   "connection: close\r\n"
		   "cache-control: no-cache, no-store\r\n"
		   "content-type: text/html\r\n"
		   "%s"
		   "\r\n",
		   minor_of(r), status % 1000, reason, page.len,
		   status == 401 ? HTTP_ASK_BASIC : "");
	/* The method is known only once a head has been read. */
	if (!(r->head_len > 0 && r->method == HTTP_HEAD))
		buf_append(b, page.data, page.len);
}

void http_write_options(struct buf *b, const struct http_request *r)
{
	buf_printf(b,
		   "HTTP/1.%u 200 OK\r\n"
		   "content-length: 0\r\n"
		   "connection: close\r\n"
		   "cache-control: no-cache, no-store\r\n"
		   "Access-Control-Allow-Origin: *\r\n"
		   "Access-Control-Allow-Headers: %s%sX-Requested-With\r\n"
		   "Access-Control-Allow-Methods: PUT\r\n"
		   "\r\n",
		   minor_of(r), r->cors_headers,
		   *r->cors_headers ? ", " : "");
}

void http_write_file_head(struct buf *b, const struct http_request *r,
			  size_t content_length, const char *content_type)
{
	buf_printf(b,
		   "HTTP/1.%u 200 OK\r\n"
		   "content-length: %zu\r\n"
		   "connection: close\r\n"
		   "cache-control: no-cache, no-store\r\n"
		   "content-type: %s\r\n"
		   "\r\n",
		   minor_of(r), content_length, content_type);
}
