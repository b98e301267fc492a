/* The generated methods: about a dozen verbs over the schema's tables and the
 * store. A handler in a table wins over these (see req.c). */
#include <string.h>

#include "pool/core.h"

static const struct class_def *class_of_req(const struct req *r)
{
	return &schema_classes[r->method->cls];
}

static struct record *self(struct req *r)
{
	return req_arg_record(r, 0, r->method->cls);
}

/* ---- reading ---- */

static void generic_get(struct req *r)
{
	struct record *row = self(r);

	if (row)
		req_reply(r, value_ref(row->fields[r->method->field]));
}

static void generic_get_record(struct req *r)
{
	struct record *row = self(r);

	if (row)
		req_reply(r, value_record(row));
}

static void generic_get_by_uuid(struct req *r)
{
	const char *uuid = req_arg_str(r, 0);
	struct record *row = row_by_uuid(req_store(r), r->method->cls, uuid);

	if (row)
		req_reply(r, value_ref(row->ref));
	else
		req_fail(r, "UUID_INVALID", class_of_req(r)->name, uuid, NULL);
}

static void generic_get_by_name_label(struct req *r)
{
	req_reply(r, row_by_name(req_store(r), r->method->cls,
				 req_arg_str(r, 0)));
}

/* Calls with an expression fail when it is malformed; *ret NULL: all rows. */
static bool filter_of(struct req *r, struct where **ret)
{
	const struct value *expr;
	char reason[128];

	*ret = NULL;
	if (r->call->n_args == 0)
		return true;
	expr = req_arg(r, 0);
	*ret = where_parse(class_of_req(r), expr->s, expr->n, reason,
			   sizeof reason);
	if (!*ret)
		req_fail(r, "INVALID_VALUE", value_str(expr), reason, NULL);
	return *ret != NULL;
}

static void generic_get_all(struct req *r)
{
	_cleanup_(where_freep) struct where *w = NULL;
	struct rows it = rows_of(req_store(r), r->method->cls);
	size_t n = 0, most = rows_count(req_store(r), r->method->cls);
	_cleanup_(freep) struct value **refs = NULL;
	struct value *set;
	struct record *row;

	if (!filter_of(r, &w))
		return;
	refs = xcalloc(most + 1, sizeof *refs);
	while ((row = rows_next(&it)))
		if (!w || where_match(w, row))
			refs[n++] = row->ref;
	set = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		set->items[i] = value_ref(refs[i]);
	req_reply(r, set);
}

static void generic_get_all_records(struct req *r)
{
	_cleanup_(where_freep) struct where *w = NULL;
	struct rows it = rows_of(req_store(r), r->method->cls);
	size_t n = 0, most = rows_count(req_store(r), r->method->cls);
	_cleanup_(freep) struct value **pairs = NULL;
	struct record *row;

	if (!filter_of(r, &w))
		return;
	pairs = xcalloc(2 * most + 1, sizeof *pairs);
	while ((row = rows_next(&it))) {
		if (w && !where_match(w, row))
			continue;
		pairs[2 * n] = value_ref(row->ref);
		pairs[2 * n + 1] = value_record(row);
		n++;
	}
	req_reply(r, value_map_from(pairs, n));
}

/* ---- what may be written ---- */

static bool has_empty_key(const struct value *v)
{
	return v->kind == VALUE_MAP && v->n > 0 && v->items[0]->n == 0;
}

/* Some keys of pool.other_config are settings of the pool itself. */
static struct value *setting_error(const struct field_def *f, const char *key,
				   const struct value *v)
{
	const struct class_def *c = &schema_classes[CLASS_pool];

	return f == &c->fields[F_pool_other_config] ?
		       member_setting_error(key, v) : NULL;
}

static struct value *settings_error(const struct field_def *f,
				    const struct value *map)
{
	struct value *error = NULL;

	for (uint32_t i = 0; map->kind == VALUE_MAP && i < map->n && !error; i++)
		error = setting_error(f, value_str(map->items[2 * i]),
				      map->items[2 * i + 1]);
	return error;
}

/* The error of a value that the field must not get, else NULL. A relation's
 * reference has to point to something, or the object would be in no set. */
static struct value *field_error(const struct req *r, const struct field_def *f,
				 const struct value *v)
{
	if (has_empty_key(v))
		return error_internal("Empty_key_in_map: %s", f->name);
	if (f->relation == RELATION_ONE && !value_is_null_ref(v) &&
	    !row_get(req_store(r), f->other_class, value_str(v)))
		return error_handle_invalid(f->other_class, value_str(v));
	return settings_error(f, v);
}

/* Adds the setting of a field to t; the error of a value that it must not get.
 * What the check relied on is guarded. */
static struct value *put_field(const struct req *r, struct txn *t,
			       const char *ref, unsigned field,
			       struct value *v)
{
	const struct class_def *c = class_of_req(r);
	const struct field_def *f = &c->fields[field];
	struct value *error = field_error(r, f, v);

	if (error)
		return error;
	txn_set(t, c, ref, field, value_ref(v));
	if (f->relation == RELATION_ONE && !value_is_null_ref(v))
		txn_guard_exists(t, &schema_classes[f->other_class],
				 value_str(v));
	return NULL;
}

static void commit_field(struct req *r, struct txn *t)
{
	req_commit(r, t, NULL);
}

static void generic_set(struct req *r)
{
	unsigned field = (unsigned)r->method->field;
	struct record *row = self(r);
	struct value *error;
	struct txn *t;

	if (!row || !req_may_set_map(r, row, field, req_arg(r, 1)))
		return;
	t = req_txn(r);
	if (row->cls->fields[field].n_map_keys > 0)
		txn_guard_version(t, row);
	error = put_field(r, t, value_str(row->ref), field, req_arg(r, 1));
	if (error) {
		txn_free(t);
		req_fail_value(r, error);
		return;
	}
	commit_field(r, t);
}

static void generic_add(struct req *r)
{
	struct record *row = self(r);
	struct txn *t;

	if (!row)
		return;
	t = req_txn(r);
	txn_set_add(t, row->cls, value_str(row->ref),
		    (unsigned)r->method->field, value_ref(req_arg(r, 1)));
	commit_field(r, t);
}

static void generic_remove(struct req *r)
{
	struct record *row = self(r);
	struct txn *t;

	if (!row)
		return;
	t = req_txn(r);
	txn_set_remove(t, row->cls, value_str(row->ref),
		       (unsigned)r->method->field, value_ref(req_arg(r, 1)));
	commit_field(r, t);
}

/* The text of a key: maps may have ints or refs for keys on the wire. */
static const char *key_arg(const struct req *r, struct buf *b)
{
	value_to_text(b, req_arg(r, 1));
	return buf_cstr(b);
}

static void generic_add_to(struct req *r)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	const struct field_def *f;
	struct record *row = self(r);
	struct value *error;
	const char *key;
	struct txn *t;

	if (!row)
		return;
	f = &row->cls->fields[r->method->field];
	key = key_arg(r, &b);
	if (!*key) {
		req_fail_value(r, error_internal("Empty_key_in_map: %s",
						 f->name));
		return;
	}
	if (value_get(row->fields[r->method->field], key)) {
		req_fail(r, "MAP_DUPLICATE_KEY", row->cls->name, f->db_name,
			 value_str(row->ref), key, NULL);
		return;
	}
	error = setting_error(f, key, req_arg(r, 2));
	if (error) {
		req_fail_value(r, error);
		return;
	}
	t = req_txn(r);
	txn_map_add(t, row->cls, value_str(row->ref),
		    (unsigned)r->method->field, key, value_ref(req_arg(r, 2)));
	commit_field(r, t);
}

static void generic_remove_from(struct req *r)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct record *row = self(r);
	struct txn *t;

	if (!row)
		return;
	t = req_txn(r);
	txn_map_remove(t, row->cls, value_str(row->ref),
		       (unsigned)r->method->field, key_arg(r, &b));
	commit_field(r, t);
}

/* ---- create and destroy ---- */

static bool is_argument(const struct field_def *f)
{
	return f->qualifier != FIELD_RUNTIME && !(f->flags & FIELD_INTERNAL) &&
	       f->relation != RELATION_MANY;
}

/* Sets what the struct gives; the error of a field that is missing or wrong. */
static struct value *set_arguments(const struct req *r, struct txn *t,
				   const char *ref, const struct value *args)
{
	const struct class_def *c = class_of_req(r);
	struct value *error = NULL;

	for (unsigned i = 0; i < c->n_fields && !error; i++) {
		const struct field_def *f = &c->fields[i];
		struct value *v;

		if (!is_argument(f))
			continue;
		v = value_get(args, f->name);
		if (!v) {
			if (!(f->flags & FIELD_DEFAULT))
				error = error_internal(
					"Dispatcher_FieldNotFound(\"%s\")",
					f->name);
			continue;
		}
		error = put_field(r, t, ref, i, v);
	}
	return error;
}

static void generic_create(struct req *r)
{
	struct txn *t = req_txn(r);
	char ref[REF_LEN + 1];
	struct value *error;

	row_create(t, r->method->cls, NULL, ref);
	error = set_arguments(r, t, ref, req_arg(r, 0));
	if (error) {
		txn_free(t);
		req_fail_value(r, error);
		return;
	}
	req_commit(r, t, value_stringz(ref));
}

/* The API's own codes for objects that others still need. with_refs: the
 * parameters are those others, else the object itself, or none. */
static const struct in_use {
	int cls, field;
	const char *code;
	enum { NOTHING, ITSELF, OTHERS } params;
} in_use_codes[] = {
	{ CLASS_network, F_network_VIFs, "NETWORK_CONTAINS_VIF", OTHERS },
	{ CLASS_network, F_network_PIFs, "NETWORK_CONTAINS_PIF", OTHERS },
	{ CLASS_VDI, F_VDI_VBDs, "VDI_IN_USE", ITSELF },
	{ CLASS_VMPP, F_VMPP_VMs, "VMPP_HAS_VM", NOTHING },
	{ CLASS_VMSS, F_VMSS_VMs, "VMSS_HAS_VM", NOTHING },
};

static struct value *in_use_error(const struct record *row,
				  const struct in_use *u)
{
	const struct value *others = row->fields[u->field];
	struct value *error;

	if (u->params == NOTHING)
		return api_error(u->code, NULL);
	if (u->params == ITSELF)
		return api_error(u->code, value_str(row->ref), "destroy", NULL);
	error = value_set_new(1 + others->n);
	error->items[0] = value_stringz(u->code);
	for (unsigned i = 0; i < others->n; i++)
		error->items[1 + i] = value_ref(others->items[i]);
	return error;
}

/* An object that others refer to by a relation cannot go; NULL if it can. */
static struct value *referenced_error(const struct store *s,
				      const struct record *row)
{
	const struct class_def *c = row->cls;

	if (!store_is_referenced(s, value_str(row->ref)))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(in_use_codes); i++)
		if (in_use_codes[i].cls == c->id &&
		    row->fields[in_use_codes[i].field]->n > 0)
			return in_use_error(row, &in_use_codes[i]);
	for (unsigned f = 0; f < c->n_fields; f++)
		if (c->fields[f].relation == RELATION_MANY &&
		    row->fields[f]->n > 0)
			return error_internal(
				"%s %s cannot be destroyed: %s has %u entries",
				c->name, value_str(row->ref), c->fields[f].name,
				(unsigned)row->fields[f]->n);
	return error_internal("%s %s cannot be destroyed: other objects refer "
			      "to it", c->name, value_str(row->ref));
}

static void generic_destroy(struct req *r)
{
	struct record *row = self(r);
	struct value *error;
	struct txn *t;

	if (!row)
		return;
	error = referenced_error(req_store(r), row);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	/* Whoever begins to refer to it touches its derived sets. */
	t = req_txn(r);
	txn_guard_version(t, row);
	txn_destroy(t, value_str(row->ref));
	req_commit(r, t, NULL);
}

const req_handler generic_handlers[METHOD_KIND_MAX] = {
	[METHOD_GET] = generic_get,
	[METHOD_SET] = generic_set,
	[METHOD_ADD] = generic_add,
	[METHOD_REMOVE] = generic_remove,
	[METHOD_ADD_TO] = generic_add_to,
	[METHOD_REMOVE_FROM] = generic_remove_from,
	[METHOD_GET_RECORD] = generic_get_record,
	[METHOD_GET_BY_UUID] = generic_get_by_uuid,
	[METHOD_GET_BY_NAME_LABEL] = generic_get_by_name_label,
	[METHOD_GET_ALL] = generic_get_all,
	[METHOD_GET_ALL_WHERE] = generic_get_all,
	[METHOD_GET_ALL_RECORDS] = generic_get_all_records,
	[METHOD_GET_ALL_RECORDS_WHERE] = generic_get_all_records,
	[METHOD_CREATE] = generic_create,
	[METHOD_DESTROY] = generic_destroy,
};
