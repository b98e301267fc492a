/* The life of a request, second half: the ways in which a handler can end. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "pool/core.h"

#define WAIT_AGAIN_MS 20000
#define MAX_CONFLICTS 1000 /* each one means that somebody else got on */
#define MAX_MISSES 3

/* ---- reply and fail ---- */

/* A task that was made for a sync call goes with the call. */
static void drop_sync_task(struct req *r)
{
	struct txn *t;

	if (!*r->task_ref ||
	    !store_get_class(req_store(r), CLASS_task, r->task_ref))
		return;
	t = req_txn(r);
	txn_destroy(t, r->task_ref);
	pool_submit(r->pool, t, NULL, NULL);
}

/* The first one counts: what a handler does after it has failed is void. */
static void keep_outcome(struct req_own *o, struct value *result,
			 struct value *error)
{
	if (o->has_outcome) {
		value_unref(result);
		value_unref(error);
		return;
	}
	o->has_outcome = true;
	o->end_result = result;
	o->end_error = error;
}

/* Takes both; one of them is NULL. */
static void finish(struct req *r, struct value *result, struct value *error)
{
	struct req_own *o = req_own(r);
	struct call *c;

	if (o->in_handler) {
		keep_outcome(o, result, error);
		return;
	}
	if (o->trial) {
		value_unref(result);
		value_unref(error);
		req_end_trial(r);
		return;
	}
	if (r->task_is_async) {
		value_unref(o->result);
		value_unref(o->error);
		o->result = result;
		o->error = error;
		req_end_task(r);
		return;
	}
	drop_sync_task(r);
	failpoint("answer.made");
	c = TAKE_PTR(r->call);
	req_tell(r, c);
	req_free(r);
	if (error)
		call_fail_value(c, error);
	else
		call_reply(c, result);
}

void req_end_handler(struct req *r)
{
	struct req_own *o = req_own(r);

	o->in_handler = false;
	if (o->is_freed) {
		req_free(r);
	} else if (o->has_outcome) {
		o->has_outcome = false;
		finish(r, TAKE_PTR(o->end_result), TAKE_PTR(o->end_error));
	}
}

void req_reply(struct req *r, struct value *result)
{
	finish(r, result ? result : value_void(), NULL);
}

void req_fail_value(struct req *r, struct value *error)
{
	finish(r, NULL, error);
}

void req_fail(struct req *r, const char *code, ...)
{
	const char *texts[16] = { code };
	struct value *error;
	size_t n = 1;
	va_list ap;

	va_start(ap, code);
	while (n < ARRAY_LEN(texts) && (texts[n] = va_arg(ap, const char *)))
		n++;
	va_end(ap);
	error = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		error->items[i] = value_stringz(texts[i]);
	finish(r, NULL, error);
}

/* ---- transactions ---- */

struct txn *req_txn(const struct req *r)
{
	const char *user = r->session ?
		record_str(r->session, F_session_auth_user_name) : "";
	_cleanup_(freep) char *author = NULL;

	author = *r->task_ref ? xasprintf("%s (task %s)", user, r->task_ref) :
				xstrdup(user);
	return txn_new(author);
}

static void on_committed(void *data, int error, struct txn_result result)
{
	struct req *r = data;
	struct req_own *o = req_own(r);
	bool trial = o->trial;

	/* The store has come to where the transaction is in the log. */
	o->trial = false;
	if (error < 0) {
		req_fail_value(r, error_of_errno(r->pool, error));
		return;
	}
	switch (result.status) {
	case TXN_OK:
		o->step = REQ_RUNNING;
		o->committed(r, &result);
		return;
	case TXN_CONFLICT:
		if (++o->conflicts < MAX_CONFLICTS)
			break;
		req_fail_value(r, error_of_txn(r, &result));
		return;
	case TXN_NO_OBJECT:
	case TXN_DUPLICATE_KEY:
		/* The handler sees why on the newer store, mostly. */
		if (++o->misses < MAX_MISSES)
			break;
		req_fail_value(r, error_of_txn(r, &result));
		return;
	default:
		req_fail_value(r, error_of_txn(r, &result));
		return;
	}
	value_unref(TAKE_PTR(o->result));
	req_set_ready(r, trial ? o->fresh : req_run);
}

void req_commit_then(struct req *r, struct txn *t,
		     void (*committed)(struct req *r,
				       const struct txn_result *result))
{
	struct req_own *o = req_own(r);

	o->step = REQ_COMMITTING;
	o->committed = committed;
	failpoint("txn.built");
	r->pool->hooks.submit(r->pool->hooks.data, t, on_committed, r);
}

static void reply_committed(struct req *r, const struct txn_result *result)
{
	struct value *v = TAKE_PTR(req_own(r)->result);

	if (r->task_is_async) {
		/* The task has ended in the same transaction. */
		value_unref(v);
		req_free(r);
		return;
	}
	req_reply(r, v);
}

/* The effect shall happen only while the task that it is done for is pending. */
static void guard_async_task(const struct req *r, struct txn *t)
{
	struct record *task;

	if (!r->task_is_async)
		return;
	task = store_get_class(req_store(r), CLASS_task, r->task_ref);
	if (task)
		txn_guard_field(t, task, F_task_status);
	else
		txn_guard_exists(t, &schema_classes[CLASS_task], r->task_ref);
}

void req_commit(struct req *r, struct txn *t, struct value *result)
{
	if (!result)
		result = value_void();
	if (txn_is_empty(t)) {
		txn_free(t);
		req_reply(r, result);
		return;
	}
	req_own(r)->result = result;
	if (req_own(r)->trial)
		txn_guard_exists(t, r->session->cls,
				 value_str(r->session->ref));
	if (r->task_is_async) {
		guard_async_task(r, t);
		task_succeed(r->pool, t, r->task_ref, value_ref(result));
	}
	req_commit_then(r, t, reply_committed);
}

/* ---- jobs ---- */

const char *req_task(struct req *r, struct txn *t)
{
	struct req_own *o = req_own(r);

	if (!*r->task_ref)
		ref_new(r->task_ref);
	if (o->task_in == t ||
	    store_get_class(req_store(r), CLASS_task, r->task_ref))
		return r->task_ref;
	task_create(t, r->task_ref, r->call->name, "", r->session,
		    pool_this_host(r->pool), true);
	o->task_in = t;
	return r->task_ref;
}

static void job_started(struct req *r, const struct txn_result *result)
{
	struct req_own *o = req_own(r);

	if (r->task_is_async) {
		req_free(r);
		return;
	}
	o->step = REQ_IN_JOB;
	req_index_task(o);
	req_task_changed(r->pool, r->task_ref,
			 store_get_class(req_store(r), CLASS_task, r->task_ref));
}

void req_start_job(struct req *r, struct txn *t)
{
	xassert(*r->task_ref);
	guard_async_task(r, t);
	req_commit_then(r, t, job_started);
}

void req_end_job(struct req *r)
{
	struct record *task = store_get_class(req_store(r), CLASS_task,
					      r->task_ref);
	const char *status = task ? record_str(task, F_task_status) : "";
	struct value *result = NULL, *info;

	if (!strcmp(status, "success")) {
		result = task_result_value(r->method->result,
					   task->fields[F_task_result]);
		if (result)
			req_reply(r, result);
		else
			req_fail_value(r, error_internal("%s: the task's result"
				" is not of the call's type", r->method->name));
		return;
	}
	info = task ? task->fields[F_task_error_info] : NULL;
	if (info && info->n > 0)
		req_fail_value(r, value_ref(info));
	else if (!strcmp(status, "cancelled"))
		req_fail(r, "TASK_CANCELLED", r->task_ref, NULL);
	else
		req_fail_value(r, error_internal("%s: its task has gone",
						 r->method->name));
}

/* ---- waiting and parking ---- */

struct req_key {
	struct list waiting;
	size_t len;
	char ref[];
};

static void wait_add(struct req_own *o, const char *ref)
{
	struct map *waits = &o->r.pool->reqs->waits;
	struct req_key *k = map_getz(waits, ref);

	if (!k) {
		k = xmalloc(sizeof *k + strlen(ref) + 1);
		k->len = strlen(ref);
		memcpy(k->ref, ref, k->len + 1);
		list_init(&k->waiting);
		map_put(waits, k->ref, k->len, k);
	}
	list_push(&k->waiting, &o->in_key);
	o->key = k;
}

void req_unwait(struct req_own *o)
{
	struct req_key *k = TAKE_PTR(o->key);

	if (!k)
		return;
	list_remove(&o->in_key);
	if (list_empty(&k->waiting)) {
		map_del(&o->r.pool->reqs->waits, k->ref, k->len);
		free(k);
	}
}

void req_wake(struct pool *p, const char *ref)
{
	struct req_key *k = map_getz(&p->reqs->waits, ref);

	if (!k)
		return;
	list_for_each(it, &k->waiting) {
		struct req_own *o = list_entry(it, struct req_own, in_key);

		if (o->step == REQ_WAITING)
			req_set_ready(&o->r, req_again);
	}
}

static void on_timer(struct pool *p, void *data)
{
	struct req_own *o = data;

	list_remove(&o->in_ready);
	o->next(&o->r);
}

static void arm(struct req *r, int64_t ms, void (*next)(struct req *r))
{
	struct req_own *o = req_own(r);

	o->next = next;
	o->timer.fn = on_timer;
	pool_timer_arm(r->pool, &o->timer, ms);
}

void req_wait(struct req *r, const char *ref, struct value *error)
{
	struct req_own *o = req_own(r);

	if (o->cancelled) {
		value_unref(error);
		req_fail(r, "TASK_CANCELLED", r->task_ref, NULL);
		return;
	}
	if (env_mono_ms() >= r->deadline_ms || atomic_load(&r->call->gone)) {
		req_fail_value(r, error);
		return;
	}
	value_unref(o->wait_error);
	o->wait_error = error;
	o->step = REQ_WAITING;
	wait_add(o, ref);
	arm(r, MIN(WAIT_AGAIN_MS, r->deadline_ms - env_mono_ms()), req_again);
}

void req_park(struct req *r)
{
	req_own(r)->step = REQ_PARKED;
}

void req_again(struct req *r)
{
	struct req_own *o = req_own(r);

	req_unwait(o);
	pool_timer_cancel(r->pool, &o->timer);
	req_set_ready(r, req_run);
}

void req_again_after(struct req *r, int64_t ms)
{
	req_own(r)->step = REQ_PARKED;
	arm(r, ms, req_again);
}

void req_end_task_after(struct req *r, int64_t ms)
{
	arm(r, ms, req_end_task);
}
