/* Relations inside a transaction.
 *
 * One-to-many: the single reference is what is written; the set on the other
 * side is derived, sorted bytewise, and a change of it is a change of its row.
 * A reference to an object that does not exist, or that is of another class
 * than the field says, leaves no trace in any set until such an object is
 * created: then its set starts with all who point to it already.
 *
 * Many-to-many: a set on both sides, either may be written, each write edits
 * the other side. Sets keep the order of writing. Members that do not exist
 * stay where they were written, and get the other side when they are created.
 * An object that goes is taken out of the other sides' sets, while single
 * references to it are left to dangle.
 */
#include "raftdb/store_impl.h"

static struct edit *get_of_class(struct scratch *sc, const struct value *ref,
				 int cls)
{
	struct edit *e = scratch_get(sc, ref->s, ref->n);

	return e && e->after->cls->id == cls ? e : NULL;
}

static const struct target *target_of(const struct scratch *sc,
				      const struct value *ref)
{
	return map_get(&sc->store->targets, ref->s, ref->n);
}

/* Many-to-many. */

/* The members of a that b does not have, each once, borrowed; *ret_n of them.
 * b NULL: of all of a. The caller frees the array. */
static struct value **members_without(const struct value *a,
				      const struct value *b, size_t *ret_n)
{
	_cleanup_(map_deinit) struct map known = { 0 };
	struct value **items = xcalloc(a->n + 1, sizeof(*items));
	size_t n = 0;

	for (size_t i = 0; b && i < b->n; i++)
		map_put(&known, b->items[i]->s, b->items[i]->n, b->items[i]);
	for (size_t i = 0; i < a->n; i++) {
		struct value *item = a->items[i];

		if (!map_put(&known, item->s, item->n, item))
			items[n++] = item;
	}
	*ret_n = n;
	return items;
}

/* Takes set. */
static struct value *without_doubles(struct value *set)
{
	_cleanup_(freep) struct value **items = NULL;
	struct value *unique;
	size_t n;

	items = members_without(set, NULL, &n);
	if (n == set->n)
		return set;
	unique = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		unique->items[i] = value_ref(items[i]);
	value_unref(set);
	return unique;
}

static void note_dangling(struct scratch *sc, struct edit *e, unsigned field,
			  const struct value *ref)
{
	if (value_is_null_ref(ref))
		return;
	if (sc->n_dangling == sc->cap_dangling) {
		sc->cap_dangling = MAX(8, sc->cap_dangling * 2);
		sc->dangling = xrealloc(sc->dangling, sc->cap_dangling *
						      sizeof(*sc->dangling));
	}
	sc->dangling[sc->n_dangling++] =
		(struct dangling){ e, field, value_ref(ref) };
}

static void both_link(struct scratch *sc, struct edit *e, unsigned field,
		      const struct value *member)
{
	const struct field_def *f = &e->after->cls->fields[field];
	unsigned back = (unsigned)f->other_field;
	struct edit *other = get_of_class(sc, member, f->other_class);

	if (other)
		edit_set(other, back,
			 value_set_with(other->after->fields[back], e->ref));
	else
		note_dangling(sc, e, field, member);
}

static void both_unlink(struct scratch *sc, const struct edit *e,
			unsigned field, const struct value *member)
{
	const struct field_def *f = &e->after->cls->fields[field];
	unsigned back = (unsigned)f->other_field;
	struct edit *other = get_of_class(sc, member, f->other_class);

	if (other)
		edit_set(other, back,
			 value_set_without(other->after->fields[back], e->ref));
}

void relate_both(struct scratch *sc, struct edit *e, unsigned field,
		 struct value *set)
{
	_cleanup_(value_unrefp) struct value *old =
		value_ref(e->after->fields[field]);
	_cleanup_(value_unrefp) struct value *new =
		value_ref(set = without_doubles(set));
	_cleanup_(freep) struct value **gone = NULL, **come = NULL;
	size_t n_gone, n_come;

	edit_set(e, field, set);
	gone = members_without(old, new, &n_gone);
	come = members_without(new, old, &n_come);
	for (size_t i = 0; i < n_gone; i++)
		both_unlink(sc, e, field, gone[i]);
	for (size_t i = 0; i < n_come; i++)
		both_link(sc, e, field, come[i]);
}

/* Adds source to set, which it takes, if source's set still names e. */
static struct value *add_if_naming(struct value *set, const struct edit *e,
				   const struct edit *source, unsigned field)
{
	struct value *with;

	if (!value_set_has(source->after->fields[field], e->ref))
		return set;
	with = value_sorted_with(set, source->ref);
	value_unref(set);
	return with;
}

/* Who names e in the given field of the given class, as of now. */
static struct value *who_names(struct scratch *sc, const struct edit *e,
			       int cls, unsigned field)
{
	_cleanup_(value_unrefp) struct value *known =
		store_pointing(target_of(sc, e->ref), cls, (int)field);
	struct value *set = value_set_empty();

	for (size_t i = 0; i < known->n; i++) {
		const struct edit *source = get_of_class(sc, known->items[i],
							 cls);

		if (source)
			set = add_if_naming(set, e, source, field);
	}
	for (size_t i = 0; i < sc->n_dangling; i++) {
		const struct dangling *d = &sc->dangling[i];

		if (d->field == field && value_equal(d->ref, e->ref) &&
		    d->source->after && d->source->after->cls->id == cls)
			set = add_if_naming(set, e, d->source, field);
	}
	return set;
}

void relate_created(struct scratch *sc, struct edit *e)
{
	const struct class_def *c = e->after->cls;

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct field_def *f = &c->fields[i];

		if (field_is_both(c, i))
			edit_set(e, i, who_names(sc, e, f->other_class,
						 (unsigned)f->other_field));
	}
}

void relate_destroyed(struct scratch *sc, struct edit *e)
{
	const struct class_def *c = e->after->cls;

	for (unsigned i = 0; i < c->n_fields; i++) {
		if (field_is_both(c, i))
			relate_both(sc, e, i, value_set_empty());
	}
}

/* One-to-many. */

static void fill_derived(struct scratch *sc, struct edit *e)
{
	const struct table *t = store_table(sc->store, e->after->cls);
	const struct target *target = target_of(sc, e->ref);

	for (size_t i = 0; target && i < t->n_derived; i++) {
		const struct field_def *f = &t->cls->fields[t->derived[i]];

		edit_set(e, t->derived[i],
			 store_pointing(target, f->other_class,
					f->other_field));
	}
}

/* Puts source into, or takes it out of, the set of the object at ref. */
static void edit_derived(struct scratch *sc, const struct field_def *f,
			 const struct value *ref, const struct value *source,
			 bool in)
{
	unsigned back = (unsigned)f->other_field;
	struct edit *e;
	struct value *set;

	if (value_is_null_ref(ref))
		return;
	e = get_of_class(sc, ref, f->other_class);
	if (!e)
		return;
	set = e->after->fields[back];
	edit_set(e, back, in ? value_sorted_with(set, source) :
			       value_sorted_without(set, source));
}

static void follow_references(struct scratch *sc, const struct edit *e)
{
	const struct record *before = edit_before(e), *after = e->after;
	const struct class_def *c = (before ? before : after)->cls;
	const struct table *t = store_table(sc->store, c);

	for (size_t i = 0; i < t->n_linking; i++) {
		unsigned n = t->linking[i];
		const struct field_def *f = &c->fields[n];

		if (!field_is_one(f) ||
		    (before && after &&
		     value_equal(before->fields[n], after->fields[n])))
			continue;
		if (before)
			edit_derived(sc, f, before->fields[n], e->ref, false);
		if (after)
			edit_derived(sc, f, after->fields[n], e->ref, true);
	}
}

void relate_derived(struct scratch *sc)
{
	/* Rows that join from here on are changed in derived sets only. */
	size_t n = sc->n_edits;

	for (size_t i = 0; i < n; i++) {
		if (!sc->edits[i]->row && sc->edits[i]->after)
			fill_derived(sc, sc->edits[i]);
	}
	for (size_t i = 0; i < n; i++) {
		if (sc->edits[i]->row || sc->edits[i]->after)
			follow_references(sc, sc->edits[i]);
	}
}
