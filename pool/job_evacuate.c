/* host.evacuate: a job of the host itself, which migrates its VMs away a batch
 * at a time. Each migration is a job like any other; one that fails leaves its
 * error in this job, which then begins no more, waits for those under way, and
 * fails with the first error.
 *
 * params: batch, total (decimal).
 */
#include <string.h>

#include "pool/job.h"

#define DEFAULT_BATCH 10
#define MAX_BATCH 64

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

struct evacuation {
	struct pool *p;
	const struct store *s;
	struct record *job, *host;
	unsigned left, moving, batch;
	struct record *next;   /* one that may go */
	struct value *refusal; /* why another one may not; owned */
};

static int64_t param(const struct record *job, const char *key,
		     int64_t otherwise)
{
	const char *s = value_get_str(job->fields[F_job_params], key);
	int64_t v;

	return *s && int_parse(s, strlen(s), &v) ? v : otherwise;
}

static void count_vm(struct evacuation *e, struct record *vm)
{
	struct value *error;

	e->left++;
	if (job_of_vm(e->s, value_str(vm->ref))) {
		e->moving++;
		return;
	}
	error = vm_op_error(e->s, vm, "pool_migrate", true);
	if (error && !e->refusal)
		e->refusal = error;
	else
		value_unref(error);
	if (!error && !e->next)
		e->next = vm;
}

static void count(struct evacuation *e)
{
	const struct value *vms = e->host->fields[F_host_resident_VMs];

	for (uint32_t i = 0; i < vms->n; i++) {
		struct record *vm = store_get_class(e->s, CLASS_VM,
						    value_str(vms->items[i]));

		if (vm && !record_bool(vm, F_VM_is_control_domain))
			count_vm(e, vm);
	}
}

/* ---- what it does ---- */

static void on_written(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (p->hosts)
		p->hosts->evacuation_pending = false;
}

static void submit(struct evacuation *e, struct txn *t)
{
	e->p->hosts->evacuation_pending = true;
	pool_submit(e->p, t, on_written, e->p);
}

static struct txn *begin(const struct evacuation *e)
{
	struct txn *t = txn_new(record_str(e->job, F_job_author));

	txn_guard_version(t, e->job);
	return t;
}

/* Takes error; NULL: success. */
static void end(struct evacuation *e, struct value *error)
{
	const char *task = record_str(e->job, F_job_task);
	struct txn *t = begin(e);
	struct draft d;

	if (error)
		task_fail(e->p, t, task, error);
	else
		task_succeed(e->p, t, task, NULL);
	draft_edit(&d, t, e->host);
	draft_map_remove(&d, F_host_current_operations, job_mark(e->job));
	draft_write_host(&d, true);
	txn_destroy(t, value_str(e->job->ref));
	submit(e, t);
}

static void note_error(struct evacuation *e, struct value *takes_error)
{
	struct txn *t = begin(e);

	txn_set(t, e->job->cls, value_str(e->job->ref), F_job_error,
		takes_error);
	submit(e, t);
}

static void mark_target(struct txn *t, struct record *to, const char *mark)
{
	struct draft d;

	draft_edit(&d, t, to);
	draft_map_put(&d, F_host_current_operations, mark,
		      value_stringz("vm_migrate"));
	draft_write_host(&d, true);
}

static void show_progress(struct evacuation *e, struct txn *t)
{
	int64_t total = param(e->job, "total", 1);
	double done = 1.0 - (double)e->left / (double)MAX(total, 1);

	if (store_get_class(e->s, CLASS_task, record_str(e->job, F_job_task)))
		txn_set(t, class_of(CLASS_task), record_str(e->job, F_job_task),
			F_task_progress, value_float(MAX(0, MIN(done, 0.99))));
}

static void move(struct evacuation *e, struct record *vm, struct record *to)
{
	struct job_spec spec = { .kind = "migrate", .step = "receive",
				 .host = to, .source = e->host,
				 .destination = to, .task = "",
				 .author = record_str(e->job, F_job_author) };
	struct txn *t = begin(e);
	char ref[REF_LEN + 1];
	struct draft d;

	draft_edit(&d, t, vm);
	job_create(e->p, t, vm, &spec,
		   value_map_of("parent", value_ref(e->job->ref), NULL), ref);
	draft_map_put(&d, F_VM_current_operations, ref,
		      value_stringz("pool_migrate"));
	draft_copy(&d, F_VM_scheduled_to_be_resident_on, to->ref);
	mark_target(t, to, ref);
	show_progress(e, t);
	draft_write_vm(&d, e->s);
	submit(e, t);
}

static void move_next(struct evacuation *e)
{
	struct value *error = NULL;
	struct record *to = vm_choose_host(e->p, e->next, BOOT_MIGRATE, &error);

	if (to)
		move(e, e->next, to);
	else
		note_error(e, error);
}

static void step(struct evacuation *e)
{
	const struct value *error = e->job->fields[F_job_error];
	bool cancelled = value_get(e->job->fields[F_job_params], "cancel");

	if (cancelled && error->n == 0)
		note_error(e, api_error("TASK_CANCELLED",
					record_str(e->job, F_job_task), NULL));
	else if (error->n == 0 && e->next && e->moving < e->batch)
		move_next(e);
	else if (e->moving > 0)
		return;
	else if (error->n > 0)
		end(e, value_ref(error));
	else if (e->left == 0)
		end(e, NULL);
	else if (!error_is(e->refusal, "OTHER_OPERATION_IN_PROGRESS"))
		end(e, value_ref(e->refusal));
}

void job_evacuate_tick(struct pool *p, struct record *job)
{
	struct evacuation e = { .p = p, .s = store_of(p), .job = job };

	e.host = store_get_class(e.s, CLASS_host, record_str(job, F_job_host));
	if (!e.host || p->hosts->evacuation_pending)
		return;
	e.batch = (unsigned)param(job, "batch", DEFAULT_BATCH);
	count(&e);
	step(&e);
	value_unref(e.refusal);
}

void job_tell_parent(struct job_end *e, const struct value *error)
{
	const char *ref = value_get_str(e->job->fields[F_job_params], "parent");
	const struct record *parent = store_get_class(e->s, CLASS_job, ref);

	if (parent && parent->fields[F_job_error]->n == 0)
		txn_set(e->t, parent->cls, ref, F_job_error, value_ref(error));
}

/* ---- the call ---- */

static unsigned count_residents(const struct store *s,
				const struct record *host)
{
	const struct value *vms = host->fields[F_host_resident_VMs];
	unsigned n = 0;

	for (uint32_t i = 0; i < vms->n; i++) {
		const struct record *vm = store_get_class(
			s, CLASS_VM, value_str(vms->items[i]));

		n += vm && !record_bool(vm, F_VM_is_control_domain);
	}
	return n;
}

static struct value *evacuate_params(const struct req *r,
				     const struct record *host)
{
	int64_t batch = req_arg_int(r, 2);

	if (batch <= 0)
		batch = DEFAULT_BATCH;
	return value_map_of(
		"batch", value_printf("%lld", (long long)MIN(batch, MAX_BATCH)),
		"total", value_printf("%u", count_residents(req_store(r),
							    host)),
		NULL);
}

static void evacuate_start(struct req *r, struct record *host)
{
	struct job_spec spec = { .kind = "evacuate", .step = "run",
				 .host = host,
				 .author = r->session ? record_str(
					 r->session,
					 F_session_auth_user_name) : "" };
	struct txn *t = req_txn(r);
	struct draft d;

	spec.task = req_task(r, t);
	draft_edit(&d, t, host);
	draft_map_put(&d, F_host_current_operations, spec.task,
		      value_stringz("evacuate"));
	job_create(r->pool, t, NULL, &spec, evacuate_params(r, host), NULL);
	draft_write_host(&d, true);
	req_start_job(r, t);
}

void host_evacuate(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct value *error;

	if (!host)
		return;
	if (!host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_OFFLINE", value_str(host->ref), NULL);
		return;
	}
	if (host_is_evacuating(host)) {
		const struct value *ops =
			host->fields[F_host_current_operations];

		req_wait(r, value_str(host->ref),
			 api_error("OTHER_OPERATION_IN_PROGRESS", "host",
				   value_str(host->ref), "evacuate",
				   value_str(ops->items[0]), NULL));
		return;
	}
	error = host_evacuation_error(r, host);
	if (error)
		req_fail_value(r, error);
	else
		evacuate_start(r, host);
}
