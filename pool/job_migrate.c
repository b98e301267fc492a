/* Live migration.
 *
 *   receive  (destination)  an empty copy waits for the state
 *   send     (source)       state goes over; the source's copy is left paused
 *            -- the transaction that ends send is the switch: resident_on
 *               becomes the destination, the fence rises --
 *   activate (destination)  the copy is unpaused
 *   finish   (source)       the paused copy is destroyed
 *
 * Before the switch the source owns the VM and anything that goes wrong is
 * undone (abort_destination, abort_source); after it only the destination can
 * go on, and the job waits for it. Both ways need the job's row unchanged, so
 * there is one or the other, never both: at most one copy is ever unpaused.
 * A copy that cannot be activated is destroyed (undo_destination), and only
 * then does the source's wake up again.
 */
#include <string.h>

#include "pool/job.h"

static struct value *text_of(const struct value *result, const char *key)
{
	const struct value *v = value_get(result, key);
	struct buf b = BUF_INIT;
	struct value *text;

	if (!v)
		return value_stringz("");
	value_to_text(&b, v);
	text = value_string(b.data, b.len);
	buf_deinit(&b);
	return text;
}

static void put_param(struct job_end *e, const char *key, struct value *takes_v)
{
	txn_map_put(e->t, class_of(CLASS_job), value_str(e->job->ref),
		    F_job_params, key, takes_v);
}

static const char *param(const struct record *job, const char *key)
{
	return value_get_str(job->fields[F_job_params], key);
}

/* ---- parameters ---- */

static struct value *receive_params(const struct pool *p,
				    const struct record *job,
				    const struct record *vm)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	const struct record *to = store_get_class(s, CLASS_host,
						  record_str(job, F_job_host));

	return value_struct_of("config", job_vm_config(s, vm, to), NULL);
}

static struct value *send_params(const struct pool *p, const struct record *job,
				 const struct record *vm)
{
	bool live = strcmp(param(job, "live"), "false") != 0;

	return value_struct_of("address", value_stringz(param(job, "address")),
			       "port", value_int(atoi(param(job, "port"))),
			       "token", value_stringz(param(job, "token")),
			       "live", value_bool(live), NULL);
}

static struct value *no_params(const struct pool *p, const struct record *job,
			       const struct record *vm)
{
	return value_struct_new(0);
}

/* ---- ends ---- */

static void error_text(struct buf *b, const struct value *error)
{
	if (error_is(error, "VM_MIGRATE_FAILED")) {
		buf_puts(b, value_str(error->items[error->n - 1]));
		return;
	}
	for (uint32_t i = 0; i < error->n; i++)
		buf_printf(b, "%s%s", i ? ": " : "",
			   value_str(error->items[i]));
}

/* What a caller gets: some errors as they are, all else with the three that
 * took part. */
static struct value *migrate_error(const struct job_end *e)
{
	static const char *const as_it_is[] = {
		"TASK_CANCELLED", "HOST_NOT_ENOUGH_FREE_MEMORY", "HOST_OFFLINE",
		"VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED",
	};
	const struct record *from = job_host(e, F_job_source);
	const struct record *to = job_host(e, F_job_destination);
	_cleanup_(buf_deinit) struct buf text = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(as_it_is); i++)
		if (error_is(e->error, as_it_is[i]))
			return job_error(e);
	error_text(&text, e->error);
	return api_error("VM_MIGRATE_FAILED", record_str(e->vm.now, F_VM_uuid),
			 from ? record_str(from, F_host_uuid) : "",
			 to ? record_str(to, F_host_uuid) : "",
			 buf_cstr(&text), NULL);
}

static void receive_done(struct job_end *e)
{
	const struct record *to = job_host(e, F_job_destination);
	struct value *address = text_of(e->result, "address");

	if (!*value_str(address) && to) {
		value_unref(address);
		address = value_ref(to->fields[F_host_address]);
	}
	put_param(e, "address", address);
	put_param(e, "port", text_of(e->result, "port"));
	put_param(e, "token", text_of(e->result, "token"));
	put_param(e, "domid", text_of(e->result, "domid"));
	job_next(e, "send", record_str(e->job, F_job_source));
}

/* Nothing has left the source. The destination cleans up after itself, or, if
 * it is not there, when it comes back. */
static void receive_failed(struct job_end *e)
{
	draft_null(&e->vm, F_VM_scheduled_to_be_resident_on);
	job_fail(e, migrate_error(e));
}

static int64_t domid_param(const struct record *job, const char *key)
{
	const char *s = param(job, key);

	return *s ? atoi(s) : -1;
}

static void send_done(struct job_end *e)
{
	struct record *to = job_host(e, F_job_destination);

	if (!to) {
		job_migrate_abort(e, api_error("HOST_OFFLINE",
					       record_str(e->job,
							  F_job_destination),
					       NULL));
		return;
	}
	vm_moves_to(e->p, &e->vm, to, domid_param(e->job, "domid"));
	put_param(e, "old_domid",
		  value_printf("%lld", (long long)record_int(e->vm.base,
							     F_VM_domid)));
	job_raise_fence(e, value_str(to->ref));
	job_next(e, "activate", value_str(to->ref));
}

static void send_failed(struct job_end *e)
{
	job_migrate_abort(e, migrate_error(e));
}

static void activate_done(struct job_end *e)
{
	int64_t domid = value_get_int(e->result, "domid", -1);

	if (domid >= 0)
		draft_int(&e->vm, F_VM_domid, domid);
	job_message(e, "VM_MIGRATED");
	job_next(e, "finish", record_str(e->job, F_job_source));
}

static void abort_with(struct job_end *e, struct value *takes_error,
		       const char *next)
{
	const struct class_def *c = class_of(CLASS_job);
	const char *ref = value_str(e->job->ref);

	txn_set(e->t, c, ref, F_job_state, value_stringz("aborting"));
	txn_set(e->t, c, ref, F_job_error, takes_error);
	draft_null(&e->vm, F_VM_scheduled_to_be_resident_on);
	job_raise_fence(e, record_str(e->job, F_job_source));
	job_next(e, next, record_str(e->job, F_job_destination));
}

/* The copy does not run, and the source still has its own: switch back. But the
 * source may wake up only when the copy is known to be gone. */
static void activate_failed(struct job_end *e)
{
	struct record *from = job_host(e, F_job_source);

	if (from)
		vm_moves_to(e->p, &e->vm, from, domid_param(e->job,
							    "old_domid"));
	abort_with(e, migrate_error(e), "undo_destination");
}

static void finish_done(struct job_end *e)
{
	const struct value *error = e->job->fields[F_job_error];

	if (error->n > 0)
		job_fail(e, value_ref(error));
	else
		job_finish(e);
}

/* ---- undoing ---- */

void job_migrate_abort(struct job_end *e, struct value *takes_error)
{
	abort_with(e, takes_error, "abort_destination");
}

/* Nobody knows whether the copy lives, so the source's must not: the VM stays
 * bound to the destination, whose host finds out what has become of it. */
static void undo_failed(struct job_end *e)
{
	struct record *to = job_host(e, F_job_destination);

	if (to)
		vm_moves_to(e->p, &e->vm, to, domid_param(e->job, "domid"));
	job_raise_fence(e, record_str(e->job, F_job_destination));
	job_next(e, "finish", record_str(e->job, F_job_source));
}

static void abort_destination_end(struct job_end *e)
{
	job_next(e, "abort_source", record_str(e->job, F_job_source));
}

static void abort_source_end(struct job_end *e)
{
	job_fail(e, value_ref(e->job->fields[F_job_error]));
}

const struct job_step job_migrate_steps[] = {
	{ "migrate", "receive", "migrate_receive", receive_params,
	  receive_done, receive_failed, DEAD_FAIL, true, NULL, 0, 0.1, NULL },
	{ "migrate", "send", "migrate_send", send_params,
	  send_done, send_failed, DEAD_ABORT, true, NULL, 0.1, 0.8, NULL },
	{ "migrate", "activate", "migrate_activate", no_params,
	  activate_done, activate_failed, DEAD_WAIT, false, NULL, 0.9, 0, NULL },
	{ "migrate", "finish", "migrate_finish", no_params,
	  finish_done, finish_done, DEAD_DONE, false, NULL, 0.95, 0, NULL },
	{ "migrate", "abort_destination", "migrate_abort", no_params,
	  abort_destination_end, abort_destination_end,
	  DEAD_DONE, false, NULL, 0.9, 0, NULL },
	{ "migrate", "undo_destination", "migrate_abort", no_params,
	  abort_destination_end, undo_failed, DEAD_WAIT, false, NULL, 0.9, 0, NULL },
	{ "migrate", "abort_source", "migrate_abort", no_params,
	  abort_source_end, abort_source_end, DEAD_WAIT, false, NULL, 0.95, 0, NULL },
	{ .kind = NULL },
};
