/* pool.join: this host, a pool of one, becomes a member of another pool.
 *
 *   checks here -> log in there -> look at its hosts -> checks
 *   -> member.register there: one transaction makes all rows
 *      that stand for this host, and tells whom to trust
 *   -> answer the caller -> leave our own pool, start again as a member
 *
 * Nothing here changes before the last step, so a failure anywhere leaves this
 * host as it was. The new pool's leader adds us to its group as soon as the
 * rows are there.
 */
#include <stdio.h>
#include <string.h>

#include "pool/core.h"
#include "pool/member_calls.h"
#include "raftdb/db.h"

#define REGISTER "member.register"
#define MAX_MEMBERS 64

/* ---- on the joining host ---- */

struct join {
	struct req *r;
	bool force;
	char *address;
	char fingerprint[65];
	struct value *session;
};

static void join_free(struct join *j)
{
	free(j->address);
	value_unref(j->session);
	free(j);
}

static bool is_plain_vm(const struct record *vm)
{
	return !record_bool(vm, F_VM_is_a_template) &&
	       !record_bool(vm, F_VM_is_control_domain);
}

static struct value *own_vms_error(const struct store *s)
{
	size_t n = 0;

	for (struct record *vm = store_first(s, CLASS_VM); vm;
	     vm = store_next(s, vm)) {
		if (!is_plain_vm(vm))
			continue;
		if (vm_is_live(vm))
			return api_error("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS",
					 NULL);
		if (vm->fields[F_VM_current_operations]->n)
			return api_error("JOINING_HOST_CANNOT_HAVE_VMS_WITH_"
					 "CURRENT_OPERATIONS", NULL);
		n++;
	}
	return n ? api_error("OPERATION_NOT_ALLOWED",
			     "The VMs of this host would be lost: export or "
			     "destroy them first", NULL) : NULL;
}

static struct value *own_srs_error(const struct store *s)
{
	for (struct record *sr = store_first(s, CLASS_SR); sr;
	     sr = store_next(s, sr))
		if (record_bool(sr, F_SR_shared))
			return api_error("JOINING_HOST_CANNOT_CONTAIN_SHARED_"
					 "SRS", NULL);
	return NULL;
}

/* "host", "host:port" and "[v6]:port" of our own address. */
static bool is_own_address(const struct pool *p, const char *address)
{
	const char *own = p->cfg.address;
	char port[16];
	size_t n = strlen(own);

	if (*address == '[')
		address++;
	if (strncmp(address, own, n) != 0)
		return false;
	address += n;
	if (*address == ']')
		address++;
	snprintf(port, sizeof port, ":%u", p->cfg.https_port);
	return !*address || !strcmp(address, port);
}

static struct value *own_error(const struct req *r)
{
	const struct store *s = req_store(r);
	struct value *error;

	if (!pool_this_host(r->pool))
		return api_error("HOST_STILL_BOOTING", NULL);
	if (is_own_address(r->pool, req_arg_str(r, 0)))
		return api_error("OPERATION_NOT_ALLOWED",
				 "Host cannot become slave of itself", NULL);
	if (store_count(s, CLASS_host) > 1)
		return api_error("JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS",
				 NULL);
	error = own_vms_error(s);
	return error ? error : own_srs_error(s);
}

static void join_fail(struct join *j, struct value *error)
{
	req_fail_value(j->r, error);
	join_free(j);
}

static void join_failed_there(struct join *j, struct value *api_error_there)
{
	join_fail(j, api_error_there ? value_ref(api_error_there) :
		     api_error("JOINING_HOST_SERVICE_FAILED", NULL));
}

static void join_call(struct join *j, const char *method, struct value **params,
		      unsigned n, pool_remote_cb cb)
{
	const struct pool_hooks *h = &j->r->pool->hooks;

	h->remote_call(h->data, j->address, method, params, n,
		       *j->fingerprint ? j->fingerprint : NULL, cb, j);
}

static void nothing(void *data, int error, struct value *result,
		    struct value *api_err, const char *fingerprint)
{
}

static void log_out(struct join *j)
{
	const struct pool_hooks *h = &j->r->pool->hooks;

	h->remote_call(h->data, j->address, "session.logout", &j->session, 1,
		       j->fingerprint, nothing, NULL);
}

static void on_registered(void *data, int error, struct value *result,
			  struct value *api_err, const char *fingerprint)
{
	struct join *j = data;
	struct pool *p = j->r->pool;
	struct value *members;

	log_out(j);
	if (error < 0 || result->kind != VALUE_SET || result->n == 0) {
		join_failed_there(j, api_err);
		return;
	}
	members = value_ref(result);
	req_reply(j->r, NULL);
	join_free(j);
	p->hooks.become_member(p->hooks.data, members);
	value_unref(members);
}

static bool same_version(const struct value *a, const struct value *b)
{
	static const char *const keys[] = { "product_version", "xapi",
					    "platform_version" };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (strcmp(value_get_str(a, keys[i]), value_get_str(b,
								    keys[i])))
			return false;
	return true;
}

/* theirs: a host record as JSON gives it. */
static struct value *host_error(const struct join *j,
				const struct value *theirs)
{
	const struct record *me = pool_this_host(j->r->pool);
	const struct value *cpu = value_get(theirs, "cpu_info");
	const struct value *version = value_get(theirs, "software_version");
	const char *vendor = cpu ? value_get_str(cpu, "vendor") : "";
	const char *own = value_get_str(me->fields[F_host_cpu_info], "vendor");

	/* Our own row from an earlier life: the pool itself knows whether it
	 * still has us as a member. */
	if (j->force || value_is_str(me->fields[F_host_uuid],
				     value_get_str(theirs, "uuid")))
		return NULL;
	if (!version || !same_version(version,
				      me->fields[F_host_software_version]))
		return api_error("HOSTS_NOT_HOMOGENEOUS",
				 "Software version differs", NULL);
	if (*vendor && *own && strcmp(vendor, own) != 0)
		return api_error("HOSTS_NOT_HOMOGENEOUS", "CPUs differ", NULL);
	return NULL;
}

static void on_hosts(void *data, int error, struct value *result,
		     struct value *api_err, const char *fingerprint)
{
	struct join *j = data;
	struct pool *p = j->r->pool;
	struct value *params[3], *why = NULL;

	if (error < 0 || (result->kind != VALUE_STRUCT &&
			  result->kind != VALUE_MAP)) {
		log_out(j);
		join_failed_there(j, api_err);
		return;
	}
	for (uint32_t i = 0; i < result->n && !why; i++)
		why = host_error(j, result->items[2 * i + 1]);
	if (why) {
		log_out(j);
		join_fail(j, why);
		return;
	}
	params[0] = j->session;
	params[1] = dbsync_describe_host(p);
	params[2] =
		value_ref(pool_this_host(p)->fields[F_host_software_version]);
	join_call(j, REGISTER, params, 3, on_registered);
	value_unref(params[1]);
	value_unref(params[2]);
}

static void on_login(void *data, int error, struct value *result,
		     struct value *api_err, const char *fingerprint)
{
	struct join *j = data;

	if (error < 0 || result->kind != VALUE_STRING) {
		join_failed_there(j, api_err);
		return;
	}
	/* From here on only the one who knew the password is spoken to. */
	snprintf(j->fingerprint, sizeof j->fingerprint, "%s",
		 fingerprint ? fingerprint : "");
	j->session = value_ref(result);
	join_call(j, "host.get_all_records", &j->session, 1, on_hosts);
}

static void join(struct req *r, bool force)
{
	struct value *error = own_error(r), *params[4];
	struct join *j;

	if (error) {
		req_fail_value(r, error);
		return;
	}
	j = xcalloc(1, sizeof *j);
	j->r = r;
	j->force = force;
	j->address = xstrdup(req_arg_str(r, 0));
	params[0] = req_arg(r, 1);
	params[1] = req_arg(r, 2);
	params[2] = value_stringz("1.0");
	params[3] = value_stringz("xenpool join");
	req_park(r);
	join_call(j, "session.login_with_password", params, 4, on_login);
	value_unref(params[2]);
	value_unref(params[3]);
}

void pool_join(struct req *r)
{
	join(r, false);
}

void pool_join_force(struct req *r)
{
	join(r, true);
}

/* ---- on the pool that is joined ---- */

static struct value *newcomer_error(const struct req *r, const struct value *d)
{
	const struct store *s = req_store(r);
	const char *uuid = value_get_str(d, "uuid");
	const char *fingerprint = value_get_str(d, "fingerprint");
	const struct record *known = store_by_uuid(s, CLASS_host, uuid);
	const char *missing = !uuid_valid(uuid, strlen(uuid)) ? "uuid" :
			      strlen(fingerprint) != 64 ? "fingerprint" :
			      !*value_get_str(d,
					      "peer_address") ? "peer_address" :
			      !*value_get_str(d, "address") ? "address" : NULL;

	if (missing)
		return api_error("INVALID_VALUE", missing,
				 value_get_str(d, missing), NULL);
	if (known && member_of_host(s, value_str(known->ref)))
		return api_error("OPERATION_NOT_ALLOWED",
				 "This host is a member of the pool already",
				 NULL);
	if (store_count(s, CLASS_member) >= MAX_MEMBERS)
		return api_error("OPERATION_NOT_ALLOWED",
				 "The pool has as many hosts as it can", NULL);
	return NULL;
}

static struct value *member_value(const char *id, const char *peer_address,
				  const char *fingerprint, const char *uuid)
{
	return value_map_of("raft_id", value_stringz(id),
			    "peer_address", value_stringz(peer_address),
			    "fingerprint", value_stringz(fingerprint),
			    "uuid", value_stringz(uuid), NULL);
}

static struct value *all_members(const struct store *s, const struct value *d)
{
	struct value *set = value_set_new(store_count(s, CLASS_member) + 1);
	uint32_t n = 0;

	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m))
		set->items[n++] = member_value(
			record_str(m, F_member_raft_id),
			record_str(m, F_member_peer_address),
			record_str(m, F_member_fingerprint),
			record_str(m, F_member_uuid));
	set->items[n++] = member_value(value_get_str(d, "raft_id"),
				       value_get_str(d, "peer_address"),
				       value_get_str(d, "fingerprint"),
				       value_get_str(d, "uuid"));
	set->n = n;
	return set;
}

/* The same bridge is the same network; NULL when there is none yet. */
static const char *network_of_bridge(const struct store *s, const char *bridge)
{
	for (struct record *n = store_first(s, CLASS_network); n;
	     n = store_next(s, n))
		if (value_is_str(n->fields[F_network_bridge], bridge))
			return value_str(n->ref);
	return NULL;
}

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

static size_t count_voters(const struct store *s)
{
	size_t n = 0;

	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m))
		n += value_is_str(m->fields[F_member_wanted_role], "voter");
	return n;
}

/* What the newcomer says of itself, with what it has no say in. */
static struct value *checked_description(const struct value *d)
{
	struct value *key = value_stringz("raft_id"), *id, *ret;

	id = value_printf("%llu", (unsigned long long)db_id_of_uuid(
					  value_get_str(d, "uuid")));
	ret = value_map_with(d, key, id);
	value_unref(key);
	value_unref(id);
	return ret;
}

/* The pool was restored from a backup: the host's rows are here, but not the
 * host. It brings them up to date when it has started. */
static void register_again(struct req *r, struct txn *t,
			   const struct record *host, const struct value *d,
			   const char *role)
{
	txn_guard_exists(t, host->cls, value_str(host->ref));
	dbsync_add_member(t, host->ref, d, role);
	req_commit(r, t, all_members(req_store(r), d));
}

void member_register(struct req *r)
{
	const struct store *s = req_store(r);
	struct value *error = newcomer_error(r, req_arg(r, 0));
	_cleanup_(value_unrefp) struct value *d = NULL;
	char made[REF_LEN + 1];
	const char *network = network_of_bridge(s, "xenbr0");
	size_t n = store_count(s, CLASS_member) + 1;
	const char *role = count_voters(s) < member_voters_wanted(r->pool, n) ?
		"voter" : "standby";
	const struct record *known;
	struct dbsync_refs refs;
	struct txn *t;

	if (error) {
		req_fail_value(r, error);
		return;
	}
	d = checked_description(req_arg(r, 0));
	t = req_txn(r);
	known = store_by_uuid(s, CLASS_host, value_get_str(d, "uuid"));
	if (known) {
		register_again(r, t, known, d, role);
		return;
	}
	if (!network) {
		add_network(t, made);
		network = made;
	}
	dbsync_add_host(r->pool, t, d, req_arg(r, 1), network, role, &refs);
	req_commit(r, t, all_members(s, d));
}
