/* Where a VM can run and where it shall. Memory is counted by promises (the
 * rows), never by what a host happens to have free. */
#include <string.h>

#include "base/env.h"
#include "pool/vm.h"

#define PAGE 4096LL
/* Fields hold whatever a caller wrote; beyond this no sum may overflow. */
#define MEMORY_MAX (1LL << 50)
#define VCPUS_MAX 65536

static int64_t clamp(int64_t v, int64_t max)
{
	return v < 0 ? 0 : MIN(v, max);
}

/* ---- memory ---- */

static int64_t memory_of(const struct record *vm, unsigned field)
{
	return clamp(record_int(vm, field), MEMORY_MAX);
}

static int64_t mib_of_pages(int64_t pages)
{
	return (pages * PAGE + MIB - 1) / MIB;
}

const char *vm_boot_type(const struct record *vm)
{
	const char *type = record_str(vm, F_VM_domain_type);

	if (strcmp(type, "unspecified") != 0)
		return type;
	return *record_str(vm, F_VM_HVM_boot_policy) ? "hvm" : "pv";
}

static int64_t shadow_mib(const struct record *vm, int64_t vcpus)
{
	int64_t max_mib = memory_of(vm, F_VM_memory_static_max) / MIB;
	double multiplier = vm->fields[F_VM_HVM_shadow_multiplier]->d;
	int64_t mib = mib_of_pages(256 * vcpus + 2 * max_mib);

	if (!(multiplier >= 1.0))
		multiplier = 1.0;
	if (multiplier > 1000.0)
		multiplier = 1000.0;
	return MAX(1, (int64_t)(multiplier * (double)mib));
}

/* What Xen itself needs to run the VM: device model, shadow pages, vcpus, and
 * the shim of a PV guest inside PVH. */
int64_t vm_memory_overhead(const struct record *vm)
{
	const char *type = vm_boot_type(vm);
	int64_t vcpus = clamp(record_int(vm, F_VM_VCPUs_max), VCPUS_MAX);
	int64_t mib = strcmp(type, "pv") ? 2 : 1;

	mib += shadow_mib(vm, vcpus) + mib_of_pages(38 * vcpus);
	if (!strcmp(type, "pv_in_pvh"))
		mib += 23 + memory_of(vm, F_VM_memory_static_max) / MIB / 90;
	return mib * MIB;
}

static int64_t need_at(const struct record *vm, unsigned field)
{
	int64_t overhead = memory_of(vm, F_VM_memory_overhead);

	if (!overhead)
		overhead = vm_memory_overhead(vm);
	if (!strcmp(vm_boot_type(vm), "pv_in_pvh"))
		field = F_VM_memory_static_max;
	return memory_of(vm, field) + overhead;
}

int64_t vm_memory_need(const struct record *vm)
{
	return need_at(vm, F_VM_memory_dynamic_min);
}

static int64_t host_capacity(const struct store *s, const struct record *host)
{
	const struct record *m = store_get_class(
		s, CLASS_host_metrics, record_str(host, F_host_metrics));

	return m ? clamp(record_int(m, F_host_metrics_memory_total),
			 MEMORY_MAX) -
			   clamp(record_int(host, F_host_memory_overhead),
				 MEMORY_MAX) : 0;
}

/* What a VM holds of its host: its promise, or what it has got if actual. */
static int64_t held_by(const struct store *s, const struct record *vm,
		       bool actual)
{
	const struct record *m;
	int64_t held = vm_memory_need(vm), got = 0;

	if (!actual)
		return held;
	m = store_get_class(s, CLASS_VM_metrics, record_str(vm, F_VM_metrics));
	if (m)
		got = clamp(record_int(m, F_VM_metrics_memory_actual),
			    MEMORY_MAX) + memory_of(vm, F_VM_memory_overhead);
	return MAX(held, got);
}

static bool job_reserves(const struct record *job)
{
	static const char *const kinds[] = { "start", "resume", "migrate" };

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (value_is_str(job->fields[F_job_kind], kinds[i]))
			return true;
	return false;
}

static bool is_but(const char *ref, const char *except)
{
	return !except || strcmp(ref, except) != 0;
}

/* VMs that are promised to the host: each has a job of a kind that reserves,
 * and never two of them. */
static int64_t sum_scheduled(const struct store *s, const struct record *host,
			     const char *except)
{
	int64_t sum = 0;

	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j)) {
		const char *ref = record_str(j, F_job_vm);
		const struct record *vm;

		if (!job_reserves(j) || !is_but(ref, except))
			continue;
		vm = store_get_class(s, CLASS_VM, ref);
		if (vm && !value_equal(vm->fields[F_VM_resident_on],
				       host->ref) &&
		    value_equal(vm->fields[F_VM_scheduled_to_be_resident_on],
				host->ref))
			sum += vm_memory_need(vm);
	}
	return sum;
}

static int64_t sum_held(const struct store *s, const struct record *host,
			const char *except, bool actual)
{
	const struct value *vms = host->fields[F_host_resident_VMs];
	int64_t sum = sum_scheduled(s, host, except);

	for (uint32_t i = 0; i < vms->n; i++) {
		const char *ref = value_str(vms->items[i]);
		const struct record *vm = store_get_class(s, CLASS_VM, ref);

		if (vm && is_but(ref, except))
			sum += held_by(s, vm, actual);
	}
	return sum;
}

int64_t host_free_memory(const struct store *s, const struct record *host,
			 const char *except_vm)
{
	return MAX(0, host_capacity(s, host) -
			      sum_held(s, host, except_vm, false));
}

int64_t vm_memory_target(const struct store *s, const struct record *vm,
			 const struct record *host)
{
	int64_t rest = host_capacity(s, host) -
		       sum_held(s, host, value_str(vm->ref), true);
	int64_t min = memory_of(vm, F_VM_memory_dynamic_min);
	int64_t max = memory_of(vm, F_VM_memory_dynamic_max);

	return need_at(vm, F_VM_memory_dynamic_max) <= rest ? max : min;
}

/* ---- can it boot here ---- */

bool host_counts_live(const struct pool *p, const struct record *host)
{
	const struct record *m = store_get_class(
		p->hooks.store(p->hooks.data), CLASS_host_metrics,
		record_str(host, F_host_metrics));

	return m && record_bool(m, F_host_metrics_live);
}

struct boot {
	const struct pool *p;
	const struct store *s;
	const struct record *vm, *host;
	unsigned flags;
};

static struct value *int_error(const char *code, const char *text, int64_t v)
{
	_cleanup_(freep) char *s = xasprintf("%lld", (long long)v);

	return api_error(code, text, s, NULL);
}

static struct value *boot_vcpus(const struct boot *b)
{
	int64_t max = record_int(b->vm, F_VM_VCPUs_max);
	int64_t start = record_int(b->vm, F_VM_VCPUs_at_startup);

	if (max < 1)
		return int_error("INVALID_VALUE", "VCPUs_max", max);
	if (start < 1)
		return int_error("INVALID_VALUE", "VCPUs_at_startup", start);
	if (start > max) {
		_cleanup_(freep) char *s = xasprintf("%lld", (long long)start);

		return api_error("VALUE_NOT_SUPPORTED", "VCPUs_at_startup", s,
				 "value greater than VCPUs_max", NULL);
	}
	return NULL;
}

static struct value *boot_limits(const struct boot *b)
{
	int64_t smin = record_int(b->vm, F_VM_memory_static_min);
	int64_t dmin = record_int(b->vm, F_VM_memory_dynamic_min);
	int64_t dmax = record_int(b->vm, F_VM_memory_dynamic_max);
	int64_t smax = record_int(b->vm, F_VM_memory_static_max);
	double shadow = b->vm->fields[F_VM_HVM_shadow_multiplier]->d;

	if (smin < 0 || smin > dmin || dmin > dmax || dmax > smax)
		return api_error("MEMORY_CONSTRAINT_VIOLATION", NULL);
	if (!(shadow >= 1.0))
		return api_error("VALUE_NOT_SUPPORTED", "HVM_shadow_multiplier",
				 "", "must be at least 1.0", NULL);
	return NULL;
}

static struct value *boot_crash_action(const struct boot *b)
{
	const char *v = record_str(b->vm, F_VM_actions_after_crash);
	const char *why = NULL;

	if (!strcmp(v, "rename_restart"))
		why = "this action is not supported";
	else if (!strncmp(v, "coredump", 8) &&
		 strcmp(vm_boot_type(b->vm), "pv") != 0)
		why = "core dumps are written for PV guests only";
	return why ? api_error("VALUE_NOT_SUPPORTED", "VM.actions_after_crash",
			       v, why, NULL) : NULL;
}

static struct value *boot_host(const struct boot *b)
{
	if (!host_counts_live(b->p, b->host))
		return api_error("HOST_NOT_LIVE", NULL);
	if (!record_bool(b->vm, F_VM_is_control_domain) &&
	    !record_bool(b->host, F_host_enabled))
		return api_error("HOST_DISABLED", value_str(b->host->ref),
				 NULL);
	return NULL;
}

bool host_sees_sr(const struct store *s, const char *host_ref,
		  const char *sr_ref)
{
	const struct record *sr = store_get_class(s, CLASS_SR, sr_ref);
	const struct value *pbds = sr ? sr->fields[F_SR_PBDs] : NULL;

	for (uint32_t i = 0; pbds && i < pbds->n; i++) {
		const struct record *pbd = store_get_class(
			s, CLASS_PBD, value_str(pbds->items[i]));

		if (pbd && record_bool(pbd, F_PBD_currently_attached) &&
		    value_is_str(pbd->fields[F_PBD_host], host_ref))
			return true;
	}
	return false;
}

struct record *host_local_sr(const struct store *s, const struct record *host)
{
	const struct value *pbds = host->fields[F_host_PBDs];

	for (uint32_t i = 0; i < pbds->n; i++) {
		const struct record *pbd = store_get_class(
			s, CLASS_PBD, value_str(pbds->items[i]));
		struct record *sr = pbd ? store_get_class(
			s, CLASS_SR, record_str(pbd, F_PBD_SR)) : NULL;

		if (sr && record_bool(pbd, F_PBD_currently_attached) &&
		    value_is_str(sr->fields[F_SR_type], "dummy"))
			return sr;
	}
	return NULL;
}

static struct value *need_vdi(const struct boot *b, const char *vdi_ref)
{
	const struct record *vdi = store_get_class(b->s, CLASS_VDI, vdi_ref);
	const char *sr = vdi ? record_str(vdi, F_VDI_SR) : "";

	if (!vdi || host_sees_sr(b->s, value_str(b->host->ref), sr))
		return NULL;
	return api_error("VM_REQUIRES_SR", value_str(b->vm->ref), sr, NULL);
}

static struct value *boot_storage(const struct boot *b)
{
	const struct value *vbds = b->vm->fields[F_VM_VBDs];

	for (uint32_t i = 0; i < vbds->n; i++) {
		const struct record *vbd = store_get_class(
			b->s, CLASS_VBD, value_str(vbds->items[i]));
		struct value *error = NULL;

		if (vbd && !record_bool(vbd, F_VBD_empty))
			error = need_vdi(b, record_str(vbd, F_VBD_VDI));
		if (error)
			return error;
	}
	if (!strcmp(vm_state_lower(b->vm), "suspended"))
		return need_vdi(b, record_str(b->vm, F_VM_suspend_VDI));
	return NULL;
}

static bool has_pif(const struct boot *b, const struct record *network)
{
	const struct value *pifs = network->fields[F_network_PIFs];

	for (uint32_t i = 0; i < pifs->n; i++) {
		const struct record *pif = store_get_class(
			b->s, CLASS_PIF, value_str(pifs->items[i]));

		if (pif && value_equal(pif->fields[F_PIF_host], b->host->ref))
			return true;
	}
	return false;
}

/* Somebody on this network lives on another host and would not be reached. */
static bool is_used_elsewhere(const struct boot *b,
			      const struct record *network)
{
	const struct value *vifs = network->fields[F_network_VIFs];

	for (uint32_t i = 0; i < vifs->n; i++) {
		const struct record *vif = store_get_class(
			b->s, CLASS_VIF, value_str(vifs->items[i]));
		const struct record *vm = vif ? store_get_class(
			b->s, CLASS_VM, record_str(vif, F_VIF_VM)) : NULL;

		if (vm && vm != b->vm && vm_is_live(vm) &&
		    !value_equal(vm->ref, b->vm->ref) &&
		    !value_equal(vm->fields[F_VM_resident_on], b->host->ref))
			return true;
	}
	return false;
}

static struct value *boot_networks(const struct boot *b)
{
	const struct value *vifs = b->vm->fields[F_VM_VIFs];

	for (uint32_t i = 0; i < vifs->n; i++) {
		const struct record *vif = store_get_class(
			b->s, CLASS_VIF, value_str(vifs->items[i]));
		const struct record *net = vif ? store_get_class(
			b->s, CLASS_network, record_str(vif, F_VIF_network)) :
			NULL;

		if (net && !has_pif(b, net) && is_used_elsewhere(b, net))
			return api_error("VM_REQUIRES_NETWORK",
					 value_str(b->vm->ref),
					 value_str(net->ref), NULL);
	}
	return NULL;
}

static struct value *boot_hvm(const struct boot *b)
{
	const struct value *caps = b->host->fields[F_host_capabilities];

	if (strcmp(vm_boot_type(b->vm), "hvm") != 0 || caps->n == 0)
		return NULL;
	for (uint32_t i = 0; i < caps->n; i++)
		if (!strncmp(value_str(caps->items[i]), "hvm", 3))
			return NULL;
	return api_error("VM_HVM_REQUIRED", value_str(b->vm->ref), NULL);
}

static struct value *boot_memory(const struct boot *b)
{
	int64_t need = held_by(b->s, b->vm, b->flags & BOOT_MIGRATE), have;
	_cleanup_(freep) char *n = NULL, *h = NULL;

	if (b->flags & BOOT_IGNORE_MEMORY)
		return NULL;
	have = host_free_memory(b->s, b->host, value_str(b->vm->ref));
	if (need <= have)
		return NULL;
	n = xasprintf("%lld", (long long)need);
	h = xasprintf("%lld", (long long)have);
	return api_error("HOST_NOT_ENOUGH_FREE_MEMORY", n, h, NULL);
}

static struct value *boot_pcpus(const struct boot *b)
{
	int64_t vcpus = record_int(b->vm, F_VM_VCPUs_at_startup);
	int64_t pcpus = b->host->fields[F_host_host_CPUs]->n;
	_cleanup_(freep) char *v = NULL, *n = NULL;

	if (vcpus <= pcpus || pcpus == 0 ||
	    !strcmp(value_get_str(b->vm->fields[F_VM_platform],
				  "vcpu-unrestricted"), "true"))
		return NULL;
	v = xasprintf("%lld", (long long)vcpus);
	n = xasprintf("%lld", (long long)pcpus);
	return api_error("HOST_NOT_ENOUGH_PCPUS", v, n, NULL);
}

struct value *vm_boot_error(const struct pool *p, const struct record *vm,
			    const struct record *host, unsigned flags)
{
	static struct value *(*const checks[])(const struct boot *) = {
		boot_vcpus, boot_limits, boot_crash_action, boot_host,
		boot_storage, boot_networks, boot_hvm, boot_memory, boot_pcpus,
	};
	struct boot b = { p, p->hooks.store(p->hooks.data), vm, host, flags };
	struct value *error;

	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		error = checks[i](&b);
		if (error)
			return error;
	}
	return NULL;
}

/* ---- choosing ---- */

struct choice {
	struct record *host;
	int64_t weight;
	int category; /* 0: fits at static_max, 1: at dynamic_max, 2: at min */
};

#define MAX_CANDIDATES 256

static void weigh(const struct pool *p, const struct record *vm,
		  struct choice *c)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	const struct record *pool = store_first(s, CLASS_pool);
	int64_t have = host_free_memory(s, c->host, value_str(vm->ref));

	c->category = need_at(vm, F_VM_memory_static_max) <= have ? 0 :
		      need_at(vm, F_VM_memory_dynamic_max) <= have ? 1 : 2;
	c->weight = (have - vm_memory_need(vm)) / MIB + 1;
	if (pool && record_bool(pool, F_pool_coordinator_bias) &&
	    value_equal(pool->fields[F_pool_master], c->host->ref))
		c->weight /= 2;
	c->weight = MAX(c->weight, 1);
}

static size_t candidates(const struct pool *p, const struct record *vm,
			 unsigned flags, struct choice list[MAX_CANDIDATES])
{
	const struct store *s = p->hooks.store(p->hooks.data);
	size_t n = 0;

	for (struct record *h = store_first(s, CLASS_host);
	     h && n < MAX_CANDIDATES; h = store_next(s, h)) {
		_cleanup_(value_unrefp) struct value *error = NULL;

		if (host_is_evacuating(h))
			continue;
		error = vm_boot_error(p, vm, h, flags);
		if (error)
			continue;
		list[n].host = h;
		weigh(p, vm, &list[n++]);
	}
	return n;
}

static struct record *draw(const struct choice *list, size_t n)
{
	uint64_t sum = 0, at;
	int best = 2;

	for (size_t i = 0; i < n; i++)
		best = MIN(best, list[i].category);
	for (size_t i = 0; i < n; i++)
		if (list[i].category == best)
			sum += (uint64_t)list[i].weight;
	env_random(&at, sizeof at);
	at %= sum;
	for (size_t i = 0; i < n; i++) {
		if (list[i].category != best)
			continue;
		if (at < (uint64_t)list[i].weight)
			return list[i].host;
		at -= (uint64_t)list[i].weight;
	}
	return NULL; /* not reached: at < sum */
}

struct record *vm_choose_host(const struct pool *p, const struct record *vm,
			      unsigned flags, struct value **ret_error)
{
	struct choice list[MAX_CANDIDATES];
	size_t n = candidates(p, vm, flags, list);
	struct record *h;

	for (size_t i = 0; i < n; i++)
		if (value_equal(list[i].host->ref, vm->fields[F_VM_affinity]))
			return list[i].host;
	if (n > 0)
		return draw(list, n);
	/* Memory apart, some host would do: then its shortage is the answer. */
	n = candidates(p, vm, flags | BOOT_IGNORE_MEMORY, list);
	h = n > 0 ? draw(list, n) : NULL;
	*ret_error = h ? vm_boot_error(p, vm, h, flags) : NULL;
	if (!*ret_error)
		*ret_error = api_error("NO_HOSTS_AVAILABLE", NULL);
	return NULL;
}
