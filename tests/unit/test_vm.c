/* VM operations against the rules, and a VM's life with its rows. */
#include "tests/unit/vm_world.h"

/* ---- the first rows ---- */

static void test_new_pool(void **state)
{
	struct record *pool = store_first(w.store, CLASS_pool);
	struct record *host = row(w.h[0].ref), *dom0, *sr;

	assert_int_equal(store_count(w.store, CLASS_pool), 1);
	assert_int_equal(store_count(w.store, CLASS_host), 1);
	assert_string_equal(record_str(pool, F_pool_name_label), "");
	assert_string_equal(record_str(pool, F_pool_master), w.h[0].ref);
	assert_string_equal(record_str(host, F_host_address), "10.0.0.1");
	assert_true(record_bool(host, F_host_enabled));
	assert_int_equal(host->fields[F_host_host_CPUs]->n, 4);
	assert_string_equal(value_get_str(host->fields[F_host_software_version],
					  "db_schema"), "5.909");
	dom0 = row(record_str(host, F_host_control_domain));
	assert_true(record_bool(dom0, F_VM_is_control_domain));
	assert_string_equal(record_str(dom0, F_VM_power_state), "Running");
	assert_int_equal(record_int(dom0, F_VM_domid), 0);
	assert_true(record_int(dom0, F_VM_memory_static_max) > 0);
	assert_int_equal(dom0->fields[F_VM_consoles]->n, 1);
	sr = row(record_str(pool, F_pool_default_SR));
	assert_string_equal(record_str(sr, F_SR_type), "dummy");
	assert_int_equal(sr->fields[F_SR_PBDs]->n, 1);
	assert_non_null(find_by_name(CLASS_VM, "Other install media"));
	assert_non_null(find_by_name(CLASS_network, "Pool-wide network "
				     "associated with xenbr0"));
	assert_int_equal(store_count(w.store, CLASS_member), 1);
	assert_int_equal(store_count(w.store, CLASS_credential), 1);
}

static void test_restart_changes_little(void **state)
{
	uint64_t before;

	world_advance(60000);
	before = store_generation(w.store);
	world_advance(60000);
	assert_int_equal(store_generation(w.store), before);
	daemon_stop(&w.h[0]);
	daemon_start(&w.h[0]);
	world_advance(10000);
	assert_int_equal(store_count(w.store, CLASS_pool), 1);
	assert_int_equal(store_count(w.store, CLASS_host), 1);
	assert_in_range(store_generation(w.store), before + 1, before + 5);
}

/* A pool that is older than a driver gets its row from the first master that
 * knows it, however many think that they are. */
static void test_missing_drivers(void **state)
{
	struct txn *t = txn_new("older version");

	assert_int_equal(store_count(w.store, CLASS_SM), 2);
	for (struct record *sm = store_first(w.store, CLASS_SM); sm;
	     sm = store_next(w.store, sm))
		if (value_is_str(sm->fields[F_SM_type], "file"))
			txn_destroy(t, value_str(sm->ref));
	assert_int_equal(store_apply(w.store, t).status, TXN_OK);
	txn_free(t);
	assert_int_equal(store_count(w.store, CLASS_SM), 1);
	pool_leader(w.h[1].pool, db_id_of_uuid(w.h[1].uuid), true);
	world_advance(3000);
	assert_int_equal(store_count(w.store, CLASS_SM), 2);
	assert_non_null(find_by_name(CLASS_SM, "Files"));
}

/* ---- the matrix ---- */

/* From the API's description, not from the code: H, P, R, S as allowed. */
static const struct {
	const char *op, *states, *expected;
} matrix[] = {
	{ "start", "H", "halted" },
	{ "start_on", "H", "halted" },
	{ "make_into_template", "H", "halted" },
	{ "changing_shadow_memory", "H", "halted" },
	{ "changing_NVRAM", "H", "halted" },
	{ "changing_VCPUs", "H", "halted" },
	{ "changing_static_range", "H", "halted" },
	{ "changing_memory_limits", "H", "halted" },
	{ "create_vtpm", "H", "halted" },
	{ "clean_shutdown", "R", "running" },
	{ "clean_reboot", "R", "running" },
	{ "pause", "R", "running" },
	{ "suspend", "R", "running" },
	{ "pool_migrate", "R", "running" },
	{ "changing_memory_live", "R", "running" },
	{ "changing_VCPUs_live", "R", "running" },
	{ "changing_shadow_memory_live", "R", "running" },
	{ "call_plugin", "R", "running" },
	{ "data_source_op", "R", "running" },
	{ "send_sysrq", "R", "running" },
	{ "sysprep", "R", "running" },
	{ "unpause", "P", "paused" },
	{ "resume", "S", "suspended" },
	{ "resume_on", "S", "suspended" },
	{ "csvm", "S", "suspended" },
	{ "hard_reboot", "PR", "paused, running" },
	{ "shutdown", "PRS", "paused, running, suspended" },
	{ "hard_shutdown", "PRS", "paused, running, suspended" },
	{ "checkpoint", "PRS", "paused, running, suspended" },
	{ "get_boot_record", "PRS", "paused, running, suspended" },
	{ "changing_dynamic_range", "HR", "halted, running" },
	{ "clone", "H", "halted" },
	{ "copy", "H", "halted" },
	{ "destroy", "HS", "halted, suspended" },
	{ "export", "HS", "halted, suspended" },
	{ "snapshot", "HPRS", "" },
	{ "metadata_export", "HPRS", "" },
};

static void check_state(const char *vm, char letter, const char *lower)
{
	const struct value *allowed = field_of(vm, F_VM_allowed_operations);
	static const char *const hidden[] = {
		"changing_VCPUs", "changing_memory_limits", "csvm", "shutdown",
		"changing_memory_live", "changing_shadow_memory_live",
		"call_plugin", "data_source_op", "send_sysrq", "get_boot_record",
	};

	for (size_t i = 0; i < ARRAY_LEN(matrix); i++) {
		const char *op = matrix[i].op;
		bool may = strchr(matrix[i].states, letter), listed = may;

		for (size_t k = 0; k < ARRAY_LEN(hidden); k++)
			if (!strcmp(hidden[k], op))
				listed = false;
		if (set_has(allowed, op) != listed)
			fail_msg("%s is %slisted while %s", op,
				 listed ? "not " : "", lower);
		if (may)
			do_ok("VM.assert_operation_valid", S(vm), S(op));
		else
			fails(("VM.assert_operation_valid", S(vm), S(op)),
			      "VM_BAD_POWER_STATE", vm, matrix[i].expected, lower);
	}
}

static void test_matrix(void **state)
{
	char vm[REF_LEN + 1];

	make_vm(vm, "matrix");
	check_state(vm, 'H', "halted");
	do_ok("VM.start", S(vm), B(true), B(false));
	check_state(vm, 'P', "paused");
	do_ok("VM.unpause", S(vm));
	check_state(vm, 'R', "running");
	do_ok("VM.suspend", S(vm));
	check_state(vm, 'S', "suspended");
	do_ok("VM.hard_shutdown", S(vm));
	check_state(vm, 'H', "halted");
}

static void test_other_rules(void **state)
{
	const char *t = value_str(find_by_name(CLASS_VM, "Linux (PVH)")->ref);
	const char *dom0 = text_of(w.h[0].ref, F_host_control_domain);
	char vm[REF_LEN + 1];

	make_vm(vm, "ruled");
	fails(("VM.start", S(t), B(false), B(false)), "VM_IS_TEMPLATE", t,
	      "start");
	fails(("VM.destroy", S(t)), "VM_CANNOT_DELETE_DEFAULT_TEMPLATE");
	fails(("VM.provision", S(vm)), "PROVISION_ONLY_ALLOWED_ON_TEMPLATE");
	fails(("VM.assert_operation_valid", S(vm), S("revert")),
	      "REVERT_ONLY_ALLOWED_ON_SNAPSHOT");
	fails(("VM.assert_operation_valid", S(vm), S("snapshot_with_quiesce")),
	      "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", vm);
	fails(("VM.clean_shutdown", S(dom0)), "OPERATION_NOT_ALLOWED",
	      "This operation is not allowed on a control domain");
	fails(("VM.power_state_reset", S(dom0)), "CANNOT_RESET_CONTROL_DOMAIN",
	      dom0);
	do_ok("VM.add_to_blocked_operations", S(vm), S("start"), S("not now"));
	assert_false(set_has(field_of(vm, F_VM_allowed_operations), "start"));
	fails(("VM.start", S(vm), B(false), B(false)), "OPERATION_BLOCKED", vm,
	      "not now");
	do_ok("VM.remove_from_blocked_operations", S(vm), S("start"));
	do_ok("VM.add_to_platform", S(vm), S("nested-virt"), S("true"));
	do_ok("VM.start", S(vm), B(false), B(false));
	fails(("VM.suspend", S(vm)), "VM_IS_IMMOBILE", vm);
	fails(("VM.set_is_a_template", S(vm), B(true)), "VM_BAD_POWER_STATE",
	      vm,
	      "halted", "running");
	do_ok("VM.hard_shutdown", S(vm));
	do_ok("VM.set_is_a_template", S(vm), B(true));
	assert_text(vm, F_VM_metrics, REF_NULL);
	do_ok("VM.set_is_a_template", S(vm), B(false));
	assert_non_null(store_get(w.store, text_of(vm, F_VM_metrics)));
}

/* ---- life ---- */

static void assert_quiet(const char *vm)
{
	assert_int_equal(field_of(vm, F_VM_current_operations)->n, 0);
	assert_text(vm, F_VM_scheduled_to_be_resident_on, REF_NULL);
	assert_int_equal(store_count(w.store, CLASS_job), 0);
	assert_int_equal(store_count(w.store, CLASS_task), 0);
	for (int i = 0; i < w.n; i++)
		assert_int_equal(field_of(w.h[i].ref,
					  F_host_current_operations)->n, 0);
}

static void test_life(void **state)
{
	char vm[REF_LEN + 1], metrics[REF_LEN + 1];
	int64_t domid;

	make_vm(vm, "life");
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_state(vm, "Running");
	assert_text(vm, F_VM_resident_on, w.h[0].ref);
	domid = record_int(row(vm), F_VM_domid);
	assert_true(domid > 0);
	strcpy(metrics, text_of(vm, F_VM_metrics));
	assert_text(metrics, F_VM_metrics_current_domain_type, "pvh");
	assert_int_equal(record_int(row(metrics), F_VM_metrics_memory_actual),
			 512 * MIB);
	assert_int_equal(field_of(vm, F_VM_consoles)->n, 1);
	assert_quiet(vm);
	do_ok("VM.pause", S(vm));
	assert_state(vm, "Paused");
	assert_int_equal(dom_at(&w.h[0], vm), PAUSED);
	do_ok("VM.unpause", S(vm));
	do_ok("VM.clean_reboot", S(vm));
	assert_true(record_int(row(vm), F_VM_domid) > domid);
	do_ok("VM.hard_reboot", S(vm));
	do_ok("VM.clean_shutdown", S(vm));
	assert_state(vm, "Halted");
	assert_text(vm, F_VM_resident_on, REF_NULL);
	assert_int_equal(record_int(row(vm), F_VM_domid), -1);
	assert_int_equal(field_of(vm, F_VM_consoles)->n, 0);
	assert_true(*value_get_str(field_of(vm, F_VM_other_config),
				   "last_shutdown_time"));
	assert_quiet(vm);
	assert_true(messages_named("VM_STARTED") && messages_named("VM_SHUTDOWN") &&
		    messages_named("VM_REBOOTED") && messages_named("VM_PAUSED"));
	do_ok("VM.destroy", S(vm));
	assert_null(store_get(w.store, vm));
	assert_null(store_get(w.store, metrics));
}

static void test_suspend(void **state)
{
	char vm[REF_LEN + 1], vdi[REF_LEN + 1];

	make_vm(vm, "sleeper");
	do_ok("VM.start", S(vm), B(false), B(false));
	do_ok("VM.suspend", S(vm));
	assert_state(vm, "Suspended");
	assert_text(vm, F_VM_resident_on, REF_NULL);
	strcpy(vdi, text_of(vm, F_VM_suspend_VDI));
	assert_text(vdi, F_VDI_type, "suspend");
	do_ok("VM.resume", S(vm), B(true), B(false));
	assert_state(vm, "Paused");
	assert_null(store_get(w.store, vdi));
	assert_text(vm, F_VM_suspend_VDI, REF_NULL);
	assert_quiet(vm);
	do_ok("VM.unpause", S(vm));
	do_ok("VM.suspend", S(vm));
	do_ok("VM.hard_shutdown", S(vm));
	assert_state(vm, "Halted");
	assert_text(vm, F_VM_suspend_VDI, REF_NULL);
	assert_quiet(vm);
}

static void test_failures(void **state)
{
	static const struct {
		const char *verb, *call, *state_after;
	} cases[] = {
		{ "pause", "VM.pause", "Running" },
		{ "clean_shutdown", "VM.clean_shutdown", "Running" },
		{ "hard_shutdown", "VM.hard_shutdown", "Running" },
		{ "clean_reboot", "VM.clean_reboot", "Running" },
		{ "suspend", "VM.suspend", "Running" },
	};
	char vm[REF_LEN + 1];

	make_vm(vm, "unlucky");
	w.fail = "start";
	fails(("VM.start", S(vm), B(false), B(false)), "INTERNAL_ERROR",
	      "simulated failure");
	assert_state(vm, "Halted");
	assert_quiet(vm);
	w.fail = NULL;
	do_ok("VM.start", S(vm), B(false), B(false));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		w.fail = cases[i].verb;
		fails((cases[i].call, S(vm)), "INTERNAL_ERROR",
		      "simulated failure");
		assert_state(vm, cases[i].state_after);
		assert_quiet(vm);
	}
	w.fail = "clean_shutdown";
	do_ok("VM.shutdown", S(vm)); /* falls back to a hard one */
	assert_state(vm, "Halted");
	assert_quiet(vm);
}

static void test_start_delay(void **state)
{
	char vm[REF_LEN + 1];
	struct reply reply;

	make_vm(vm, "slow");
	do_ok("VM.set_start_delay", S(vm), I(7));
	fails(("VM.set_start_delay", S(vm), I(-1)), "INVALID_VALUE",
	      "start_delay must be non-negative", "-1");
	call_at(&w.h[0], &reply, "VM.start", S(vm), B(false), B(false), NULL);
	assert_state(vm, "Running");
	world_advance(5000);
	assert_null(reply.result);
	world_advance(4000);
	assert_non_null(reply.result);
	reply_clear(&reply);
	assert_quiet(vm);
}

/* ---- one after the other ---- */

static void test_queue(void **state)
{
	char vm[REF_LEN + 1];
	struct reply first, second;

	make_vm(vm, "busy");
	w.hold = "start";
	call_at(&w.h[0], &first, "VM.start", S(vm), B(false), B(false), NULL);
	call_at(&w.h[0], &second, "VM.start", S(vm), B(false), B(false), NULL);
	assert_int_equal(field_of(vm, F_VM_current_operations)->n, 1);
	assert_int_equal(field_of(vm, F_VM_allowed_operations)->n, 0);
	assert_text(vm, F_VM_scheduled_to_be_resident_on, w.h[0].ref);
	assert_null(first.result);
	release_held();
	world_run();
	assert_non_null(first.result);
	reply_clear(&first);
	expect_error(&second, "VM_BAD_POWER_STATE", vm, "halted", "running",
		     NULL);
	assert_quiet(vm);
}

static void test_hard_shutdown_cancels(void **state)
{
	char vm[REF_LEN + 1];
	struct reply clean, hard;

	make_vm(vm, "deaf");
	do_ok("VM.start", S(vm), B(false), B(false));
	w.hold = "clean_shutdown";
	call_at(&w.h[0], &clean, "VM.clean_shutdown", S(vm), NULL);
	assert_non_null(w.held);
	fails(("VM.assert_operation_valid", S(vm), S("pause")),
	      "OTHER_OPERATION_IN_PROGRESS", "VM", vm, "clean_shutdown");
	call_at(&w.h[0], &hard, "VM.hard_shutdown", S(vm), NULL);
	assert_non_null(hard.result);
	reply_clear(&hard);
	expect_error(&clean, "TASK_CANCELLED", NULL);
	assert_state(vm, "Halted");
	assert_quiet(vm);
}

static void test_cancel(void **state)
{
	char vm[REF_LEN + 1];
	struct value *task;
	struct reply reply;

	make_vm(vm, "stopped");
	w.hold = "start";
	call_at(&w.h[0], &reply, "Async.VM.start", S(vm), B(false), B(false),
		NULL);
	task = TAKE_PTR(reply.result);
	assert_non_null(task);
	do_ok("task.cancel", value_ref(task));
	assert_text(value_str(task), F_task_status, "cancelled");
	assert_state(vm, "Halted");
	assert_int_equal(store_count(w.store, CLASS_job), 0);
	value_unref(task);
}

/* ---- guests on their own ---- */

static void tell_event(const char *vm, int64_t domid, const char *event)
{
	tell(&w.h[0], value_struct_of("type", S("domain"), "vm",
				      S(text_of(vm, F_VM_uuid)), "domid",
				      I(domid), "event", S(event), NULL));
	world_run();
}

static void guest_does(const char *vm, const char *event)
{
	struct dom *d = dom_find(&w.h[0], text_of(vm, F_VM_uuid));

	d->state = strcmp(event, "gone") ? SHUT : GONE;
	d->reason = event;
	tell_event(vm, d->domid, event);
}

static void test_guest_events(void **state)
{
	char vm[REF_LEN + 1];
	int64_t domid;

	make_vm(vm, "guest");
	do_ok("VM.start", S(vm), B(false), B(false));
	domid = record_int(row(vm), F_VM_domid);
	guest_does(vm, "reboot");
	assert_state(vm, "Running");
	assert_true(record_int(row(vm), F_VM_domid) > domid);
	guest_does(vm, "shutdown");
	assert_state(vm, "Halted");
	assert_int_equal(dom_at(&w.h[0], vm), GONE);
	do_ok("VM.set_actions_after_crash", S(vm), S("preserve"));
	do_ok("VM.start", S(vm), B(false), B(false));
	guest_does(vm, "crash");
	assert_true(messages_named("VM_CRASHED"));
	assert_state(vm, "Paused");
	world_advance(20000);
	assert_state(vm, "Paused");
	do_ok("VM.hard_shutdown", S(vm));
	do_ok("VM.start", S(vm), B(false), B(false));
	guest_does(vm, "gone");
	assert_state(vm, "Halted");
	assert_quiet(vm);
}

/* Of the domain before a reboot, heard when the next one runs. */
static void test_late_events(void **state)
{
	static const char *const events[] = { "shutdown", "reboot", "crash",
					      "gone" };
	char vm[REF_LEN + 1];
	int64_t old, domid;

	make_vm(vm, "late");
	do_ok("VM.start", S(vm), B(false), B(false));
	old = record_int(row(vm), F_VM_domid);
	do_ok("VM.hard_reboot", S(vm));
	domid = record_int(row(vm), F_VM_domid);
	assert_int_not_equal(domid, old);
	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		tell_event(vm, old, events[i]);
		world_advance(10000);
		assert_state(vm, "Running");
		assert_int_equal(record_int(row(vm), F_VM_domid), domid);
	}
	assert_int_equal(messages_named("VM_CRASHED"), 0);
	/* A row that has the domid wrong: what happened is not lost. */
	dom_find(&w.h[0], text_of(vm, F_VM_uuid))->domid = 77;
	guest_does(vm, "shutdown");
	world_advance(10000);
	assert_state(vm, "Halted");
	assert_quiet(vm);
}

/* A guest that reboots or crashes as soon as it runs. */
static void test_restart_gap(void **state)
{
	char vm[REF_LEN + 1];
	int64_t domid;

	w.h[0].pool->cfg.restart_gap_s = 15;
	make_vm(vm, "loop");
	do_ok("VM.start", S(vm), B(false), B(false));
	domid = record_int(row(vm), F_VM_domid);
	for (int s = 0; s < 60; s++) {
		if (dom_at(&w.h[0], vm) == RUNNING)
			guest_does(vm, s % 2 ? "reboot" : "crash");
		world_advance(1000);
	}
	assert_int_equal(record_int(row(vm), F_VM_domid), domid + 4);
	guest_does(vm, "reboot");
	/* While it waits it can be had down. */
	assert_int_equal(dom_at(&w.h[0], vm), SHUT);
	assert_int_equal(row(vm)->fields[F_VM_current_operations]->n, 1);
	do_ok("VM.hard_shutdown", S(vm));
	assert_state(vm, "Halted");
	assert_quiet(vm);
	/* After a long life it does not wait. */
	do_ok("VM.start", S(vm), B(false), B(false));
	domid = record_int(row(vm), F_VM_domid);
	world_advance(15000);
	guest_does(vm, "reboot");
	assert_int_equal(record_int(row(vm), F_VM_domid), domid + 1);
	assert_quiet(vm);
}

/* A missed event, or a domain that vanished while nobody looked. */
static void test_state_repairs(void **state)
{
	char vm[REF_LEN + 1];
	struct dom *d;

	make_vm(vm, "missed");
	do_ok("VM.start", S(vm), B(false), B(false));
	d = dom_find(&w.h[0], text_of(vm, F_VM_uuid));
	d->state = PAUSED; /* the store says Running */
	world_advance(10000);
	assert_int_equal(d->state, RUNNING);
	d->domid = 77;
	world_advance(10000);
	assert_int_equal(record_int(row(vm), F_VM_domid), 77);
	d->state = SHUT;
	d->reason = "reboot";
	world_advance(10000);
	assert_state(vm, "Running");
	assert_int_equal(d->state, RUNNING);
	d->state = GONE;
	world_advance(10000);
	assert_state(vm, "Halted");
	d->state = RUNNING;
	world_advance(10000);
	assert_state(vm, "Running"); /* taken in again */
	assert_text(vm, F_VM_resident_on, w.h[0].ref);
}

/* ---- copies ---- */

static void add_network_card(const char *vm, const char *device,
			     const char *mac, struct reply *reply)
{
	struct record *net = store_first(w.store, CLASS_network);

	call_at(&w.h[0], reply, "VIF.create",
		value_struct_of("device", S(device), "network",
				value_ref(net->ref), "VM", S(vm), "MAC", S(mac),
				"MTU", I(1500), "other_config",
				value_map_empty(), "qos_algorithm_type", S(""),
				"qos_algorithm_params", value_map_empty(), NULL),
		NULL);
}

static void test_card_mtu(void **state)
{
	struct record *net = store_first(w.store, CLASS_network);
	char vm[REF_LEN + 1], vif[REF_LEN + 1];
	struct reply reply;

	make_vm(vm, "jumbo");
	do_ok("network.set_MTU", value_ref(net->ref), I(9000));
	add_network_card(vm, "0", "", &reply);
	strcpy(vif, value_str(reply.result));
	reply_clear(&reply);
	assert_int_equal(record_int(row(vif), F_VIF_MTU), 1500);
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_int_equal(record_int(row(vif), F_VIF_MTU), 9000);
	/* It keeps what it has until it is plugged anew. */
	do_ok("VIF.add_to_other_config", S(vif), S("mtu"), S("1300"));
	assert_int_equal(record_int(row(vif), F_VIF_MTU), 9000);
	do_ok("VIF.unplug", S(vif));
	do_ok("VIF.plug", S(vif));
	assert_int_equal(record_int(row(vif), F_VIF_MTU), 1300);
}

static void test_clone(void **state)
{
	char vm[REF_LEN + 1], copy[REF_LEN + 1];
	struct reply reply;
	struct value *v;

	make_vm(vm, "original");
	add_network_card(vm, "0", "", &reply);
	assert_non_null(reply.result);
	reply_clear(&reply);
	do_ok("VM.set_order", S(vm), I(3));
	do_ok("VM.add_tags", S(vm), S("blue"));
	v = ok("VM.clone", S(vm), S("copy"));
	strcpy(copy, value_str(v));
	value_unref(v);
	assert_text(copy, F_VM_name_label, "copy");
	assert_string_not_equal(text_of(copy, F_VM_uuid), text_of(vm,
								  F_VM_uuid));
	assert_int_equal(record_int(row(copy), F_VM_order), 0);
	assert_true(set_has(field_of(copy, F_VM_tags), "blue"));
	assert_string_equal(value_get_str(field_of(copy, F_VM_other_config),
					  "base_template_name"), "original");
	assert_null(value_get(field_of(copy, F_VM_other_config),
			      "default_template"));
	assert_int_equal(field_of(copy, F_VM_VIFs)->n, 1);
	assert_string_not_equal(
		text_of(value_str(field_of(copy, F_VM_VIFs)->items[0]),
			F_VIF_MAC),
		text_of(value_str(field_of(vm, F_VM_VIFs)->items[0]),
			F_VIF_MAC));
	do_ok("VM.start", S(copy), B(false), B(false));
	v = field_of(copy, F_VM_VIFs);
	assert_true(record_bool(row(value_str(v->items[0])),
				F_VIF_currently_attached));
	fails(("VIF.destroy", value_ref(v->items[0])), "OPERATION_NOT_ALLOWED",
	      "VIF is currently attached");
}

static void test_vif_errors(void **state)
{
	char vm[REF_LEN + 1];
	struct reply reply;

	make_vm(vm, "cards");
	add_network_card(vm, "1", "02:00:00:00:00:01", &reply);
	assert_non_null(reply.result);
	reply_clear(&reply);
	add_network_card(vm, "1", "", &reply);
	expect_error(&reply, "DEVICE_ALREADY_EXISTS", "1", NULL);
	add_network_card(vm, "x", "", &reply);
	expect_error(&reply, "INVALID_DEVICE", "x", NULL);
	add_network_card(vm, "2", "02:00", &reply);
	expect_error(&reply, "MAC_INVALID", "02:00", NULL);
	do_ok("VM.remove_from_other_config", S(vm), S("mac_seed"));
	add_network_card(vm, "2", "", &reply);
	expect_error(&reply, "MAC_INVALID", "", NULL);
}

static void add_disk(const char *vm, const char *device, const char *type,
		     const char *mode, bool empty, struct reply *reply)
{
	call_at(&w.h[0], reply, "VBD.create",
		value_struct_of("VM", S(vm), "VDI", S(REF_NULL), "userdevice",
				S(device), "bootable", B(false), "mode",
				S(mode), "type", S(type), "empty", B(empty),
				"other_config", value_map_empty(),
				"qos_algorithm_type", S(""),
				"qos_algorithm_params", value_map_empty(), NULL),
		NULL);
}

static void test_vbd_errors(void **state)
{
	char vm[REF_LEN + 1], vbd[REF_LEN + 1];
	struct reply reply;
	struct value *v;

	make_vm(vm, "disks");
	add_disk(vm, "0", "CD", "RW", true, &reply);
	expect_error(&reply, "VBD_CDS_MUST_BE_READONLY", NULL);
	add_disk(vm, "0", "Disk", "RW", true, &reply);
	expect_error(&reply, "VBD_NOT_REMOVABLE_MEDIA", "in constructor", NULL);
	add_disk(vm, "0", "Disk", "RW", false, &reply);
	expect_error(&reply, "HANDLE_INVALID", "VDI", REF_NULL, NULL);
	add_disk(vm, "hda", "CD", "RO", true, &reply);
	assert_non_null(reply.result);
	strcpy(vbd, value_str(reply.result));
	reply_clear(&reply);
	add_disk(vm, "0", "CD", "RO", true, &reply);
	expect_error(&reply, "DEVICE_ALREADY_EXISTS", "0", NULL);
	add_disk(vm, "quux", "CD", "RO", true, &reply);
	expect_error(&reply, "INVALID_DEVICE", "quux", NULL);
	add_disk(vm, "autodetect", "CD", "RO", true, &reply);
	assert_text(value_str(reply.result), F_VBD_userdevice, "1");
	reply_clear(&reply);
	v = ok("VM.get_allowed_VBD_devices", S(vm));
	assert_true(set_has(v, "2") && !set_has(v, "1"));
	value_unref(v);
	fails(("VBD.eject", S(vbd)), "VBD_IS_EMPTY", vbd);
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_true(record_bool(row(vbd), F_VBD_currently_attached));
	assert_text(vbd, F_VBD_device, "xvda");
	fails(("VBD.destroy", S(vbd)), "OPERATION_NOT_ALLOWED",
	      "VBD is currently attached");
	do_ok("VM.hard_shutdown", S(vm));
	assert_false(record_bool(row(vbd), F_VBD_currently_attached));
	do_ok("VBD.destroy", S(vbd));
}

/* ---- numbers ---- */

static void test_memory_limits(void **state)
{
	char vm[REF_LEN + 1];
	struct value *v;

	make_vm(vm, "sized");
	fails(("VM.set_memory_limits", S(vm), I(MIB), I(4 * MIB), I(5 * MIB),
	       I(5 * MIB)), "MEMORY_CONSTRAINT_VIOLATION_ORDER");
	fails(("VM.set_memory_static_max", S(vm), I(MIB)),
	      "MEMORY_CONSTRAINT_VIOLATION_ORDER");
	do_ok("VM.set_memory", S(vm), I(256 * MIB));
	assert_int_equal(record_int(row(vm), F_VM_memory_dynamic_min),
			 256 * MIB);
	fails(("VM.set_VCPUs_max", S(vm), I(0)), "INVALID_VALUE");
	fails(("VM.set_VCPUs_at_startup", S(vm), I(2)), "INVALID_VALUE");
	do_ok("VM.set_VCPUs_max", S(vm), I(4));
	do_ok("VM.set_VCPUs_at_startup", S(vm), I(2));
	/* internal 1 + external 1 + shadow of (256 x 4 + 2 x 256) pages = 6 +
	 * 38 x 4 pages = 1 MiB */
	v = ok("VM.compute_memory_overhead", S(vm));
	assert_int_equal(v->i, 9 * MIB);
	value_unref(v);
	v = ok("VM.maximise_memory", S(vm), I(100 * MIB), B(false));
	assert_in_range(v->i, 85 * MIB, 95 * MIB);
	value_unref(v);
	do_ok("VM.start", S(vm), B(false), B(false));
	fails(("VM.set_memory", S(vm), I(MIB)), "VM_BAD_POWER_STATE", vm,
	      "halted", "running");
	do_ok("VM.set_memory_dynamic_range", S(vm), I(256 * MIB), I(256 * MIB));
}

static void test_create(void **state)
{
	struct value *v;

	fails(("VM.create", value_struct_of("power_state", S("Running"), NULL)),
	      "VM_BAD_POWER_STATE");
	v = ok("VM.create",
	       value_struct_of("name_label", S("made"), "memory_static_max",
			       I(64 * MIB), "domain_type", S("hvm"),
			       "blocked_operations",
			       value_map_of("start", S("x"), NULL), NULL));
	assert_text(value_str(v), F_VM_HVM_boot_policy, "BIOS order");
	assert_state(value_str(v), "Halted");
	assert_int_equal(field_of(value_str(v), F_VM_blocked_operations)->n, 0);
	assert_true(*value_get_str(field_of(value_str(v), F_VM_other_config),
				   "mac_seed"));
	assert_int_equal(record_int(row(value_str(v)), F_VM_domid), -1);
	do_ok("VM.set_domain_type", value_ref(v), S("pv"));
	assert_text(value_str(v), F_VM_HVM_boot_policy, "");
	fails(("VM.start", value_ref(v), B(false), B(false)),
	      "NO_HOSTS_AVAILABLE"); /* without a single VCPU */
	fails(("VM.assert_can_boot_here", value_ref(v), S(w.h[0].ref)),
	      "INVALID_VALUE", "VCPUs_max", "0");
	value_unref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		one_test(test_new_pool),
		one_test(test_restart_changes_little),
		two_test(test_missing_drivers),
		one_test(test_matrix),
		one_test(test_other_rules),
		one_test(test_life),
		one_test(test_suspend),
		one_test(test_failures),
		one_test(test_start_delay),
		one_test(test_queue),
		one_test(test_hard_shutdown_cancels),
		one_test(test_cancel),
		one_test(test_guest_events),
		one_test(test_late_events),
		one_test(test_restart_gap),
		one_test(test_state_repairs),
		one_test(test_card_mtu),
		one_test(test_clone),
		one_test(test_vif_errors),
		one_test(test_vbd_errors),
		one_test(test_memory_limits),
		one_test(test_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
