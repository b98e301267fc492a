/* VM_metrics of the domains of this host, dom0 among them, as the hypervisor
 * has them: one transaction for all that differ, now and then. */
#include <string.h>

#include "base/env.h"
#include "pool/vm_calls.h"
#include "pool/vm_guest.h"

#define REFRESH_MS 10000
/* Of one transaction; the rest is next. */
#define MAX_ROWS 64

struct facts {
	int64_t memory, vcpus; /* bytes */
	const char *word;
};

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static bool is_near(int64_t a, int64_t b)
{
	return a - b < MIB && b - a < MIB;
}

/* Who waits for a guest to get to its target must not miss that it is there by
 * the little that the row may be off. */
static bool memory_fits(const struct record *vm, const struct record *m,
			const struct facts *f)
{
	int64_t said = record_int(m, F_VM_metrics_memory_actual);

	return is_near(said, f->memory) &&
	       vm_memory_is_at_target(vm, said) ==
		       vm_memory_is_at_target(vm, f->memory);
}

static bool row_fits(const struct record *vm, const struct record *m,
		     const struct facts *f)
{
	const struct value *state = m->fields[F_VM_metrics_state];

	return memory_fits(vm, m, f) &&
	       record_int(m, F_VM_metrics_VCPUs_number) == f->vcpus &&
	       state->n == 1 && value_is_str(state->items[0], f->word);
}

/* True: t has changed. */
static bool refresh(struct pool *p, struct txn *t, const struct record *vm,
		    const struct facts *f)
{
	struct record *m = store_get_class(store_of(p), CLASS_VM_metrics,
					   record_str(vm, F_VM_metrics));
	struct draft d;

	if (!m || row_fits(vm, m, f))
		return false;
	txn_guard_field(t, vm, F_VM_power_state);
	txn_guard_field(t, vm, F_VM_resident_on);
	draft_edit(&d, t, m);
	draft_int(&d, F_VM_metrics_memory_actual, f->memory);
	draft_int(&d, F_VM_metrics_VCPUs_number, f->vcpus);
	draft_set(&d, F_VM_metrics_state, value_set_of(f->word, NULL));
	draft_date(&d, F_VM_metrics_last_updated, env_wall_ms() / 1000);
	draft_write(&d);
	return true;
}

static bool refresh_domain(struct pool *p, struct txn *t,
			   const struct value *dom)
{
	const struct record *vm = guest_vm(p, value_get_str(dom, "vm"));
	struct facts f = {
		.memory = value_get_int(dom, "memory_kib", 0) * 1024,
		.vcpus = value_get_int(dom, "vcpus", 0),
		.word = value_get_str(dom, "state"),
	};

	return vm && value_get_int(dom, "domid", -1) ==
			     record_int(vm, F_VM_domid) &&
	       refresh(p, t, vm, &f);
}

static bool refresh_dom0(struct pool *p, struct txn *t,
			 const struct value *state)
{
	const struct value *hw = value_get(state, "host");
	const struct record *vm = store_get_class(
		store_of(p), CLASS_VM,
		record_str(pool_this_host(p), F_host_control_domain));
	struct facts f = {
		.memory = value_get_int(hw, "dom0_memory", 0),
		.vcpus = value_get_int(hw, "dom0_vcpus", 0),
		.word = "running",
	};

	if (!f.memory && vm)
		f.memory = record_int(vm, F_VM_memory_target);
	return vm && f.vcpus > 0 && refresh(p, t, vm, &f);
}

void vm_metrics_refresh(struct pool *p, const struct value *state)
{
	const struct value *list = value_get(state, "domains");
	struct txn *t;
	unsigned n;

	if (!pool_this_host(p) || !p->hosts->hardware_synced ||
	    env_mono_ms() < p->guests->metrics_at_ms)
		return;
	t = txn_new("host");
	n = refresh_dom0(p, t, state);
	for (uint32_t i = 0; i < list->n && n < MAX_ROWS; i++)
		n += refresh_domain(p, t, list->items[i]);
	if (n == 0) {
		txn_free(t);
		return;
	}
	p->guests->metrics_at_ms = env_mono_ms() + REFRESH_MS;
	pool_submit(p, t, NULL, NULL);
}
