/* Setters of a VM that do more than write: other fields follow, or the VM must
 * be in a certain state. The field is taken from the method's own definition or
 * its name, so that a row in a table is all that a new one needs. */
#include <string.h>

#include "pool/vm_calls.h"

/* The field that VM.set_X, add_to_X or remove_from_X is about. */
static unsigned field_of(const struct req *r)
{
	const char *name = strchr(r->method->name, '.') + 1;
	static const char *const prefixes[] = { "set_", "add_to_",
						"remove_from_" };
	int field = r->method->field;

	for (size_t i = 0; field < 0 && i < ARRAY_LEN(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (!strncmp(name, prefixes[i], n))
			field = schema_field(class_of(CLASS_VM), name + n,
					     strlen(name + n));
	}
	xassert(field >= 0);
	return (unsigned)field;
}

static void write_set(struct req *r, struct record *vm, unsigned field,
		      struct value *takes_v)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vm);
	draft_set(&d, field, takes_v);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

void vm_set_plain(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	unsigned field = field_of(r);

	if (vm && req_may_set_map(r, vm, field, req_arg(r, 1)))
		write_set(r, vm, field, value_ref(req_arg(r, 1)));
}

void vm_add_to(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	unsigned field = field_of(r);

	if (!vm)
		return;
	if (value_get(vm->fields[field], req_arg_str(r, 1))) {
		req_fail(r, "MAP_DUPLICATE_KEY", "VM",
			 class_of(CLASS_VM)->fields[field].db_name,
			 value_str(vm->ref), req_arg_str(r, 1), NULL);
		return;
	}
	write_set(r, vm, field,
		  value_map_with(vm->fields[field], req_arg(r, 1),
				 req_arg(r, 2)));
}

void vm_remove_from(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const struct value *key = req_arg(r, 1);
	unsigned field = field_of(r);

	if (vm)
		write_set(r, vm, field,
			  value_map_without(vm->fields[field], key->s, key->n));
}

static bool must_be_halted(struct req *r, const struct record *vm)
{
	if (!strcmp(vm_state_lower(vm), "halted"))
		return true;
	req_fail_value(r, vm_bad_power_state(vm, "halted"));
	return false;
}

void vm_set_halted(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm && must_be_halted(r, vm))
		write_set(r, vm, field_of(r), value_ref(req_arg(r, 1)));
}

void vm_set_not_negative(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	unsigned field = field_of(r);
	int64_t v = req_arg_int(r, 1);
	_cleanup_(freep) char *what = NULL, *text = NULL;

	if (!vm)
		return;
	if (v >= 0) {
		write_set(r, vm, field, value_int(v));
		return;
	}
	what = xasprintf("%s must be non-negative",
			 class_of(CLASS_VM)->fields[field].name);
	text = xasprintf("%lld", (long long)v);
	req_fail(r, "INVALID_VALUE", what, text, NULL);
}

/* Kept for old clients; the reference does nothing either. */
void vm_nothing(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_VM))
		req_reply(r, NULL);
}

/* ---- boot policy and domain type say the same thing twice ---- */

static void write_type(struct req *r, struct record *vm, const char *type,
		       const char *policy)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vm);
	draft_str(&d, F_VM_domain_type, type);
	draft_str(&d, F_VM_HVM_boot_policy, policy);
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

void vm_set_boot_policy(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const char *policy = req_arg_str(r, 1);
	const char *type;

	if (!vm || !must_be_halted(r, vm))
		return;
	type = record_str(vm, F_VM_domain_type);
	if (*policy)
		type = "hvm";
	else if (!strcmp(type, "hvm") || !strcmp(type, "unspecified"))
		type = "pv";
	write_type(r, vm, type, policy);
}

void vm_set_domain_type(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const char *type = req_arg_str(r, 1);
	const char *policy;

	if (!vm || !must_be_halted(r, vm))
		return;
	policy = record_str(vm, F_VM_HVM_boot_policy);
	if (!strcmp(type, "hvm"))
		policy = *policy ? policy : "BIOS order";
	else if (strcmp(type, "unspecified") != 0)
		policy = "";
	write_type(r, vm, type, policy);
}

/* ---- others ---- */

void vm_set_bios_strings(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (!vm)
		return;
	if (vm->fields[F_VM_bios_strings]->n > 0)
		req_fail(r, "VM_BIOS_STRINGS_ALREADY_SET", NULL);
	else
		write_set(r, vm, F_VM_bios_strings, value_ref(req_arg(r, 1)));
}

void vm_set_ha_restart_priority(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const char *v = req_arg_str(r, 1);

	if (!vm)
		return;
	if (*v && strcmp(v, "restart") && strcmp(v, "best-effort"))
		req_fail(r, "INVALID_VALUE", "ha_restart_priority", v, NULL);
	else
		write_set(r, vm, F_VM_ha_restart_priority, value_stringz(v));
}

void vm_set_suspend_vdi(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	struct record *vdi;

	if (!vm)
		return;
	if (strcmp(vm_state_lower(vm), "suspended") != 0) {
		req_fail_value(r, vm_bad_power_state(vm, "suspended"));
		return;
	}
	vdi = req_arg_record(r, 1, CLASS_VDI);
	if (vdi)
		write_set(r, vm, F_VM_suspend_VDI, value_ref(vdi->ref));
}
