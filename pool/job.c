/* The driver of jobs on one host: looks at the rows that name this host, has
 * the executor do what they say, and ends their steps.
 *
 * What is kept here is only what has been sent and answered. A new process
 * starts with nothing: it sends every step again, and the executor answers
 * for what it has done already.
 *
 * Before a step is sent for the first time a read barrier makes sure that this
 * member is not looking at an old pool: a host that has been away must not
 * start what has been given to another meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/job.h"

#define TICK_MS 1000
#define PROGRESS_MS 1000

struct run {
	char ref[REF_LEN + 1]; /* the job */
	char id[128];          /* of the step, as the executor knows it */
	struct value *done;    /* its answer, or one made here */
	bool sent, cancel_sent, committing;
	int64_t progress_at_ms;
};

struct job_state {
	struct map runs; /* by job ref */
	struct pool_timer timer;
	bool dirty, scanning, barrier_pending;
};

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static void scan(struct pool *p, bool may_send);

/* ---- runs ---- */

static struct run *run_get(struct pool *p, const char *job_ref)
{
	return map_getz(&p->jobs->runs, job_ref);
}

static void run_free(struct run *run)
{
	value_unref(run->done);
	free(run);
}

static void run_drop(struct pool *p, struct run *run)
{
	map_del(&p->jobs->runs, run->ref, strlen(run->ref));
	run_free(run);
}

/* The same step of the same job is the same id, whoever sends it again. */
static void step_id(const struct record *job, char *out, size_t size)
{
	snprintf(out, size, "%s:%s:%lld", record_str(job, F_job_uuid),
		 record_str(job, F_job_step),
		 (long long)record_int(job, F_job_fence));
}

static void send_cancel(struct pool *p, const char *id)
{
	struct value *msg = value_struct_of("type", value_stringz("cancel"),
					    "id", value_stringz(id), NULL);

	p->hooks.executor_send(p->hooks.data, msg);
	value_unref(msg);
}

/* The step went on without us: what was sent is of no use any more. */
static void run_stop(struct pool *p, struct run *run)
{
	if (run->sent && !run->done && !run->cancel_sent)
		send_cancel(p, run->id);
}

static struct run *run_for(struct pool *p, const struct record *job)
{
	struct run *run = run_get(p, value_str(job->ref));
	char id[sizeof run->id];

	step_id(job, id, sizeof id);
	if (run && !strcmp(run->id, id))
		return run;
	if (run) {
		run_stop(p, run);
		run_drop(p, run);
	}
	run = xcalloc(1, sizeof *run);
	snprintf(run->ref, sizeof run->ref, "%s", value_str(job->ref));
	strcpy(run->id, id);
	map_put(&p->jobs->runs, run->ref, strlen(run->ref), run);
	return run;
}

/* ---- answers ---- */

static struct value *done_failed(struct value *takes_error)
{
	return value_struct_of("ok", value_bool(false), "error", takes_error,
			       "result", value_struct_new(0), NULL);
}

static struct value *done_ok(void)
{
	return value_struct_of("ok", value_bool(true), "error",
			       value_set_empty(), "result",
			       value_struct_new(0), NULL);
}

struct commit {
	struct pool *p;
	char ref[REF_LEN + 1], id[128];
	bool failed;
};

/* A failure may have left the domain in another state than the row says. */
static void ask_for_state(struct pool *p)
{
	struct value *msg = value_struct_of("type", value_stringz("list"),
					    NULL);

	p->hooks.executor_send(p->hooks.data, msg);
	value_unref(msg);
}

static void on_committed(void *data, int error, struct txn_result result)
{
	struct commit *c = data;
	struct pool *p = c->p;
	struct run *run = p->jobs ? run_get(p, c->ref) : NULL;
	bool again = error < 0 || result.status != TXN_OK;
	bool failed = c->failed;

	if (run && !strcmp(run->id, c->id))
		run->committing = false;
	if (error == 0 && again && result.status != TXN_CONFLICT)
		log_error("a job's result does not fit: status %d, item %u",
			  (int)result.status, result.item);
	free(c);
	if (!p->jobs)
		return;
	if (!again && failed)
		ask_for_state(p);
	/* A conflict is tried again at once, on what is there now. */
	if (error == 0 && result.status == TXN_CONFLICT)
		pool_timer_arm(p, &p->jobs->timer, 0);
}

static void commit(struct pool *p, struct run *run, struct record *job)
{
	struct commit *c = xcalloc(1, sizeof *c);
	const struct value *ok = value_get(run->done, "ok");
	const struct value *error = value_get(run->done, "error");
	bool good = ok && ok->i;
	struct value *done = value_ref(run->done);

	c->p = p;
	strcpy(c->ref, run->ref);
	strcpy(c->id, run->id);
	c->failed = !good;
	run->committing = true;
	job_end_step(p, job, good ? value_get(done, "result") : NULL,
		     good ? NULL : error, on_committed, c);
	value_unref(done);
}

/* ---- sending ---- */

static void send_step(struct pool *p, struct run *run, const struct record *job,
		      const struct job_step *step)
{
	const struct record *vm = store_get_class(store_of(p), CLASS_VM,
						  record_str(job, F_job_vm));
	const struct value *uuid = vm ? vm->fields[F_VM_uuid] : NULL;
	struct value *msg;
	int r;

	if (step->may_go)
		uuid = value_get(job->fields[F_job_params], "vm");
	if (!uuid) {
		run->done = done_failed(api_error("HANDLE_INVALID", "VM",
						  record_str(job, F_job_vm),
						  NULL));
		return;
	}
	msg = value_struct_of("type", value_stringz("job"),
			      "id", value_stringz(run->id),
			      "verb", value_stringz(step->verb),
			      "vm", value_ref((struct value *)uuid),
			      "fence", value_int(record_int(job, F_job_fence)),
			      "params", step->params(p, job, vm), NULL);
	r = p->hooks.executor_send(p->hooks.data, msg);
	if (r == 0)
		guest_config_sent(p, value_str(uuid),
				  value_get(value_get(msg, "params"),
					    "config"));
	value_unref(msg);
	run->sent = r == 0;
	if (r < 0 && r != -ENOTCONN)
		run->done = done_failed(error_internal(
			"the executor does not take the job: %s", strerror(-r)));
}

static bool is_cancelled(const struct record *job)
{
	return value_get(job->fields[F_job_params], "cancel") != NULL;
}

static struct value *cancelled(const struct record *job)
{
	return done_failed(api_error("TASK_CANCELLED",
				     record_str(job, F_job_task), NULL));
}

static void wait_until(struct pool *p, struct run *run,
		       const struct record *job, const struct job_step *step)
{
	if (step->cancellable && is_cancelled(job))
		run->done = cancelled(job);
	else if (env_wall_ms() / 1000 >= record_int(job, F_job_deadline))
		run->done = done_ok();
}

/* Returns true when the step wants to be sent but must not be yet. */
static bool consider_step(struct pool *p, struct run *run,
			  const struct record *job, const struct job_step *step,
			  bool may_send)
{
	if (run->done)
		return false;
	if (!step->verb) {
		wait_until(p, run, job, step);
		return false;
	}
	if (run->sent) {
		if (step->cancellable && is_cancelled(job) &&
		    !run->cancel_sent) {
			run->cancel_sent = true;
			send_cancel(p, run->id);
		}
		return false;
	}
	if (step->cancellable && is_cancelled(job)) {
		run->done = cancelled(job);
		return false;
	}
	if (!p->executor_up)
		return false;
	if (step->may_go)
		switch (step->may_go(store_of(p), job)) {
		case JOB_WAITS:
			return false;
		case JOB_IS_VOID:
			if (may_send)
				run->done = done_ok();
			return !may_send;
		case JOB_MAY_GO:
			break;
		}
	if (may_send)
		send_step(p, run, job, step);
	return !may_send;
}

static bool is_mine(const struct pool *p, const struct record *job)
{
	const struct record *me = pool_this_host(p);

	return me && value_equal(job->fields[F_job_host], me->ref);
}

static bool consider(struct pool *p, const char *ref, bool may_send)
{
	struct record *job = store_get_class(store_of(p), CLASS_job, ref);
	const struct job_step *step = job ? job_step_of(job) : NULL;
	bool wants = false;
	struct run *run;

	if (!step || !is_mine(p, job))
		return false;
	if (step->tick) {
		step->tick(p, job);
		return false;
	}
	if (!step->may_go &&
	    job_of_vm(store_of(p), record_str(job, F_job_vm)) != job)
		return false;
	run = run_for(p, job);
	if (!run->committing)
		wants = consider_step(p, run, job, step, may_send);
	if (run->done && !run->committing)
		commit(p, run, job);
	return wants;
}

/* ---- scanning ---- */

static char (*job_refs(struct pool *p, size_t *ret_n))[REF_LEN + 1]
{
	const struct store *s = store_of(p);
	size_t n = 0, max = store_count(s, CLASS_job);
	char(*refs)[REF_LEN + 1] = xcalloc(max + 1, sizeof *refs);

	for (struct record *j = store_first(s, CLASS_job); j && n < max;
	     j = store_next(s, j))
		snprintf(refs[n++], sizeof *refs, "%s", value_str(j->ref));
	*ret_n = n;
	return refs;
}

static void drop_stale_runs(struct pool *p)
{
	struct run *run, **stale = xcalloc(p->jobs->runs.count + 1,
					   sizeof *stale);
	size_t n = 0;

	for (size_t i = 0; (run = map_next(&p->jobs->runs, &i));) {
		const struct record *job = store_get_class(store_of(p),
							   CLASS_job, run->ref);

		if (!job || !is_mine(p, job))
			stale[n++] = run;
	}
	while (n > 0) {
		run_stop(p, stale[--n]);
		run_drop(p, stale[n]);
	}
	free(stale);
}

static void on_barrier(void *data, int error)
{
	struct pool *p = data;

	if (!p->jobs)
		return;
	p->jobs->barrier_pending = false;
	if (error == 0 && !p->jobs->scanning)
		scan(p, true);
}

static void scan_once(struct pool *p, bool may_send, bool *ret_wants)
{
	_cleanup_(freep) void *memory = NULL;
	char(*refs)[REF_LEN + 1];
	size_t n;

	p->jobs->dirty = false;
	drop_stale_runs(p);
	refs = job_refs(p, &n);
	memory = refs;
	for (size_t i = 0; i < n; i++)
		*ret_wants |= consider(p, refs[i], may_send);
}

/* Committing may apply at once and come back here. */
#define MAX_PASSES 64

static void scan(struct pool *p, bool may_send)
{
	struct job_state *s = p->jobs;
	bool wants = false;

	if (s->scanning) {
		s->dirty = true;
		return;
	}
	s->scanning = true;
	for (int i = 0; i < MAX_PASSES; i++) {
		wants = false;
		scan_once(p, may_send && i == 0, &wants);
		if (!s->dirty)
			break;
	}
	s->scanning = false;
	if (!wants || s->barrier_pending)
		return;
	s->barrier_pending = true;
	p->hooks.read_barrier(p->hooks.data, on_barrier, p);
}

static void on_tick(struct pool *p, void *data)
{
	scan(p, false);
	pool_timer_arm(p, &p->jobs->timer, TICK_MS);
}

/* ---- messages of the executor ---- */

static struct run *run_by_id(struct pool *p, const char *id)
{
	struct run *run;

	for (size_t i = 0; (run = map_next(&p->jobs->runs, &i));)
		if (!strcmp(run->id, id))
			return run;
	return NULL;
}

static void on_progress(struct pool *p, struct run *run,
			const struct value *msg)
{
	const struct record *job = store_get_class(store_of(p), CLASS_job,
						   run->ref);
	const struct job_step *step = job ? job_step_of(job) : NULL;
	const struct value *f = value_get(msg, "progress");
	const char *task = job ? record_str(job, F_job_task) : "";
	double progress;
	struct txn *t;

	if (!step || !f || f->kind != VALUE_FLOAT || !(f->d >= 0 &&
						       f->d <= 1) ||
	    !store_get_class(store_of(p), CLASS_task, task) ||
	    env_mono_ms() < run->progress_at_ms + PROGRESS_MS)
		return;
	run->progress_at_ms = env_mono_ms();
	progress = step->progress + step->share * f->d;
	t = txn_new(record_str(job, F_job_author));
	txn_guard_version(t, job);
	txn_set(t, class_of(CLASS_task), task, F_task_progress,
		value_float(MIN(progress, 0.99)));
	pool_submit(p, t, NULL, NULL);
}

static void job_message_in(struct pool *p, const struct value *msg)
{
	const char *type = value_get_str(msg, "type");
	struct run *run;

	if (strcmp(type, "done") != 0 && strcmp(type, "progress") != 0)
		return;
	run = run_by_id(p, value_get_str(msg, "id"));
	if (!run || run->done)
		return;
	if (!strcmp(type, "progress")) {
		on_progress(p, run, msg);
		return;
	}
	run->done = value_ref(msg);
	scan(p, false);
}

static void job_executor_connected(struct pool *p, bool up)
{
	struct run *run;

	for (size_t i = 0; (run = map_next(&p->jobs->runs, &i));)
		run->sent = run->cancel_sent = false;
	if (up)
		scan(p, false);
}

/* ---- module ---- */

static int job_init(struct pool *p)
{
	p->jobs = xcalloc(1, sizeof *p->jobs);
	map_init(&p->jobs->runs);
	pool_timer_init(&p->jobs->timer, on_tick, NULL);
	pool_timer_arm(p, &p->jobs->timer, TICK_MS);
	return 0;
}

static void job_free(struct pool *p)
{
	struct run *run;

	if (!p->jobs)
		return;
	pool_timer_cancel(p, &p->jobs->timer);
	for (size_t i = 0; (run = map_next(&p->jobs->runs, &i));)
		run_free(run);
	map_deinit(&p->jobs->runs);
	free(TAKE_PTR(p->jobs));
}

static void job_changed(struct pool *p, const struct change *c)
{
	if (c->cls->id == CLASS_job)
		p->jobs->dirty = true;
}

static void job_applied(struct pool *p, uint64_t generation)
{
	if (p->jobs->dirty && !p->jobs->scanning)
		scan(p, false);
}

static void job_reloaded(struct pool *p)
{
	scan(p, false);
}

const struct pool_module job_module = {
	.name = "job",
	.init = job_init,
	.free = job_free,
	.changed = job_changed,
	.applied = job_applied,
	.reloaded = job_reloaded,
	.executor_message = job_message_in,
	.executor_connected = job_executor_connected,
};

const struct handler_def job_handlers[] = { { 0, NULL } };
