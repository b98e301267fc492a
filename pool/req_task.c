/* Async calls: the task's row is written first, the caller gets its ref, then
 * the handler runs. However it ends, the task's end reaches the store: until a
 * majority has taken it, it is tried again.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "pool/core.h"

#define MAX_ASYNC 4096  /* Async calls at work on this member */
#define MAX_TASKS 20000 /* rows in the pool */
#define END_AGAIN_MIN_MS 500
#define END_AGAIN_MAX_MS 30000

static struct record *task_row(const struct req *r)
{
	return store_get_class(req_store(r), CLASS_task, r->task_ref);
}

bool req_task_is_pending(const struct req *r)
{
	struct record *task = task_row(r);

	return task && !task_has_ended(task);
}

void req_index_task(struct req_own *o)
{
	o->by_task = true;
	map_put(&o->r.pool->reqs->by_task, o->r.task_ref,
		strlen(o->r.task_ref), o);
}

bool req_owns_task(const struct pool *p, const char *task_ref)
{
	return map_getz(&p->reqs->by_task, task_ref) != NULL;
}

/* ---- adoption ---- */

static void twin_done(struct call *c)
{
	call_free(c);
}

/* The caller's call is answered now, but the handler still needs what it
 * carries: that moves to a call of our own. */
static struct call *twin_of(struct call *c)
{
	struct call *twin = call_new();

	twin->method = c->method;
	twin->mode = c->mode;
	twin->name = TAKE_PTR(c->name);
	c->name = xstrdup(twin->name);
	twin->session = TAKE_PTR(c->session);
	memcpy(twin->args, c->args, sizeof twin->args);
	memset(c->args, 0, sizeof c->args);
	twin->n_args = c->n_args;
	c->n_args = 0;
	twin->origin = c->origin;
	twin->done = twin_done;
	return twin;
}

static void on_adopted(void *data, int error, struct txn_result result)
{
	struct req *r = data;
	struct call *c = r->call;

	if (error < 0 || result.status != TXN_OK) {
		req_fail_value(r, error < 0 ? error_of_errno(r->pool, error) :
					      error_of_txn(r, &result));
		return;
	}
	r->call = twin_of(c);
	r->call->pool_data = r;
	r->task_is_async = true;
	req_index_task(req_own(r));
	req_tell(r, c);
	call_reply(c, value_stringz(r->task_ref));
	req_set_ready(r, req_run);
}

bool req_tasks_full(const struct req *r)
{
	return r->pool->reqs->by_task.count >= MAX_ASYNC ||
	       store_count(req_store(r), CLASS_task) >= MAX_TASKS;
}

void req_adopt(struct req *r)
{
	_cleanup_(freep) char *label = xasprintf("Async.%s", r->call->name);
	struct txn *t;

	if (req_tasks_full(r)) {
		req_fail(r, "TOO_MANY_PENDING_TASKS", NULL);
		return;
	}
	req_own(r)->step = REQ_ADOPTING;
	ref_new(r->task_ref);
	t = req_txn(r);
	task_create(t, r->task_ref, label, "", r->session,
		    pool_this_host(r->pool), true);
	r->pool->hooks.submit(r->pool->hooks.data, t, on_adopted, r);
}

/* ---- the end of an Async task ---- */

static void end_again(struct req *r)
{
	struct req_own *o = req_own(r);

	o->backoff_ms = o->backoff_ms ? MIN(2 * o->backoff_ms, END_AGAIN_MAX_MS) :
					END_AGAIN_MIN_MS;
	req_end_task_after(r, o->backoff_ms);
}

static void end_with_error(struct req *r, struct value *error)
{
	struct req_own *o = req_own(r);

	value_unref(TAKE_PTR(o->result));
	value_unref(o->error);
	o->error = error;
	end_again(r);
}

static void on_task_ended(void *data, int error, struct txn_result result)
{
	struct req *r = data;

	if (error == -E2BIG)
		end_with_error(r, error_internal("The result is too large for "
						 "a task"));
	else if (error < 0 || result.status == TXN_CONFLICT)
		end_again(r);
	else if (result.status == TXN_INVALID)
		end_with_error(r, error_internal("The result cannot be stored"));
	else
		req_free(r);
}

void req_end_task(struct req *r)
{
	struct req_own *o = req_own(r);
	struct record *task = task_row(r);
	struct txn *t;

	if (!task || task_has_ended(task)) {
		req_free(r);
		return;
	}
	o->step = REQ_ENDING;
	t = req_txn(r);
	txn_guard_field(t, task, F_task_status);
	if (o->error)
		task_fail(r->pool, t, r->task_ref, value_ref(o->error));
	else
		task_succeed(r->pool, t, r->task_ref, value_ref(o->result));
	pool_submit(r->pool, t, on_task_ended, r);
}

/* ---- what happens to tasks ---- */

static void fail_cancelled(struct req *r)
{
	req_unwait(req_own(r));
	pool_timer_cancel(r->pool, &req_own(r)->timer);
	req_fail(r, "TASK_CANCELLED", r->task_ref, NULL);
}

void req_task_changed(struct pool *p, const char *ref, const struct record *row)
{
	struct req_own *o = map_getz(&p->reqs->by_task, ref);

	if (!o)
		return;
	if (o->step == REQ_IN_JOB && (!row || task_has_ended(row)))
		req_set_ready(&o->r, req_end_job);
	if (!o->r.task_is_async || !row || !task_is_asked_to(row, "cancel"))
		return;
	o->cancelled = true;
	if (o->step == REQ_WAITING)
		req_set_ready(&o->r, fail_cancelled);
}
