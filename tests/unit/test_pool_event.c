/* What event.from, event.next and event.inject tell, and when. */
#include "tests/unit/pool_calls.h"

const struct handler_def *const pool_handlers[] = {
	session_handlers, role_handlers, task_handlers, event_handlers,
	message_handlers, NULL,
};
const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module, &event_module, NULL,
};

#define NETWORK (&schema_classes[CLASS_network])

static void network_new(char ref[REF_LEN + 1])
{
	struct txn *t = txn_new("test");

	row_create(t, CLASS_network, NULL, ref);
	assert_int_equal(apply(t).status, TXN_OK);
}

static void network_rename(const char *ref, const char *name)
{
	struct txn *t = txn_new("test");

	txn_set(t, NETWORK, ref, F_network_name_label, S(name));
	assert_int_equal(apply(t).status, TXN_OK);
}

static void row_drop(const char *ref)
{
	struct txn *t = txn_new("test");

	txn_destroy(t, ref);
	assert_int_equal(apply(t).status, TXN_OK);
}

static const char *token_of(const struct value *batch)
{
	return value_get_str(batch, "token");
}

static struct value *from(struct value *classes, const char *token,
			  double timeout)
{
	return result_of("event.from", classes, S(token), value_float(timeout),
			 NULL);
}

/* A token for now. */
static char *token_now(void)
{
	_value_ batch = from(value_set_empty(), "", 0);

	return xstrdup(token_of(batch));
}

/* The only event of the batch about ref: "add", "mod", "del", or "none". */
static const char *op_of(const struct value *batch, const char *ref)
{
	const struct value *events = value_get(batch, "events");
	const char *op = "none";

	for (unsigned i = 0; i < events->n; i++) {
		if (strcmp(value_get_str(events->items[i], "ref"), ref))
			continue;
		assert_string_equal(op, "none");
		op = value_get_str(events->items[i], "operation");
	}
	return op;
}

static struct value *snapshot_of(const struct value *batch, const char *ref)
{
	const struct value *events = value_get(batch, "events");

	for (unsigned i = 0; i < events->n; i++)
		if (!strcmp(value_get_str(events->items[i], "ref"), ref))
			return value_get(events->items[i], "snapshot");
	return NULL;
}

/* Each row of the table of histories: what a client that comes with the token
 * of the beginning is told. */
static void test_histories(void **state)
{
	char modified[REF_LEN + 1], deleted[REF_LEN + 1], created[REF_LEN + 1];
	char fleeting[REF_LEN + 1], same[REF_LEN + 1];
	_cleanup_(freep) char *token = NULL;
	_value_ batch = NULL, *all = NULL;
	struct value *snapshot;

	network_new(modified);
	network_new(deleted);
	network_new(same);
	token = token_now();
	network_rename(modified, "a");
	network_rename(modified, "b");
	network_rename(deleted, "c");
	row_drop(deleted);
	network_new(created);
	network_rename(created, "d");
	network_new(fleeting);
	row_drop(fleeting);
	network_rename(same, ""); /* as it was */
	batch = from(value_set_of("Network", NULL), token, 0);
	assert_int_equal(value_get(batch, "events")->n, 3);
	assert_string_equal(op_of(batch, created), "add");
	assert_string_equal(op_of(batch, modified), "mod");
	assert_string_equal(op_of(batch, deleted), "del");
	assert_string_equal(op_of(batch, fleeting), "none");
	assert_null(snapshot_of(batch, deleted));
	snapshot = snapshot_of(batch, modified);
	assert_int_equal(snapshot->kind, VALUE_RECORD);
	assert_string_equal(record_str(snapshot->record, F_network_name_label),
			    "b");
	assert_string_equal(record_str(snapshot_of(batch, created)->record,
				       F_network_name_label), "d");
	all = from(value_set_of("*", NULL), "", 0);
	assert_string_equal(op_of(all, modified), "add");
	assert_string_equal(op_of(all, w.host), "add");
	assert_string_equal(op_of(all, deleted), "none");
}

static void test_record_form(void **state)
{
	char ref[REF_LEN + 1];
	_value_ batch = NULL;
	struct value *e;
	static const char *const members[] = { "id", "timestamp", "class",
					       "operation", "ref", "snapshot" };

	network_new(ref);
	batch = from(value_set_of("network", NULL), "", 0);
	e = value_get(batch, "events")->items[0];
	assert_int_equal(e->n, 6);
	for (unsigned i = 0; i < 6; i++)
		assert_string_equal(value_str(e->items[2 * i]), members[i]);
	assert_string_equal(value_get_str(e, "timestamp"), "0.0");
	assert_string_equal(value_get_str(e, "class"), "network");
	assert_int_equal(strtoull(value_get_str(e, "id"), NULL, 10),
			 store_get(w.store, ref)->modified);
	assert_int_equal(strlen(token_of(batch)), 41);
	assert_int_equal(token_of(batch)[20], ',');
}

static void test_messages_come_first(void **state)
{
	_cleanup_(freep) char *token = token_now();
	char ref[REF_LEN + 1];
	_value_ batch = NULL, *message = NULL, *gone = NULL;
	const struct value *events;

	network_new(ref);
	message = result_of("message.create", S("X"), value_int(3), S("Host"),
			    S(w.pool->cfg.host_uuid), S("body"), NULL);
	batch = from(value_set_of("*", NULL), token, 0);
	events = value_get(batch, "events");
	assert_string_equal(value_get_str(events->items[0], "class"), "message");
	assert_string_equal(value_get_str(events->items[0], "id"), "0");
	assert_string_equal(op_of(batch, ref), "add");
	value_unref(result_of("message.destroy", value_ref(message), NULL));
	gone = from(value_set_of("message", NULL), token_of(batch), 0);
	assert_string_equal(op_of(gone, value_str(message)), "del");
}

static void test_order_of_operations(void **state)
{
	char modified[REF_LEN + 1], deleted[REF_LEN + 1], created[REF_LEN + 1];
	_cleanup_(freep) char *token = NULL;
	static const char *const order[] = { "add", "mod", "del" };
	const struct value *events;
	_value_ batch = NULL;

	network_new(modified);
	network_new(deleted);
	token = token_now();
	row_drop(deleted);
	network_rename(modified, "x");
	network_new(created);
	batch = from(value_set_of("*", NULL), token, 0);
	events = value_get(batch, "events");
	assert_int_equal(events->n, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(value_get_str(events->items[i], "operation"),
				    order[i]);
}

static void test_ref_counts(void **state)
{
	char ref[REF_LEN + 1];
	_value_ batch = NULL;
	const struct value *counts;

	network_new(ref);
	batch = from(value_set_empty(), "", 0);
	counts = value_get(batch, "valid_ref_counts");
	assert_int_equal(value_get(counts, "network")->i, 1);
	assert_int_equal(value_get(counts, "network")->kind, VALUE_COUNT);
	assert_int_equal(value_get(counts, "session")->i, 1);
	assert_int_equal(value_get(counts, "vm")->i, 0);
	assert_int_equal(value_get(counts, "role")->i, (int64_t)role_count());
	assert_null(value_get(counts, "credential"));
	assert_null(value_get(counts, "job"));
	assert_null(value_get(counts, "message"));
}

static void test_one_object(void **state)
{
	char a[REF_LEN + 1], b[REF_LEN + 1];
	_cleanup_(freep) char *token = NULL;
	_cleanup_(freep) char *name = NULL;
	_value_ batch = NULL, *after = NULL;

	network_new(a);
	network_new(b);
	token = token_now();
	network_rename(a, "x");
	network_rename(b, "x");
	name = xasprintf("NetWork/%s", a);
	batch = from(value_set_of(name, NULL), token, 0);
	assert_int_equal(value_get(batch, "events")->n, 1);
	assert_string_equal(op_of(batch, a), "mod");
	row_drop(b);
	row_drop(a);
	after = from(value_set_of(name, NULL), token_of(batch), 0);
	assert_int_equal(value_get(after, "events")->n, 1);
	assert_string_equal(op_of(after, a), "del");
}

static void test_waits_and_wakes(void **state)
{
	_cleanup_(freep) char *token = token_now();
	char ref[REF_LEN + 1];
	struct reply r;

	call(&r, w.session, "event.from", value_set_of("network", NULL),
	     S(token), value_float(30), NULL);
	world_advance(1000);
	assert_null(r.result);
	network_new(ref);
	world_advance(49);
	assert_null(r.result);
	world_advance(1);
	assert_non_null(r.result);
	assert_string_equal(op_of(r.result, ref), "add");
	reply_clear(&r);
}

static void test_timeout_is_no_error(void **state)
{
	_cleanup_(freep) char *token = token_now();
	char other[REF_LEN + 1];
	struct reply r;
	struct txn *t;

	call(&r, w.session, "event.from", value_set_of("vm", NULL), S(token),
	     value_float(2), NULL);
	world_advance(1000);
	network_new(other); /* concerns nobody */
	t = txn_new("test");
	row_create(t, CLASS_PIF_metrics, NULL, other);
	apply(t);
	world_advance(999);
	assert_null(r.result);
	world_advance(1);
	assert_non_null(r.result);
	assert_int_equal(value_get(r.result, "events")->n, 0);
	assert_true(strcmp(token_of(r.result), token) > 0);
	reply_clear(&r);
}

/* Created and gone again while the call waited: it goes on waiting. */
static void test_empty_batches_are_suppressed(void **state)
{
	_cleanup_(freep) char *token = token_now();
	char ref[REF_LEN + 1];
	struct reply r;

	call(&r, w.session, "event.from", value_set_of("network", NULL),
	     S(token), value_float(30), NULL);
	world_advance(500);
	network_new(ref);
	row_drop(ref);
	world_advance(1000);
	assert_null(r.result);
	network_new(ref);
	world_advance(50);
	assert_non_null(r.result);
	reply_clear(&r);
}

static void test_task_calls_answer_at_once(void **state)
{
	_cleanup_(freep) char *token = token_now();
	_value_ task = NULL;
	struct reply r;

	call(&r, w.session, "event.from", value_set_of("task", NULL), S(token),
	     value_float(30), NULL);
	world_advance(1000);
	task = result_of("task.create", S("x"), S(""), NULL);
	assert_non_null(r.result);
	assert_string_equal(op_of(r.result, value_str(task)), "add");
	reply_clear(&r);
}

static void test_bad_tokens(void **state)
{
	static const char *const bad[] = { "x", "1", "1,", ",", "1,2,3", "1,x",
					   "-1,0" };
	struct reply r;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		call(&r, w.session, "event.from", value_set_empty(), S(bad[i]),
		     value_float(0), NULL);
		expect_error(&r, "EVENT_FROM_TOKEN_PARSE_FAILURE", bad[i],
			      NULL);
	}
}

static void test_odd_subscriptions_match_nothing(void **state)
{
	static const char *const odd[] = { "", "/", "vms", "vm/", "session",
					   "credential", "job", "event",
					   "vm/OpaqueRef:x/y", "secret" };

	for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
		_value_ batch = from(value_set_of(odd[i], NULL), "", 0);

		assert_int_equal(value_get(batch, "events")->n, 0);
	}
}

/* A token of a future that may come: the call waits for it. */
static void test_future_token(void **state)
{
	char ref[REF_LEN + 1];
	struct reply r;

	network_new(ref);
	call(&r, w.session, "event.from", value_set_of("network", NULL),
	     S("00000000000000009999,00000000000000009999"), value_float(5),
	     NULL);
	network_rename(ref, "x");
	world_advance(4900);
	assert_null(r.result);
	world_advance(200);
	assert_int_equal(value_get(r.result, "events")->n, 0);
	reply_clear(&r);
}

static void test_odd_timeouts(void **state)
{
	_cleanup_(freep) char *token = token_now();
	struct reply r;

	call(&r, w.session, "event.from", value_set_of("vm", NULL), S(token),
	     value_float(1e300), NULL);
	world_advance(86399 * 1000LL);
	assert_null(r.result);
	world_advance(2000);
	/* The session was idle for a day meanwhile; a timeout comes first. */
	assert_non_null(r.result);
	reply_clear(&r);
	call(&r, w.session, "event.from", value_set_of("vm", NULL), S(token),
	     value_float(-5), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
}

static void test_logout_wakes(void **state)
{
	_cleanup_(freep) char *token = token_now();
	struct reply r, n;

	value_unref(result_of("event.register", value_set_of("vm", NULL), NULL));
	call(&r, w.session, "event.from", value_set_of("vm", NULL), S(token),
	     value_float(30), NULL);
	call(&n, w.session, "event.next", NULL);
	assert_null(r.error);
	value_unref(result_of("session.logout", NULL));
	expect_error(&r, "SESSION_INVALID", w.session, NULL);
	expect_error(&n, "SESSION_INVALID", w.session, NULL);
}

static void test_too_many_calls(void **state)
{
	_cleanup_(freep) char *token = token_now();
	static struct reply r[257];

	for (unsigned i = 0; i < ARRAY_LEN(r); i++)
		call(&r[i], w.session, "event.from", value_set_of("vm", NULL),
		     S(token), value_float(30), NULL);
	expect_error(&r[256], "TOO_MANY_PENDING_TASKS", NULL);
	world_advance(31000);
	for (unsigned i = 0; i < 256; i++) {
		assert_non_null(r[i].result);
		reply_clear(&r[i]);
	}
}

static void test_gone_clients_are_swept(void **state)
{
	_cleanup_(freep) char *token = token_now();
	struct req *q;
	struct reply r;

	call(&r, w.session, "event.from", value_set_of("vm", NULL), S(token),
	     value_float(3600), NULL);
	q = list_entry(w.pool->reqs->all.next, struct req, link);
	atomic_store(&q->call->gone, true);
	world_advance(11000);
	assert_non_null(r.result);
	assert_int_equal(req_count(w.pool), 0);
	reply_clear(&r);
}

/* The same question shares its answer, another one does not get it. */
static void test_shared_answers(void **state)
{
	char ref[REF_LEN + 1];
	_cleanup_(freep) char *token = token_now();
	_value_ a = NULL, *b = NULL, *other = NULL, *later = NULL;

	network_new(ref);
	a = from(value_set_of("network", NULL), token, 0);
	b = from(value_set_of("network", NULL), token, 0);
	assert_ptr_equal(value_get(a, "events"), value_get(b, "events"));
	other = from(value_set_of("network", "vm", NULL), "", 0);
	assert_string_equal(op_of(other, ref), "add");
	network_rename(ref, "x");
	later = from(value_set_of("network", NULL), token_of(a), 0);
	assert_string_equal(op_of(later, ref), "mod");
}

/* ---- inject ---- */

static void test_inject(void **state)
{
	char ref[REF_LEN + 1];
	_cleanup_(freep) char *before = NULL;
	_value_ injected = NULL, *batch = NULL, *next = NULL;
	struct reply r;

	network_new(ref);
	before = token_now();
	injected = result_of("event.inject", S("network"), S(ref), NULL);
	assert_true(strcmp(before, value_str(injected)) < 0);
	batch = from(value_set_of("network", NULL), before, 0);
	assert_string_equal(op_of(batch, ref), "mod");
	assert_true(strcmp(value_str(injected), token_of(batch)) < 0);
	call(&r, w.session, "event.inject", S("Network"), S(ref), NULL);
	expect_error(&r, "HANDLE_INVALID", "Network", ref, NULL);
	call(&r, w.session, "event.inject", S("VM"), S(ref), NULL);
	expect_error(&r, "HANDLE_INVALID", "VM", ref, NULL);
	next = from(value_set_of("network", NULL), token_of(batch), 0);
	assert_int_equal(value_get(next, "events")->n, 0);
}

/* ---- the queue ---- */

static void test_next_tells_every_change(void **state)
{
	char ref[REF_LEN + 1];
	struct reply r;

	call(&r, w.session, "event.next", NULL);
	expect_error(&r, "SESSION_NOT_REGISTERED", w.session, NULL);
	value_unref(result_of("event.register", value_set_of("network", NULL),
			      NULL));
	call(&r, w.session, "event.next", NULL);
	network_new(ref);
	network_rename(ref, "a");
	network_rename(ref, "b");
	row_drop(ref);
	world_advance(199);
	assert_null(r.result);
	world_advance(1);
	assert_int_equal(r.result->n, 4);
	assert_string_equal(value_get_str(r.result->items[0], "operation"),
			    "add");
	assert_string_equal(value_get_str(r.result->items[3], "operation"),
			    "del");
	assert_non_null(value_get(r.result->items[3], "snapshot"));
	assert_string_equal(value_get_str(r.result->items[3], "timestamp"),
			    "1700000000.");
	reply_clear(&r);
	value_unref(result_of("event.unregister", value_set_of("network", NULL),
			      NULL));
	call(&r, w.session, "event.next", NULL);
	expect_error(&r, "SESSION_NOT_REGISTERED", NULL);
}

static void test_next_is_bounded(void **state)
{
	char ref[REF_LEN + 1], name[32];
	struct reply r;

	value_unref(result_of("event.register", value_set_of("*", NULL), NULL));
	network_new(ref);
	for (unsigned i = 0; i < 20001; i++) {
		snprintf(name, sizeof name, "%u", i);
		network_rename(ref, name);
	}
	call(&r, w.session, "event.next", NULL);
	expect_error(&r, "EVENTS_LOST", NULL);
	value_unref(result_of("event.unregister", value_set_of("*", NULL), NULL));
	value_unref(result_of("event.register", value_set_of("*", NULL), NULL));
	network_rename(ref, "again");
	call(&r, w.session, "event.next", NULL);
	world_advance(200);
	assert_non_null(r.result);
	assert_int_equal(r.result->n, 1);
	reply_clear(&r);
}

static void test_heartbeat(void **state)
{
	struct reply r;

	value_unref(result_of("event.register", value_set_of("pool", NULL),
			      NULL));
	call(&r, w.session, "event.next", NULL);
	world_advance(31000);
	assert_non_null(r.result);
	assert_string_equal(value_get_str(r.result->items[0], "class"), "pool");
	reply_clear(&r);
}

/* The store was replaced: waiting calls look again, queues have lost. */
static void test_reloaded(void **state)
{
	_cleanup_(freep) char *token = token_now();
	char ref[REF_LEN + 1];
	struct reply r, n;

	value_unref(result_of("event.register", value_set_of("vm", NULL), NULL));
	call(&n, w.session, "event.next", NULL);
	call(&r, w.session, "event.from", value_set_of("network", NULL),
	     S(token), value_float(30), NULL);
	world_advance(1000);
	store_set_observer(w.store, NULL, NULL);
	network_new(ref);
	store_set_observer(w.store, on_changed, NULL);
	pool_reloaded(w.pool);
	world_advance(300);
	assert_non_null(r.result);
	assert_string_equal(op_of(r.result, ref), "add");
	expect_error(&n, "EVENTS_LOST", NULL);
	reply_clear(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(test_histories),
		world_test(test_record_form),
		world_test(test_messages_come_first),
		world_test(test_order_of_operations),
		world_test(test_ref_counts),
		world_test(test_one_object),
		world_test(test_waits_and_wakes),
		world_test(test_timeout_is_no_error),
		world_test(test_empty_batches_are_suppressed),
		world_test(test_task_calls_answer_at_once),
		world_test(test_bad_tokens),
		world_test(test_odd_subscriptions_match_nothing),
		world_test(test_future_token),
		world_test(test_odd_timeouts),
		world_test(test_logout_wakes),
		world_test(test_too_many_calls),
		world_test(test_gone_clients_are_swept),
		world_test(test_shared_answers),
		world_test(test_inject),
		world_test(test_next_tells_every_change),
		world_test(test_next_is_bounded),
		world_test(test_heartbeat),
		world_test(test_reloaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
