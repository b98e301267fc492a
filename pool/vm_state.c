/* What follows from a change of a VM's state in all rows about it. Each
 * function works inside a draft of the VM; its writer brings devices in step. */
#include <string.h>

#include "base/env.h"
#include "pool/storage.h"
#include "pool/vm.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

void row_destroy(const struct store *s, struct txn *t, const char *ref)
{
	if (store_get(s, ref))
		txn_destroy(t, ref);
}

/* ---- consoles ---- */

char *console_location(const struct pool *p, const struct record *host,
		       const char *console_uuid)
{
	const char *address = record_str(host, F_host_address);
	const char *port = value_get_str(host->fields[F_host_other_config],
					 HOST_PORT_KEY);
	bool bare6 = strchr(address, ':') && *address != '[';
	bool other_port = *port && strcmp(port, "443") != 0;

	return xasprintf("https://%s%s%s%s%s/console?uuid=%s",
			 bare6 ? "[" : "", address, bare6 ? "]" : "",
			 other_port ? ":" : "", other_port ? port : "",
			 console_uuid);
}

void vm_drop_consoles(const struct store *s, struct txn *t,
		      const struct record *vm)
{
	const struct value *set = vm->fields[F_VM_consoles];

	for (uint32_t i = 0; i < set->n; i++)
		row_destroy(s, t, value_str(set->items[i]));
}

static void add_console(const struct pool *p, struct draft *vm,
			const struct record *host, const char *protocol)
{
	_cleanup_(freep) char *location = NULL;
	char uuid[UUID_LEN + 1];
	struct draft c;

	uuid_new(uuid);
	location = console_location(p, host, uuid);
	draft_create(&c, vm->t, CLASS_console, uuid);
	draft_str(&c, F_console_protocol, protocol);
	draft_str(&c, F_console_location, location);
	draft_copy(&c, F_console_VM, vm->now->ref);
	draft_write(&c);
}

/* Text is shown as RFB, unless the owner of a VM that has text wants it raw. */
static const char *console_protocol(const struct record *vm)
{
	bool text = strcmp(vm_boot_type(vm), "hvm") != 0;

	return text && value_get(vm->fields[F_VM_other_config],
				 "disable_pv_vnc") ? "vt100" : "rfb";
}

static void renew_consoles(const struct pool *p, struct draft *vm,
			   const struct record *host)
{
	if (vm->base)
		vm_drop_consoles(store_of(p), vm->t, vm->base);
	add_console(p, vm, host, console_protocol(vm->now));
}

/* ---- metrics ---- */

static void metrics_open(const struct pool *p, struct draft *vm,
			 struct draft *m)
{
	struct record *base = store_get_class(store_of(p), CLASS_VM_metrics,
					      record_str(vm->now,
							 F_VM_metrics));

	if (base) {
		draft_edit(m, vm->t, base);
		return;
	}
	draft_create(m, vm->t, CLASS_VM_metrics, NULL);
	draft_copy(vm, F_VM_metrics, m->now->ref);
}

static void metrics_live(const struct pool *p, struct draft *vm,
			 bool fresh_boot)
{
	int64_t now = env_wall_ms() / 1000;
	const char *type = vm_boot_type(vm->now);
	struct draft m;

	metrics_open(p, vm, &m);
	if (fresh_boot)
		draft_date(&m, F_VM_metrics_start_time, now);
	draft_int(&m, F_VM_metrics_memory_actual,
		  record_int(vm->now, F_VM_memory_target));
	draft_int(&m, F_VM_metrics_VCPUs_number,
		  record_int(vm->now, F_VM_VCPUs_at_startup));
	draft_set(&m, F_VM_metrics_state,
		  value_set_of(value_is_str(vm->now->fields[F_VM_power_state],
					    "Paused") ? "paused" : "running",
			       NULL));
	draft_bool(&m, F_VM_metrics_hvm, !strcmp(type, "hvm"));
	draft_str(&m, F_VM_metrics_current_domain_type, type);
	draft_date(&m, F_VM_metrics_last_updated, now);
	draft_write(&m);
}

static void metrics_gone(const struct pool *p, struct draft *vm)
{
	struct draft m;

	if (!store_get_class(store_of(p), CLASS_VM_metrics,
			     record_str(vm->now, F_VM_metrics)))
		return;
	metrics_open(p, vm, &m);
	draft_int(&m, F_VM_metrics_memory_actual, 0);
	draft_set(&m, F_VM_metrics_state, value_set_empty());
	draft_str(&m, F_VM_metrics_current_domain_type, "unspecified");
	draft_date(&m, F_VM_metrics_last_updated, env_wall_ms() / 1000);
	draft_write(&m);
}

/* ---- states ---- */

static void forget_guest(const struct pool *p, struct draft *vm)
{
	row_destroy(store_of(p), vm->t, record_str(vm->now,
						   F_VM_guest_metrics));
	draft_null(vm, F_VM_guest_metrics);
}

void vm_becomes_live(const struct pool *p, struct draft *vm,
		     const struct record *host, int64_t domid, bool paused,
		     bool fresh_boot)
{
	draft_str(vm, F_VM_power_state, paused ? "Paused" : "Running");
	draft_copy(vm, F_VM_resident_on, host->ref);
	draft_null(vm, F_VM_scheduled_to_be_resident_on);
	draft_int(vm, F_VM_domid, domid);
	if (fresh_boot) {
		draft_bool(vm, F_VM_requires_reboot, false);
		forget_guest(p, vm);
	}
	metrics_live(p, vm, fresh_boot);
	renew_consoles(p, vm, host);
}

void vm_moves_to(const struct pool *p, struct draft *vm,
		 const struct record *host, int64_t domid)
{
	draft_copy(vm, F_VM_resident_on, host->ref);
	draft_null(vm, F_VM_scheduled_to_be_resident_on);
	draft_int(vm, F_VM_domid, domid);
	renew_consoles(p, vm, host);
}

/* What a guest told stays to be read until the next boot. */
static void silence_guest(const struct pool *p, struct draft *vm)
{
	const struct record *g = store_get_class(
		store_of(p), CLASS_VM_guest_metrics,
		record_str(vm->now, F_VM_guest_metrics));

	if (g && record_bool(g, F_VM_guest_metrics_live))
		txn_set(vm->t, g->cls, value_str(g->ref),
			F_VM_guest_metrics_live, value_bool(false));
}

static void leaves_host(const struct pool *p, struct draft *vm)
{
	draft_null(vm, F_VM_resident_on);
	draft_null(vm, F_VM_scheduled_to_be_resident_on);
	draft_int(vm, F_VM_domid, -1);
	vm_drop_consoles(store_of(p), vm->t, vm->base);
	metrics_gone(p, vm);
	silence_guest(p, vm);
}

void vm_becomes_halted(const struct pool *p, struct draft *vm)
{
	char date[DATE_LEN + 1];

	date_format(env_wall_ms() / 1000, date);
	draft_str(vm, F_VM_power_state, "Halted");
	draft_bool(vm, F_VM_requires_reboot, false);
	if (vm_is_live(vm->base))
		draft_map_put(vm, F_VM_other_config, "last_shutdown_time",
			      value_stringz(date));
	leaves_host(p, vm);
}

void vm_becomes_suspended(const struct pool *p, struct draft *vm)
{
	draft_str(vm, F_VM_power_state, "Suspended");
	draft_bool(vm, F_VM_ha_always_run, false);
	leaves_host(p, vm);
}

/* ---- suspend images: a VDI in the local SR of the host that wrote it ---- */

void vm_add_image(struct draft *vm, const char *sr_ref,
		  const struct record *host, const char *path)
{
	int64_t size = record_int(vm->now, F_VM_memory_static_max);
	struct value *config = value_map_of(
		"host", value_ref(host->fields[F_host_uuid]), "path",
		value_stringz(path), NULL);
	struct draft d;

	draft_create(&d, vm->t, CLASS_VDI, NULL);
	draft_str(&d, F_VDI_name_label, "Suspend image");
	draft_str(&d, F_VDI_name_description, "Memory of a suspended VM");
	draft_str(&d, F_VDI_SR, sr_ref);
	draft_str(&d, F_VDI_type, "suspend");
	draft_int(&d, F_VDI_virtual_size, size);
	draft_int(&d, F_VDI_physical_utilisation, size);
	draft_bool(&d, F_VDI_managed, true);
	draft_str(&d, F_VDI_location, path);
	draft_set(&d, F_VDI_sm_config, config);
	draft_copy(vm, F_VM_suspend_VDI, d.now->ref);
	draft_write(&d);
}

void vm_drop_image(const struct pool *p, struct draft *vm)
{
	row_destroy(store_of(p), vm->t, record_str(vm->now, F_VM_suspend_VDI));
	draft_null(vm, F_VM_suspend_VDI);
}

void vm_discard_image(const struct pool *p, struct draft *vm)
{
	job_image_drop(p, vm->t, record_str(vm->now, F_VM_suspend_VDI));
	vm_drop_image(p, vm);
}
