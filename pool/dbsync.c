/* The first rows of a pool, and a host's own rows at each of its starts. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/storage.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

/* ---- a new pool ---- */

static void add_network(struct txn *t, char ret_ref[REF_LEN + 1])
{
	struct draft d;

	draft_create(&d, t, CLASS_network, NULL);
	draft_str(&d, F_network_name_label,
		  "Pool-wide network associated with xenbr0");
	draft_str(&d, F_network_bridge, "xenbr0");
	strcpy(ret_ref, draft_ref(&d));
	draft_write(&d);
}

static void add_pool_row(struct txn *t, const struct dbsync_refs *refs)
{
	struct draft d;

	draft_create(&d, t, CLASS_pool, NULL);
	draft_str(&d, F_pool_master, refs->host);
	draft_str(&d, F_pool_default_SR, refs->sr);
	draft_set(&d, F_pool_restrictions, dbsync_restrictions(false));
	draft_bool(&d, F_pool_tls_verification_enabled, true);
	draft_set(&d, F_pool_allowed_operations,
		  value_set_of("designate_new_master", "eject", NULL));
	draft_write(&d);
}

#define RECOMMENDATIONS                                                       \
	"<restrictions>"                                                      \
	"<restriction field=\"memory-static-max\" max=\"1649267441664\"/>"    \
	"<restriction field=\"vcpus-max\" max=\"64\"/>"                       \
	"<restriction property=\"number-of-vbds\" max=\"254\"/>"              \
	"<restriction property=\"number-of-vifs\" max=\"7\"/>"                \
	"</restrictions>"

struct template {
	const char *name, *description, *type;
	int64_t memory;
};

static const struct template templates[] = {
	{ "Other install media",
	  "Any operating system, installed from its own media", "hvm",
	  1024 * MIB },
	{ "Linux (PVH)", "Linux started without emulated hardware", "pvh",
	  512 * MIB },
};

static struct value *platform_of(bool hvm)
{
	struct value *v = value_map_of(
		"acpi", value_stringz("1"), "apic", value_stringz("true"),
		"nx", value_stringz("true"), "pae", value_stringz("true"),
		"timeoffset", value_stringz("0"), NULL);
	struct value *key, *item, *with;

	if (!hvm)
		return v;
	key = value_stringz("device-model");
	item = value_stringz("qemu-upstream-compat");
	with = value_map_with(v, key, item);
	value_unref(v);
	value_unref(key);
	value_unref(item);
	return with;
}

static void template_boot(struct draft *d, bool hvm)
{
	draft_str(d, F_VM_HVM_boot_policy, hvm ? "BIOS order" : "");
	if (hvm)
		draft_set(d, F_VM_HVM_boot_params,
			  value_map_of("order", value_stringz("cdn"),
				       "firmware",
				       value_stringz("bios"), NULL));
	else
		draft_str(d, F_VM_PV_bootloader, "pygrub");
	draft_set(d, F_VM_platform, platform_of(hvm));
}

static void add_template(struct txn *t, const struct store *s,
			 const struct template *tp)
{
	struct draft d;

	draft_create(&d, t, CLASS_VM, NULL);
	draft_str(&d, F_VM_name_label, tp->name);
	draft_str(&d, F_VM_name_description, tp->description);
	draft_bool(&d, F_VM_is_a_template, true);
	draft_bool(&d, F_VM_is_default_template, true);
	draft_str(&d, F_VM_domain_type, tp->type);
	draft_int(&d, F_VM_memory_static_min, 128 * MIB);
	draft_int(&d, F_VM_memory_dynamic_min, tp->memory);
	draft_int(&d, F_VM_memory_dynamic_max, tp->memory);
	draft_int(&d, F_VM_memory_static_max, tp->memory);
	draft_int(&d, F_VM_VCPUs_max, 1);
	draft_int(&d, F_VM_VCPUs_at_startup, 1);
	draft_str(&d, F_VM_actions_after_shutdown, "destroy");
	draft_str(&d, F_VM_actions_after_reboot, "restart");
	draft_str(&d, F_VM_actions_after_crash, "restart");
	draft_str(&d, F_VM_recommendations, RECOMMENDATIONS);
	draft_set(&d, F_VM_other_config,
		  value_map_of("default_template", value_stringz("true"),
			       "install-methods", value_stringz("cdrom"), NULL));
	template_boot(&d, !strcmp(tp->type, "hvm"));
	draft_int(&d, F_VM_domid, -1);
	draft_int(&d, F_VM_memory_overhead, vm_memory_overhead(d.now));
	draft_write_vm(&d, s);
}

static void on_created(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (!p->hosts)
		return;
	p->hosts->creating = false;
	if (error == 0 && result.status == TXN_OK)
		log_info("a new pool has been created on %s", p->cfg.hostname);
	else if (error == 0)
		log_error("the first rows do not fit: status %d, item %u",
			  (int)result.status, result.item);
}

/* A second one cannot get in: the host's uuid would be taken. */
static void on_hashed(void *data, bool ok, const char *hash)
{
	struct pool *p = data;
	_cleanup_(value_unrefp) struct value *me = NULL, *version = NULL;
	char network[REF_LEN + 1];
	struct dbsync_refs refs;
	struct txn *t;

	if (!p->hosts || !p->serving || pool_row(p) || !hash) {
		if (p->hosts)
			p->hosts->creating = false;
		return;
	}
	me = dbsync_describe_host(p);
	version = dbsync_software_version(p);
	t = txn_new("first start");
	add_network(t, network);
	dbsync_add_host(p, t, me, version, network, "voter", &refs);
	add_pool_row(t, &refs);
	sm_add_drivers(store_of(p), t);
	for (size_t i = 0; i < ARRAY_LEN(templates); i++)
		add_template(t, store_of(p), &templates[i]);
	credential_create(t, "root", hash);
	pool_submit(p, t, on_created, p);
}

void dbsync_create_pool(struct pool *p)
{
	if (p->hosts->creating)
		return;
	p->hosts->creating = true;
	session_hash_first_password(p, on_hashed, p);
}

/* ---- this host's own rows ---- */

static bool is_new_boot(const struct record *host, const struct value *state)
{
	return state && strcmp(value_get_str(host->fields[F_host_other_config],
					     "boot_id"),
			       value_get_str(state, "boot_id")) != 0;
}

static struct value *now_text(void)
{
	return value_printf("%lld.", (long long)(env_wall_ms() / 1000));
}

static void note_boot(struct draft *d, const struct value *state)
{
	int64_t boot = value_get_int(value_get(state, "host"), "boot_time", 0);

	draft_map_put(d, F_host_other_config, "boot_id",
		      value_stringz(value_get_str(state, "boot_id")));
	draft_map_put(d, F_host_other_config, "boot_time",
		      boot > 0 ? value_printf("%lld.", (long long)boot) :
				 now_text());
	if (!strcmp(value_get_str(d->now->fields[F_host_other_config],
				  HOST_DISABLED_KEY), "until_reboot"))
		draft_map_remove(d, F_host_other_config, HOST_DISABLED_KEY);
}

static void refresh_consoles(struct pool *p, struct txn *t, struct draft *host)
{
	const struct value *vms = host->base->fields[F_host_resident_VMs];
	const struct store *s = store_of(p);

	for (struct record *c = store_first(s, CLASS_console); c;
	     c = store_next(s, c)) {
		const struct record *vm = store_get_class(
			s, CLASS_VM, record_str(c, F_console_VM));
		_cleanup_(freep) char *location = NULL;

		if (!vm || vms->n == 0 ||
		    !value_equal(vm->fields[F_VM_resident_on], host->base->ref))
			continue;
		location = console_location(p, host->now,
					    record_str(c, F_console_uuid));
		if (!value_is_str(c->fields[F_console_location], location))
			txn_set(t, c->cls, value_str(c->ref),
				F_console_location,
				value_stringz(location));
	}
}

static void refresh_metrics(struct pool *p, struct txn *t,
			    const struct record *host, const struct value *hw)
{
	struct record *m = store_get_class(store_of(p), CLASS_host_metrics,
					   record_str(host, F_host_metrics));
	struct draft d;

	if (!m)
		return;
	draft_edit(&d, t, m);
	draft_int(&d, F_host_metrics_memory_total,
		  value_get_int(hw, "memory_total", 0));
	draft_int(&d, F_host_metrics_memory_free,
		  value_get_int(hw, "memory_free", 0));
	draft_date(&d, F_host_metrics_last_updated, env_wall_ms() / 1000);
	draft_write(&d);
	p->hosts->metrics_at_ms = env_mono_ms();
}

static void refresh_dom0(struct pool *p, struct txn *t,
			 const struct record *host, const struct value *me)
{
	struct record *vm = store_get_class(
		store_of(p), CLASS_VM, record_str(host, F_host_control_domain));
	struct draft d;

	if (!vm)
		return;
	draft_edit(&d, t, vm);
	dbsync_dom0_size(&d, me);
	draft_write(&d);
}

/* True when all of it is in the transaction. */
static bool refresh_hardware(struct pool *p, struct txn *t, struct draft *d,
			     const struct value *state)
{
	_cleanup_(value_unrefp) struct value *me = dbsync_describe_host(p);
	const struct value *hw = value_get(state, "host");
	bool whole;

	dbsync_host_hardware(d, me);
	whole = dbsync_sync_cpus(store_of(p), t, draft_ref(d),
				 d->base->fields[F_host_host_CPUs], me);
	refresh_metrics(p, t, d->base, hw);
	refresh_dom0(p, t, d->base, me);
	if (!value_get(d->now->fields[F_host_other_config], HOST_DISABLED_KEY))
		draft_bool(d, F_host_enabled, true);
	return whole;
}

/* It is tried each second. The first failures are ordinary (others write the
 * row, the pool has no master yet), and the log is told now and then only. */
#define FAILURES_FIRST 5
#define FAILURES_EVERY 600

static void refresh_failed(struct pool *p, int error, struct txn_result result)
{
	unsigned n = ++p->hosts->sync_failures;

	if (n != FAILURES_FIRST && n % FAILURES_EVERY != 0)
		return;
	if (error < 0)
		log_warn("this host's own rows cannot be refreshed (tried %u "
			 "times, goes on): %s", n, strerror(-error));
	else
		log_warn("this host's own rows cannot be refreshed (tried %u "
			 "times, goes on): status %d, item %u of the "
			 "transaction", n, (int)result.status, result.item);
}

static void refresh_worked(struct pool *p)
{
	p->hosts->synced = true;
	p->hosts->hardware_synced |= p->hosts->hardware_sent;
	if (p->hosts->sync_failures >= FAILURES_FIRST)
		log_info("this host's own rows are refreshed again");
	p->hosts->sync_failures = 0;
}

static void on_refreshed(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (!p->hosts)
		return;
	p->hosts->sync_pending = false;
	if (error == 0 && result.status == TXN_OK)
		refresh_worked(p);
	else
		refresh_failed(p, error, result);
}

void dbsync_refresh_host(struct pool *p, int error)
{
	struct record *host = pool_this_host(p);
	const struct value *state =
		p->executor_up ? p->hosts->exec_state : NULL;
	_cleanup_(value_unrefp) struct value *me = NULL;
	struct txn *t;
	struct draft d;

	if (error < 0)
		refresh_failed(p, error, (struct txn_result){ 0 });
	if (error < 0 || !host || p->hosts->sync_pending)
		return;
	me = dbsync_describe_host(p);
	t = txn_new("host start");
	draft_edit(&d, t, host);
	dbsync_host_identity(&d, me);
	draft_set(&d, F_host_software_version, dbsync_software_version(p));
	if (!p->hosts->synced)
		draft_map_put(&d, F_host_other_config, "agent_start_time",
			      now_text());
	if (is_new_boot(host, state))
		note_boot(&d, state);
	p->hosts->hardware_sent = state && refresh_hardware(p, t, &d, state);
	refresh_consoles(p, t, &d);
	draft_write_host(&d, true);
	p->hosts->sync_pending = true;
	pool_submit(p, t, on_refreshed, p);
}

/* The figures that move while a host runs; not at every tick. */
#define METRICS_EVERY_MS 10000
#define METRICS_STEP (16 * MIB)

void dbsync_refresh_metrics(struct pool *p)
{
	const struct record *host = pool_this_host(p);
	const struct value *hw = value_get(p->hosts->exec_state, "host");
	const struct record *m = host ? store_get_class(
		store_of(p), CLASS_host_metrics,
		record_str(host, F_host_metrics)) : NULL;
	int64_t moved;
	struct txn *t;

	if (!m)
		return;
	moved = value_get_int(hw, "memory_free", 0) -
		record_int(m, F_host_metrics_memory_free);
	if ((moved < METRICS_STEP && moved > -METRICS_STEP) ||
	    env_mono_ms() < p->hosts->metrics_at_ms + METRICS_EVERY_MS)
		return;
	t = txn_new("host");
	refresh_metrics(p, t, host, hw);
	pool_submit(p, t, NULL, NULL);
}
