/* VM_guest_metrics from what guests tell of themselves. */
#include "pool/vm_guest.h"

#include <string.h>

#include "base/env.h"
#include "pool/job.h"

#define TICK_MS 1000
#define MAX_MISSES 3

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

struct record *guest_vm(const struct pool *p, const char *uuid)
{
	const struct record *me = pool_this_host(p);
	struct record *vm = store_by_uuid(store_of(p), CLASS_VM, uuid);

	if (!me || !vm || !vm_is_live(vm) ||
	    record_bool(vm, F_VM_is_control_domain) ||
	    !value_equal(vm->fields[F_VM_resident_on], me->ref))
		return NULL;
	return vm;
}

struct guest *guest_for(struct pool *p, const char *uuid)
{
	struct guest *g = map_getz(&p->guests->by_uuid, uuid);

	if (g || strlen(uuid) != UUID_LEN)
		return g;
	g = xcalloc(1, sizeof *g);
	strcpy(g->uuid, uuid);
	g->data_dirty = true;
	map_put(&p->guests->by_uuid, g->uuid, UUID_LEN, g);
	return g;
}

static void guest_drop(struct pool *p, struct guest *g)
{
	map_del(&p->guests->by_uuid, g->uuid, UUID_LEN);
	value_unref(g->metrics);
	value_unref(g->xenstore);
	value_unref(g->sent);
	free(g);
}

void guest_wake(struct pool *p, int64_t after_ms)
{
	pool_timer_arm(p, &p->guests->timer, after_ms);
}

/* ---- the row ---- */

static const struct {
	unsigned field;
	const char *member;
} members[] = {
	{ F_VM_guest_metrics_PV_drivers_version, "PV_drivers_version" },
	{ F_VM_guest_metrics_os_version, "os_version" },
	{ F_VM_guest_metrics_netbios_name, "netbios_name" },
	{ F_VM_guest_metrics_networks, "networks" },
	{ F_VM_guest_metrics_other, "other" },
	{ F_VM_guest_metrics_can_use_hotplug_vbd, "can_use_hotplug_vbd" },
	{ F_VM_guest_metrics_can_use_hotplug_vif, "can_use_hotplug_vif" },
	{ F_VM_guest_metrics_PV_drivers_detected, "PV_drivers_detected" },
};

static struct record *row_of(const struct pool *p, const struct record *vm)
{
	return store_get_class(store_of(p), CLASS_VM_guest_metrics,
			       record_str(vm, F_VM_guest_metrics));
}

/* Memory alone is no news: its figures move all the time. */
static bool row_fits(const struct record *row, const struct value *metrics)
{
	if (!row || !record_bool(row, F_VM_guest_metrics_live))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		if (!value_equal(row->fields[members[i].field],
				 value_get(metrics, members[i].member)))
			return false;
	return true;
}

static void row_fill(struct draft *d, const struct value *metrics)
{
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		draft_copy(d, members[i].field,
			   value_get(metrics, members[i].member));
	draft_copy(d, F_VM_guest_metrics_memory, value_get(metrics, "memory"));
	draft_copy(d, F_VM_guest_metrics_PV_drivers_up_to_date,
		   value_get(metrics, "PV_drivers_detected"));
	draft_bool(d, F_VM_guest_metrics_live, true);
	draft_date(d, F_VM_guest_metrics_last_updated, env_wall_ms() / 1000);
}

struct write {
	struct pool *p;
	char uuid[UUID_LEN + 1];
};

static void on_written(void *data, int error, struct txn_result result)
{
	struct write *w = data;
	struct guest *g = w->p->guests ? map_getz(&w->p->guests->by_uuid,
						  w->uuid) : NULL;

	/* Whatever came of it, the next look compares the rows again. */
	if (g) {
		g->is_writing = false;
		g->is_dirty = true;
		guest_wake(w->p, 0);
	}
	free(w);
}

static void guest_submit(struct pool *p, struct guest *g, struct txn *t)
{
	struct write *w = xcalloc(1, sizeof *w);

	w->p = p;
	strcpy(w->uuid, g->uuid);
	g->is_writing = true;
	pool_submit(p, t, on_written, w);
}

/* The VM's other fields may change meanwhile: they are no concern. */
static void write_row(struct pool *p, struct guest *g, struct record *vm)
{
	struct record *row = row_of(p, vm);
	struct txn *t = txn_new("guest");
	struct draft d;

	txn_guard_field(t, vm, F_VM_guest_metrics);
	txn_guard_field(t, vm, F_VM_resident_on);
	txn_guard_field(t, vm, F_VM_domid);
	if (row)
		draft_edit(&d, t, row);
	else
		draft_create(&d, t, CLASS_VM_guest_metrics, NULL);
	row_fill(&d, g->metrics);
	if (!row)
		txn_set(t, vm->cls, value_str(vm->ref), F_VM_guest_metrics,
			value_ref(d.now->ref));
	draft_write(&d);
	g->write_at_ms = env_mono_ms() + GUEST_WRITE_MS;
	guest_submit(p, g, t);
}

/* What may be done with the VM depends on what its guest can do. True: there
 * was something to write. */
static bool write_operations(struct pool *p, struct guest *g, struct record *vm)
{
	_cleanup_(value_unrefp) struct value *now =
		vm_allowed_operations(store_of(p), vm);
	struct txn *t;
	struct draft d;

	if (value_equal(now, vm->fields[F_VM_allowed_operations]))
		return false;
	t = txn_new("guest");
	draft_edit(&d, t, vm);
	draft_write_vm(&d, store_of(p));
	guest_submit(p, g, t);
	return true;
}

/* True: a transaction was made. */
static bool sync_metrics(struct pool *p, struct guest *g, struct record *vm)
{
	if (!g->is_dirty || g->is_writing || !g->metrics ||
	    record_int(vm, F_VM_domid) != g->domid)
		return false;
	if (row_fits(row_of(p, vm), g->metrics)) {
		g->is_dirty = false;
		return write_operations(p, g, vm);
	}
	if (env_mono_ms() < g->write_at_ms)
		return false;
	g->is_dirty = false;
	write_row(p, g, vm);
	return true;
}

/* ---- ticks ---- */

static bool is_due(const struct guest *g)
{
	return (g->is_dirty && !g->is_writing) || g->data_dirty;
}

static void on_tick(struct pool *p, void *data)
{
	struct guest_state *s = p->guests;
	unsigned writes = 0;
	struct guest *g;

	/* Submitting may apply at once, and that wake us: not within this. */
	pool_timer_arm(p, &s->timer, TICK_MS);
	for (size_t i = 0; (g = map_next(&s->by_uuid, &i));) {
		struct record *vm = is_due(g) ? guest_vm(p, g->uuid) : NULL;

		if (vm && writes < GUEST_WRITES_A_SECOND)
			writes += sync_metrics(p, g, vm);
		if (vm && g->data_dirty)
			guest_sync_data(p, g);
	}
}

/* ---- module ---- */

static int guest_init(struct pool *p)
{
	p->guests = xcalloc(1, sizeof *p->guests);
	map_init(&p->guests->by_uuid);
	pool_timer_init(&p->guests->timer, on_tick, NULL);
	pool_timer_arm(p, &p->guests->timer, TICK_MS);
	return 0;
}

static void guest_free(struct pool *p)
{
	struct guest *g;

	if (!p->guests)
		return;
	pool_timer_cancel(p, &p->guests->timer);
	for (size_t i = 0; (g = map_next(&p->guests->by_uuid, &i));)
		guest_drop(p, g);
	map_deinit(&p->guests->by_uuid);
	free(TAKE_PTR(p->guests));
}

static void mark(struct pool *p, struct guest *g)
{
	g->is_dirty = g->data_dirty = true;
	guest_wake(p, 0);
}

static void guest_changed(struct pool *p, const struct change *c)
{
	struct guest *g = c->cls->id == CLASS_VM && c->after ?
		map_getz(&p->guests->by_uuid,
			 record_str(c->after, F_VM_uuid)) : NULL;

	if (g)
		mark(p, g);
}

static void mark_all(struct pool *p)
{
	struct guest *g;

	for (size_t i = 0; (g = map_next(&p->guests->by_uuid, &i));)
		mark(p, g);
}

static void take_metrics(struct pool *p, const struct value *msg)
{
	const char *uuid = value_get_str(msg, "vm");
	struct guest *g;

	if (!store_by_uuid(store_of(p), CLASS_VM, uuid))
		return;
	g = guest_for(p, uuid);
	value_unref(g->metrics);
	g->metrics = value_ref(value_get(msg, "metrics"));
	g->domid = value_get_int(msg, "domid", -1);
	g->is_dirty = true;
	guest_wake(p, 0);
}

static bool is_listed(const struct value *domains, const char *uuid)
{
	for (uint32_t i = 0; i < domains->n; i++)
		if (!strcmp(value_get_str(domains->items[i], "vm"), uuid))
			return true;
	return false;
}

/* The guests that are here are known from now on, those that went are not. */
static void take_state(struct pool *p, const struct value *state)
{
	const struct value *domains = value_get(state, "domains");
	struct guest *g;

	for (uint32_t i = 0; i < domains->n; i++) {
		const char *uuid = value_get_str(domains->items[i], "vm");

		if (!guest_vm(p, uuid))
			continue;
		g = guest_for(p, uuid);
		g->misses = 0;
		vm_sources_take(g, domains->items[i]);
	}
	for (size_t i = 0; (g = map_next(&p->guests->by_uuid, &i));)
		if (!is_listed(domains, g->uuid) && g->misses++ >= MAX_MISSES)
			guest_drop(p, g);
	guest_wake(p, 0);
	vm_metrics_refresh(p, state);
}

static void guest_message(struct pool *p, const struct value *msg)
{
	const char *type = value_get_str(msg, "type");

	if (!strcmp(type, "guest"))
		take_metrics(p, msg);
	else if (!strcmp(type, "done"))
		guest_data_done(p, msg);
	else if (!strcmp(type, "state"))
		take_state(p, msg);
}

/* Another executor may look at another xenstore. */
static void guest_executor(struct pool *p, bool up)
{
	struct guest *g;

	for (size_t i = 0; (g = map_next(&p->guests->by_uuid, &i));) {
		value_unref(TAKE_PTR(g->xenstore));
		value_unref(TAKE_PTR(g->sent));
	}
	mark_all(p);
}

const struct pool_module guest_module = {
	.name = "guest",
	.init = guest_init,
	.free = guest_free,
	.changed = guest_changed,
	.reloaded = mark_all,
	.executor_message = guest_message,
	.executor_connected = guest_executor,
};
