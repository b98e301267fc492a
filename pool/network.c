/* Networks: rows, whose bridges hosts make when something is attached. */
#include <string.h>

#include "pool/storage.h"

#define BRIDGE_MAX 15 /* as long as the kernel lets an interface's name be */

static const struct record *with_bridge(const struct store *s, const char *name)
{
	for (struct record *n = store_first(s, CLASS_network); n;
	     n = store_next(s, n))
		if (value_is_str(n->fields[F_network_bridge], name))
			return n;
	return NULL;
}

static struct value *bridge_error(const struct store *s, const char *name)
{
	static const char *const ours[] = { "xen", "xapi", "vif", "tap", "eth" };
	bool bad = strlen(name) > BRIDGE_MAX || strpbrk(name, "/ \t\n");

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		bad |= !strncmp(name, ours[i], strlen(ours[i]));
	if (bad)
		return api_error("INVALID_VALUE", "bridge", name, NULL);
	if (with_bridge(s, name))
		return api_error("BRIDGE_NAME_EXISTS", name, NULL);
	return NULL;
}

static char *free_bridge(const struct store *s)
{
	char *name = NULL;

	for (unsigned i = 0; ; i++) {
		free(name);
		name = xasprintf("xapi%u", i);
		if (!with_bridge(s, name))
			return name;
	}
}

static bool is_ignored(unsigned field)
{
	return field == F_network_bridge;
}

static void network_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	const struct record *pool = store_first(req_store(r), CLASS_pool);
	struct value *error = missing_member(class_of(CLASS_network), args);
	const char *wanted = value_get_str(args, "bridge");
	_cleanup_(freep) char *bridge = NULL;
	struct value *ref;
	struct draft d;

	if (!error && *wanted)
		error = bridge_error(req_store(r), wanted);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	bridge = *wanted ? xstrdup(wanted) : free_bridge(req_store(r));
	draft_create(&d, req_txn(r), CLASS_network, NULL);
	draft_take_args(&d, args, is_ignored);
	draft_str(&d, F_network_bridge, bridge);
	if (record_int(d.now, F_network_MTU) <= 0)
		draft_int(&d, F_network_MTU, 1500);
	/* Two networks made at once must not get one bridge. */
	if (pool) {
		txn_guard_version(d.t, pool);
		txn_touch(d.t, value_str(pool->ref));
	}
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, d.t, ref);
}

static struct value *contains(const char *code, const struct value *refs,
			      uint32_t n)
{
	struct value *error = value_set_new(1 + n);

	error->items[0] = value_stringz(code);
	for (uint32_t i = 0; i < n; i++)
		error->items[1 + i] = value_ref(refs->items[i]);
	return error;
}

static struct value *attached_vifs(const struct store *s,
				   const struct record *network)
{
	const struct value *vifs = network->fields[F_network_VIFs];
	/* Of its own even when empty: the empty set is everybody's. */
	_cleanup_(value_unrefp) struct value *found = value_set_new(vifs->n + 1);
	uint32_t n = 0;

	for (uint32_t i = 0; i < vifs->n; i++) {
		const struct record *vif = store_get_class(
			s, CLASS_VIF, value_str(vifs->items[i]));

		if (vif && (record_bool(vif, F_VIF_currently_attached) ||
			    record_bool(vif, F_VIF_reserved)))
			found->items[n++] = value_ref(vif->ref);
	}
	found->n = n;
	return n ? contains("NETWORK_CONTAINS_VIF", found, n) : NULL;
}

static void drop_vifs(const struct store *s, struct txn *t,
		      const struct record *network)
{
	const struct value *vifs = network->fields[F_network_VIFs];

	for (uint32_t i = 0; i < vifs->n; i++) {
		const struct record *vif = store_get_class(
			s, CLASS_VIF, value_str(vifs->items[i]));

		if (!vif)
			continue;
		txn_guard_version(t, vif);
		row_destroy(s, t, record_str(vif, F_VIF_metrics));
		txn_destroy(t, value_str(vif->ref));
	}
}

static void network_destroy(struct req *r)
{
	struct record *network = req_arg_record(r, 0, CLASS_network);
	const struct value *pifs;
	struct value *error;
	struct txn *t;

	if (!network)
		return;
	pifs = network->fields[F_network_PIFs];
	error = attached_vifs(req_store(r), network);
	if (!error && pifs->n)
		error = contains("NETWORK_CONTAINS_PIF", pifs, pifs->n);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	t = req_txn(r);
	txn_guard_version(t, network);
	drop_vifs(req_store(r), t, network);
	txn_destroy(t, value_str(network->ref));
	req_commit(r, t, NULL);
}

const struct handler_def network_handlers[] = {
	{ M_network_create, network_create },
	{ M_network_destroy, network_destroy },
	{ -1, NULL },
};
