#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/env.h"
#include "raftdb/txn.h"
#include "raftdb/txn_read.h"

#define _txn_ _cleanup_(txn_freep) struct txn *

/* Seeded, so that a failure comes again (splitmix64's constants). */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static const struct field_def box_fields[] = {
	{ .name = "name_label" }, { .name = "other_config" },
	{ .name = "tags" },
};
static const struct class_def box_class = {
	.name = "box", .fields = box_fields, .n_fields = 3
};

enum { NAME, CONFIG, TAGS };

/* Every kind of guard and operation once, in the order of their numbers. */
static struct txn *full_txn(void)
{
	struct txn *t = txn_new("root (task OpaqueRef:1)");
	struct record *r = record_new(&box_class, value_stringz("ref-a"));

	record_set(r, NAME, value_stringz("old"));
	r->modified = 300;
	txn_guard_exists(t, &box_class, "ref-a");
	txn_guard_absent(t, "ref-b");
	txn_guard_version(t, r);
	txn_guard_field(t, r, NAME);
	txn_guard_exists(t, NULL, "ref-c");
	record_unref(r);
	txn_create(t, &box_class, "ref-b");
	txn_destroy(t, "ref-a");
	txn_set(t, &box_class, "ref-b", NAME, value_stringz("caf\xc3\xa9"));
	txn_map_add(t, &box_class, "ref-b", CONFIG, "k", value_stringz("v"));
	txn_map_put(t, &box_class, "ref-b", CONFIG, "", value_stringz(""));
	txn_map_remove(t, &box_class, "ref-b", CONFIG, "gone");
	txn_set_add(t, &box_class, "ref-b", TAGS, value_stringz("new"));
	txn_set_remove(t, &box_class, "ref-b", TAGS, value_null_ref());
	txn_touch(t, "ref-b");
	return t;
}

struct want {
	const char *cls, *ref, *field, *key, *value;
	uint64_t version;
};

static const struct want want_guards[] = {
	{ "box", "ref-a", NULL, NULL, NULL, 0 },
	{ NULL, "ref-b", NULL, NULL, NULL, 0 },
	{ NULL, "ref-a", NULL, NULL, NULL, 300 },
	{ "box", "ref-a", "name_label", NULL, "old", 0 },
	{ NULL, "ref-c", NULL, NULL, NULL, 0 },
};

static const struct want want_ops[] = {
	{ "box", "ref-b", NULL, NULL, NULL, 0 },
	{ NULL, "ref-a", NULL, NULL, NULL, 0 },
	{ "box", "ref-b", "name_label", NULL, "caf\xc3\xa9", 0 },
	{ "box", "ref-b", "other_config", "k", "v", 0 },
	{ "box", "ref-b", "other_config", "", "", 0 },
	{ "box", "ref-b", "other_config", "gone", NULL, 0 },
	{ "box", "ref-b", "tags", NULL, "new", 0 },
	{ "box", "ref-b", "tags", NULL, "OpaqueRef:NULL", 0 },
	{ NULL, "ref-b", NULL, NULL, NULL, 0 },
};

static void check_part(struct txn_text got, const char *want)
{
	if (!want) {
		assert_null(got.s);
		return;
	}
	assert_non_null(got.s);
	assert_string_equal(got.s, want);
	assert_int_equal(got.n, strlen(want));
}

static void check_items(struct txn_iter *it, const struct want *want, size_t n)
{
	for (size_t i = 0; i < n; i++, want++) {
		assert_true(txn_iter_next(it));
		/* The fifth guard is a second GUARD_EXISTS. */
		assert_int_equal(it->item.kind, it->guards ? i % 4 : i);
		assert_int_equal(it->item.index, i);
		check_part(it->item.cls, want->cls);
		check_part(it->item.ref, want->ref);
		check_part(it->item.field, want->field);
		check_part(it->item.key, want->key);
		assert_int_equal(it->item.version, want->version);
		assert_int_equal(it->item.value != NULL, want->value != NULL);
		if (want->value)
			assert_true(value_is_str(it->item.value, want->value));
	}
	assert_false(txn_iter_next(it));
	assert_false(txn_iter_next(it));
	assert_false(it->r.bad);
	assert_null(it->item.value);
}

static void check_full(const struct txn *t)
{
	struct txn_iter it;

	txn_iter_guards(&it, t);
	check_items(&it, want_guards, ARRAY_LEN(want_guards));
	txn_iter_ops(&it, t);
	check_items(&it, want_ops, ARRAY_LEN(want_ops));
}

static struct txn *decode_all(const char *p, size_t n)
{
	/* Memory of exactly n bytes: reading past it is seen. */
	char *copy = xmalloc(n);
	struct reader r;
	struct txn *t;

	if (n > 0)
		memcpy(copy, p, n);
	r = reader_of(copy, n);
	t = txn_decode(&r);
	assert_int_equal(t == NULL, r.bad);
	if (t && r.p != r.end) {
		txn_free(t);
		t = NULL;
	}
	free(copy);
	return t;
}

static void test_new(void **state)
{
	_txn_ a = txn_new("me");
	_txn_ b = txn_new("");
	int64_t now = env_wall_ms();

	assert_memory_not_equal(a->id, b->id, TXN_ID_LEN);
	assert_string_equal(a->author, "me");
	assert_in_range(now - a->time_ms, 0, 10000);
	assert_true(txn_is_empty(a));
	txn_guard_absent(a, "x");
	assert_true(txn_is_empty(a));
	txn_touch(a, "x");
	assert_false(txn_is_empty(a));
	txn_free(NULL);
}

static void test_built_is_readable(void **state)
{
	_txn_ t = full_txn();

	check_full(t);
}

static void test_round_trip(void **state)
{
	_txn_ t = full_txn();
	_txn_ back = NULL;
	struct buf b = BUF_INIT, again = BUF_INIT;

	t->time_ms = -5;
	txn_encode(&b, t);
	assert_in_range(b.len, txn_size(t) - 64, txn_size(t));
	back = decode_all(b.data, b.len);
	assert_non_null(back);
	assert_memory_equal(back->id, t->id, TXN_ID_LEN);
	assert_int_equal(back->time_ms, -5);
	assert_string_equal(back->author, t->author);
	check_full(back);
	txn_encode(&again, back);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	buf_deinit(&again);
	buf_deinit(&b);
}

static void test_empty_round_trip(void **state)
{
	_txn_ t = txn_new("");
	_txn_ back = NULL;
	struct buf b = BUF_INIT;

	txn_encode(&b, t);
	assert_in_range(b.len, 1, txn_size(t));
	back = decode_all(b.data, b.len);
	assert_non_null(back);
	assert_true(txn_is_empty(back));
	buf_deinit(&b);
}

/* Many in one log entry, one behind the other. */
static void test_run_of_txns(void **state)
{
	struct buf b = BUF_INIT;
	struct reader r;

	for (int i = 0; i < 10; i++) {
		_txn_ t = full_txn();

		t->time_ms = i;
		txn_encode(&b, t);
	}
	r = reader_of(b.data, b.len);
	for (int i = 0; i < 10; i++) {
		_txn_ t = txn_decode(&r);

		assert_non_null(t);
		assert_int_equal(t->time_ms, i);
		check_full(t);
	}
	assert_ptr_equal(r.p, r.end);
	assert_null(txn_decode(&r));
	buf_deinit(&b);
}

/* Logs of older versions hold these bytes. */
static void test_form_is_pinned(void **state)
{
	static const char want[] =
		"\x01" "iiiiiiiiiiiiiiii" "\x39\x30\0\0\0\0\0\0"
		"\x02" "me\0" "\x01" "\x03"
		"\x04" "\x01" "\x01" "r\0"
		"\x29" "\x00" "\x03" "box\0" "\x01" "r\0"
		"\x03" "\x03" "box\0" "\x01" "r\0" "\x0c" "other_config\0"
			"\x01" "k\0" "\x04\x01"
		"\x01" "\x01" "q\0";
	_txn_ t = txn_new("me");
	struct buf b = BUF_INIT;

	memset(t->id, 'i', sizeof(t->id));
	t->time_ms = 12345;
	txn_guard_absent(t, "r");
	txn_create(t, &box_class, "r");
	txn_map_add(t, &box_class, "r", CONFIG, "k", value_bool(true));
	txn_destroy(t, "q");
	txn_encode(&b, t);
	assert_int_equal(b.len, sizeof(want) - 1);
	assert_memory_equal(b.data, want, b.len);
	buf_deinit(&b);
}

static void test_truncated_anywhere(void **state)
{
	_txn_ t = full_txn();
	struct buf b = BUF_INIT;

	txn_encode(&b, t);
	for (size_t n = 0; n < b.len; n++) {
		if (decode_all(b.data, n))
			fail_msg("%zu of %zu bytes", n, b.len);
	}
	buf_deinit(&b);
}

/* A list cut short whose outer length agrees with the cut. */
static void test_list_truncated_anywhere(void **state)
{
	_txn_ t = full_txn();
	size_t guards = t->guards.len, ops = t->body.len;
	struct buf b = BUF_INIT;

	for (size_t n = 0; n < guards + ops; n++) {
		t->guards.len = n < guards ? n : guards;
		t->body.len = n < guards ? ops : n - guards;
		b.len = 0;
		txn_encode(&b, t);
		if (decode_all(b.data, b.len))
			fail_msg("%zu", n);
	}
	t->guards.len = guards;
	t->body.len = ops;
	buf_deinit(&b);
}

static void check_refused(const struct txn *t, const char *why)
{
	struct buf b = BUF_INIT;

	txn_encode(&b, t);
	if (decode_all(b.data, b.len))
		fail_msg("%s", why);
	buf_deinit(&b);
}

static void test_counts_must_agree(void **state)
{
	_txn_ t = full_txn();

	t->n_ops++;
	check_refused(t, "an operation more");
	t->n_ops -= 2;
	check_refused(t, "an operation less");
	t->n_ops++;
	t->n_guards--;
	check_refused(t, "a guard less");
	t->n_guards = UINT32_MAX;
	check_refused(t, "four thousand million guards");
}

static void check_op_bytes(const char *p, size_t n, bool want)
{
	_txn_ t = txn_new("me");
	_txn_ back = NULL;
	struct buf b = BUF_INIT;

	buf_append(&t->body, p, n);
	t->n_ops = 1;
	txn_encode(&b, t);
	back = decode_all(b.data, b.len);
	assert_int_equal(back != NULL, want);
	buf_deinit(&b);
}

static void test_malformed_ops(void **state)
{
	check_op_bytes("\x01\x01q\0", 4, true);
	check_op_bytes("\x01\x00\0", 3, true);		/* the ref "" */
	check_op_bytes("\x09\x01q\0", 4, false);	/* no such kind */
	check_op_bytes("\xff\x01q\0", 4, false);
	check_op_bytes("\x01\x01qx", 4, false);		/* no NUL */
	check_op_bytes("\x01\x02q\0\0", 5, false);	/* a NUL inside */
	check_op_bytes("\x01\x02q\0", 4, false);	/* past the end */
	check_op_bytes("\x01\x01q\0x", 5, false);	/* more than one */
	check_op_bytes("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01q\0", 13,
		       false);
	check_op_bytes("\x00\x01" "c\0\x01q\0", 7, true);
	check_op_bytes("\x00\x00\0\x01q\0", 6, false);	/* the class "" */
	check_op_bytes("\x02\x01" "c\0\x01q\0\x01" "f\0\x00", 11, true);
	check_op_bytes("\x02\x01" "c\0\x01q\0\x00\0\x00", 10, false);
	check_op_bytes("\x02\x01" "c\0\x01q\0\x01" "f\0\x09", 11, false);
}

static void test_other_format(void **state)
{
	_txn_ t = full_txn();
	struct buf b = BUF_INIT;

	txn_encode(&b, t);
	b.data[0] = 2;
	assert_null(decode_all(b.data, b.len));
	b.data[0] = 0;
	assert_null(decode_all(b.data, b.len));
	buf_deinit(&b);
}

/* What decodes can be walked to its end and encodes to the same bytes. */
static bool check_bytes(const char *p, size_t n)
{
	_txn_ t = decode_all(p, n);
	struct buf b = BUF_INIT;
	struct txn_iter it;

	if (!t)
		return false;
	txn_iter_guards(&it, t);
	while (txn_iter_next(&it))
		assert_non_null(it.item.ref.s);
	assert_false(it.r.bad);
	txn_iter_ops(&it, t);
	while (txn_iter_next(&it))
		assert_non_null(it.item.ref.s);
	assert_false(it.r.bad);
	txn_encode(&b, t);
	assert_int_equal(b.len, n);
	assert_memory_equal(b.data, p, n);
	buf_deinit(&b);
	return true;
}

static void test_mutated(void **state)
{
	_txn_ t = full_txn();
	struct buf b = BUF_INIT;
	uint64_t seed = 3;
	unsigned taken = 0;

	txn_encode(&b, t);
	for (size_t at = 0; at < b.len; at++) {
		char was = b.data[at];

		for (unsigned c = 0; c < 256; c++) {
			b.data[at] = (char)c;
			taken += check_bytes(b.data, b.len);
		}
		b.data[at] = was;
	}
	assert_true(taken > 256 * TXN_ID_LEN);
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

static void test_random(void **state)
{
	uint64_t seed = 4;
	char bytes[200];

	for (unsigned i = 0; i < 50000; i++) {
		size_t n = random_next(&seed) % sizeof(bytes);

		for (size_t k = 0; k < n; k++)
			bytes[k] = (char)(random_next(&seed) & 0x0f);
		bytes[0] = 1;
		check_bytes(bytes, n);
	}
}

/* Stopping half-way, and keeping a value longer than the step. */
static void test_iterator_ownership(void **state)
{
	_txn_ t = full_txn();
	struct value *kept;
	struct txn_iter it;

	txn_iter_ops(&it, t);
	for (int i = 0; i < 3; i++)
		assert_true(txn_iter_next(&it));
	kept = TAKE_PTR(it.item.value);
	assert_true(txn_iter_next(&it));
	assert_non_null(it.item.value);
	txn_iter_deinit(&it);
	txn_iter_deinit(&it);
	assert_string_equal(value_str(kept), "caf\xc3\xa9");
	assert_int_equal(atomic_load(&kept->refs), 1);
	value_unref(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_built_is_readable),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty_round_trip),
		cmocka_unit_test(test_run_of_txns),
		cmocka_unit_test(test_form_is_pinned),
		cmocka_unit_test(test_truncated_anywhere),
		cmocka_unit_test(test_list_truncated_anywhere),
		cmocka_unit_test(test_counts_must_agree),
		cmocka_unit_test(test_malformed_ops),
		cmocka_unit_test(test_other_format),
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_iterator_ownership),
	};

	return cmocka_run_group_tests_name("txn", tests, NULL, NULL);
}
