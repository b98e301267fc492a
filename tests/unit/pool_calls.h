/* Calls into the world of pool_help.h, and its setting up. */
#ifndef TESTS_POOL_CALLS_H
#define TESTS_POOL_CALLS_H

#include "tests/unit/pool_help.h"
#include "tests/unit/reply.h"

/* ---- calls ---- */

static inline void reply_done(struct call *c)
{
	struct reply *reply = c->owner;

	xassert(!reply->result && !reply->error);
	reply->result = TAKE_PTR(c->result);
	reply->error = TAKE_PTR(c->error);
	call_free(c);
}

/* Makes a call with arguments (taken) up to a NULL, without letting it run. */
static inline struct call *call_make(struct reply *reply, const char *session,
				     const char *name, va_list ap)
{
	struct call *c = call_new();
	bool async = strncmp(name, "Async.", 6) == 0;
	struct value *v;
	char reason[128];

	memset(reply, 0, sizeof *reply);
	c->mode = async ? CALL_ASYNC : CALL_SYNC;
	c->name = xstrdup(async ? name + 6 : name);
	c->method = schema_method(c->name, strlen(c->name));
	c->session = session ? value_stringz(session) : NULL;
	while ((v = va_arg(ap, struct value *))) {
		c->args[c->n_args] = c->method ?
			schema_coerce(c->method->params[c->n_args].type, v,
				      reason, sizeof reason) : value_ref(v);
		assert_non_null(c->args[c->n_args]);
		c->n_args++;
		value_unref(v);
	}
	for (; c->method && c->n_args < c->method->n_params; c->n_args++)
		c->args[c->n_args] = schema_param_default(c->method, c->n_args);
	c->done = reply_done;
	c->owner = reply;
	return c;
}

static inline void call_begin(struct reply *reply, const char *session,
			      const char *name, ...)
{
	va_list ap;

	va_start(ap, name);
	pool_call(w.pool, call_make(reply, session, name, ap));
	va_end(ap);
}

/* The call, and the world runs until it is answered. */
#define call(reply, session, ...)                        \
	do {                                             \
		call_begin(reply, session, __VA_ARGS__); \
		world_run();                             \
	} while (0)

/* As root: the result, which must be there. Owned by the caller. */
#define result_of(...)                                                       \
	({                                                                   \
		struct reply reply_;                                         \
		call(&reply_, w.session, __VA_ARGS__);                       \
		if (reply_.error)                                            \
			fail_msg("%s %s %s",                                 \
				 value_str(reply_.error->items[0]),          \
				 reply_.error->n > 1 ?                       \
				 value_str(reply_.error->items[1]) : "",     \
				 reply_.error->n > 2 ?                       \
				 value_str(reply_.error->items[2]) : "");    \
		assert_non_null(reply_.result);                              \
		reply_.result;                                               \
	})

#define S(text) value_stringz(text)

/* Field of a row as it is now, borrowed. */
static inline struct value *field_of(const char *ref, unsigned field)
{
	struct record *r = store_get(w.store, ref);

	assert_non_null(r);
	return r->fields[field];
}

static inline void world_set_up_rows(void)
{
	struct txn *t = txn_new("test");
	char pool[REF_LEN + 1];

	row_create(t, CLASS_host, w.pool->cfg.host_uuid, w.host);
	row_create(t, CLASS_pool, NULL, pool);
	txn_set(t, &schema_classes[CLASS_pool], pool, F_pool_master, S(w.host));
	credential_create(t, "root", "hash:secret");
	assert_int_equal(apply(t).status, TXN_OK);
}

static inline void pool_start(void)
{
	struct pool_config cfg = {
		.host_uuid = "0a0a0a0a-0000-4000-8000-000000000001",
		.login_delay_ms = 5000,
		.first_password = "first",
	};
	struct pool_hooks hooks = {
		.store = hook_store,
		.submit = hook_submit,
		.read_barrier = hook_barrier,
		.age_ms = hook_age_ms,
		.password = hook_password,
		.wake_at = hook_wake_at,
	};

	w.wake_ms = INT64_MAX;
	w.pool = pool_new(&cfg, &hooks);
	assert_non_null(w.pool);
}

static inline void pool_stop(void)
{
	list_for_each_safe(it, &w.wishes)
		wish_free(list_entry(it, struct wish, link));
	pool_free(TAKE_PTR(w.pool));
}

static inline int world_begin(void **state)
{
	struct reply reply;
	struct call *c;

	memset(&w, 0, sizeof w);
	w.wall_ms = 1700000000000;
	w.mono_ms = 1000;
	w.random = 1;
	list_init(&w.wishes);
	env_replace(&fake_env);
	w.store = store_new();
	store_set_observer(w.store, on_changed, NULL);
	pool_start();
	world_set_up_rows();
	pool_leader(w.pool, 1, true);
	c = call_new();
	c->name = xstrdup("session.login_with_password");
	c->method = schema_method(c->name, strlen(c->name));
	c->origin.local_root = true;
	for (; c->n_args < 4; c->n_args++)
		c->args[c->n_args] = S("");
	c->done = reply_done;
	c->owner = &reply;
	memset(&reply, 0, sizeof reply);
	pool_call(w.pool, c);
	world_run();
	assert_non_null(reply.result);
	snprintf(w.session, sizeof w.session, "%s", value_str(reply.result));
	reply_clear(&reply);
	return 0;
}

static inline int world_end(void **state)
{
	pool_stop();
	store_free(w.store);
	env_replace(NULL);
	return 0;
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

#endif
