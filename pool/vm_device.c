/* Virtual disks slots (VBD) and network cards (VIF): rows of a VM. vm_plug.c has
 * what changes a running domain. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "pool/vm_calls.h"

static struct value *one_error(const char *code, const char *param)
{
	return api_error(code, param, NULL);
}

/* The VM that a create call names, and the error when there is none. */
static struct record *arg_row(const struct req *r, const char *member, int cls,
			      struct value **error)
{
	const char *ref = value_get_str(req_arg(r, 0), member);
	struct record *row = store_get_class(req_store(r), cls, ref);

	if (!row && !*error)
		*error = api_error("HANDLE_INVALID", class_of(cls)->name, ref,
				   NULL);
	return row;
}

/* ---- disk numbers ---- */

static int letters_number(const char *s)
{
	int n = 0;

	if (!*s)
		return -1;
	for (; *s; s++) {
		if (*s < 'a' || *s > 'z' || n > VM_MAX_DEVICE)
			return -1;
		n = n * 26 + (*s - 'a' + 1);
	}
	return n - 1;
}

static int decimal_number(const char *s, int max)
{
	int n = 0;

	if (!*s || strlen(s) > 3)
		return -1;
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s))
			return -1;
		n = n * 10 + (*s - '0');
	}
	return n <= max ? n : -1;
}

int vbd_number(const char *s)
{
	int n = -1;

	if (!strncmp(s, "xvd", 3))
		n = letters_number(s + 3);
	else if (!strncmp(s, "hd", 2) || !strncmp(s, "sd", 2))
		n = letters_number(s + 2);
	else
		return decimal_number(s, VM_MAX_DEVICE);
	return n <= VM_MAX_DEVICE ? n : -1;
}

void vbd_device_name(const char *userdevice, char out[16])
{
	int n = vbd_number(userdevice);

	if (n < 0)
		*out = '\0';
	else if (n < 26)
		snprintf(out, 16, "xvd%c", 'a' + n);
	else
		snprintf(out, 16, "xvd%c%c", 'a' + n / 26 - 1, 'a' + n % 26);
}

/* Marks the numbers in use among the devices of a VM. */
static void used_numbers(const struct store *s, const struct value *set,
			 unsigned field, bool used[VM_MAX_DEVICE + 1])
{
	for (uint32_t i = 0; i < set->n; i++) {
		const struct record *row = store_get(s,
						     value_str(set->items[i]));
		int n = row ? vbd_number(record_str(row, field)) : -1;

		if (n >= 0)
			used[n] = true;
	}
}

/* The userdevice to store, or NULL and the error. */
static struct value *pick_device(const char *wanted, const bool *used, int max,
				 int number, struct value **error)
{
	if (!strcmp(wanted, "autodetect")) {
		for (int i = 0; i <= max; i++)
			if (!used[i])
				return value_printf("%d", i);
		number = -1;
	}
	if (number < 0)
		*error = one_error("INVALID_DEVICE", wanted);
	else if (used[number])
		*error = one_error("DEVICE_ALREADY_EXISTS", wanted);
	return *error ? NULL : value_stringz(wanted);
}

/* ---- VBD ---- */

static struct value *vdi_error(const struct value *args,
			       const struct record *vdi)
{
	static const char *const internal[] = { "ha_statefile", "redo_log",
						"cbt_metadata" };
	const char *type = vdi ? record_str(vdi, F_VDI_type) : "";

	for (size_t i = 0; i < ARRAY_LEN(internal); i++)
		if (!strcmp(internal[i], type))
			return api_error("VDI_INCOMPATIBLE_TYPE",
					 value_str(vdi->ref), type, NULL);
	return NULL;
}

struct value *vm_moving_error(const struct record *vm)
{
	const struct value *current = vm->fields[F_VM_current_operations];

	for (uint32_t i = 0; i < current->n; i++) {
		const struct value *op = current->items[2 * i + 1];

		if (value_is_str(op, "pool_migrate") ||
		    value_is_str(op, "migrate_send"))
			return api_error("OTHER_OPERATION_IN_PROGRESS", "VM",
					 value_str(vm->ref), value_str(op),
					 value_str(current->items[2 * i]), NULL);
	}
	return NULL;
}

static struct value *vbd_error(const struct value *args,
			       const struct record *vm,
			       const struct record *vdi)
{
	const char *type = value_get_str(args, "type");
	bool cd = !strcmp(type, "CD"), rw = !strcmp(value_get_str(args, "mode"),
						    "RW");
	const struct value *empty = value_get(args, "empty");
	struct value *error = vdi_error(args, vdi);

	if (error)
		return error;
	if (cd && rw)
		return api_error("VBD_CDS_MUST_BE_READONLY", NULL);
	if (empty && empty->i && !cd)
		return one_error("VBD_NOT_REMOVABLE_MEDIA", "in constructor");
	if (vdi && rw && record_bool(vdi, F_VDI_read_only))
		return one_error("VDI_READONLY", value_str(vdi->ref));
	if (!strcmp(type, "Floppy") && strcmp(vm_boot_type(vm), "hvm") != 0)
		return one_error("NOT_IMPLEMENTED",
				 "a floppy disk of a PV guest");
	return vm_moving_error(vm);
}

static bool is_vbd_ignored(unsigned field)
{
	return field == F_VBD_device || field == F_VBD_currently_attached ||
	       field == F_VBD_userdevice || field == F_VBD_VDI;
}

static void vbd_write(struct req *r, struct record *vm, struct record *vdi,
		      struct value *takes_device)
{
	const struct value *args = req_arg(r, 0);
	const struct value *attached = value_get(args, "currently_attached");
	struct txn *t = req_txn(r);
	struct draft d, m;
	struct value *ref;

	txn_guard_version(t, vm);
	draft_create(&m, t, CLASS_VBD_metrics, NULL);
	draft_create(&d, t, CLASS_VBD, NULL);
	draft_take_args(&d, args, is_vbd_ignored);
	draft_set(&d, F_VBD_userdevice, takes_device);
	draft_copy(&d, F_VBD_metrics, m.now->ref);
	draft_write(&m);
	if (vdi)
		draft_copy(&d, F_VBD_VDI, vdi->ref);
	if (!strcmp(vm_state_lower(vm), "suspended")) {
		draft_str(&d, F_VBD_device, value_get_str(args, "device"));
		draft_bool(&d, F_VBD_currently_attached,
			   attached && attached->i);
	}
	draft_set(&d, F_VBD_allowed_operations,
		  vbd_allowed_operations(vm, d.now));
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, t, ref);
}

void vbd_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	const struct value *empty = value_get(args, "empty");
	const char *wanted = value_get_str(args, "userdevice");
	bool used[VM_MAX_DEVICE + 1] = { false };
	struct value *error = NULL, *device = NULL;
	struct record *vm, *vdi = NULL;

	vm = arg_row(r, "VM", CLASS_VM, &error);
	if (vm && !(empty && empty->i))
		vdi = arg_row(r, "VDI", CLASS_VDI, &error);
	if (!error)
		error = vbd_error(args, vm, vdi);
	if (!error) {
		used_numbers(req_store(r), vm->fields[F_VM_VBDs],
			     F_VBD_userdevice, used);
		device = pick_device(wanted, used, VM_MAX_DEVICE,
				     vbd_number(wanted), &error);
	}
	if (!error)
		vbd_write(r, vm, vdi, device);
	else if (error_is(error, "OTHER_OPERATION_IN_PROGRESS"))
		req_wait(r, value_str(vm->ref), error);
	else
		req_fail_value(r, error);
}

static void device_destroy(struct req *r, struct record *row, unsigned attached,
			   unsigned metrics, const char *text)
{
	unsigned ops = row->cls->id == CLASS_VBD ? F_VBD_current_operations :
						   F_VIF_current_operations;
	struct txn *t;

	if (record_bool(row, attached) || row->fields[ops]->n) {
		req_fail(r, "OPERATION_NOT_ALLOWED", text, NULL);
		return;
	}
	t = req_txn(r);
	txn_guard_version(t, row);
	row_destroy(req_store(r), t, record_str(row, metrics));
	txn_destroy(t, value_str(row->ref));
	req_commit(r, t, NULL);
}

void vbd_destroy(struct req *r)
{
	struct record *vbd = req_arg_record(r, 0, CLASS_VBD);

	if (vbd)
		device_destroy(r, vbd, F_VBD_currently_attached, F_VBD_metrics,
			       "VBD is currently attached");
}

void vbd_set_mode(struct req *r)
{
	struct record *vbd = req_arg_record(r, 0, CLASS_VBD), *vm;
	struct txn *t;

	if (!vbd)
		return;
	vm = store_get_class(req_store(r), CLASS_VM, record_str(vbd, F_VBD_VM));
	if (vm && strcmp(vm_state_lower(vm), "halted") != 0) {
		req_fail_value(r, vm_bad_power_state(vm, "halted"));
		return;
	}
	t = req_txn(r);
	txn_set(t, vbd->cls, value_str(vbd->ref), F_VBD_mode,
		value_ref(req_arg(r, 1)));
	req_commit(r, t, NULL);
}

/* ---- VIF ---- */

/* Locally administered, unicast, and always the same for a seed and a slot. */
void vif_default_mac(const char *mac_seed, unsigned device, char out[18])
{
	_cleanup_(freep) char *text = xasprintf("%s-%u", mac_seed, device);
	uint64_t h = hash64(text, strlen(text));
	uint8_t b[6];

	memcpy(b, &h, sizeof b);
	b[0] = (uint8_t)((b[0] & 0xfc) | 2);
	snprintf(out, 18, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2],
		 b[3], b[4], b[5]);
}

static bool mac_is_valid(const char *s)
{
	if (strlen(s) != 17)
		return false;
	for (int i = 0; i < 17; i++)
		if (i % 3 == 2 ? s[i] != ':' : !isxdigit((unsigned char)s[i]))
			return false;
	return true;
}

static struct value *vif_mac(const struct record *vm, const char *wanted,
			     int device, struct value **error)
{
	const char *seed = value_get_str(vm->fields[F_VM_other_config],
					 "mac_seed");
	char mac[18];

	if (*wanted && mac_is_valid(wanted)) {
		for (int i = 0; i <= 17; i++)
			mac[i] = (char)tolower((unsigned char)wanted[i]);
		return value_stringz(mac);
	}
	if (*wanted || !*seed) {
		*error = one_error("MAC_INVALID", wanted);
		return NULL;
	}
	vif_default_mac(seed, (unsigned)device, mac);
	return value_stringz(mac);
}

static bool is_vif_ignored(unsigned field)
{
	return field == F_VIF_device || field == F_VIF_MAC ||
	       field == F_VIF_currently_attached;
}

static void vif_write(struct req *r, struct record *vm,
		      struct value *takes_device, struct value *takes_mac)
{
	const struct value *args = req_arg(r, 0);
	const struct value *attached = value_get(args, "currently_attached");
	struct txn *t = req_txn(r);
	struct draft d;
	struct value *ref;

	txn_guard_version(t, vm);
	draft_create(&d, t, CLASS_VIF, NULL);
	draft_take_args(&d, args, is_vif_ignored);
	draft_set(&d, F_VIF_device, takes_device);
	draft_set(&d, F_VIF_MAC, takes_mac);
	draft_bool(&d, F_VIF_MAC_autogenerated, !*value_get_str(args, "MAC"));
	draft_bool(&d, F_VIF_currently_attached,
		   attached && attached->i &&
			   !strcmp(vm_state_lower(vm), "suspended"));
	draft_set(&d, F_VIF_allowed_operations,
		  vif_allowed_operations(vm, d.now));
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, t, ref);
}

void vif_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	const char *wanted = value_get_str(args, "device");
	bool used[VM_MAX_DEVICE + 1] = { false };
	struct value *error = NULL, *device = NULL, *mac = NULL;
	struct record *vm;

	vm = arg_row(r, "VM", CLASS_VM, &error);
	arg_row(r, "network", CLASS_network, &error);
	if (!error)
		error = vm_moving_error(vm);
	if (!error) {
		used_numbers(req_store(r), vm->fields[F_VM_VIFs], F_VIF_device,
			     used);
		device = pick_device(wanted, used, VM_MAX_DEVICE,
				     decimal_number(wanted, VM_MAX_DEVICE), &error);
	}
	if (device)
		mac = vif_mac(vm, value_get_str(args, "MAC"),
			      atoi(value_str(device)), &error);
	if (!error) {
		vif_write(r, vm, device, mac);
		return;
	}
	value_unref(device);
	if (error_is(error, "OTHER_OPERATION_IN_PROGRESS"))
		req_wait(r, value_str(vm->ref), error);
	else
		req_fail_value(r, error);
}

void vif_destroy(struct req *r)
{
	struct record *vif = req_arg_record(r, 0, CLASS_VIF);

	if (vif)
		device_destroy(r, vif, F_VIF_currently_attached, F_VIF_metrics,
			       "VIF is currently attached");
}
