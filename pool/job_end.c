/* The ends of steps: the transactions that carry results back. */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/job.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

/* ---- making ---- */

void job_create(const struct pool *p, struct txn *t, const struct record *vm,
		const struct job_spec *spec, struct value *params,
		char ret_ref[REF_LEN + 1])
{
	const struct record *to = spec->destination;
	struct draft d;

	draft_create(&d, t, CLASS_job, NULL);
	draft_str(&d, F_job_kind, spec->kind);
	draft_str(&d, F_job_state, "running");
	draft_str(&d, F_job_step, spec->step);
	if (vm)
		draft_copy(&d, F_job_vm, vm->ref);
	draft_str(&d, F_job_task, *spec->task ? spec->task : REF_NULL);
	draft_copy(&d, F_job_host, spec->host->ref);
	draft_copy(&d, F_job_source, spec->source ? spec->source->ref :
						    spec->host->ref);
	if (to)
		draft_copy(&d, F_job_destination, to->ref);
	draft_int(&d, F_job_fence, (int64_t)store_generation(store_of(p)) + 1);
	if (params)
		draft_set(&d, F_job_params, params);
	if (spec->deadline)
		draft_date(&d, F_job_deadline, spec->deadline);
	draft_date(&d, F_job_created, env_wall_ms() / 1000);
	draft_str(&d, F_job_author, spec->author);
	if (ret_ref)
		strcpy(ret_ref, draft_ref(&d));
	draft_write(&d);
}

static bool is_of_vm(const struct record *job, const char *vm_ref)
{
	return value_is_str(job->fields[F_job_vm], vm_ref);
}

struct record *job_of_vm(const struct store *s, const char *vm_ref)
{
	struct record *oldest = NULL;

	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j))
		if (is_of_vm(j, vm_ref) &&
		    (!oldest || j->created < oldest->created))
			oldest = j;
	return oldest;
}

void job_cancel_all(const struct store *s, struct txn *t, const char *vm_ref)
{
	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j))
		if (is_of_vm(j, vm_ref))
			txn_map_put(t, class_of(CLASS_job), value_str(j->ref),
				    F_job_params, "cancel",
				    value_stringz("true"));
}

void job_cancel_requested(struct pool *p, const char *task_ref)
{
	const struct store *s = store_of(p);

	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j)) {
		struct txn *t;

		if (!value_is_str(j->fields[F_job_task], task_ref) ||
		    value_get(j->fields[F_job_params], "cancel"))
			continue;
		t = txn_new("task.cancel");
		txn_map_put(t, class_of(CLASS_job), value_str(j->ref),
			    F_job_params, "cancel", value_stringz("true"));
		pool_submit(p, t, NULL, NULL);
		return;
	}
}

/* ---- ending ---- */

struct record *job_host(const struct job_end *e, unsigned field)
{
	return store_get_class(e->s, CLASS_host, record_str(e->job, field));
}

/* The key of the job in current_operations: its task, or itself. */
const char *job_mark(const struct record *job)
{
	const char *task = record_str(job, F_job_task);

	return value_is_null_ref(job->fields[F_job_task]) ?
		       value_str(job->ref) : task;
}

static void unmark_host(const struct store *s, struct txn *t,
			const char *host_ref, const char *mark)
{
	const struct record *h = store_get_class(s, CLASS_host, host_ref);

	if (h && value_get(h->fields[F_host_current_operations], mark))
		txn_map_remove(t, class_of(CLASS_host), host_ref,
			       F_host_current_operations, mark);
}

static void remove_job(const struct store *s, struct txn *t, struct draft *vm,
		       struct record *job)
{
	static const unsigned hosts[] = { F_job_host, F_job_source,
					  F_job_destination };
	const char *mark = job_mark(job);

	for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
		unmark_host(s, t, record_str(job, hosts[i]), mark);
	if (vm) {
		draft_map_remove(vm, F_VM_current_operations, mark);
		device_unmark(s, t, vm->now, job, NULL);
	}
	txn_destroy(t, value_str(job->ref));
}

void job_finish(struct job_end *e)
{
	task_succeed(e->p, e->t, record_str(e->job, F_job_task), NULL);
	remove_job(e->s, e->t, &e->vm, e->job);
}

void job_fail(struct job_end *e, struct value *takes_error)
{
	job_tell_parent(e, takes_error);
	task_fail(e->p, e->t, record_str(e->job, F_job_task), takes_error);
	remove_job(e->s, e->t, &e->vm, e->job);
}

void job_next(struct job_end *e, const char *step, const char *host_ref)
{
	const struct class_def *c = class_of(CLASS_job);
	const char *ref = value_str(e->job->ref);

	txn_set(e->t, c, ref, F_job_step, value_stringz(step));
	txn_set(e->t, c, ref, F_job_host, value_stringz(host_ref));
}

void job_raise_fence(struct job_end *e, const char *host_ref)
{
	const struct class_def *c = class_of(CLASS_job);
	int64_t fence = MAX(record_int(e->job, F_job_fence),
			    (int64_t)store_generation(e->s)) + 1;

	txn_set(e->t, c, value_str(e->job->ref), F_job_fence, value_int(fence));
	for (struct record *j = store_first(e->s, CLASS_job); j;
	     j = store_next(e->s, j)) {
		if (j == e->job || !value_equal(j->fields[F_job_vm],
						e->job->fields[F_job_vm]))
			continue;
		txn_set(e->t, c, value_str(j->ref), F_job_fence,
			value_int(++fence));
		if (host_ref)
			txn_set(e->t, c, value_str(j->ref), F_job_host,
				value_stringz(host_ref));
	}
}

/* The executor knows VMs by uuid and jobs by id; callers by reference. Its own
 * codes are no business of theirs. */
struct value *job_error(const struct job_end *e)
{
	const struct value *error = e->error;
	const char *uuid = record_str(e->vm.now, F_VM_uuid);
	struct value *v;

	if (error_is(error, "TASK_CANCELLED"))
		return api_error("TASK_CANCELLED",
				 record_str(e->job, F_job_task), NULL);
	if (error_is(error, "FENCED"))
		return api_error("INTERNAL_ERROR",
				 "a newer job of this VM is known", NULL);
	v = value_set_new(error->n);
	for (uint32_t i = 0; i < error->n; i++)
		v->items[i] = value_is_str(error->items[i], uuid) ?
				      value_ref(e->vm.now->ref) :
				      value_ref(error->items[i]);
	return v;
}

void job_message(struct job_end *e, const char *name)
{
	_cleanup_(freep) char *body = NULL;

	body = xasprintf("VM '%s' %s", record_str(e->vm.now, F_VM_name_label),
			 name);
	message_create(e->t, name, 5, "VM", record_str(e->vm.now, F_VM_uuid),
		       body);
}

static void end_begin(struct job_end *e, struct pool *p, struct record *job,
		      struct record *vm)
{
	*e = (struct job_end){ .p = p, .s = store_of(p), .job = job };
	e->t = txn_new(record_str(job, F_job_author));
	txn_guard_version(e->t, job);
	draft_edit(&e->vm, e->t, vm);
}

static void end_without_vm(struct pool *p, struct record *job,
			   struct value *takes_error, pool_txn_cb cb,
			   void *cb_data)
{
	struct txn *t = txn_new(record_str(job, F_job_author));

	txn_guard_version(t, job);
	task_fail(p, t, record_str(job, F_job_task), takes_error);
	remove_job(store_of(p), t, NULL, job);
	pool_submit(p, t, cb, cb_data);
}

static void end_of_host(struct pool *p, struct record *job,
			const struct value *error, pool_txn_cb cb,
			void *cb_data)
{
	const struct job_step *step = job_step_of(job);
	struct job_end e = { .p = p, .s = store_of(p), .job = job,
			     .error = error };

	e.t = txn_new(record_str(job, F_job_author));
	txn_guard_version(e.t, job);
	(error ? step->failed : step->done)(&e);
	remove_job(e.s, e.t, NULL, job);
	pool_submit(p, e.t, cb, cb_data);
}

static struct record *vm_of(struct pool *p, const struct record *job)
{
	return store_get_class(store_of(p), CLASS_VM, record_str(job,
								 F_job_vm));
}

bool job_end_step(struct pool *p, struct record *job,
		  const struct value *result, const struct value *error,
		  pool_txn_cb cb, void *cb_data)
{
	const struct job_step *step = job_step_of(job);
	struct record *vm = vm_of(p, job);
	struct job_end e;

	xassert(step && !result != !error);
	if (step->may_go) {
		end_of_host(p, job, error, cb, cb_data);
		return true;
	}
	if (!vm) {
		end_without_vm(p, job, api_error("HANDLE_INVALID", "VM",
						 record_str(job, F_job_vm),
						 NULL), cb, cb_data);
		return false;
	}
	end_begin(&e, p, job, vm);
	e.result = result;
	e.error = error;
	(error ? step->failed : step->done)(&e);
	draft_write_vm(&e.vm, e.s);
	pool_submit(p, e.t, cb, cb_data);
	return true;
}

/* ---- ends that others bring about ---- */

static void end_dead(struct job_end *e, const struct job_step *step,
		     struct record *host)
{
	struct value *error = api_error("HOST_OFFLINE", value_str(host->ref),
					NULL);

	switch (step->when_dead) {
	case DEAD_BIND:
		/* Its executor may have begun, or begin when it is back: until
		 * that host speaks, or is declared dead, the VM is there. */
		vm_becomes_live(e->p, &e->vm, host, -1, false, true);
		job_fail(e, error);
		break;
	case DEAD_ABORT:
		job_migrate_abort(e, error);
		break;
	case DEAD_DONE:
		e->result = value_struct_new(0);
		step->done(e);
		value_unref((struct value *)e->result);
		value_unref(error);
		break;
	default:
		draft_null(&e->vm, F_VM_scheduled_to_be_resident_on);
		job_fail(e, error);
	}
}

void job_end_dead(struct pool *p, struct record *job, struct record *host)
{
	const struct job_step *step = job_step_of(job);
	struct record *vm = vm_of(p, job);
	struct job_end e;

	if (!vm) {
		end_without_vm(p, job, api_error("HOST_OFFLINE",
						 value_str(host->ref), NULL),
			       NULL, NULL);
		return;
	}
	end_begin(&e, p, job, vm);
	end_dead(&e, step, host);
	draft_write_vm(&e.vm, e.s);
	pool_submit(p, e.t, NULL, NULL);
}

/* Past its switch a migration leaves a paused copy on the source, which must
 * not wake up any more: that part of the job goes on. */
static bool goes_on_as_finish(const struct record *job)
{
	const char *step = record_str(job, F_job_step);

	return value_is_str(job->fields[F_job_kind], "migrate") &&
	       (!strcmp(step, "activate") || !strcmp(step, "finish") ||
		!strcmp(step, "undo_destination"));
}

static void drop_job(const struct pool *p, struct draft *vm, struct record *job,
		     const struct value *error)
{
	const struct class_def *c = class_of(CLASS_job);
	const char *ref = value_str(job->ref);

	txn_guard_version(vm->t, job);
	task_fail(p, vm->t, record_str(job, F_job_task), value_ref(error));
	if (!goes_on_as_finish(job)) {
		remove_job(store_of(p), vm->t, vm, job);
		return;
	}
	txn_set(vm->t, c, ref, F_job_error, value_ref(error));
	txn_set(vm->t, c, ref, F_job_step, value_stringz("finish"));
	txn_set(vm->t, c, ref, F_job_host,
		value_ref(job->fields[F_job_source]));
	txn_set(vm->t, c, ref, F_job_fence,
		value_int((int64_t)store_generation(store_of(p)) + 1));
}

void job_drop_all(const struct pool *p, struct draft *vm,
		  const struct value *error)
{
	const struct store *s = store_of(p);

	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j))
		if (is_of_vm(j, draft_ref(vm)))
			drop_job(p, vm, j, error);
	draft_null(vm, F_VM_scheduled_to_be_resident_on);
}
