/* Plugging drives and cards into running VMs, and media into drives. */
#include <string.h>

#include "pool/job.h"
#include "pool/storage.h"

static struct value *one_error(const char *code, const struct record *row)
{
	return api_error(code, value_str(row->ref), NULL);
}

struct plug {
	const char *op, *kind; /* of the operation in the row, and of the job */
	bool plugs, force, medium;
};

struct target {
	const struct store *s;
	struct record *device, *vm, *vdi; /* vdi: the medium, or NULL */
	bool is_vbd;
	const struct plug *plug;
};

/* ---- checks, in the order in which callers know them ---- */

static unsigned operations_field(const struct target *t)
{
	return t->is_vbd ? F_VBD_current_operations : F_VIF_current_operations;
}

static struct value *busy(const struct target *t)
{
	const struct value *ops = t->device->fields[operations_field(t)];

	return ops->n ? api_error("OTHER_OPERATION_IN_PROGRESS",
				  t->device->cls->name,
				  value_str(t->device->ref),
				  value_str(ops->items[1]),
				  value_str(ops->items[0]), NULL) : NULL;
}

static struct value *wrong_medium(const struct target *t)
{
	bool inserts = !strcmp(t->plug->op, "insert");

	if (!t->plug->medium)
		return NULL;
	if (!value_is_str(t->device->fields[F_VBD_type], "CD"))
		return one_error("VBD_NOT_REMOVABLE_MEDIA", t->device);
	if (!inserts && record_bool(t->device, F_VBD_empty))
		return one_error("VBD_IS_EMPTY", t->device);
	if (inserts && !record_bool(t->device, F_VBD_empty))
		return one_error("VBD_NOT_EMPTY", t->device);
	return NULL;
}

static struct value *wrong_state(const struct target *t)
{
	bool attached = record_bool(t->device,
				    t->is_vbd ? F_VBD_currently_attached :
						F_VIF_currently_attached);
	const char *state = vm_state_lower(t->vm);

	if (t->plug->medium && !strcmp(state, "halted"))
		return NULL;
	if (strcmp(state, "running") != 0)
		return vm_bad_power_state(t->vm, "running");
	if (t->plug->medium || attached != t->plug->plugs)
		return NULL;
	return one_error(attached ? "DEVICE_ALREADY_ATTACHED" :
				    "DEVICE_ALREADY_DETACHED", t->device);
}

static struct value *not_unpluggable(const struct target *t)
{
	return !t->is_vbd || t->plug->plugs || t->plug->medium ||
		       record_bool(t->device, F_VBD_unpluggable) ?
		       NULL : one_error("VBD_NOT_UNPLUGGABLE", t->device);
}

static struct value *vm_is_busy(const struct target *t)
{
	if (vm_is_stopping(t->vm))
		return api_error("OPERATION_NOT_ALLOWED",
				 "the VM is being stopped", NULL);
	return vm_moving_error(t->vm);
}

static bool claims_hot_plug(const struct target *t, const struct record *g)
{
	unsigned field = t->is_vbd ? F_VM_guest_metrics_can_use_hotplug_vbd :
				     F_VM_guest_metrics_can_use_hotplug_vif;

	return value_is_str(g->fields[field], "yes") ||
	       record_bool(g, F_VM_guest_metrics_PV_drivers_detected);
}

/* A guest that has told nothing yet is not refused for the lack of it. */
static struct value *no_drivers(const struct target *t)
{
	const struct record *g = store_get_class(
		t->s, CLASS_VM_guest_metrics,
		record_str(t->vm, F_VM_guest_metrics));

	if (t->plug->medium || strcmp(vm_boot_type(t->vm), "hvm") != 0)
		return NULL;
	if (t->is_vbd && value_is_str(t->device->fields[F_VBD_type], "CD"))
		return api_error("OPERATION_NOT_ALLOWED",
				 "an emulated drive stays in its machine", NULL);
	return g && !claims_hot_plug(t, g) ?
		       one_error("VM_MISSING_PV_DRIVERS", t->vm) : NULL;
}

/* The drive as it will be, with the medium that is put in. */
static struct value *no_disk(const struct target *t)
{
	const char *host = record_str(t->vm, F_VM_resident_on);
	_cleanup_(record_unrefp) struct record *vbd = NULL;
	struct value *error;

	if (!t->vdi)
		return NULL;
	if (!record_bool(t->vdi, F_VDI_managed))
		return one_error("VDI_NOT_MANAGED", t->device);
	vbd = record_copy(t->device);
	record_set(vbd, F_VBD_VDI, value_ref(t->vdi->ref));
	error = vbd_disk_error(t->s, vbd);
	if (!error && vm_is_live(t->vm) &&
	    !host_sees_sr(t->s, host, record_str(t->vdi, F_VDI_SR)))
		error = api_error("VM_REQUIRES_SR", value_str(t->vm->ref),
				  record_str(t->vdi, F_VDI_SR), NULL);
	return error;
}

static struct value *plug_error(const struct target *t)
{
	static struct value *(*const checks[])(const struct target *t) = {
		busy, not_unpluggable, wrong_medium, wrong_state, vm_is_busy,
		no_drivers, no_disk,
	};
	struct value *error = NULL;

	for (size_t i = 0; i < ARRAY_LEN(checks) && !error; i++)
		error = checks[i](t);
	return error;
}

/* ---- doing it ---- */

/* Where no domain has the device, the rows are all there is. */
static bool is_rows_only(const struct target *t)
{
	_cleanup_(value_unrefp) struct value *disk = NULL;

	if (strcmp(vm_state_lower(t->vm), "halted") == 0)
		return true;
	if (!t->is_vbd)
		return false;
	disk = job_disk(t->s, t->device, record_str(t->device, F_VBD_VDI),
			NULL);
	return !disk;
}

static void write_rows(struct req *r, const struct target *t)
{
	struct txn *txn = req_txn(r);
	struct draft d;

	txn_guard_version(txn, t->vm);
	draft_edit(&d, txn, t->device);
	device_becomes(&d, t->s, t->plug->kind,
		       t->plug->medium && t->vdi ? value_str(t->vdi->ref) : "");
	device_write(&d, t->s, t->vm);
	req_commit(r, txn, NULL);
}

static void mark_device(struct txn *txn, const struct target *t,
			const char *task)
{
	struct draft d;

	draft_edit(&d, txn, t->device);
	draft_map_put(&d, operations_field(t), task,
		      value_stringz(t->plug->op));
	/* From now on the disk is in use, for others that want it too. */
	if (t->is_vbd && t->plug->plugs)
		draft_bool(&d, F_VBD_reserved, true);
	device_write(&d, t->s, t->vm);
	if (t->vdi)
		txn_guard_version(txn, t->vdi);
}

static void start_job(struct req *r, const struct target *t)
{
	struct record *host = store_get_class(t->s, CLASS_host,
					      record_str(t->vm,
							 F_VM_resident_on));
	const char *vdi = t->plug->medium && t->vdi ? value_str(t->vdi->ref) :
						      "";
	struct value *params;
	struct txn *txn;
	struct draft d;

	if (!host || !host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_OFFLINE", record_str(t->vm,
						       F_VM_resident_on), NULL);
		return;
	}
	txn = req_txn(r);
	params = value_map_of("device", value_ref(t->device->ref), "vdi",
			      value_stringz(vdi), "force",
			      value_stringz(t->plug->force ? "true" : "false"),
			      NULL);
	mark_device(txn, t, req_task(r, txn));
	draft_edit(&d, txn, t->vm);
	change_start_job(r, txn, t->vm, &d, host, t->plug->kind, params);
}

static void plug(struct req *r, struct target *t)
{
	struct value *error = plug_error(t);

	if (error && error_is(error, "OTHER_OPERATION_IN_PROGRESS"))
		req_wait(r, value_str(error->items[2]), error);
	else if (error)
		req_fail_value(r, error);
	else if (is_rows_only(t))
		write_rows(r, t);
	else
		start_job(r, t);
}

/* ---- calls ---- */

/* False: the request has ended. */
static bool find(struct req *r, struct target *t)
{
	t->s = req_store(r);
	t->device = req_arg_record(r, 0, t->is_vbd ? CLASS_VBD : CLASS_VIF);
	if (!t->device)
		return false;
	t->vm = store_get_class(t->s, CLASS_VM,
				record_str(t->device, t->is_vbd ? F_VBD_VM :
								  F_VIF_VM));
	if (!t->vm)
		req_fail(r, "HANDLE_INVALID", "VM",
			 record_str(t->device, t->is_vbd ? F_VBD_VM : F_VIF_VM),
			 NULL);
	return t->vm;
}

static void plug_vbd(struct req *r, const struct plug *p)
{
	struct target t = { .is_vbd = true, .plug = p };

	if (!find(r, &t))
		return;
	if (t.plug->plugs)
		t.vdi = store_get_class(t.s, CLASS_VDI,
					record_str(t.device, F_VBD_VDI));
	else if (!strcmp(t.plug->op, "insert") &&
		 !(t.vdi = req_arg_record(r, 1, CLASS_VDI)))
		return;
	plug(r, &t);
}

static void plug_vif(struct req *r, const struct plug *p)
{
	struct target t = { .is_vbd = false, .plug = p };

	if (find(r, &t))
		plug(r, &t);
}

#define CALL(name, class, ...)                                      \
	void name(struct req *r)                                    \
	{                                                           \
		static const struct plug p = { __VA_ARGS__ };       \
									\
		plug_##class(r, &p);                                \
	}
CALL(vbd_plug, vbd, "plug", "vbd_plug", .plugs = true)
CALL(vbd_unplug, vbd, "unplug", "vbd_unplug", .plugs = false)
CALL(vbd_unplug_force, vbd, "unplug_force", "vbd_unplug", .force = true)
CALL(vbd_insert, vbd, "insert", "vbd_insert", .medium = true)
CALL(vbd_eject, vbd, "eject", "vbd_eject", .medium = true)
CALL(vif_plug, vif, "plug", "vif_plug", .plugs = true)
CALL(vif_unplug, vif, "unplug", "vif_unplug", .plugs = false)
CALL(vif_unplug_force, vif, "unplug", "vif_unplug", .force = true)
