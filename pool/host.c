/* Calls about one host that need no work outside the database. */
#include <string.h>

#include "base/env.h"
#include "pool/vm.h"

/* ---- reading ---- */

static void host_get_servertime(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_host))
		req_reply(r, value_datetime(env_wall_ms() / 1000));
}

/* Hosts keep UTC (see the field timezone). */
static void host_get_server_localtime(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_host))
		req_reply(r, value_localtime(env_wall_ms() / 1000));
}

static void host_compute_free_memory(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);

	if (host)
		req_reply(r, value_int(host_free_memory(req_store(r), host,
							NULL)));
}

static void host_compute_memory_overhead(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);

	if (host)
		req_reply(r, value_ref(host->fields[F_host_memory_overhead]));
}

static void host_get_management_interface(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const struct value *pifs = host ? host->fields[F_host_PIFs] : NULL;

	if (!host)
		return;
	for (uint32_t i = 0; i < pifs->n; i++) {
		const struct record *pif = store_get_class(
			req_store(r), CLASS_PIF, value_str(pifs->items[i]));

		if (pif && record_bool(pif, F_PIF_management)) {
			req_reply(r, value_ref(pif->ref));
			return;
		}
	}
	req_fail(r, "HOST_HAS_NO_MANAGEMENT_IP", NULL);
}

/* A member without a master serves what it has; it is never in a mode of its
 * own. */
static void host_is_in_emergency_mode(struct req *r)
{
	req_reply(r, value_bool(false));
}

static void host_get_server_certificate(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const struct record *m = host ? member_of_host(req_store(r),
						       value_str(host->ref)) :
					NULL;

	if (host)
		req_reply(r, m ? value_ref(m->fields[F_member_certificate]) :
				 value_stringz(""));
}

static void reply_empty_map(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_host))
		req_reply(r, value_map_empty());
}

static void reply_empty_set(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_host))
		req_reply(r, value_set_empty());
}

static void reply_false(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_host))
		req_reply(r, value_bool(false));
}

/* ---- setting ---- */

static void write_host(struct req *r, struct draft *d,
		       const struct record *host)
{
	draft_write_host(d, host_counts_live(r->pool, host));
}

static void host_disable(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	bool auto_enable = req_arg_bool(r, 1);
	struct txn *t;
	struct draft d;

	if (!host)
		return;
	t = req_txn(r);
	draft_edit(&d, t, host);
	draft_bool(&d, F_host_enabled, false);
	draft_map_put(&d, F_host_other_config, HOST_DISABLED_KEY,
		      value_stringz(auto_enable ? "until_reboot" : "always"));
	write_host(r, &d, host);
	req_commit(r, t, NULL);
}

static void host_enable(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct txn *t;
	struct draft d;

	if (!host)
		return;
	if (!host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_OFFLINE", value_str(host->ref), NULL);
		return;
	}
	if (host->fields[F_host_host_CPUs]->n == 0) {
		req_fail(r, "HOST_STILL_BOOTING", NULL);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, host);
	draft_bool(&d, F_host_enabled, true);
	draft_map_remove(&d, F_host_other_config, HOST_DISABLED_KEY);
	write_host(r, &d, host);
	req_commit(r, t, NULL);
}

static void set_text(struct req *r, unsigned field, struct value *takes_v)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct txn *t;

	if (!host) {
		value_unref(takes_v);
		return;
	}
	t = req_txn(r);
	txn_set(t, host->cls, value_str(host->ref), field, takes_v);
	req_commit(r, t, NULL);
}

static void host_set_hostname_live(struct req *r)
{
	const char *name = req_arg_str(r, 1);

	if (!*name || strlen(name) > 255)
		req_fail(r, "HOST_NAME_INVALID", "hostname empty or too long",
			 NULL);
	else
		set_text(r, F_host_hostname, value_stringz(name));
}

/* Field and other_config key say the same thing; both are kept. */
static void set_both(struct req *r, unsigned field, const char *key,
		     struct value *takes_v, const char *text)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct txn *t;
	struct draft d;

	if (!host) {
		value_unref(takes_v);
		return;
	}
	t = req_txn(r);
	draft_edit(&d, t, host);
	draft_set(&d, field, takes_v);
	draft_map_put(&d, F_host_other_config, key, value_stringz(text));
	draft_write(&d);
	req_commit(r, t, NULL);
}

static void host_set_iscsi_iqn(struct req *r)
{
	const char *iqn = req_arg_str(r, 1);

	if (!*iqn)
		req_fail(r, "INVALID_VALUE", "value", iqn, NULL);
	else
		set_both(r, F_host_iscsi_iqn, "iscsi_iqn", value_stringz(iqn),
			 iqn);
}

static void host_set_multipathing(struct req *r)
{
	bool on = req_arg_bool(r, 1);

	set_both(r, F_host_multipathing, "multipathing", value_bool(on),
		 on ? "true" : "false");
}

static void host_set_power_on_mode(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct txn *t;

	if (!host)
		return;
	t = req_txn(r);
	txn_set(t, host->cls, value_str(host->ref), F_host_power_on_mode,
		value_ref(req_arg(r, 1)));
	txn_set(t, host->cls, value_str(host->ref), F_host_power_on_config,
		value_ref(req_arg(r, 2)));
	req_commit(r, t, NULL);
}

static void host_apply_edition(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);

	if (!host)
		return;
	if (strcmp(req_arg_str(r, 1), "free") != 0)
		req_fail(r, "INVALID_EDITION", req_arg_str(r, 1), NULL);
	else
		req_reply(r, NULL);
}

/* ---- a host that is gone ---- */

static void halt_dead_vm(struct req *r, struct txn *t, struct record *vm,
			 const struct record *host, const struct value *error)
{
	struct draft d;

	draft_edit(&d, t, vm);
	job_drop_all(r->pool, &d, error);
	if (vm_is_live(vm) &&
	    value_equal(vm->fields[F_VM_resident_on], host->ref))
		vm_becomes_halted(r->pool, &d);
	draft_write_vm(&d, req_store(r));
}

static bool is_concerned(const struct record *vm, const struct record *host)
{
	if (record_bool(vm, F_VM_is_control_domain))
		return false;
	return value_equal(vm->fields[F_VM_resident_on], host->ref) ||
	       (!vm_is_live(vm) &&
		value_equal(vm->fields[F_VM_scheduled_to_be_resident_on],
			    host->ref));
}

/* A copy that could not be activated is gone with its host: the one it was made
 * from may wake up. */
static void release_sources(const struct store *s, struct txn *t,
			    const struct record *host)
{
	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j)) {
		if (!value_is_str(j->fields[F_job_step], "undo_destination") ||
		    !value_equal(j->fields[F_job_host], host->ref))
			continue;
		txn_guard_version(t, j);
		txn_set(t, j->cls, value_str(j->ref), F_job_step,
			value_stringz("abort_source"));
		txn_set(t, j->cls, value_str(j->ref), F_job_host,
			value_ref(j->fields[F_job_source]));
	}
}

static void host_declare_dead(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	_cleanup_(value_unrefp) struct value *error = NULL;
	const struct store *s = req_store(r);
	struct txn *t;
	struct draft d;

	if (!host)
		return;
	if (host == pool_this_host(r->pool) ||
	    host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_IS_LIVE", value_str(host->ref), NULL);
		return;
	}
	error = api_error("HOST_OFFLINE", value_str(host->ref), NULL);
	t = req_txn(r);
	for (struct record *vm = store_first(s, CLASS_VM); vm;
	     vm = store_next(s, vm))
		if (is_concerned(vm, host))
			halt_dead_vm(r, t, vm, host, error);
	release_sources(s, t, host);
	draft_edit(&d, t, host);
	draft_bool(&d, F_host_enabled, false);
	draft_set(&d, F_host_current_operations, value_map_empty());
	draft_write_host(&d, false);
	req_commit(r, t, NULL);
}

static bool has_residents(const struct store *s, const struct record *host)
{
	const struct value *vms = host->fields[F_host_resident_VMs];

	for (uint32_t i = 0; i < vms->n; i++) {
		const struct record *vm = store_get_class(
			s, CLASS_VM, value_str(vms->items[i]));

		if (vm && !record_bool(vm, F_VM_is_control_domain))
			return true;
	}
	return false;
}

static void drop_set(const struct store *s, struct txn *t,
		     const struct value *refs)
{
	for (uint32_t i = 0; i < refs->n; i++)
		row_destroy(s, t, value_str(refs->items[i]));
}

/* An SR that only this host could reach goes with it, disks and all. */
static void drop_local_srs(const struct store *s, struct txn *t,
			   const struct record *host)
{
	const struct value *pbds = host->fields[F_host_PBDs];

	for (uint32_t i = 0; i < pbds->n; i++) {
		const struct record *pbd = store_get_class(
			s, CLASS_PBD, value_str(pbds->items[i]));
		const struct record *sr = pbd ? store_get_class(
			s, CLASS_SR, record_str(pbd, F_PBD_SR)) : NULL;

		if (pbd)
			txn_destroy(t, value_str(pbd->ref));
		if (!sr || sr->fields[F_SR_PBDs]->n > 1 ||
		    record_bool(sr, F_SR_shared))
			continue;
		drop_set(s, t, sr->fields[F_SR_VDIs]);
		txn_destroy(t, value_str(sr->ref));
	}
}

/* Files of suspended VMs that only it could remove. */
static void drop_image_jobs(const struct store *s, struct txn *t,
			    const struct record *host)
{
	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j))
		if (value_is_str(j->fields[F_job_kind], "drop_image") &&
		    value_equal(j->fields[F_job_host], host->ref))
			txn_destroy(t, value_str(j->ref));
}

void host_drop_rows(const struct store *s, struct txn *t,
		    const struct record *host)
{
	const struct record *dom0 = store_get_class(
		s, CLASS_VM, record_str(host, F_host_control_domain));
	const struct record *m = member_of_host(s, value_str(host->ref));
	const struct value *pifs = host->fields[F_host_PIFs];

	txn_guard_version(t, host);
	drop_local_srs(s, t, host);
	for (uint32_t i = 0; i < pifs->n; i++) {
		const struct record *pif = store_get_class(
			s, CLASS_PIF, value_str(pifs->items[i]));

		if (!pif)
			continue;
		row_destroy(s, t, record_str(pif, F_PIF_metrics));
		txn_destroy(t, value_str(pif->ref));
	}
	drop_set(s, t, host->fields[F_host_host_CPUs]);
	row_destroy(s, t, record_str(host, F_host_metrics));
	if (dom0) {
		vm_destroy_devices(s, t, dom0);
		txn_destroy(t, value_str(dom0->ref));
	}
	if (m)
		txn_destroy(t, value_str(m->ref));
	drop_image_jobs(s, t, host);
	txn_destroy(t, value_str(host->ref));
}

static void host_destroy(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	struct txn *t;

	if (!host)
		return;
	if (host == pool_this_host(r->pool) ||
	    host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_IS_LIVE", value_str(host->ref), NULL);
		return;
	}
	if (has_residents(req_store(r), host)) {
		req_fail(r, "HOST_HAS_RESIDENT_VMS", value_str(host->ref),
			 NULL);
		return;
	}
	t = req_txn(r);
	host_drop_rows(req_store(r), t, host);
	req_commit(r, t, NULL);
}

/* ---- could it be emptied? ---- */

static struct value *prevents(struct req *r, const struct record *vm,
			      const struct record *host)
{
	struct value *error = vm_op_error(req_store(r), vm, "pool_migrate",
					  true);

	if (error)
		return error;
	for (struct record *h = store_first(req_store(r), CLASS_host); h;
	     h = store_next(req_store(r), h)) {
		if (h == host)
			continue;
		value_unref(error);
		error = vm_boot_error(r->pool, vm, h, BOOT_MIGRATE);
		if (!error)
			return NULL;
	}
	if (error && error_is(error, "VM_REQUIRES_SR"))
		return error;
	value_unref(error);
	return api_error("NO_HOSTS_AVAILABLE", value_str(vm->ref), NULL);
}

/* VM ref -> [code, params...], as pairs for value_map_from(). */
static size_t preventing_vms(struct req *r, const struct record *host,
			     struct value **pairs)
{
	const struct value *vms = host->fields[F_host_resident_VMs];
	size_t n = 0;

	for (uint32_t i = 0; i < vms->n; i++) {
		const struct record *vm = store_get_class(
			req_store(r), CLASS_VM, value_str(vms->items[i]));
		struct value *error;

		if (!vm || record_bool(vm, F_VM_is_control_domain))
			continue;
		error = prevents(r, vm, host);
		if (!error)
			continue;
		pairs[2 * n] = value_ref(vm->ref);
		pairs[2 * n++ + 1] = error;
	}
	return n;
}

static struct value *preventing_map(struct req *r, const struct record *host)
{
	size_t max = host->fields[F_host_resident_VMs]->n;
	struct value **pairs = xcalloc(2 * max + 1, sizeof *pairs);
	struct value *map = value_map_from(pairs, preventing_vms(r, host,
								 pairs));

	free(pairs);
	return map;
}

struct value *host_evacuation_error(struct req *r, const struct record *host)
{
	_cleanup_(value_unrefp) struct value *map = preventing_map(r, host);

	return map->n > 0 ? value_ref(map->items[1]) : NULL;
}

static void host_get_preventing(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);

	if (host)
		req_reply(r, preventing_map(r, host));
}

static void host_assert_can_evacuate(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	_cleanup_(value_unrefp) struct value *map = NULL;
	struct buf b = BUF_INIT;

	if (!host)
		return;
	map = preventing_map(r, host);
	for (uint32_t i = 0; i < map->n; i++) {
		const struct value *error = map->items[2 * i + 1];

		buf_puts(&b, i ? "|" : "");
		for (uint32_t k = 0; k < error->n; k++)
			buf_printf(&b, "%s%s", k ? "," : "",
				   value_str(error->items[k]));
	}
	if (map->n == 0)
		req_reply(r, NULL);
	else
		req_fail(r, "CANNOT_EVACUATE_HOST", buf_cstr(&b), NULL);
	buf_deinit(&b);
}

const struct handler_def host_handlers[] = {
	{ M_host_get_servertime, host_get_servertime },
	{ M_host_get_server_localtime, host_get_server_localtime },
	{ M_host_compute_free_memory, host_compute_free_memory },
	{ M_host_compute_memory_overhead, host_compute_memory_overhead },
	{ M_host_get_management_interface, host_get_management_interface },
	{ M_host_is_in_emergency_mode, host_is_in_emergency_mode },
	{ M_host_get_server_certificate, host_get_server_certificate },
	{ M_host_get_data_sources, reply_empty_set },
	{ M_host_get_uncooperative_resident_VMs, reply_empty_set },
	{ M_host_retrieve_wlb_evacuate_recommendations, reply_empty_map },
	{ M_host_get_tracked_user_agents, reply_empty_map },
	{ M_host_has_extension, reply_false },
	{ M_host_enable, host_enable },
	{ M_host_disable, host_disable },
	{ M_host_set_hostname_live, host_set_hostname_live },
	{ M_host_set_iscsi_iqn, host_set_iscsi_iqn },
	{ M_host_set_multipathing, host_set_multipathing },
	{ M_host_set_power_on_mode, host_set_power_on_mode },
	{ M_host_apply_edition, host_apply_edition },
	{ M_host_declare_dead, host_declare_dead },
	{ M_host_destroy, host_destroy },
	{ M_host_evacuate, host_evacuate },
	{ M_host_assert_can_evacuate, host_assert_can_evacuate },
	{ M_host_get_vms_which_prevent_evacuation, host_get_preventing },
	{ 0, NULL },
};
