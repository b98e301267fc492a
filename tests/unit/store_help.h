/* What the tests of the store and of its images share: a seeded world, random
 * values of any type of the schema, and random transactions over a small set
 * of objects, so that they meet. Include after <cmocka.h>.
 */
#ifndef TESTS_UNIT_STORE_HELP_H
#define TESTS_UNIT_STORE_HELP_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/env.h"
#include "base/text.h"
#include "raftdb/store.h"
#include "raftdb/store_impl.h"
#include "schema/gen/schema_ids.h"

#define _txn_ _cleanup_(txn_freep) struct txn *
#define _value_ _cleanup_(value_unrefp) struct value *
#define CLS(name) (&schema_classes[CLASS_##name])

static uint64_t world_seed = 1;

/* splitmix64's constants */
static uint64_t world_next(void)
{
	uint64_t z = world_seed += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static _unused_ unsigned pick(unsigned n)
{
	return (unsigned)(world_next() % n);
}

static int64_t world_time(void *data)
{
	return 1700000000000;
}

static void world_random(void *data, void *out, size_t n)
{
	for (uint8_t *p = out; n > 0; n--)
		*p++ = (uint8_t)world_next();
}

static _unused_ void world_start(uint64_t seed)
{
	static const struct env_ops ops = { world_time, world_time,
					    world_random, NULL };

	world_seed = seed;
	env_replace(&ops);
}

/* SEED in the environment tries another world. */
static _unused_ uint64_t world_seed_or(uint64_t otherwise)
{
	const char *s = getenv("SEED");

	return s ? strtoull(s, NULL, 10) : otherwise;
}

static _unused_ double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Classes between which there are relations of all kinds. */
static const int16_t world_classes[] = {
	CLASS_VM, CLASS_VBD, CLASS_VDI, CLASS_SR, CLASS_host, CLASS_task,
	CLASS_PCI, CLASS_VM_group, CLASS_pool_update, CLASS_PGPU,
	CLASS_VGPU_type, CLASS_VM_metrics, CLASS_PIF, CLASS_network, CLASS_role,
	CLASS_job, CLASS_host_metrics, CLASS_SM, CLASS_PBD, CLASS_session,
};
#define WORLD_OBJECTS 25 /* of a class */

/* The i-th object of a class, whether it exists or not. */
static _unused_ const char *world_ref(int cls, unsigned i)
{
	static char refs[4][64];
	static unsigned turn;
	char *ref = refs[turn++ % 4];

	snprintf(ref, sizeof(refs[0]), "OpaqueRef:%s-%u",
		 schema_classes[cls].name, i);
	return ref;
}

static _unused_ int world_class(void)
{
	return world_classes[pick(ARRAY_LEN(world_classes))];
}

static struct value *random_value(const struct type *t);

static struct value *random_string(void)
{
	static const char *const some[] = {
		"", "a", "b", "web", "a \"quoted\" \\ text", "caf\xc3\xa9",
		"\t\n\r", "'", "\x01\x1f\x7f", "\xf0\x9f\x98\x80", "true", "-0",
		"1e5", "OpaqueRef:NULL", "\xff\xfe not utf-8",
	};
	unsigned i = pick(ARRAY_LEN(some) + 2);

	if (i == ARRAY_LEN(some))
		return value_string("nul\0inside", 10);
	if (i > ARRAY_LEN(some))
		return value_printf("text %u", pick(1000));
	return value_stringz(some[i]);
}

static int64_t random_int(void)
{
	static const int64_t some[] = { 0, 1, -1, INT64_MAX, INT64_MIN, 1 << 20,
					0x100000000, 1700000000 };
	unsigned i = pick(ARRAY_LEN(some) + 1);

	return i < ARRAY_LEN(some) ? some[i] : (int64_t)world_next();
}

static struct value *random_float(void)
{
	static const double some[] = { 0.0, -0.0, 1.0, 0.1, 1e300, 5e-324,
				       1e15, 9007199254740993.0, -2.5, NAN,
				       INFINITY, -INFINITY };
	unsigned i = pick(ARRAY_LEN(some) + 1);
	uint64_t bits = world_next();
	double d;

	memcpy(&d, &bits, sizeof(d));
	return value_float(i < ARRAY_LEN(some) ? some[i] : d);
}

static struct value *random_ref(int cls)
{
	unsigned i = pick(12);

	if (i == 0)
		return value_null_ref();
	if (i == 1)
		return value_stringz("");
	if (i == 2)
		cls = world_class();
	return value_stringz(world_ref(cls, pick(WORLD_OBJECTS)));
}

static struct value *random_set(const struct type *t)
{
	struct value *v = value_set_new(pick(4));

	for (size_t i = 0; i < v->n; i++)
		v->items[i] = random_value(t->item);
	return v;
}

static struct value *random_key(const struct type *t)
{
	return t->kind == TYPE_INT ? value_printf("%u", pick(9)) :
				     random_value(t);
}

static struct value *random_map(const struct type *t)
{
	struct value *pairs[8];
	unsigned n = pick(4);

	for (unsigned i = 0; i < n; i++) {
		pairs[2 * i] = random_key(t->key);
		pairs[2 * i + 1] = random_value(t->item);
	}
	return value_map_from(pairs, n);
}

static struct value *random_value(const struct type *t)
{
	switch (t->kind) {
	case TYPE_INT:
		return value_int(random_int());
	case TYPE_DATETIME:
		return value_datetime(random_int());
	case TYPE_FLOAT:
		return random_float();
	case TYPE_BOOL:
		return value_bool(pick(2));
	case TYPE_ENUM:
		return value_stringz(schema_enums[t->id].values[pick(
			schema_enums[t->id].n_values)]);
	case TYPE_REF:
		return random_ref(t->id);
	case TYPE_SET:
		return random_set(t);
	case TYPE_MAP:
		return random_map(t);
	default:
		return random_string();
	}
}

/* A field that operations may write; mostly one with a relation. */
static _unused_ unsigned random_field(const struct class_def *c)
{
	for (;;) {
		unsigned f = pick(c->n_fields);

		if (field_is_derived(&c->fields[f]) ||
		    (c->fields[f].relation == RELATION_NONE && pick(3) > 0))
			continue;
		if ((int)f != c->f_uuid || pick(10) == 0)
			return f;
	}
}

/* An object that exists, or that does not: nearly always. */
static unsigned pick_object(const struct store *s, int cls, bool exists)
{
	unsigned i = pick(WORLD_OBJECTS);

	for (unsigned tries = 0; tries < 6; tries++) {
		if (!store_get(s, world_ref(cls, i)) == !exists)
			break;
		i = pick(WORLD_OBJECTS);
	}
	return i;
}

static void add_create(struct txn *t, const struct store *s)
{
	const struct class_def *c = &schema_classes[world_class()];
	unsigned i = pick_object(s, c->id, false);
	const char *ref = world_ref(c->id, i);

	txn_create(t, c, ref);
	if (pick(40) > 0)
		txn_set(t, c, ref, (unsigned)c->f_uuid,
			value_printf("uuid-%d-%u", c->id, i));
}

static void add_set(struct txn *t, const struct store *s)
{
	const struct class_def *c = &schema_classes[world_class()];
	unsigned f = random_field(c);
	const char *ref = world_ref(c->id, pick_object(s, c->id, true));
	const struct type *type = c->fields[f].type;

	if (type->kind == TYPE_SET && pick(2)) {
		if (pick(2))
			txn_set_add(t, c, ref, f, random_value(type->item));
		else
			txn_set_remove(t, c, ref, f, random_value(type->item));
		return;
	}
	if (type->kind == TYPE_MAP && pick(4)) {
		_value_ key = random_key(type->key);

		if (pick(3) == 0)
			txn_map_remove(t, c, ref, f, value_str(key));
		else if (pick(2))
			txn_map_add(t, c, ref, f, value_str(key),
				    random_value(type->item));
		else
			txn_map_put(t, c, ref, f, value_str(key),
				    random_value(type->item));
		return;
	}
	txn_set(t, c, ref, f, random_value(type));
}

/* One to five operations; enough of the transactions fail as a whole. */
static _unused_ struct txn *random_txn(const struct store *s)
{
	struct txn *t = txn_new("somebody");
	unsigned n = 1 + pick(5);
	int cls = world_class();

	if (pick(20) == 0)
		txn_guard_exists(t, NULL,
				 world_ref(world_class(), pick(WORLD_OBJECTS)));
	if (pick(20) == 0 && store_last(s, cls))
		txn_guard_version(t, store_last(s, cls));
	for (unsigned i = 0; i < n; i++) {
		unsigned what = pick(20);

		cls = world_class();
		if (what < 3)
			add_create(t, s);
		else if (what < 5)
			txn_destroy(t, world_ref(cls, pick_object(s, cls,
								  true)));
		else if (what < 6)
			txn_touch(t, world_ref(cls, pick_object(s, cls, true)));
		else
			add_set(t, s);
	}
	return t;
}

/* A VM and so on with a uuid made from its ref. */
static _unused_ void put_new(struct txn *t, const struct class_def *c,
			     const char *ref)
{
	txn_create(t, c, ref);
	txn_set(t, c, ref, (unsigned)c->f_uuid, value_printf("u-%s", ref));
}

static _unused_ struct txn_result apply_free(struct store *s, struct txn *t)
{
	struct txn_result r = store_apply(s, t);

	txn_free(t);
	return r;
}

static _unused_ void apply_new(struct store *s, const struct class_def *c,
			       const char *ref)
{
	struct txn *t = txn_new("test");

	put_new(t, c, ref);
	assert_int_equal(apply_free(s, t).status, TXN_OK);
}

static _unused_ struct txn_result apply_set(struct store *s,
					    const struct class_def *c,
					    const char *ref, unsigned field,
					    struct value *v)
{
	struct txn *t = txn_new("test");

	txn_set(t, c, ref, field, v);
	return apply_free(s, t);
}

static _unused_ void assert_digest(const struct store *a, const struct store *b)
{
	assert_true(hash128_equal(store_digest(a), store_digest(b)));
}

static _unused_ void assert_text(const struct value *v, const char *text)
{
	struct buf b = BUF_INIT;

	value_to_text(&b, v);
	assert_string_equal(buf_cstr(&b), text);
	buf_deinit(&b);
}

static _unused_ void assert_field(const struct store *s, const char *ref,
				  unsigned field, const char *text)
{
	const struct record *r = store_get(s, ref);

	assert_non_null(r);
	assert_text(r->fields[field], text);
}

#endif
