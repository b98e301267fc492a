#include "schema/record.h"

#include <string.h>

static struct record *alloc(const struct class_def *cls)
{
	size_t fields = cls->n_fields * sizeof(struct value *);
	struct record *r = xcalloc(1, sizeof(*r) + fields);

	atomic_init(&r->refs, 1);
	r->cls = cls;
	return r;
}

struct record *record_new(const struct class_def *cls, struct value *ref)
{
	struct record *r = alloc(cls);

	xassert(ref->kind == VALUE_STRING);
	r->ref = ref;
	return r;
}

struct record *record_copy(const struct record *r)
{
	struct record *copy = alloc(r->cls);

	copy->ref = value_ref(r->ref);
	copy->created = r->created;
	copy->modified = r->modified;
	for (unsigned i = 0; i < r->cls->n_fields; i++)
		copy->fields[i] = value_ref(r->fields[i]);
	return copy;
}

struct record *record_ref(const struct record *r)
{
	struct record *shared = (struct record *)r;

	if (r)
		atomic_fetch_add_explicit(&shared->refs, 1,
					  memory_order_relaxed);
	return shared;
}

void record_unref(struct record *r)
{
	if (!r || atomic_fetch_sub_explicit(&r->refs, 1,
					    memory_order_acq_rel) > 1)
		return;
	for (unsigned i = 0; i < r->cls->n_fields; i++)
		value_unref(r->fields[i]);
	value_unref(r->ref);
	free(r);
}

void record_unrefp(struct record **r)
{
	record_unref(*r);
}

void record_set(struct record *r, unsigned field, struct value *v)
{
	xassert(field < r->cls->n_fields && v);
	xassert(atomic_load_explicit(&r->refs, memory_order_relaxed) == 1);
	value_unref(r->fields[field]);
	r->fields[field] = v;
}
