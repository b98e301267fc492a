/* A VM's row as the executor's configuration of a domain. */
#include <ctype.h>
#include <string.h>

#include "pool/job.h"

/* The executor refuses more; what is longer is a client's own business. */
#define MAX_ITEM 4096
#define MAX_KEYS 256

static bool any_key(const char *key)
{
	return true;
}

/* Other keys never reach the guest, nor do those that no node can have. */
static bool guest_key(const char *key)
{
	size_t n = strlen(key);

	return (!strncmp(key, "vm-data/", 8) || !strncmp(key, "FIST/", 5)) &&
	       key[n - 1] != '/' && !strstr(key, "//") &&
	       strspn(key, "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "0123456789-/_@:.") == n;
}

static struct value *filtered(const struct value *map,
			      bool (*keep)(const char *))
{
	struct value **pairs = xcalloc(2 * (size_t)map->n + 1, sizeof *pairs);
	struct value *ret;
	size_t n = 0;

	for (uint32_t i = 0; i < map->n && n < MAX_KEYS; i++) {
		struct value *k = map->items[2 * i], *v = map->items[2 * i + 1];

		if (k->n > 1024 || v->n > MAX_ITEM || !keep(value_str(k)))
			continue;
		pairs[2 * n] = value_ref(k);
		pairs[2 * n++ + 1] = value_ref(v);
	}
	ret = value_map_from(pairs, n);
	free(pairs);
	return ret;
}

struct value *job_vm_xenstore(const struct record *vm)
{
	return filtered(vm->fields[F_VM_xenstore_data], guest_key);
}

static struct value *text_field(const struct record *vm, unsigned field,
				bool use)
{
	return use ? value_ref(vm->fields[field]) : value_stringz("");
}

static int64_t memory_target(const struct record *vm)
{
	int64_t target = record_int(vm, F_VM_memory_target);
	int64_t max = record_int(vm, F_VM_memory_static_max);

	if (target <= 0)
		target = record_int(vm, F_VM_memory_dynamic_max);
	return target <= 0 ? max : MIN(target, max);
}

/* What an emulated machine boots from. Clients write the order as "CDN" too. */
static struct value *hvm_boot(const struct record *vm)
{
	const struct value *params = vm->fields[F_VM_HVM_boot_params];
	_cleanup_(freep) char *order = xstrdup(value_get_str(params, "order"));

	for (char *c = order; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return value_map_of(
		"order", value_stringz(order), "firmware",
		value_stringz(value_get_str(params, "firmware")), NULL);
}

struct value *job_vm_config(const struct store *s, const struct record *vm,
			    const struct record *host)
{
	const char *type = vm_boot_type(vm);
	bool kernel = strcmp(type, "hvm") != 0;

	if (!strcmp(type, "pv_in_pvh"))
		type = "pvh";
	return value_struct_of(
		"name", value_ref(vm->fields[F_VM_name_label]),
		"uuid", value_ref(vm->fields[F_VM_uuid]),
		"memory_static_max",
		value_int(record_int(vm, F_VM_memory_static_max)),
		"memory_target", value_int(memory_target(vm)),
		"vcpus", value_int(record_int(vm, F_VM_VCPUs_at_startup)),
		"vcpus_max", value_int(record_int(vm, F_VM_VCPUs_max)),
		"domain_type", value_stringz(type),
		"kernel", text_field(vm, F_VM_PV_kernel, kernel),
		"ramdisk", text_field(vm, F_VM_PV_ramdisk, kernel),
		"args", text_field(vm, F_VM_PV_args, kernel),
		"bootloader", text_field(vm, F_VM_PV_bootloader, kernel),
		"on_shutdown", value_ref(vm->fields[F_VM_actions_after_shutdown]),
		"on_reboot", value_ref(vm->fields[F_VM_actions_after_reboot]),
		"on_crash", value_ref(vm->fields[F_VM_actions_after_crash]),
		"xenstore", job_vm_xenstore(vm),
		"platform", filtered(vm->fields[F_VM_platform], any_key),
		"other_config", filtered(vm->fields[F_VM_other_config],
					 any_key),
		"hvm_boot", kernel ? value_map_empty() : hvm_boot(vm),
		"disks", job_vm_disks(s, vm, host),
		"vifs", job_vm_vifs(s, vm), NULL);
}
