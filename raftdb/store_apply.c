/* Applying a transaction.
 *
 * 1. The guards are checked against the store as it is.
 * 2. The operations run, in order, on copies ("edits") that nobody else sees.
 *    The sets of many-to-many relations are kept in step at each operation, so
 *    a later one finds what an earlier one did to the other side.
 * 3. Uuids are checked: only now it is known which rows keep theirs.
 * 4. The derived sets are brought in step with the single references.
 * 5. What differs from before is published under one generation.
 * A failure in 1 to 3 drops the edits; the store has not been touched.
 *
 * What a transaction ends with counts: a field that was changed and changed
 * back, or an object created and destroyed again, is no change. Without any
 * change no generation is taken and no observer is called. A reference that the
 * transaction destroyed cannot be created again by it.
 */
#include <string.h>

#include "raftdb/store_impl.h"
#include "raftdb/txn_read.h"

#define REF_MAX 255

static struct edit *scratch_find(const struct scratch *sc, const char *ref,
				 size_t n)
{
	return map_get(&sc->by_ref, ref, n);
}

static struct edit *scratch_add(struct scratch *sc, struct value *ref)
{
	struct edit *e = xcalloc(1, sizeof(*e));

	if (sc->n_edits == sc->cap_edits) {
		sc->cap_edits = MAX(8, sc->cap_edits * 2);
		sc->edits = xrealloc(sc->edits,
				     sc->cap_edits * sizeof(*sc->edits));
	}
	e->ref = ref;
	sc->edits[sc->n_edits++] = e;
	map_put(&sc->by_ref, ref->s, ref->n, e);
	return e;
}

struct edit *scratch_get(struct scratch *sc, const char *ref, size_t n)
{
	struct edit *e = scratch_find(sc, ref, n);
	struct row *row;

	if (e)
		return e->after ? e : NULL;
	row = store_row(sc->store, ref, n);
	if (!row)
		return NULL;
	e = scratch_add(sc, value_ref(row->rec->ref));
	e->row = row;
	e->after = record_ref(row->rec);
	return e;
}

static struct record *edit_writable(struct edit *e)
{
	struct record *copy;

	if (!e->writable) {
		copy = record_copy(e->after);
		record_unref(e->after);
		e->after = copy;
		e->writable = true;
	}
	return e->after;
}

void edit_set(struct edit *e, unsigned field, struct value *v)
{
	record_set(edit_writable(e), field, v);
}

static void scratch_deinit(struct scratch *sc)
{
	for (size_t i = 0; i < sc->n_edits; i++) {
		value_unref(sc->edits[i]->ref);
		record_unref(sc->edits[i]->after);
		free(sc->edits[i]);
	}
	for (size_t i = 0; i < sc->n_dangling; i++)
		value_unref(sc->dangling[i].ref);
	free(sc->dangling);
	free(sc->edits);
	map_deinit(&sc->by_ref);
}

/* NULL when it is unknown here, or has no rows. */
static const struct class_def *stored_class(struct txn_text name)
{
	const struct class_def *c = schema_class(name.s, name.n);

	return c && class_is_stored(c) ? c : NULL;
}

/* Guards. */

static enum txn_status guard_exists(const struct txn_item *it,
				    const struct record *r)
{
	const struct class_def *c = it->cls.s ? stored_class(it->cls) : NULL;

	if (it->cls.s && !c)
		return TXN_INVALID;
	return r && (!c || r->cls == c) ? TXN_OK : TXN_CONFLICT;
}

static enum txn_status guard_absent(const struct txn_item *it,
				    const struct record *r)
{
	return r ? TXN_CONFLICT : TXN_OK;
}

static enum txn_status guard_version(const struct txn_item *it,
				     const struct record *r)
{
	return r && r->modified == it->version ? TXN_OK : TXN_CONFLICT;
}

static enum txn_status guard_field(const struct txn_item *it,
				   const struct record *r)
{
	const struct class_def *c = stored_class(it->cls);
	int field = c ? schema_field(c, it->field.s, it->field.n) : -1;

	if (field < 0)
		return TXN_INVALID;
	if (!r || r->cls != c)
		return TXN_CONFLICT;
	return value_equal(r->fields[field], it->value) ? TXN_OK : TXN_CONFLICT;
}

static enum txn_status (*const guard_fns[])(const struct txn_item *,
					    const struct record *) = {
	[GUARD_EXISTS] = guard_exists,
	[GUARD_ABSENT] = guard_absent,
	[GUARD_VERSION] = guard_version,
	[GUARD_FIELD] = guard_field,
};

static enum txn_status check_guards(const struct store *s, const struct txn *t,
				    uint32_t *ret_item)
{
	_cleanup_(txn_iter_deinit) struct txn_iter it;
	enum txn_status status;

	txn_iter_guards(&it, t);
	while (txn_iter_next(&it)) {
		const struct row *row = store_row(s, it.item.ref.s,
						  it.item.ref.n);

		status = guard_fns[it.item.kind](&it.item,
						 row ? row->rec : NULL);
		if (status != TXN_OK) {
			*ret_item = it.item.index;
			return status;
		}
	}
	return TXN_OK;
}

/* Operations on whole objects. */

static struct record *record_of_defaults(const struct table *t,
					 struct value *ref)
{
	struct record *r = record_new(t->cls, value_ref(ref));

	for (unsigned i = 0; i < t->cls->n_fields; i++)
		r->fields[i] = value_ref(t->defaults[i]);
	return r;
}

static enum txn_status op_create(struct scratch *sc, struct txn_item *it)
{
	const struct class_def *c = stored_class(it->cls);
	struct edit *e;

	if (!c || it->ref.n == 0 || it->ref.n > REF_MAX ||
	    str_equal_n("OpaqueRef:NULL", it->ref.s, it->ref.n))
		return TXN_INVALID;
	if (scratch_find(sc, it->ref.s, it->ref.n) ||
	    store_row(sc->store, it->ref.s, it->ref.n))
		return TXN_NOT_UNIQUE;
	e = scratch_add(sc, value_string(it->ref.s, it->ref.n));
	e->after = record_of_defaults(store_table(sc->store, c), e->ref);
	e->writable = true;
	e->item = it->index;
	relate_created(sc, e);
	return TXN_OK;
}

static enum txn_status op_destroy(struct scratch *sc, struct txn_item *it)
{
	struct edit *e = scratch_get(sc, it->ref.s, it->ref.n);

	if (!e)
		return TXN_NO_OBJECT;
	relate_destroyed(sc, e);
	record_unref(e->after);
	e->after = NULL;
	return TXN_OK;
}

static enum txn_status op_touch(struct scratch *sc, struct txn_item *it)
{
	struct edit *e = scratch_get(sc, it->ref.s, it->ref.n);

	if (!e)
		return TXN_NO_OBJECT;
	e->touched = sc->touched = true;
	return TXN_OK;
}

/* Operations on a field: each makes the new value from the old one. */

static enum txn_status value_of_set(const struct type *t,
				    const struct value *old,
				    const struct txn_item *it,
				    struct value **ret)
{
	if (!schema_fits(t, it->value))
		return TXN_INVALID;
	*ret = value_ref(it->value);
	return TXN_OK;
}

static bool pair_fits(const struct type *t, struct value *key,
		      struct value *item)
{
	struct value *pair[2] = { value_ref(key), value_ref(item) };
	_cleanup_(value_unrefp) struct value *map = value_map_from(pair, 1);

	return schema_fits(t, map);
}

static enum txn_status value_of_put(const struct type *t,
				    const struct value *old,
				    const struct txn_item *it,
				    struct value **ret)
{
	_cleanup_(value_unrefp) struct value *key = NULL;

	key = value_string(it->key.s, it->key.n);
	if (t->kind != TYPE_MAP || !pair_fits(t, key, it->value))
		return TXN_INVALID;
	*ret = value_map_with(old, key, it->value);
	return TXN_OK;
}

static enum txn_status value_of_add(const struct type *t,
				    const struct value *old,
				    const struct txn_item *it,
				    struct value **ret)
{
	if (t->kind == TYPE_MAP && value_get_n(old, it->key.s, it->key.n))
		return TXN_DUPLICATE_KEY;
	return value_of_put(t, old, it, ret);
}

static enum txn_status value_of_map_remove(const struct type *t,
					   const struct value *old,
					   const struct txn_item *it,
					   struct value **ret)
{
	if (t->kind != TYPE_MAP)
		return TXN_INVALID;
	*ret = value_map_without(old, it->key.s, it->key.n);
	return TXN_OK;
}

static enum txn_status value_of_set_add(const struct type *t,
					const struct value *old,
					const struct txn_item *it,
					struct value **ret)
{
	if (t->kind != TYPE_SET || !schema_fits(t->item, it->value))
		return TXN_INVALID;
	*ret = value_set_with(old, it->value);
	return TXN_OK;
}

static enum txn_status value_of_set_remove(const struct type *t,
					   const struct value *old,
					   const struct txn_item *it,
					   struct value **ret)
{
	if (t->kind != TYPE_SET || !schema_fits(t->item, it->value))
		return TXN_INVALID;
	*ret = value_set_without(old, it->value);
	return TXN_OK;
}

static enum txn_status (*const value_fns[])(const struct type *,
					    const struct value *,
					    const struct txn_item *,
					    struct value **) = {
	[OP_SET] = value_of_set,
	[OP_MAP_ADD] = value_of_add,
	[OP_MAP_PUT] = value_of_put,
	[OP_MAP_REMOVE] = value_of_map_remove,
	[OP_SET_ADD] = value_of_set_add,
	[OP_SET_REMOVE] = value_of_set_remove,
};

/* Takes v. */
static void write_field(struct scratch *sc, struct edit *e, unsigned field,
			uint32_t item, struct value *v)
{
	const struct class_def *c = e->after->cls;

	if (value_equal(e->after->fields[field], v)) {
		value_unref(v);
		return;
	}
	if (e->row && (int)field == c->f_uuid)
		e->item = item;
	if (field_is_both(c, field))
		relate_both(sc, e, field, v);
	else
		edit_set(e, field, v);
}

static enum txn_status op_field(struct scratch *sc, struct txn_item *it)
{
	const struct class_def *c = stored_class(it->cls);
	int field = c ? schema_field(c, it->field.s, it->field.n) : -1;
	enum txn_status status;
	struct value *v = NULL;
	struct edit *e;

	if (field < 0 || field_is_derived(&c->fields[field]))
		return TXN_INVALID;
	e = scratch_get(sc, it->ref.s, it->ref.n);
	if (!e || e->after->cls != c)
		return TXN_NO_OBJECT;
	status = value_fns[it->kind](c->fields[field].type,
				     e->after->fields[field], it, &v);
	if (status == TXN_OK)
		write_field(sc, e, (unsigned)field, it->index, v);
	return status;
}

static enum txn_status (*const op_fns[])(struct scratch *,
					 struct txn_item *) = {
	[OP_CREATE] = op_create,      [OP_DESTROY] = op_destroy,
	[OP_SET] = op_field,          [OP_MAP_ADD] = op_field,
	[OP_MAP_PUT] = op_field,      [OP_MAP_REMOVE] = op_field,
	[OP_SET_ADD] = op_field,      [OP_SET_REMOVE] = op_field,
	[OP_TOUCH] = op_touch,
};

static enum txn_status run_ops(struct scratch *sc, const struct txn *t,
			       uint32_t *ret_item)
{
	_cleanup_(txn_iter_deinit) struct txn_iter it;
	enum txn_status status;

	txn_iter_ops(&it, t);
	while (txn_iter_next(&it)) {
		status = op_fns[it.item.kind](sc, &it.item);
		if (status != TXN_OK) {
			*ret_item = it.item.index;
			return status;
		}
	}
	return TXN_OK;
}

/* Uuids. */

static const struct value *uuid_after(const struct edit *e)
{
	return e->after && e->after->cls->f_uuid >= 0 ?
		       e->after->fields[e->after->cls->f_uuid] :
		       NULL;
}

/* Does the row that has this uuid in the store keep it? */
static bool uuid_is_kept(const struct scratch *sc, const struct row *holder)
{
	const struct value *ref = holder->rec->ref;
	const struct edit *e = scratch_find(sc, ref->s, ref->n);
	const struct value *uuid = e ? uuid_after(e) : NULL;
	int field = holder->rec->cls->f_uuid;

	return !e || value_equal(uuid, holder->rec->fields[field]);
}

static enum txn_status check_uuid(struct scratch *sc, struct map *taken,
				  struct edit *e)
{
	const struct value *uuid = uuid_after(e);
	const struct row *holder;

	if (!uuid || !e->writable)
		return TXN_OK;
	if (uuid->n == 0 || uuid->n > REF_MAX)
		return TXN_INVALID;
	holder = map_get(&sc->store->uuids, uuid->s, uuid->n);
	if (holder && holder == e->row)
		return TXN_OK;
	if (holder && uuid_is_kept(sc, holder))
		return TXN_NOT_UNIQUE;
	return map_put(taken, uuid->s, uuid->n, e) ? TXN_NOT_UNIQUE : TXN_OK;
}

static enum txn_status check_uuids(struct scratch *sc, uint32_t *ret_item)
{
	_cleanup_(map_deinit) struct map taken = { 0 };
	enum txn_status status;

	for (size_t i = 0; i < sc->n_edits; i++) {
		status = check_uuid(sc, &taken, sc->edits[i]);
		if (status != TXN_OK) {
			*ret_item = sc->edits[i]->item;
			return status;
		}
	}
	return TXN_OK;
}

/* Publishing. */

static bool edit_changed(const struct edit *e)
{
	const struct record *before = edit_before(e);

	if (!before || !e->after)
		return before || e->after;
	if (e->touched)
		return true;
	for (unsigned i = 0; e->writable && i < before->cls->n_fields; i++) {
		if (!value_equal(before->fields[i], e->after->fields[i]))
			return true;
	}
	return false;
}

static struct change publish_edit(struct store *s, struct edit *e,
				  uint64_t generation)
{
	struct record *before = record_ref(edit_before(e));
	struct change c = { .cls = (before ? before : e->after)->cls,
			    .before = before };

	if (!e->after) {
		c.kind = CHANGE_DEL;
		store_remove(s, e->row);
		store_add_tombstone(s, c.cls->id, before->ref, before->created,
				    generation);
		return c;
	}
	edit_writable(e)->modified = generation;
	c.kind = before ? CHANGE_MOD : CHANGE_ADD;
	c.after = TAKE_PTR(e->after);
	if (before) {
		store_replace(s, e->row, c.after);
	} else {
		c.after->created = generation;
		store_insert(s, c.after);
	}
	return c;
}

static void publish(struct scratch *sc, const struct txn *t)
{
	struct store *s = sc->store;
	uint64_t generation = s->generation + (sc->touched ? 2 : 1);
	struct change *changes = xcalloc(sc->n_edits + 1, sizeof(*changes));
	size_t n = 0;

	for (size_t i = 0; i < sc->n_edits; i++) {
		if (edit_changed(sc->edits[i]))
			changes[n++] = publish_edit(s, sc->edits[i],
						    generation);
	}
	if (n > 0) {
		s->generation = generation;
		if (s->observer)
			s->observer(s->observer_data, t, generation, changes,
				    n);
	}
	for (size_t i = 0; i < n; i++)
		record_unref(changes[i].before);
	free(changes);
}

struct txn_result store_apply(struct store *s, const struct txn *t)
{
	_cleanup_(scratch_deinit) struct scratch sc = { .store = s };
	struct txn_result result = { 0 };

	if (store_txn_seen(s, t->id, &result))
		return result;
	result.status = check_guards(s, t, &result.item);
	if (result.status == TXN_OK)
		result.status = run_ops(&sc, t, &result.item);
	if (result.status == TXN_OK)
		result.status = check_uuids(&sc, &result.item);
	if (result.status == TXN_OK) {
		relate_derived(&sc);
		publish(&sc, t);
	}
	result.generation = s->generation;
	store_remember(s, t->id, result);
	return result;
}
