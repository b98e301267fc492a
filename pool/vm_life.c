/* Calls that bring a VM up, down or elsewhere. Each checks, marks the VM and
 * the host, writes a job, and answers when the job's task ends. */
#include <string.h>

#include "pool/vm_calls.h"

static struct record *host_of(const struct store *s, const struct record *row,
			      unsigned field)
{
	return store_get_class(s, CLASS_host, record_str(row, field));
}

static struct value *one_error(const char *code, const struct record *obj)
{
	return api_error(code, value_str(obj->ref), NULL);
}

static const char *author_of(const struct req *r)
{
	return r->session ? record_str(r->session,
				       F_session_auth_user_name) : "";
}

/* ---- from live: one verb on the VM's host ---- */

struct life_op {
	int method;
	const char *op, *kind;
	bool cancels; /* what runs is told to end, and waited for */
};

static const struct life_op life_ops[] = {
	{ M_VM_pause, "pause", "pause", false },
	{ M_VM_unpause, "unpause", "unpause", false },
	{ M_VM_clean_shutdown, "clean_shutdown", "clean_shutdown", false },
	{ M_VM_hard_shutdown, "hard_shutdown", "hard_shutdown", true },
	{ M_VM_shutdown, "shutdown", "shutdown", false },
	{ M_VM_clean_reboot, "clean_reboot", "clean_reboot", false },
	{ M_VM_hard_reboot, "hard_reboot", "hard_reboot", true },
	{ M_VM_suspend, "suspend", "suspend", false },
};

static const struct life_op *life_op_of(const struct req *r)
{
	int method = (int)(r->method - schema_methods);

	for (size_t i = 0; i < ARRAY_LEN(life_ops); i++)
		if (life_ops[i].method == method)
			return &life_ops[i];
	xassert(!"handler without a row");
	return NULL;
}

/* Opens the VM's draft with the operation marked. */
static const char *mark_vm(struct req *r, struct txn *t, struct draft *d,
			   struct record *vm, const char *op)
{
	const char *task = req_task(r, t);

	draft_edit(d, t, vm);
	draft_map_put(d, F_VM_current_operations, task, value_stringz(op));
	return task;
}

static void mark_host(struct txn *t, struct record *host, const char *task,
		      const char *op)
{
	struct draft d;

	draft_edit(&d, t, host);
	draft_map_put(&d, F_host_current_operations, task, value_stringz(op));
	draft_write_host(&d, true);
}

void change_start_job(struct req *r, struct txn *t, struct record *vm,
		      struct draft *vm_draft, struct record *host,
		      const char *kind, struct value *params)
{
	struct job_spec spec = { .kind = kind, .step = "run", .host = host,
				 .task = req_task(r, t),
				 .author = author_of(r) };

	job_create(r->pool, t, vm, &spec, params, NULL);
	draft_write_vm(vm_draft, req_store(r));
	req_start_job(r, t);
}

/* Where the suspend image goes: the first of the places that are set, and that
 * this host can write to. */
static const char *suspend_sr(const struct req *r, const struct record *vm,
			      const struct record *host)
{
	const struct store *s = req_store(r);
	const struct record *pool = store_first(s, CLASS_pool);
	const char *list[] = {
		record_str(vm, F_VM_suspend_SR),
		pool ? record_str(pool, F_pool_suspend_image_SR) : "",
		record_str(host, F_host_suspend_image_sr),
	};
	const struct record *local;

	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		const struct record *sr = store_get_class(s, CLASS_SR, list[i]);

		if (sr && value_is_str(sr->fields[F_SR_type], "dummy") &&
		    host_sees_sr(s, value_str(host->ref), list[i]))
			return list[i];
	}
	local = host_local_sr(s, host);
	return local ? value_str(local->ref) : NULL;
}

static struct value *life_params(struct req *r, const struct life_op *l,
				 const struct record *vm,
				 const struct record *host)
{
	const char *sr;

	if (strcmp(l->kind, "suspend") != 0)
		return value_map_empty();
	sr = suspend_sr(r, vm, host);
	return sr ? value_map_of("sr", value_stringz(sr), NULL) : NULL;
}

static void halt_suspended(struct req *r, struct record *vm)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vm);
	vm_discard_image(r->pool, &d);
	vm_becomes_halted(r->pool, &d);
	draft_write_vm(&d, req_store(r));
	message_create(t, "VM_SHUTDOWN", 5, "VM", record_str(vm, F_VM_uuid),
		       "A suspended VM was shut down");
	req_commit(r, t, NULL);
}

static void life_start_job(struct req *r, const struct life_op *l,
			   struct record *vm, struct record *host)
{
	struct value *params = life_params(r, l, vm, host);
	struct job_spec spec = { .kind = l->kind, .step = "run", .host = host,
				 .author = author_of(r) };
	struct txn *t;
	struct draft d;

	if (!params) {
		req_fail_value(r, one_error("VM_NO_SUSPEND_SR", vm));
		return;
	}
	t = req_txn(r);
	spec.task = mark_vm(r, t, &d, vm, l->op);
	if (l->cancels)
		job_cancel_all(req_store(r), t, value_str(vm->ref));
	job_create(r->pool, t, vm, &spec, params, NULL);
	draft_write_vm(&d, req_store(r));
	req_start_job(r, t);
}

void vm_life(struct req *r)
{
	const struct life_op *l = life_op_of(r);
	struct record *vm = req_arg_record(r, 0, CLASS_VM), *host, *job;

	if (!vm || !vm_check_op(r, vm, l->op, true))
		return;
	job = job_of_vm(req_store(r), value_str(vm->ref));
	host = host_of(req_store(r), vm, F_VM_resident_on);
	if (!host && job)
		host = host_of(req_store(r), job, F_job_host);
	if (!host && !vm_is_live(vm))
		halt_suspended(r, vm);
	else if (!host)
		req_fail(r, "HOST_OFFLINE", record_str(vm, F_VM_resident_on),
			 NULL);
	else if (!host_counts_live(r->pool, host))
		req_fail_value(r, one_error("HOST_OFFLINE", host));
	else
		life_start_job(r, l, vm, host);
}

/* ---- to live: a host is chosen and its memory promised ---- */

/* May these two use the disk at once? */
static bool blocks(const struct store *s, const struct record *mine,
		   const struct record *other)
{
	const struct record *vm = store_get_class(s, CLASS_VM,
						  record_str(other, F_VBD_VM));
	bool write = value_is_str(mine->fields[F_VBD_mode], "RW") ||
		     value_is_str(other->fields[F_VBD_mode], "RW");

	return !value_equal(other->ref, mine->ref) && vm && write &&
	       (record_bool(other, F_VBD_reserved) ||
		(record_bool(other, F_VBD_currently_attached) &&
		 vm_is_live(vm))) &&
	       !record_bool(vm, F_VM_is_control_domain);
}

struct value *vbd_disk_error(const struct store *s, const struct record *vbd)
{
	const struct record *vdi = store_get_class(s, CLASS_VDI,
						   record_str(vbd, F_VBD_VDI));
	const struct value *users = vdi ? vdi->fields[F_VDI_VBDs] : NULL;

	if (!vdi || record_bool(vdi, F_VDI_sharable))
		return NULL;
	for (uint32_t i = 0; i < users->n; i++) {
		const struct record *other = store_get_class(
			s, CLASS_VBD, value_str(users->items[i]));

		if (other && blocks(s, vbd, other))
			return one_error("VDI_IN_USE", vdi);
	}
	if (value_is_str(vbd->fields[F_VBD_mode], "RW") &&
	    record_bool(vdi, F_VDI_read_only))
		return one_error("VDI_READONLY", vdi);
	return NULL;
}

static struct value *disks_error(const struct store *s, const struct record *vm)
{
	const struct value *vbds = vm->fields[F_VM_VBDs];
	struct value *error = NULL;

	for (uint32_t i = 0; i < vbds->n && !error; i++) {
		const struct record *vbd = store_get_class(
			s, CLASS_VBD, value_str(vbds->items[i]));

		if (vbd && !record_bool(vbd, F_VBD_empty))
			error = vbd_disk_error(s, vbd);
	}
	return error;
}

struct boot_op {
	const char *op, *kind, *host_op;
	bool has_host;
};

/* The host to boot on; NULL after the request has failed. */
static struct record *boot_host(struct req *r, const struct boot_op *b,
				const struct record *vm)
{
	struct value *error = disks_error(req_store(r), vm);
	struct record *host = NULL;

	if (!error && b->has_host) {
		host = req_arg_record(r, 1, CLASS_host);
		if (!host)
			return NULL;
		error = host_is_evacuating(host) ?
			one_error("HOST_EVACUATE_IN_PROGRESS", host) :
			vm_boot_error(r->pool, vm, host, 0);
	} else if (!error) {
		host = vm_choose_host(r->pool, vm, 0, &error);
	}
	if (!error)
		return host;
	req_fail_value(r, error);
	return NULL;
}

static void boot_fields(struct req *r, const struct boot_op *b, struct draft *d,
			const struct record *host)
{
	draft_copy(d, F_VM_scheduled_to_be_resident_on, host->ref);
	if (strcmp(b->kind, "start") != 0)
		return;
	draft_str(d, F_VM_domain_type, vm_boot_type(d->now));
	draft_int(d, F_VM_memory_overhead, vm_memory_overhead(d->now));
	draft_int(d, F_VM_memory_target,
		  vm_memory_target(req_store(r), d->now, host));
}

static void boot(struct req *r, const struct boot_op *b)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM), *host;
	struct job_spec spec = { .kind = b->kind, .step = "run",
				 .author = author_of(r) };
	bool paused = req_arg_bool(r, b->has_host ? 2 : 1);
	struct txn *t;
	struct draft d;

	if (!vm || !vm_check_op(r, vm, b->op, true))
		return;
	host = boot_host(r, b, vm);
	if (!host)
		return;
	t = req_txn(r);
	spec.host = host;
	spec.task = mark_vm(r, t, &d, vm, b->op);
	boot_fields(r, b, &d, host);
	mark_host(t, host, spec.task, b->host_op);
	job_create(r->pool, t, vm, &spec,
		   value_map_of("paused", value_stringz(paused ? "true" :
								  "false"),
				NULL), NULL);
	draft_write_vm(&d, req_store(r));
	req_start_job(r, t);
}

void vm_start(struct req *r)
{
	boot(r, &(struct boot_op){ "start", "start", "vm_start", false });
}

void vm_start_on(struct req *r)
{
	boot(r, &(struct boot_op){ "start_on", "start", "vm_start", true });
}

void vm_resume(struct req *r)
{
	boot(r, &(struct boot_op){ "resume", "resume", "vm_resume", false });
}

void vm_resume_on(struct req *r)
{
	boot(r, &(struct boot_op){ "resume_on", "resume", "vm_resume", true });
}

/* ---- elsewhere ---- */

static struct value *migrate_host_error(struct req *r, const struct record *vm,
					const struct record *from,
					const struct record *to)
{
	if (!from || !host_counts_live(r->pool, from))
		return api_error("HOST_OFFLINE",
				 record_str(vm, F_VM_resident_on), NULL);
	if (host_is_evacuating(to))
		return one_error("HOST_EVACUATE_IN_PROGRESS", to);
	return from == to ? NULL : vm_boot_error(r->pool, vm, to, BOOT_MIGRATE);
}

static void migrate_start_job(struct req *r, struct record *vm,
			      struct record *from, struct record *to)
{
	struct job_spec spec = { .kind = "migrate", .step = "receive",
				 .host = to, .source = from, .destination = to,
				 .author = author_of(r) };
	const char *live = value_get_str(req_arg(r, 2), "live");
	struct txn *t = req_txn(r);
	struct draft d;

	spec.task = mark_vm(r, t, &d, vm, "pool_migrate");
	draft_copy(&d, F_VM_scheduled_to_be_resident_on, to->ref);
	mark_host(t, to, spec.task, "vm_migrate");
	/* Live unless it is said not to be: "false" stops the guest for the
	 * whole copy, the only way where Xen cannot follow its writes. */
	job_create(r->pool, t, vm, &spec,
		   value_map_of("live", value_stringz(live), NULL), NULL);
	draft_write_vm(&d, req_store(r));
	req_start_job(r, t);
}

void vm_pool_migrate(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM), *from, *to;
	struct value *error;
	bool force;

	to = vm ? req_arg_record(r, 1, CLASS_host) : NULL;
	if (!to)
		return;
	force = !strcmp(value_get_str(req_arg(r, 2), "force"), "true");
	if (!vm_check_op(r, vm, "pool_migrate", !force))
		return;
	from = host_of(req_store(r), vm, F_VM_resident_on);
	error = migrate_host_error(r, vm, from, to);
	if (error)
		req_fail_value(r, error);
	else if (from == to) /* it is there already */
		req_reply(r, NULL);
	else
		migrate_start_job(r, vm, from, to);
}

/* ---- by decree ---- */

static bool is_listed(const struct value *state, const struct record *vm)
{
	const struct value *domains = value_get(state, "domains");

	for (uint32_t i = 0; i < domains->n; i++)
		if (!strcmp(value_get_str(domains->items[i], "vm"),
			    record_str(vm, F_VM_uuid)))
			return true;
	return false;
}

/* When in doubt it is; asking makes the next call know. */
static bool domain_is_here(const struct pool *p, const struct record *vm)
{
	struct value *msg;

	if (p->hosts->exec_state && p->hosts->state_is_fresh)
		return is_listed(p->hosts->exec_state, vm);
	msg = value_struct_of("type", value_stringz("list"), NULL);
	p->hooks.executor_send(p->hooks.data, msg);
	value_unref(msg);
	return true;
}

static struct value *reset_error(const struct pool *p, const struct record *vm)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	const struct record *host = host_of(s, vm, F_VM_resident_on);

	if (record_bool(vm, F_VM_is_control_domain))
		return one_error("CANNOT_RESET_CONTROL_DOMAIN", vm);
	if (!vm_is_live(vm) || !host || !host_counts_live(p, host))
		return NULL;
	if (host != pool_this_host(p))
		return one_error("HOST_IS_LIVE", host);
	return domain_is_here(p, vm) ? one_error("DOMAIN_EXISTS", vm) : NULL;
}

void vm_power_state_reset(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	_cleanup_(value_unrefp) struct value *cancelled = NULL;
	struct value *error;
	struct draft d;
	struct txn *t;

	if (!vm)
		return;
	error = reset_error(r->pool, vm);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	cancelled = one_error("VM_HALTED", vm);
	t = req_txn(r);
	draft_edit(&d, t, vm);
	job_drop_all(r->pool, &d, cancelled);
	draft_set(&d, F_VM_current_operations, value_map_empty());
	vm_becomes_halted(r->pool, &d);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}
