#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "schema/call.h"
#include "xen/jobs.h"
#include "xen/message.h"
#include "xen/verbs.h"

/* Bytes of one parameter of an error. */
#define MAX_ERROR_TEXT 2048
/* Progress is told in steps of so many thousandths. */
#define PROGRESS_STEP 50

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_ENDED };

/* The jobs of one VM that have not ended. */
struct queue {
	char vm[UUID_LEN + 1];
	int64_t fence;    /* highest that was asked for while this is here */
	struct list jobs; /* in order; the first may be running */
	struct list link; /* among the ready; empty while one runs */
};

struct job {
	struct jobs *jobs;
	char id[EXEC_MAX_ID + 1];
	char vm[UUID_LEN + 1];
	enum job_state state;
	const struct verb *verb;
	struct value *params;
	struct queue *queue;
	struct list link;    /* queue's, then untold or told */
	struct list running; /* jobs->running */
	struct xen_call call;
	atomic_int progress; /* thousandths */
	int told_progress;
	bool told;
	struct value *done; /* the message */
};

struct worker {
	struct jobs *jobs;
	pthread_t thread;
	char name[24];
	void *backend;
};

struct jobs {
	struct jobs_config cfg;
	pthread_mutex_t lock;
	pthread_cond_t ready_cond;
	bool stop;
	struct map by_id;  /* struct job, all */
	struct map queues; /* struct queue */
	struct list ready; /* struct queue */
	struct list running, untold, told;
	size_t n_pending, n_ended;
	struct worker workers[JOBS_MAX_WORKERS];
	unsigned n_workers;
};

/* ---- results ---- */

static void job_free(struct job *job)
{
	struct jobs *j = job->jobs;

	map_del(&j->by_id, job->id, strlen(job->id));
	list_remove(&job->link);
	list_remove(&job->running);
	value_unref(job->params);
	value_unref(job->done);
	value_unref(job->call.error);
	free(job);
}

static struct job *oldest_ended(struct jobs *j)
{
	struct list *l = list_empty(&j->told) ? &j->untold : &j->told;

	return list_entry(l->next, struct job, link);
}

static void ended_trim(struct jobs *j)
{
	while (j->n_ended > JOBS_MAX_ENDED) {
		struct job *job = oldest_ended(j);

		if (!job->told)
			log_warn("job %s: nobody came for its result",
				 job->id);
		job_free(job);
		j->n_ended--;
	}
}

/* Takes error and result; either may be NULL. */
static void job_end(struct job *job, struct value *error, struct value *result)
{
	struct jobs *j = job->jobs;

	job->done = value_struct_of(
		"type", value_stringz("done"), "id", value_stringz(job->id),
		"vm", value_stringz(job->vm), "ok", value_bool(!error),
		"error", error ? error : value_set_empty(),
		"result", result ? result : value_struct_new(0), NULL);
	value_unref(TAKE_PTR(job->params));
	job->state = JOB_ENDED;
	job->queue = NULL;
	list_remove(&job->link);
	list_remove(&job->running);
	list_push(&j->untold, &job->link);
	j->n_ended++;
	ended_trim(j);
	j->cfg.wake(j->cfg.data);
}

struct value *jobs_next_done(struct jobs *j)
{
	struct value *v = NULL;

	pthread_mutex_lock(&j->lock);
	if (!list_empty(&j->untold))
		v = value_ref(
			list_entry(j->untold.next, struct job, link)->done);
	pthread_mutex_unlock(&j->lock);
	return v;
}

void jobs_told(struct jobs *j, const struct value *done)
{
	pthread_mutex_lock(&j->lock);
	list_for_each_safe(l, &j->untold) {
		struct job *job = list_entry(l, struct job, link);

		if (job->done != done)
			continue;
		job->told = true;
		list_remove(&job->link);
		list_push(&j->told, &job->link);
		break;
	}
	pthread_mutex_unlock(&j->lock);
}

/* ---- progress ---- */

static void on_progress(struct xen_call *c, double fraction)
{
	struct job *job = container_of(c, struct job, call);
	int now = (int)(fmin(fmax(fraction, 0.0), 1.0) * 1000);
	int before = atomic_exchange(&job->progress, now);

	if (now / PROGRESS_STEP != before / PROGRESS_STEP)
		job->jobs->cfg.wake(job->jobs->cfg.data);
}

struct value *jobs_next_progress(struct jobs *j)
{
	struct value *v = NULL;

	pthread_mutex_lock(&j->lock);
	list_for_each(l, &j->running) {
		struct job *job = list_entry(l, struct job, running);
		int now = atomic_load(&job->progress);

		if (v ||
		    now / PROGRESS_STEP == job->told_progress / PROGRESS_STEP)
			continue;
		job->told_progress = now;
		v = value_struct_of("type", value_stringz("progress"),
				    "id", value_stringz(job->id),
				    "progress", value_float(now / 1000.0), NULL);
	}
	pthread_mutex_unlock(&j->lock);
	return v;
}

/* ---- queues ---- */

static struct queue *queue_get(struct jobs *j, const char *vm)
{
	struct queue *q = map_getz(&j->queues, vm);

	if (q)
		return q;
	q = xcalloc(1, sizeof(*q));
	memcpy(q->vm, vm, sizeof(q->vm));
	list_init(&q->jobs);
	list_init(&q->link);
	map_put(&j->queues, q->vm, strlen(q->vm), q);
	return q;
}

static void queue_drop_if_empty(struct jobs *j, struct queue *q)
{
	if (!list_empty(&q->jobs))
		return;
	map_del(&j->queues, q->vm, strlen(q->vm));
	list_remove(&q->link);
	free(q);
}

static struct job *queue_first(struct queue *q)
{
	return list_empty(&q->jobs)
		       ? NULL
		       : list_entry(q->jobs.next, struct job, link);
}

/* Puts a VM with work and no worker among the ready. */
static void queue_ready(struct jobs *j, struct queue *q)
{
	struct job *job = queue_first(q);

	if (!job || job->state == JOB_RUNNING || !list_empty(&q->link))
		return;
	list_push(&j->ready, &q->link);
	pthread_cond_signal(&j->ready_cond);
}

static void job_leave(struct job *job, struct value *error,
		      struct value *result)
{
	struct jobs *j = job->jobs;
	struct queue *q = job->queue;

	j->n_pending--;
	job_end(job, error, result);
	queue_ready(j, q);
	queue_drop_if_empty(j, q);
}

/* ---- workers ---- */

static struct value *fenced(const char *vm, int64_t given, int64_t highest)
{
	char a[24], b[24];

	snprintf(a, sizeof(a), "%lld", (long long)given);
	snprintf(b, sizeof(b), "%lld", (long long)highest);
	return api_error("FENCED", vm, a, b, NULL);
}

static int run_fenced(struct job *job, struct verb_run *r)
{
	struct jobs *j = job->jobs;
	int64_t highest = 0;
	int rc = 0;

	if (verb_is_fenced(job->verb))
		rc = j->cfg.ops->fence_raise(j->cfg.xen, job->vm,
					     job->call.fence, &highest);
	if (rc == XEN_FAILED)
		return xen_fail_value(
			&job->call, fenced(job->vm, job->call.fence, highest));
	return rc < 0 ? rc : verb_run(job->verb, r);
}

/* A parameter of an error may hold what a peer or a guest has said. */
static struct value *error_cut(struct value *error)
{
	for (uint32_t i = 0; i < error->n; i++) {
		const struct value *v = error->items[i];
		uint32_t n = MIN(v->n, (uint32_t)MAX_ERROR_TEXT);

		if (n == v->n)
			continue;
		while (n > 0 && ((unsigned char)v->s[n] & 0xc0) == 0x80)
			n--;
		error->items[i] = value_string(v->s, n);
		value_unref((struct value *)v);
	}
	return error;
}

static struct value *error_of(struct job *job, int rc)
{
	struct value *error = TAKE_PTR(job->call.error);

	if (rc < 0) {
		value_unref(error);
		return api_error("INTERNAL_ERROR", strerror(-rc), NULL);
	}
	xassert(error);
	if (value_is_str(error->items[0], "TASK_CANCELLED")) {
		value_unref(error);
		return api_error("TASK_CANCELLED", job->id, NULL);
	}
	return error_cut(error);
}

/* Without the lock. */
static void job_run(struct job *job, struct value **ret_error,
		    struct value **ret_result)
{
	struct jobs *j = job->jobs;
	struct verb_run r = {
		.ops = j->cfg.ops,
		.xen = j->cfg.xen,
		.call = &job->call,
		.params = job->params,
		.allowed = j->cfg.allowed,
	};
	int rc = run_fenced(job, &r);

	*ret_error = rc == 0 ? NULL : error_of(job, rc);
	*ret_result = r.result;
	if (rc != 0)
		value_unref(TAKE_PTR(*ret_result));
	log_info("job %s: %s of %s: %s", job->id, verb_name(job->verb), job->vm,
		 *ret_error ? value_str((*ret_error)->items[0]) : "done");
}

static bool job_begin(struct job *job, struct worker *w)
{
	struct jobs *j = job->jobs;

	job->state = JOB_RUNNING;
	list_push(&j->running, &job->running);
	job->call.worker = w->backend;
	job->call.abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return job->call.abort_fd >= 0;
}

/* With the lock; drops it while the job runs. */
static void worker_turn(struct worker *w)
{
	struct jobs *j = w->jobs;
	struct queue *q = list_entry(j->ready.next, struct queue, link);
	struct job *job = queue_first(q);
	struct value *error = NULL, *result = NULL;

	list_remove(&q->link);
	if (verb_is_fenced(job->verb) && job->call.fence < q->fence) {
		job_leave(job, fenced(job->vm, job->call.fence, q->fence),
			  NULL);
		return;
	}
	if (!job_begin(job, w)) {
		job_leave(job,
			  api_error("INTERNAL_ERROR", strerror(errno), NULL),
			  NULL);
		return;
	}
	pthread_mutex_unlock(&j->lock);
	job_run(job, &error, &result);
	pthread_mutex_lock(&j->lock);
	close(job->call.abort_fd);
	job->call.abort_fd = -1;
	job_leave(job, error, result);
}

static void *worker_main(void *data)
{
	struct worker *w = data;
	struct jobs *j = w->jobs;

	log_set_thread(w->name);
	if (j->cfg.ops->worker_new &&
	    j->cfg.ops->worker_new(j->cfg.xen, &w->backend) < 0) {
		log_error("worker cannot reach the hypervisor");
		exit(1);
	}
	pthread_mutex_lock(&j->lock);
	while (true) {
		while (!j->stop && list_empty(&j->ready))
			pthread_cond_wait(&j->ready_cond, &j->lock);
		if (j->stop)
			break;
		worker_turn(w);
	}
	pthread_mutex_unlock(&j->lock);
	if (j->cfg.ops->worker_free)
		j->cfg.ops->worker_free(j->cfg.xen, w->backend);
	return NULL;
}

/* ---- from the daemon ---- */

static struct job *job_new(struct jobs *j, const struct value *msg)
{
	struct job *job = xcalloc(1, sizeof(*job));

	job->jobs = j;
	list_init(&job->link);
	list_init(&job->running);
	snprintf(job->id, sizeof(job->id), "%s", value_get_str(msg, "id"));
	snprintf(job->vm, sizeof(job->vm), "%s", value_get_str(msg, "vm"));
	job->verb = verb_find(value_get_str(msg, "verb"));
	job->params = value_ref(value_get(msg, "params"));
	job->call.vm = job->vm;
	job->call.fence = value_get_int(msg, "fence", 0);
	job->call.abort_fd = -1;
	job->call.progress = on_progress;
	map_put(&j->by_id, job->id, strlen(job->id), job);
	return job;
}

/* NULL, or why this job cannot even wait for its turn. */
static struct value *refusal(struct jobs *j, struct job *job,
			     const struct value *msg)
{
	if (!domain_uuid(value_get_str(msg, "vm"), job->vm))
		return api_error("INVALID_VALUE", "vm", "not a uuid", NULL);
	if (!job->verb)
		return api_error("NOT_IMPLEMENTED", value_get_str(msg, "verb"),
				 NULL);
	if (job->call.fence < 0)
		return api_error("INVALID_VALUE", "fence", "negative", NULL);
	if (j->n_pending >= JOBS_MAX_PENDING)
		return api_error("TOO_MANY_PENDING_TASKS", NULL);
	return NULL;
}

static void job_enqueue(struct jobs *j, struct job *job)
{
	struct queue *q = queue_get(j, job->vm);

	job->queue = q;
	if (verb_is_fenced(job->verb))
		q->fence = MAX(q->fence, job->call.fence);
	list_push(&q->jobs, &job->link);
	j->n_pending++;
	queue_ready(j, q);
}

/* The same job again. */
static void tell_again(struct jobs *j, struct job *job)
{
	if (job->state != JOB_ENDED || !job->told)
		return;
	job->told = false;
	list_remove(&job->link);
	list_push(&j->untold, &job->link);
	j->cfg.wake(j->cfg.data);
}

void jobs_submit(struct jobs *j, const struct value *msg)
{
	struct value *error;
	struct job *job;

	pthread_mutex_lock(&j->lock);
	job = map_getz(&j->by_id, value_get_str(msg, "id"));
	if (job) {
		tell_again(j, job);
	} else {
		job = job_new(j, msg);
		error = refusal(j, job, msg);
		if (error)
			job_end(job, error_cut(error), NULL);
		else
			job_enqueue(j, job);
	}
	pthread_mutex_unlock(&j->lock);
}

static void job_abort(struct job *job)
{
	uint64_t one = 1;

	atomic_store(&job->call.aborted, true);
	if (write(job->call.abort_fd, &one, sizeof(one)) < 0)
		xassert(errno == EAGAIN);
}

void jobs_cancel(struct jobs *j, const char *id)
{
	struct job *job;

	pthread_mutex_lock(&j->lock);
	job = map_getz(&j->by_id, id);
	if (job && job->state == JOB_WAITING)
		job_leave(job, api_error("TASK_CANCELLED", job->id, NULL),
			  NULL);
	else if (job && job->state == JOB_RUNNING)
		job_abort(job);
	pthread_mutex_unlock(&j->lock);
}

/* ---- start and stop ---- */

int jobs_start(const struct jobs_config *cfg, struct jobs **ret)
{
	struct jobs *j = xcalloc(1, sizeof(*j));

	xassert(cfg->n_workers > 0 && cfg->n_workers <= JOBS_MAX_WORKERS);
	j->cfg = *cfg;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->ready_cond, NULL);
	map_init(&j->by_id);
	map_init(&j->queues);
	list_init(&j->ready);
	list_init(&j->running);
	list_init(&j->untold);
	list_init(&j->told);
	for (unsigned i = 0; i < cfg->n_workers; i++) {
		struct worker *w = &j->workers[i];
		int r;

		w->jobs = j;
		snprintf(w->name, sizeof(w->name), "worker-%u", i);
		r = -pthread_create(&w->thread, NULL, worker_main, w);
		if (r < 0) {
			jobs_stop(j);
			return r;
		}
		j->n_workers++;
	}
	*ret = j;
	return 0;
}

static void jobs_free(struct jobs *j)
{
	struct queue *q;
	struct job *job;

	for (size_t i = 0; (job = map_next(&j->by_id, &i));)
		job_free(job);
	for (size_t i = 0; (q = map_next(&j->queues, &i));)
		free(q);
	map_deinit(&j->by_id);
	map_deinit(&j->queues);
	pthread_cond_destroy(&j->ready_cond);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

void jobs_stop(struct jobs *j)
{
	pthread_mutex_lock(&j->lock);
	j->stop = true;
	list_for_each(l, &j->running)
		job_abort(list_entry(l, struct job, running));
	pthread_cond_broadcast(&j->ready_cond);
	pthread_mutex_unlock(&j->lock);
	for (unsigned i = 0; i < j->n_workers; i++)
		pthread_join(j->workers[i].thread, NULL);
	jobs_free(j);
}
