/* Calls of the API in a world, and what they are expected to answer: a part of
 * vm_world.h. */
#ifndef TESTS_UNIT_VM_WORLD_CALLS_H
#define TESTS_UNIT_VM_WORLD_CALLS_H

#include "tests/unit/reply.h"

/* Where a stream's lease is to be left; NULL: it ends with the call. */
static struct lease **keep_lease;

static inline void reply_done(struct call *c)
{
	struct reply *reply = c->owner;

	if (keep_lease)
		*keep_lease = TAKE_PTR(c->lease);
	reply->result = TAKE_PTR(c->result);
	reply->error = TAKE_PTR(c->error);
	call_free(c);
}

/* Arguments are taken, up to a NULL. The world does not run. */
static inline void call_begin(struct sim_host *h, struct reply *reply,
			      const char *name, ...)
{
	struct call *c = call_new();
	bool async = !strncmp(name, "Async.", 6);
	struct value *v;
	char reason[128] = "";
	va_list ap;

	memset(reply, 0, sizeof *reply);
	c->mode = async ? CALL_ASYNC : CALL_SYNC;
	c->name = xstrdup(async ? name + 6 : name);
	c->method = schema_method(c->name, strlen(c->name));
	assert_non_null(c->method);
	if (c->method->flags & METHOD_SESSION)
		c->session = S(w.session);
	va_start(ap, name);
	while ((v = va_arg(ap, struct value *))) {
		c->args[c->n_args] = schema_coerce(
			c->method->params[c->n_args].type, v, reason,
			sizeof reason);
		if (!c->args[c->n_args])
			fail_msg("%s: %s", name, reason);
		c->n_args++;
		value_unref(v);
	}
	va_end(ap);
	for (; c->n_args < c->method->n_params; c->n_args++)
		c->args[c->n_args] = schema_param_default(c->method, c->n_args);
	c->done = reply_done;
	c->owner = reply;
	pool_call(h->pool, c);
}

#define call_at(...)                     \
	do {                             \
		call_begin(__VA_ARGS__); \
		world_run();             \
	} while (0)

/* At the first member; must succeed. The result is the caller's. */
#define ok(...)                                                    \
	({                                                         \
		struct reply r_;                                   \
		call_at(&w.h[0], &r_, __VA_ARGS__, NULL);          \
		if (r_.error)                                      \
			show_error(#__VA_ARGS__, r_.error);        \
		if (!r_.result)                                    \
			fail_msg("no answer: " #__VA_ARGS__);      \
		r_.result;                                         \
	})
#define do_ok(...) value_unref(ok(__VA_ARGS__))

/* fails((call...), code, params...) */
#define UNPACK(...) __VA_ARGS__
#define fails(args, ...)                                       \
	do {                                                   \
		struct reply r_;                               \
		call_at(&w.h[0], &r_, UNPACK args, NULL);      \
		expect_error(&r_, __VA_ARGS__, NULL);          \
	} while (0)

#endif
