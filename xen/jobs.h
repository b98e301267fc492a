/* The executor's jobs: a queue a VM, worker threads that take the VMs in turn,
 * and results that are kept until the daemon has got them.
 *
 * A job's id is what makes it one job: asked for again while it waits or runs
 * nothing happens, and when it has ended lately its result is told again.
 */
#ifndef XEN_JOBS_H
#define XEN_JOBS_H

#include "xen/verbs.h"

#define JOBS_MAX_PENDING 4096 /* waiting and running */
#define JOBS_MAX_ENDED 1024   /* results kept, told or not */
#define JOBS_MAX_WORKERS 64

struct jobs;

struct jobs_config {
	const struct xen_ops *ops;
	struct xen *xen;
	unsigned n_workers; /* 1..JOBS_MAX_WORKERS */
	const struct allowed *allowed; /* borrowed */
	/* Something is to be told; any thread. */
	void (*wake)(void *data);
	void *data;
};

int jobs_start(const struct jobs_config *cfg, struct jobs **ret);
/* Aborts what runs, forgets what waits, joins the workers. Neither is told: the
 * daemon asks again, as after a crash. */
void jobs_stop(struct jobs *j);

/* The rest from one thread. msg: a `job`, of checked form. */
void jobs_submit(struct jobs *j, const struct value *msg);
void jobs_cancel(struct jobs *j, const char *id);

/* The oldest `done` that was not told yet, the caller's reference; or NULL. */
struct value *jobs_next_done(struct jobs *j);
/* That one is on its way. */
void jobs_told(struct jobs *j, const struct value *done);
/* A `progress` that is news, or NULL. */
struct value *jobs_next_progress(struct jobs *j);

#endif
