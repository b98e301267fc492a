/* The store's frame: making it, looking things up, walking it, remembering
 * deletions and transactions. Changes to rows are in store_index.c, what a
 * transaction does in store_apply.c, relations in store_relate.c, frozen views
 * in store_view.c.
 */
#include "raftdb/store.h"

#include <string.h>

#include "raftdb/store_impl.h"

bool class_is_stored(const struct class_def *c)
{
	return c->flags & CLASS_STORED;
}

bool field_is_one(const struct field_def *f)
{
	return f->relation == RELATION_ONE;
}

bool field_is_derived(const struct field_def *f)
{
	return f->relation == RELATION_MANY;
}

bool field_is_both(const struct class_def *c, unsigned field)
{
	const struct field_def *f = &c->fields[field];

	return f->relation == RELATION_BOTH &&
	       (f->other_class != c->id || f->other_field != (int)field);
}

static int cmp_names(const void *a, const void *b, void *cls)
{
	const struct class_def *c = cls;

	return strcmp(c->fields[*(const uint16_t *)a].name,
		      c->fields[*(const uint16_t *)b].name);
}

static void table_init(struct table *t, const struct class_def *c)
{
	t->cls = c;
	list_init(&t->rows);
	list_init(&t->tombstones);
	map_init(&t->names);
	t->defaults = xcalloc(c->n_fields, sizeof(*t->defaults));
	t->by_name = xcalloc(c->n_fields, sizeof(*t->by_name));
	t->linking = xcalloc(c->n_fields, sizeof(*t->linking));
	t->derived = xcalloc(c->n_fields, sizeof(*t->derived));
	for (unsigned i = 0; i < c->n_fields; i++) {
		t->defaults[i] = schema_field_default(c, i);
		t->by_name[i] = (uint16_t)i;
		if (field_is_one(&c->fields[i]) || field_is_both(c, i))
			t->linking[t->n_linking++] = (uint16_t)i;
		if (field_is_derived(&c->fields[i]))
			t->derived[t->n_derived++] = (uint16_t)i;
	}
	qsort_r(t->by_name, c->n_fields, sizeof(*t->by_name), cmp_names,
		(void *)c);
}

static void table_deinit(struct table *t)
{
	for (unsigned i = 0; i < t->cls->n_fields; i++)
		value_unref(t->defaults[i]);
	free(t->defaults);
	free(t->by_name);
	free(t->linking);
	free(t->derived);
	map_deinit(&t->names);
}

struct store *store_new(void)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->tables = xcalloc(schema_n_classes, sizeof(*s->tables));
	for (unsigned i = 0; i < schema_n_classes; i++) {
		xassert(schema_classes[i].id == (int)i);
		table_init(&s->tables[i], &schema_classes[i]);
	}
	map_init(&s->rows);
	map_init(&s->uuids);
	map_init(&s->targets);
	map_init(&s->seen_by_id);
	list_init(&s->tombstones);
	s->seen = xcalloc(STORE_REMEMBERED_IDS, sizeof(*s->seen));
	return s;
}

static void clear_rows(struct store *s)
{
	for (unsigned i = 0; i < schema_n_classes; i++) {
		list_for_each_safe(it, &s->tables[i].rows)
			store_remove(s, list_entry(it, struct row, in_class));
		xassert(s->tables[i].count == 0);
	}
	xassert(s->rows.count == 0 && s->uuids.count == 0);
	xassert(s->targets.count == 0);
	xassert(s->sum.lo == 0 && s->sum.hi == 0);
}

static void forget_oldest_tombstone(struct store *s)
{
	struct tombstone *t = list_entry(s->tombstones.next, struct tombstone,
					 in_all);

	s->horizon = MAX(s->horizon, t->deleted);
	list_remove(&t->in_all);
	list_remove(&t->in_class);
	value_unref(t->ref);
	free(t);
	s->n_tombstones--;
}

/* Everything but the observer goes. */
void store_clear(struct store *s)
{
	clear_rows(s);
	while (!list_empty(&s->tombstones))
		forget_oldest_tombstone(s);
	map_deinit(&s->seen_by_id);
	s->seen_next = s->n_seen = 0;
	s->horizon = 0;
	s->generation = 0;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	store_clear(s);
	for (unsigned i = 0; i < schema_n_classes; i++)
		table_deinit(&s->tables[i]);
	map_deinit(&s->rows);
	map_deinit(&s->uuids);
	map_deinit(&s->targets);
	buf_deinit(&s->scratch);
	free(s->tables);
	free(s->seen);
	free(s);
}

void store_set_observer(struct store *s, store_observer fn, void *data)
{
	s->observer = fn;
	s->observer_data = data;
}

/* Looking up. */

struct record *store_get(const struct store *s, const char *ref)
{
	const struct row *row = map_getz(&s->rows, ref);

	return row ? row->rec : NULL;
}

struct record *store_get_class(const struct store *s, int cls, const char *ref)
{
	struct record *r = store_get(s, ref);

	return r && r->cls->id == cls ? r : NULL;
}

struct record *store_by_uuid(const struct store *s, int cls, const char *uuid)
{
	const struct row *row = map_getz(&s->uuids, uuid);

	return row && row->rec->cls->id == cls ? row->rec : NULL;
}

static const struct table *table_at(const struct store *s, int cls)
{
	xassert(cls >= 0 && (unsigned)cls < schema_n_classes);
	return &s->tables[cls];
}

static int cmp_refs(const void *a, const void *b)
{
	return value_str_cmp(*(struct value *const *)a,
			     *(struct value *const *)b);
}

/* The rows' order in the index depends on history: sorted, the answer is the
 * same on every member. */
struct value *store_by_name(const struct store *s, int cls, const char *name)
{
	const struct name *found = map_getz(&table_at(s, cls)->names, name);
	struct value *set;

	if (!found)
		return value_set_empty();
	set = value_set_new(found->n);
	for (size_t i = 0; i < found->n; i++)
		set->items[i] = value_ref(found->rows[i]->rec->ref);
	qsort(set->items, set->n, sizeof(*set->items), cmp_refs);
	return set;
}

bool store_is_referenced(const struct store *s, const char *ref)
{
	const struct target *t = map_getz(&s->targets, ref);

	if (!t)
		return false;
	list_for_each(it, &t->links) {
		const struct link *l = list_entry(it, struct link, in_target);
		const struct record *r = l->source->rec;

		if (field_is_one(&r->cls->fields[l->field]) &&
		    !value_equal(r->ref, t->ref))
			return true;
	}
	return false;
}

/* Walking. */

size_t store_count(const struct store *s, int cls)
{
	return table_at(s, cls)->count;
}

static struct record *record_at(const struct list *l, const struct table *t)
{
	return l == &t->rows ? NULL :
			       list_entry(l, struct row, in_class)->rec;
}

struct record *store_first(const struct store *s, int cls)
{
	const struct table *t = table_at(s, cls);

	return record_at(t->rows.next, t);
}

struct record *store_last(const struct store *s, int cls)
{
	const struct table *t = table_at(s, cls);

	return record_at(t->rows.prev, t);
}

struct record *store_next(const struct store *s, const struct record *r)
{
	const struct row *row = store_row(s, r->ref->s, r->ref->n);

	return row ? record_at(row->in_class.next, store_table(s, r->cls)) :
		     NULL;
}

struct record *store_prev(const struct store *s, const struct record *r)
{
	const struct row *row = store_row(s, r->ref->s, r->ref->n);

	return row ? record_at(row->in_class.prev, store_table(s, r->cls)) :
		     NULL;
}

/* Deletions. */

void store_add_tombstone(struct store *s, int cls, struct value *ref,
			 uint64_t created, uint64_t deleted)
{
	struct tombstone *t = xcalloc(1, sizeof(*t));

	t->ref = value_ref(ref);
	t->created = created;
	t->deleted = deleted;
	t->cls = cls;
	list_push(&s->tables[cls].tombstones, &t->in_class);
	list_push(&s->tombstones, &t->in_all);
	if (++s->n_tombstones > STORE_TOMBSTONES)
		forget_oldest_tombstone(s);
}

static const struct tombstone *tombstone_at(const struct list *l,
					    const struct table *t)
{
	return l == &t->tombstones ? NULL :
				     list_entry(l, struct tombstone, in_class);
}

const struct tombstone *store_last_tombstone(const struct store *s, int cls)
{
	const struct table *t = table_at(s, cls);

	return tombstone_at(t->tombstones.prev, t);
}

const struct tombstone *store_prev_tombstone(const struct store *s,
					     const struct tombstone *t)
{
	return tombstone_at(t->in_class.prev, table_at(s, t->cls));
}

uint64_t store_tombstone_horizon(const struct store *s)
{
	return s->horizon;
}

/* Transactions seen. */

void store_remember(struct store *s, const uint8_t id[TXN_ID_LEN],
		    struct txn_result result)
{
	struct seen *e = &s->seen[s->seen_next];

	if (s->n_seen == STORE_REMEMBERED_IDS)
		map_del(&s->seen_by_id, (char *)e->id, TXN_ID_LEN);
	else
		s->n_seen++;
	memcpy(e->id, id, TXN_ID_LEN);
	e->result = result;
	map_put(&s->seen_by_id, (char *)e->id, TXN_ID_LEN, e);
	s->seen_next = (s->seen_next + 1) % STORE_REMEMBERED_IDS;
}

bool store_txn_seen(const struct store *s, const uint8_t id[TXN_ID_LEN],
		    struct txn_result *ret)
{
	const struct seen *e = map_get(&s->seen_by_id, (const char *)id,
				       TXN_ID_LEN);

	if (e && ret)
		*ret = e->result;
	return e != NULL;
}

/* Generation and digest. */

uint64_t store_generation(const struct store *s)
{
	return s->generation;
}

void hash128_add(struct hash128 *sum, struct hash128 h)
{
	sum->lo += h.lo;
	sum->hi += h.hi + (sum->lo < h.lo);
}

void hash128_sub(struct hash128 *sum, struct hash128 h)
{
	bool borrow = sum->lo < h.lo;

	sum->lo -= h.lo;
	sum->hi -= h.hi + borrow;
}

bool hash128_equal(struct hash128 a, struct hash128 b)
{
	return a.lo == b.lo && a.hi == b.hi;
}

struct hash128 store_digest(const struct store *s)
{
	uint8_t generation[8];
	struct hash128 d;

	for (unsigned i = 0; i < sizeof(generation); i++)
		generation[i] = (uint8_t)(s->generation >> (8 * i));
	d = hash128(generation, sizeof(generation));
	hash128_add(&d, s->sum);
	return d;
}
