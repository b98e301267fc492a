/* VMs on several hosts: placement, migration with every step failing, daemons,
 * executors and hosts that go away in the middle. The world checks at each
 * verb that no VM is unpaused twice. */
#include "tests/unit/vm_world.h"

static void start_on(const char *vm, int host)
{
	do_ok("VM.start_on", S(vm), S(w.h[host].ref), B(false), B(false));
}

static void migrate_begin(const char *vm, int to, struct reply *reply)
{
	call_at(&w.h[0], reply, "VM.pool_migrate", S(vm), S(w.h[to].ref),
		value_map_empty(), NULL);
}

static int running_on(const char *vm)
{
	for (int i = 0; i < w.n; i++)
		if (dom_at(&w.h[i], vm) == RUNNING)
			return i;
	return -1;
}

static int copies_of(const char *vm)
{
	int n = 0;

	for (int i = 0; i < w.n; i++)
		n += dom_at(&w.h[i], vm) != GONE;
	return n;
}

/* All at rest: rows and domains agree. */
static void assert_settled(const char *vm, int host)
{
	assert_int_equal(store_count(w.store, CLASS_job), 0);
	assert_int_equal(field_of(vm, F_VM_current_operations)->n, 0);
	assert_text(vm, F_VM_scheduled_to_be_resident_on, REF_NULL);
	assert_int_equal(running_on(vm), host);
	assert_int_equal(copies_of(vm), host >= 0);
	assert_text(vm, F_VM_resident_on, host < 0 ? REF_NULL : w.h[host].ref);
	assert_state(vm, host < 0 ? "Halted" : "Running");
	for (int i = 0; i < w.n; i++)
		assert_int_equal(field_of(w.h[i].ref,
					  F_host_current_operations)->n, 0);
}

/* ---- placement ---- */

static void set_memory(const char *vm, int64_t bytes)
{
	do_ok("VM.set_memory", S(vm), I(bytes));
}

static void test_affinity(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "fond");
	for (int i = 0; i < w.n; i++) {
		do_ok("VM.set_affinity", S(vm), S(w.h[i].ref));
		do_ok("VM.start", S(vm), B(false), B(false));
		assert_settled(vm, i);
		do_ok("VM.hard_shutdown", S(vm));
	}
}

static void test_memory_is_promised_once(void **state)
{
	char vms[4][REF_LEN + 1];
	struct reply r[4];
	int per_host[MAX_HOSTS] = { 0 }, failed = 0;

	for (int i = 0; i < 4; i++) {
		make_vm(vms[i], "big");
		set_memory(vms[i], 5LL << 30);
	}
	w.hold = "start"; /* the first one only: others are in flight too */
	for (int i = 0; i < 4; i++)
		call_at(&w.h[i % w.n], &r[i], "VM.start", S(vms[i]), B(false),
			B(false), NULL);
	release_held();
	world_run();
	for (int i = 0; i < 4; i++) {
		if (r[i].error) {
			assert_string_equal(value_str(r[i].error->items[0]),
					    "HOST_NOT_ENOUGH_FREE_MEMORY");
			failed++;
		} else if (running_on(vms[i]) >= 0) {
			per_host[running_on(vms[i])]++;
		}
		reply_clear(&r[i]);
	}
	assert_int_equal(failed, 2);
	assert_true(per_host[0] <= 1 && per_host[1] <= 1);
}

/* Handlers at two members that have seen the same rows: one of them must see
 * that the other was first. */
static void test_started_at_once(void **state)
{
	char vms[4][REF_LEN + 1];
	struct reply r[4];
	int started = 0;

	for (int i = 0; i < 4; i++) {
		make_vm(vms[i], "at once");
		set_memory(vms[i], 5LL << 30);
	}
	for (int i = 0; i < 4; i++)
		call_begin(&w.h[i % 2], &r[i], "VM.start", S(vms[i]), B(false),
			   B(false), NULL);
	world_run();
	for (int i = 0; i < 4; i++) {
		started += r[i].result != NULL;
		reply_clear(&r[i]);
	}
	assert_int_equal(started, 2);
	for (int i = 0; i < 2; i++)
		assert_int_equal(field_of(w.h[i].ref, F_host_resident_VMs)->n,
				 2); /* with the control domain */
}

static void test_one_vm_started_twice(void **state)
{
	char vm[REF_LEN + 1];
	struct reply r[2];

	make_vm(vm, "twice");
	for (int i = 0; i < 2; i++)
		call_begin(&w.h[i], &r[i], "VM.start_on", S(vm),
			   S(w.h[i].ref), B(false), B(false), NULL);
	world_run();
	assert_int_equal(!r[0].result + !r[1].result, 1);
	for (int i = 0; i < 2; i++)
		reply_clear(&r[i]);
	assert_settled(vm, running_on(vm));
}

static void test_disabled_hosts(void **state)
{
	char vm[REF_LEN + 1];
	struct value *v;

	make_vm(vm, "picky");
	do_ok("host.disable", S(w.h[0].ref));
	v = ok("VM.get_possible_hosts", S(vm));
	assert_int_equal(v->n, 1);
	value_unref(v);
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_settled(vm, 1);
	fails(("VM.pool_migrate", S(vm), S(w.h[0].ref), value_map_empty()),
	      "HOST_DISABLED", w.h[0].ref);
	do_ok("host.disable", S(w.h[1].ref));
	do_ok("VM.hard_shutdown", S(vm));
	fails(("VM.start", S(vm), B(false), B(false)), "NO_HOSTS_AVAILABLE");
	/* Disabled by its user it stays so until the machine starts again. */
	daemon_stop(&w.h[1]);
	daemon_start(&w.h[1]);
	world_advance(5000);
	assert_false(record_bool(row(w.h[1].ref), F_host_enabled));
	daemon_stop(&w.h[1]);
	w.h[1].boot_id = "boot-2";
	daemon_start(&w.h[1]);
	world_advance(5000);
	assert_true(record_bool(row(w.h[1].ref), F_host_enabled));
	do_ok("host.enable", S(w.h[0].ref));
	do_ok("VM.start", S(vm), B(false), B(false));
}

/* ---- migration ---- */

static void test_migrate(void **state)
{
	char vm[REF_LEN + 1];
	const char *location;
	struct record *console;

	make_vm(vm, "mover");
	start_on(vm, 0);
	for (int i = 1; i < 4; i++) {
		do_ok("VM.pool_migrate", S(vm), S(w.h[i % 2].ref),
		      value_map_empty());
		assert_settled(vm, i % 2);
		console = row(value_str(field_of(vm, F_VM_consoles)->items[0]));
		location = record_str(console, F_console_location);
		assert_non_null(strstr(location, i % 2 ? "10.0.0.2" :
							 "10.0.0.1"));
	}
	do_ok("VM.pool_migrate", S(vm), S(w.h[1].ref), value_map_empty());
	assert_settled(vm, 1);
}

static void test_migrate_shows(void **state)
{
	char vm[REF_LEN + 1];
	struct reply r;

	make_vm(vm, "seen");
	start_on(vm, 0);
	w.hold = "migrate_send";
	migrate_begin(vm, 1, &r);
	assert_text(vm, F_VM_scheduled_to_be_resident_on, w.h[1].ref);
	assert_text(vm, F_VM_resident_on, w.h[0].ref);
	assert_state(vm, "Running");
	assert_string_equal(
		value_str(field_of(vm, F_VM_current_operations)->items[1]),
		"pool_migrate");
	assert_int_equal(field_of(w.h[1].ref, F_host_current_operations)->n, 1);
	release_held();
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
	assert_settled(vm, 1);
}

static void test_migrate_step_fails(void **state)
{
	static const char *const verbs[] = { "migrate_receive", "migrate_send",
					     "migrate_activate" };
	char vm[REF_LEN + 1];

	make_vm(vm, "stays");
	start_on(vm, 0);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		w.fail = verbs[i];
		fails(("VM.pool_migrate", S(vm), S(w.h[1].ref),
		       value_map_empty()), "VM_MIGRATE_FAILED",
		      text_of(vm, F_VM_uuid), w.h[0].uuid, w.h[1].uuid,
		      "INTERNAL_ERROR: simulated failure");
		assert_settled(vm, 0);
	}
	w.fail = NULL;
	do_ok("VM.pool_migrate", S(vm), S(w.h[1].ref), value_map_empty());
	assert_settled(vm, 1);
}

static void test_migrate_cancelled(void **state)
{
	static const char *const verbs[] = { "migrate_receive",
					     "migrate_send" };
	char vm[REF_LEN + 1];

	make_vm(vm, "undecided");
	start_on(vm, 0);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		struct record *job;
		struct reply r;

		w.hold = verbs[i];
		migrate_begin(vm, 1, &r);
		job = store_first(w.store, CLASS_job);
		do_ok("task.cancel", value_ref(job->fields[F_job_task]));
		w.hold = NULL;
		world_advance(2000);
		expect_error(&r, "TASK_CANCELLED", NULL);
		assert_settled(vm, 0);
	}
}

static void test_hard_shutdown_of_a_mover(void **state)
{
	static const char *const verbs[] = { "migrate_receive", "migrate_send",
					     "migrate_activate",
					     "migrate_finish" };
	char vm[REF_LEN + 1];

	make_vm(vm, "doomed");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		struct reply move, stop;

		start_on(vm, 0);
		w.hold = verbs[i];
		migrate_begin(vm, 1, &move);
		call_at(&w.h[1], &stop, "VM.hard_shutdown", S(vm), NULL);
		release_held();
		world_advance(2000);
		assert_non_null(stop.result);
		assert_true(move.result || move.error);
		reply_clear(&move);
		reply_clear(&stop);
		assert_settled(vm, -1);
	}
}

/* ---- evacuation ---- */

static void test_evacuate(void **state)
{
	char vms[5][REF_LEN + 1];
	struct reply r;

	for (int i = 0; i < 5; i++) {
		make_vm(vms[i], "leaving");
		start_on(vms[i], 1);
	}
	w.hold = "migrate_send"; /* the first one's; others pass */
	call_at(&w.h[0], &r, "host.evacuate", S(w.h[1].ref), S(REF_NULL), I(2),
		NULL);
	assert_true(host_is_evacuating(row(w.h[1].ref)));
	fails(("VM.start_on", S(vms[0]), S(w.h[1].ref), B(false), B(false)),
	      "VM_BAD_POWER_STATE");
	world_advance(3000);
	assert_int_equal(store_count(w.store, CLASS_job), 2);
	assert_int_equal(field_of(w.h[0].ref, F_host_resident_VMs)->n, 5);
	assert_null(r.result);
	release_held();
	world_advance(2000);
	assert_non_null(r.result);
	reply_clear(&r);
	for (int i = 0; i < 5; i++)
		assert_settled(vms[i], 0);
	assert_false(host_is_evacuating(row(w.h[1].ref)));
	assert_true(set_has(field_of(w.h[1].ref, F_host_allowed_operations),
			    "vm_start"));
	do_ok("host.evacuate", S(w.h[1].ref));
}

static void test_evacuate_fails(void **state)
{
	char vm[REF_LEN + 1], paused[REF_LEN + 1];

	make_vm(vm, "stuck");
	start_on(vm, 1);
	w.fail = "migrate_send";
	fails(("host.evacuate", S(w.h[1].ref)), "VM_MIGRATE_FAILED");
	w.fail = NULL;
	assert_settled(vm, 1);
	make_vm(paused, "paused");
	start_on(paused, 1);
	do_ok("VM.pause", S(paused));
	fails(("host.assert_can_evacuate", S(w.h[1].ref)),
	      "CANNOT_EVACUATE_HOST");
	fails(("host.evacuate", S(w.h[1].ref)), "VM_BAD_POWER_STATE", paused,
	      "running", "paused");
	do_ok("VM.hard_shutdown", S(paused));
	do_ok("host.disable", S(w.h[0].ref));
	fails(("host.evacuate", S(w.h[1].ref)), "NO_HOSTS_AVAILABLE", vm);
	do_ok("host.enable", S(w.h[0].ref));
	do_ok("host.evacuate", S(w.h[1].ref));
	assert_settled(vm, 0);
}

static void test_evacuation_survives(void **state)
{
	char vms[3][REF_LEN + 1];
	struct reply r;

	for (int i = 0; i < 3; i++) {
		make_vm(vms[i], "leaving");
		start_on(vms[i], 1);
	}
	w.hold = "migrate_send";
	call_at(&w.h[0], &r, "host.evacuate", S(w.h[1].ref), S(REF_NULL), I(1),
		NULL);
	daemon_stop(&w.h[1]);
	lead(2);
	release_held();
	world_advance(1000);
	assert_null(r.result);
	daemon_start(&w.h[1]);
	world_advance(5000);
	assert_non_null(r.result);
	reply_clear(&r);
	for (int i = 0; i < 3; i++)
		assert_settled(vms[i], running_on(vms[i]));
	assert_int_equal(field_of(w.h[1].ref, F_host_resident_VMs)->n, 1);
}

/* ---- processes that die ---- */

/* Calls with the verb during which something dies, and where it is sent. */
static const struct {
	const char *call, *verb;
	int at;
	const char *state;
	int host;
} deaths[] = {
	{ "VM.start_on", "start", 0, "Running", 0 },
	{ "VM.clean_shutdown", "clean_shutdown", 0, "Halted", -1 },
	{ "VM.hard_reboot", "hard_reboot", 0, "Running", 0 },
	{ "VM.pool_migrate", "migrate_receive", 1, "Running", 1 },
	{ "VM.pool_migrate", "migrate_send", 0, "Running", 1 },
	{ "VM.pool_migrate", "migrate_activate", 1, "Running", 1 },
	{ "VM.pool_migrate", "migrate_finish", 0, "Running", 1 },
};

static void begin(const char *vm, const char *call, struct reply *reply)
{
	/* Asked at a third member: its caller must not lose the answer. */
	if (!strcmp(call, "VM.start_on"))
		call_at(&w.h[2], reply, call, S(vm), S(w.h[0].ref), B(false),
			B(false), NULL);
	else if (!strcmp(call, "VM.pool_migrate"))
		call_at(&w.h[2], reply, call, S(vm), S(w.h[1].ref),
			value_map_empty(), NULL);
	else
		call_at(&w.h[2], reply, call, S(vm), NULL);
}

static void die_in_each_step(bool daemon, bool done_meanwhile)
{
	for (size_t i = 0; i < ARRAY_LEN(deaths); i++) {
		struct sim_host *h = &w.h[deaths[i].at];
		char vm[REF_LEN + 1];
		struct reply reply;

		make_vm(vm, "victim");
		if (strcmp(deaths[i].call, "VM.start_on"))
			start_on(vm, 0);
		w.hold = deaths[i].verb;
		begin(vm, deaths[i].call, &reply);
		assert_non_null(w.held);
		assert_ptr_equal(w.held_at, h);
		if (daemon)
			daemon_stop(h);
		if (done_meanwhile)
			release_held();
		if (!daemon)
			executor_stop(h);
		w.hold = NULL;
		value_unref(TAKE_PTR(w.held));
		world_advance(2000);
		assert_null(reply.result);
		if (daemon)
			daemon_start(h);
		else
			executor_start(h);
		world_advance(7000);
		if (reply.error)
			show_error(deaths[i].verb, reply.error);
		assert_non_null(reply.result);
		reply_clear(&reply);
		assert_state(vm, deaths[i].state);
		assert_settled(vm, deaths[i].host);
		world_advance(10000);
		assert_settled(vm, deaths[i].host);
		if (deaths[i].host >= 0)
			do_ok("VM.hard_shutdown", S(vm));
	}
}

static void test_daemon_dies(void **state)
{
	die_in_each_step(true, false);
}

static void test_daemon_dies_verb_done(void **state)
{
	die_in_each_step(true, true);
}

static void test_executor_dies(void **state)
{
	die_in_each_step(false, false);
}

static void test_executor_dies_verb_done(void **state)
{
	die_in_each_step(false, true);
}

static void test_leader_changes(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(deaths); i++) {
		char vm[REF_LEN + 1];
		struct reply reply;

		make_vm(vm, "orphan");
		if (strcmp(deaths[i].call, "VM.start_on"))
			start_on(vm, 0);
		w.hold = deaths[i].verb;
		begin(vm, deaths[i].call, &reply);
		lead(-1);
		world_advance(3000);
		lead((int)(i % 2) + 1);
		assert_string_equal(record_str(store_first(w.store, CLASS_pool),
					       F_pool_master),
				    w.h[i % 2 + 1].ref);
		release_held();
		world_advance(2000);
		assert_non_null(reply.result);
		reply_clear(&reply);
		assert_settled(vm, deaths[i].host);
	}
}

/* ---- hosts that are gone ---- */

static void host_dies(int i)
{
	struct sim_host *h = &w.h[i];

	daemon_stop(h);
	executor_stop(h);
	for (int k = 0; k < MAX_DOMAINS; k++)
		h->doms[k].state = GONE;
	if (w.leader == i)
		lead((i + 1) % w.n);
	world_advance(2 * DEAD_AFTER_MS);
}

static void host_returns(int i)
{
	w.h[i].boot_id = "boot-9";
	w.h[i].executor_down = false;
	daemon_start(&w.h[i]);
	world_advance(12000);
}

static bool is_live(int i)
{
	return record_bool(row(text_of(w.h[i].ref, F_host_metrics)),
			   F_host_metrics_live);
}

static void test_liveness(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "stranded");
	start_on(vm, 1);
	host_dies(1);
	assert_false(is_live(1));
	assert_state(vm, "Running");
	assert_text(vm, F_VM_resident_on, w.h[1].ref);
	fails(("VM.hard_shutdown", S(vm)), "HOST_OFFLINE", w.h[1].ref);
	fails(("VM.assert_can_boot_here", S(vm), S(w.h[1].ref)),
	      "HOST_NOT_LIVE");
	fails(("host.destroy", S(w.h[1].ref)), "HOST_HAS_RESIDENT_VMS",
	      w.h[1].ref);
	host_returns(1);
	assert_true(is_live(1));
	assert_settled(vm, -1); /* its machine had restarted */
	fails(("host.declare_dead", S(w.h[1].ref)), "HOST_IS_LIVE", w.h[1].ref);
}

static void test_start_on_a_dying_host(void **state)
{
	char vm[REF_LEN + 1];
	struct reply reply;

	make_vm(vm, "doubtful");
	w.hold = "start";
	call_at(&w.h[0], &reply, "VM.start_on", S(vm), S(w.h[1].ref), B(false),
		B(false), NULL);
	w.hold = NULL;
	daemon_stop(&w.h[1]);
	world_advance(2 * DEAD_AFTER_MS);
	expect_error(&reply, "HOST_OFFLINE", w.h[1].ref, NULL);
	/* It may run there: nobody may start it elsewhere. */
	assert_state(vm, "Running");
	assert_text(vm, F_VM_resident_on, w.h[1].ref);
	fails(("VM.start", S(vm), B(false), B(false)), "VM_BAD_POWER_STATE");
	release_held(); /* and indeed */
	world_advance(2000);
	daemon_start(&w.h[1]);
	world_advance(12000);
	assert_settled(vm, 1);
	assert_int_equal(record_int(row(vm), F_VM_domid),
			 dom_find(&w.h[1], text_of(vm, F_VM_uuid))->domid);
}

static void test_declared_dead(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "moved on");
	start_on(vm, 1);
	host_dies(1);
	do_ok("host.declare_dead", S(w.h[1].ref));
	assert_settled(vm, -1);
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_settled(vm, 0);
	/* The dead was only away: its copy must go. (Here it comes back by
	 * itself paused; what a fence device would have prevented.) */
	dom_get(&w.h[1], text_of(vm, F_VM_uuid))->state = PAUSED;
	dom_get(&w.h[1], text_of(vm, F_VM_uuid))->domid = 99;
	w.fail = "hard_shutdown";
	host_returns(1);
	world_advance(30000); /* it tries again, and says so once */
	w.fail = NULL;
	world_advance(6000);
	assert_settled(vm, 0);
	assert_int_equal(messages_named("VM_COPY_DESTROYED"), 1);
	do_ok("VM.hard_shutdown", S(vm));
}

static void test_power_state_reset(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "reset");
	start_on(vm, 1);
	fails(("VM.power_state_reset", S(vm)), "HOST_IS_LIVE", w.h[1].ref);
	host_dies(1);
	do_ok("VM.power_state_reset", S(vm));
	assert_settled(vm, -1);
	start_on(vm, 0);
	fails(("VM.power_state_reset", S(vm)), "DOMAIN_EXISTS", vm);
}

static void test_migration_loses_destination(void **state)
{
	static const char *const verbs[] = { "migrate_receive",
					     "migrate_send" };

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		char vm[REF_LEN + 1];
		struct reply r;

		make_vm(vm, "unmoved");
		start_on(vm, 0);
		w.hold = verbs[i];
		migrate_begin(vm, 1, &r);
		host_dies(1);
		w.hold = NULL;
		value_unref(TAKE_PTR(w.held));
		world_advance(3000);
		expect_error(&r, "HOST_OFFLINE", w.h[1].ref, NULL);
		assert_settled(vm, 0);
		host_returns(1);
		assert_settled(vm, 0);
	}
}

static void test_migration_loses_activated(void **state)
{
	char vm[REF_LEN + 1];
	struct reply r;

	make_vm(vm, "halfway");
	start_on(vm, 0);
	w.hold = "migrate_activate";
	migrate_begin(vm, 1, &r);
	host_dies(1);
	w.hold = NULL;
	value_unref(TAKE_PTR(w.held));
	/* Past the switch only the destination may run it: all wait. */
	world_advance(10000);
	assert_null(r.error);
	assert_int_equal(dom_at(&w.h[0], vm), KEPT);
	assert_text(vm, F_VM_resident_on, w.h[1].ref);
	do_ok("host.declare_dead", S(w.h[1].ref));
	world_advance(2000);
	expect_error(&r, "HOST_OFFLINE", w.h[1].ref, NULL);
	assert_settled(vm, -1);
	do_ok("VM.start", S(vm), B(false), B(false));
	host_returns(1);
	assert_settled(vm, running_on(vm));
}

static void test_migration_loses_source(void **state)
{
	char vm[REF_LEN + 1];
	struct reply r;

	make_vm(vm, "cut off");
	start_on(vm, 1);
	w.hold = "migrate_send";
	migrate_begin(vm, 2, &r);
	assert_int_equal(dom_at(&w.h[2], vm), INCOMING);
	daemon_stop(&w.h[1]);
	world_advance(2 * DEAD_AFTER_MS);
	expect_error(&r, "HOST_OFFLINE", w.h[1].ref, NULL);
	assert_int_equal(dom_at(&w.h[2], vm), GONE);
	release_held(); /* the source has sent it all, for nobody */
	world_advance(2000);
	assert_int_equal(dom_at(&w.h[1], vm), KEPT);
	assert_int_equal(running_on(vm), -1);
	daemon_start(&w.h[1]);
	world_advance(12000);
	assert_settled(vm, 1);
}

/* A destination that comes back with an empty copy which nobody wants. */
static void test_left_over_copy(void **state)
{
	char vm[REF_LEN + 1];
	struct dom *d;

	make_vm(vm, "left over");
	start_on(vm, 0);
	d = dom_get(&w.h[1], text_of(vm, F_VM_uuid));
	d->state = INCOMING;
	world_advance(6000);
	assert_int_equal(d->state, GONE);
	assert_settled(vm, 0);
}

/* A host that cannot reach the others does nothing about what it sees. */
static void test_cut_off_host_waits(void **state)
{
	char vm[REF_LEN + 1];
	struct dom *d;

	make_vm(vm, "alone");
	start_on(vm, 1);
	w.h[1].cut = true;
	d = dom_find(&w.h[1], text_of(vm, F_VM_uuid));
	d->state = GONE;
	world_advance(4000);
	assert_state(vm, "Running");
	w.h[1].cut = false;
	world_advance(12000);
	assert_settled(vm, -1);
}

/* ---- membership ---- */

static void test_members_follow_rows(void **state)
{
	struct record *m = member_of_host(w.store, w.h[2].ref);

	for (int i = 0; i < w.n; i++)
		assert_int_equal(w.roles[i], DB_VOTER);
	fails(("pool.eject", S(w.h[0].ref)), "INTERNAL_ERROR",
	      "Cannot_eject_master");
	assert_non_null(m);
	daemon_stop(&w.h[2]);
	do_ok("pool.eject", S(w.h[2].ref));
	world_advance(2000);
	assert_int_equal(w.roles[2], -1);
	assert_int_equal(store_count(w.store, CLASS_host), 2);
	assert_int_equal(store_count(w.store, CLASS_SR), 2);
	assert_null(store_get(w.store, w.h[2].ref));
}

static void test_register(void **state)
{
	struct value *v, *d;

	d = description_of(&w.h[1]);
	v = ok("member.register", value_ref(d), value_map_empty());
	assert_int_equal(v->n, 2);
	assert_string_equal(value_get_str(v->items[0], "uuid"),
			    record_str(store_first(w.store, CLASS_member),
				       F_member_uuid));
	value_unref(v);
	fails(("member.register", d, value_map_empty()),
	      "OPERATION_NOT_ALLOWED");
	fails(("member.register", value_map_of("uuid", S("x"), NULL),
	       value_map_empty()), "INVALID_VALUE", "uuid", "x");
	assert_int_equal(store_count(w.store, CLASS_host), 2);
	/* Not live before it has been heard of. */
	world_advance(2 * DEAD_AFTER_MS);
	assert_int_equal(store_count(w.store, CLASS_PIF), 2);
	assert_int_equal(store_count(w.store, CLASS_network), 1);
}

/* ---- joining: this side ---- */

static void they_answer(int i, const char *method, struct value *result)
{
	value_unref(w.answers[i].result);
	value_unref(TAKE_PTR(w.answers[i].api_error));
	w.answers[i] = (struct remote_answer){ method, 0, result, NULL };
}

static void they_refuse(int i, const char *method, struct value *error)
{
	they_answer(i, method, NULL);
	w.answers[i].error = -EREMOTEIO;
	w.answers[i].api_error = error;
}

static struct value *their_hosts(const char *uuid, const char *vendor)
{
	return value_struct_of(
		"OpaqueRef:1",
		value_struct_of("uuid", S(uuid), "cpu_info",
				value_struct_of("vendor", S(vendor), NULL),
				"software_version",
				value_ref(field_of(w.h[0].ref,
						   F_host_software_version)),
				NULL),
		NULL);
}

static struct value *their_members(void)
{
	struct value *set = value_set_new(1);

	set->items[0] = value_struct_of("raft_id", S("1"), NULL);
	return set;
}

#define JOIN(method) (method, S("10.9.9.9"), S("root"), S("secret"))

static void test_join(void **state)
{
	char vm[REF_LEN + 1];

	fails(("pool.join", S("10.0.0.1"), S("root"), S("secret")),
	      "OPERATION_NOT_ALLOWED", "Host cannot become slave of itself");
	fails(JOIN("pool.join"), "JOINING_HOST_SERVICE_FAILED");
	they_refuse(0, "session.login_with_password",
		    api_error("SESSION_AUTHENTICATION_FAILED", "root", NULL));
	fails(JOIN("pool.join"), "SESSION_AUTHENTICATION_FAILED", "root");
	they_answer(0, "session.login_with_password", S("OpaqueRef:s"));
	/* Our row may be there from an earlier life: they know. */
	they_answer(1, "host.get_all_records", their_hosts(w.h[0].uuid, "AMD"));
	they_refuse(2, "member.register",
		    api_error("OPERATION_NOT_ALLOWED", "a member", NULL));
	fails(JOIN("pool.join"), "OPERATION_NOT_ALLOWED", "a member");
	they_answer(1, "host.get_all_records", their_hosts("other", "AMD"));
	fails(JOIN("pool.join"), "HOSTS_NOT_HOMOGENEOUS", "CPUs differ");
	they_refuse(2, "member.register", api_error("INTERNAL_ERROR", NULL));
	fails(JOIN("pool.join_force"), "INTERNAL_ERROR");
	they_answer(1, "host.get_all_records", their_hosts("other", "sim"));
	they_answer(2, "member.register", their_members());
	make_vm(vm, "in the way");
	fails(JOIN("pool.join"), "OPERATION_NOT_ALLOWED");
	do_ok("VM.start", S(vm), B(false), B(false));
	fails(JOIN("pool.join"), "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS");
	do_ok("VM.hard_shutdown", S(vm));
	do_ok("VM.destroy", S(vm));
	assert_int_equal(w.become_member, 0);
	w.called[0] = '\0';
	do_ok("pool.join", S("10.9.9.9"), S("root"), S("secret"));
	assert_int_equal(w.become_member, 1);
	assert_string_equal(w.called, "session.login_with_password "
			    "host.get_all_records member.register "
			    "session.logout ");
}

static void test_join_of_a_master(void **state)
{
	fails(JOIN("pool.join"),
	      "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS");
}

/* ---- what a guest says ---- */

static void guest_says(const char *vm, const char *text, bool may_shut_down)
{
	struct sim_host *h = &w.h[0];
	struct dom *d = dom_find(h, text_of(vm, F_VM_uuid));

	tell(h, value_struct_of(
			"type", S("guest"), "vm", S(d->vm), "domid",
			I(d->domid), "metrics",
			value_struct_of(
				"PV_drivers_version", value_map_empty(),
				"os_version", value_map_of("name", S(text), NULL),
				"netbios_name", value_map_empty(), "memory",
				value_map_empty(), "networks",
				value_map_empty(), "other",
				may_shut_down ?
					value_map_of("feature-shutdown", S("1"),
						     NULL) :
					value_map_empty(),
				"can_use_hotplug_vbd", S("unspecified"),
				"can_use_hotplug_vif", S("unspecified"),
				"PV_drivers_detected", B(true), NULL),
			NULL));
}

static const char *guest_said(const char *vm)
{
	const struct record *g = row(text_of(vm, F_VM_guest_metrics));

	return g ? value_get_str(g->fields[F_VM_guest_metrics_os_version],
				 "name") : "";
}

/* It may say what it likes as often as it likes: the row follows now and
 * then, and ends as the last that was said. */
static void test_guest_talks_much(void **state)
{
	char vm[REF_LEN + 1], text[16];
	unsigned writes = 0;

	make_vm(vm, "talks");
	start_on(vm, 0);
	guest_says(vm, "first", true);
	world_run();
	world_advance(1000);
	assert_string_equal(guest_said(vm), "first");
	for (unsigned i = 0; i < 120; i++) { /* a minute */
		char before[16];

		snprintf(before, sizeof before, "%s", guest_said(vm));
		snprintf(text, sizeof text, "%u", i);
		guest_says(vm, text, true);
		world_advance(500);
		writes += strcmp(before, guest_said(vm)) != 0;
	}
	assert_true(writes >= 5 && writes <= 13);
	world_advance(10000);
	assert_string_equal(guest_said(vm), "119");
}

static void test_guest_features(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "able");
	do_ok("VM.set_domain_type", S(vm), S("hvm"));
	start_on(vm, 0);
	assert_true(set_has(field_of(vm, F_VM_allowed_operations),
			    "clean_shutdown"));
	guest_says(vm, "dumb", false);
	world_run();
	world_advance(7000);
	assert_string_equal(guest_said(vm), "dumb");
	assert_false(set_has(field_of(vm, F_VM_allowed_operations),
			     "clean_shutdown"));
	guest_says(vm, "able", true);
	world_run();
	world_advance(7000);
	assert_true(set_has(field_of(vm, F_VM_allowed_operations),
			    "clean_shutdown"));
	assert_false(set_has(field_of(vm, F_VM_allowed_operations),
			     "suspend"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		two_test(test_affinity),
		two_test(test_memory_is_promised_once),
		two_test(test_started_at_once),
		two_test(test_one_vm_started_twice),
		two_test(test_disabled_hosts),
		two_test(test_migrate),
		two_test(test_migrate_shows),
		two_test(test_migrate_step_fails),
		two_test(test_migrate_cancelled),
		two_test(test_hard_shutdown_of_a_mover),
		two_test(test_evacuate),
		two_test(test_evacuate_fails),
		three_test(test_evacuation_survives),
		three_test(test_daemon_dies),
		three_test(test_daemon_dies_verb_done),
		three_test(test_executor_dies),
		three_test(test_executor_dies_verb_done),
		three_test(test_leader_changes),
		two_test(test_liveness),
		two_test(test_start_on_a_dying_host),
		two_test(test_declared_dead),
		two_test(test_power_state_reset),
		two_test(test_migration_loses_destination),
		two_test(test_migration_loses_activated),
		three_test(test_migration_loses_source),
		two_test(test_left_over_copy),
		two_test(test_cut_off_host_waits),
		three_test(test_members_follow_rows),
		one_test(test_register),
		one_test(test_join),
		two_test(test_join_of_a_master),
		one_test(test_guest_talks_much),
		one_test(test_guest_features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
