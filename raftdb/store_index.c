/* Rows and their places in the indexes: by ref, by uuid, by name, by the time
 * of their last change, their share of the digest, and their links.
 */
#include <string.h>

#include "raftdb/store_impl.h"

/* The digest. */

/* Proportional to the row: a host with 10 000 VMs in its derived set is hashed
 * anew, about 0.5 MB, whenever one of them comes or goes. */
struct hash128 store_hash(const struct table *t, const struct record *r,
			  struct buf *scratch)
{
	const struct class_def *c = r->cls;

	scratch->len = 0;
	buf_put_bytes(scratch, c->name, strlen(c->name));
	buf_put_bytes(scratch, r->ref->s, r->ref->n);
	buf_put_u64(scratch, r->created);
	buf_put_u64(scratch, r->modified);
	for (unsigned i = 0; i < c->n_fields; i++) {
		unsigned f = t->by_name[i];

		if (value_equal(r->fields[f], t->defaults[f]))
			continue;
		buf_put_bytes(scratch, c->fields[f].name,
			      strlen(c->fields[f].name));
		value_encode(scratch, r->fields[f]);
	}
	return hash128(scratch->data, scratch->len);
}

static void row_hash(struct store *s, struct row *row)
{
	row->hash = store_hash(store_table(s, row->rec->cls), row->rec,
			       &s->scratch);
	hash128_add(&s->sum, row->hash);
}

/* Names. */

static const struct value *name_of(const struct record *r)
{
	return r->cls->f_name_label < 0 ? NULL :
					  r->fields[r->cls->f_name_label];
}

static struct name *name_get(struct table *t, const struct value *text)
{
	struct name *n = map_get(&t->names, text->s, text->n);

	if (n)
		return n;
	n = xcalloc(1, sizeof(*n));
	n->text = value_ref(text);
	map_put(&t->names, n->text->s, n->text->n, n);
	return n;
}

static void name_add(struct store *s, struct row *row)
{
	const struct value *text = name_of(row->rec);
	struct name *n;

	if (!text)
		return;
	n = name_get(store_table(s, row->rec->cls), text);
	if (n->n == n->cap) {
		n->cap = n->cap ? n->cap * 2 : 1;
		n->rows = xrealloc(n->rows, n->cap * sizeof(*n->rows));
	}
	row->name = n;
	row->name_place = n->n;
	n->rows[n->n++] = row;
}

static void name_remove(struct store *s, struct row *row)
{
	struct name *n = TAKE_PTR(row->name);
	struct row *last;

	if (!n)
		return;
	last = n->rows[--n->n];
	n->rows[row->name_place] = last;
	last->name_place = row->name_place;
	if (n->n > 0)
		return;
	map_del(&store_table(s, row->rec->cls)->names, n->text->s, n->text->n);
	value_unref(n->text);
	free(n->rows);
	free(n);
}

/* Uuids. */

static const struct value *uuid_of(const struct record *r)
{
	return r->cls->f_uuid < 0 ? NULL : r->fields[r->cls->f_uuid];
}

static void uuid_add(struct store *s, struct row *row)
{
	const struct value *uuid = uuid_of(row->rec);

	/* Two rows may exchange theirs in one transaction: the newer holder
	 * simply replaces the older one here. */
	if (uuid)
		map_put(&s->uuids, uuid->s, uuid->n, row);
}

static void uuid_remove(struct store *s, const struct row *row)
{
	const struct value *uuid = uuid_of(row->rec);

	/* Another row may have taken it over in the same transaction. */
	if (uuid && map_get(&s->uuids, uuid->s, uuid->n) == row)
		map_del(&s->uuids, uuid->s, uuid->n);
}

/* Links. */

static struct target *target_get(struct store *s, const struct value *ref)
{
	struct target *t = map_get(&s->targets, ref->s, ref->n);

	if (t)
		return t;
	t = xcalloc(1, sizeof(*t));
	t->ref = value_ref(ref);
	list_init(&t->links);
	map_put(&s->targets, t->ref->s, t->ref->n, t);
	return t;
}

static void link_add(struct store *s, struct row *row, unsigned field,
		     const struct value *ref)
{
	struct link *l;

	if (value_is_null_ref(ref))
		return;
	l = xcalloc(1, sizeof(*l));
	l->target = target_get(s, ref);
	l->source = row;
	l->field = (uint16_t)field;
	list_push(&l->target->links, &l->in_target);
	list_push(&row->links, &l->in_row);
	l->target->n_links++;
}

static void link_free(struct store *s, struct link *l)
{
	struct target *t = l->target;

	list_remove(&l->in_target);
	list_remove(&l->in_row);
	free(l);
	if (--t->n_links > 0)
		return;
	map_del(&s->targets, t->ref->s, t->ref->n);
	value_unref(t->ref);
	free(t);
}

static void links_add(struct store *s, struct row *row, unsigned field)
{
	const struct value *v = row->rec->fields[field];

	if (v->kind != VALUE_SET) {
		link_add(s, row, field, v);
		return;
	}
	for (size_t i = 0; i < v->n; i++)
		link_add(s, row, field, v->items[i]);
}

static void links_remove(struct store *s, struct row *row, unsigned field)
{
	list_for_each_safe(it, &row->links) {
		struct link *l = list_entry(it, struct link, in_row);

		if (l->field == field)
			link_free(s, l);
	}
}

static int cmp_refs(const void *a, const void *b)
{
	return value_str_cmp(*(struct value *const *)a,
			     *(struct value *const *)b);
}

struct value *store_pointing(const struct target *target, int cls, int field)
{
	struct value *set, **items;
	size_t n = 0;

	if (!target)
		return value_set_empty();
	items = xcalloc(target->n_links, sizeof(*items));
	list_for_each(it, &target->links) {
		const struct link *l = list_entry(it, struct link, in_target);

		if (l->field == field && l->source->rec->cls->id == cls)
			items[n++] = l->source->rec->ref;
	}
	set = value_set_new(n);
	if (n > 0)
		qsort(items, n, sizeof(*items), cmp_refs);
	for (size_t i = 0; i < n; i++)
		set->items[i] = value_ref(items[i]);
	free(items);
	return set;
}

/* Rows. */

struct row *store_insert_hashed(struct store *s, struct record *rec,
				struct hash128 hash)
{
	struct table *t = store_table(s, rec->cls);
	struct row *row = xcalloc(1, sizeof(*row));

	row->rec = rec;
	list_init(&row->links);
	list_push(&t->rows, &row->in_class);
	t->count++;
	xassert(!map_put(&s->rows, rec->ref->s, rec->ref->n, row));
	uuid_add(s, row);
	name_add(s, row);
	for (size_t i = 0; i < t->n_linking; i++)
		links_add(s, row, t->linking[i]);
	row->hash = hash;
	hash128_add(&s->sum, hash);
	return row;
}

struct row *store_insert(struct store *s, struct record *rec)
{
	return store_insert_hashed(s, rec, store_hash(store_table(s, rec->cls),
						      rec, &s->scratch));
}

static void relink(struct store *s, struct row *row, struct record *old)
{
	const struct table *t = store_table(s, row->rec->cls);

	for (size_t i = 0; i < t->n_linking; i++) {
		unsigned f = t->linking[i];

		if (value_equal(old->fields[f], row->rec->fields[f]))
			continue;
		links_remove(s, row, f);
		links_add(s, row, f);
	}
}

void store_replace(struct store *s, struct row *row, struct record *rec)
{
	struct table *t = store_table(s, rec->cls);
	struct record *old = row->rec;
	bool renamed = name_of(old) != name_of(rec);

	xassert(old->cls == rec->cls && value_equal(old->ref, rec->ref));
	hash128_sub(&s->sum, row->hash);
	uuid_remove(s, row);
	if (renamed)
		name_remove(s, row);
	row->rec = rec;
	if (renamed)
		name_add(s, row);
	uuid_add(s, row);
	/* The key must live as long as the record that holds it. */
	map_put(&s->rows, rec->ref->s, rec->ref->n, row);
	relink(s, row, old);
	list_remove(&row->in_class);
	list_push(&t->rows, &row->in_class);
	row_hash(s, row);
	record_unref(old);
}

void store_remove(struct store *s, struct row *row)
{
	struct record *rec = row->rec;

	hash128_sub(&s->sum, row->hash);
	uuid_remove(s, row);
	name_remove(s, row);
	list_for_each_safe(it, &row->links)
		link_free(s, list_entry(it, struct link, in_row));
	map_del(&s->rows, rec->ref->s, rec->ref->n);
	list_remove(&row->in_class);
	store_table(s, rec->cls)->count--;
	free(row);
	record_unref(rec);
}
