/* Calls of the class pool. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "pool/core.h"
#include "pool/member_calls.h"

static struct value *live_hosts(const struct pool *p, const struct store *s)
{
	struct value *set = value_set_new(store_count(s, CLASS_host));
	uint32_t n = 0;

	for (struct record *h = store_first(s, CLASS_host); h;
	     h = store_next(s, h))
		if (h != pool_this_host(p) && host_counts_live(p, h))
			set->items[n++] = value_ref(h->ref);
	set->n = n;
	return set;
}

/* Members find their master by themselves: there is nobody to tell. */
static void pool_recover_slaves(struct req *r)
{
	req_reply(r, live_hosts(r->pool, req_store(r)));
}

/* Every member has every committed change already. */
static void pool_sync_database(struct req *r)
{
	req_reply(r, NULL);
}

static void pool_is_slave(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const struct record *pool = pool_row(r->pool);

	if (host)
		req_reply(r, value_bool(!pool ||
					!value_equal(pool->fields[F_pool_master],
						     host->ref)));
}

static void pool_get_license_state(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_pool))
		req_reply(r, value_map_of("edition", value_stringz("free"),
					  "expiry",
					  value_stringz("20991231T23:59:59Z"),
					  NULL));
}

static void pool_apply_edition(struct req *r)
{
	if (!req_arg_record(r, 0, CLASS_pool))
		return;
	if (strcmp(req_arg_str(r, 1), "free") != 0)
		req_fail(r, "INVALID_EDITION", req_arg_str(r, 1), NULL);
	else
		req_reply(r, NULL);
}

static void pool_has_extension(struct req *r)
{
	req_reply(r, value_bool(false));
}

/* ---- another master ---- */

static bool is_master(const struct req *r, const struct record *host)
{
	const struct record *master = pool_master(r->pool);

	return master && value_equal(master->ref, host->ref);
}

static void on_transferred(void *data, int error)
{
	struct req *r = data;

	if (error < 0)
		req_fail_value(r, error_of_errno(r->pool, error));
	else
		req_reply(r, NULL);
}

static void on_master_answered(void *data, int error, struct value *result,
			       struct value *api_err, const char *fingerprint)
{
	struct req *r = data;
	const struct record *master = pool_master(r->pool);

	if (error == -EREMOTEIO && api_err)
		req_fail_value(r, value_ref(api_err));
	else if (error < 0)
		req_fail(r, "CANNOT_CONTACT_HOST",
			 master ? value_str(master->ref) : REF_NULL, NULL);
	else
		req_reply(r, NULL);
}

/* Leadership is not in the database, so this is one of the few calls that only
 * the master can carry out: the same call, with the caller's own session. */
static void ask_master(struct req *r)
{
	const struct record *master = pool_master(r->pool);
	const struct record *m = master ? member_of_host(req_store(r),
						value_str(master->ref)) : NULL;
	struct value *params[] = { r->call->session, req_arg(r, 0) };
	_cleanup_(freep) char *address = NULL;

	if (!m) {
		req_fail(r, "CANNOT_CONTACT_HOST", REF_NULL, NULL);
		return;
	}
	address = xasprintf("%s:%s", record_str(master, F_host_address),
			    value_get_str(master->fields[F_host_other_config],
					  HOST_PORT_KEY));
	req_park(r);
	r->pool->hooks.remote_call(r->pool->hooks.data, address, r->method->name,
				   params, ARRAY_LEN(params),
				   record_str(m, F_member_fingerprint),
				   on_master_answered, r);
}

static void pool_designate_new_master(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const struct record *m = host ? member_of_host(req_store(r),
						       value_str(host->ref)) :
					NULL;
	int error;

	if (!host)
		return;
	if (is_master(r, host)) {
		req_reply(r, NULL);
		return;
	}
	if (!m || !host_counts_live(r->pool, host)) {
		req_fail(r, "HOST_OFFLINE", value_str(host->ref), NULL);
		return;
	}
	if (!r->pool->serving) {
		ask_master(r);
		return;
	}
	req_park(r);
	error = r->pool->hooks.transfer(
		r->pool->hooks.data,
		strtoull(record_str(m, F_member_raft_id), NULL, 10),
		on_transferred, r);
	if (error == -EBUSY)
		req_fail(r, "DESIGNATE_NEW_MASTER_IN_PROGRESS", NULL);
	else if (error < 0)
		on_transferred(r, error);
}

/* ---- out ---- */

static bool has_running_vm(const struct store *s, const struct record *host)
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

/* Rows go at once, and with them the trust in the host's certificate; the
 * leader then takes it out of the group, and its daemon stops. */
static void pool_eject(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const struct record *pool = pool_row(r->pool);
	struct txn *t;

	if (!host)
		return;
	if (is_master(r, host) ||
	    (pool && value_equal(pool->fields[F_pool_master], host->ref))) {
		req_fail_value(r, error_internal("Cannot_eject_master"));
		return;
	}
	if (has_running_vm(req_store(r), host)) {
		req_fail(r, "OPERATION_NOT_ALLOWED", "VM resident on host",
			 NULL);
		return;
	}
	t = req_txn(r);
	host_drop_rows(req_store(r), t, host);
	req_commit(r, t, NULL);
}

const struct handler_def member_handlers[] = { { 0, NULL } };

const struct handler_def pool_class_handlers[] = {
	{ M_pool_recover_slaves, pool_recover_slaves },
	{ M_pool_sync_database, pool_sync_database },
	{ M_pool_is_slave, pool_is_slave },
	{ M_pool_get_license_state, pool_get_license_state },
	{ M_pool_apply_edition, pool_apply_edition },
	{ M_pool_has_extension, pool_has_extension },
	{ M_pool_designate_new_master, pool_designate_new_master },
	{ M_pool_eject, pool_eject },
	{ M_pool_join, pool_join },
	{ M_pool_join_force, pool_join_force },
	{ M_member_register, member_register },
	{ M_member_open_console, member_open_console },
	{ M_pool_set_console_idle_timeout, pool_set_console_idle_timeout },
	{ M_host_set_console_idle_timeout, host_set_console_idle_timeout },
	{ 0, NULL },
};
