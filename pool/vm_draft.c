#include <string.h>

#include "pool/storage.h"

void draft_edit(struct draft *d, struct txn *t, struct record *base)
{
	d->t = t;
	d->base = base;
	d->now = record_copy(base);
}

static struct record *record_of_defaults(const struct class_def *cls,
					 const char *ref)
{
	struct record *r = record_new(cls, value_stringz(ref));

	for (unsigned i = 0; i < cls->n_fields; i++)
		r->fields[i] = schema_field_default(cls, i);
	return r;
}

void draft_create(struct draft *d, struct txn *t, int cls, const char *uuid)
{
	char ref[REF_LEN + 1], made[UUID_LEN + 1];

	if (!uuid) {
		uuid_new(made);
		uuid = made;
	}
	d->t = t;
	d->base = NULL;
	row_create(t, cls, uuid, ref);
	d->now = record_of_defaults(class_of(cls), ref);
	record_set(d->now, (unsigned)class_of(cls)->f_uuid,
		   value_stringz(uuid));
}

const char *draft_ref(const struct draft *d)
{
	return value_str(d->now->ref);
}

void draft_set(struct draft *d, unsigned field, struct value *takes_v)
{
	record_set(d->now, field, takes_v);
}

void draft_str(struct draft *d, unsigned field, const char *s)
{
	draft_set(d, field, value_stringz(s));
}

void draft_int(struct draft *d, unsigned field, int64_t i)
{
	draft_set(d, field, value_int(i));
}

void draft_bool(struct draft *d, unsigned field, bool b)
{
	draft_set(d, field, value_bool(b));
}

void draft_date(struct draft *d, unsigned field, int64_t unix_seconds)
{
	draft_set(d, field, value_datetime(unix_seconds));
}

void draft_copy(struct draft *d, unsigned field, const struct value *v)
{
	draft_set(d, field, value_ref(v));
}

void draft_null(struct draft *d, unsigned field)
{
	draft_set(d, field, value_null_ref());
}

void draft_map_put(struct draft *d, unsigned field, const char *key,
		   struct value *takes_v)
{
	struct value *k = value_stringz(key);

	draft_set(d, field, value_map_with(d->now->fields[field], k, takes_v));
	value_unref(k);
	value_unref(takes_v);
}

void draft_map_remove(struct draft *d, unsigned field, const char *key)
{
	draft_set(d, field,
		  value_map_without(d->now->fields[field], key, strlen(key)));
}

void draft_drop(struct draft *d)
{
	record_unref(TAKE_PTR(d->now));
}

/* A created row has its defaults and its uuid from row_create(). */
static bool field_differs(const struct draft *d, unsigned field)
{
	const struct class_def *cls = d->now->cls;
	_cleanup_(value_unrefp) struct value *old = NULL;

	if (cls->fields[field].relation == RELATION_MANY)
		return false;
	if (!d->base && (int)field == cls->f_uuid)
		return false;
	old = d->base ? value_ref(d->base->fields[field]) :
			schema_field_default(cls, field);
	return old != d->now->fields[field] &&
	       !value_equal(old, d->now->fields[field]);
}

void draft_write(struct draft *d)
{
	const struct class_def *cls = d->now->cls;

	if (d->base)
		txn_guard_version(d->t, d->base);
	for (unsigned i = 0; i < cls->n_fields; i++)
		if (field_differs(d, i))
			txn_set(d->t, cls, draft_ref(d), i,
				value_ref(d->now->fields[i]));
	draft_drop(d);
}

static bool is_halted(const struct record *vm)
{
	return value_is_str(vm->fields[F_VM_power_state], "Halted");
}

bool vm_device_is_wanted(const struct record *vm, const struct record *device,
			 unsigned attached_field)
{
	return is_halted(vm) || record_bool(device, attached_field);
}

/* A boot attaches every device; one that was made later, and never plugged,
 * stays as it is. */
static bool is_booting(const struct draft *vm)
{
	return vm_is_live(vm->now) && is_halted(vm->base);
}

/* What may be done with a disk depends on whether a drive has it in use. Of two
 * that want it at once the second finds it changed. */
static void write_vdi(struct draft *vbd, const struct store *s,
		      const char *vdi_ref)
{
	const struct record *vdi = store_get_class(s, CLASS_VDI, vdi_ref);

	if (!vdi)
		return;
	txn_guard_version(vbd->t, vdi);
	txn_set(vbd->t, vdi->cls, value_str(vdi->ref), F_VDI_allowed_operations,
		vdi_allowed_operations(s, vdi, vbd->now));
}

static bool field_changed(const struct draft *d, unsigned field)
{
	return !value_equal(d->base->fields[field], d->now->fields[field]);
}

void draft_write_vbd(struct draft *d, const struct store *s,
		     const struct record *vm)
{
	bool other = field_changed(d, F_VBD_VDI);

	draft_set(d, F_VBD_allowed_operations,
		  vbd_allowed_operations(vm, d->now));
	if (other || field_changed(d, F_VBD_currently_attached) ||
	    field_changed(d, F_VBD_reserved))
		write_vdi(d, s, record_str(d->now, F_VBD_VDI));
	if (other)
		write_vdi(d, s, record_str(d->base, F_VBD_VDI));
	draft_write(d);
}

void draft_write_vif(struct draft *d, const struct record *vm)
{
	draft_set(d, F_VIF_allowed_operations,
		  vif_allowed_operations(vm, d->now));
	draft_write(d);
}

/* Its disks are promised to it from the call on. */
static bool will_boot(const struct record *vm)
{
	static const char *const boots[] = { "start", "start_on", "resume",
					     "resume_on" };
	const struct value *ops = vm->fields[F_VM_current_operations];

	for (uint32_t i = 0; i < ops->n && !vm_is_live(vm); i++)
		for (size_t k = 0; k < ARRAY_LEN(boots); k++)
			if (value_is_str(ops->items[2 * i + 1], boots[k]))
				return true;
	return false;
}

static void write_vbd(struct draft *vm, const struct store *s,
		      struct record *vbd)
{
	struct draft d;
	char device[16];

	draft_edit(&d, vm->t, vbd);
	if (is_booting(vm)) {
		vbd_device_name(record_str(vbd, F_VBD_userdevice), device);
		draft_str(&d, F_VBD_device, device);
		draft_bool(&d, F_VBD_currently_attached, true);
	} else if (is_halted(vm->now)) {
		draft_bool(&d, F_VBD_currently_attached, false);
		draft_set(&d, F_VBD_current_operations, value_map_empty());
	}
	if (!vm_is_live(vm->base) || !vm_is_live(vm->now))
		draft_bool(&d, F_VBD_reserved, will_boot(vm->now));
	draft_write_vbd(&d, s, vm->now);
}

static void write_vif(struct draft *vm, const struct store *s,
		      struct record *vif)
{
	struct draft d;

	draft_edit(&d, vm->t, vif);
	if (is_booting(vm)) {
		draft_bool(&d, F_VIF_currently_attached, true);
		draft_int(&d, F_VIF_MTU, vif_mtu(s, vif));
	} else if (is_halted(vm->now)) {
		draft_bool(&d, F_VIF_currently_attached, false);
		draft_bool(&d, F_VIF_reserved, false);
		draft_set(&d, F_VIF_current_operations, value_map_empty());
	}
	draft_write_vif(&d, vm->now);
}

static void write_devices(struct draft *vm, const struct store *s)
{
	const struct value *vbds = vm->base->fields[F_VM_VBDs];
	const struct value *vifs = vm->base->fields[F_VM_VIFs];
	struct record *r;

	for (uint32_t i = 0; i < vbds->n; i++) {
		r = store_get_class(s, CLASS_VBD, value_str(vbds->items[i]));
		if (r)
			write_vbd(vm, s, r);
	}
	for (uint32_t i = 0; i < vifs->n; i++) {
		r = store_get_class(s, CLASS_VIF, value_str(vifs->items[i]));
		if (r)
			write_vif(vm, s, r);
	}
}

void draft_write_vm(struct draft *d, const struct store *s)
{
	if (d->base && (!value_equal(d->base->fields[F_VM_power_state],
				     d->now->fields[F_VM_power_state]) ||
			!value_equal(d->base->fields[F_VM_current_operations],
				     d->now->fields[F_VM_current_operations])))
		write_devices(d, s);
	draft_set(d, F_VM_allowed_operations, vm_allowed_operations(s, d->now));
	draft_write(d);
}

void draft_write_host(struct draft *d, bool live)
{
	draft_set(d, F_host_allowed_operations,
		  host_allowed_operations(d->now, live));
	draft_write(d);
}
