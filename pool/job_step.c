/* Kinds of jobs as tables: what the executor is told, what its answer means. */
#include <string.h>

#include "base/env.h"
#include "pool/job.h"

#define CLEAN_TIMEOUT_S 1200

/* ---- parameters of verbs ---- */

static bool job_param_is(const struct record *job, const char *key)
{
	return !strcmp(value_get_str(job->fields[F_job_params], key), "true");
}

/* For the host that acts in this step. */
static struct value *config_of(const struct pool *p, const struct record *job,
			       const struct record *vm)
{
	const struct store *s = p->hooks.store(p->hooks.data);

	return job_vm_config(s, vm, store_get_class(s, CLASS_host,
						    record_str(job,
							       F_job_host)));
}

static struct value *no_params(const struct pool *p, const struct record *job,
			       const struct record *vm)
{
	return value_struct_new(0);
}

static struct value *start_params(const struct pool *p,
				  const struct record *job,
				  const struct record *vm)
{
	return value_struct_of(
		"config", config_of(p, job, vm),
		"paused", value_bool(job_param_is(job, "paused")), NULL);
}

static struct value *timeout_params(const struct pool *p,
				    const struct record *job,
				    const struct record *vm)
{
	int64_t s = CLEAN_TIMEOUT_S;

	if (value_is_str(job->fields[F_job_kind], "shutdown") &&
	    record_int(vm, F_VM_shutdown_delay) > 0)
		s = MIN(s, record_int(vm, F_VM_shutdown_delay));
	return value_struct_of("timeout_s", value_int(s), NULL);
}

static struct value *clean_reboot_params(const struct pool *p,
					 const struct record *job,
					 const struct record *vm)
{
	return value_struct_of("timeout_s", value_int(CLEAN_TIMEOUT_S),
			       "config", config_of(p, job, vm), NULL);
}

static struct value *config_params(const struct pool *p,
				   const struct record *job,
				   const struct record *vm)
{
	return value_struct_of("config", config_of(p, job, vm), NULL);
}

static struct value *suspend_params(const struct pool *p,
				    const struct record *job,
				    const struct record *vm)
{
	_cleanup_(freep) char *path = job_image_path(p, vm);

	return value_struct_of("image", value_stringz(path), "timeout_s",
			       value_int(CLEAN_TIMEOUT_S), NULL);
}

static struct value *resume_params(const struct pool *p,
				   const struct record *job,
				   const struct record *vm)
{
	const struct record *vdi = store_get_class(
		p->hooks.store(p->hooks.data), CLASS_VDI,
		record_str(vm, F_VM_suspend_VDI));
	_cleanup_(freep) char *made = job_image_path(p, vm);
	const char *path = vdi ? value_get_str(vdi->fields[F_VDI_sm_config],
					       "path") : "";

	return value_struct_of(
		"image", value_stringz(*path ? path : made),
		"config", config_of(p, job, vm),
		"paused", value_bool(job_param_is(job, "paused")), NULL);
}

/* ---- ends ---- */

static void failed(struct job_end *e)
{
	draft_null(&e->vm, F_VM_scheduled_to_be_resident_on);
	job_fail(e, job_error(e));
}

/* The caller of VM.start waits for start_delay (and of a clean shutdown for
 * shutdown_delay) seconds more. */
static void finish_after(struct job_end *e, unsigned delay_field)
{
	int64_t delay = record_int(e->vm.now, delay_field);

	if (delay <= 0) {
		job_finish(e);
		return;
	}
	txn_set(e->t, class_of(CLASS_job), value_str(e->job->ref),
		F_job_deadline,
		value_datetime(env_wall_ms() / 1000 + MIN(delay, 3600)));
	job_next(e, "delay", record_str(e->job, F_job_host));
}

static void start_done(struct job_end *e)
{
	struct record *host = job_host(e, F_job_host);

	if (!host) {
		job_fail(e, api_error("HOST_OFFLINE",
				      record_str(e->job, F_job_host), NULL));
		return;
	}
	vm_becomes_live(e->p, &e->vm, host, value_get_int(e->result, "domid",
							  -1),
			job_param_is(e->job, "paused"), true);
	job_message(e, "VM_STARTED");
	finish_after(e, F_VM_start_delay);
}

static void resume_done(struct job_end *e)
{
	struct record *host = job_host(e, F_job_host);

	if (!host) {
		failed(e);
		return;
	}
	vm_becomes_live(e->p, &e->vm, host, value_get_int(e->result, "domid",
							  -1),
			job_param_is(e->job, "paused"), false);
	vm_drop_image(e->p, &e->vm);
	job_message(e, "VM_RESUMED");
	job_finish(e);
}

static void pause_done(struct job_end *e)
{
	draft_str(&e->vm, F_VM_power_state, "Paused");
	job_message(e, "VM_PAUSED");
	job_finish(e);
}

static void unpause_done(struct job_end *e)
{
	draft_str(&e->vm, F_VM_power_state, "Running");
	job_message(e, "VM_UNPAUSED");
	job_finish(e);
}

/* An older job may have got the VM there already. */
static void halt(struct job_end *e)
{
	if (value_is_str(e->vm.now->fields[F_VM_power_state], "Halted"))
		return;
	if (value_is_str(e->vm.now->fields[F_VM_power_state], "Suspended"))
		vm_discard_image(e->p, &e->vm);
	vm_becomes_halted(e->p, &e->vm);
	job_message(e, "VM_SHUTDOWN");
}

static void clean_shutdown_done(struct job_end *e)
{
	halt(e);
	draft_bool(&e->vm, F_VM_ha_always_run, false);
	finish_after(e, F_VM_shutdown_delay);
}

static void hard_shutdown_done(struct job_end *e)
{
	halt(e);
	draft_bool(&e->vm, F_VM_ha_always_run, false);
	job_finish(e);
}

static void shutdown_clean_failed(struct job_end *e)
{
	if (error_is(e->error, "TASK_CANCELLED"))
		failed(e);
	else
		job_next(e, "hard", record_str(e->job, F_job_host));
}

static void reboot_done(struct job_end *e)
{
	struct record *host = job_host(e, F_job_host);

	if (!host) {
		failed(e);
		return;
	}
	vm_becomes_live(e->p, &e->vm, host, value_get_int(e->result, "domid",
							  -1),
			false, true);
	job_message(e, "VM_REBOOTED");
	job_finish(e);
}

/* The guest has waited long enough (vm_reconcile.c). */
static void reboot_due(struct job_end *e)
{
	job_next(e, "run", record_str(e->job, F_job_host));
}

static void suspend_done(struct job_end *e)
{
	struct record *host = job_host(e, F_job_host);
	_cleanup_(freep) char *path = job_image_path(e->p, e->vm.now);

	if (!host) {
		failed(e);
		return;
	}
	vm_add_image(&e->vm, value_get_str(e->job->fields[F_job_params], "sr"),
		     host, path);
	vm_becomes_suspended(e->p, &e->vm);
	job_message(e, "VM_SUSPENDED");
	job_finish(e);
}

static void suspend_failed(struct job_end *e)
{
	job_image_unmade(e);
	failed(e);
}

static void finished(struct job_end *e)
{
	job_finish(e);
}

static const struct job_step plain_steps[] = {
	{ "evacuate", "run", NULL, NULL, NULL, NULL, DEAD_FAIL, true,
	  job_evacuate_tick, 0, 1, NULL },
	{ "start", "run", "start", start_params, start_done, failed,
	  DEAD_BIND, true, NULL, 0, 1, NULL },
	{ "start", "delay", NULL, NULL, finished, finished,
	  DEAD_DONE, false, NULL, 1, 0, NULL },
	{ "resume", "run", "resume", resume_params, resume_done, failed,
	  DEAD_WAIT, false, NULL, 0, 1, NULL },
	{ "pause", "run", "pause", no_params, pause_done, failed,
	  DEAD_FAIL, false, NULL, 0, 1, NULL },
	{ "unpause", "run", "unpause", no_params, unpause_done, failed,
	  DEAD_FAIL, false, NULL, 0, 1, NULL },
	{ "clean_shutdown", "run", "clean_shutdown", timeout_params,
	  clean_shutdown_done, failed, DEAD_FAIL, true, NULL, 0, 1, NULL },
	{ "clean_shutdown", "delay", NULL, NULL, finished, finished,
	  DEAD_DONE, false, NULL, 1, 0, NULL },
	{ "hard_shutdown", "run", "hard_shutdown", no_params,
	  hard_shutdown_done, failed, DEAD_FAIL, false, NULL, 0, 1, NULL },
	{ "shutdown", "run", "clean_shutdown", timeout_params,
	  clean_shutdown_done, shutdown_clean_failed,
	  DEAD_FAIL, true, NULL, 0, 0.9, NULL },
	{ "shutdown", "hard", "hard_shutdown", no_params,
	  hard_shutdown_done, failed, DEAD_FAIL, false, NULL, 0.9, 0.1, NULL },
	{ "shutdown", "delay", NULL, NULL, finished, finished,
	  DEAD_DONE, false, NULL, 1, 0, NULL },
	{ "clean_reboot", "run", "clean_reboot", clean_reboot_params,
	  reboot_done, failed, DEAD_FAIL, true, NULL, 0, 1, NULL },
	{ "hard_reboot", "wait", NULL, NULL, reboot_due, failed,
	  DEAD_FAIL, true, NULL, 0, 0, NULL },
	{ "hard_reboot", "run", "hard_reboot", config_params,
	  reboot_done, failed, DEAD_FAIL, false, NULL, 0, 1, NULL },
	{ "suspend", "run", "suspend", suspend_params, suspend_done,
	  suspend_failed, DEAD_WAIT, true, NULL, 0, 1, NULL },
	{ "drop_image", "run", "drop_image", job_image_params,
	  job_image_dropped, job_image_stays, DEAD_WAIT, false, NULL, 0, 1,
	  job_image_may_go },
};

static const struct job_step *find_in(const struct job_step *list, size_t n,
				      const char *kind, const char *step)
{
	for (size_t i = 0; i < n && list[i].kind; i++)
		if (!strcmp(list[i].kind, kind) && !strcmp(list[i].step, step))
			return &list[i];
	return NULL;
}

const struct job_step *job_step_find(const char *kind, const char *step)
{
	const struct job_step *found = find_in(plain_steps,
					       ARRAY_LEN(plain_steps), kind,
					       step);

	if (!found)
		found = find_in(job_change_steps, SIZE_MAX, kind, step);
	return found ? found : find_in(job_migrate_steps, SIZE_MAX, kind, step);
}

const struct job_step *job_step_of(const struct record *job)
{
	return job_step_find(record_str(job, F_job_kind),
			     record_str(job, F_job_step));
}
