/* Rows of any class: the store's, or role's, which are the same for ever and in
 * no store. And the creation of rows. */
#include <string.h>

#include "pool/core.h"

struct rows rows_of(const struct store *s, int cls)
{
	return (struct rows){ .store = s, .cls = cls };
}

struct record *rows_next(struct rows *it)
{
	if (it->cls == CLASS_role)
		return it->i < role_count() ? role_at(it->i++) : NULL;
	it->r = it->i++ == 0 ? store_first(it->store, it->cls) :
	        it->r ? store_next(it->store, it->r) : NULL;
	return it->r;
}

size_t rows_count(const struct store *s, int cls)
{
	return cls == CLASS_role ? role_count() : store_count(s, cls);
}

struct record *row_get(const struct store *s, int cls, const char *ref)
{
	if (cls == CLASS_role)
		return role_by_ref(ref);
	return store_get_class(s, cls, ref);
}

struct record *row_by_uuid(const struct store *s, int cls, const char *uuid)
{
	if (cls == CLASS_role)
		return role_by_uuid(uuid);
	return store_by_uuid(s, cls, uuid);
}

struct value *row_by_name(const struct store *s, int cls, const char *name)
{
	struct record *r;
	struct value *ret;

	if (cls != CLASS_role)
		return store_by_name(s, cls, name);
	r = role_by_name(name);
	ret = value_set_new(r ? 1 : 0);
	if (r)
		ret->items[0] = value_ref(r->ref);
	return ret;
}

/* The type's empty value needs no operation: every version of the store starts
 * a row with it. Declared defaults are the author's to resolve. */
static bool default_is_empty(const struct field_def *f, const struct value *v)
{
	_cleanup_(value_unrefp) struct value *empty = NULL;

	if (!f->default_json)
		return true;
	empty = schema_empty(f->type);
	return value_equal(empty, v);
}

void row_create(struct txn *t, int cls, const char *uuid, char ret_ref[REF_LEN + 1])
{
	ref_new(ret_ref);
	row_create_as(t, cls, uuid, ret_ref);
}

void row_create_as(struct txn *t, int cls, const char *uuid, const char *ref)
{
	const struct class_def *c = &schema_classes[cls];
	char made[UUID_LEN + 1];

	if (!uuid) {
		uuid_new(made);
		uuid = made;
	}
	txn_create(t, c, ref);
	for (unsigned f = 0; f < c->n_fields; f++) {
		struct value *v;

		if ((int)f == c->f_uuid) {
			txn_set(t, c, ref, f, value_stringz(uuid));
			continue;
		}
		/* The store works these out from the other side. */
		if (c->fields[f].relation == RELATION_MANY)
			continue;
		v = schema_field_default(c, f);
		if (default_is_empty(&c->fields[f], v))
			value_unref(v);
		else
			txn_set(t, c, ref, f, v);
	}
}
