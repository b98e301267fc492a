/* Storage repositories (SR). */
#include <ctype.h>
#include <string.h>

#include "pool/storage.h"

struct value *error_of_sr(const char *code, const char *sr_ref)
{
	return api_error(code, sr_ref, NULL);
}

static const struct record *pbd_at(const struct store *s,
				   const struct record *sr, uint32_t i)
{
	return store_get_class(s, CLASS_PBD,
			       value_str(sr->fields[F_SR_PBDs]->items[i]));
}

bool sr_has_plugged_pbd(const struct store *s, const struct record *sr)
{
	for (uint32_t i = 0; i < sr->fields[F_SR_PBDs]->n; i++) {
		const struct record *pbd = pbd_at(s, sr, i);

		if (pbd && record_bool(pbd, F_PBD_currently_attached))
			return true;
	}
	return false;
}

/* ---- the drivers ---- */

struct driver {
	const char *type, *label, *description;
	const char *uuid; /* of its row: two masters cannot make it twice */
	const char *needs; /* in device_config: a folder's path; may be NULL */
	const char *features[12];
};

static const struct driver drivers[] = {
	{ SR_DRIVER, "Dummy", "Disks without contents",
	  "b9550d88-1831-4ccd-b649-25a87d1ac25b", NULL,
	  { "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_CLONE",
	    "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_RESIZE_ONLINE", "VDI_UPDATE",
	    "SR_UPDATE", NULL } },
	{ SR_FILES, "Files", "Disk images that are in a folder already",
	  "0ded0b4c-2245-4d7a-99eb-2e38d909433f", "location",
	  { "VDI_INTRODUCE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE",
	    "SR_UPDATE", NULL } },
};

static const struct driver *driver_of(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (!strcmp(drivers[i].type, type))
			return &drivers[i];
	return NULL;
}

bool sr_has_driver(const struct record *sr)
{
	return driver_of(record_str(sr, F_SR_type));
}

bool sr_can(const struct record *sr, const char *feature)
{
	const struct driver *d = driver_of(record_str(sr, F_SR_type));

	for (size_t i = 0; d && d->features[i]; i++)
		if (!strcmp(d->features[i], feature))
			return true;
	return false;
}

struct value *sr_config_error(const char *type,
			      const struct value *device_config)
{
	const struct driver *d = driver_of(type);
	const char *path;

	if (!d)
		return error_of_sr("SR_UNKNOWN_DRIVER", type);
	path = d->needs ? value_get_str(device_config, d->needs) : "/dev";
	return path_is_plain(path, 512) ? NULL :
	       api_error("INVALID_VALUE", "device_config:location", path, NULL);
}

static void add_driver(struct txn *t, const struct driver *driver)
{
	struct value *names = value_set_new(ARRAY_LEN(driver->features));
	struct draft d;

	draft_create(&d, t, CLASS_SM, driver->uuid);
	draft_str(&d, F_SM_type, driver->type);
	draft_str(&d, F_SM_name_label, driver->label);
	draft_str(&d, F_SM_name_description, driver->description);
	draft_str(&d, F_SM_vendor, "xenpool");
	draft_str(&d, F_SM_copyright, "Apache-2.0");
	draft_str(&d, F_SM_version, "1.0");
	draft_str(&d, F_SM_required_api_version, "1.0");
	if (driver->needs)
		draft_map_put(&d, F_SM_configuration, driver->needs,
			      value_stringz("the folder's absolute path"));
	for (names->n = 0; driver->features[names->n]; names->n++) {
		const char *f = driver->features[names->n];

		names->items[names->n] = value_stringz(f);
		draft_map_put(&d, F_SM_features, f, value_int(1));
	}
	draft_set(&d, F_SM_capabilities, names);
	draft_write(&d);
}

static bool has_row(const struct store *s, const struct driver *driver)
{
	for (struct record *sm = store_first(s, CLASS_SM); sm;
	     sm = store_next(s, sm))
		if (value_is_str(sm->fields[F_SM_type], driver->type))
			return true;
	return false;
}

void sm_add_drivers(const struct store *s, struct txn *t)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (!has_row(s, &drivers[i]))
			add_driver(t, &drivers[i]);
}

void sm_keep_drivers(struct pool *p)
{
	struct txn *t = txn_new("leader");

	sm_add_drivers(p->hooks.store(p->hooks.data), t);
	if (txn_is_empty(t))
		txn_free(t);
	else
		pool_submit(p, t, NULL, NULL);
}

static void sr_get_supported_types(struct req *r)
{
	struct value *set = value_set_new(ARRAY_LEN(drivers));

	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		set->items[i] = value_stringz(drivers[i].type);
	req_reply(r, set);
}

/* ---- allowed operations, sizes ---- */

struct value *sr_allowed_operations(const struct record *sr, bool plugged)
{
	static const char *const always[] = { "scan", "plug", "unplug",
					      "pbd_create", "pbd_destroy" };
	static const struct {
		const char *op, *feature;
	} by_driver[] = {
		{ "update", "SR_UPDATE" }, { "vdi_create", "VDI_CREATE" },
		{ "vdi_introduce", "VDI_INTRODUCE" },
		{ "vdi_destroy", "VDI_DELETE" }, { "vdi_resize", "VDI_RESIZE" },
		{ "vdi_clone", "VDI_CLONE" },
		{ "vdi_snapshot", "VDI_SNAPSHOT" },
	};
	static const char *const unplugged[] = { "destroy", "forget" };
	struct value *set = value_set_new(16);
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(always); i++)
		set->items[n++] = value_stringz(always[i]);
	for (size_t i = 0; i < ARRAY_LEN(by_driver); i++)
		if (sr_can(sr, by_driver[i].feature))
			set->items[n++] = value_stringz(by_driver[i].op);
	for (size_t i = 0; !plugged && i < ARRAY_LEN(unplugged); i++)
		set->items[n++] = value_stringz(unplugged[i]);
	set->n = n;
	return set;
}

static int64_t allocated(const struct store *s, const struct record *sr)
{
	const struct value *vdis = sr->fields[F_SR_VDIs];
	int64_t sum = 0;

	for (uint32_t i = 0; i < vdis->n; i++) {
		const struct record *vdi = store_get_class(
			s, CLASS_VDI, value_str(vdis->items[i]));

		if (vdi)
			sum += record_int(vdi, F_VDI_virtual_size);
	}
	return sum;
}

void sr_grow(struct txn *t, const struct store *s, const struct record *sr,
	     int64_t bytes)
{
	txn_guard_version(t, sr);
	txn_set(t, sr->cls, value_str(sr->ref), F_SR_virtual_allocation,
		value_int(allocated(s, sr) + bytes));
}

/* ---- coming ---- */

struct value *missing_member(const struct class_def *c,
			     const struct value *args)
{
	_cleanup_(freep) char *text = NULL;

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct field_def *f = &c->fields[i];

		if (f->qualifier == FIELD_RUNTIME ||
		    f->flags & (FIELD_INTERNAL | FIELD_DEFAULT) ||
		    f->relation == RELATION_MANY || value_get(args, f->name))
			continue;
		text = xasprintf("Dispatcher_FieldNotFound(\"%s\")", f->name);
		return api_error("INTERNAL_ERROR", text, NULL);
	}
	return NULL;
}

static char *lower(const char *s)
{
	char *copy = xstrdup(s);

	for (char *c = copy; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return copy;
}

/* Both calls give these one after the other, from argument `at` on. */
static void take_names(struct req *r, struct draft *d, unsigned at)
{
	static const unsigned fields[] = {
		F_SR_name_label, F_SR_name_description, F_SR_type,
		F_SR_content_type, F_SR_shared, F_SR_sm_config,
	};
	_cleanup_(freep) char *type = NULL;

	for (unsigned i = 0; i < ARRAY_LEN(fields); i++)
		draft_copy(d, fields[i], req_arg(r, at + i));
	type = lower(record_str(d->now, F_SR_type));
	draft_str(d, F_SR_type, type);
}

static void add_pbds(struct req *r, struct txn *t, const char *sr_ref,
		     const struct record *host)
{
	struct record *h = store_first(req_store(r), CLASS_host);
	bool shared = req_arg_bool(r, 7);

	for (; h; h = store_next(req_store(r), h))
		if (shared || h == host)
			pbd_add(t, value_str(h->ref), sr_ref, req_arg(r, 1),
				true);
}

static void sr_create(struct req *r)
{
	bool shared = req_arg_bool(r, 7);
	_cleanup_(freep) char *type = lower(req_arg_str(r, 5));
	struct value *error = sr_config_error(type, req_arg(r, 1)), *ref;
	const struct record *host = NULL;
	struct draft d;

	if (error) {
		req_fail_value(r, error);
		return;
	}
	if (!shared && !(host = req_arg_record(r, 0, CLASS_host)))
		return;
	draft_create(&d, req_txn(r), CLASS_SR, NULL);
	take_names(r, &d, 3);
	draft_int(&d, F_SR_physical_size, req_arg_int(r, 2) > 0 ?
		  req_arg_int(r, 2) : strcmp(type, SR_DRIVER) ? -1 :
		  SR_DRIVER_SIZE);
	ref = value_ref(d.now->ref);
	add_pbds(r, d.t, value_str(ref), host);
	draft_set(&d, F_SR_allowed_operations,
		  sr_allowed_operations(d.now, true));
	draft_write(&d);
	req_commit(r, d.t, ref);
}

static void sr_introduce(struct req *r)
{
	const char *uuid = req_arg_str(r, 0);
	struct value *ref;
	struct draft d;

	if (*uuid && store_by_uuid(req_store(r), CLASS_SR, uuid)) {
		req_fail(r, "SR_UUID_EXISTS", uuid, NULL);
		return;
	}
	if (*uuid && !uuid_valid(uuid, strlen(uuid))) {
		req_fail(r, "UUID_INVALID", "SR", uuid, NULL);
		return;
	}
	draft_create(&d, req_txn(r), CLASS_SR, *uuid ? uuid : NULL);
	take_names(r, &d, 1);
	draft_set(&d, F_SR_allowed_operations,
		  sr_allowed_operations(d.now, false));
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, d.t, ref);
}

/* ---- going ---- */

static struct value *destroy_error(const struct store *s,
				   const struct record *sr)
{
	const struct value *vdis = sr->fields[F_SR_VDIs];

	if (!strcmp(value_get_str(sr->fields[F_SR_other_config],
				  "indestructible"), "true"))
		return error_of_sr("SR_INDESTRUCTIBLE", value_str(sr->ref));
	if (!sr_has_driver(sr))
		return error_of_sr("SR_UNKNOWN_DRIVER",
				   record_str(sr, F_SR_type));
	if (sr->fields[F_SR_PBDs]->n == 0)
		return error_of_sr("SR_HAS_NO_PBDS", value_str(sr->ref));
	for (uint32_t i = 0; i < vdis->n; i++) {
		const struct record *vdi = store_get_class(
			s, CLASS_VDI, value_str(vdis->items[i]));

		if (vdi && record_bool(vdi, F_VDI_managed) &&
		    !value_is_str(vdi->fields[F_VDI_type], "rrd"))
			return api_error("SR_NOT_EMPTY", NULL);
	}
	return NULL;
}

static void clear_pool_field(struct txn *t, const struct record *pool,
			     unsigned field, const struct value *ref)
{
	if (pool && value_equal(pool->fields[field], ref))
		txn_set(t, pool->cls, value_str(pool->ref), field,
			value_null_ref());
}

static void drop(struct req *r, struct record *sr)
{
	const struct record *pool = store_first(req_store(r), CLASS_pool);
	const struct value *vdis = sr->fields[F_SR_VDIs];
	const struct store *s = req_store(r);
	struct txn *t = req_txn(r);

	txn_guard_version(t, sr);
	for (uint32_t i = 0; i < vdis->n; i++) {
		const struct record *vdi = store_get_class(
			s, CLASS_VDI, value_str(vdis->items[i]));

		if (vdi)
			vdi_drop(s, t, vdi);
	}
	for (uint32_t i = 0; i < sr->fields[F_SR_PBDs]->n; i++)
		row_destroy(s, t, value_str(sr->fields[F_SR_PBDs]->items[i]));
	clear_pool_field(t, pool, F_pool_default_SR, sr->ref);
	clear_pool_field(t, pool, F_pool_suspend_image_SR, sr->ref);
	clear_pool_field(t, pool, F_pool_crash_dump_SR, sr->ref);
	txn_destroy(t, value_str(sr->ref));
	req_commit(r, t, NULL);
}

static void sr_destroy(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);
	struct value *error = NULL;

	if (!sr)
		return;
	error = sr_has_plugged_pbd(req_store(r), sr) ?
		error_of_sr("SR_HAS_PBD", value_str(sr->ref)) :
		destroy_error(req_store(r), sr);
	if (error)
		req_fail_value(r, error);
	else
		drop(r, sr);
}

static void sr_forget(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);

	if (!sr)
		return;
	if (sr_has_plugged_pbd(req_store(r), sr))
		req_fail(r, "SR_HAS_PBD", value_str(sr->ref), NULL);
	else
		drop(r, sr);
}

/* ---- changing ---- */

/* The SR, if it has the driver and a host that reaches it. */
static struct record *plugged_sr(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);

	if (!sr)
		return NULL;
	if (!sr_has_plugged_pbd(req_store(r), sr)) {
		req_fail(r, "SR_HAS_NO_PBDS", value_str(sr->ref), NULL);
		return NULL;
	}
	if (sr_has_driver(sr))
		return sr;
	req_fail(r, "SR_UNKNOWN_DRIVER", record_str(sr, F_SR_type), NULL);
	return NULL;
}

/* There is nothing outside that could have changed; what is counted here is
 * counted again. */
static void sr_scan(struct req *r)
{
	struct record *sr = plugged_sr(r);
	struct txn *t;
	struct draft d;

	if (!sr)
		return;
	t = req_txn(r);
	draft_edit(&d, t, sr);
	draft_int(&d, F_SR_virtual_allocation, allocated(req_store(r), sr));
	draft_map_remove(&d, F_SR_other_config, "dirty");
	draft_set(&d, F_SR_allowed_operations,
		  sr_allowed_operations(sr, true));
	draft_write(&d);
	req_commit(r, t, NULL);
}

static void set_text(struct req *r, unsigned field)
{
	struct record *sr = plugged_sr(r);
	struct txn *t;

	if (!sr)
		return;
	t = req_txn(r);
	txn_set(t, sr->cls, value_str(sr->ref), field, value_ref(req_arg(r, 1)));
	req_commit(r, t, NULL);
}

static void sr_set_name_label(struct req *r)
{
	set_text(r, F_SR_name_label);
}

static void sr_set_name_description(struct req *r)
{
	set_text(r, F_SR_name_description);
}

static void sr_set_shared(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);
	const struct value *pbds = sr ? sr->fields[F_SR_PBDs] : NULL;
	struct value *error;
	struct txn *t;

	if (!sr)
		return;
	if (!req_arg_bool(r, 1) && pbds->n > 1) {
		error = value_set_new(1 + pbds->n);
		error->items[0] = value_stringz("SR_HAS_MULTIPLE_PBDS");
		for (uint32_t i = 0; i < pbds->n; i++)
			error->items[1 + i] = value_ref(pbds->items[i]);
		req_fail_value(r, error);
		return;
	}
	t = req_txn(r);
	txn_guard_version(t, sr);
	txn_set(t, sr->cls, value_str(sr->ref), F_SR_shared,
		value_ref(req_arg(r, 1)));
	req_commit(r, t, NULL);
}

/* ---- reading ---- */

static void sr_get_live_hosts(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);
	struct value *set;
	uint32_t n = 0;

	if (!sr)
		return;
	/* Of its own even when empty: the empty set is everybody's. */
	set = value_set_new(sr->fields[F_SR_PBDs]->n + 1);
	for (uint32_t i = 0; i + 1 < set->n; i++) {
		const struct record *pbd = pbd_at(req_store(r), sr, i);
		const struct record *host = pbd ? store_get_class(
			req_store(r), CLASS_host,
			record_str(pbd, F_PBD_host)) : NULL;

		if (host && record_bool(pbd, F_PBD_currently_attached) &&
		    host_counts_live(r->pool, host))
			set->items[n++] = value_ref(host->ref);
	}
	set->n = n;
	req_reply(r, set);
}

static void sr_get_data_sources(struct req *r)
{
	if (req_arg_record(r, 0, CLASS_SR))
		req_reply(r, value_set_empty());
}

static void sr_not_supported(struct req *r)
{
	struct record *sr = req_arg_record(r, 0, CLASS_SR);

	if (sr)
		req_fail(r, "SR_OPERATION_NOT_SUPPORTED", value_str(sr->ref),
			 NULL);
}

static void sr_probe(struct req *r)
{
	_cleanup_(freep) char *type = lower(req_arg_str(r, 2));

	if (!driver_of(type))
		req_fail(r, "SR_UNKNOWN_DRIVER", type, NULL);
	else
		req_fail(r, "SR_OPERATION_NOT_SUPPORTED", REF_NULL, NULL);
}

static void sr_make(struct req *r)
{
	req_fail(r, "MESSAGE_DEPRECATED", NULL);
}

const struct handler_def sr_handlers[] = {
	{ M_SR_get_supported_types, sr_get_supported_types },
	{ M_SR_create, sr_create },
	{ M_SR_introduce, sr_introduce },
	{ M_SR_destroy, sr_destroy },
	{ M_SR_forget, sr_forget },
	{ M_SR_scan, sr_scan },
	{ M_SR_update, sr_scan },
	{ M_SR_set_name_label, sr_set_name_label },
	{ M_SR_set_name_description, sr_set_name_description },
	{ M_SR_set_shared, sr_set_shared },
	{ M_SR_get_live_hosts, sr_get_live_hosts },
	{ M_SR_get_data_sources, sr_get_data_sources },
	{ M_SR_assert_can_host_ha_statefile, sr_not_supported },
	{ M_SR_assert_supports_database_replication, sr_not_supported },
	{ M_SR_enable_database_replication, sr_not_supported },
	{ M_SR_probe, sr_probe },
	{ M_SR_probe_ext, sr_probe },
	{ M_SR_make, sr_make },
	{ -1, NULL },
};
