/* poolbench: a load generator for any XenAPI endpoint, and for etcd over gRPC or
 * its JSON gateway, so that all can be driven by the same loop.
 *
 * One thread, one epoll, N keep-alive connections, each with one call under way
 * at a time (a closed loop). Objects to write to are made at the start, one a
 * connection, and destroyed at the end. Latency is counted in a histogram of
 * 1/32 relative precision.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "tools/bench_grpc.h"
#include "tools/xenapi.h"

#define MAX_ENDPOINTS 16
#define MAX_CONNECTIONS 1024

/* ---- what was asked for ---- */

static struct {
	struct xenapi_endpoint endpoints[MAX_ENDPOINTS];
	unsigned n_endpoints;
	const char *user, *password, *write_class, *read_method;
	unsigned connections, read_percent;
	double duration_s, warmup_s;
	bool xml, json_output, local_reads, read_own, etcd, grpc;
} opt = {
	.user = "root",
	.password = "",
	.write_class = "VM_appliance",
	.connections = 16,
	.duration_s = 10,
	.warmup_s = 1,
	.read_percent = 50,
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- histogram: 32 linear steps in each power of two ---- */

#define HIST_SLOTS (64 * 32)

struct histogram {
	uint64_t slots[HIST_SLOTS], count, max, sum;
};

static unsigned hist_slot(uint64_t us)
{
	unsigned top;

	if (us < 32)
		return (unsigned)us;
	top = 63 - (unsigned)__builtin_clzll(us);
	return (top - 4) * 32 + (unsigned)((us >> (top - 5)) & 31);
}

static uint64_t hist_value(unsigned slot)
{
	unsigned top = slot / 32 + 4;

	return slot < 32 ? slot : (32ull + slot % 32) << (top - 5);
}

static void hist_add(struct histogram *h, uint64_t us)
{
	h->slots[hist_slot(us)]++;
	h->count++;
	h->sum += us;
	h->max = MAX(h->max, us);
}

static uint64_t hist_quantile(const struct histogram *h, double q)
{
	uint64_t want = (uint64_t)((double)h->count * q), seen = 0;

	for (unsigned i = 0; i < HIST_SLOTS; i++) {
		seen += h->slots[i];
		if (seen > want)
			return hist_value(i);
	}
	return h->max;
}

/* ---- connections ---- */

enum conn_state { CONN_IDLE, CONN_SENDING, CONN_READING };

struct conn {
	struct xenapi x;
	unsigned endpoint;
	struct grpc grpc;
	enum conn_state state;
	struct buf out;
	size_t sent;
	bool is_read;
	uint64_t started_us;
	const char *object; /* of objects[] */
	uint64_t serial;
	uint64_t retry_at_us; /* after a failed connection */
};

static struct conn conns[MAX_CONNECTIONS];
/* Made for this run: one a connection where there are writes. */
static char *objects[MAX_CONNECTIONS];
static unsigned n_objects;
static char *session, *read_ref;
static struct histogram reads, writes;
static uint64_t errors, reconnects, last_ok_us, longest_gap_us;
static bool measuring;
static volatile sig_atomic_t interrupted;

static void conn_close(struct conn *c)
{
	xenapi_close(&c->x);
	grpc_deinit(&c->grpc);
	c->state = CONN_IDLE;
	c->out.len = c->sent = 0;
}

/* Blocking: a load generator may wait for its own connections. */
static bool conn_open(struct conn *c)
{
	return xenapi_open(&c->x, &opt.endpoints[c->endpoint], 5) == 0;
}

/* ---- requests and replies ---- */

static void put_body(struct buf *b, bool xml, const char *method,
		     const char *const *args, unsigned n)
{
	if (xml) {
		buf_printf(b, "<?xml version=\"1.0\"?><methodCall><methodName>"
			   "%s</methodName><params>", method);
		for (unsigned i = 0; i < n; i++)
			buf_printf(b, "<param><value><string>%s</string></value>"
				   "</param>", args[i]);
		buf_puts(b, "</params></methodCall>");
		return;
	}
	xenapi_put_call(b, method, args, n);
}

static void put_post(struct conn *c, const char *path, const char *type,
		     const struct buf *body)
{
	c->out.len = c->sent = 0;
	buf_printf(&c->out,
		   "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\n%s"
		   "Content-Length: %zu\r\n\r\n", path,
		   opt.endpoints[c->endpoint].host, type,
		   opt.local_reads && !opt.etcd ? "x-xenpool-read: local\r\n" :
						  "", body->len);
	buf_append(&c->out, body->data, body->len);
}

static void put_request(struct conn *c, bool xml, const char *method,
			const char *const *args, unsigned n)
{
	struct buf body = BUF_INIT;

	put_body(&body, xml, method, args, n);
	put_post(c, xml ? "/" : "/jsonrpc",
		 xml ? "text/xml" : "application/json", &body);
	buf_deinit(&body);
}

/* ---- etcd: keys and values are base64 ---- */

static void put_base64(struct buf *b, const char *text)
{
	size_t n = strlen(text);

	buf_reserve(b, n * 4 / 3 + 4);
	b->len += (size_t)EVP_EncodeBlock((unsigned char *)b->data + b->len,
					  (const unsigned char *)text, (int)n);
}

static void put_etcd(struct conn *c, const char *value)
{
	struct buf body = BUF_INIT;
	char key[64];

	snprintf(key, sizeof key, "poolbench/%zu", (size_t)(c - conns));
	buf_puts(&body, "{\"key\":\"");
	put_base64(&body, key);
	if (value) {
		buf_puts(&body, "\",\"value\":\"");
		put_base64(&body, value);
		buf_puts(&body, "\"}");
	} else {
		buf_printf(&body, "\",\"serializable\":%s}",
			   opt.local_reads ? "true" : "false");
	}
	put_post(c, value ? "/v3/kv/put" : "/v3/kv/range", "application/json",
		 &body);
	buf_deinit(&body);
}

static void put_grpc(struct conn *c, const char *value)
{
	struct buf message = BUF_INIT;
	char key[64];

	snprintf(key, sizeof key, "poolbench/%zu", (size_t)(c - conns));
	grpc_put_bytes(&message, 1, key);
	if (value)
		grpc_put_bytes(&message, 2, value);
	else if (opt.local_reads)
		grpc_put_true(&message, 7);
	c->out.len = c->sent = 0;
	grpc_put_call(&c->grpc, &c->out, opt.endpoints[c->endpoint].host,
		      value ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range",
		      &message);
	buf_deinit(&message);
}

static bool body_ok(const char *body, size_t n)
{
	static const char *const bad[] = { "\"error\":{", "\"error\":[",
					   "\"error\":\"",
					   "<value>Failure</value>" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (memmem(body, MIN(n, (size_t)512), bad[i], strlen(bad[i])))
			return false;
	return true;
}

/* ---- the load ---- */

static void put_read(struct conn *c)
{
	const char *args[] = { session, opt.read_own ? c->object : read_ref };
	char method[128];

	if (opt.read_own) {
		snprintf(method, sizeof method, "%s.get_name_description",
			 opt.write_class);
		put_request(c, opt.xml, method, args, 2);
	} else if (opt.read_method) {
		put_request(c, opt.xml, opt.read_method, args, 1);
	} else {
		put_request(c, opt.xml, "pool.get_record", args, 2);
	}
}

static void put_write(struct conn *c, const char *text)
{
	const char *args[] = { session, c->object, text };
	char method[128];

	snprintf(method, sizeof method, "%s.set_name_description",
		 opt.write_class);
	put_request(c, opt.xml, method, args, 3);
}

static void start_call(struct conn *c, int epoll)
{
	char text[48];
	struct epoll_event ev = { EPOLLIN | EPOLLOUT, { .ptr = c } };

	c->is_read = (c->serial++ * 7919 + (uint64_t)(c - conns) * 31) % 100 <
		     opt.read_percent;
	snprintf(text, sizeof text, "value %" PRIu64, c->serial);
	if (opt.grpc)
		put_grpc(c, c->is_read ? NULL : text);
	else if (opt.etcd)
		put_etcd(c, c->is_read ? NULL : text);
	else if (c->is_read)
		put_read(c);
	else
		put_write(c, text);
	c->started_us = now_us();
	c->state = CONN_SENDING;
	epoll_ctl(epoll, EPOLL_CTL_MOD, c->x.fd, &ev);
}

static void drop(struct conn *c, int epoll)
{
	if (c->x.fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_DEL, c->x.fd, NULL);
	conn_close(c);
	c->endpoint = (c->endpoint + 1) % opt.n_endpoints;
	c->retry_at_us = now_us() + 10000;
	if (measuring) {
		reconnects++;
		errors++;
	}
}

static bool reopen(struct conn *c, int epoll)
{
	struct epoll_event ev = { EPOLLIN | EPOLLOUT, { .ptr = c } };

	if (!conn_open(c)) {
		c->endpoint = (c->endpoint + 1) % opt.n_endpoints;
		c->retry_at_us = now_us() + 20000;
		return false;
	}
	fcntl(c->x.fd, F_SETFL, O_NONBLOCK);
	epoll_ctl(epoll, EPOLL_CTL_ADD, c->x.fd, &ev);
	start_call(c, epoll);
	return true;
}

static void finish_call(struct conn *c, bool ok)
{
	uint64_t now = now_us();

	if (!measuring)
		return;
	if (!ok) {
		errors++;
		return;
	}
	hist_add(c->is_read ? &reads : &writes, now - c->started_us);
	if (last_ok_us)
		longest_gap_us = MAX(longest_gap_us, now - last_ok_us);
	last_ok_us = now;
}

static void conn_send(struct conn *c, int epoll)
{
	struct epoll_event ev = { EPOLLIN, { .ptr = c } };
	ssize_t r = xenapi_write(&c->x, c->out.data + c->sent, c->out.len - c->sent);

	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0) {
		drop(c, epoll);
		return;
	}
	c->sent += (size_t)r;
	if (c->sent == c->out.len) {
		c->state = CONN_READING;
		epoll_ctl(epoll, EPOLL_CTL_MOD, c->x.fd, &ev);
	}
}

/* Takes the reply out of what was read. 0: more bytes are needed, -1: it is none. */
static int take_reply(struct conn *c, bool *ret_ok)
{
	size_t body = 0;
	ssize_t r;

	if (opt.grpc)
		return grpc_read(&c->grpc, &c->x.in, ret_ok);
	r = xenapi_reply_length(&c->x.in, &body);
	if (r <= 0)
		return (int)r;
	*ret_ok = body_ok(c->x.in.data + body, (size_t)r - body);
	c->x.in.len = 0;
	return 1;
}

static void conn_receive(struct conn *c, int epoll)
{
	bool ok = false;
	ssize_t r;

	for (;;) {
		buf_reserve(&c->x.in, 65536);
		r = xenapi_read(&c->x, c->x.in.data + c->x.in.len, 65536);
		if (r < 0 && errno == EAGAIN)
			return;
		if (r <= 0) {
			drop(c, epoll);
			return;
		}
		c->x.in.len += (size_t)r;
		r = take_reply(c, &ok);
		if (r < 0) {
			drop(c, epoll);
			return;
		}
		if (r > 0)
			break;
	}
	finish_call(c, ok);
	start_call(c, epoll);
}

static void step(int epoll)
{
	struct epoll_event events[256];
	uint64_t now = now_us();
	int n;

	for (unsigned i = 0; i < opt.connections; i++)
		if (conns[i].x.fd < 0 && conns[i].retry_at_us <= now)
			reopen(&conns[i], epoll);
	n = epoll_wait(epoll, events, ARRAY_LEN(events), 10);
	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;

		if (c->x.fd < 0)
			continue;
		if (c->state == CONN_SENDING)
			conn_send(c, epoll);
		else
			conn_receive(c, epoll);
	}
}

static void run_load(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint64_t end;

	for (unsigned i = 0; i < opt.connections; i++)
		conns[i].endpoint = i % opt.n_endpoints;
	end = now_us() + (uint64_t)(opt.warmup_s * 1e6);
	while (now_us() < end && !interrupted)
		step(epoll);
	measuring = true;
	end = now_us() + (uint64_t)(opt.duration_s * 1e6);
	while (now_us() < end && !interrupted)
		step(epoll);
	measuring = false;
	for (unsigned i = 0; i < opt.connections; i++)
		conn_close(&conns[i]);
	close(epoll);
}

/* ---- setting up ---- */

#define SHARED_OBJECTS 16 /* when nothing is written */

static int make_objects(struct conn *c)
{
	const char *args[] = { session, "{\"name_label\":\"poolbench\","
					"\"name_description\":\"\"}" };
	unsigned want = opt.connections;
	char method[128];

	if (opt.read_percent == 100)
		want = opt.read_own ? MIN(want, SHARED_OBJECTS) : 0;
	snprintf(method, sizeof method, "%s.create", opt.write_class);
	for (; n_objects < want; n_objects++) {
		objects[n_objects] = xenapi_call_text(&c->x, method, args, 2);
		if (!objects[n_objects]) {
			fprintf(stderr, "poolbench: %s: %s\n", method,
				c->x.error);
			return -1;
		}
	}
	for (unsigned i = 0; i < opt.connections && n_objects; i++)
		conns[i].object = objects[i % n_objects];
	return 0;
}

static int set_up(struct conn *c)
{
	const char *login[] = { opt.user, opt.password, "2.23", "poolbench" };

	if (!conn_open(c)) {
		fprintf(stderr, "poolbench: cannot connect to %s:%s\n",
			opt.endpoints[c->endpoint].host,
			opt.endpoints[c->endpoint].port);
		return -1;
	}
	session = xenapi_call_text(&c->x, "session.login_with_password", login, 4);
	if (!session) {
		fprintf(stderr, "poolbench: login: %s\n", c->x.error);
		return -1;
	}
	read_ref = xenapi_call_text(&c->x, "pool.get_all", (const char *[]){ session }, 1);
	return read_ref ? make_objects(c) : -1;
}

static void tidy(void)
{
	struct conn c = { .x = XENAPI_INIT };
	char method[128];

	if (opt.etcd)
		return;
	snprintf(method, sizeof method, "%s.destroy", opt.write_class);
	for (c.endpoint = 0; c.endpoint < opt.n_endpoints; c.endpoint++)
		if (conn_open(&c))
			break;
	if (c.x.fd < 0)
		return;
	for (unsigned i = 0; i < n_objects; i++)
		json_object_put(xenapi_call(&c.x, method,
				(const char *[]){ session, objects[i] }, 2));
	json_object_put(xenapi_call(&c.x, "session.logout",
			     (const char *[]){ session }, 1));
	conn_close(&c);
}

/* ---- results ---- */

static void put_histogram(struct json_object *root, const char *name,
			  const struct histogram *h)
{
	struct json_object *o = json_object_new_object();
	static const struct { const char *key; double q; } quantiles[] = {
		{ "p50_us", 0.5 }, { "p99_us", 0.99 }, { "p999_us", 0.999 },
	};

	json_object_object_add(o, "ops_per_s", json_object_new_double(
		(double)h->count / opt.duration_s));
	json_object_object_add(o, "count", json_object_new_int64((int64_t)h->count));
	for (size_t i = 0; i < ARRAY_LEN(quantiles); i++)
		json_object_object_add(o, quantiles[i].key, json_object_new_int64(
			(int64_t)hist_quantile(h, quantiles[i].q)));
	json_object_object_add(o, "max_us", json_object_new_int64((int64_t)h->max));
	json_object_object_add(root, name, o);
}

static void print_histogram(const char *name, const struct histogram *h)
{
	if (h->count)
		printf("%-7s %10.0f ops/s  p50 %7" PRIu64 " us  p99 %7" PRIu64
		       " us  p99.9 %7" PRIu64 " us  max %7" PRIu64 " us\n", name,
		       (double)h->count / opt.duration_s, hist_quantile(h, 0.5),
		       hist_quantile(h, 0.99), hist_quantile(h, 0.999), h->max);
}

static void print_results(void)
{
	struct json_object *root;

	if (!opt.json_output) {
		print_histogram("reads", &reads);
		print_histogram("writes", &writes);
		printf("errors  %10" PRIu64 "  reconnects %" PRIu64
		       "  longest gap between successes %.1f ms\n", errors,
		       reconnects, (double)longest_gap_us / 1000);
		return;
	}
	root = json_object_new_object();
	put_histogram(root, "reads", &reads);
	put_histogram(root, "writes", &writes);
	json_object_object_add(root, "connections",
			       json_object_new_int((int)opt.connections));
	json_object_object_add(root, "errors", json_object_new_int64((int64_t)errors));
	json_object_object_add(root, "reconnects",
			       json_object_new_int64((int64_t)reconnects));
	json_object_object_add(root, "longest_gap_ms", json_object_new_double(
		(double)longest_gap_us / 1000));
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN));
	json_object_put(root);
}

/* ---- command line ---- */

static const char help[] =
"usage: poolbench [OPTIONS] URL...\n\n"
"Load on a XenAPI endpoint: http://HOST[:PORT] or https://HOST[:PORT]; of several\n"
"each connection takes one, and the next one when it breaks.\n\n"
"  -u, --user=NAME          (root)\n"
"  -p, --password=TEXT      or environment variable XENPOOL_PASSWORD\n"
"  -c, --connections=N      each with one call at a time (16)\n"
"  -d, --duration=SECONDS   measured time (10), after --warmup=SECONDS (1);\n"
"                           fractions will do\n"
"  -r, --reads=PERCENT      the others are writes (50)\n"
"      --read-call=METHOD   without parameters (default: pool.get_record of the pool)\n"
"      --read-own           name_description of the object that is written to\n"
"      --write-class=CLASS  objects of it are made and their name_description\n"
"                           is set (VM_appliance)\n"
"      --local              reads may be answered from the member's copy as it is\n"
"      --xml                XML-RPC in place of JSON-RPC 2.0\n"
"      --etcd               the URLs are etcd's: its keys are put and ranged over its\n"
"                           JSON gateway, with --local serializable\n"
"      --etcd-grpc          the same over gRPC, which is faster\n"
"      --json               results as one line of JSON\n"
"  -h, --help\n";

enum { OPT_WARMUP = 256, OPT_READ_CALL, OPT_WRITE_CLASS, OPT_LOCAL, OPT_XML,
       OPT_JSON, OPT_READ_OWN, OPT_ETCD, OPT_GRPC };

static const struct option longs[] = {
	{ "user", 1, NULL, 'u' }, { "password", 1, NULL, 'p' },
	{ "connections", 1, NULL, 'c' }, { "duration", 1, NULL, 'd' },
	{ "reads", 1, NULL, 'r' }, { "warmup", 1, NULL, OPT_WARMUP },
	{ "read-call", 1, NULL, OPT_READ_CALL },
	{ "write-class", 1, NULL, OPT_WRITE_CLASS },
	{ "local", 0, NULL, OPT_LOCAL }, { "xml", 0, NULL, OPT_XML },
	{ "read-own", 0, NULL, OPT_READ_OWN }, { "etcd", 0, NULL, OPT_ETCD }, { "etcd-grpc", 0, NULL, OPT_GRPC },
	{ "json", 0, NULL, OPT_JSON }, { "help", 0, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || n > max) {
		fprintf(stderr, "poolbench: want a number up to %u, not \"%s\"\n",
			max, text);
		exit(2);
	}
	return (unsigned)n;
}

static double seconds(const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (*end || end == text || !(s >= 0 && s <= 86400)) {
		fprintf(stderr, "poolbench: want seconds, not \"%s\"\n", text);
		exit(2);
	}
	return s;
}

static int parse_option(int c)
{
	switch (c) {
	case 'u': opt.user = optarg; break;
	case 'p': opt.password = optarg; break;
	case 'c': opt.connections = number(optarg, MAX_CONNECTIONS); break;
	case 'd': opt.duration_s = MAX(seconds(optarg), 0.1); break;
	case 'r': opt.read_percent = number(optarg, 100); break;
	case OPT_WARMUP: opt.warmup_s = seconds(optarg); break;
	case OPT_READ_CALL: opt.read_method = optarg; break;
	case OPT_WRITE_CLASS: opt.write_class = optarg; break;
	case OPT_LOCAL: opt.local_reads = true; break;
	case OPT_XML: opt.xml = true; break;
	case OPT_READ_OWN: opt.read_own = true; break;
	case OPT_ETCD: opt.etcd = true; break;
	case OPT_GRPC: opt.etcd = opt.grpc = true; break;
	case OPT_JSON: opt.json_output = true; break;
	case 'h': fputs(help, stdout); exit(0);
	default: return -1;
	}
	return 0;
}

static void on_signal(int signum)
{
	interrupted = 1;
}

int main(int argc, char **argv)
{
	int c;

	if (getenv("XENPOOL_PASSWORD"))
		opt.password = getenv("XENPOOL_PASSWORD");
	while ((c = getopt_long(argc, argv, "u:p:c:d:r:h", longs, NULL)) != -1)
		if (parse_option(c) < 0)
			return 2;
	for (; optind < argc; optind++) {
		if (opt.n_endpoints == MAX_ENDPOINTS ||
		    xenapi_parse_url(argv[optind],
				     &opt.endpoints[opt.n_endpoints++]) < 0) {
			fprintf(stderr, "poolbench: not a URL that I can use: %s "
				"(see --help)\n", argv[optind]);
			return 2;
		}
	}
	if (!opt.n_endpoints) {
		fputs(help, stderr);
		return 2;
	}
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
		conns[i].x.fd = -1;
	for (unsigned i = 0; i < opt.n_endpoints; i++)
		opt.endpoints[i].http2 = opt.grpc;
	if (!opt.etcd && set_up(&conns[0]) < 0)
		return 1;
	conn_close(&conns[0]);
	run_load();
	tidy();
	print_results();
	return reads.count + writes.count ? 0 : 1;
}
