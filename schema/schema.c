/* Names, defaults and empty values: the reading half of the generated tables.
 *
 * A name is found with one hash, one shift and one comparison (tables.h); the
 * hash is FNV-1a with murmur3's finish, the same as name_hash() in generate.py.
 *
 * Defaults are JSON text in the tables. Each is parsed when it is first asked
 * for and then kept for the life of the process; two threads that parse the
 * same one at the same time agree by compare-and-swap.
 */
#include "schema/schema.h"

#include <json-c/json.h>
#include <string.h>

#include "schema/tables.h"

/* Names. */

static uint64_t hash_start(uint64_t seed)
{
	return 0xcbf29ce484222325 ^ (seed * 0x9e3779b97f4a7c15);
}

static uint64_t hash_byte(uint64_t h, uint8_t b)
{
	return (h ^ b) * 0x100000001b3;
}

static uint64_t hash_finish(uint64_t h)
{
	h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
	h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
	return h ^ (h >> 33);
}

static uint64_t hash_name(const char *name, size_t n, uint64_t seed)
{
	uint64_t h = hash_start(seed);

	for (size_t i = 0; i < n; i++)
		h = hash_byte(h, (uint8_t)name[i]);
	return hash_finish(h);
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static uint64_t hash_lower(const char *name, size_t n)
{
	uint64_t h = hash_start(0);

	for (size_t i = 0; i < n; i++)
		h = hash_byte(h, (uint8_t)lower(name[i]));
	return hash_finish(h);
}

/* The only row that can have the name of this hash; -1 if none can. */
static int index_row(const struct name_index *ix, uint64_t h)
{
	uint64_t shift = ix->shifts[h & ix->shift_mask];
	uint64_t slot = (h >> 32) + shift * ((h >> 16 & 0xffff) | 1);

	return ix->slots[slot & ix->slot_mask];
}

static bool equal_nocase(const char *low, const char *name, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (low[i] == '\0' || low[i] != lower(name[i]))
			return false;
	return low[n] == '\0';
}

const struct class_def *schema_class_nocase(const char *name, size_t n)
{
	int row = index_row(&schema_index_classes, hash_lower(name, n));

	/* The name of a class's events is its own in lower case. */
	if (row < 0 || !equal_nocase(schema_classes[row].event_name, name, n))
		return NULL;
	return &schema_classes[row];
}

/* No two classes differ in case only, so the exact name is a special case. */
const struct class_def *schema_class(const char *name, size_t n)
{
	const struct class_def *c = schema_class_nocase(name, n);

	return c && str_equal_n(c->name, name, n) ? c : NULL;
}

const struct method_def *schema_method(const char *name, size_t n)
{
	int row = index_row(&schema_index_methods, hash_name(name, n, 0));

	if (row < 0 || !str_equal_n(schema_methods[row].name, name, n))
		return NULL;
	return &schema_methods[row];
}

int schema_field(const struct class_def *c, const char *name, size_t n)
{
	uint64_t h = hash_name(name, n, (uint64_t)c->id + 1);
	int row = index_row(&schema_index_fields, h);
	const struct field_def *f;

	if (row < 0)
		return -1;
	f = &schema_fields[row];
	if (f < c->fields || f >= c->fields + c->n_fields ||
	    (!str_equal_n(f->name, name, n) &&
	     !str_equal_n(f->db_name, name, n)))
		return -1;
	return (int)(f - c->fields);
}

const struct error_def *schema_error(const char *code)
{
	uint64_t h = hash_name(code, strlen(code), 0);
	int row = index_row(&schema_index_errors, h);

	if (row < 0 || strcmp(schema_errors[row].code, code) != 0)
		return NULL;
	return &schema_errors[row];
}

const struct alert_def *schema_alert(const char *name)
{
	uint64_t h = hash_name(name, strlen(name), 0);
	int row = index_row(&schema_index_alerts, h);

	if (row < 0 || strcmp(schema_alerts[row].name, name) != 0)
		return NULL;
	return &schema_alerts[row];
}

bool enum_has(int enum_id, const char *s)
{
	const struct enum_def *e = &schema_enums[enum_id];

	for (unsigned i = 0; i < e->n_values; i++)
		if (strcmp(e->values[i], s) == 0)
			return true;
	return false;
}

/* Empty values and defaults. */

struct value *schema_empty(const struct type *t)
{
	switch (t->kind) {
	case TYPE_VOID:
		return value_void();
	case TYPE_STRING:
		return value_string("", 0);
	case TYPE_INT:
		return value_int(0);
	case TYPE_FLOAT:
		return value_float(0);
	case TYPE_BOOL:
		return value_bool(false);
	case TYPE_DATETIME:
		return value_datetime(0);
	case TYPE_ENUM:
		return value_stringz(schema_enums[t->id].values[0]);
	case TYPE_REF:
		return value_null_ref();
	case TYPE_SET:
		return value_set_empty();
	case TYPE_MAP:
		return value_map_empty();
	case TYPE_RECORD:
		return value_struct_new(0);
	case TYPE_OPTION:
		return value_nil();
	}
	xassert(false);
}

static struct value *from_json(struct json_object *json);

static struct value *from_json_array(struct json_object *json)
{
	size_t n = json_object_array_length(json);
	struct value *set = value_set_new(n);

	for (size_t i = 0; i < n; i++)
		set->items[i] = from_json(json_object_array_get_idx(json, i));
	return set;
}

static struct value *from_json_object(struct json_object *json)
{
	struct value *v;
	size_t i = 0;

	v = value_struct_new((size_t)json_object_object_length(json));
	json_object_object_foreach(json, name, member) {
		v->items[2 * i] = value_stringz(name);
		v->items[2 * i + 1] = from_json(member);
		i++;
	}
	return v;
}

static struct value *from_json(struct json_object *json)
{
	switch (json_object_get_type(json)) {
	case json_type_boolean:
		return value_bool(json_object_get_boolean(json));
	case json_type_double:
		return value_float(json_object_get_double(json));
	case json_type_int:
		return value_int(json_object_get_int64(json));
	case json_type_object:
		return from_json_object(json);
	case json_type_array:
		return from_json_array(json);
	case json_type_string:
		return value_stringz(json_object_get_string(json));
	case json_type_null:
		break;
	}
	return value_nil();
}

/* generate.py has checked that a default fits its type. The few that the API
 * declares wrongly (marked unfit there) count as the type's empty value, and so
 * does the "" of references: clients look for OpaqueRef:NULL. */
static struct value *make_default(const struct type *t, const char *text)
{
	_cleanup_(value_unrefp) struct value *loose = NULL;
	struct json_object *json;
	struct value *v;
	char reason[8];

	if (!text)
		return schema_empty(t);
	json = json_tokener_parse(text);
	xassert(json);
	loose = from_json(json);
	json_object_put(json);
	v = schema_coerce(t, loose, reason, sizeof(reason));
	if (v && t->kind == TYPE_REF && v->n == 0) {
		value_unref(v);
		v = NULL;
	}
	return v ? v : schema_empty(t);
}

typedef _Atomic(struct value *) cache_slot;

static cache_slot field_defaults[SCHEMA_FIELDS];
static cache_slot param_defaults[SCHEMA_PARAMS];

static struct value *cached_default(cache_slot *slot, const struct type *t,
				    const char *text)
{
	struct value *v = atomic_load_explicit(slot, memory_order_acquire);
	struct value *made;

	if (v)
		return value_ref(v);
	made = make_default(t, text);
	if (atomic_compare_exchange_strong(slot, &v, made))
		return value_ref(made);
	value_unref(made); /* another thread was faster */
	return value_ref(v);
}

struct value *schema_field_default(const struct class_def *c, unsigned field)
{
	const struct field_def *f = &c->fields[field];

	xassert(field < c->n_fields);
	return cached_default(&field_defaults[f - schema_fields], f->type,
			      f->default_json);
}

struct value *schema_param_default(const struct method_def *m, unsigned param)
{
	const struct param_def *p = &m->params[param];

	xassert(param < m->n_params);
	return cached_default(&param_defaults[p - schema_params], p->type,
			      p->default_json);
}
