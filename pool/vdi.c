/* Disks (VDI): what may be done with one when, and the calls. */
#include <string.h>

#include "base/env.h"
#include "pool/storage.h"

/* ---- checks ---- */

struct vdi_check {
	const struct store *s;
	const struct record *vdi, *sr, *changed;
	const char *op;
};

static bool is_op(const struct vdi_check *c, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(*list, c->op))
			return true;
	return false;
}

static struct value *error_of_vdi(const struct vdi_check *c, const char *code)
{
	return api_error(code, value_str(c->vdi->ref), NULL);
}

static struct value *no_pbd(const struct vdi_check *c)
{
	if (strcmp(c->op, "resize") != 0 || sr_has_plugged_pbd(c->s, c->sr))
		return NULL;
	return error_of_sr("SR_HAS_NO_PBDS", value_str(c->sr->ref));
}

static bool is_active(const struct record *vbd)
{
	return record_bool(vbd, F_VBD_currently_attached) ||
	       record_bool(vbd, F_VBD_reserved);
}

/* A copy bears readers. */
static bool uses(const struct vdi_check *c, const struct record *vbd)
{
	return value_equal(vbd->fields[F_VBD_VDI], c->vdi->ref) &&
	       is_active(vbd) &&
	       (strcmp(c->op, "copy") != 0 ||
		value_is_str(vbd->fields[F_VBD_mode], "RW"));
}

static struct value *in_use(const struct vdi_check *c)
{
	static const char *const any[] = { "snapshot", "resize_online", "clone",
					   "update", NULL };
	const struct value *vbds = c->vdi->fields[F_VDI_VBDs];

	if (is_op(c, any))
		return NULL;
	bool used = c->changed && uses(c, c->changed);

	for (uint32_t i = 0; i < vbds->n && !used; i++) {
		const struct record *vbd = store_get_class(
			c->s, CLASS_VBD, value_str(vbds->items[i]));

		used = vbd && uses(c, vbd) &&
		       !(c->changed &&
			 value_equal(vbd->ref, c->changed->ref));
	}
	return used ? api_error("VDI_IN_USE", value_str(c->vdi->ref), c->op,
				NULL) : NULL;
}

static struct value *no_feature(const struct vdi_check *c)
{
	static const struct {
		const char *op, *feature;
	} needs[] = {
		{ "snapshot", "VDI_SNAPSHOT" }, { "clone", "VDI_CLONE" },
		{ "copy", "VDI_CLONE" }, { "destroy", "VDI_DELETE" },
		{ "resize", "VDI_RESIZE" }, { "update", "VDI_UPDATE" },
		{ "resize_online", "VDI_RESIZE_ONLINE" },
	};

	if (!strcmp(c->op, "forget"))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(needs); i++)
		if (!strcmp(needs[i].op, c->op) &&
		    sr_can(c->sr, needs[i].feature))
			return NULL;
	return error_of_sr("SR_OPERATION_NOT_SUPPORTED",
			   value_str(c->sr->ref));
}

static struct value *not_this_disk(const struct vdi_check *c)
{
	bool copies = !strcmp(c->op, "copy") || !strcmp(c->op, "snapshot");
	const char *type = record_str(c->vdi, F_VDI_type);

	if (!strcmp(c->op, "destroy") && !strcmp(type, "rrd"))
		return error_of_vdi(c, "VDI_HAS_RRDS");
	if (!strcmp(c->op, "snapshot") && record_bool(c->vdi, F_VDI_sharable))
		return error_of_vdi(c, "VDI_IS_SHARABLE");
	if (copies && value_is_str(c->vdi->fields[F_VDI_on_boot], "reset"))
		return api_error("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",
				 NULL);
	return NULL;
}

/* The image of a suspended VM is a file that only the VM's own calls treat. */
static struct value *is_image(const struct vdi_check *c)
{
	static const char *const none[] = { "destroy", "forget", NULL };

	if (!value_is_str(c->vdi->fields[F_VDI_type], "suspend") ||
	    is_op(c, none))
		return NULL;
	return api_error("VDI_INCOMPATIBLE_TYPE", value_str(c->vdi->ref),
			 "suspend", NULL);
}

struct value *vdi_op_error(const struct store *s, const struct record *vdi,
			   const char *op, const struct record *changed)
{
	static struct value *(*const checks[])(const struct vdi_check *) = {
		no_pbd, in_use, no_feature, not_this_disk, is_image,
	};
	struct vdi_check c = { s, vdi, NULL, changed, op };
	struct value *error = NULL;

	c.sr = store_get_class(s, CLASS_SR, record_str(vdi, F_VDI_SR));
	if (!c.sr)
		return api_error("HANDLE_INVALID", "SR",
				 record_str(vdi, F_VDI_SR), NULL);
	for (size_t i = 0; i < ARRAY_LEN(checks) && !error; i++)
		error = checks[i](&c);
	return error;
}

struct value *vdi_allowed_operations(const struct store *s,
				     const struct record *vdi,
				     const struct record *changed)
{
	static const char *const ops[] = { "snapshot", "clone", "copy", "resize",
					   "resize_online", "destroy", "forget",
					   "update" };
	struct value *set = value_set_new(ARRAY_LEN(ops));
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		_cleanup_(value_unrefp) struct value *error =
			vdi_op_error(s, vdi, ops[i], changed);

		if (!error)
			set->items[n++] = value_stringz(ops[i]);
	}
	set->n = n;
	return set;
}

/* The disk, if the operation may begin; else the request has ended. */
static struct record *checked_vdi(struct req *r, const char *op)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);
	struct value *error;

	if (!vdi)
		return NULL;
	error = vdi_op_error(req_store(r), vdi, op, NULL);
	if (!error)
		return vdi;
	req_fail_value(r, error);
	return NULL;
}

/* ---- coming ---- */

static struct value *size_error(int64_t size)
{
	_cleanup_(freep) char *text = xasprintf("%lld", (long long)size);

	return api_error("INVALID_VALUE", "virtual_size", text, NULL);
}

static struct value *create_error(const struct store *s,
				  const struct value *args)
{
	const char *sr_ref = value_get_str(args, "SR");
	const struct record *sr = store_get_class(s, CLASS_SR, sr_ref);
	int64_t size = value_get_int(args, "virtual_size", 0);

	if (!sr)
		return api_error("HANDLE_INVALID", "SR", sr_ref, NULL);
	if (!strcmp(value_get_str(args, "type"), "cbt_metadata"))
		return api_error("VDI_INCOMPATIBLE_TYPE", "", "cbt_metadata",
				 NULL);
	if (!sr_can(sr, "VDI_CREATE"))
		return error_of_sr("SR_OPERATION_NOT_SUPPORTED", sr_ref);
	if (!sr_has_plugged_pbd(s, sr))
		return error_of_sr("SR_HAS_NO_PBDS", sr_ref);
	return size > 0 ? NULL : size_error(size);
}

static bool is_never_ignored(unsigned field)
{
	return false;
}

/* Finishes a new disk and answers with it. */
static void reply_new(struct req *r, struct draft *d)
{
	const struct record *sr = store_get_class(
		req_store(r), CLASS_SR, record_str(d->now, F_VDI_SR));
	struct txn *t = d->t;
	struct value *ref = value_ref(d->now->ref);

	if (!*record_str(d->now, F_VDI_location))
		draft_str(d, F_VDI_location, record_str(d->now, F_VDI_uuid));
	draft_bool(d, F_VDI_managed, true);
	draft_set(d, F_VDI_allowed_operations,
		  vdi_allowed_operations(req_store(r), d->now, NULL));
	sr_grow(t, req_store(r), sr, record_int(d->now, F_VDI_virtual_size));
	draft_write(d);
	req_commit(r, t, ref);
}

static void vdi_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	struct value *error = missing_member(class_of(CLASS_VDI), args);
	struct draft d;

	if (!error)
		error = create_error(req_store(r), args);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	draft_create(&d, req_txn(r), CLASS_VDI, NULL);
	draft_take_args(&d, args, is_never_ignored);
	reply_new(r, &d);
}

/* A file's name, which cannot lead out of the folder. */
static bool is_file_name(const char *s)
{
	return *s && *s != '.' && strlen(s) <= 255 && !strchr(s, '/');
}

static struct value *introduce_error(const struct store *s, const char *uuid,
				     const struct record *sr,
				     const char *location)
{
	if (!sr_can(sr, "VDI_INTRODUCE"))
		return error_of_sr("SR_OPERATION_NOT_SUPPORTED",
				   value_str(sr->ref));
	if (!sr_has_plugged_pbd(s, sr))
		return error_of_sr("SR_HAS_NO_PBDS", value_str(sr->ref));
	if (*uuid && (!uuid_valid(uuid, strlen(uuid)) ||
		      store_by_uuid(s, CLASS_VDI, uuid)))
		return api_error("UUID_INVALID", "VDI", uuid, NULL);
	if (!is_file_name(location))
		return api_error("INVALID_VALUE", "location", location, NULL);
	for (uint32_t i = 0; i < sr->fields[F_SR_VDIs]->n; i++) {
		const struct record *vdi = store_get_class(
			s, CLASS_VDI,
			value_str(sr->fields[F_SR_VDIs]->items[i]));

		if (vdi && value_is_str(vdi->fields[F_VDI_location], location))
			return api_error("LOCATION_NOT_UNIQUE",
					 value_str(sr->ref), location, NULL);
	}
	return NULL;
}

/* By argument, from the second on. */
static const int introduced[] = {
	F_VDI_name_label, F_VDI_name_description, F_VDI_SR, F_VDI_type,
	F_VDI_sharable, F_VDI_read_only, F_VDI_other_config, F_VDI_location,
	F_VDI_xenstore_data, F_VDI_sm_config, -1, F_VDI_virtual_size,
	F_VDI_physical_utilisation,
};

static void vdi_introduce(struct req *r)
{
	struct record *sr = req_arg_record(r, 3, CLASS_SR);
	const char *uuid = req_arg_str(r, 0), *location = req_arg_str(r, 8);
	struct value *error;
	struct draft d;

	if (!sr)
		return;
	error = introduce_error(req_store(r), uuid, sr, location);
	if (!error && req_arg_int(r, 12) < 0)
		error = size_error(req_arg_int(r, 12));
	if (error) {
		req_fail_value(r, error);
		return;
	}
	draft_create(&d, req_txn(r), CLASS_VDI, *uuid ? uuid : NULL);
	for (unsigned i = 0; i < ARRAY_LEN(introduced); i++)
		if (introduced[i] >= 0)
			draft_copy(&d, (unsigned)introduced[i],
				   req_arg(r, i + 1));
	if (!*record_str(d.now, F_VDI_name_label))
		draft_str(&d, F_VDI_name_label, location);
	reply_new(r, &d);
}

static const unsigned copied[] = {
	F_VDI_SR, F_VDI_name_label, F_VDI_name_description, F_VDI_virtual_size,
	F_VDI_type, F_VDI_sharable, F_VDI_read_only, F_VDI_other_config,
	F_VDI_xenstore_data, F_VDI_on_boot, F_VDI_allow_caching, F_VDI_tags,
};

static void begin_copy(struct req *r, struct draft *d, struct record *vdi)
{
	struct txn *t = req_txn(r);

	txn_guard_version(t, vdi);
	draft_create(d, t, CLASS_VDI, NULL);
	for (size_t i = 0; i < ARRAY_LEN(copied); i++)
		draft_copy(d, copied[i], vdi->fields[copied[i]]);
}

static void vdi_clone(struct req *r)
{
	struct record *vdi = checked_vdi(r, "clone");
	struct draft d;

	if (!vdi)
		return;
	begin_copy(r, &d, vdi);
	reply_new(r, &d);
}

static void vdi_snapshot(struct req *r)
{
	struct record *vdi = checked_vdi(r, "snapshot");
	struct draft d;

	if (!vdi)
		return;
	begin_copy(r, &d, vdi);
	draft_bool(&d, F_VDI_is_a_snapshot, true);
	draft_copy(&d, F_VDI_snapshot_of, vdi->ref);
	draft_date(&d, F_VDI_snapshot_time, env_wall_ms() / 1000);
	reply_new(r, &d);
}

static struct value *into_error(struct req *r, const struct record *from,
				const struct record *into)
{
	_cleanup_(freep) char *need = xasprintf(
		"%lld", (long long)record_int(from, F_VDI_virtual_size));

	if (record_bool(into, F_VDI_read_only))
		return api_error("VDI_READONLY", value_str(into->ref), NULL);
	if (record_int(into, F_VDI_virtual_size) <
	    record_int(from, F_VDI_virtual_size))
		return api_error("VDI_TOO_SMALL", value_str(into->ref), need,
				 NULL);
	return vdi_op_error(req_store(r), into, "destroy", NULL);
}

/* There are no contents: a disk that is big enough is a copy already. */
static void copy_into(struct req *r, const struct record *vdi)
{
	struct record *into = req_arg_record(r, 3, CLASS_VDI);
	struct value *error = into ? into_error(r, vdi, into) : NULL;

	if (error)
		req_fail_value(r, error);
	else if (into)
		req_reply(r, value_ref(into->ref));
}

static void vdi_copy(struct req *r)
{
	struct record *vdi = checked_vdi(r, "copy"), *sr;
	struct value *error = NULL;
	struct draft d;

	if (!vdi)
		return;
	if (!value_is_null_ref(req_arg(r, 3))) {
		copy_into(r, vdi);
		return;
	}
	sr = req_arg_record(r, 1, CLASS_SR);
	if (!sr)
		return;
	if (!sr_can(sr, "VDI_CREATE"))
		error = error_of_sr("SR_OPERATION_NOT_SUPPORTED",
				    value_str(sr->ref));
	else if (!sr_has_plugged_pbd(req_store(r), sr))
		error = error_of_sr("SR_HAS_NO_PBDS", value_str(sr->ref));
	if (error) {
		req_fail_value(r, error);
		return;
	}
	begin_copy(r, &d, vdi);
	draft_copy(&d, F_VDI_SR, sr->ref);
	draft_bool(&d, F_VDI_read_only, false);
	reply_new(r, &d);
}

/* ---- going ---- */

static void drop_vbds(const struct store *s, struct txn *t,
		      const struct record *vdi)
{
	const struct value *vbds = vdi->fields[F_VDI_VBDs];

	for (uint32_t i = 0; i < vbds->n; i++) {
		struct record *vbd = store_get_class(s, CLASS_VBD,
						     value_str(vbds->items[i]));

		if (!vbd)
			continue;
		txn_guard_version(t, vbd);
		row_destroy(s, t, record_str(vbd, F_VBD_metrics));
		txn_destroy(t, value_str(vbd->ref));
	}
}

static void forget_image(const struct store *s, struct txn *t,
			 const struct record *vdi)
{
	if (!value_is_str(vdi->fields[F_VDI_type], "suspend"))
		return;
	for (struct record *vm = store_first(s, CLASS_VM); vm;
	     vm = store_next(s, vm))
		if (value_equal(vm->fields[F_VM_suspend_VDI], vdi->ref))
			txn_set(t, vm->cls, value_str(vm->ref),
				F_VM_suspend_VDI, value_null_ref());
}

void vdi_drop(const struct store *s, struct txn *t, const struct record *vdi)
{
	const struct value *snapshots = vdi->fields[F_VDI_snapshots];

	txn_guard_version(t, vdi);
	drop_vbds(s, t, vdi);
	forget_image(s, t, vdi);
	for (uint32_t i = 0; i < snapshots->n; i++)
		if (store_get_class(s, CLASS_VDI,
				    value_str(snapshots->items[i])))
			txn_set(t, vdi->cls, value_str(snapshots->items[i]),
				F_VDI_snapshot_of, value_null_ref());
	txn_destroy(t, value_str(vdi->ref));
}

static void drop(struct req *r, struct record *vdi, bool with_contents)
{
	const struct record *sr = store_get_class(
		req_store(r), CLASS_SR, record_str(vdi, F_VDI_SR));
	struct txn *t = req_txn(r);

	if (with_contents)
		job_image_drop(r->pool, t, value_str(vdi->ref));
	vdi_drop(req_store(r), t, vdi);
	/* Suspended VMs' images were not added either. */
	if (sr && !value_is_str(vdi->fields[F_VDI_type], "suspend"))
		sr_grow(t, req_store(r), sr,
			-record_int(vdi, F_VDI_virtual_size));
	req_commit(r, t, NULL);
}

static void vdi_destroy(struct req *r)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);
	struct value *error;

	if (!vdi)
		return;
	error = record_bool(vdi, F_VDI_managed) ?
		vdi_op_error(req_store(r), vdi, "destroy", NULL) :
		api_error("VDI_NOT_MANAGED", value_str(vdi->ref), NULL);
	if (error)
		req_fail_value(r, error);
	else
		drop(r, vdi, true);
}

static void vdi_forget(struct req *r)
{
	struct record *vdi = checked_vdi(r, "forget");

	if (vdi)
		drop(r, vdi, false);
}

/* ---- changing ---- */

static void resize(struct req *r, const char *op)
{
	struct record *vdi = checked_vdi(r, op);
	int64_t size = req_arg_int(r, 1), now;
	const struct record *sr;
	struct txn *t;

	if (!vdi)
		return;
	now = record_int(vdi, F_VDI_virtual_size);
	if (size < now) {
		req_fail_value(r, size_error(size));
		return;
	}
	sr = store_get_class(req_store(r), CLASS_SR, record_str(vdi, F_VDI_SR));
	t = req_txn(r);
	txn_guard_version(t, vdi);
	txn_set(t, vdi->cls, value_str(vdi->ref), F_VDI_virtual_size,
		value_int(size));
	if (size != now)
		sr_grow(t, req_store(r), sr, size - now);
	req_commit(r, t, NULL);
}

static void vdi_resize(struct req *r)
{
	resize(r, "resize");
}

static void vdi_resize_online(struct req *r)
{
	resize(r, "resize_online");
}

static void set_field(struct req *r, struct record *vdi, unsigned field)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vdi);
	draft_copy(&d, field, req_arg(r, 1));
	draft_set(&d, F_VDI_allowed_operations,
		  vdi_allowed_operations(req_store(r), d.now, NULL));
	draft_write(&d);
	req_commit(r, t, NULL);
}

static void set_name(struct req *r, unsigned field)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);

	if (vdi)
		set_field(r, vdi, field);
}

static void vdi_set_name_label(struct req *r)
{
	set_name(r, F_VDI_name_label);
}

static void vdi_set_name_description(struct req *r)
{
	set_name(r, F_VDI_name_description);
}

static const struct record *user_not_halted(const struct store *s,
					    const struct record *vdi)
{
	const struct value *vbds = vdi->fields[F_VDI_VBDs];

	for (uint32_t i = 0; i < vbds->n; i++) {
		const struct record *vbd = store_get_class(
			s, CLASS_VBD, value_str(vbds->items[i]));
		const struct record *vm = vbd ? store_get_class(
			s, CLASS_VM, record_str(vbd, F_VBD_VM)) : NULL;

		if (vm && strcmp(vm_state_lower(vm), "halted") != 0)
			return vm;
	}
	return NULL;
}

static void set_while_halted(struct req *r, unsigned field)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);
	const struct record *vm;

	if (!vdi)
		return;
	vm = user_not_halted(req_store(r), vdi);
	if (vm)
		req_fail_value(r, vm_bad_power_state(vm, "halted"));
	else
		set_field(r, vdi, field);
}

static void vdi_set_allow_caching(struct req *r)
{
	set_while_halted(r, F_VDI_allow_caching);
}

/* ---- what storage of this kind has not ---- */

static void vdi_not_supported(struct req *r)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);

	if (vdi)
		req_fail(r, "SR_OPERATION_NOT_SUPPORTED",
			 record_str(vdi, F_VDI_SR), NULL);
}

static void vdi_set_on_boot(struct req *r)
{
	struct record *vdi = req_arg_record(r, 0, CLASS_VDI);

	if (!vdi)
		return;
	if (value_equal(vdi->fields[F_VDI_on_boot], req_arg(r, 1)))
		req_reply(r, NULL);
	else
		vdi_not_supported(r);
}

/* The size, the only thing to be read anew, is what the row says. */
static void vdi_update(struct req *r)
{
	if (checked_vdi(r, "update"))
		req_reply(r, NULL);
}

static void vdi_get_nbd_info(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_VDI))
		req_reply(r, value_set_empty());
}

/* For drivers only, which tell the pool what they have found. */
static void vdi_for_drivers(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_VDI))
		req_fail(r, "PERMISSION_DENIED", "", NULL);
}

static void vdi_force_unlock(struct req *r)
{
	req_fail(r, "MESSAGE_DEPRECATED", NULL);
}

const struct handler_def vdi_handlers[] = {
	{ M_VDI_create, vdi_create },
	{ M_VDI_introduce, vdi_introduce },
	{ M_VDI_clone, vdi_clone },
	{ M_VDI_snapshot, vdi_snapshot },
	{ M_VDI_copy, vdi_copy },
	{ M_VDI_destroy, vdi_destroy },
	{ M_VDI_forget, vdi_forget },
	{ M_VDI_resize, vdi_resize },
	{ M_VDI_resize_online, vdi_resize_online },
	{ M_VDI_set_name_label, vdi_set_name_label },
	{ M_VDI_set_name_description, vdi_set_name_description },
	{ M_VDI_set_allow_caching, vdi_set_allow_caching },
	{ M_VDI_set_on_boot, vdi_set_on_boot },
	{ M_VDI_update, vdi_update },
	{ M_VDI_get_nbd_info, vdi_get_nbd_info },
	{ M_VDI_enable_cbt, vdi_not_supported },
	{ M_VDI_disable_cbt, vdi_not_supported },
	{ M_VDI_data_destroy, vdi_not_supported },
	{ M_VDI_set_sharable, vdi_for_drivers },
	{ M_VDI_set_read_only, vdi_for_drivers },
	{ M_VDI_set_managed, vdi_for_drivers },
	{ M_VDI_set_missing, vdi_for_drivers },
	{ M_VDI_set_virtual_size, vdi_for_drivers },
	{ M_VDI_set_physical_utilisation, vdi_for_drivers },
	{ M_VDI_set_is_a_snapshot, vdi_for_drivers },
	{ M_VDI_set_snapshot_of, vdi_for_drivers },
	{ M_VDI_set_snapshot_time, vdi_for_drivers },
	{ M_VDI_set_metadata_of_pool, vdi_for_drivers },
	{ M_VDI_set_cbt_enabled, vdi_for_drivers },
	{ M_VDI_db_forget, vdi_for_drivers },
	{ M_VDI_force_unlock, vdi_force_unlock },
	{ -1, NULL },
};
