/* rpc/http.c and rpc/route.c: request heads, however they arrive, and what is
 * refused; reply heads to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the four */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "rpc/route.h"

#define MAX_HEAD 4096

static struct http_request req;

static int parse(const char *text)
{
	http_request_reset(&req);
	return http_parse_head(&req, text, strlen(text), MAX_HEAD);
}

static void test_request_line(void **state)
{
	assert_int_equal(parse("POST /jsonrpc?a=b HTTP/1.1\r\n\r\nbody"), 1);
	assert_int_equal(req.method, HTTP_POST);
	assert_string_equal(req.path, "/jsonrpc");
	assert_int_equal(req.head_len, 30);
	assert_int_equal(req.minor, 1);
	assert_true(req.keep_alive);
	assert_false(req.has_length);

	assert_int_equal(parse("GET /a%20b%2fc HTTP/1.0\n\n"), 1);
	assert_int_equal(req.method, HTTP_GET);
	assert_string_equal(req.path, "/a b/c");
	assert_false(req.keep_alive);

	assert_int_equal(parse("\r\n\r\nDELETE / HTTP/1.1\r\n\r\n"), 1);
	assert_int_equal(req.method, HTTP_OTHER);
	assert_int_equal(parse("get / HTTP/1.1\r\n\r\n"), 1);
	assert_int_equal(req.method, HTTP_OTHER);
	assert_int_equal(parse("OPTIONS * HTTP/1.1\r\n\r\n"), 1);
	assert_string_equal(req.path, "*");
	assert_int_equal(parse("GET http://h:80/x?y HTTP/1.1\r\n\r\n"), 1);
	assert_string_equal(req.path, "/x");
	assert_int_equal(parse("GET https://h HTTP/1.1\r\n\r\n"), 1);
	assert_string_equal(req.path, "/");
	assert_int_equal(parse("CONNECT h:443 HTTP/1.1\r\n\r\n"), 1);
	assert_string_equal(req.path, "h:443");
}

static const char *const bad_heads[] = {
	"GET /\r\n\r\n",
	"GET / HTTP/2.0\r\n\r\n",
	"GET / HTTP/1.1 \r\n\r\n",
	"GET  / HTTP/1.1\r\n\r\n",
	" GET / HTTP/1.1\r\n\r\n",
	"GET / http/1.1\r\n\r\n",
	"GET x HTTP/1.1\r\n\r\n",
	"GET /%zz HTTP/1.1\r\n\r\n",
	"GET /%0 HTTP/1.1\r\n\r\n",
	"GET /%00 HTTP/1.1\r\n\r\n",
	"GET /%ff HTTP/1.1\r\n\r\n",
	"GET /\x01 HTTP/1.1\r\n\r\n",
	"G@T / HTTP/1.1\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length : 1\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: 0x10\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 2\r\n\r\n",
	"POST / HTTP/1.1\r\ncontent-length: 1\r\n"
	"transfer-encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nno colon\r\n\r\n",
	"POST / HTTP/1.1\r\n: x\r\n\r\n",
	"POST / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
	"POST / HTTP/1.1\r\na: b\rc: d\r\n\r\n",
	"POST / HTTP/1.1\r\na: b\x7f\r\n\r\n",
	"POST / HTTP/1.1\r\nx-xenpool-read: stale\r\n\r\n",
	"POST / HTTP/1.1\r\nx-xenpool-min-generation: x\r\n\r\n",
	"POST / HTTP/1.1\r\nx-xenpool-min-generation:\r\n\r\n",
};

static void test_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(bad_heads); i++) {
		int r = parse(bad_heads[i]);

		if (r != 400)
			print_message("not refused: %s\n", bad_heads[i]);
		assert_int_equal(r, 400);
	}
}

static void test_nul_is_refused(void **state)
{
	static const char head[] = "GET / HTTP/1.1\r\na: b\0c\r\n\r\n";

	http_request_reset(&req);
	assert_int_equal(http_parse_head(&req, head, sizeof(head) - 1,
					 MAX_HEAD), 400);
}

static void test_headers(void **state)
{
	assert_int_equal(parse("POST / HTTP/1.1\r\n"
			       "Content-Length:  12 \r\n"
			       "CONNECTION: Close\r\n"
			       "Expect: 100-Continue\r\n"
			       "User-Agent: a\tb\r\n"
			       "x-xenpool-read: local\r\n"
			       "X-Xenpool-Min-Generation: 77\r\n"
			       "Access-Control-Request-Headers: x-a, x-b\r\n"
			       "Upgrade: websocket\r\n"
			       "X-Other: \xff\r\n\r\n"), 1);
	assert_true(req.has_length);
	assert_int_equal(req.content_length, 12);
	assert_false(req.keep_alive);
	assert_true(req.expect_continue);
	assert_int_equal(req.read, CALL_READ_LOCAL);
	assert_int_equal(req.min_generation, 77);
	assert_true(req.upgrade);
	assert_string_equal(req.user_agent, "a\tb");
	assert_string_equal(req.cors_headers, "x-a, x-b");

	assert_int_equal(parse("POST / HTTP/1.0\nconnection: foo, Keep-Alive\n"
			       "content-length: 5\ncontent-length: 5\n"
			       "user-agent: \xff\n\n"), 1);
	assert_true(req.keep_alive);
	assert_int_equal(req.content_length, 5);
	assert_string_equal(req.user_agent, "");

	assert_int_equal(parse("POST / HTTP/1.1\r\n"
			       "Transfer-Encoding: chunked\r\n\r\n"), 1);
	assert_true(req.chunked);
	assert_int_equal(parse("POST / HTTP/1.1\r\ncontent-length: "
			       "99999999999999999999999999\r\n\r\n"), 1);
	assert_int_equal(req.content_length, INT64_MAX);
}

/* A user agent is cut between characters. */
static void test_long_agent(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_puts(&b, "GET / HTTP/1.1\r\nuser-agent: a");
	for (int i = 0; i < 100; i++)
		buf_puts(&b, "\xc3\xa9");
	buf_puts(&b, "\r\n\r\n");
	assert_int_equal(parse(buf_cstr(&b)), 1);
	assert_int_equal(strlen(req.user_agent), 127);
}

static void test_byte_by_byte(void **state)
{
	static const char head[] = "\r\nPOST / HTTP/1.1\r\n"
				   "content-length: 3\r\nhost: x\r\n\r\n";
	size_t n = sizeof(head) - 1;

	http_request_reset(&req);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(http_parse_head(&req, head, i, MAX_HEAD),
				 HTTP_MORE);
	assert_int_equal(http_parse_head(&req, head, n, MAX_HEAD), 1);
	assert_int_equal(req.head_len, n);
	assert_int_equal(req.content_length, 3);
}

static void test_too_large(void **state)
{
	static char head[MAX_HEAD + 64];
	int n = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\na: ");

	memset(head + n, 'x', sizeof(head) - (size_t)n);
	http_request_reset(&req);
	assert_int_equal(http_parse_head(&req, head, MAX_HEAD, MAX_HEAD),
			 HTTP_MORE);
	assert_int_equal(http_parse_head(&req, head, MAX_HEAD + 1, MAX_HEAD),
			 431);
	memcpy(head + MAX_HEAD, "\r\n\r\n", 4);
	http_request_reset(&req);
	assert_int_equal(http_parse_head(&req, head, MAX_HEAD + 4, MAX_HEAD),
			 431);
	/* A path has a limit of its own. */
	n = snprintf(head, sizeof(head), "GET /");
	memset(head + n, 'x', HTTP_MAX_PATH);
	strcpy(head + n + HTTP_MAX_PATH, " HTTP/1.1\r\n\r\n");
	assert_int_equal(parse(head), 400);
}

static void test_rpc_head(void **state)
{
	struct call *call = call_new();
	char head[HTTP_RPC_HEAD_MAX];
	size_t n;

	parse("POST / HTTP/1.1\r\n\r\n");
	n = http_rpc_head(head, &req, 42, "text/xml", true, NULL);
	head[n] = '\0';
	assert_string_equal(head,
			    "HTTP/1.1 200 OK\r\n"
			    "content-length: 42\r\n"
			    "connection: keep-alive\r\n"
			    "cache-control: no-cache, no-store\r\n"
			    "content-type: text/xml\r\n"
			    "Access-Control-Allow-Origin: *\r\n"
			    "Access-Control-Allow-Headers: X-Requested-With"
			    "\r\n\r\n");
	parse("POST / HTTP/1.0\r\n\r\n");
	call->generation = UINT64_MAX;
	call->age_ms = INT64_MAX;
	n = http_rpc_head(head, &req, SIZE_MAX, "application/json", false,
			  call);
	head[n] = '\0';
	assert_memory_equal(head, "HTTP/1.0 200 OK\r\n", 17);
	assert_non_null(strstr(head, "connection: close\r\n"));
	assert_non_null(strstr(head, "Requested-With\r\n"
			       "x-xenpool-generation: 18446744073709551615\r\n"
			       "x-xenpool-age-ms: 9223372036854775807\r\n"
			       "\r\n"));
	/* Neither is told of a call that the pool did not see. */
	call->generation = 0;
	call->age_ms = -1;
	n = http_rpc_head(head, &req, 1, "text/xml", false, call);
	head[n] = '\0';
	assert_null(strstr(head, "x-xenpool"));
	call_free(call);
}

static void test_error_page(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	const char *text, *body;
	char length[40];

	parse("GET / HTTP/1.1\r\n\r\n");
	http_write_error(&b, &req, 500, "a <b> & 'c'");
	text = buf_cstr(&b);
	assert_memory_equal(text, "HTTP/1.1 500 Internal Error\r\n", 29);
	assert_non_null(strstr(text, "content-type: text/html\r\n"));
	assert_non_null(strstr(text, "connection: close\r\n"));
	assert_non_null(strstr(text, "cache-control: no-cache, no-store\r\n"));
	body = strstr(text, "\r\n\r\n") + 4;
	snprintf(length, sizeof(length), "content-length: %zu\r\n",
		 strlen(body));
	assert_non_null(strstr(text, length));
	assert_non_null(strstr(body, "<h1> Additional information </h1>"
				     "a &lt;b&gt; &amp; &#39;c&#39;"));
	/* HEAD has no body. */
	parse("HEAD / HTTP/1.1\r\n\r\n");
	b.len = 0;
	http_write_error(&b, &req, 501, "x");
	text = buf_cstr(&b);
	assert_memory_equal(text, "HTTP/1.1 501 Method not implemented\r\n", 37);
	assert_int_equal(strlen(strstr(text, "\r\n\r\n")), 4);
}

static const struct {
	const char *request;
	enum route_kind kind;
	const char *handler;
} routes[] = {
	{ "POST /jsonrpc", ROUTE_JSONRPC, NULL },
	{ "POST /jsonrpc?session_id=x", ROUTE_JSONRPC, NULL },
	{ "POST /jsonrpc/", ROUTE_XMLRPC, NULL },
	{ "POST /json", ROUTE_XMLRPC, NULL },
	{ "POST /", ROUTE_XMLRPC, NULL },
	{ "POST /RPC2", ROUTE_XMLRPC, NULL },
	{ "POST /anything", ROUTE_XMLRPC, NULL },
	{ "POST /cli", ROUTE_ABSENT, "post_cli" },
	{ "OPTIONS /jsonrpc", ROUTE_OPTIONS, NULL },
	{ "GET /", ROUTE_FILE, NULL },
	{ "GET /exp", ROUTE_FILE, NULL },
	{ "GET /export?uuid=x", ROUTE_ABSENT, "get_export" },
	{ "GET /export/?uuid=x", ROUTE_ABSENT, "get_export" },
	{ "GET /export_metadata", ROUTE_ABSENT, "get_export_metadata" },
	{ "GET /vm_rrd", ROUTE_ABSENT, "vm_rrd" },
	{ "GET /vm_rrds", ROUTE_ABSENT, "get_vm_rrds" },
	{ "PUT /import_raw_vdi/?vdi=x", ROUTE_ABSENT, "put_import_raw_vdi" },
	{ "PUT /nothing", ROUTE_FORBIDDEN, NULL },
	{ "CONNECT /console?uuid=x", ROUTE_CONSOLE, NULL },
	{ "GET /console", ROUTE_CONSOLE, NULL },
	{ "POST /console", ROUTE_XMLRPC, NULL },
	{ "CONNECT /", ROUTE_FORBIDDEN, NULL },
	{ "HEAD /", ROUTE_UNKNOWN, NULL },
	{ "PATCH /", ROUTE_UNKNOWN, NULL },
};

static void test_routes(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
		struct route r;
		char head[200];

		snprintf(head, sizeof(head), "%s HTTP/1.1\r\n\r\n",
			 routes[i].request);
		assert_int_equal(parse(head), 1);
		r = route_find(&req);
		if (r.kind != routes[i].kind)
			print_message("%s\n", routes[i].request);
		assert_int_equal(r.kind, routes[i].kind);
		if (routes[i].handler)
			assert_string_equal(r.handler, routes[i].handler);
		else
			assert_null(r.handler);
	}
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_files(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	char top[] = "/tmp/test_http.XXXXXX", name[128], www[64];
	const char *type = NULL;

	assert_non_null(mkdtemp(top));
	snprintf(www, sizeof(www), "%s/www", top);
	assert_int_equal(mkdir(www, 0700), 0);
	snprintf(name, sizeof(name), "%s/secret", top);
	write_file(name, "secret");
	snprintf(name, sizeof(name), "%s/www-too", top);
	write_file(name, "secret");
	snprintf(name, sizeof(name), "%s/index.html", www);
	write_file(name, "<p>");
	snprintf(name, sizeof(name), "%s/link", www);
	assert_int_equal(symlink("../secret", name), 0);
	snprintf(name, sizeof(name), "%s/fifo", www);
	assert_int_equal(mkfifo(name, 0600), 0);

	assert_int_equal(route_read_file(www, "/", &b, &type), 0);
	assert_string_equal(buf_cstr(&b), "<p>");
	assert_string_equal(type, "text/html");
	assert_int_equal(route_read_file(www, "/./index.html", &b, &type), 0);
	assert_int_equal(b.len, 6);
	assert_true(route_read_file(www, "/none", &b, &type) < 0);
	assert_true(route_read_file(www, "/../secret", &b, &type) < 0);
	assert_true(route_read_file(www, "/../www-too", &b, &type) < 0);
	assert_true(route_read_file(www, "/x/../../secret", &b, &type) < 0);
	assert_true(route_read_file(www, "/link", &b, &type) < 0);
	assert_true(route_read_file(www, "/fifo", &b, &type) < 0);
	assert_true(route_read_file(NULL, "/", &b, &type) < 0);
	assert_int_equal(b.len, 6);
	snprintf(name, sizeof(name), "rm -r %s", top);
	assert_int_equal(system(name), 0);
}

/* Any bytes: no crash, no head longer than the bytes. Starts from good heads,
 * so that mutations reach deep. */
static void test_random(void **state)
{
	static const char seed[] = "POST /a%20 HTTP/1.1\r\nContent-Length: 5\r\n"
				   "connection: close\r\nuser-agent: x\r\n\r\n";
	uint64_t x = 0x2545f4914f6cdd1d;
	char head[sizeof(seed)];
	clock_t end = clock() + CLOCKS_PER_SEC / 2;

	while (clock() < end) {
		size_t n = sizeof(seed) - 1;

		memcpy(head, seed, n);
		for (int i = 0; i < 4; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			head[x % n] = (char)(x >> 32);
		}
		n -= x >> 60;
		http_request_reset(&req);
		if (http_parse_head(&req, head, n, MAX_HEAD) == 1)
			assert_true(req.head_len <= n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_line),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_nul_is_refused),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_long_agent),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_rpc_head),
		cmocka_unit_test(test_error_page),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
