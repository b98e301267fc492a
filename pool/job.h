/* Jobs from within: the table of kinds and steps, and the end of a step.
 *
 * A job's row names a kind, a step and the host that must act. That host has
 * its executor do the step's verb and submits one transaction that ends the
 * step: it holds only if the job's row has not changed meanwhile, so a step
 * ends exactly once whoever else (the leader, an administrator) tried to end
 * it too. Jobs of one VM are acted on one at a time, in order of creation.
 *
 * Fences: every job gets a higher number than all earlier ones of its VM, and
 * so do the steps after a migration's switch and in its abort. An executor
 * refuses what is older than what it has seen.
 */
#ifndef POOL_JOB_H
#define POOL_JOB_H

#include "pool/vm.h"

struct job_end {
	struct pool *p;
	const struct store *s;
	struct txn *t;
	struct record *job; /* borrowed */
	struct draft vm;
	const struct value *result; /* borrowed struct; NULL on failure */
	const struct value *error;  /* borrowed [code, ...]; NULL on success */
};

/* What the leader does with a step whose host is dead. */
enum when_dead {
	DEAD_FAIL,  /* the VM stays as it is, bound to the host */
	DEAD_BIND,  /* it may have begun: the VM counts as running there */
	DEAD_ABORT, /* nothing has been switched over: undo */
	DEAD_WAIT,  /* only that host can go on */
	DEAD_DONE,  /* nothing is lost by going on without it */
};

enum job_go {
	JOB_MAY_GO,
	JOB_WAITS,
	JOB_IS_VOID, /* done, as there is nothing to do any more */
};

struct job_step {
	const char *kind, *step;
	const char *verb; /* NULL: wait until the job's deadline */
	struct value *(*params)(const struct pool *p, const struct record *job,
				const struct record *vm);
	/* Both end in job_finish, job_fail or job_next. */
	void (*done)(struct job_end *e);
	void (*failed)(struct job_end *e);
	enum when_dead when_dead;
	bool cancellable;
	/* A host's own job: called at each change of any job and each second,
	 * instead of all above. */
	void (*tick)(struct pool *p, struct record *job);
	double progress; /* of the job when the step begins */
	double share;    /* ... and the part that the step's progress fills */
	/* Of a host's own job with a verb: asked before it is sent. params() gets
	 * no VM; done and failed end in nothing, the job is removed after them. */
	enum job_go (*may_go)(const struct store *s, const struct record *job);
};

/* NULL: of a newer version. */
const struct job_step *job_step_find(const char *kind, const char *step);
const struct job_step *job_step_of(const struct record *job);

/* ---- ends of a step (each once) ---- */
void job_finish(struct job_end *e);
void job_fail(struct job_end *e, struct value *takes_error);
/* Goes on with another step on a host. */
void job_next(struct job_end *e, const char *step, const char *host_ref);
/* Raises the job's fence and that of the jobs waiting behind it; these then
 * act on host_ref (NULL: as before). */
void job_raise_fence(struct job_end *e, const char *host_ref);
struct value *job_error(const struct job_end *e); /* for callers, owned */
struct record *job_host(const struct job_end *e, unsigned field);
void job_message(struct job_end *e, const char *name);

/* Builds and submits the transaction that ends the job's step. Exactly one of
 * result and error. False when the VM is not there any more (then the job goes
 * without it). */
bool job_end_step(struct pool *p, struct record *job,
		  const struct value *result, const struct value *error,
		  pool_txn_cb cb, void *cb_data);
/* The leader's ends: on_dead of the step with HOST_OFFLINE. */
void job_end_dead(struct pool *p, struct record *job, struct record *host);

/* ---- job_migrate.c ---- */
extern const struct job_step job_migrate_steps[]; /* ended by a NULL kind */
/* Undoes a migration before its switch. */
void job_migrate_abort(struct job_end *e, struct value *takes_error);

/* ---- job_change.c ---- */
extern const struct job_step job_change_steps[]; /* ended by a NULL kind */
/* What a job of this kind makes of a device's row. */
void device_becomes(struct draft *d, const struct store *s, const char *kind,
		    const char *vdi_ref);
void device_write(struct draft *d, const struct store *s,
		  const struct record *vm);
/* Takes the job's mark off its device, if it has one; became: the kind of the
 * job when it was done, else NULL. */
void device_unmark(const struct store *s, struct txn *t,
		   const struct record *vm, const struct record *job,
		   const char *became);

/* ---- job_image.c ---- */
/* Where this host keeps the VM's memory; the caller's. */
char *job_image_path(const struct pool *p, const struct record *vm);
enum job_go job_image_may_go(const struct store *s, const struct record *job);
struct value *job_image_params(const struct pool *p, const struct record *job,
			       const struct record *vm);
/* Param of such a job: only a file that was not written after this (Unix s). */
#define JOB_IMAGE_BEFORE "before"
void job_image_dropped(struct job_end *e);
/* A suspend has failed here: what it left of a file, be it that its executor was
 * killed, goes too. */
void job_image_unmade(struct job_end *e);
void job_image_stays(struct job_end *e);

/* ---- job_evacuate.c ---- */
void job_evacuate_tick(struct pool *p, struct record *job);
/* Leaves a failed job's error in the job that it was a part of. */
void job_tell_parent(struct job_end *e, const struct value *error);

/* ---- job_config.c ---- */
/* The executor's `config` of a VM that is or will be on host. */
struct value *job_vm_config(const struct store *s, const struct record *vm,
			    const struct record *host);
/* The part of VM.xenstore_data that reaches the guest. */
struct value *job_vm_xenstore(const struct record *vm);

/* ---- job_device.c: devices as in `config` ---- */
/* The drive with this disk in it; NULL when a domain gets none: a disk without
 * contents, a floppy. */
struct value *job_disk(const struct store *s, const struct record *vbd,
		       const char *vdi_ref, const struct record *host);
struct value *job_vif(const struct store *s, const struct record *vif);
struct value *job_vm_disks(const struct store *s, const struct record *vm,
			   const struct record *host);
struct value *job_vm_vifs(const struct store *s, const struct record *vm);

#endif
