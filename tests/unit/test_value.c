#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "schema/call.h"
#include "schema/record.h"
#include "schema/value.h"

#define _value_ _cleanup_(value_unrefp) struct value *

/* Seeded, so that a failure comes again (splitmix64's constants). */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static const struct field_def box_fields[] = {
	{ .name = "name_label" },
	{ .name = "secret", .flags = FIELD_INTERNAL },
	{ .name = "size" },
};
static const struct class_def box_class = {
	.name = "box", .fields = box_fields, .n_fields = 3
};

static struct record *box_new(const char *name, int64_t size)
{
	struct record *r = record_new(&box_class, value_stringz("ref-1"));

	record_set(r, 0, value_stringz(name));
	record_set(r, 1, value_stringz("hush"));
	record_set(r, 2, value_int(size));
	return r;
}

static void check_text(const struct value *v, const char *want)
{
	struct buf b = BUF_INIT;

	value_to_text(&b, v);
	assert_string_equal(buf_cstr(&b), want);
	buf_deinit(&b);
}

static unsigned refs_of(const struct value *v)
{
	return atomic_load(&((struct value *)v)->refs);
}

/* Building and reading. */

static void test_shared_constants(void **state)
{
	_value_ empty = value_string("abc", 0);
	_value_ null = value_stringz("OpaqueRef:NULL");
	_value_ none = value_set_new(0);
	_value_ unmapped = value_map_from(NULL, 0);

	assert_ptr_equal(empty, value_stringz(""));
	assert_ptr_equal(null, value_null_ref());
	assert_string_equal(value_str(null), "OpaqueRef:NULL");
	assert_int_equal(null->n, 14);
	assert_ptr_equal(none, value_set_empty());
	assert_ptr_equal(unmapped, value_map_empty());
	assert_ptr_equal(value_map_of(NULL), value_map_empty());
	assert_ptr_equal(value_set_of(NULL), value_set_empty());
	assert_int_equal(value_bool(true)->i, 1);
	assert_int_equal(value_bool(false)->i, 0);
	assert_int_equal(value_void()->kind, VALUE_VOID);
	assert_int_equal(value_nil()->kind, VALUE_NIL);
	/* Dropped more often than taken, they are still there. */
	for (int i = 0; i < 10; i++) {
		value_unref(value_void());
		value_unref(null);
	}
	assert_ptr_equal(value_ref(null), null);
	value_unref(NULL);
	assert_null(value_ref(NULL));
}

#define THREADS 4
#define TURNS 20000

static void *take_and_drop(void *arg)
{
	struct value *shared[] = { arg, value_null_ref(), value_bool(true),
				   value_set_empty() };

	for (int i = 0; i < TURNS; i++) {
		struct value *v = shared[i % 4];

		value_ref(v);
		if (i % 16 < 4)
			xassert(v->kind != VALUE_NIL);
		value_unref(v);
	}
	value_unref(arg);
	return NULL;
}

static void test_refs_across_threads(void **state)
{
	_value_ v = value_set_of("a", "b", NULL);
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
						take_and_drop, value_ref(v)),
				 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(refs_of(v), 1);
}

static void test_strings(void **state)
{
	char text[1000];

	for (size_t n = 0; n < sizeof(text); n++) {
		_value_ v = NULL;

		memset(text, 'x', n);
		v = value_string(text, n);
		assert_int_equal(v->n, n);
		assert_int_equal(strlen(v->s), n);
	}
	text[sizeof(text) - 1] = '\0';
	for (int n = 500; n < 520; n++) {
		_value_ v = value_printf("%.*s", n, text);

		assert_int_equal(v->n, n);
		assert_memory_equal(v->s, text, (size_t)n);
	}
}

static void test_string_reading(void **state)
{
	_value_ a = value_string("a\0b", 3);
	_value_ i = value_int(7);

	assert_false(value_is_str(a, "a"));
	assert_string_equal(value_str(i), "");
	assert_string_equal(value_str(NULL), "");
	assert_false(value_is_str(i, ""));
	assert_true(value_is_null_ref(NULL));
	assert_true(value_is_null_ref(i));
	assert_true(value_is_null_ref(value_stringz("")));
	assert_true(value_is_null_ref(value_null_ref()));
	assert_false(value_is_null_ref(a));
}

/* The order is that of unsigned bytes, a prefix before what it begins. */
static void test_string_order(void **state)
{
	static const struct { const char *s; size_t n; } in_order[] = {
		{ "", 0 }, { "\0", 1 }, { "A", 1 }, { "A\0", 2 }, { "AA", 2 },
		{ "a", 1 }, { "\x7f", 1 }, { "\xc3\xa9", 2 }, { "\xff", 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(in_order); i++) {
		_value_ a = value_string(in_order[i].s, in_order[i].n);

		for (size_t k = 0; k < ARRAY_LEN(in_order); k++) {
			_value_ b = value_string(in_order[k].s, in_order[k].n);
			int order = value_str_cmp(a, b);

			assert_int_equal((order > 0) - (order < 0),
					 (i > k) - (i < k));
			assert_int_equal(value_equal(a, b), i == k);
		}
	}
}

static void test_map_of(void **state)
{
	_value_ m = value_map_of("b", value_int(2), "a", value_int(1),
				 "c", value_int(3), "a", value_int(4),
				 "", value_bool(true), "a", value_int(5),
				 NULL);

	check_text(m, "(('' 'true') ('a' '5') ('b' '2') ('c' '3'))");
	assert_int_equal(value_get(m, "a")->i, 5);
	assert_int_equal(value_get_n(m, "bx", 1)->i, 2);
	assert_null(value_get(m, "aa"));
	assert_null(value_get(NULL, "a"));
	assert_null(value_get(value_set_empty(), "a"));
	assert_string_equal(value_get_str(m, "a"), "");
	assert_int_equal(value_get_int(m, "c", 9), 3);
	assert_int_equal(value_get_int(m, "d", 9), 9);
	assert_int_equal(value_get_int(m, "", 9), 1);
}

static void test_struct_of(void **state)
{
	_value_ s = value_struct_of("z", value_int(1), "a", value_set_empty(),
				    "", value_stringz("x"), NULL);

	check_text(s, "(('z' '1') ('a' ()) ('' 'x'))");
	assert_string_equal(value_get_str(s, ""), "x");
	assert_int_equal(value_get_int(s, "z", 0), 1);
	assert_int_equal(value_get_int(s, "a", -1), -1);
	assert_null(value_get(s, "y"));
}

/* The last of equal keys stays, however many there are and wherever. */
static void test_map_from_many(void **state)
{
	struct value **pairs = xcalloc(2 * 5000, sizeof(*pairs));
	int64_t last[700];
	uint64_t seed = 7;
	_value_ m = NULL;
	char key[16];

	memset(last, -1, sizeof(last));
	for (int64_t i = 0; i < 5000; i++) {
		size_t k = random_next(&seed) % 700;

		pairs[2 * i] = value_printf("k%zu", k);
		pairs[2 * i + 1] = value_int(i);
		last[k] = i;
	}
	m = value_map_from(pairs, 5000);
	free(pairs);
	for (size_t i = 1; i < m->n; i++)
		assert_true(value_str_cmp(m->items[2 * i - 2],
					  m->items[2 * i]) < 0);
	for (size_t k = 0; k < 700; k++) {
		snprintf(key, sizeof(key), "k%zu", k);
		assert_int_equal(value_get_int(m, key, -1), last[k]);
	}
}

/* Changing. */

static void test_map_with(void **state)
{
	_value_ m = value_map_of("b", value_int(2), "d", value_int(4), NULL);
	_value_ nine = value_int(9);
	static const char *const keys[] = { "a", "b", "c", "d", "e" };
	static const char *const want[] = {
		"(('a' '9') ('b' '2') ('d' '4'))", "(('b' '9') ('d' '4'))",
		"(('b' '2') ('c' '9') ('d' '4'))", "(('b' '2') ('d' '9'))",
		"(('b' '2') ('d' '4') ('e' '9'))",
	};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		_value_ key = value_stringz(keys[i]);
		_value_ with = value_map_with(m, key, nine);
		_value_ without = value_map_without(with, keys[i], 1);

		check_text(with, want[i]);
		assert_null(value_get(without, keys[i]));
		assert_int_equal(without->n, with->n - 1);
	}
	check_text(m, "(('b' '2') ('d' '4'))");
	assert_int_equal(refs_of(nine), 1);
}

static void test_map_down_to_empty(void **state)
{
	_value_ key = value_stringz("k");
	_value_ one = value_map_with(value_map_empty(), key, value_void());
	_value_ same = value_map_without(one, "x", 1);
	_value_ none = value_map_without(one, "k", 1);

	assert_ptr_equal(same, one);
	assert_ptr_equal(none, value_map_empty());
}

static void test_set_with(void **state)
{
	_value_ set = value_set_of("b", "a", NULL);
	_value_ a = value_stringz("a");
	_value_ c = value_stringz("c");
	_value_ same = value_set_with(set, a);
	_value_ more = value_set_with(set, c);
	_value_ less = value_set_without(more, a);
	_value_ untouched = value_set_without(less, a);
	_value_ one = value_set_with(value_set_empty(), a);
	_value_ none = value_set_without(one, a);

	assert_ptr_equal(same, set);
	check_text(more, "('b' 'a' 'c')");
	check_text(less, "('b' 'c')");
	assert_ptr_equal(untouched, less);
	assert_ptr_equal(none, value_set_empty());
	assert_true(value_set_has(more, c));
	assert_false(value_set_has(set, c));
}

#define SORTED_KEYS 60

static void test_sorted_against_model(void **state)
{
	struct value *set = value_set_empty(), *next;
	bool there[SORTED_KEYS] = { false };
	uint64_t seed = 99;

	for (int step = 0; step < 5000; step++) {
		uint64_t r = random_next(&seed);
		size_t k = r % SORTED_KEYS, count = 0;
		_value_ item = value_printf("%02zu", k);
		bool put = r >> 40 & 1;

		next = put ? value_sorted_with(set, item) :
			     value_sorted_without(set, item);
		assert_int_equal(next == set, there[k] == put);
		value_unref(set);
		set = next;
		there[k] = put;
		for (size_t i = 0; i < SORTED_KEYS; i++) {
			if (!there[i])
				continue;
			assert_true(count < set->n);
			assert_int_equal(atoi(set->items[count++]->s), i);
		}
		assert_int_equal(count, set->n);
	}
	value_unref(set);
}

/* Equality. */

/* One of each sort; no two are equal. */
static size_t all_sorts(struct value **out)
{
	struct record *r = box_new("b", 1);
	size_t n = 0;

	out[n++] = value_void();
	out[n++] = value_nil();
	out[n++] = value_stringz("");
	out[n++] = value_stringz("1");
	out[n++] = value_null_ref();
	out[n++] = value_string("a\0b", 3);
	out[n++] = value_int(1);
	out[n++] = value_int(INT64_MIN);
	out[n++] = value_int(INT64_MAX);
	out[n++] = value_datetime(1);
	out[n++] = value_count(1);
	out[n++] = value_bool(true);
	out[n++] = value_bool(false);
	out[n++] = value_float(1);
	out[n++] = value_float(0.0);
	out[n++] = value_float(-0.0);
	out[n++] = value_float(NAN);
	out[n++] = value_set_empty();
	out[n++] = value_map_empty();
	out[n++] = value_struct_new(0);
	out[n++] = value_set_of("a", "b", NULL);
	out[n++] = value_set_of("b", "a", NULL);
	out[n++] = value_set_of("a", NULL);
	out[n++] = value_map_of("a", value_int(1), NULL);
	out[n++] = value_map_of("a", value_int(2), NULL);
	out[n++] = value_map_of("b", value_int(1), NULL);
	out[n++] = value_struct_of("a", value_int(1), NULL);
	out[n++] = value_map_of("a", value_set_of("x", NULL), "b",
				value_map_of("c", value_float(0.1), NULL),
				NULL);
	out[n++] = value_record(r);
	record_unref(r);
	return n;
}

#define MAX_SORTS 40

static void drop_all(struct value **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		value_unref(v[i]);
}

static void test_equal(void **state)
{
	struct value *a[MAX_SORTS], *b[MAX_SORTS];
	size_t n = all_sorts(a);

	assert_int_equal(all_sorts(b), n);
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < n; k++) {
			if (value_equal(a[i], b[k]) != (i == k))
				fail_msg("%zu and %zu", i, k);
		}
		assert_false(value_equal(a[i], NULL));
	}
	assert_true(value_equal(NULL, NULL));
	drop_all(a, n);
	drop_all(b, n);
}

/* The binary form. */

static struct value *decode_all(const char *p, size_t n)
{
	/* Memory of exactly n bytes: reading past it is seen. */
	char *copy = xmalloc(n);
	struct reader r;
	struct value *v;

	if (n > 0)
		memcpy(copy, p, n);
	r = reader_of(copy, n);
	v = value_decode(&r);
	assert_int_equal(v == NULL, r.bad);
	if (v && r.p != r.end) {
		value_unref(v);
		v = NULL;
	}
	free(copy);
	return v;
}

static void check_round_trip(const struct value *v)
{
	struct buf b = BUF_INIT;
	_value_ back = NULL;

	value_encode(&b, v);
	back = decode_all(b.data, b.len);
	assert_non_null(back);
	if (v->kind == VALUE_RECORD)
		check_text(back, "(('name_label' 'b') ('size' '1'))");
	else
		assert_true(value_equal(back, v));
	for (size_t n = 0; n < b.len; n++)
		assert_null(decode_all(b.data, n));
	buf_deinit(&b);
}

static void test_round_trip(void **state)
{
	struct value *v[MAX_SORTS];
	size_t n = all_sorts(v);

	for (size_t i = 0; i < n; i++)
		check_round_trip(v[i]);
	drop_all(v, n);
	for (unsigned bit = 0; bit < 64; bit++) {
		_value_ up = value_int((int64_t)((uint64_t)1 << bit));
		_value_ down = value_int((int64_t)(0 - ((uint64_t)1 << bit)));
		_value_ below = value_int((int64_t)(((uint64_t)1 << bit) - 1));

		check_round_trip(up);
		check_round_trip(down);
		check_round_trip(below);
	}
}

/* Logs and snapshots of older versions hold these bytes. */
static void test_form_is_pinned(void **state)
{
	static const char want[] =
		"\x07\x03"
		"\x01" "a" "\x06\x05" "\x00" "\x0b" "\x04\x01" "\x04\x00"
			"\x01\x02" "hi"
		"\x01" "b" "\x08\x02" "\x01" "z" "\x02\x03"
			"\x01" "d" "\x05\xc8\x01"
		"\x01" "c" "\x06\x02" "\x03\0\0\0\0\0\0\xf0\x3f" "\x0a\x02";
	_value_ v = NULL;
	struct value *a = value_set_new(5), *c = value_set_new(2);
	struct buf b = BUF_INIT;

	a->items[0] = value_void();
	a->items[1] = value_nil();
	a->items[2] = value_bool(true);
	a->items[3] = value_bool(false);
	a->items[4] = value_stringz("hi");
	c->items[0] = value_float(1.0);
	c->items[1] = value_count(1);
	v = value_map_of("a", a, "b",
			 value_struct_of("z", value_int(-2), "d",
					 value_datetime(100), NULL),
			 "c", c, NULL);
	value_encode(&b, v);
	assert_int_equal(b.len, sizeof(want) - 1);
	assert_memory_equal(b.data, want, b.len);
	buf_deinit(&b);
}

static void test_decode_refuses(void **state)
{
	static const struct { const char *s; size_t n; } bad[] = {
		{ "\x09", 1 },			/* RECORD */
		{ "\x0c", 1 }, { "\xff", 1 },	/* no such kind */
		{ "\x04\x02", 2 },		/* BOOL 2 */
		{ "\x01\x03" "ab", 4 },		/* STRING past the end */
		{ "\x01\x82\x00" "ab", 5 },	/* a length not the shortest */
		{ "\x02\x80\x00", 3 },		/* an INT not the shortest */
		{ "\x06\x02\x00", 3 },		/* SET short of one */
		{ "\x06\xff\xff\xff\xff\x0f\x00", 7 }, /* of 2^32 - 1 */
		{ "\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", 12 },
		{ "\x07\x01\x00", 3 },		/* MAP without a value */
		{ "\x07\x02\x01" "b\x00\x01" "a\x00", 8 }, /* not sorted */
		{ "\x07\x02\x01" "a\x00\x01" "a\x00", 8 }, /* twice */
		{ "\x08\x02\x01" "a\x00", 5 },	/* STRUCT short of one */
		{ "\x03\0\0\0\0\0\0\xf0", 8 },	/* seven bytes of FLOAT */
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		_value_ v = decode_all(bad[i].s, bad[i].n);

		if (v)
			fail_msg("number %zu", i);
	}
}

/* `depth` sets, each in the other, and a void in the innermost. */
static struct value *decode_nested(unsigned depth)
{
	struct buf b = BUF_INIT;
	struct value *v;

	for (unsigned i = 0; i < depth; i++)
		buf_append(&b, "\x06\x01", 2);
	buf_put_u8(&b, VALUE_VOID);
	v = decode_all(b.data, b.len);
	buf_deinit(&b);
	return v;
}

static void test_depth(void **state)
{
	_value_ deepest = decode_nested(VALUE_MAX_DEPTH);
	struct buf b = BUF_INIT;

	assert_non_null(deepest);
	check_round_trip(deepest);
	assert_null(decode_nested(VALUE_MAX_DEPTH + 1));
	assert_null(decode_nested(1000000));
	value_to_text(&b, deepest);
	assert_int_equal(b.len, 2 * VALUE_MAX_DEPTH + 2);
	buf_deinit(&b);
}

/* Whatever bytes decode, they are the one encoding of what they mean. */
static bool check_bytes(const char *p, size_t n)
{
	struct buf b = BUF_INIT;
	char *copy = xmalloc(n);
	struct reader r;
	_value_ v = NULL;
	size_t used;

	memcpy(copy, p, n);
	r = reader_of(copy, n);
	v = value_decode(&r);
	used = (size_t)(r.p - copy);
	if (v) {
		value_encode(&b, v);
		assert_int_equal(b.len, used);
		assert_memory_equal(b.data, copy, used);
		value_to_text(&b, v);
	} else {
		assert_true(r.bad);
	}
	buf_deinit(&b);
	free(copy);
	return v != NULL;
}

static void test_decode_random(void **state)
{
	unsigned taken = 0, tries = 200000;
	uint64_t seed = 1;
	char bytes[64];

	for (unsigned i = 0; i < tries; i++) {
		uint64_t r = random_next(&seed);
		size_t n = 1 + r % sizeof(bytes);
		/* Small numbers make tags and lengths that go somewhere. */
		unsigned mask = r >> 20 & 1 ? 0xff : 0x0f;

		for (size_t k = 0; k < n; k++)
			bytes[k] = (char)(random_next(&seed) & mask);
		taken += check_bytes(bytes, n);
	}
	/* Else the loop has tested nothing but the first byte. */
	assert_in_range(taken, tries / 10, tries - tries / 10);
}

static void test_decode_mutated(void **state)
{
	struct value *v[MAX_SORTS];
	size_t n = all_sorts(v);
	_value_ all = value_set_new(n);
	struct buf b = BUF_INIT;
	uint64_t seed = 2;

	memcpy(all->items, v, n * sizeof(*v));
	value_encode(&b, all);
	for (size_t at = 0; at < b.len; at++) {
		char was = b.data[at];

		for (unsigned c = 0; c < 256; c++) {
			b.data[at] = (char)c;
			check_bytes(b.data, b.len);
		}
		b.data[at] = was;
	}
	for (unsigned i = 0; i < 20000; i++) {
		struct buf copy = BUF_INIT;

		buf_append(&copy, b.data, b.len);
		for (unsigned k = random_next(&seed) % 5; k < 6; k++)
			copy.data[random_next(&seed) % copy.len] =
				(char)random_next(&seed);
		check_bytes(copy.data, copy.len);
		buf_deinit(&copy);
	}
	buf_deinit(&b);
}

/* The text form. */

static void test_text(void **state)
{
	_value_ m = value_map_of("it's", value_stringz("a\\b"),
				 "set", value_set_of("x", "y'z", NULL), NULL);
	_value_ f = value_float(0.5);
	_value_ d = value_datetime(1514901954);
	_value_ s = value_stringz("it's \\");
	_value_ big = value_int(INT64_MIN);

	check_text(m, "(('it\\'s' 'a\\\\b') ('set' ('x' 'y\\'z')))");
	check_text(f, "0.5");
	check_text(d, "20180102T14:05:54Z");
	check_text(s, "it's \\");
	check_text(big, "-9223372036854775808");
	check_text(value_bool(true), "true");
	check_text(value_bool(false), "false");
	check_text(value_void(), "");
	check_text(value_set_empty(), "()");
	check_text(value_map_empty(), "()");
}

/* Records. */

static void test_record(void **state)
{
	struct record *r = box_new("first", 1), *copy;
	_value_ v = value_record(r);

	r->created = 5;
	r->modified = 6;
	copy = record_copy(r);
	assert_int_equal(atomic_load(&r->refs), 2);
	assert_int_equal(atomic_load(&copy->refs), 1);
	assert_ptr_equal(copy->fields[0], r->fields[0]);
	assert_int_equal(refs_of(r->fields[0]), 2);
	record_set(copy, 0, value_stringz("second"));
	assert_string_equal(record_str(r, 0), "first");
	assert_string_equal(record_str(copy, 0), "second");
	assert_int_equal(record_int(copy, 2), 1);
	assert_int_equal(copy->created, 5);
	assert_int_equal(copy->modified, 6);
	assert_ptr_equal(copy->ref, r->ref);
	check_text(v, "(('name_label' 'first') ('size' '1'))");
	/* The value keeps the record. */
	record_unref(r);
	assert_string_equal(record_str(v->record, 0), "first");
	record_unref(copy);
	record_unref(NULL);
}

static void test_record_unfilled(void **state)
{
	_cleanup_(record_unrefp) struct record *r =
		record_new(&box_class, value_null_ref());

	record_set(r, 1, value_stringz("only one"));
	assert_null(r->fields[0]);
}

/* Calls. */

static unsigned calls_done;

static void count_done(struct call *c)
{
	calls_done += c->owner == &calls_done;
}

static void test_call(void **state)
{
	struct call *c = call_new();

	c->name = xstrdup("VM.start");
	c->session = value_stringz("s");
	c->args[0] = value_int(1);
	c->args[1] = value_set_of("x", NULL);
	c->n_args = 2;
	c->owner = &calls_done;
	c->done = count_done;
	call_reply(c, value_stringz("fine"));
	assert_int_equal(calls_done, 1);
	assert_string_equal(value_str(c->result), "fine");
	assert_null(c->error);
	call_free(c);
	call_free(NULL);
}

static void test_call_fail(void **state)
{
	struct call *c = call_new();
	_value_ bare = api_error("SESSION_INVALID", NULL);

	call_fail(c, "HANDLE_INVALID", "VM", "OpaqueRef:x", NULL);
	check_text(c->error, "('HANDLE_INVALID' 'VM' 'OpaqueRef:x')");
	assert_null(c->result);
	check_text(bare, "('SESSION_INVALID')");
	call_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_constants),
		cmocka_unit_test(test_refs_across_threads),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_string_reading),
		cmocka_unit_test(test_string_order),
		cmocka_unit_test(test_map_of),
		cmocka_unit_test(test_struct_of),
		cmocka_unit_test(test_map_from_many),
		cmocka_unit_test(test_map_with),
		cmocka_unit_test(test_map_down_to_empty),
		cmocka_unit_test(test_set_with),
		cmocka_unit_test(test_sorted_against_model),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_form_is_pinned),
		cmocka_unit_test(test_decode_refuses),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_decode_random),
		cmocka_unit_test(test_decode_mutated),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_record_unfilled),
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_call_fail),
	};

	return cmocka_run_group_tests_name("value", tests, NULL, NULL);
}
