/* Calls about a VM that only read. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/vm_calls.h"

void vm_assert_operation_valid(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	struct value *error;

	if (!vm)
		return;
	error = vm_op_error(req_store(r), vm, req_arg_str(r, 1), true);
	if (error)
		req_fail_value(r, error);
	else
		req_reply(r, NULL);
}

void vm_update_allowed_operations(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	struct txn *t;
	struct draft d;

	if (!vm)
		return;
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

/* ---- free slots ---- */

static bool is_taken(const struct store *s, const struct value *set,
		     unsigned field, const char *device)
{
	for (uint32_t i = 0; i < set->n; i++) {
		const struct record *row = store_get(s,
						     value_str(set->items[i]));

		if (row && value_is_str(row->fields[field], device))
			return true;
	}
	return false;
}

static struct value *free_slots(const struct store *s, const struct value *set,
				unsigned field, unsigned max)
{
	struct value *ret = value_set_new(max + 1);
	uint32_t n = 0;

	for (unsigned i = 0; i <= max; i++) {
		char name[12];

		snprintf(name, sizeof name, "%u", i);
		if (!is_taken(s, set, field, name))
			ret->items[n++] = value_stringz(name);
	}
	ret->n = n;
	return ret;
}

void vm_get_allowed_vbd_devices(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm)
		req_reply(r, free_slots(req_store(r), vm->fields[F_VM_VBDs],
					F_VBD_userdevice, 254));
}

void vm_get_allowed_vif_devices(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm)
		req_reply(r, free_slots(req_store(r), vm->fields[F_VM_VIFs],
					F_VIF_device, 15));
}

/* ---- hosts ---- */

void vm_assert_can_boot_here(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM), *host;
	struct value *error;

	host = vm ? req_arg_record(r, 1, CLASS_host) : NULL;
	if (!host)
		return;
	error = vm_boot_error(r->pool, vm, host, 0);
	if (error)
		req_fail_value(r, error);
	else
		req_reply(r, NULL);
}

void vm_get_possible_hosts(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const struct store *s = req_store(r);
	struct value *set;
	uint32_t n = 0;

	if (!vm)
		return;
	set = value_set_new(store_count(s, CLASS_host));
	for (struct record *h = store_first(s, CLASS_host); h && n < set->n;
	     h = store_next(s, h)) {
		_cleanup_(value_unrefp) struct value *error =
			vm_boot_error(r->pool, vm, h, 0);

		if (!error)
			set->items[n++] = value_ref(h->ref);
	}
	set->n = n;
	req_reply(r, set);
}

/* Does every enabled host have a plugged PBD (or a PIF) of it? */
static bool is_everywhere(const struct store *s, const struct value *set,
			  unsigned host_field, int plugged_field)
{
	for (struct record *h = store_first(s, CLASS_host); h;
	     h = store_next(s, h)) {
		bool found = !record_bool(h, F_host_enabled);

		for (uint32_t i = 0; i < set->n && !found; i++) {
			const struct record *row = store_get(
				s, value_str(set->items[i]));

			found = row &&
				value_equal(row->fields[host_field], h->ref) &&
				(plugged_field < 0 ||
				 record_bool(row, (unsigned)plugged_field));
		}
		if (!found)
			return false;
	}
	return true;
}

static struct value *agile_disk(const struct store *s, const struct record *vbd)
{
	const struct record *vdi = store_get_class(s, CLASS_VDI,
						   record_str(vbd, F_VBD_VDI));
	const struct record *sr = vdi ? store_get_class(
		s, CLASS_SR, record_str(vdi, F_VDI_SR)) : NULL;

	if (!sr || record_bool(vbd, F_VBD_empty) ||
	    (record_bool(sr, F_SR_shared) &&
	     is_everywhere(s, sr->fields[F_SR_PBDs], F_PBD_host,
			   F_PBD_currently_attached)))
		return NULL;
	return api_error("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED",
			 value_str(sr->ref), NULL);
}

static struct value *agile_vif(const struct store *s, const struct record *vif)
{
	const struct record *net = store_get_class(
		s, CLASS_network, record_str(vif, F_VIF_network));

	if (!net || is_everywhere(s, net->fields[F_network_PIFs], F_PIF_host,
				  -1))
		return NULL;
	return api_error("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED",
			 value_str(net->ref), NULL);
}

static struct value *agile_all(const struct store *s, const struct value *set,
			       struct value *(*check)(const struct store *,
						      const struct record *))
{
	struct value *error = NULL;

	for (uint32_t i = 0; i < set->n && !error; i++) {
		const struct record *row = store_get(s,
						     value_str(set->items[i]));

		if (row)
			error = check(s, row);
	}
	return error;
}

void vm_assert_agile(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const struct store *s = req_store(r);
	struct value *error = NULL;

	if (!vm)
		return;
	if (vm->fields[F_VM_VGPUs]->n)
		error = api_error("VM_HAS_VGPU", value_str(vm->ref), NULL);
	else if (vm->fields[F_VM_VUSBs]->n)
		error = api_error("VM_HAS_VUSBS", value_str(vm->ref), NULL);
	if (!error)
		error = agile_all(s, vm->fields[F_VM_VBDs], agile_disk);
	if (!error)
		error = agile_all(s, vm->fields[F_VM_VIFs], agile_vif);
	if (error)
		req_fail_value(r, error);
	else
		req_reply(r, NULL);
}

/* ---- memory ---- */

/* The largest static_max whose overhead still leaves room in total: overhead
 * grows with it, so it is searched for. */
static int64_t largest_within(const struct record *vm, int64_t total)
{
	struct record *copy = record_copy(vm);
	int64_t low = 0, high = total > 0 ? total / MIB : 0;

	while (low < high) {
		int64_t mid = low + (high - low + 1) / 2;

		record_set(copy, F_VM_memory_static_max, value_int(mid * MIB));
		if (mid * MIB + vm_memory_overhead(copy) <= total)
			low = mid;
		else
			high = mid - 1;
	}
	record_unref(copy);
	return low * MIB;
}

void vm_maximise_memory(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm)
		req_reply(r, value_int(largest_within(vm, req_arg_int(r, 1))));
}

void vm_compute_memory_overhead(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm)
		req_reply(r, value_int(vm_memory_overhead(vm)));
}

/* Both as the reference has them. */
#define TARGET_WAIT_MS 256000
#define TARGET_TOLERANCE MIB

bool vm_memory_is_at_target(const struct record *vm, int64_t actual)
{
	int64_t target = record_int(vm, F_VM_memory_target);

	return actual - target <= TARGET_TOLERANCE &&
	       target - actual <= TARGET_TOLERANCE;
}

/* A guest is told of its new memory when the call that changed it ends; its
 * balloon follows as fast as it likes, and VM_metrics.memory_actual that. */
void vm_wait_memory_target_live(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	const struct record *m;

	if (r->runs == 1)
		r->deadline_ms = env_mono_ms() + TARGET_WAIT_MS;
	if (!vm || !vm_check_op(r, vm, "awaiting_memory_live", true))
		return;
	m = store_get_class(req_store(r), CLASS_VM_metrics,
			    record_str(vm, F_VM_metrics));
	if (m && vm_memory_is_at_target(
			 vm, record_int(m, F_VM_metrics_memory_actual)))
		req_reply(r, NULL);
	else
		req_wait(r, record_str(vm, F_VM_metrics),
			 api_error("VM_MEMORY_TARGET_WAIT_TIMEOUT",
				   *r->task_ref ? r->task_ref : REF_NULL, NULL));
}

void vm_get_boot_record(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm)
		req_reply(r, value_record(vm));
}

void vm_get_cooperative(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_VM))
		req_reply(r, value_bool(true));
}
