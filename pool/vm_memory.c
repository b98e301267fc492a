/* Memory limits and virtual processors of a VM: who may be how large when. */
#include <string.h>

#include "pool/vm_calls.h"

struct limits {
	int64_t static_min, dynamic_min, dynamic_max, static_max;
};

static struct limits limits_of(const struct record *vm)
{
	return (struct limits){
		record_int(vm, F_VM_memory_static_min),
		record_int(vm, F_VM_memory_dynamic_min),
		record_int(vm, F_VM_memory_dynamic_max),
		record_int(vm, F_VM_memory_static_max),
	};
}

static bool is_nested(const struct record *vm)
{
	const char *v = value_get_str(vm->fields[F_VM_platform], "nested-virt");

	return !strcmp(v, "true") || !strcmp(v, "1");
}

static struct value *limits_error(const struct record *vm,
				  const struct limits *l)
{
	const char *pinned = record_bool(vm, F_VM_is_control_domain) ?
			     "control domain" : is_nested(vm) ?
			     "nested virtualization" : NULL;

	if (l->static_min < 0 || l->static_min > l->dynamic_min ||
	    l->dynamic_min > l->dynamic_max || l->dynamic_max > l->static_max)
		return api_error("MEMORY_CONSTRAINT_VIOLATION_ORDER", NULL);
	if (pinned && (l->dynamic_min != l->static_max ||
		       l->dynamic_max != l->static_max))
		return api_error("MEMORY_CONSTRAINT_VIOLATION_MAXPIN", pinned,
				 NULL);
	return NULL;
}

static struct value *too_little(int64_t need, int64_t have)
{
	_cleanup_(freep) char *n = xasprintf("%lld", (long long)(need / 1024));
	_cleanup_(freep) char *h = xasprintf("%lld", (long long)(have / 1024));

	return api_error("HOST_NOT_ENOUGH_FREE_MEMORY", n, h, NULL);
}

/* A running VM's least memory is promised to it. Nobody balloons the control
 * domain: what it has must fit. */
static struct value *running_error(struct req *r, const struct record *vm,
				   const struct limits *l)
{
	const struct record *host = store_get_class(
		req_store(r), CLASS_host, record_str(vm, F_VM_resident_on));
	int64_t has = record_int(vm, F_VM_memory_target), more, have;

	if (!vm_is_live(vm) || !host)
		return NULL;
	more = l->dynamic_min - record_int(vm, F_VM_memory_dynamic_min);
	have = host_free_memory(req_store(r), host, NULL);
	if (more > have)
		return too_little(more, have);
	if (!record_bool(vm, F_VM_is_control_domain) ||
	    (l->dynamic_min <= has && has <= l->dynamic_max))
		return NULL;
	return api_error("OPERATION_NOT_ALLOWED",
			 "the memory of a control domain cannot be changed",
			 NULL);
}

static void draft_limits(struct draft *d, const struct limits *l)
{
	draft_int(d, F_VM_memory_static_min, l->static_min);
	draft_int(d, F_VM_memory_dynamic_min, l->dynamic_min);
	draft_int(d, F_VM_memory_dynamic_max, l->dynamic_max);
	draft_int(d, F_VM_memory_static_max, l->static_max);
}

static void write_limits(struct req *r, struct record *vm,
			 const struct limits *l)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vm);
	draft_limits(&d, l);
	if (!vm_is_live(vm))
		draft_int(&d, F_VM_memory_target, l->dynamic_min);
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

/* The host that the running VM's executor is at, or NULL: the request has
 * ended. */
static struct record *live_host(struct req *r, const struct record *vm)
{
	const char *ref = record_str(vm, F_VM_resident_on);
	struct record *host = store_get_class(req_store(r), CLASS_host, ref);

	if (host && host_counts_live(r->pool, host))
		return host;
	req_fail(r, "HOST_OFFLINE", ref, NULL);
	return NULL;
}

static struct value *number(int64_t n)
{
	return value_printf("%lld", (long long)n);
}

/* The range is a promise and holds at once; it is taken back when the domain
 * cannot be changed. */
static void balloon(struct req *r, struct record *vm, const struct limits *l)
{
	struct record *host = live_host(r, vm);
	struct limits before = limits_of(vm);
	struct txn *t;
	struct draft d;

	if (!host)
		return;
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_limits(&d, l);
	draft_map_put(&d, F_VM_current_operations, req_task(r, t),
		      value_stringz("changing_dynamic_range"));
	change_start_job(r, t, vm, &d, host, "set_memory",
			 value_map_of("number",
				      number(vm_memory_target(req_store(r),
							      d.now, host)),
				      "old_min", number(before.dynamic_min),
				      "old_max", number(before.dynamic_max),
				      NULL));
}

static void set_limits(struct req *r, struct record *vm, const char *op,
		       const struct limits *l)
{
	struct value *error;

	if (!vm_check_op(r, vm, op, true))
		return;
	error = limits_error(vm, l);
	if (!error)
		error = running_error(r, vm, l);
	if (error)
		req_fail_value(r, error);
	else if (vm_is_live(vm) && !record_bool(vm, F_VM_is_control_domain))
		balloon(r, vm, l);
	else
		write_limits(r, vm, l);
}

#define SETTER(name, op, change)                                        \
	void name(struct req *r)                                        \
	{                                                               \
		struct record *vm = req_arg_record(r, 0, CLASS_VM);     \
		struct limits l;                                        \
									\
		if (!vm)                                                \
			return;                                         \
		l = limits_of(vm);                                      \
		change;                                                 \
		set_limits(r, vm, op, &l);                              \
	}

SETTER(vm_set_memory_static_max, "changing_static_range",
       l.static_max = req_arg_int(r, 1))
SETTER(vm_set_memory_static_min, "changing_static_range",
       l.static_min = req_arg_int(r, 1))
SETTER(vm_set_memory_static_range, "changing_static_range",
       (l.static_min = req_arg_int(r, 1), l.static_max = req_arg_int(r, 2)))
SETTER(vm_set_memory_dynamic_max, "changing_dynamic_range",
       l.dynamic_max = req_arg_int(r, 1))
SETTER(vm_set_memory_dynamic_min, "changing_dynamic_range",
       l.dynamic_min = req_arg_int(r, 1))
SETTER(vm_set_memory_dynamic_range, "changing_dynamic_range",
       (l.dynamic_min = req_arg_int(r, 1), l.dynamic_max = req_arg_int(r, 2)))
SETTER(vm_set_memory, "changing_memory_limits",
       l.dynamic_min = l.dynamic_max = l.static_max = req_arg_int(r, 1))
SETTER(vm_set_memory_limits, "changing_memory_limits",
       (l.static_min = req_arg_int(r, 1), l.static_max = req_arg_int(r, 2),
	l.dynamic_min = req_arg_int(r, 3), l.dynamic_max = req_arg_int(r, 4)))

/* ---- processors ---- */

static void bad_value(struct req *r, const char *what, int64_t v)
{
	_cleanup_(freep) char *s = xasprintf("%lld", (long long)v);

	req_fail(r, "INVALID_VALUE", what, s, NULL);
}

static void write_int(struct req *r, struct record *vm, unsigned field,
		      int64_t v)
{
	struct txn *t = req_txn(r);
	struct draft d;

	draft_edit(&d, t, vm);
	draft_int(&d, field, v);
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}

void vm_set_VCPUs_max(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	int64_t v = req_arg_int(r, 1);

	if (!vm || !vm_check_op(r, vm, "changing_VCPUs", true))
		return;
	if (v < 1 || v < record_int(vm, F_VM_VCPUs_at_startup))
		bad_value(r, "VCPU values must satisfy: 0 < VCPUs_at_startup "
			     "<= VCPUs_max", v);
	else
		write_int(r, vm, F_VM_VCPUs_max, v);
}

void vm_set_VCPUs_at_startup(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	int64_t v = req_arg_int(r, 1);

	if (!vm)
		return;
	if (v < 1 || v > record_int(vm, F_VM_VCPUs_max))
		bad_value(r, "VCPU values must satisfy: 0 < VCPUs_at_startup "
			     "<= VCPUs_max", v);
	else
		write_int(r, vm, F_VM_VCPUs_at_startup, v);
}

void vm_set_VCPUs_number_live(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM), *host;
	int64_t v = req_arg_int(r, 1);
	struct txn *t;
	struct draft d;

	if (!vm || !vm_check_op(r, vm, "changing_VCPUs_live", true))
		return;
	if (v < 1 || v > record_int(vm, F_VM_VCPUs_max)) {
		bad_value(r, "nvcpu", v);
		return;
	}
	host = live_host(r, vm);
	if (!host)
		return;
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_map_put(&d, F_VM_current_operations, req_task(r, t),
		      value_stringz("changing_VCPUs_live"));
	change_start_job(r, t, vm, &d, host, "set_vcpus",
			 value_map_of("number", number(v), NULL));
}

void vm_set_shadow_multiplier(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);
	double v = req_arg(r, 1)->d;
	struct txn *t;
	struct draft d;

	if (!vm || !vm_check_op(r, vm, "changing_shadow_memory", true))
		return;
	if (!(v >= 1.0)) {
		_cleanup_(freep) char *s = xasprintf("%g", v);

		req_fail(r, "INVALID_VALUE",
			 "HVM_shadow_multiplier must be at least 1", s, NULL);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, vm);
	draft_set(&d, F_VM_HVM_shadow_multiplier, value_float(v));
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	draft_write_vm(&d, req_store(r));
	req_commit(r, t, NULL);
}
