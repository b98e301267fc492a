/* JSON as values of the job protocol, for tests. */
#ifndef TESTS_XEN_JSON_VALUE_H
#define TESTS_XEN_JSON_VALUE_H

#include <json-c/json.h>
#include <string.h>

#include "schema/value.h"

static struct value *of_json(struct json_object *o, const char *name);

/* These are maps in the protocol, all other objects structs. */
static bool is_map(const char *name)
{
	static const char *const maps[] = { "xenstore", "platform",
					    "other_config", "hvm_boot" };

	for (size_t i = 0; i < ARRAY_LEN(maps); i++)
		if (!strcmp(name, maps[i]))
			return true;
	return false;
}

static struct value *of_object(struct json_object *o, const char *name)
{
	size_t n = (size_t)json_object_object_length(o), i = 0;
	struct value **pairs = xcalloc(2 * n + 1, sizeof(*pairs));
	struct value *v;

	json_object_object_foreach(o, key, member) {
		pairs[i++] = value_stringz(key);
		pairs[i++] = of_json(member, key);
	}
	if (is_map(name)) {
		v = value_map_from(pairs, n);
	} else {
		v = value_struct_new(n);
		memcpy(v->items, pairs, 2 * n * sizeof(*pairs));
	}
	free(pairs);
	return v;
}

static struct value *of_array(struct json_object *o)
{
	struct value *v = value_set_new(json_object_array_length(o));

	for (size_t i = 0; i < v->n; i++)
		v->items[i] = of_json(json_object_array_get_idx(o, i), "");
	return v;
}

static struct value *of_json(struct json_object *o, const char *name)
{
	switch (json_object_get_type(o)) {
	case json_type_boolean:
		return value_bool(json_object_get_boolean(o));
	case json_type_int:
		return value_int(json_object_get_int64(o));
	case json_type_object:
		return of_object(o, name);
	case json_type_array:
		return of_array(o);
	default:
		return value_stringz(json_object_get_string(o));
	}
}

#endif
