/* VMs come and go: create, clone, copy, provision, template or not, destroy.
 * All of it is rows only, so each call is one transaction. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/storage.h"
#include "pool/vm_calls.h"

static void row_drop(const struct store *s, struct txn *t,
		     const struct value *refs)
{
	for (uint32_t i = 0; i < refs->n; i++)
		row_destroy(s, t, value_str(refs->items[i]));
}

/* ---- create ---- */

/* Constructor fields that a caller cannot set after all. */
static bool is_ignored(unsigned field)
{
	static const unsigned ignored[] = {
		F_VM_blocked_operations, F_VM_protection_policy,
		F_VM_snapshot_schedule, F_VM_power_state, F_VM_suspend_VDI,
	};

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		if (ignored[i] == field)
			return true;
	return false;
}

void draft_take_args(struct draft *d, const struct value *args,
		     bool (*ignored)(unsigned field))
{
	const struct class_def *c = d->now->cls;

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct field_def *f = &c->fields[i];
		const struct value *v = value_get(args, f->name);

		if (v && f->qualifier != FIELD_RUNTIME &&
		    f->relation != RELATION_MANY && !ignored(i) &&
		    !(f->flags & FIELD_INTERNAL))
			draft_copy(d, i, v);
	}
}

static void default_key(struct draft *d, const char *key, const char *value)
{
	if (!value_get(d->now->fields[F_VM_other_config], key))
		draft_map_put(d, F_VM_other_config, key, value_stringz(value));
}

static void keep_type_and_policy(struct draft *d)
{
	const char *type = record_str(d->now, F_VM_domain_type);
	bool hvm = !strcmp(type, "hvm");
	bool policy = *record_str(d->now, F_VM_HVM_boot_policy);

	if (hvm && !policy)
		draft_str(d, F_VM_HVM_boot_policy, "BIOS order");
	else if (!hvm && strcmp(type, "unspecified") && policy)
		draft_str(d, F_VM_HVM_boot_policy, "");
}

void vm_add_metrics(struct draft *vm, int64_t install_time)
{
	struct draft m;

	draft_create(&m, vm->t, CLASS_VM_metrics, NULL);
	draft_date(&m, F_VM_metrics_install_time, install_time);
	draft_copy(vm, F_VM_metrics, m.now->ref);
	draft_write(&m);
}

static bool may_be_suspended(const struct value *args)
{
	return !value_is_null_ref(value_get(args, "suspend_VDI")) &&
	       *value_get_str(args, "last_booted_record") &&
	       value_get(args, "last_boot_CPU_flags") &&
	       value_get(args, "last_boot_CPU_flags")->n > 0;
}

static struct value *create_error(const struct value *args)
{
	const char *state = value_get_str(args, "power_state");

	if (!*state || !strcmp(state, "Halted") ||
	    (!strcmp(state, "Suspended") && may_be_suspended(args)))
		return NULL;
	return api_error("VM_BAD_POWER_STATE", REF_NULL, "halted",
			 !strcmp(state, "Suspended") ? "suspended" :
			 !strcmp(state,
				 "Running") ? "running" : "paused", NULL);
}

void vm_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	struct value *error = create_error(args);
	char seed[UUID_LEN + 1];
	struct value *ref;
	struct txn *t;
	struct draft d;

	if (error) {
		req_fail_value(r, error);
		return;
	}
	uuid_new(seed);
	t = req_txn(r);
	draft_create(&d, t, CLASS_VM, NULL);
	draft_take_args(&d, args, is_ignored);
	if (!strcmp(value_get_str(args, "power_state"), "Suspended")) {
		draft_str(&d, F_VM_power_state, "Suspended");
		draft_copy(&d, F_VM_suspend_VDI, value_get(args,
							   "suspend_VDI"));
	}
	default_key(&d, "mac_seed", seed);
	keep_type_and_policy(&d);
	draft_int(&d, F_VM_domid, -1);
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	vm_add_metrics(&d, 0);
	ref = value_ref(d.now->ref);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, ref);
}

/* ---- destroy ---- */

static void destroy_with_metrics(const struct store *s, struct txn *t,
				 const struct value *refs, unsigned metrics)
{
	for (uint32_t i = 0; i < refs->n; i++) {
		const struct record *row = store_get(s,
						     value_str(refs->items[i]));

		if (!row)
			continue;
		row_destroy(s, t, record_str(row, metrics));
		txn_destroy(t, value_str(row->ref));
	}
}

void vm_destroy_devices(const struct store *s, struct txn *t,
			const struct record *vm)
{
	destroy_with_metrics(s, t, vm->fields[F_VM_VBDs], F_VBD_metrics);
	destroy_with_metrics(s, t, vm->fields[F_VM_VIFs], F_VIF_metrics);
	row_drop(s, t, vm->fields[F_VM_VGPUs]);
	row_drop(s, t, vm->fields[F_VM_VUSBs]);
	row_drop(s, t, vm->fields[F_VM_VTPMs]);
	row_drop(s, t, vm->fields[F_VM_consoles]);
	row_destroy(s, t, record_str(vm, F_VM_metrics));
	row_destroy(s, t, record_str(vm, F_VM_guest_metrics));
}

/* Snapshots that grew from this one now grow from what it grew from. */
static void hand_down_children(const struct store *s, struct txn *t,
			       const struct record *vm)
{
	const struct value *set = vm->fields[F_VM_children];

	for (uint32_t i = 0; i < set->n; i++)
		if (store_get_class(s, CLASS_VM, value_str(set->items[i])))
			txn_set(t, class_of(CLASS_VM), value_str(set->items[i]),
				F_VM_parent, value_ref(vm->fields[F_VM_parent]));
}

static bool is_shipped(const struct record *vm)
{
	return record_bool(vm, F_VM_is_a_template) &&
	       (record_bool(vm, F_VM_is_default_template) ||
		!strcmp(value_get_str(vm->fields[F_VM_other_config],
				      "default_template"), "true"));
}

void vm_destroy(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	struct txn *t;

	if (!vm)
		return;
	if (is_shipped(vm)) {
		req_fail(r, "VM_CANNOT_DELETE_DEFAULT_TEMPLATE", NULL);
		return;
	}
	if (!vm_check_op(r, vm, "destroy", true))
		return;
	t = req_txn(r);
	txn_guard_version(t, vm);
	vm_destroy_devices(req_store(r), t, vm);
	hand_down_children(req_store(r), t, vm);
	/* Disks stay, but nothing else can ever read this one. */
	if (job_image_drop(r->pool, t, record_str(vm, F_VM_suspend_VDI)))
		row_destroy(req_store(r), t, record_str(vm, F_VM_suspend_VDI));
	txn_destroy(t, value_str(vm->ref));
	req_commit(r, t, NULL);
}

/* ---- clone and copy ---- */

/* Fields of a VM that its copy does not take over. */
static bool stays_behind(unsigned field)
{
	static const unsigned list[] = {
		F_VM_uuid, F_VM_allowed_operations, F_VM_current_operations,
		F_VM_name_label, F_VM_power_state, F_VM_is_default_template,
		F_VM_suspend_VDI, F_VM_resident_on, F_VM_domid, F_VM_metrics,
		F_VM_scheduled_to_be_resident_on, F_VM_guest_metrics,
		F_VM_ha_always_run, F_VM_ha_restart_priority,
		F_VM_is_a_snapshot, F_VM_snapshot_of, F_VM_snapshot_time,
		F_VM_snapshot_info, F_VM_snapshot_metadata,
		F_VM_transportable_snapshot_id, F_VM_parent, F_VM_blobs,
		F_VM_protection_policy, F_VM_is_snapshot_from_vmpp,
		F_VM_snapshot_schedule, F_VM_is_vmss_snapshot, F_VM_appliance,
		F_VM_start_delay, F_VM_shutdown_delay, F_VM_order,
		F_VM_generation_id, F_VM_requires_reboot, F_VM_attached_PCIs,
		F_VM_is_control_domain, F_VM_groups,
	};

	for (size_t i = 0; i < ARRAY_LEN(list); i++)
		if (list[i] == field)
			return true;
	return false;
}

static void copy_fields(struct draft *d, const struct record *from)
{
	const struct class_def *c = class_of(CLASS_VM);

	for (unsigned i = 0; i < c->n_fields; i++)
		if (!stays_behind(i) && c->fields[i].relation != RELATION_MANY)
			draft_copy(d, i, from->fields[i]);
}

static void copy_other_config(struct draft *d, const struct record *from,
			      char seed[UUID_LEN + 1])
{
	uuid_new(seed);
	draft_map_remove(d, F_VM_other_config, "default_template");
	draft_map_remove(d, F_VM_other_config, "xensource_internal");
	draft_map_put(d, F_VM_other_config, "mac_seed", value_stringz(seed));
	draft_map_put(d, F_VM_other_config, "base_template_name",
		      value_ref(from->fields[F_VM_name_label]));
}

static void new_generation_id(struct draft *d)
{
	int64_t n[2];

	env_random(n, sizeof n);
	draft_set(d, F_VM_generation_id,
		  value_printf("%lld:%lld", (long long)n[0], (long long)n[1]));
}

static struct value *sr_refuses(const struct store *s, const char *sr_ref)
{
	const struct record *sr = store_get_class(s, CLASS_SR, sr_ref);

	return sr && value_is_str(sr->fields[F_SR_type], "dummy") ? NULL :
		api_error("SR_OPERATION_NOT_SUPPORTED", sr_ref, NULL);
}

static void copy_vdi(struct draft *vbd, const struct record *from,
		     const char *sr_ref)
{
	const struct class_def *c = class_of(CLASS_VDI);
	struct draft d;

	draft_create(&d, vbd->t, CLASS_VDI, NULL);
	for (unsigned i = 0; i < c->n_fields; i++)
		if (c->fields[i].relation != RELATION_MANY &&
		    (c->fields[i].qualifier != FIELD_RUNTIME ||
		     i == F_VDI_physical_utilisation || i == F_VDI_managed ||
		     i == F_VDI_on_boot))
			draft_copy(&d, i, from->fields[i]);
	draft_str(&d, F_VDI_SR, sr_ref);
	draft_str(&d, F_VDI_location, record_str(d.now, F_VDI_uuid));
	draft_copy(vbd, F_VBD_VDI, d.now->ref);
	draft_map_put(vbd, F_VBD_other_config, "owner", value_stringz(""));
	draft_write(&d);
}

/* Of the classes VBD and VIF: what a caller can set at their creation. */
static void copy_device(struct draft *d, const struct record *from)
{
	const struct class_def *c = from->cls;

	for (unsigned i = 0; i < c->n_fields; i++)
		if (c->fields[i].qualifier != FIELD_RUNTIME &&
		    c->fields[i].relation != RELATION_MANY &&
		    strcmp(c->fields[i].name, "currently_attached") != 0)
			draft_copy(d, i, from->fields[i]);
}

struct copying {
	const struct store *s;
	struct draft vm;
	const char *sr; /* "" : where each disk is */
	char seed[UUID_LEN + 1];
};

static void copy_vbd(struct copying *c, const struct record *from)
{
	const struct record *vdi = store_get_class(c->s, CLASS_VDI,
						   record_str(from, F_VBD_VDI));
	struct draft d;

	draft_create(&d, c->vm.t, CLASS_VBD, NULL);
	copy_device(&d, from);
	draft_copy(&d, F_VBD_VM, c->vm.now->ref);
	if (vdi && !record_bool(from, F_VBD_empty) &&
	    !value_is_str(from->fields[F_VBD_type], "CD"))
		copy_vdi(&d, vdi, *c->sr ? c->sr : record_str(vdi, F_VDI_SR));
	draft_set(&d, F_VBD_allowed_operations,
		  vbd_allowed_operations(c->vm.now, d.now));
	draft_write(&d);
}

static void copy_vif(struct copying *c, const struct record *from)
{
	char mac[18];
	struct draft d;

	draft_create(&d, c->vm.t, CLASS_VIF, NULL);
	copy_device(&d, from);
	draft_copy(&d, F_VIF_VM, c->vm.now->ref);
	vif_default_mac(c->seed, (unsigned)atoi(record_str(from, F_VIF_device)),
			mac);
	draft_str(&d, F_VIF_MAC, mac);
	draft_bool(&d, F_VIF_MAC_autogenerated, true);
	draft_set(&d, F_VIF_allowed_operations,
		  vif_allowed_operations(c->vm.now, d.now));
	draft_write(&d);
}

static void copy_devices(struct copying *c, const struct record *from)
{
	const struct value *vbds = from->fields[F_VM_VBDs];
	const struct value *vifs = from->fields[F_VM_VIFs];
	const struct record *row;

	for (uint32_t i = 0; i < vbds->n; i++) {
		row = store_get_class(c->s, CLASS_VBD,
				      value_str(vbds->items[i]));
		if (row)
			copy_vbd(c, row);
	}
	for (uint32_t i = 0; i < vifs->n; i++) {
		row = store_get_class(c->s, CLASS_VIF,
				      value_str(vifs->items[i]));
		if (row)
			copy_vif(c, row);
	}
}

/* Disks are copied where that is rows only; elsewhere it takes storage. */
static struct value *copy_error(const struct store *s, const struct record *vm,
				const char *sr)
{
	const struct value *vbds = vm->fields[F_VM_VBDs];
	struct value *error = NULL;

	for (uint32_t i = 0; i < vbds->n && !error; i++) {
		const struct record *vbd = store_get_class(
			s, CLASS_VBD, value_str(vbds->items[i]));
		const struct record *vdi = vbd ? store_get_class(
			s, CLASS_VDI, record_str(vbd, F_VBD_VDI)) : NULL;

		if (!vdi || record_bool(vbd, F_VBD_empty) ||
		    value_is_str(vbd->fields[F_VBD_type], "CD"))
			continue;
		error = sr_refuses(s, record_str(vdi, F_VDI_SR));
		if (!error && *sr)
			error = sr_refuses(s, sr);
	}
	return error;
}

static void copy_vm(struct req *r, const char *op, const char *sr)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	struct copying c = { .s = req_store(r), .sr = sr };
	struct value *error, *ref;
	struct txn *t;

	if (!vm || !vm_check_op(r, vm, op, true))
		return;
	error = copy_error(c.s, vm, sr);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	t = req_txn(r);
	txn_guard_version(t, vm);
	draft_create(&c.vm, t, CLASS_VM, NULL);
	copy_fields(&c.vm, vm);
	copy_other_config(&c.vm, vm, c.seed);
	draft_str(&c.vm, F_VM_name_label, req_arg_str(r, 1));
	draft_int(&c.vm, F_VM_domid, -1);
	new_generation_id(&c.vm);
	vm_add_metrics(&c.vm, 0);
	copy_devices(&c, vm);
	message_create(t, "VM_CLONED", 5, "VM", record_str(c.vm.now, F_VM_uuid),
		       req_arg_str(r, 1));
	ref = value_ref(c.vm.now->ref);
	draft_write_vm(&c.vm, c.s);
	req_commit(r, t, ref);
}

void vm_clone(struct req *r)
{
	copy_vm(r, "clone", "");
}

void vm_copy(struct req *r)
{
	const char *sr = req_arg_str(r, 2);
	const struct record *row = store_get_class(req_store(r), CLASS_SR, sr);

	if (row && value_is_str(row->fields[F_SR_content_type], "iso"))
		req_fail(r, "OPERATION_NOT_ALLOWED",
			 "disks cannot be copied to an ISO library", NULL);
	else
		copy_vm(r, "copy", row ? sr : "");
}

/* ---- template or not ---- */

static void becomes_vm(struct req *r, struct draft *d)
{
	struct record *m = store_get_class(req_store(r), CLASS_VM_metrics,
					   record_str(d->now, F_VM_metrics));
	int64_t now = env_wall_ms() / 1000;

	draft_bool(d, F_VM_is_a_template, false);
	if (m)
		txn_set(d->t, m->cls, value_str(m->ref),
			F_VM_metrics_install_time, value_datetime(now));
	else
		vm_add_metrics(d, now);
}

void vm_provision(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const struct record *pool = store_first(req_store(r), CLASS_pool);
	struct txn *t;
	struct draft d;

	if (!vm || !vm_check_op(r, vm, "provision", true))
		return;
	if (strstr(value_get_str(vm->fields[F_VM_other_config], "disks"),
		   "<disk ")) {
		req_fail(r, "SR_OPERATION_NOT_SUPPORTED",
			 pool ? record_str(pool, F_pool_default_SR) : REF_NULL,
			 NULL);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, vm);
	becomes_vm(r, &d);
	draft_map_remove(&d, F_VM_other_config, "disks");
	draft_map_remove(&d, F_VM_other_config, "postinstall");
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

static void becomes_template(struct req *r, struct record *vm)
{
	struct txn *t;
	struct draft d;

	if (!vm_check_op(r, vm, "make_into_template", true))
		return;
	if (record_bool(vm, F_VM_ha_always_run) &&
	    value_is_str(vm->fields[F_VM_ha_restart_priority], "restart")) {
		req_fail(r, "VM_IS_PROTECTED", value_str(vm->ref), NULL);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_bool(&d, F_VM_is_a_template, true);
	row_destroy(req_store(r), t, record_str(vm, F_VM_metrics));
	draft_null(&d, F_VM_metrics);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

void vm_set_is_a_template(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	bool value = req_arg_bool(r, 1);
	struct txn *t;
	struct draft d;

	if (!vm)
		return;
	if (value == record_bool(vm, F_VM_is_a_template)) {
		req_reply(r, NULL);
		return;
	}
	if (value) {
		becomes_template(r, vm);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, vm);
	becomes_vm(r, &d);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

void vm_set_is_default_template(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	bool value = req_arg_bool(r, 1);
	struct txn *t;
	struct draft d;

	if (!vm)
		return;
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_bool(&d, F_VM_is_default_template, value);
	if (value)
		draft_map_put(&d, F_VM_other_config, "default_template",
			      value_stringz("true"));
	else
		draft_map_remove(&d, F_VM_other_config, "default_template");
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}
