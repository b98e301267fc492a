/* Values of the API's types: immutable once shared, reference counted
 * (atomically: the core, the front threads and the snapshot worker hold the
 * same values), and the same in the store, in calls and in replies.
 *
 * Building: value_set_new()/value_map_new()/value_struct_new() give a value
 * that the builder may fill until it hands it to anyone else.
 * Ownership: "takes" = the callee owns the argument's reference afterwards.
 */
#ifndef SCHEMA_VALUE_H
#define SCHEMA_VALUE_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/map.h"

enum value_kind {
	VALUE_VOID,     /* a call's empty result */
	VALUE_STRING,   /* strings, refs, uuids and enum members alike */
	VALUE_INT,
	VALUE_FLOAT,
	VALUE_BOOL,
	VALUE_DATETIME, /* Unix seconds, UTC */
	VALUE_SET,      /* ordered as given, may be of anything */
	VALUE_MAP,      /* string keys, sorted bytewise, unique */
	VALUE_STRUCT,   /* member names in the order given (RPC only) */
	VALUE_RECORD,   /* a row's public fields (RPC replies only) */
	VALUE_COUNT,    /* an int that XML-RPC writes as <i4> */
	VALUE_NIL,      /* JSON null / XML-RPC nil (parsed input only) */
};

struct record;

struct value {
	atomic_uint refs;
	uint8_t kind; /* enum value_kind */
	uint32_t n;   /* bytes, elements, pairs or members; DATETIME: see below */
	union {
		int64_t i; /* INT, BOOL, DATETIME, COUNT */
		double d;
		struct record *record; /* owns a reference */
		/* [0]: any other bound is held against the reader by clang. */
		char s[0];              /* n bytes and a NUL */
		struct value *items[0]; /* SET: n; MAP, STRUCT: n pairs */
	};
};

struct value *value_ref(const struct value *v); /* NULL gives NULL */
void value_unref(struct value *v);              /* NULL is fine */
void value_unrefp(struct value **v);            /* for _cleanup_ */

struct value *value_void(void);
struct value *value_nil(void);
struct value *value_string(const char *s, size_t n);
struct value *value_stringz(const char *s);
struct value *value_printf(const char *fmt, ...) _printf_(1, 2);
struct value *value_int(int64_t i);
struct value *value_float(double d);
struct value *value_bool(bool b);
struct value *value_datetime(int64_t unix_seconds);
/* RPC replies only: written without the zone, as a clock on a wall shows it. */
struct value *value_localtime(int64_t unix_seconds);
struct value *value_count(int64_t i);
struct value *value_record(struct record *r); /* takes a reference of its own */
struct value *value_null_ref(void);           /* "OpaqueRef:NULL" */

/* A set of n elements, all NULL until the builder sets v->items[i]. */
struct value *value_set_new(size_t n);
/* NULL-terminated list of C strings. */
struct value *value_set_of(const char *first, ...);
/* From pairs in any order; takes keys and values; of equal keys the last
 * stays. pairs[2*i] is a string value. */
struct value *value_map_from(struct value **pairs, size_t n);
/* NULL-terminated list of C-string key, value pairs. */
struct value *value_map_of(const char *key, ...);
struct value *value_map_empty(void);
struct value *value_set_empty(void);
/* n members, pairs NULL until set: items[2*i] name (string), items[2*i+1]. */
struct value *value_struct_new(size_t n);
/* NULL-terminated list of const char *name, struct value *member (taken). */
struct value *value_struct_of(const char *name, ...);

/* Strings: borrowed NUL-terminated text; "" when v is not a string. */
const char *value_str(const struct value *v);
bool value_is_str(const struct value *v, const char *s);
bool value_is_null_ref(const struct value *v); /* also "" and not a string */

/* Borrowed member or NULL. Works on MAP and STRUCT; O(log n) on MAP. */
struct value *value_get(const struct value *v, const char *key);
struct value *value_get_n(const struct value *v, const char *key, size_t n);
const char *value_get_str(const struct value *v, const char *key); /* "" if none */
int64_t value_get_int(const struct value *v, const char *key, int64_t otherwise);

/* New map with key set / removed. Borrow everything. */
struct value *value_map_with(const struct value *map, const struct value *key,
			     const struct value *item);
struct value *value_map_without(const struct value *map, const char *key,
				size_t n);
/* Sets: by value_equal(). New set, or another reference of the same set when
 * nothing changes. */
bool value_set_has(const struct value *set, const struct value *item);
struct value *value_set_with(const struct value *set, const struct value *item);
struct value *value_set_without(const struct value *set,
				const struct value *item);
/* The same for sets that are kept sorted bytewise (sets of refs that the store
 * derives): binary search. */
struct value *value_sorted_with(const struct value *set, const struct value *item);
struct value *value_sorted_without(const struct value *set,
				   const struct value *item);

bool value_equal(const struct value *a, const struct value *b);
/* Bytewise order of two strings. */
int value_str_cmp(const struct value *a, const struct value *b);

/* Binary form, stable between versions and machines. RECORD encodes as the
 * struct of its public fields. */
void value_encode(struct buf *b, const struct value *v);
/* NULL when malformed, deeper than VALUE_MAX_DEPTH or promising more elements
 * than bytes remain. The caller owns the result. */
struct value *value_decode(struct reader *r);
#define VALUE_MAX_DEPTH 32

/* The text that filter expressions compare and that a column of the database
 * shows: strings as they are, ints in decimal, %.17g floats, true/false, dates,
 * sets and maps as ('a' 'b') and (('k' 'v')) with \ and ' escaped. */
void value_to_text(struct buf *b, const struct value *v);

#endif
