/* The leader's watch over jobs whose host has gone. */
#include <string.h>

#include "base/env.h"
#include "pool/job.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static bool is_dead(const struct pool *p, const struct record *host)
{
	return host && !host_is_live(p, host) && !host_counts_live(p, host);
}

/* Only that host can go on; its caller need not wait with the job. */
static void tell_caller(struct pool *p, struct record *job, struct record *host)
{
	struct txn *t;

	if (!value_is_str(job->fields[F_job_state], "aborting") ||
	    !store_get_class(store_of(p), CLASS_task, record_str(job,
								 F_job_task)))
		return;
	t = txn_new("leader");
	txn_guard_version(t, job);
	task_fail(p, t, record_str(job, F_job_task),
		  job->fields[F_job_error]->n > 0 ?
			  value_ref(job->fields[F_job_error]) :
			  api_error("HOST_OFFLINE", value_str(host->ref),
				    NULL));
	if (txn_is_empty(t))
		txn_free(t);
	else
		pool_submit(p, t, NULL, NULL);
}

/* A migration's send also needs the other end. */
static struct record *dead_host_of(const struct pool *p,
				   const struct record *job,
				   const struct job_step *step)
{
	struct record *host = store_get_class(store_of(p), CLASS_host,
					      record_str(job, F_job_host));
	struct record *to = store_get_class(store_of(p), CLASS_host,
					    record_str(job, F_job_destination));

	if (is_dead(p, host))
		return host;
	return step->when_dead == DEAD_ABORT && is_dead(p, to) ? to : NULL;
}

static void watch(struct pool *p, const char *ref)
{
	struct record *job = store_get_class(store_of(p), CLASS_job, ref);
	const struct job_step *step = job ? job_step_of(job) : NULL;
	struct record *host;

	if (!step || step->may_go || (!step->tick &&
		      job_of_vm(store_of(p), record_str(job, F_job_vm)) != job))
		return;
	host = dead_host_of(p, job, step);
	if (!host)
		return;
	if (step->when_dead == DEAD_WAIT)
		tell_caller(p, job, host);
	else
		job_end_dead(p, job, host);
}

void job_leader_tick(struct pool *p)
{
	const struct store *s = store_of(p);
	size_t n = 0, max = store_count(s, CLASS_job);
	char(*refs)[REF_LEN + 1];

	if (max == 0)
		return;
	refs = xcalloc(max, sizeof *refs);
	for (struct record *j = store_first(s, CLASS_job); j && n < max;
	     j = store_next(s, j))
		strncpy(refs[n++], value_str(j->ref), REF_LEN);
	for (size_t i = 0; i < n; i++)
		watch(p, refs[i]);
	free(refs);
}
