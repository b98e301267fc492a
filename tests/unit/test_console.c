/* Who may use which console, and who serves it: member.open_console. */
#include "tests/unit/vm_world.h"

static char vm[REF_LEN + 1];

static struct value *wanted(const char *key, const char *value,
			    const char *more)
{
	return value_map_of(key, S(value), more ? more : "x", S("true"), NULL);
}

#define OPEN(...) "member.open_console", wanted(__VA_ARGS__)

static void on_written(void *data, int error, struct txn_result result)
{
	assert_int_equal(error, 0);
}

/* A session that has these permissions only; w.session from then on. */
static void become(const char *permission, const char *another)
{
	const struct class_def *c = &schema_classes[CLASS_session];
	struct value *set = value_set_new(another ? 3 : 2);
	struct txn *t = txn_new("test");

	set->items[0] = S("member.open_console"); /* every role has it */
	set->items[1] = S(permission);
	if (another)
		set->items[2] = S(another);
	row_create(t, CLASS_session, NULL, w.session);
	txn_set(t, c, w.session, F_session_rbac_permissions, set);
	txn_set(t, c, w.session, F_session_last_active,
		value_datetime(w.wall_ms / 1000));
	hook_submit(&w.h[0], t, on_written, NULL);
	world_run();
}

static const char *console_of(const char *ref)
{
	return value_str(field_of(ref, F_VM_consoles)->items[0]);
}

static void start(int host)
{
	make_vm(vm, "seen");
	do_ok("VM.start_on", S(vm), S(w.h[host].ref), B(false), B(false));
}

/* However it is named. */
static void test_here(void **state)
{
	const char *console;

	start(0);
	console = console_of(vm);
	do_ok(OPEN("ref", vm, NULL));
	assert_string_equal(console_asked, text_of(vm, F_VM_uuid));
	do_ok(OPEN("ref", console, NULL));
	do_ok(OPEN("uuid", text_of(vm, F_VM_uuid), NULL));
	do_ok(OPEN("uuid", text_of(console, F_console_uuid), NULL));
	do_ok(OPEN("ref", vm, "relayed"));
	fails((OPEN("ref", "OpaqueRef:none", NULL)), "HANDLE_INVALID",
	      "console", "OpaqueRef:none");
	do_ok("VM.pause", S(vm));
	fails((OPEN("ref", vm, NULL)), "VM_BAD_POWER_STATE", vm, "running",
	      "paused");
}

static void test_there(void **state)
{
	struct value *where;

	start(1);
	console_asked[0] = '\0';
	where = ok(OPEN("ref", vm, NULL));
	assert_string_equal(value_get_str(where, "address"), "10.0.0.2");
	assert_string_equal(value_get_str(where, "port"), "443");
	assert_int_equal(strlen(value_get_str(where, "fingerprint")), 64);
	assert_string_equal(console_asked, "");
	value_unref(where);
	/* A member that is asked by another one passes it to nobody. */
	fails((OPEN("ref", vm, "relayed")), "HOST_OFFLINE", w.h[1].ref);
}

static void test_raw(void **state)
{
	char asked[64];

	make_vm(vm, "text");
	do_ok("VM.set_domain_type", S(vm), S("pvh"));
	do_ok("VM.add_to_other_config", S(vm), S("disable_pv_vnc"), S(""));
	do_ok("VM.start_on", S(vm), S(w.h[0].ref), B(false), B(false));
	assert_text(console_of(vm), F_console_protocol, "vt100");
	do_ok(OPEN("ref", vm, NULL));
	snprintf(asked, sizeof asked, "%s raw", text_of(vm, F_VM_uuid));
	assert_string_equal(console_asked, asked);
	do_ok("VM.hard_shutdown", S(vm));
	do_ok("VM.remove_from_other_config", S(vm), S("disable_pv_vnc"));
	do_ok("VM.start_on", S(vm), S(w.h[0].ref), B(false), B(false));
	assert_text(console_of(vm), F_console_protocol, "rfb");
}

static void test_roles(void **state)
{
	const char *dom0 = text_of(w.h[0].ref, F_host_control_domain);

	start(0);
	do_ok(OPEN("ref", dom0, NULL));
	assert_string_equal(console_asked, "host");
	become("vm.start", NULL);
	fails((OPEN("ref", vm, NULL)), "RBAC_PERMISSION_DENIED",
	      "http/connect_console");
	become("http/connect_console", NULL);
	do_ok(OPEN("ref", vm, NULL));
	fails((OPEN("ref", vm, "websocket")), "RBAC_PERMISSION_DENIED",
	      "http/connect_console_ws");
	fails((OPEN("ref", dom0, NULL)), "RBAC_PERMISSION_DENIED",
	      "http/connect_console/host_console");
	become("http/connect_console", "http/connect_console/host_console");
	do_ok(OPEN("ref", dom0, NULL));
	become("http/connect_console_ws", NULL);
	do_ok(OPEN("ref", vm, "websocket"));
	fails((OPEN("ref", dom0, "websocket")), "RBAC_PERMISSION_DENIED",
	      "http/connect_console_ws/host_console_ws");
}

static const char *pool_ref(void)
{
	return value_str(store_first(w.store, CLASS_pool)->ref);
}

static void open_and_keep(struct lease **ret)
{
	keep_lease = ret;
	do_ok(OPEN("ref", vm, NULL));
	keep_lease = NULL;
	assert_non_null(*ret);
}

/* Somebody has it until the stream's lease ends, however that comes. */
static void test_one_at_a_time(void **state)
{
	struct lease *first = NULL, *second = NULL;

	start(0);
	open_and_keep(&first);
	open_and_keep(&second); /* nobody minds */
	do_ok("pool.set_limit_console_sessions", S(pool_ref()), B(true));
	fails((OPEN("ref", vm, NULL)), "CONSOLE_LIMIT_EXCEEDED");
	lease_release(first);
	fails((OPEN("ref", vm, NULL)), "CONSOLE_LIMIT_EXCEEDED");
	do_ok(OPEN("ref", text_of(w.h[0].ref, F_host_control_domain), NULL));
	lease_release(second);
	do_ok(OPEN("ref", vm, NULL));
	do_ok(OPEN("ref", vm, NULL)); /* the last one ended at once */
}

static int64_t timeout_of(const char *host)
{
	return record_int(row(host), F_host_console_idle_timeout);
}

static void assert_idle(const char *ref, const char *protocol, const char *idle)
{
	struct value *v = ok(OPEN("ref", ref, NULL));

	assert_string_equal(value_get_str(v, "protocol"), protocol);
	assert_string_equal(value_get_str(v, "idle_s"), idle);
	value_unref(v);
}

static void test_timeouts(void **state)
{
	const char *dom0 = text_of(w.h[0].ref, F_host_control_domain);

	start(0);
	assert_idle(vm, "rfb", "0");
	do_ok("pool.set_vm_console_idle_timeout", S(pool_ref()), I(90));
	assert_idle(vm, "rfb", "90");
	assert_idle(dom0, "rfb", "0");
	do_ok("host.set_console_idle_timeout", S(w.h[0].ref), I(30));
	assert_idle(dom0, "rfb", "30");
	assert_int_equal(timeout_of(w.h[1].ref), 0);
	do_ok("pool.set_console_idle_timeout", S(pool_ref()), I(40));
	assert_int_equal(timeout_of(w.h[0].ref), 40);
	assert_int_equal(timeout_of(w.h[1].ref), 40);
	fails(("pool.set_console_idle_timeout", S(pool_ref()), I(-1)),
	      "VALUE_NOT_SUPPORTED", "console_idle_timeout", "-1",
	      "It has to be between 0 (never) and a year of seconds");
	do_ok("pool.set_vm_console_idle_timeout", S(pool_ref()), I(-7));
	assert_idle(vm, "rfb", "0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		two_test(test_here),
		two_test(test_there),
		two_test(test_raw),
		two_test(test_roles),
		two_test(test_one_at_a_time),
		two_test(test_timeouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
