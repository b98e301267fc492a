/* Tasks, and the ways in which a request can go: Async, conflicts, waiting,
 * jobs, cancelling, lost majorities. The handlers are this test's own, put in
 * place of some of VM's. */
#include "tests/unit/pool_calls.h"

#define NETWORK (&schema_classes[CLASS_network])
#define TASK (&schema_classes[CLASS_task])

static char network[REF_LEN + 1];
static unsigned runs;
static char job_task[REF_LEN + 1];
static int64_t wait_limit_ms;

static void rename_in(struct txn *t, const char *name)
{
	txn_set(t, NETWORK, network, F_network_name_label, S(name));
}

/* VM.pause: one transaction that relies on the network's version. */
static void handler_commit(struct req *r)
{
	struct txn *t = req_txn(r);

	runs++;
	txn_guard_version(t, store_get(req_store(r), network));
	rename_in(t, "committed");
	req_commit(r, t, value_void());
}

/* VM.unpause: waits until the network is called "free". */
static void handler_wait(struct req *r)
{
	struct record *n = store_get(req_store(r), network);

	runs++;
	if (wait_limit_ms && r->runs == 1)
		r->deadline_ms = env_mono_ms() + wait_limit_ms;
	if (strcmp(record_str(n, F_network_name_label), "free"))
		req_wait(r, network, api_error("OTHER_OPERATION_IN_PROGRESS",
					       "network", network, NULL));
	else
		req_reply(r, NULL);
}

/* VM.snapshot: a job whose end the test makes. */
static void handler_job(struct req *r)
{
	struct txn *t = req_txn(r);

	runs++;
	snprintf(job_task, sizeof job_task, "%s", req_task(r, t));
	assert_string_equal(req_task(r, t), job_task);
	if (r->runs == 1)
		txn_guard_version(t, store_get(req_store(r), network));
	rename_in(t, "in job");
	req_start_job(r, t);
}

/* VM.clean_reboot: parks, and goes on 100 ms later. */
static void handler_park(struct req *r)
{
	if (r->runs == 1)
		req_again_after(r, 100);
	else
		req_fail(r, "VM_IS_PROTECTED", req_arg_str(r, 0), NULL);
}

static const struct handler_def own_handlers[] = {
	{ M_VM_pause, handler_commit },  { M_VM_unpause, handler_wait },
	{ M_VM_snapshot, handler_job },  { M_VM_clean_reboot, handler_park },
	{ -1, NULL },
};
const struct handler_def *const pool_handlers[] = {
	session_handlers, role_handlers, task_handlers, event_handlers,
	message_handlers, own_handlers, NULL,
};
const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module, &event_module, NULL,
};

static int begin(void **state)
{
	struct txn *t;

	world_begin(state);
	runs = 0;
	wait_limit_ms = 0;
	t = txn_new("test");
	row_create(t, CLASS_network, NULL, network);
	return apply(t).status == TXN_OK ? 0 : -1;
}

#define test(f) cmocka_unit_test_setup_teardown(f, begin, world_end)
#define VM_ARG S("OpaqueRef:vm")

static void rename_to(const char *name)
{
	struct txn *t = txn_new("test");

	rename_in(t, name);
	assert_int_equal(apply(t).status, TXN_OK);
}

static const char *status_of(const char *task)
{
	return value_str(field_of(task, F_task_status));
}

/* ---- Async ---- */

static void test_async_success(void **state)
{
	_value_ task = result_of("Async.VM.pause", VM_ARG, NULL);
	const char *ref = value_str(task);

	assert_string_equal(status_of(ref), "success");
	assert_true(value_is_str(field_of(ref, F_task_name_label),
				 "Async.VM.pause"));
	assert_true(value_is_str(field_of(ref, F_task_result),
				 "<value></value>"));
	assert_true(value_is_str(field_of(ref, F_task_type), "<none/>"));
	assert_true(value_is_str(field_of(ref, F_task_session), w.session));
	assert_true(value_is_str(field_of(ref, F_task_resident_on), w.host));
	assert_true(field_of(ref, F_task_progress)->d == 1);
	assert_int_equal(field_of(ref, F_task_allowed_operations)->n, 0);
	assert_int_equal(field_of(ref, F_task_finished)->i, 1700000000);
	/* Task, and the effect together with the task's end. */
	assert_int_equal(w.submits, 1 + 2); /* the login was one */
	assert_int_equal(req_count(w.pool), 0);
}

static void test_async_answers_before_it_works(void **state)
{
	_value_ task = NULL;
	struct reply r;

	call(&r, w.session, "Async.VM.unpause", VM_ARG, NULL);
	assert_non_null(r.result);
	task = r.result;
	assert_string_equal(status_of(value_str(task)), "pending");
	assert_int_equal(field_of(value_str(task),
				  F_task_allowed_operations)->n, 1);
	rename_to("free");
	world_run();
	assert_string_equal(status_of(value_str(task)), "success");
}

static void test_async_failure(void **state)
{
	_value_ task = result_of("Async.VM.clean_reboot", VM_ARG, NULL);
	const struct value *info;

	world_advance(100);
	assert_string_equal(status_of(value_str(task)), "failure");
	info = field_of(value_str(task), F_task_error_info);
	assert_int_equal(info->n, 2);
	assert_string_equal(value_str(info->items[0]), "VM_IS_PROTECTED");
	assert_true(field_of(value_str(task), F_task_progress)->d == 1);
}

static void test_async_task_cannot_be_written(void **state)
{
	struct reply r;

	w.submit_error = -ETIMEDOUT;
	call(&r, w.session, "Async.VM.pause", VM_ARG, NULL);
	expect_error(&r, "CANNOT_CONTACT_HOST", w.host, NULL);
	assert_int_equal(runs, 0);
}

/* Nobody answers while the effect is written: the task ends later, once. */
static void test_async_end_is_tried_again(void **state)
{
	_value_ task = result_of("Async.VM.clean_reboot", VM_ARG, NULL);

	w.submit_error = -ETIMEDOUT;
	world_advance(5000);
	assert_string_equal(status_of(value_str(task)), "pending");
	assert_int_equal(req_count(w.pool), 1);
	w.submit_error = 0;
	world_advance(30000);
	assert_string_equal(status_of(value_str(task)), "failure");
	assert_int_equal(req_count(w.pool), 0);
}

/* ---- conflicts ---- */

static void test_conflict_runs_again(void **state)
{
	struct reply r;

	w.hold = true;
	call_begin(&r, w.session, "VM.pause", VM_ARG, NULL);
	w.hold = false;
	/* The barrier alone, then somebody else is faster. */
	wish_fulfil(list_entry(w.wishes.next, struct wish, link));
	rename_to("other");
	wish_free(list_entry(w.wishes.next, struct wish, link));
	world_run();
	assert_int_equal(runs, 2);
	assert_non_null(r.result);
	assert_true(value_is_str(field_of(network, F_network_name_label),
				 "committed"));
	reply_clear(&r);
}

static void test_commit_without_majority(void **state)
{
	struct reply r;

	w.submit_error = -ETIMEDOUT;
	call(&r, w.session, "VM.pause", VM_ARG, NULL);
	expect_error(&r, "CANNOT_CONTACT_HOST", w.host, NULL);
	w.submit_error = -ENOSPC;
	call(&r, w.session, "VM.pause", VM_ARG, NULL);
	expect_error(&r, "OUT_OF_SPACE", NULL);
}

/* ---- waiting ---- */

static void test_wait_wakes_on_change(void **state)
{
	struct reply r;
	unsigned before;

	call(&r, w.session, "VM.unpause", VM_ARG, NULL);
	assert_null(r.result);
	before = runs;
	rename_to("busy");
	world_run();
	assert_int_equal(runs, before + 1);
	assert_null(r.result);
	world_advance(20000); /* looks by itself now and then */
	assert_int_equal(runs, before + 2);
	rename_to("free");
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
}

static void test_wait_ends_at_deadline(void **state)
{
	struct reply r;

	call(&r, w.session, "VM.unpause", VM_ARG, NULL);
	world_advance(7200 * 1000 - 1);
	assert_null(r.error);
	world_advance(1);
	expect_error(&r, "OTHER_OPERATION_IN_PROGRESS", "network", network,
		      NULL);
	wait_limit_ms = 3000;
	call(&r, w.session, "VM.unpause", VM_ARG, NULL);
	world_advance(3000);
	expect_error(&r, "OTHER_OPERATION_IN_PROGRESS", NULL);
}

static void test_waiting_is_cancelled(void **state)
{
	_value_ task = result_of("Async.VM.unpause", VM_ARG, NULL);
	const char *ref = value_str(task);

	value_unref(result_of("task.cancel", value_ref(task), NULL));
	assert_string_equal(status_of(ref), "cancelled");
	assert_string_equal(value_str(field_of(ref, F_task_error_info)->items[0]),
			    "TASK_CANCELLED");
	assert_string_equal(w.cancelled, ref);
	assert_int_equal(req_count(w.pool), 0);
}

/* Somebody sets the task's status while its effect is on its way: the effect
 * does not happen. */
static void test_ended_task_stops_the_effect(void **state)
{
	_value_ task = result_of("Async.VM.unpause", VM_ARG, NULL);
	struct txn *t = txn_new("test");

	txn_set(t, TASK, value_str(task), F_task_status, S("cancelled"));
	apply(t);
	rename_to("free");
	runs = 0;
	world_run();
	assert_int_equal(runs, 0);
	assert_int_equal(req_count(w.pool), 0);
}

/* ---- jobs ---- */

static void job_ends(struct value *result, struct value *error)
{
	struct txn *t = txn_new("test");

	if (error)
		task_fail(w.pool, t, job_task, error);
	else
		task_succeed(w.pool, t, job_task, result);
	assert_int_equal(apply(t).status, TXN_OK);
	world_run();
}

static void test_sync_job(void **state)
{
	struct reply r;

	call(&r, w.session, "VM.snapshot", VM_ARG, S("n"), NULL);
	assert_null(r.result);
	assert_true(value_is_str(field_of(job_task, F_task_name_label),
				 "VM.snapshot"));
	job_ends(S("OpaqueRef:made & <so>"), NULL);
	assert_non_null(r.result);
	assert_string_equal(value_str(r.result), "OpaqueRef:made & <so>");
	reply_clear(&r);
	/* The task goes with the call. */
	assert_null(store_get(w.store, job_task));
}

static void test_sync_job_fails(void **state)
{
	struct reply r;

	call(&r, w.session, "VM.snapshot", VM_ARG, S("n"), NULL);
	job_ends(NULL, api_error("VM_BAD_POWER_STATE", "a", "b", "c", NULL));
	expect_error(&r, "VM_BAD_POWER_STATE", "a", "b", "c", NULL);
	assert_null(store_get(w.store, job_task));
}

static void test_async_job(void **state)
{
	_value_ task = result_of("Async.VM.snapshot", VM_ARG, S("n"), NULL);

	assert_string_equal(value_str(task), job_task);
	assert_int_equal(req_count(w.pool), 0);
	job_ends(S("OpaqueRef:made"), NULL);
	assert_string_equal(status_of(job_task), "success");
	assert_true(value_is_str(field_of(job_task, F_task_result),
				 "<value>OpaqueRef:made</value>"));
	assert_non_null(store_get(w.store, job_task));
	/* Ended is ended. */
	job_ends(NULL, api_error("TASK_CANCELLED", job_task, NULL));
	assert_string_equal(status_of(job_task), "success");
}

static void test_job_starts_again_after_conflict(void **state)
{
	struct reply r;

	w.hold = true;
	call_begin(&r, w.session, "VM.snapshot", VM_ARG, S("n"), NULL);
	w.hold = false;
	wish_fulfil(list_entry(w.wishes.next, struct wish, link));
	rename_to("other");
	wish_free(list_entry(w.wishes.next, struct wish, link));
	world_run();
	assert_int_equal(runs, 2);
	assert_non_null(store_get(w.store, job_task));
	job_ends(S("x"), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
}

/* ---- task.* ---- */

static void test_task_create_and_set(void **state)
{
	_value_ task = result_of("task.create", S("label"), S("what for"), NULL);
	const char *ref = value_str(task);

	assert_string_equal(status_of(ref), "pending");
	value_unref(result_of("task.set_progress", value_ref(task),
			      value_float(0.5), NULL));
	assert_true(field_of(ref, F_task_progress)->d == 0.5);
	value_unref(result_of("task.set_result", value_ref(task), S("r"), NULL));
	value_unref(result_of("task.add_to_other_config", value_ref(task),
			      S("applies_to"), S("x"), NULL));
	value_unref(result_of("task.set_status", value_ref(task), S("success"),
			      NULL));
	assert_string_equal(status_of(ref), "success");
	assert_true(field_of(ref, F_task_finished)->i > 0);
	/* Only a pending task changes its state. */
	value_unref(result_of("task.set_status", value_ref(task), S("failure"),
			      NULL));
	assert_string_equal(status_of(ref), "success");
	value_unref(result_of("task.destroy", value_ref(task), NULL));
	assert_null(store_get(w.store, ref));
}

static void test_destroy_pending(void **state)
{
	_value_ task = result_of("task.create", S(""), S(""), NULL);
	const char *ref = value_str(task);

	value_unref(result_of("task.destroy", value_ref(task), NULL));
	assert_string_equal(value_get_str(field_of(ref,
		F_task_current_operations), "task"), "destroy");
	world_advance(31000);
	assert_non_null(store_get(w.store, ref));
	value_unref(result_of("task.set_status", value_ref(task), S("success"),
			      NULL));
	world_advance(31000);
	assert_null(store_get(w.store, ref));
}

static void test_other_users_tasks(void **state)
{
	const struct class_def *c = &schema_classes[CLASS_session];
	_value_ task = result_of("task.create", S(""), S(""), NULL);
	struct txn *t = txn_new("test");
	char bob[REF_LEN + 1];
	_value_ own = NULL;
	struct reply r;

	row_create(t, CLASS_session, NULL, bob);
	txn_set(t, c, bob, F_session_auth_user_sid, S("S-bob"));
	txn_set(t, c, bob, F_session_rbac_permissions,
		value_set_of("task.destroy", "task.cancel", "task.create",
			     NULL));
	apply(t);
	call(&r, bob, "task.destroy", value_ref(task), NULL);
	expect_error(&r, "RBAC_PERMISSION_DENIED", "task.destroy/any", NULL);
	call(&r, bob, "task.cancel", value_ref(task), NULL);
	expect_error(&r, "RBAC_PERMISSION_DENIED", "task.destroy/any", NULL);
	call(&r, bob, "task.create", S(""), S(""), NULL);
	own = r.result;
	call(&r, bob, "task.cancel", value_ref(own), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
}

/* ---- collection ---- */

static void test_old_tasks_go(void **state)
{
	_value_ ended = result_of("Async.VM.pause", VM_ARG, NULL);
	_value_ stuck = result_of("task.create", S(""), S(""), NULL);
	_value_ moving = result_of("task.create", S(""), S(""), NULL);

	world_advance(65 * 60 * 1000);
	assert_non_null(store_get(w.store, value_str(ended)));
	world_advance(60 * 1000);
	assert_null(store_get(w.store, value_str(ended)));
	w.wall_ms += 86400 * 1000LL;
	for (int i = 1; i <= 3; i++) {
		value_unref(result_of("task.set_progress", value_ref(moving),
				      value_float(i * 0.1), NULL));
		world_advance(30000);
	}
	assert_null(store_get(w.store, value_str(stuck)));
	assert_non_null(store_get(w.store, value_str(moving)));
}

static void test_surplus_tasks_go(void **state)
{
	_value_ first = result_of("Async.VM.pause", VM_ARG, NULL);

	for (int i = 0; i < 220; i++)
		value_unref(result_of("Async.VM.pause", VM_ARG, NULL));
	world_advance(31000);
	assert_int_equal(store_count(w.store, CLASS_task), 200);
	assert_null(store_get(w.store, value_str(first)));
}

/* The daemon dies: what it had only in memory fails, what a job row carries
 * and what clients made for themselves goes on. */
static void test_leftovers_of_a_dead_daemon(void **state)
{
	_value_ lost = result_of("Async.VM.unpause", VM_ARG, NULL);
	_value_ in_job = result_of("Async.VM.snapshot", VM_ARG, S("n"), NULL);
	_value_ clients = result_of("task.create", S(""), S(""), NULL);
	struct txn *t = txn_new("test");
	char job[REF_LEN + 1];
	const struct value *info;
	_value_ young = NULL;

	row_create(t, CLASS_job, NULL, job);
	txn_set(t, &schema_classes[CLASS_job], job, F_job_task,
		value_ref(in_job));
	apply(t);
	pool_stop();
	pool_start();
	w.barrier_error = -ETIMEDOUT;
	pool_leader(w.pool, 1, true);
	world_advance(5000);
	assert_string_equal(status_of(value_str(lost)), "pending");
	w.barrier_error = 0;
	young = result_of("Async.VM.unpause", VM_ARG, NULL);
	world_advance(5000);
	assert_string_equal(status_of(value_str(lost)), "failure");
	info = field_of(value_str(lost), F_task_error_info);
	assert_string_equal(value_str(info->items[1]),
			    "xenpoold restarted before the operation began");
	assert_string_equal(status_of(value_str(in_job)), "pending");
	assert_string_equal(status_of(value_str(clients)), "pending");
	assert_string_equal(status_of(value_str(young)), "pending");
}

static void test_reload_finds_ended_job(void **state)
{
	struct reply r;
	struct txn *t;

	call(&r, w.session, "VM.snapshot", VM_ARG, S("n"), NULL);
	store_set_observer(w.store, NULL, NULL);
	t = txn_new("test");
	task_succeed(w.pool, t, job_task, S("x"));
	apply(t);
	store_set_observer(w.store, on_changed, NULL);
	world_run();
	assert_null(r.result);
	pool_reloaded(w.pool);
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
}

/* Async calls hold no connection, so a limit of their own bounds them. */
static void test_async_calls_are_limited(void **state)
{
	struct reply r;

	for (int i = 0; i < 4096; i++)
		value_unref(result_of("Async.VM.unpause", VM_ARG, NULL));
	call(&r, w.session, "Async.VM.unpause", VM_ARG, NULL);
	expect_error(&r, "TOO_MANY_PENDING_TASKS", NULL);
	call(&r, w.session, "task.create", S(""), S(""), NULL);
	expect_error(&r, "TOO_MANY_PENDING_TASKS", NULL);
	rename_to("free");
	world_run();
	assert_int_equal(req_count(w.pool), 0);
	value_unref(result_of("Async.VM.unpause", VM_ARG, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_async_success),
		test(test_async_answers_before_it_works),
		test(test_async_failure),
		test(test_async_task_cannot_be_written),
		test(test_async_end_is_tried_again),
		test(test_conflict_runs_again),
		test(test_commit_without_majority),
		test(test_wait_wakes_on_change),
		test(test_wait_ends_at_deadline),
		test(test_waiting_is_cancelled),
		test(test_ended_task_stops_the_effect),
		test(test_sync_job),
		test(test_sync_job_fails),
		test(test_async_job),
		test(test_job_starts_again_after_conflict),
		test(test_task_create_and_set),
		test(test_destroy_pending),
		test(test_other_users_tasks),
		test(test_old_tasks_go),
		test(test_surplus_tasks_go),
		test(test_leftovers_of_a_dead_daemon),
		test(test_reload_finds_ended_job),
		test(test_async_calls_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
