/* Connections (PBD) between hosts and storage repositories. */
#include <string.h>

#include "pool/storage.h"

void pbd_add(struct txn *t, const char *host_ref, const char *sr_ref,
	     const struct value *device_config, bool plugged)
{
	struct draft d;

	draft_create(&d, t, CLASS_PBD, NULL);
	draft_str(&d, F_PBD_host, host_ref);
	draft_str(&d, F_PBD_SR, sr_ref);
	draft_copy(&d, F_PBD_device_config, device_config);
	draft_bool(&d, F_PBD_currently_attached, plugged);
	draft_write(&d);
}

static struct record *sr_of(const struct store *s, const struct record *pbd)
{
	return store_get_class(s, CLASS_SR, record_str(pbd, F_PBD_SR));
}

static struct value *create_error(const struct store *s,
				  const struct value *args)
{
	const char *host = value_get_str(args, "host");
	const char *sr_ref = value_get_str(args, "SR");
	const struct record *sr = store_get_class(s, CLASS_SR, sr_ref);

	if (!store_get_class(s, CLASS_host, host))
		return api_error("HANDLE_INVALID", "host", host, NULL);
	if (!sr)
		return api_error("HANDLE_INVALID", "SR", sr_ref, NULL);
	if (value_get(value_get(args, "device_config"), "SRmaster"))
		return api_error("VALUE_NOT_SUPPORTED", "device_config",
				 "SRmaster", "set by the pool", NULL);
	for (uint32_t i = 0; i < sr->fields[F_SR_PBDs]->n; i++) {
		const struct record *pbd = store_get_class(
			s, CLASS_PBD,
			value_str(sr->fields[F_SR_PBDs]->items[i]));

		if (pbd && value_is_str(pbd->fields[F_PBD_host], host))
			return api_error("PBD_EXISTS", sr_ref, host,
					 value_str(pbd->ref), NULL);
	}
	return NULL;
}

static bool is_never_ignored(unsigned field)
{
	return false;
}

static void pbd_create(struct req *r)
{
	const struct value *args = req_arg(r, 0);
	struct value *error = missing_member(class_of(CLASS_PBD), args), *ref;
	const struct record *sr;
	struct draft d;

	if (!error)
		error = create_error(req_store(r), args);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	draft_create(&d, req_txn(r), CLASS_PBD, NULL);
	draft_take_args(&d, args, is_never_ignored);
	draft_bool(&d, F_PBD_currently_attached, false);
	sr = sr_of(req_store(r), d.now);
	txn_guard_version(d.t, sr);
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, d.t, ref);
}

static void pbd_destroy(struct req *r)
{
	struct record *pbd = req_arg_record(r, 0, CLASS_PBD);
	struct txn *t;

	if (!pbd)
		return;
	if (record_bool(pbd, F_PBD_currently_attached)) {
		req_fail(r, "OPERATION_NOT_ALLOWED",
			 "PBD is currently attached", NULL);
		return;
	}
	t = req_txn(r);
	txn_guard_version(t, pbd);
	txn_destroy(t, value_str(pbd->ref));
	req_commit(r, t, NULL);
}

/* ---- plugging: rows only, for the driver needs no host's help ---- */

static struct value *plug_error(struct req *r, const struct record *pbd,
				const struct record *sr)
{
	const struct record *host = store_get_class(
		req_store(r), CLASS_host, record_str(pbd, F_PBD_host));
	const struct value *pbds = sr->fields[F_SR_PBDs];
	struct value *error;

	if (!host || !host_counts_live(r->pool, host))
		return api_error("HOST_OFFLINE", record_str(pbd, F_PBD_host),
				 NULL);
	error = sr_config_error(record_str(sr, F_SR_type),
				pbd->fields[F_PBD_device_config]);
	if (error)
		return error;
	for (uint32_t i = 0; i < pbds->n && !record_bool(sr, F_SR_shared);
	     i++) {
		const struct record *other = store_get_class(
			req_store(r), CLASS_PBD, value_str(pbds->items[i]));

		if (other && other != pbd &&
		    record_bool(other, F_PBD_currently_attached))
			return api_error("SR_NOT_SHARABLE", value_str(sr->ref),
					 record_str(other, F_PBD_host), NULL);
	}
	return NULL;
}

static void write_plugged(struct req *r, struct record *pbd, struct record *sr,
			  bool plugged)
{
	struct txn *t = req_txn(r);
	bool any = plugged;

	txn_guard_version(t, pbd);
	txn_guard_version(t, sr);
	txn_set(t, pbd->cls, value_str(pbd->ref), F_PBD_currently_attached,
		value_bool(plugged));
	/* The SR's version does not rise with that of its connections. */
	for (uint32_t i = 0; i < sr->fields[F_SR_PBDs]->n; i++) {
		const struct record *p = store_get_class(
			req_store(r), CLASS_PBD,
			value_str(sr->fields[F_SR_PBDs]->items[i]));

		if (p && p != pbd)
			txn_guard_version(t, p);
		any |= p && p != pbd &&
		       record_bool(p, F_PBD_currently_attached);
	}
	txn_set(t, sr->cls, value_str(sr->ref), F_SR_allowed_operations,
		sr_allowed_operations(sr, any));
	req_commit(r, t, NULL);
}

static void pbd_plug(struct req *r)
{
	struct record *pbd = req_arg_record(r, 0, CLASS_PBD);
	struct record *sr = pbd ? sr_of(req_store(r), pbd) : NULL;
	struct value *error;

	if (!pbd)
		return;
	if (record_bool(pbd, F_PBD_currently_attached)) {
		req_reply(r, NULL);
		return;
	}
	error = sr ? plug_error(r, pbd, sr) :
		     api_error("HANDLE_INVALID", "SR",
			       record_str(pbd, F_PBD_SR), NULL);
	if (error)
		req_fail_value(r, error);
	else
		write_plugged(r, pbd, sr, true);
}

static bool is_used_on(const struct store *s, const struct record *vdi,
		       const struct value *host_ref)
{
	const struct value *vbds = vdi->fields[F_VDI_VBDs];

	for (uint32_t i = 0; i < vbds->n; i++) {
		const struct record *vbd = store_get_class(
			s, CLASS_VBD, value_str(vbds->items[i]));
		const struct record *vm = vbd ? store_get_class(
			s, CLASS_VM, record_str(vbd, F_VBD_VM)) : NULL;

		if (vm && record_bool(vbd, F_VBD_currently_attached) &&
		    value_equal(vm->fields[F_VM_resident_on], host_ref))
			return true;
	}
	return false;
}

/* VDI_IN_USE with every disk that VMs of this host use, or NULL. */
static struct value *unplug_error(const struct store *s,
				  const struct record *pbd,
				  const struct record *sr)
{
	const struct value *vdis = sr->fields[F_SR_VDIs];
	struct value *error = value_set_new(1 + vdis->n);
	uint32_t n = 1;

	error->items[0] = value_stringz("VDI_IN_USE");
	for (uint32_t i = 0; i < vdis->n; i++) {
		const struct record *vdi = store_get_class(
			s, CLASS_VDI, value_str(vdis->items[i]));

		if (vdi && is_used_on(s, vdi, pbd->fields[F_PBD_host]))
			error->items[n++] = value_ref(vdi->ref);
	}
	error->n = n;
	if (n > 1)
		return error;
	value_unref(error);
	return NULL;
}

static void pbd_unplug(struct req *r)
{
	struct record *pbd = req_arg_record(r, 0, CLASS_PBD);
	struct record *sr = pbd ? sr_of(req_store(r), pbd) : NULL;
	struct value *error;

	if (!pbd)
		return;
	if (!sr || !record_bool(pbd, F_PBD_currently_attached)) {
		req_reply(r, NULL);
		return;
	}
	error = unplug_error(req_store(r), pbd, sr);
	if (error)
		req_fail_value(r, error);
	else
		write_plugged(r, pbd, sr, false);
}

static void pbd_set_device_config(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_PBD))
		req_fail(r, "PERMISSION_DENIED", "", NULL);
}

const struct handler_def pbd_handlers[] = {
	{ M_PBD_create, pbd_create },
	{ M_PBD_destroy, pbd_destroy },
	{ M_PBD_plug, pbd_plug },
	{ M_PBD_unplug, pbd_unplug },
	{ M_PBD_set_device_config, pbd_set_device_config },
	{ -1, NULL },
};
