/* The front end with a make-believe core behind it, for test_front.py.
 *
 * usage: front_echo name=value ...
 *   address https http unix www cert key threads max_connections max_header
 *   max_body max_depth header_timeout idle_timeout write_timeout: as in
 *   struct front_config; call=address: be a client instead
 *   (port=, method=, fingerprint=, arguments as arg=)
 *
 * Prints "ready" when it listens, "gone" when a client left a waiting call,
 * and on SIGTERM or SIGINT "status" with the four numbers of struct
 * front_status.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "rpc/client.h"
#include "rpc/front.h"
#include "rpc/jsonrpc.h"
#include "schema/record.h"

#define MANY 4000

static uv_loop_t loop;
static struct front *front;
static uv_signal_t sigterm, sigint;

/* The core. */

static struct value *record_of(const char *class_name, const struct value *ref)
{
	const struct class_def *cls = schema_class(class_name,
						   strlen(class_name));
	struct record *r = record_new(cls, value_ref(ref));
	struct value *v;

	for (unsigned i = 0; i < cls->n_fields; i++)
		record_set(r, i, schema_field_default(cls, i));
	v = value_record(r);
	record_unref(r);
	return v;
}

static void echo(struct call *c)
{
	call_reply(c, value_ref(c->args[c->n_args - 1]));
}

static void get_record(struct call *c)
{
	const char *cls = schema_classes[c->method->cls].name;

	call_reply(c, record_of(cls, c->args[0]));
}

static void get_all_records(struct call *c)
{
	const char *cls = schema_classes[c->method->cls].name;
	struct value **pairs = xcalloc(2 * MANY, sizeof(*pairs));

	for (size_t i = 0; i < MANY; i++) {
		pairs[2 * i] = value_printf("OpaqueRef:%zu", i);
		pairs[2 * i + 1] = record_of(cls, pairs[2 * i]);
	}
	call_reply(c, value_map_from(pairs, MANY));
	free(pairs);
}

static void login(struct call *c)
{
	if (value_is_str(c->args[1], "wrong"))
		call_fail(c, "SESSION_AUTHENTICATION_FAILED",
			  value_str(c->args[0]), "Authentication failure",
			  NULL);
	else
		call_reply(c, value_printf("%s/%s/%s/%s",
					   value_str(c->args[0]),
					   value_str(c->args[1]),
					   value_str(c->args[2]),
					   value_str(c->args[3])));
}

static void origin(struct call *c)
{
	const struct call_origin *o = &c->origin;

	if (o->min_generation > 0)
		c->generation = o->min_generation + 1;
	if (o->read == CALL_READ_LOCAL)
		c->age_ms = 12;
	call_reply(c, value_printf("%s|%s|%d|%d|%d", o->address, o->user_agent,
				   o->local_root, o->secure, (int)o->read));
}

static void fail(struct call *c)
{
	call_fail(c, "VM_BAD_POWER_STATE", value_str(c->args[0]), "halted",
		  "running <&\"", NULL);
}

static void nothing(struct call *c)
{
	call_reply(c, value_void());
}

/* Waits as event.from does. */
struct wait {
	uv_timer_t timer;
	struct call *call;
	uint64_t end;
};

static void on_wait_closed(uv_handle_t *h)
{
	free(h->data);
}

static void on_wait(uv_timer_t *timer)
{
	struct wait *w = timer->data;

	if (!atomic_load(&w->call->gone) && uv_now(&loop) < w->end)
		return;
	if (atomic_load(&w->call->gone)) {
		printf("gone\n");
		fflush(stdout);
	}
	call_reply(w->call, value_struct_of(
		"events", value_set_empty(),
		"valid_ref_counts",
		value_map_of("vm", value_count(7), NULL),
		"token", value_stringz("00001"), NULL));
	uv_close((uv_handle_t *)timer, on_wait_closed);
}

static void event_from(struct call *c)
{
	struct wait *w = xcalloc(1, sizeof(*w));

	w->call = c;
	w->end = uv_now(&loop) + (uint64_t)(c->args[2]->d * 1000);
	w->timer.data = w;
	uv_timer_init(&loop, &w->timer);
	uv_timer_start(&w->timer, on_wait, 0, 20);
}

static const struct {
	const char *method;
	void (*handle)(struct call *c);
} handlers[] = {
	{ "VM.get_name_label", echo },
	{ "VM.get_record", get_record },
	{ "VM.get_all_records", get_all_records },
	{ "VM.create", echo },
	{ "VM.start", fail },
	{ "VM.destroy", nothing },
	{ "VM.set_tags", echo },
	{ "VM.set_other_config", echo },
	{ "VM.set_is_a_template", echo },
	{ "VM.set_memory_dynamic_max", echo },
	{ "VM.set_HVM_shadow_multiplier", echo },
	{ "VM.set_actions_after_shutdown", echo },
	{ "VM_metrics.get_record", get_record },
	{ "host.get_record", get_record },
	{ "message.get_since", echo },
	{ "session.login_with_password", login },
	{ "session.get_this_host", origin },
	{ "event.from", event_from },
};

static void on_call(void *data, struct call *c)
{
	if (c->session && value_is_str(c->session, "bad")) {
		call_fail(c, "SESSION_INVALID", "bad", NULL);
		return;
	}
	if (!c->method) {
		call_fail(c, "MESSAGE_METHOD_UNKNOWN", c->name, NULL);
		return;
	}
	if (c->mode != CALL_SYNC) {
		call_reply(c, value_stringz("OpaqueRef:task"));
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
		if (strcmp(handlers[i].method, c->method->name) == 0) {
			handlers[i].handle(c);
			return;
		}
	}
	call_fail(c, "NOT_IMPLEMENTED", c->method->name, NULL);
}

/* The client. */

static int exit_code;

static void on_answer(void *data, int error, struct value *result,
		      struct value *api_error, const char *peer)
{
	struct buf b = BUF_INIT;

	jsonrpc_write_value(&b, result ? result : api_error);
	printf("%d %s %s\n", error, *peer ? peer : "-", buf_cstr(&b));
	buf_deinit(&b);
	exit_code = error ? 1 : 0;
}

/* The command line. */

static int ac;
static char **av;

static const char *option(const char *name)
{
	size_t n = strlen(name);

	for (int i = 1; i < ac; i++)
		if (strncmp(av[i], name, n) == 0 && av[i][n] == '=')
			return av[i] + n + 1;
	return NULL;
}

static unsigned number(const char *name)
{
	const char *s = option(name);

	return s ? (unsigned)strtoul(s, NULL, 10) : 0;
}

static void be_client(const char *address)
{
	struct value *params[8];
	struct rpc_client_request req = {
		.address = address,
		.default_port = number("port"),
		.method = option("method"),
		.params = params,
		.timeout_ms = number("timeout"),
		.fingerprint = option("fingerprint"),
	};

	for (int i = 1; i < ac && req.n_params < ARRAY_LEN(params); i++)
		if (strncmp(av[i], "arg=", 4) == 0)
			params[req.n_params++] = value_stringz(av[i] + 4);
	rpc_client_call(&loop, &req, on_answer, NULL);
	for (unsigned i = 0; i < req.n_params; i++)
		value_unref(params[i]);
}

static void on_signal(uv_signal_t *s, int number_)
{
	struct front_status st;

	uv_close((uv_handle_t *)&sigterm, NULL);
	uv_close((uv_handle_t *)&sigint, NULL);
	front_stop(front);
	/* It is freed when the loop runs on. */
	front_get_status(front, &st);
	printf("status %u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
	       st.connections, st.requests, st.errors_4xx, st.errors_5xx);
}

static int be_server(void)
{
	struct front_config cfg = {
		.address = option("address") ? option("address") : "127.0.0.1",
		.https_port = number("https"),
		.http_port = number("http"),
		.unix_path = option("unix"),
		.cert_file = option("cert"),
		.key_file = option("key"),
		.www_dir = option("www"),
		.n_threads = number("threads"),
		.max_connections = number("max_connections"),
		.max_header_bytes = number("max_header"),
		.max_body_bytes = number("max_body"),
		.max_depth = number("max_depth"),
		.header_timeout_s = number("header_timeout"),
		.idle_timeout_s = number("idle_timeout"),
		.write_timeout_s = number("write_timeout"),
	};
	int r;

	if (cfg.cert_file && cfg.key_file) {
		r = tls_ensure_certificate(cfg.cert_file, cfg.key_file,
					   cfg.address);
		if (r < 0)
			return r;
	}
	r = front_start(&loop, &cfg, on_call, NULL, &front);
	if (r < 0)
		return r;
	uv_signal_init(&loop, &sigterm);
	uv_signal_init(&loop, &sigint);
	uv_signal_start(&sigterm, on_signal, SIGTERM);
	uv_signal_start(&sigint, on_signal, SIGINT);
	printf("ready\n");
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	int r = 0;

	ac = argc;
	av = argv;
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&loop);
	if (option("call"))
		be_client(option("call"));
	else
		r = be_server();
	if (r == 0)
		uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return r < 0 ? 1 : exit_code;
}
