/* Frozen views of a store, and filling a store from one.
 *
 * Loading trusts nothing: a view may come from a file or from another member.
 * Every row must fit its class, refs and uuids must be unique, every derived
 * set must be what the references say, many-to-many sets must agree, and the
 * digest must come out.
 */
#include <string.h>

#include "raftdb/store_impl.h"

static void copy_rows(struct store_view *v, const struct store *s)
{
	v->rows = xcalloc(s->rows.count + 1, sizeof(*v->rows));
	for (unsigned i = 0; i < schema_n_classes; i++) {
		list_for_each(it, &s->tables[i].rows) {
			const struct row *row = list_entry(it, struct row,
							   in_class);

			v->rows[v->n_rows++] = record_ref(row->rec);
		}
	}
	xassert(v->n_rows == s->rows.count);
}

static void copy_tombstones(struct store_view *v, const struct store *s)
{
	v->tombs = xcalloc(s->n_tombstones + 1, sizeof(*v->tombs));
	list_for_each(it, &s->tombstones) {
		const struct tombstone *t = list_entry(it, struct tombstone,
						       in_all);
		size_t i = v->n_tombs++;

		v->tombs[i].ref = value_ref(t->ref);
		v->tombs[i].created = t->created;
		v->tombs[i].deleted = t->deleted;
		v->tombs[i].cls = t->cls;
	}
}

static void copy_seen(struct store_view *v, const struct store *s)
{
	size_t at = s->seen_next + STORE_REMEMBERED_IDS - s->n_seen;

	v->ids = xcalloc(s->n_seen + 1, sizeof(*v->ids));
	for (; v->n_ids < s->n_seen; at++, v->n_ids++) {
		const struct seen *e = &s->seen[at % STORE_REMEMBERED_IDS];

		memcpy(v->ids[v->n_ids].id, e->id, TXN_ID_LEN);
		v->ids[v->n_ids].result = e->result;
	}
}

struct store_view *store_view_new(const struct store *s)
{
	struct store_view *v = xcalloc(1, sizeof(*v));

	v->generation = s->generation;
	v->tombstone_horizon = s->horizon;
	v->digest = store_digest(s);
	copy_rows(v, s);
	copy_tombstones(v, s);
	copy_seen(v, s);
	return v;
}

void store_view_free(struct store_view *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < v->n_rows; i++)
		record_unref(v->rows[i]);
	for (size_t i = 0; i < v->n_tombs; i++)
		value_unref(v->tombs[i].ref);
	free(v->rows);
	free(v->hashes);
	free(v->tombs);
	free(v->ids);
	free(v);
}

/* Loading. */

/* like: a row that fits, or NULL. Rows of an image that follow each other share
 * most of their values. */
static bool row_fits(const struct store_view *v, const struct record *r,
		     const struct record *like)
{
	const struct class_def *c = r->cls;

	if (!class_is_stored(c) || value_is_null_ref(r->ref) ||
	    r->created > r->modified || r->modified > v->generation)
		return false;
	for (unsigned i = 0; i < c->n_fields; i++) {
		if (like && like->cls == c && like->fields[i] == r->fields[i])
			continue;
		if (!schema_fits(c->fields[i].type, r->fields[i]))
			return false;
	}
	return true;
}

static bool row_is_new(const struct store *s, const struct record *r)
{
	const struct value *uuid = r->cls->f_uuid < 0 ?
					   NULL :
					   r->fields[r->cls->f_uuid];
	const struct record *last = store_last(s, r->cls->id);

	return !store_row(s, r->ref->s, r->ref->n) &&
	       (!uuid || (uuid->n > 0 &&
			  !map_get(&s->uuids, uuid->s, uuid->n))) &&
	       (!last || last->modified <= r->modified);
}

static bool load_rows(struct store *s, const struct store_view *v)
{
	map_reserve(&s->rows, v->n_rows);
	map_reserve(&s->uuids, v->n_rows);
	for (size_t i = 0; i < v->n_rows; i++) {
		struct record *r = v->rows[i];

		if (!row_fits(v, r, i > 0 ? v->rows[i - 1] : NULL) || !row_is_new(s, r))
			return false;
		if (v->hashes)
			store_insert_hashed(s, record_ref(r), v->hashes[i]);
		else
			store_insert(s, record_ref(r));
	}
	return true;
}

static bool load_tombstones(struct store *s, const struct store_view *v)
{
	uint64_t last = 0;

	if (v->n_tombs > STORE_TOMBSTONES ||
	    v->tombstone_horizon > v->generation)
		return false;
	for (size_t i = 0; i < v->n_tombs; i++) {
		__typeof__(v->tombs[i]) *t = &v->tombs[i];

		if (t->cls < 0 || (unsigned)t->cls >= schema_n_classes ||
		    t->deleted < last || t->deleted > v->generation)
			return false;
		last = t->deleted;
		store_add_tombstone(s, t->cls, t->ref, t->created, t->deleted);
	}
	return true;
}

static bool load_seen(struct store *s, const struct store_view *v)
{
	if (v->n_ids > STORE_REMEMBERED_IDS)
		return false;
	for (size_t i = 0; i < v->n_ids; i++) {
		if (store_txn_seen(s, v->ids[i].id, NULL))
			return false;
		store_remember(s, v->ids[i].id, v->ids[i].result);
	}
	return true;
}

static bool derived_sets_agree(const struct store *s, const struct record *r)
{
	const struct table *t = store_table(s, r->cls);
	const struct target *target = map_get(&s->targets, r->ref->s,
					      r->ref->n);
	bool agree = true;

	for (size_t i = 0; agree && i < t->n_derived; i++) {
		const struct field_def *f = &r->cls->fields[t->derived[i]];
		struct value *set;

		if (!target) {
			agree = r->fields[t->derived[i]]->n == 0;
			continue;
		}
		set = store_pointing(target, f->other_class, f->other_field);
		agree = value_equal(set, r->fields[t->derived[i]]);
		value_unref(set);
	}
	return agree;
}

static bool other_sides_agree(const struct store *s, const struct row *row)
{
	const struct record *r = row->rec;

	list_for_each(it, &row->links) {
		const struct link *l = list_entry(it, struct link, in_row);
		const struct field_def *f = &r->cls->fields[l->field];
		const struct value *ref = l->target->ref;
		const struct row *other = store_row(s, ref->s, ref->n);

		if (field_is_one(f) || !other ||
		    other->rec->cls->id != f->other_class)
			continue;
		if (!value_set_has(other->rec->fields[f->other_field], r->ref))
			return false;
	}
	return true;
}

bool store_relations_agree(const struct store *s)
{
	const struct row *row;

	for (size_t i = 0; (row = map_next(&s->rows, &i));) {
		if (!derived_sets_agree(s, row->rec) ||
		    !other_sides_agree(s, row))
			return false;
	}
	return true;
}

bool store_load(struct store *s, const struct store_view *v)
{
	store_clear(s);
	s->generation = v->generation;
	if (load_rows(s, v) && load_tombstones(s, v) && load_seen(s, v) &&
	    store_relations_agree(s) &&
	    hash128_equal(store_digest(s), v->digest)) {
		s->horizon = v->tombstone_horizon;
		return true;
	}
	store_clear(s);
	return false;
}
