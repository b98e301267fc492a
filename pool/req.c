/* The life of a request, first half: from its arrival to its handler.
 *
 *   arrived --fresh enough--> session? method? role? --> Async: task written,
 *   caller answered --> handler --> reply, fail, commit, job, wait, park
 *
 * Requests that are to run (again) never run from within the event that caused
 * it (the apply of a transaction, another request's handler): they go on the
 * ready list, which a timer of 0 ms works off. So handlers never nest.
 */
#include <string.h>

#include "base/env.h"
#include "pool/core.h"

#define WAIT_LIMIT_MS (2 * 3600 * 1000LL) /* for a busy object */

/* ---- memory ---- */

static struct req *req_new(struct pool *p, struct call *c)
{
	struct req_own *o = xcalloc(1, sizeof *o);

	o->r.pool = p;
	o->r.call = c;
	o->r.method = c->method;
	o->r.deadline_ms = env_mono_ms() + WAIT_LIMIT_MS;
	pool_timer_init(&o->timer, NULL, o);
	list_init(&o->in_ready);
	list_init(&o->in_key);
	list_push(&p->reqs->all, &o->r.link);
	p->reqs->n++;
	c->pool_data = o;
	return &o->r;
}

void req_free(struct req *r)
{
	struct req_own *o = req_own(r);
	struct pool *p = r->pool;

	if (o->in_handler) {
		o->is_freed = true;
		return;
	}
	pool_timer_cancel(p, &o->timer);
	req_unwait(o);
	list_remove(&o->in_key);
	list_remove(&o->in_ready);
	list_remove(&r->link);
	p->reqs->n--;
	if (o->by_task)
		map_del(&p->reqs->by_task, r->task_ref, strlen(r->task_ref));
	if (r->call)
		call_free(r->call);
	record_unref(r->session);
	value_unref(r->memo);
	value_unref(o->wait_error);
	value_unref(o->result);
	value_unref(o->error);
	value_unref(o->end_result);
	value_unref(o->end_error);
	free(o);
}

size_t req_count(const struct pool *p)
{
	return p->reqs->n;
}

/* ---- the ready list ---- */

static void run_ready(struct pool *p, void *data)
{
	struct list now;

	list_init(&now);
	list_splice(&now, &p->reqs->ready);
	while (!list_empty(&now)) {
		struct req_own *o = list_entry(now.next, struct req_own,
					       in_ready);

		list_remove(&o->in_ready);
		o->next(&o->r);
	}
}

void req_set_ready(struct req *r, void (*next)(struct req *r))
{
	struct req_own *o = req_own(r);
	struct req_state *s = r->pool->reqs;

	o->step = REQ_READY;
	o->next = next;
	if (list_empty(&s->ready))
		pool_timer_arm(r->pool, &s->run_ready, 0);
	list_remove(&o->in_ready);
	list_push(&s->ready, &o->in_ready);
}

/* ---- running a handler ---- */

static req_handler handler_of(const struct pool *p, const struct method_def *m)
{
	return p->reqs->handlers[m - schema_methods];
}

void req_run(struct req *r)
{
	struct req_own *o = req_own(r);

	o->step = REQ_RUNNING;
	o->task_in = NULL;
	if (r->task_is_async && !req_task_is_pending(r)) {
		/* Somebody has ended the task: what it stood for is not
		 * wanted any more. */
		req_free(r);
		return;
	}
	r->runs++;
	o->in_handler = true;
	handler_of(r->pool, r->method)(r);
	req_end_handler(r);
}

/* ---- admission ---- */

/* Fails the request and returns false, or notes the session. */
static bool admit_session(struct req *r)
{
	const char *ref = value_str(r->call->session);
	struct record *s;

	if (!req_needs_session(r->call))
		return true;
	s = session_find(r->pool, ref);
	if (!s) {
		req_fail(r, "SESSION_INVALID", ref, NULL);
		return false;
	}
	record_ref(s);
	record_unref(r->session);
	r->session = s;
	session_touch(r->pool, s);
	return true;
}

static struct value *internal_call_error(const struct req *r)
{
	return error_internal("Internal API \"%s\" call attempted with "
			      "non-pool (external) session", r->method->name);
}

/* The error of a call that must not reach a handler, NULL if it may. */
static struct value *admit_method(const struct req *r)
{
	const struct method_def *m = r->method;
	const struct call *c = r->call;

	if (!m)
		return api_error("MESSAGE_METHOD_UNKNOWN", c->name, NULL);
	if (m->flags & METHOD_REMOVED)
		return api_error("MESSAGE_REMOVED", NULL);
	if (!r->session)
		return NULL;
	if ((m->flags & METHOD_POOL_INTERNAL) &&
	    !record_bool(r->session, F_session_pool) &&
	    !session_is_local(r->pool, value_str(c->session)))
		return internal_call_error(r);
	return rbac_check(r->session, m, c->args, c->n_args);
}

static void admit(struct req *r)
{
	struct value *error;

	if (!admit_session(r))
		return;
	error = admit_method(r);
	if (!error && !handler_of(r->pool, r->method))
		error = api_error("NOT_IMPLEMENTED", r->method->name, NULL);
	if (error)
		req_fail_value(r, error);
	else if (r->call->mode != CALL_SYNC)
		req_adopt(r);
	else
		req_run(r);
}

void req_begin(struct pool *p, struct call *c)
{
	struct req *r = req_new(p, c);

	req_when_fresh(r, admit);
}

/* ---- arguments ---- */

struct value *req_arg(const struct req *r, unsigned i)
{
	xassert(i < r->call->n_args);
	return r->call->args[i];
}

const char *req_arg_str(const struct req *r, unsigned i)
{
	return value_str(req_arg(r, i));
}

int64_t req_arg_int(const struct req *r, unsigned i)
{
	return req_arg(r, i)->i;
}

bool req_arg_bool(const struct req *r, unsigned i)
{
	return req_arg(r, i)->i != 0;
}

struct record *req_arg_record(struct req *r, unsigned i, int cls)
{
	const char *ref = req_arg_str(r, i);
	struct record *row = row_get(req_store(r), cls, ref);

	if (!row)
		req_fail_value(r, error_handle_invalid(cls, ref));
	return row;
}

void req_not_implemented(struct req *r)
{
	req_fail(r, "NOT_IMPLEMENTED", r->method->name, NULL);
}

const struct store *req_store(const struct req *r)
{
	return r->pool->hooks.store(r->pool->hooks.data);
}

bool req_is_root(const struct req *r)
{
	return r->session && (record_bool(r->session,
					  F_session_is_local_superuser) ||
			      record_bool(r->session, F_session_pool));
}

bool req_may(const struct req *r, const char *permission)
{
	return r->session && rbac_may(r->session, permission);
}

bool req_may_set_map(struct req *r, const struct record *row, unsigned field,
		     const struct value *after)
{
	struct value *error = rbac_map_error(r->session, row->cls, field,
					     row->fields[field], after);

	if (error)
		req_fail_value(r, error);
	return !error;
}

/* ---- the module ---- */

static void index_handlers(struct req_state *s)
{
	for (unsigned i = 0; i < schema_n_methods; i++)
		s->handlers[i] = generic_handlers[schema_methods[i].kind];
	for (const struct handler_def *const *t = pool_handlers; *t; t++)
		for (const struct handler_def *h = *t; h->fn; h++)
			s->handlers[h->method] = h->fn;
}

static int req_init(struct pool *p)
{
	struct req_state *s = xcalloc(1, sizeof *s);

	list_init(&s->all);
	list_init(&s->ready);
	list_init(&s->behind);
	map_init(&s->waits);
	map_init(&s->by_task);
	pool_timer_init(&s->run_ready, run_ready, NULL);
	s->handlers = xcalloc(schema_n_methods, sizeof *s->handlers);
	index_handlers(s);
	p->reqs = s;
	return 0;
}

static void req_deinit(struct pool *p)
{
	struct req_state *s = p->reqs;

	if (!s)
		return;
	list_for_each_safe(it, &s->all)
		req_free(list_entry(it, struct req, link));
	map_deinit(&s->waits);
	map_deinit(&s->by_task);
	free(s->handlers);
	free(s);
}

static void req_changed(struct pool *p, const struct change *c)
{
	const struct record *row = c->after ? c->after : c->before;

	if (c->cls->id == CLASS_task)
		req_task_changed(p, value_str(row->ref), c->after);
	req_wake(p, value_str(row->ref));
}

static void req_reloaded(struct pool *p)
{
	req_generation_reached(p, store_generation(
					  p->hooks.store(p->hooks.data)));
	list_for_each_safe(it, &p->reqs->all) {
		struct req *r = list_entry(it, struct req, link);

		if (req_own(r)->by_task)
			req_task_changed(p, r->task_ref,
					 store_get_class(req_store(r),
							 CLASS_task,
							 r->task_ref));
		if (req_own(r)->step == REQ_WAITING)
			req_again(r);
	}
}

const struct pool_module req_module = {
	.name = "req",
	.init = req_init,
	.free = req_deinit,
	.changed = req_changed,
	.applied = req_generation_reached,
	.reloaded = req_reloaded,
};

const char *pool_missing_message(size_t i)
{
	static const char **missing;
	static size_t n;

	if (!missing) {
		struct req_state s = { 0 };

		missing = xcalloc(schema_n_methods, sizeof *missing);
		s.handlers = xcalloc(schema_n_methods, sizeof *s.handlers);
		index_handlers(&s);
		for (unsigned m = 0; m < schema_n_methods; m++)
			if ((!s.handlers[m] ||
			     s.handlers[m] == req_not_implemented) &&
			    !(schema_methods[m].flags & METHOD_REMOVED))
				missing[n++] = schema_methods[m].name;
		free(s.handlers);
	}
	return i < n ? missing[i] : NULL;
}
