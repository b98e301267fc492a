/* Values against types: what a parameter may look like on the wire, and what
 * the store and replies must hold.
 *
 * Which spellings a type accepts follows what clients of the XenServer API
 * send: XML-RPC's bare text for ints, dates as strings, floats as ints, objects
 * for maps with keys of any type. Booleans alone must be booleans.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "schema/record.h"
#include "schema/schema.h"
#include "schema/gen/schema_ids.h"

#define SHOWN_MAX 60 /* bytes of a refused value that its error shows */

/* Where the reason goes, and the record's member that is being looked at. */
struct complaint {
	char *text;
	size_t size;
	const char *member;
};

static struct value *coerce(const struct type *t, const struct value *v,
			    struct complaint *why);

/* Refusals. */

/* The most bytes up to max that end between two characters. */
static size_t whole_chars(const char *s, size_t n, size_t max)
{
	if (n <= max)
		return n;
	while (max > 0 && ((uint8_t)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}

static void describe_string(const struct value *v, char *out, size_t size)
{
	size_t n = whole_chars(v->s, v->n, SHOWN_MAX);

	snprintf(out, size, "string \"%.*s%s\"", (int)n, v->s,
		 n < v->n ? "..." : "");
}

static void describe(const struct value *v, char *out, size_t size)
{
	switch ((enum value_kind)v->kind) {
	case VALUE_STRING:
		describe_string(v, out, size);
		return;
	case VALUE_INT:
	case VALUE_COUNT:
		snprintf(out, size, "int %" PRId64, v->i);
		return;
	case VALUE_FLOAT:
		snprintf(out, size, "float %.16g", v->d);
		return;
	case VALUE_BOOL:
		snprintf(out, size, "bool %s", v->i ? "true" : "false");
		return;
	case VALUE_DATETIME: {
		char date[DATE_LEN + 1];

		date_format(v->i, date);
		snprintf(out, size, "datetime %s", date);
		return;
	}
	case VALUE_SET:
		snprintf(out, size, "an array of %" PRIu32, v->n);
		return;
	case VALUE_MAP:
	case VALUE_STRUCT:
	case VALUE_RECORD:
		snprintf(out, size, "a struct");
		return;
	case VALUE_VOID:
	case VALUE_NIL:
		snprintf(out, size, "nil");
		return;
	}
	xassert(false);
}

/* Always NULL, for return. */
static struct value *refuse(const struct type *t, const struct value *v,
			    struct complaint *why)
{
	char shown[SHOWN_MAX + 64], text[SHOWN_MAX + 256];
	size_t n;

	describe(v, shown, sizeof(shown));
	snprintf(text, sizeof(text), "%s%sExpected %s, got %s",
		 why->member ? why->member : "", why->member ? ": " : "",
		 t->text, shown);
	if (why->size > 0) {
		n = whole_chars(text, strlen(text), why->size - 1);
		memcpy(why->text, text, n);
		why->text[n] = '\0';
	}
	return NULL;
}

/* Scalars. */

static struct value *coerce_int(const struct type *t, const struct value *v,
				struct complaint *why)
{
	int64_t i;

	if (v->kind == VALUE_INT)
		return value_ref(v);
	if (v->kind == VALUE_COUNT)
		return value_int(v->i);
	if (v->kind == VALUE_STRING && int_parse(v->s, v->n, &i))
		return value_int(i);
	return refuse(t, v, why);
}

static struct value *coerce_float(const struct type *t, const struct value *v,
				  struct complaint *why)
{
	double d;

	if (v->kind == VALUE_FLOAT)
		return value_ref(v);
	if (v->kind == VALUE_INT || v->kind == VALUE_COUNT)
		return value_float((double)v->i);
	if (v->kind == VALUE_STRING && float_parse(v->s, v->n, &d))
		return value_float(d);
	return refuse(t, v, why);
}

static struct value *coerce_datetime(const struct type *t,
				     const struct value *v,
				     struct complaint *why)
{
	int64_t seconds;

	if (v->kind == VALUE_DATETIME)
		return value_ref(v);
	if (v->kind == VALUE_STRING && date_parse(v->s, v->n, &seconds))
		return value_datetime(seconds);
	return refuse(t, v, why);
}

static struct value *coerce_void(const struct type *t, const struct value *v,
				 struct complaint *why)
{
	/* The API writes void as an empty string. */
	if (v->kind == VALUE_VOID || v->kind == VALUE_NIL ||
	    (v->kind == VALUE_STRING && v->n == 0))
		return value_void();
	return refuse(t, v, why);
}

/* Containers. */

static struct value *coerce_set(const struct type *t, const struct value *v,
				struct complaint *why)
{
	_cleanup_(value_unrefp) struct value *set = NULL;

	if (v->kind != VALUE_SET)
		return refuse(t, v, why);
	set = value_set_new(v->n);
	for (uint32_t i = 0; i < v->n; i++) {
		set->items[i] = coerce(t->item, v->items[i], why);
		if (!set->items[i])
			return NULL;
	}
	return TAKE_PTR(set);
}

/* Map keys are strings in every value; ints get their usual spelling. */
static struct value *coerce_key(const struct type *t, const struct value *key,
				struct complaint *why)
{
	struct value *v = coerce(t, key, why);
	int64_t i;

	if (!v || v->kind == VALUE_STRING)
		return v;
	xassert(v->kind == VALUE_INT);
	i = v->i;
	value_unref(v);
	return value_printf("%" PRId64, i);
}

static void free_pairs(struct value **pairs, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++)
		value_unref(pairs[i]);
	free(pairs);
}

static struct value *coerce_map(const struct type *t, const struct value *v,
				struct complaint *why)
{
	struct value **pairs, *map;

	if (v->kind != VALUE_STRUCT && v->kind != VALUE_MAP)
		return refuse(t, v, why);
	pairs = xcalloc(2 * (size_t)v->n + 1, sizeof(*pairs));
	for (size_t i = 0; i < v->n; i++) {
		struct value **pair = &pairs[2 * i];

		pair[0] = coerce_key(t->key, v->items[2 * i], why);
		if (pair[0])
			pair[1] = coerce(t->item, v->items[2 * i + 1], why);
		if (!pair[1]) {
			free_pairs(pairs, v->n);
			return NULL;
		}
	}
	map = value_map_from(pairs, v->n);
	free(pairs);
	return map;
}

/* The field that a record's member names, NULL if there is none. */
static const struct field_def *member_field(const struct class_def *c,
					    const struct value *name)
{
	int i = schema_field(c, name->s, name->n);

	if (i < 0 || (c->fields[i].flags & FIELD_INTERNAL) ||
	    !value_is_str(name, c->fields[i].name))
		return NULL;
	return &c->fields[i];
}

/* One member into out[0..1]; false: refused. Fields that nobody may set are
 * dropped when they do not fit: clients send back whole records, and only the
 * fields that can be set are looked at. */
static bool coerce_member(const struct class_def *c,
			  struct value *const *member, struct value **out,
			  unsigned *n, struct complaint *why)
{
	const struct field_def *f = member_field(c, member[0]);
	struct value *v;

	if (!f)
		return true;
	why->member = f->name;
	v = coerce(f->type, member[1], why);
	why->member = NULL;
	if (!v)
		return f->qualifier == FIELD_RUNTIME;
	out[0] = value_ref(member[0]);
	out[1] = v;
	++*n;
	return true;
}

static struct value *coerce_record(const struct type *t, const struct value *v,
				   struct complaint *why)
{
	const struct class_def *c = &schema_classes[t->id];
	_cleanup_(value_unrefp) struct value *all = NULL;
	struct value *out;
	unsigned n = 0;

	if (v->kind != VALUE_STRUCT && v->kind != VALUE_MAP)
		return refuse(t, v, why);
	all = value_struct_new(v->n);
	for (size_t i = 0; i < v->n; i++)
		if (!coerce_member(c, &v->items[2 * i], &all->items[2 * n], &n,
				   why))
			return NULL;
	out = value_struct_new(n);
	for (size_t i = 0; i < 2 * (size_t)n; i++)
		out->items[i] = value_ref(all->items[i]);
	return out;
}

/* None is nil, or an empty array as the reference writes it; some is the item
 * itself, or in an array of one. */
static struct value *coerce_option(const struct type *t, const struct value *v,
				   struct complaint *why)
{
	if (v->kind == VALUE_NIL || v->kind == VALUE_VOID)
		return value_nil();
	if (v->kind == VALUE_SET && t->item->kind != TYPE_SET) {
		if (v->n == 0)
			return value_nil();
		if (v->n == 1)
			return coerce(t->item, v->items[0], why);
	}
	return coerce(t->item, v, why);
}

static struct value *same_if(bool ok, const struct type *t,
			     const struct value *v, struct complaint *why)
{
	return ok ? value_ref(v) : refuse(t, v, why);
}

/* As deep as the type, which is finite. */
static struct value *coerce(const struct type *t, const struct value *v,
			    struct complaint *why)
{
	bool text = v->kind == VALUE_STRING;

	switch (t->kind) {
	case TYPE_VOID:
		return coerce_void(t, v, why);
	case TYPE_STRING:
	case TYPE_REF:
		return same_if(text, t, v, why);
	case TYPE_ENUM:
		return same_if(text && enum_has(t->id, v->s), t, v, why);
	case TYPE_BOOL:
		return same_if(v->kind == VALUE_BOOL, t, v, why);
	case TYPE_INT:
		return coerce_int(t, v, why);
	case TYPE_FLOAT:
		return coerce_float(t, v, why);
	case TYPE_DATETIME:
		return coerce_datetime(t, v, why);
	case TYPE_SET:
		return coerce_set(t, v, why);
	case TYPE_MAP:
		return coerce_map(t, v, why);
	case TYPE_RECORD:
		return coerce_record(t, v, why);
	case TYPE_OPTION:
		return coerce_option(t, v, why);
	}
	xassert(false);
}

struct value *schema_coerce(const struct type *t, const struct value *v,
			    char *reason, size_t reason_size)
{
	struct complaint why = { reason, reason_size, NULL };

	return coerce(t, v, &why);
}

/* Fitting. */

static bool fits_set(const struct type *t, const struct value *v)
{
	if (v->kind != VALUE_SET)
		return false;
	for (uint32_t i = 0; i < v->n; i++)
		if (!schema_fits(t->item, v->items[i]))
			return false;
	return true;
}

static bool fits_key(const struct type *t, const struct value *key)
{
	int64_t i;

	if (t->kind == TYPE_INT)
		return int_parse(key->s, key->n, &i);
	return schema_fits(t, key);
}

static bool fits_map(const struct type *t, const struct value *v)
{
	if (v->kind != VALUE_MAP)
		return false;
	for (size_t i = 0; i < v->n; i++)
		if (!fits_key(t->key, v->items[2 * i]) ||
		    !schema_fits(t->item, v->items[2 * i + 1]))
			return false;
	return true;
}

/* Members may be missing (create's arguments, empty options), none may be
 * unknown. */
static bool fits_struct(const struct type *t, const struct value *v)
{
	const struct class_def *c = &schema_classes[t->id];

	for (size_t i = 0; i < v->n; i++) {
		const struct field_def *f = member_field(c, v->items[2 * i]);

		/* An event's snapshot is no field of its class. */
		if (!f && t->id == CLASS_event &&
		    value_is_str(v->items[2 * i], "snapshot"))
			continue;
		if (!f || !schema_fits(f->type, v->items[2 * i + 1]))
			return false;
	}
	return true;
}

static bool fits_record(const struct type *t, const struct value *v)
{
	if (v->kind == VALUE_RECORD)
		return v->record->cls == &schema_classes[t->id];
	return v->kind == VALUE_STRUCT && fits_struct(t, v);
}

bool schema_fits(const struct type *t, const struct value *v)
{
	switch (t->kind) {
	case TYPE_VOID:
		return v->kind == VALUE_VOID;
	case TYPE_STRING:
	case TYPE_REF:
		return v->kind == VALUE_STRING;
	case TYPE_INT:
		return v->kind == VALUE_INT;
	case TYPE_FLOAT:
		return v->kind == VALUE_FLOAT;
	case TYPE_BOOL:
		return v->kind == VALUE_BOOL;
	case TYPE_DATETIME:
		return v->kind == VALUE_DATETIME;
	case TYPE_ENUM:
		return v->kind == VALUE_STRING && enum_has(t->id, v->s);
	case TYPE_SET:
		return fits_set(t, v);
	case TYPE_MAP:
		return fits_map(t, v);
	case TYPE_RECORD:
		return fits_record(t, v);
	case TYPE_OPTION:
		return v->kind == VALUE_NIL || schema_fits(t->item, v);
	}
	xassert(false);
}
