/* The object model as data. The tables are generated from schema/class/ by
 * schema/generate.py into schema/gen/ (committed); nothing here is control
 * flow. Classes, fields and methods are found by name in O(1), by number
 * through the generated enums of schema/gen/schema_ids.h:
 *   CLASS_VM                  index into schema_classes[]
 *   F_VM_power_state          index into that class's fields
 *   M_VM_start                index into schema_methods[]
 */
#ifndef SCHEMA_SCHEMA_H
#define SCHEMA_SCHEMA_H

#include "base/util.h"
#include "schema/value.h"

enum type_kind {
	TYPE_VOID,
	TYPE_STRING,
	TYPE_INT,
	TYPE_FLOAT,
	TYPE_BOOL,
	TYPE_DATETIME,
	TYPE_ENUM,
	TYPE_REF,
	TYPE_SET,
	TYPE_MAP,
	TYPE_RECORD,
	TYPE_OPTION,
};

struct enum_def {
	const char *name;
	const char *const *values;
	unsigned n_values;
};

struct type {
	enum type_kind kind;
	int id;                  /* enum number, or class number of REF/RECORD */
	const struct type *key;  /* MAP */
	const struct type *item; /* SET, MAP, OPTION */
	const char *text;        /* as written in the schema: "VM ref set" */
};

enum field_qualifier { FIELD_RW, FIELD_CONSTRUCTOR, FIELD_RUNTIME };

enum field_flag {
	FIELD_INTERNAL = 1 << 0,  /* never on the wire */
	FIELD_VOLATILE = 1 << 1,  /* the reference does not keep it on disk */
	FIELD_IGNORE_FK = 1 << 2, /* set of refs stored as it is */
	FIELD_EFFECT = 1 << 3,    /* its setter does more than write */
	FIELD_DEFAULT = 1 << 4,   /* has a default: create may leave it out */
};

enum relation_kind {
	RELATION_NONE,
	RELATION_ONE,  /* this is the single reference; `other` the derived set */
	RELATION_MANY, /* this set is derived from the single references `other` */
	RELATION_BOTH, /* many-many: a set on both sides, kept in step */
};

struct map_key_role {
	const char *key; /* a trailing * is a prefix */
	uint8_t roles;   /* enum role_set */
};

struct field_def {
	const char *name;    /* wire name: name_label */
	const char *db_name; /* name__label */
	const struct type *type;
	const char *doc;
	const char *since;
	const char *default_json; /* JSON text; NULL if none is declared */
	enum field_qualifier qualifier;
	unsigned flags;
	uint8_t readers, writers; /* enum role_set */
	enum relation_kind relation;
	/* Of the relation, else -1. A set bound to itself (subject.roles,
	 * role.subroles) is RELATION_NONE with itself here: stored as given. */
	int16_t other_class, other_field;
	const struct map_key_role *map_keys;
	unsigned n_map_keys;
};

enum method_kind {
	METHOD_CUSTOM, /* has a handler of its own (or is NOT_IMPLEMENTED) */
	METHOD_GET,
	METHOD_SET,
	METHOD_ADD,
	METHOD_REMOVE,
	METHOD_ADD_TO,
	METHOD_REMOVE_FROM,
	METHOD_GET_RECORD,
	METHOD_GET_BY_UUID,
	METHOD_GET_BY_NAME_LABEL,
	METHOD_GET_ALL,
	METHOD_GET_ALL_WHERE,
	METHOD_GET_ALL_RECORDS,
	METHOD_GET_ALL_RECORDS_WHERE,
	METHOD_CREATE,
	METHOD_DESTROY,
	METHOD_KIND_MAX
};

enum method_flag {
	METHOD_ASYNC = 1 << 0,
	METHOD_SESSION = 1 << 1,
	METHOD_HIDDEN = 1 << 2,
	METHOD_POOL_INTERNAL = 1 << 3,
	METHOD_EMERGENCY = 1 << 4,
	METHOD_SECRET = 1 << 5, /* parameters stay out of logs */
	METHOD_REMOVED = 1 << 6,
	METHOD_LOCAL = 1 << 7,  /* local_dispatch */
	METHOD_NO_CURRENT_OPERATIONS = 1 << 8,
};

struct param_def {
	const char *name;
	const struct type *type;
	const char *default_json; /* NULL: required */
	bool secret;
};

struct method_def {
	const char *name; /* wire name: VM.start */
	int16_t cls;
	int16_t field; /* of METHOD_GET..REMOVE_FROM, else -1 */
	enum method_kind kind;
	unsigned flags;
	uint8_t roles; /* enum role_set */
	const struct param_def *params; /* the session excluded */
	uint8_t n_params, n_required;
	const struct type *result;
	const char *const *errors; /* declared codes, NULL-terminated */
	const char *since;
	const char *state; /* published, prototyped, deprecated, removed */
	const char *doc;
	/* Guarded keys of add_to_/remove_from_ calls; the first that fits wins
	 * and replaces roles. */
	const struct map_key_role *map_keys;
	unsigned n_map_keys;
};

enum class_flag {
	CLASS_IN_DB = 1 << 0,
	CLASS_VOLATILE = 1 << 1, /* the reference drops its rows at restart */
	CLASS_CONSTRUCTOR = 1 << 2,
	CLASS_EVENTS = 1 << 3,
	CLASS_GET_ALL = 1 << 4,
	CLASS_PRIVATE = 1 << 5, /* ours: invisible on the wire */
	CLASS_STORED = 1 << 6,  /* the store keeps rows of it (in_db, private, message) */
};

struct class_def {
	const char *name;       /* VM_metrics */
	const char *event_name; /* vm_metrics */
	const char *doc;
	const char *since;
	int16_t id;
	unsigned flags;
	uint8_t message_roles, implicit_roles;
	const struct field_def *fields;
	uint16_t n_fields;
	int16_t f_uuid, f_name_label; /* -1 if it has none */
};

/* Generated. A role_set is an index into schema_role_sets[]; ROLES_LOCAL_ROOT
 * is the empty set (local superuser only). */
struct role_def {
	const char *name;
	const char *uuid;
	bool internal;
};
extern const struct role_def schema_roles[]; /* highest first */
extern const unsigned schema_n_roles;
struct role_set_def {
	const char *name;  /* "vm-admin" */
	unsigned role_bits; /* bit i = schema_roles[i] */
};
extern const struct role_set_def schema_role_sets[];
extern const unsigned schema_n_role_sets;

extern const struct class_def schema_classes[];
extern const unsigned schema_n_classes; /* private ones are the last */
extern const struct method_def schema_methods[]; /* sorted by name (strcmp) */
extern const unsigned schema_n_methods;
extern const struct enum_def schema_enums[];
extern const unsigned schema_n_enums;
struct error_def {
	const char *code;
	const char *const *params; /* NULL-terminated; NULL: not declared */
};
extern const struct error_def schema_errors[]; /* sorted by code */
extern const unsigned schema_n_errors;
struct alert_def {
	const char *name; /* of a message object */
	int priority;     /* 1 = worst .. 5 = informational */
};
extern const struct alert_def schema_alerts[]; /* sorted by name */
extern const unsigned schema_n_alerts;

/* O(1); NULL if unknown. */
const struct class_def *schema_class(const char *name, size_t n);
const struct class_def *schema_class_nocase(const char *name, size_t n);
const struct method_def *schema_method(const char *name, size_t n);
/* By wire name or database name; -1 if unknown. */
int schema_field(const struct class_def *c, const char *name, size_t n);
const struct error_def *schema_error(const char *code);
const struct alert_def *schema_alert(const char *name);

/* The default of a field: its declared one, else the type's empty value ("", 0,
 * epoch, first enum member, empty set or map, OpaqueRef:NULL). Owned by the
 * caller; cached, so cheap. */
struct value *schema_field_default(const struct class_def *c, unsigned field);
struct value *schema_param_default(const struct method_def *m, unsigned param);
struct value *schema_empty(const struct type *t);

/* Turns a loosely typed value, as XML-RPC or JSON gave it (an int may be a
 * string, a date a string), into one of type t. Returns NULL and writes a
 * reason such as: Expected int, got string "abc". Every string, map keys and
 * set members too, has been checked by the parser already. A TYPE_RECORD
 * becomes a STRUCT with known members coerced and unknown ones dropped. */
struct value *schema_coerce(const struct type *t, const struct value *v,
			    char *reason, size_t reason_size);
/* Is v a value of type t exactly (what the store must hold)? */
bool schema_fits(const struct type *t, const struct value *v);

bool enum_has(int enum_id, const char *s);

#endif
