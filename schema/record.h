/* One immutable version of a row: shared by the store, by events, by replies
 * being written and by snapshots being taken. */
#ifndef SCHEMA_RECORD_H
#define SCHEMA_RECORD_H

#include "schema/schema.h"
#include "schema/value.h"

struct record {
	atomic_uint refs;
	const struct class_def *cls;
	struct value *ref;    /* the object's reference, a string */
	uint64_t created;     /* generation of its creation */
	uint64_t modified;    /* generation of its last change */
	struct value *fields[]; /* cls->n_fields, never NULL */
};

/* All fields NULL: fill each before sharing. Takes ref. */
struct record *record_new(const struct class_def *cls, struct value *ref);
/* A copy that shares the fields; refs = 1. */
struct record *record_copy(const struct record *r);
struct record *record_ref(const struct record *r);
void record_unref(struct record *r);
void record_unrefp(struct record **r);

/* Replaces a field of an unshared record; takes v. */
void record_set(struct record *r, unsigned field, struct value *v);

/* Convenience for readers; the field's type is the caller's knowledge. */
static inline const char *record_str(const struct record *r, unsigned field)
{
	return value_str(r->fields[field]);
}
static inline int64_t record_int(const struct record *r, unsigned field)
{
	return r->fields[field]->i;
}
static inline bool record_bool(const struct record *r, unsigned field)
{
	return r->fields[field]->i != 0;
}

#endif
