/* Sessions, roles, and the order of the checks that every call passes. */
#include "tests/unit/pool_calls.h"

/* The handlers and modules of this test's pool. */
const struct handler_def *const pool_handlers[] = {
	session_handlers, role_handlers, task_handlers, event_handlers,
	message_handlers, NULL,
};
const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module, &event_module, NULL,
};

/* A session with these permissions only; a NULL-terminated list. */
static void limited_session(char ref[REF_LEN + 1], struct value *permissions)
{
	const struct class_def *c = &schema_classes[CLASS_session];
	struct txn *t = txn_new("test");

	row_create(t, CLASS_session, NULL, ref);
	txn_set(t, c, ref, F_session_rbac_permissions, permissions);
	txn_set(t, c, ref, F_session_auth_user_name, S("bob"));
	txn_set(t, c, ref, F_session_auth_user_sid, S("S-1-5-bob"));
	txn_set(t, c, ref, F_session_last_active,
		value_datetime(w.wall_ms / 1000));
	assert_int_equal(apply(t).status, TXN_OK);
}

static void test_login(void **state)
{
	struct reply r;

	call(&r, NULL, "session.login_with_password", S("root"), S("secret"),
	     S("1.1"), S("tests"), NULL);
	assert_non_null(r.result);
	assert_true(value_is_str(field_of(value_str(r.result),
					  F_session_originator), "tests"));
	assert_true(value_is_str(field_of(value_str(r.result),
					  F_session_this_host), w.host));
	assert_int_equal(w.passwords, 1);
	reply_clear(&r);
}

static void test_wrong_password_is_slow(void **state)
{
	struct reply r;

	call(&r, NULL, "session.login_with_password", S("root"), S("wrong"),
	     NULL);
	assert_null(r.error);
	world_advance(4999);
	assert_null(r.error);
	world_advance(1);
	expect_error(&r, "SESSION_AUTHENTICATION_FAILED", "root", NULL);
	call(&r, NULL, "session.login_with_password", S("eve"), S("secret"),
	     NULL);
	world_advance(5000);
	expect_error(&r, "SESSION_AUTHENTICATION_FAILED", "eve", NULL);
}

static void test_password_checks_are_bounded(void **state)
{
	struct reply r[20];

	w.hold = true;
	for (int i = 0; i < 20; i++)
		call_begin(&r[i], NULL, "session.login_with_password",
			   S("root"), S("secret"), NULL);
	assert_int_equal(w.passwords, 8);
	w.hold = false;
	world_run();
	assert_int_equal(w.passwords, 20);
	for (int i = 0; i < 20; i++) {
		assert_non_null(r[i].result);
		reply_clear(&r[i]);
	}
}

static void test_change_password(void **state)
{
	struct reply r;

	value_unref(result_of("session.change_password", S("whatever"),
			      S("better"), NULL));
	call(&r, NULL, "session.login_with_password", S("root"), S("better"),
	     NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	call(&r, w.session, "session.change_password", S(""), S(""), NULL);
	expect_error(&r, "CHANGE_PASSWORD_REJECTED", NULL);
}

/* The hash changes while an old one is being checked: the login fails. */
static void test_login_races_with_change(void **state)
{
	struct record *c;
	struct txn *t;
	struct reply r;

	w.hold = true;
	call_begin(&r, NULL, "session.login_with_password", S("root"),
		   S("secret"), NULL);
	c = credential_find(w.pool, "root");
	t = txn_new("test");
	txn_set(t, c->cls, value_str(c->ref), F_credential_hash,
		S("hash:other"));
	apply(t);
	w.hold = false;
	world_advance(6000);
	expect_error(&r, "SESSION_AUTHENTICATION_FAILED", NULL);
}

static void test_logout(void **state)
{
	_value_ gone = value_stringz(w.session);
	struct reply r;

	value_unref(result_of("session.logout", NULL));
	call(&r, w.session, "VM.get_all", NULL);
	expect_error(&r, "SESSION_INVALID", value_str(gone), NULL);
}

static void test_local_sessions(void **state)
{
	char ref[REF_LEN + 1];
	struct reply r;

	call(&r, NULL, "session.slave_local_login_with_password", S("root"),
	     S("secret"), NULL);
	assert_non_null(r.result);
	snprintf(ref, sizeof ref, "%s", value_str(r.result));
	reply_clear(&r);
	assert_null(store_get(w.store, ref));
	/* It works when nobody answers. */
	w.barrier_error = -ETIMEDOUT;
	call(&r, ref, "VM.get_all", NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	call(&r, w.session, "VM.get_all", NULL);
	expect_error(&r, "CANNOT_CONTACT_HOST", w.host, NULL);
	call(&r, ref, "session.local_logout", NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	w.barrier_error = 0;
	call(&r, ref, "VM.get_all", NULL);
	expect_error(&r, "SESSION_INVALID", ref, NULL);
}

/* A call by name with what its client wants of the store; the reply's call
 * stays in the caller's hands. */
static struct call *seen;

static void keep_call(struct call *c)
{
	seen = c;
}

static struct call *ask(const char *name, enum call_read read,
			uint64_t min_generation)
{
	struct call *c = call_new();

	call_free(TAKE_PTR(seen));
	c->name = xstrdup(name);
	c->method = schema_method(name, strlen(name));
	c->session = S(w.session);
	c->origin.read = read;
	c->origin.min_generation = min_generation;
	c->done = keep_call;
	pool_call(w.pool, c);
	world_run();
	return seen;
}

static void test_local_reads_need_no_majority(void **state)
{
	struct call *c;

	w.barrier_error = -ETIMEDOUT;
	w.age_ms = 1234;
	c = ask("VM.get_all", CALL_READ_LOCAL, 0);
	assert_non_null(c->result);
	assert_int_equal(c->age_ms, 1234);
	assert_int_equal(c->generation, store_generation(w.store));
	c = ask("VM.get_all", CALL_READ_LINEARIZABLE, 0);
	assert_non_null(c->error);
	assert_int_equal(c->age_ms, -1);
	call_free(TAKE_PTR(seen));
}

static void test_session_may_want_local_reads(void **state)
{
	struct reply r;
	unsigned before;

	call(&r, w.session, "session.add_to_other_config", S(w.session),
	     S("xenpool-read"), S("local"), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	before = w.barriers;
	assert_int_equal(ask("VM.get_all", CALL_READ_DEFAULT, 0)->age_ms,
			 w.age_ms);
	assert_int_equal(w.barriers, before);
	/* The call's own wish goes before; and what is no read is checked on
	 * a fresh store. */
	assert_int_equal(ask("VM.get_all", CALL_READ_LINEARIZABLE, 0)->age_ms,
			 -1);
	assert_int_equal(w.barriers, before + 1);
	ask("session.logout", CALL_READ_DEFAULT, 0);
	assert_int_equal(w.barriers, before + 2);
	call_free(TAKE_PTR(seen));
}

static void test_generation_is_waited_for(void **state)
{
	uint64_t now = store_generation(w.store);
	struct reply r;

	assert_non_null(ask("VM.get_all", CALL_READ_LOCAL, now)->result);
	assert_null(ask("VM.get_all", CALL_READ_LOCAL, now + 1));
	call(&r, w.session, "session.add_to_other_config", S(w.session),
	     S("a"), S("b"), NULL);
	reply_clear(&r);
	world_run();
	assert_non_null(seen);
	assert_non_null(seen->result);
	assert_true(seen->generation >= now + 1);
}

static void test_generation_that_never_comes(void **state)
{
	uint64_t now = store_generation(w.store);

	assert_null(ask("VM.get_all", CALL_READ_LOCAL, now + 1000));
	world_advance(4900);
	assert_null(seen);
	world_advance(200);
	assert_non_null(seen);
	assert_non_null(seen->error);
	assert_string_equal(value_str(seen->error->items[0]),
			    "XENPOOL_GENERATION_NOT_REACHED");
	call_free(TAKE_PTR(seen));
}

/* A generated change runs at once; only its refusal needs a fresh store. */
static void test_changes_are_tried_first(void **state)
{
	unsigned before = w.barriers;
	struct reply r;

	call(&r, w.session, "session.add_to_other_config", S(w.session),
	     S("k"), S("v"), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	assert_int_equal(w.barriers, before);
	call(&r, w.session, "session.add_to_other_config", S(w.session),
	     S("k"), S("v"), NULL);
	expect_error(&r, "MAP_DUPLICATE_KEY", "session", "other_config",
		      w.session, "k", NULL);
	assert_int_equal(w.barriers, before + 1);
	/* A member that has lost the majority says so, and soon. */
	w.age_ms = 500;
	w.barrier_error = -ETIMEDOUT;
	before = w.submits;
	call(&r, w.session, "session.add_to_other_config", S(w.session),
	     S("k2"), S("v"), NULL);
	expect_error(&r, "CANNOT_CONTACT_HOST", w.host, NULL);
	assert_int_equal(w.submits, before);
}

/* What is refused for an old store is tried again on a fresh one. */
static void test_refusal_on_an_old_store(void **state)
{
	struct reply r;
	struct txn *t = txn_new("test");
	char ref[REF_LEN + 1];

	row_create(t, CLASS_VM_appliance, NULL, ref);
	w.hold = true;
	call_begin(&r, w.session, "VM_appliance.set_name_label", S(ref),
		   S("new"), NULL);
	assert_int_equal(apply(t).status, TXN_OK);
	w.hold = false;
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
}

static void test_logout_before_a_tried_change(void **state)
{
	char session[REF_LEN + 1];
	struct txn *t = txn_new("test");
	unsigned before;
	struct reply r;

	limited_session(session, value_set_empty());
	txn_set(t, &schema_classes[CLASS_session], session,
		F_session_is_local_superuser, value_bool(true));
	assert_int_equal(apply(t).status, TXN_OK);
	before = w.submits;
	w.hold = true;
	call_begin(&r, session, "session.add_to_other_config", S(w.session),
		   S("late"), S("v"), NULL);
	assert_true(w.submits > before);
	t = txn_new("test");
	txn_destroy(t, session);
	assert_int_equal(apply(t).status, TXN_OK);
	w.hold = false;
	world_run();
	expect_error(&r, "SESSION_INVALID", session, NULL);
}

static void test_order_of_checks(void **state)
{
	char limited[REF_LEN + 1];
	struct reply r;

	limited_session(limited, value_set_empty());
	call(&r, NULL, "VM.fly", NULL);
	expect_error(&r, "MESSAGE_METHOD_UNKNOWN", "VM.fly", NULL);
	call(&r, "OpaqueRef:nobody", "VM.fly", NULL);
	expect_error(&r, "SESSION_INVALID", "OpaqueRef:nobody", NULL);
	call(&r, w.session, "VM.fly", NULL);
	expect_error(&r, "MESSAGE_METHOD_UNKNOWN", "VM.fly", NULL);
	/* Nothing of VMs is in this pool: denied before not implemented. */
	call(&r, limited, "VM.start", S("OpaqueRef:x"), value_bool(false),
	     value_bool(false), NULL);
	expect_error(&r, "RBAC_PERMISSION_DENIED", "vm.start",
		      "No permission in user session. (Roles with this "
		      "permission: pool-admin, pool-operator, vm-power-admin, "
		      "vm-admin, vm-operator)", NULL);
	call(&r, w.session, "Async.VM.start", S("OpaqueRef:x"),
	     value_bool(false), value_bool(false), NULL);
	expect_error(&r, "NOT_IMPLEMENTED", "VM.start", NULL);
}

static void test_removed_and_internal(void **state)
{
	const struct method_def *removed = NULL, *internal = NULL;
	struct reply r;

	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];

		if (m->n_params == 0 && m->flags & METHOD_REMOVED)
			removed = m;
		if (m->n_params == 0 && m->flags & METHOD_POOL_INTERNAL &&
		    !(m->flags & METHOD_REMOVED))
			internal = m;
	}
	if (removed) {
		call(&r, w.session, removed->name, NULL);
		expect_error(&r, "MESSAGE_REMOVED", NULL);
	}
	assert_non_null(internal);
	call(&r, w.session, internal->name, NULL);
	assert_non_null(strstr(value_str(r.error->items[1]),
			       "call attempted with non-pool (external)"));
	expect_error(&r, "INTERNAL_ERROR", NULL);
}

static void test_guarded_keys(void **state)
{
	const char *plain = "pool.add_to_other_config";
	char ref[REF_LEN + 1], folder[REF_LEN + 1];
	const char *pool = value_str(pool_row(w.pool)->ref);
	struct reply r;

	limited_session(ref, value_set_of(plain, NULL));
	limited_session(folder, value_set_of(
		"pool.add_to_other_config/key:folder",
		"pool.add_to_other_config/key:xencenter.customfields.*", NULL));
	call(&r, ref, plain, S(pool), S("a"), S("1"), NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	call(&r, ref, plain, S(pool), S("folder"), S("1"), NULL);
	expect_error(&r, "RBAC_PERMISSION_DENIED",
		      "pool.add_to_other_config/key:folder", NULL);
	call(&r, folder, plain, S(pool), S("XenCenter.CustomFields.x"), S("1"),
	     NULL);
	assert_non_null(r.result);
	reply_clear(&r);
	call(&r, folder, plain, S(pool), S("b"), S("1"), NULL);
	expect_error(&r, "RBAC_PERMISSION_DENIED", plain, NULL);
}

static void test_last_active(void **state)
{
	int64_t before = field_of(w.session, F_session_last_active)->i;

	world_advance(599000);
	value_unref(result_of("VM.get_all", NULL));
	assert_int_equal(field_of(w.session, F_session_last_active)->i, before);
	world_advance(2000);
	value_unref(result_of("VM.get_all", NULL));
	assert_int_equal(field_of(w.session, F_session_last_active)->i,
			 before + 601);
}

static void test_idle_sessions_go(void **state)
{
	char idle[REF_LEN + 1], busy[REF_LEN + 1], task[REF_LEN + 1];
	struct txn *t;

	limited_session(idle, value_set_empty());
	limited_session(busy, value_set_empty());
	t = txn_new("test");
	ref_new(task);
	task_create(t, task, "x", "", store_get(w.store, busy), NULL, false);
	apply(t);
	w.wall_ms += 86400 * 1000LL + 1000;
	value_unref(result_of("VM.get_all", NULL)); /* ours is in use */
	world_advance(31000);
	assert_null(store_get(w.store, idle));
	assert_non_null(store_get(w.store, busy));
	assert_non_null(store_get(w.store, w.session));
}

static void test_session_cap(void **state)
{
	char first[REF_LEN + 1], ref[REF_LEN + 1];

	limited_session(first, value_set_empty());
	w.wall_ms += 5000;
	for (int i = 0; i < 510; i++)
		limited_session(ref, value_set_empty());
	w.wall_ms += 5000;
	world_advance(31000);
	assert_int_equal(store_count(w.store, CLASS_session), 500 + 1);
	assert_null(store_get(w.store, first));
	assert_non_null(store_get(w.store, w.session));
}

static void test_only_the_leader_collects(void **state)
{
	char idle[REF_LEN + 1];

	pool_leader(w.pool, 2, false);
	limited_session(idle, value_set_empty());
	w.wall_ms += 86400 * 1000LL + 1000;
	world_advance(61000);
	assert_non_null(store_get(w.store, idle));
}

static void test_subject_identifiers(void **state)
{
	char a[REF_LEN + 1], b[REF_LEN + 1];
	_value_ all = NULL;

	limited_session(a, value_set_empty());
	limited_session(b, value_set_empty());
	all = result_of("session.get_all_subject_identifiers", NULL);
	assert_int_equal(all->n, 1);
	assert_true(value_is_str(all->items[0], "S-1-5-bob"));
	value_unref(result_of("session.logout_subject_identifier",
			      S("S-1-5-bob"), NULL));
	assert_null(store_get(w.store, a));
	assert_null(store_get(w.store, b));
	assert_non_null(store_get(w.store, w.session));
}

/* ---- roles ---- */

static void test_role_counts(void **state)
{
	/* Of the public datamodel: permissions that each role holds. */
	static const unsigned counts[] = { 2284, 2150, 1666, 1626, 1464, 1428,
					   1384 };

	assert_int_equal(role_count(), 7 + 2359);
	for (unsigned i = 0; i < ARRAY_LEN(counts); i++)
		assert_int_equal(role_at(i)->fields[F_role_subroles]->n,
				 counts[i]);
}

static void test_role_calls(void **state)
{
	_value_ all = result_of("role.get_all_records", NULL);
	_value_ found = result_of("role.get_by_name_label", S("vm-admin"), NULL);
	_value_ by_uuid = result_of("role.get_by_uuid",
		S("aaa00ab5-7340-bfbc-0d1b-7cf342639a6e"), NULL);
	_value_ where = result_of("role.get_all_where",
		S("field \"is_internal\" = \"false\""), NULL);
	_value_ having = result_of("role.get_by_permission_name_label",
				   S("pool.join"), NULL);
	_value_ names = NULL, *name = NULL;

	assert_int_equal(all->n, role_count());
	assert_int_equal(found->n, 1);
	assert_string_equal(value_str(found->items[0]),
		"OpaqueRef:aaa00ab5-7340-bfbc-0d1b-7cf342639a6e");
	assert_true(value_equal(found->items[0], by_uuid));
	assert_int_equal(where->n, 6); /* client-cert is internal */
	name = result_of("role.get_name_label", value_ref(by_uuid), NULL);
	assert_string_equal(value_str(name), "vm-admin");
	names = result_of("role.get_permissions_name_label",
			  value_ref(by_uuid), NULL);
	assert_int_equal(names->n, 1626);
	assert_true(having->n >= 1);
}

/* uuid = MD5 of the name, for roles as for permissions. */
static void test_role_uuids(void **state)
{
	struct record *r = role_by_name("vm.start");

	for (unsigned i = 0; i < schema_n_roles; i++)
		assert_string_equal(record_str(role_at(i), F_role_uuid),
				    schema_roles[i].uuid);
	assert_non_null(r);
	assert_string_equal(record_str(r, F_role_uuid),
			    "24b924aa-926c-879e-d2c1-fe778e82ccee");
}

static void test_subject_roles(void **state)
{
	_value_ subject = result_of("subject.create", value_struct_of(
		"subject_identifier", S("S-1"), NULL), NULL);
	_value_ names = NULL;
	const char *read_only = value_str(role_by_name("read-only")->ref);
	struct reply r;

	value_unref(result_of("subject.add_to_roles", value_ref(subject),
			      S(read_only), NULL));
	call(&r, w.session, "subject.add_to_roles", value_ref(subject),
	     S(read_only), NULL);
	expect_error(&r, "ROLE_ALREADY_EXISTS", NULL);
	call(&r, w.session, "subject.add_to_roles", value_ref(subject),
	     S("OpaqueRef:x"), NULL);
	expect_error(&r, "ROLE_NOT_FOUND", NULL);
	value_unref(result_of("subject.remove_from_roles", value_ref(subject),
			      S(value_str(role_by_name("pool-admin")->ref)),
			      NULL));
	names = result_of("subject.get_permissions_name_label",
			  value_ref(subject), NULL);
	assert_int_equal(names->n, 1384);
}

static void test_stopping_with_calls_under_way(void **state)
{
	static struct reply r[4];

	w.hold = true;
	call_begin(&r[0], w.session, "VM.get_all", NULL);
	call_begin(&r[1], NULL, "session.login_with_password", S("root"),
		   S("secret"), NULL);
	w.hold = false;
	call(&r[2], w.session, "event.from", value_set_of("vm", NULL), S(""),
	     value_float(60), NULL);
	call(&r[3], NULL, "session.login_with_password", S("root"), S("no"),
	     NULL);
	reply_clear(&r[0]);
	reply_clear(&r[1]);
	/* world_end() frees the rest; the sanitizer watches. */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(test_login),
		world_test(test_wrong_password_is_slow),
		world_test(test_password_checks_are_bounded),
		world_test(test_change_password),
		world_test(test_login_races_with_change),
		world_test(test_logout),
		world_test(test_local_sessions),
		world_test(test_local_reads_need_no_majority),
		world_test(test_session_may_want_local_reads),
		world_test(test_changes_are_tried_first),
		world_test(test_refusal_on_an_old_store),
		world_test(test_logout_before_a_tried_change),
		world_test(test_generation_is_waited_for),
		world_test(test_generation_that_never_comes),
		world_test(test_order_of_checks),
		world_test(test_removed_and_internal),
		world_test(test_guarded_keys),
		world_test(test_last_active),
		world_test(test_idle_sessions_go),
		world_test(test_session_cap),
		world_test(test_only_the_leader_collects),
		world_test(test_subject_identifiers),
		world_test(test_role_counts),
		world_test(test_role_calls),
		world_test(test_role_uuids),
		world_test(test_subject_roles),
		world_test(test_stopping_with_calls_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
