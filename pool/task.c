/* Tasks: rows that show what a call is doing and take its result. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/task.h"

#define CLS (&schema_classes[CLASS_task])

static int64_t now_s(void)
{
	return env_wall_ms() / 1000;
}

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

bool task_has_ended(const struct record *task)
{
	const char *status = record_str(task, F_task_status);

	return strcmp(status, "pending") && strcmp(status, "cancelling");
}

bool task_is_asked_to(const struct record *task, const char *word)
{
	const struct value *ops = task->fields[F_task_current_operations];

	for (unsigned i = 0; i < ops->n; i++)
		if (value_is_str(ops->items[2 * i + 1], word))
			return true;
	return false;
}

/* ---- beginning and end ---- */

void task_create(struct txn *t, const char *ref, const char *label,
		 const char *description, const struct record *session,
		 const struct record *host, bool works_here)
{
	row_create_as(t, CLASS_task, NULL, ref);
	txn_set(t, CLS, ref, F_task_name_label, value_stringz(label));
	txn_set(t, CLS, ref, F_task_name_description,
		value_stringz(description));
	txn_set(t, CLS, ref, F_task_created, value_datetime(now_s()));
	txn_set(t, CLS, ref, F_task_status, value_stringz("pending"));
	txn_set(t, CLS, ref, F_task_type, value_stringz("<none/>"));
	txn_set(t, CLS, ref, F_task_allowed_operations,
		value_set_of("cancel", NULL));
	if (session)
		txn_set(t, CLS, ref, F_task_session, value_ref(session->ref));
	if (host)
		txn_set(t, CLS, ref, F_task_resident_on, value_ref(host->ref));
	if (host && works_here)
		txn_set(t, CLS, ref, F_task_forwarded_to, value_ref(host->ref));
}

static bool can_end(const struct pool *p, const char *ref)
{
	struct record *task = store_get_class(store_of(p), CLASS_task, ref);

	return task && !task_has_ended(task);
}

static void set_end(struct txn *t, const char *ref, const char *status)
{
	txn_set(t, CLS, ref, F_task_finished, value_datetime(now_s()));
	txn_set(t, CLS, ref, F_task_progress, value_float(1));
	txn_set(t, CLS, ref, F_task_allowed_operations, value_set_empty());
	txn_set(t, CLS, ref, F_task_status, value_stringz(status));
}

void task_succeed(const struct pool *p, struct txn *t, const char *ref,
		  struct value *result)
{
	if (can_end(p, ref)) {
		if (!result)
			result = value_void();
		txn_set(t, CLS, ref, F_task_result, task_result_text(result));
		set_end(t, ref, "success");
	}
	value_unref(result);
}

void task_fail(const struct pool *p, struct txn *t, const char *ref,
	       struct value *error)
{
	bool cancelled = error->n > 0 &&
			 value_is_str(error->items[0], "TASK_CANCELLED");

	if (!can_end(p, ref)) {
		value_unref(error);
		return;
	}
	txn_set(t, CLS, ref, F_task_error_info, error);
	set_end(t, ref, cancelled ? "cancelled" : "failure");
}

/* ---- calls ---- */

/* The task, if the caller may change it; else NULL, and the request has ended. */
static struct record *own_task(struct req *r)
{
	struct record *task = req_arg_record(r, 0, CLASS_task), *session;

	if (!task || req_is_root(r))
		return task;
	session = session_find(r->pool, record_str(task, F_task_session));
	if (session && value_equal(
			session->fields[F_session_auth_user_sid],
			r->session->fields[F_session_auth_user_sid]))
		return task;
	if (req_may(r, "task.destroy/any"))
		return task;
	req_fail_value(r, rbac_denied("task.destroy/any"));
	return NULL;
}

static void task_create_call(struct req *r)
{
	char ref[REF_LEN + 1];
	struct txn *t;

	if (req_tasks_full(r)) {
		req_fail(r, "TOO_MANY_PENDING_TASKS", NULL);
		return;
	}
	t = req_txn(r);
	ref_new(ref);
	task_create(t, ref, req_arg_str(r, 0), req_arg_str(r, 1), r->session,
		    pool_this_host(r->pool), false);
	req_commit(r, t, value_stringz(ref));
}

static void cancel_noted(struct req *r, const struct txn_result *result)
{
	job_cancel_requested(r->pool, req_arg_str(r, 0));
	req_reply(r, NULL);
}

static void task_cancel(struct req *r)
{
	struct record *task = own_task(r);
	char key[REF_LEN + 1];
	struct txn *t;

	if (!task)
		return;
	if (task_has_ended(task)) {
		req_reply(r, NULL);
		return;
	}
	ref_new(key);
	t = req_txn(r);
	txn_guard_field(t, task, F_task_status);
	txn_map_put(t, CLS, value_str(task->ref), F_task_current_operations,
		    *r->task_ref ? r->task_ref : key, value_stringz("cancel"));
	req_commit_then(r, t, cancel_noted);
}

static void task_destroy(struct req *r)
{
	struct record *task = own_task(r);
	struct txn *t;

	if (!task)
		return;
	t = req_txn(r);
	if (task_has_ended(task)) {
		txn_destroy(t, value_str(task->ref));
	} else {
		txn_guard_field(t, task, F_task_status);
		txn_map_put(t, CLS, value_str(task->ref),
			    F_task_current_operations, "task",
			    value_stringz("destroy"));
	}
	req_commit(r, t, NULL);
}

static void task_set_status(struct req *r)
{
	struct record *task = own_task(r);
	const char *status, *ref;
	struct txn *t;

	if (!task)
		return;
	status = req_arg_str(r, 1);
	ref = value_str(task->ref);
	t = req_txn(r);
	txn_guard_field(t, task, F_task_status);
	/* Only a pending task can change its state. */
	if (task_has_ended(task))
		;
	else if (!strcmp(status, "pending") || !strcmp(status, "cancelling"))
		txn_set(t, CLS, ref, F_task_status, value_stringz(status));
	else
		set_end(t, ref, status);
	req_commit(r, t, NULL);
}

static void set_field(struct req *r, unsigned field, struct value *v)
{
	struct record *task = own_task(r);
	struct txn *t;

	if (!task) {
		value_unref(v);
		return;
	}
	t = req_txn(r);
	txn_set(t, CLS, value_str(task->ref), field, v);
	req_commit(r, t, NULL);
}

static void task_set_progress(struct req *r)
{
	double d = req_arg(r, 1)->d;

	set_field(r, F_task_progress, value_float(d >= 0 ? MIN(d, 1) : 0));
}

static void task_set_result(struct req *r)
{
	set_field(r, F_task_result, value_ref(req_arg(r, 1)));
}

static void task_set_error_info(struct req *r)
{
	set_field(r, F_task_error_info, value_ref(req_arg(r, 1)));
}

static void task_set_other_config(struct req *r)
{
	struct record *task = own_task(r);

	if (task && req_may_set_map(r, task, F_task_other_config,
				    req_arg(r, 1)))
		set_field(r, F_task_other_config, value_ref(req_arg(r, 1)));
}

static void task_add_to_other_config(struct req *r)
{
	struct record *task = own_task(r);
	const char *key, *ref;
	struct txn *t;

	if (!task)
		return;
	key = req_arg_str(r, 1);
	ref = value_str(task->ref);
	if (value_get(task->fields[F_task_other_config], key)) {
		req_fail(r, "MAP_DUPLICATE_KEY", "task", "other_config", ref,
			 key, NULL);
		return;
	}
	t = req_txn(r);
	txn_map_add(t, CLS, ref, F_task_other_config, key,
		    value_ref(req_arg(r, 2)));
	req_commit(r, t, NULL);
}

static void task_remove_from_other_config(struct req *r)
{
	struct record *task = own_task(r);
	struct txn *t;

	if (!task)
		return;
	t = req_txn(r);
	txn_map_remove(t, CLS, value_str(task->ref), F_task_other_config,
		       req_arg_str(r, 1));
	req_commit(r, t, NULL);
}

const struct handler_def task_handlers[] = {
	{ M_task_create, task_create_call },
	{ M_task_cancel, task_cancel },
	{ M_task_destroy, task_destroy },
	{ M_task_set_status, task_set_status },
	{ M_task_set_progress, task_set_progress },
	{ M_task_set_result, task_set_result },
	{ M_task_set_error_info, task_set_error_info },
	{ M_task_set_other_config, task_set_other_config },
	{ M_task_add_to_other_config, task_add_to_other_config },
	{ M_task_remove_from_other_config, task_remove_from_other_config },
	{ -1, NULL },
};

/* ---- the module ---- */

static int task_init(struct pool *p)
{
	p->tasks = xcalloc(1, sizeof *p->tasks);
	task_gc_init(p);
	return 0;
}

static void task_free(struct pool *p)
{
	if (p->tasks)
		task_gc_deinit(p);
	free(p->tasks);
	p->tasks = NULL;
}

const struct pool_module task_module = {
	.name = "task",
	.init = task_init,
	.free = task_free,
	.leader = task_leftovers_begin,
};
