/* Images: what goes in comes out to the bit, and what is damaged or foreign is
 * refused with a reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store_help.h"
#include "raftdb/image_impl.h"

static struct store *random_store(uint64_t seed, unsigned txns)
{
	struct store *s = store_new();

	world_start(seed);
	for (unsigned i = 0; i < txns; i++)
		apply_free(s, random_txn(s));
	return s;
}

static void pack(const struct store *s, struct buf *ret)
{
	struct store_view *v = store_view_new(s);

	assert_int_equal(image_pack(v, ret), 0);
	store_view_free(v);
}

static void assert_refused(const void *p, size_t n, const char *reason)
{
	struct store_view *v = NULL;
	char why[256] = "";

	assert_int_equal(image_unpack(p, n, &v, why, sizeof(why)), -EBADMSG);
	assert_null(v);
	if (!strstr(why, reason))
		fail_msg("\"%s\" is not about \"%s\"", why, reason);
}

static struct store_view *unpack(const struct buf *b)
{
	struct store_view *v = NULL;
	char why[256] = "";

	if (image_unpack(b->data, b->len, &v, why, sizeof(why)) != 0)
		fail_msg("%s", why);
	return v;
}

/* Round trips. */

static void assert_same_order(const struct store *a, const struct store *b)
{
	for (unsigned c = 0; c < schema_n_classes; c++) {
		struct record *x = store_first(a, (int)c);
		struct record *y = store_first(b, (int)c);

		assert_int_equal(store_count(a, (int)c),
				 store_count(b, (int)c));
		for (; x; x = store_next(a, x), y = store_next(b, y)) {
			assert_true(value_equal(x->ref, y->ref));
			assert_int_equal(x->created, y->created);
			assert_int_equal(x->modified, y->modified);
			for (unsigned f = 0; f < x->cls->n_fields; f++)
				assert_true(value_equal(x->fields[f],
							y->fields[f]));
		}
	}
}

static void assert_same_tombstones(const struct store *a, const struct store *b)
{
	for (unsigned c = 0; c < schema_n_classes; c++) {
		const struct tombstone *x = store_last_tombstone(a, (int)c);
		const struct tombstone *y = store_last_tombstone(b, (int)c);

		for (; x && y; x = store_prev_tombstone(a, x),
			       y = store_prev_tombstone(b, y)) {
			assert_true(value_equal(x->ref, y->ref));
			assert_int_equal(x->created, y->created);
			assert_int_equal(x->deleted, y->deleted);
		}
		assert_true(!x && !y);
	}
	assert_int_equal(store_tombstone_horizon(a),
			 store_tombstone_horizon(b));
}

static void assert_same(const struct store *a, const struct store *b)
{
	assert_digest(a, b);
	assert_int_equal(store_generation(a), store_generation(b));
	assert_same_order(a, b);
	assert_same_tombstones(a, b);
	assert_int_equal(a->n_seen, b->n_seen);
	for (size_t i = 0; i < a->n_seen; i++) {
		struct txn_result r;

		assert_true(store_txn_seen(b, a->seen[i].id, &r));
		assert_int_equal(r.status, a->seen[i].result.status);
		assert_int_equal(r.item, a->seen[i].result.item);
		assert_int_equal(r.generation, a->seen[i].result.generation);
	}
}

static void round_trip(const struct store *s)
{
	struct store *copy = store_new();
	struct buf b = BUF_INIT, again = BUF_INIT;
	struct store_view *v;

	pack(s, &b);
	v = unpack(&b);
	assert_true(store_load(copy, v));
	store_view_free(v);
	assert_same(s, copy);
	pack(copy, &again);
	assert_int_equal(b.len, again.len);
	assert_memory_equal(b.data, again.data, b.len);
	store_free(copy);
	buf_deinit(&b);
	buf_deinit(&again);
}

static void test_round_trip(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct store *s = random_store(world_seed_or(100) + i, 2500);

		round_trip(s);
		store_free(s);
	}
}

static void test_empty_round_trip(void **state)
{
	struct store *s = store_new();

	round_trip(s);
	store_free(s);
}

static void test_horizon_round_trip(void **state)
{
	struct store *s = random_store(3, 1500);

	assert_true(store_generation(s) > 17);
	s->horizon = 17;
	round_trip(s);
	store_free(s);
}

/* Loading replaces what was there, and goes on from it. */
static void test_load_replaces(void **state)
{
	struct store *a = random_store(5, 1500), *b = random_store(6, 700);
	struct store_view *v = store_view_new(a);

	assert_true(store_load(b, v));
	store_view_free(v);
	assert_same(a, b);
	world_start(9);
	for (unsigned i = 0; i < 1000; i++) {
		_txn_ t = random_txn(a);

		assert_int_equal(store_apply(a, t).status,
				 store_apply(b, t).status);
		assert_digest(a, b);
	}
	store_free(a);
	store_free(b);
}

static void test_view_is_frozen(void **state)
{
	struct store *s = random_store(5, 1500), *copy = store_new();
	struct hash128 then = store_digest(s);
	struct store_view *v = store_view_new(s);

	for (unsigned i = 0; i < 500; i++)
		apply_free(s, random_txn(s));
	assert_true(store_load(copy, v));
	assert_true(hash128_equal(store_digest(copy), then));
	store_free(s);
	store_view_free(v);
	store_free(copy);
}

/* Damage. */

static struct store *small_store(void)
{
	struct store *s = store_new();
	struct txn *t;

	world_start(11);
	t = txn_new("test");
	put_new(t, CLS(VM), "vm");
	put_new(t, CLS(VBD), "vbd");
	txn_set(t, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	txn_map_put(t, CLS(VM), "vm", F_VM_other_config, "k",
		    value_stringz("v"));
	put_new(t, CLS(VM), "gone");
	assert_int_equal(apply_free(s, t).status, TXN_OK);
	t = txn_new("test");
	txn_destroy(t, "gone");
	assert_int_equal(apply_free(s, t).status, TXN_OK);
	return s;
}

static void test_any_byte_flipped(void **state)
{
	struct store *s = small_store();
	struct buf b = BUF_INIT;

	pack(s, &b);
	for (size_t i = 0; i < b.len; i++) {
		b.data[i] = (char)(b.data[i] ^ (1 << i % 8));
		assert_refused(b.data, b.len, "");
		b.data[i] = (char)(b.data[i] ^ (1 << i % 8));
	}
	store_view_free(unpack(&b));
	buf_deinit(&b);
	store_free(s);
}

static void test_truncated_anywhere(void **state)
{
	struct store *s = small_store();
	struct buf b = BUF_INIT;

	pack(s, &b);
	for (size_t n = 0; n < b.len; n++)
		assert_refused(b.data, n, n < 8 ? "not an image" : "");
	buf_putc(&b, 0);
	assert_refused(b.data, b.len, "checksum");
	buf_deinit(&b);
	store_free(s);
}

/* The SQLite file inside s's image, with sql done to it. */
static void pack_changed(const struct store *s, const char *sql,
			 struct buf *ret)
{
	struct store_view *v = store_view_new(s);
	sqlite3_int64 n;
	unsigned char *p;
	sqlite3 *db;
	char *error = NULL;

	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	assert_int_equal(image_write_tables(db, v), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &error))
		fail_msg("%s: %s", sql, error);
	p = sqlite3_serialize(db, "main", &n, 0);
	assert_int_equal(image_wrap(p, (size_t)n, ret), 0);
	sqlite3_free(p);
	sqlite3_close(db);
	store_view_free(v);
}

static void test_foreign_content(void **state)
{
	static const struct { const char *sql, *reason; } cases[] = {
		{ "CREATE TABLE hologram (x)", "unknown table hologram" },
		{ "CREATE TABLE event (x)", "unknown table event" },
		{ "CREATE VIEW v AS SELECT 1", "unknown view v" },
		{ "CREATE INDEX i ON VM (uuid)", "unknown index i" },
		{ "CREATE TRIGGER t AFTER INSERT ON VM BEGIN SELECT 1; END",
		  "unknown trigger t" },
		{ "ALTER TABLE VM ADD COLUMN glow TEXT",
		  "VM: unknown column glow" },
		{ "DROP TABLE VM; CREATE TABLE VM (_created, _modified)",
		  "VM: no column _ref" },
		{ "UPDATE _meta SET value = '2' WHERE key = 'format'",
		  "format 2" },
		{ "DELETE FROM _meta WHERE key = 'generation'",
		  "no valid generation" },
		{ "UPDATE _meta SET value = '-1' WHERE key = 'generation'",
		  "no valid generation" },
		{ "UPDATE _meta SET value = 'xyz' WHERE key = 'digest'",
		  "no valid digest" },
		{ "DELETE FROM _meta", "no valid format" },
		{ "DROP TABLE _meta", "no valid format" },
		{ "DROP TABLE _txn_id", "_txn_id: " },
		{ "DROP TABLE _tombstone", "_tombstone: " },
		{ "UPDATE _tombstone SET class = 'event'", "_tombstone: bad" },
		{ "UPDATE _tombstone SET deleted = 'x'", "_tombstone: bad" },
		{ "UPDATE _txn_id SET id = x'00'", "_txn_id: bad" },
		{ "UPDATE _txn_id SET status = 77", "_txn_id: bad" },
		{ "UPDATE VM SET _created = -5", "VM vm: bad stamps" },
		{ "UPDATE VM SET _modified = 'x'", "VM vm: bad stamps" },
		{ "UPDATE VM SET power_state = 'Melting'",
		  "VM vm: bad value of power_state" },
		{ "UPDATE VM SET user_version = 'x'",
		  "VM vm: bad value of user_version" },
		{ "UPDATE VM SET name_label = x'00'",
		  "VM vm: bad value of name_label" },
		{ "UPDATE VM SET is_a_template = 2",
		  "VM vm: bad value of is_a_template" },
		{ "UPDATE VM SET other_config = '{'",
		  "VM vm: bad value of other_config" },
		{ "UPDATE VM SET tags = '[1]'", "VM vm: bad value of tags" },
	};
	struct store *s = small_store();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = BUF_INIT;

		pack_changed(s, cases[i].sql, &b);
		assert_refused(b.data, b.len, cases[i].reason);
		buf_deinit(&b);
	}
	store_free(s);
}

/* Readable, but not what a store may hold: refused by the load. */
static void test_inconsistent_content(void **state)
{
	static const char *const cases[] = {
		"UPDATE VM SET name_label = 'other'",
		"UPDATE VM SET VBDs = '[]'",
		"UPDATE VBD SET VM = 'OpaqueRef:NULL'",
		"UPDATE VBD SET uuid = 'u-vm'",
		"UPDATE VBD SET uuid = ''",
		"UPDATE VBD SET _ref = 'vm'",
		"UPDATE VBD SET _ref = 'OpaqueRef:NULL'",
		"UPDATE VBD SET _modified = 99",
		"UPDATE VBD SET _created = 3",
		"DELETE FROM VBD",
		"UPDATE _meta SET value = '99' WHERE key = 'generation'",
		"UPDATE _meta SET value = '99' WHERE key = 'tombstone_horizon'",
		"UPDATE _meta SET value = '00' || substr(value, 3)"
		" WHERE key = 'digest'",
		"UPDATE _tombstone SET deleted = 99",
		"INSERT INTO _txn_id SELECT * FROM _txn_id",
	};
	struct store *s = small_store(), *copy = store_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = BUF_INIT;
		struct store_view *v;

		pack_changed(s, cases[i], &b);
		v = unpack(&b);
		if (store_load(copy, v))
			fail_msg("loaded after %s", cases[i]);
		assert_int_equal(copy->rows.count, 0);
		assert_int_equal(store_generation(copy), 0);
		store_view_free(v);
		buf_deinit(&b);
	}
	store_free(s);
	store_free(copy);
}

static void test_row_order_is_checked(void **state)
{
	struct store *s = small_store(), *copy = store_new();
	struct buf b = BUF_INIT;
	struct store_view *v;

	apply_new(s, CLS(VM), "newer");
	pack_changed(s, "UPDATE VM SET rowid = 77 WHERE _ref = 'vm'", &b);
	v = unpack(&b);
	assert_false(store_load(copy, v));
	store_view_free(v);
	buf_deinit(&b);
	store_free(s);
	store_free(copy);
}

/* A field, or a class, that the writer did not know yet. */
static void test_schema_grew(void **state)
{
	struct store *s = small_store(), *copy = store_new();
	struct buf b = BUF_INIT;
	struct store_view *v;

	pack_changed(s, "ALTER TABLE VM DROP COLUMN HVM_shadow_multiplier;"
			"ALTER TABLE VM DROP COLUMN bios_strings;"
			"ALTER TABLE VBD DROP COLUMN empty; DROP TABLE job",
		     &b);
	v = unpack(&b);
	assert_true(store_load(copy, v));
	assert_same(s, copy);
	store_view_free(v);
	buf_deinit(&b);
	store_free(s);
	store_free(copy);
}

/* SQLite's bytes gone wrong behind a right checksum: whatever comes of it, it
 * must not be a crash. IMAGE_ROUNDS in the environment tries harder. */
static void test_hostile(void **state)
{
	struct store *s = small_store();
	struct buf b = BUF_INIT, garbage = BUF_INIT;
	struct store_view *v = store_view_new(s);
	unsigned char *file;
	size_t n;
	char why[128];
	struct image_reason reason = { why, sizeof(why) };
	const char *more = getenv("IMAGE_ROUNDS");
	unsigned rounds = more ? (unsigned)atoi(more) : 200;

	assert_int_equal(image_pack(v, &b), 0);
	assert_int_equal(image_unwrap(b.data, b.len, &file, &n, &reason), 0);
	world_start(13);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned char *copy = xmalloc(n);
		struct store_view *out = NULL;

		memcpy(copy, file, n);
		for (unsigned k = 0; k <= pick(8); k++)
			copy[pick(3) ? pick((unsigned)n) : pick(4096)] =
				(unsigned char)pick(256);
		garbage.len = 0;
		assert_int_equal(image_wrap(copy, n, &garbage), 0);
		if (image_unpack(garbage.data, garbage.len, &out, why,
				 sizeof(why)) == 0)
			store_view_free(out);
		free(copy);
	}
	sqlite3_free(file);
	store_view_free(v);
	buf_deinit(&b);
	buf_deinit(&garbage);
	store_free(s);
}

static void rehash(struct buf *b)
{
	struct hash128 h = hash128(b->data + 24, b->len - 24);

	memcpy(b->data + 8, &h.lo, 8);
	memcpy(b->data + 16, &h.hi, 8);
}

static void test_lengths_that_lie(void **state)
{
	static const uint64_t lengths[] = { 0, 1, 4096, IMAGE_MAX_BYTES + 1ull,
					    UINT64_MAX };
	struct store *s = small_store();
	struct buf b = BUF_INIT;

	pack(s, &b);
	rehash(&b);
	store_view_free(unpack(&b));
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		memcpy(b.data + 24, &lengths[i], 8);
		rehash(&b);
		assert_refused(b.data, b.len, "");
	}
	buf_deinit(&b);
	store_free(s);
}

/* JSON. */

static const struct type *type_of(const struct class_def *c, unsigned field)
{
	return c->fields[field].type;
}

static void assert_reads(const struct type *t, const char *json,
			 const char *text)
{
	_value_ v = image_json_read(t, json, strlen(json));

	if (!v != !text)
		fail_msg("%s", json);
	if (text)
		assert_text(v, text);
}

static void test_json_reads(void **state)
{
	const struct type *set = type_of(CLS(VM), F_VM_tags);
	const struct type *map = type_of(CLS(VM), F_VM_other_config);
	const struct type *floats = type_of(CLS(VM_metrics),
					    F_VM_metrics_VCPUs_utilisation);

	assert_reads(set, " [ \"a\" , \"b\\u00e9\\ud83d\\ude00\\n\" ] ",
		     "('a' 'b\xc3\xa9\xf0\x9f\x98\x80\n')");
	assert_reads(set, "[]", "()");
	assert_reads(map, "{\"z\":\"1\",\"a\":\"2\"}", "(('a' '2') ('z' '1'))");
	assert_reads(map, " { } ", "()");
	assert_reads(floats, "{\"0\":1,\"1\":-2.5e3}",
		     "(('0' '1') ('1' '-2500'))");
	assert_reads(set, "", NULL);
	assert_reads(set, "[", NULL);
	assert_reads(set, "[\"a\"", NULL);
	assert_reads(set, "[\"a\",]", NULL);
	assert_reads(set, "[\"a\" \"b\"]", NULL);
	assert_reads(set, "[\"a\"]x", NULL);
	assert_reads(set, "[\"\\ud83d\"]", NULL);
	assert_reads(set, "[\"\\ud83d\\u0041\"]", NULL);
	assert_reads(set, "[\"\\ude00\"]", NULL);
	assert_reads(set, "[\"\\u00g0\"]", NULL);
	assert_reads(set, "[\"\\x\"]", NULL);
	assert_reads(set, "[\"a\nb\"]", NULL);
	assert_reads(set, "[\"a", NULL);
	assert_reads(set, "[\"a\\", NULL);
	assert_reads(map, "{\"a\"}", NULL);
	assert_reads(map, "{\"a\":}", NULL);
	assert_reads(map, "{\"a\":\"b\"", NULL);
	assert_reads(map, "{a:\"b\"}", NULL);
	assert_reads(floats, "{\"x\":1}", NULL);
	assert_reads(floats, "{\"0\":\"bits:zz\"}", NULL);
	assert_reads(floats, "{\"0\":}", NULL);
}

static void test_json_round_trip(void **state)
{
	world_start(17);
	for (unsigned i = 0; i < 20000; i++) {
		const struct class_def *c = &schema_classes[world_class()];
		const struct type *t = type_of(c, pick(c->n_fields));
		struct buf b = BUF_INIT;
		_value_ v = random_value(t);
		_value_ back = NULL;

		image_json_write(&b, t, v);
		back = image_json_read(t, b.data, b.len);
		assert_true(value_equal(v, back));
		buf_deinit(&b);
	}
}

static void test_types_of_fields_are_storable(void **state)
{
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (unsigned f = 0; f < c->n_fields; f++) {
			const struct type *t = c->fields[f].type;

			for (; t && class_is_stored(c); t = t->item)
				assert_true(t->kind != TYPE_VOID &&
					    t->kind != TYPE_RECORD &&
					    t->kind != TYPE_OPTION);
		}
	}
}

/* Files. */

static void test_file(void **state)
{
	char dir[] = "/tmp/test-image-XXXXXX", path[64], tmp[64];
	struct store *s = small_store();
	struct store_view *v = store_view_new(s);
	sqlite3_stmt *st;
	struct stat info;
	sqlite3 *db;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/pool.db", dir);
	snprintf(tmp, sizeof(tmp), "%s/pool.db.tmp", dir);
	assert_int_equal(image_write_file(v, path), 0);
	assert_int_equal(image_write_file(v, path), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(
		db, "SELECT VBDs, json_extract(other_config, '$.k'),"
		    " memory_target FROM VM WHERE _ref = 'vm'",
		-1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(st, 0),
			    "[\"vbd\"]");
	assert_string_equal((const char *)sqlite3_column_text(st, 1), "v");
	assert_int_equal(sqlite3_column_int(st, 2), 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(image_write_file(v, path), -ENOENT);
	store_view_free(v);
	store_free(s);
}

#ifdef __SANITIZE_ADDRESS__
#define SPEED_ROWS 5000
#else
#define SPEED_ROWS 100000
#endif

/* No assertion on time: the numbers are for who reads the log. */
static void test_speed(void **state)
{
	unsigned rows = SPEED_ROWS;
	struct store *s = store_new(), *copy = store_new();
	struct store_view *v, *back;
	struct buf b = BUF_INIT;
	double t[5];

	world_start(1);
	for (unsigned i = 0; i < rows; i++) {
		const struct class_def *c = i % 4 ? CLS(VBD) : CLS(VM);
		struct txn *txn = txn_new("bench");
		char ref[REF_LEN + 1], vm[64];

		ref_new(ref);
		put_new(txn, c, ref);
		if (c == CLS(VBD)) {
			snprintf(vm, sizeof(vm), "OpaqueRef:vm-%u", i / 4);
			txn_set(txn, c, ref, F_VBD_VM, value_stringz(vm));
		}
		apply_free(s, txn);
	}
	t[0] = seconds();
	v = store_view_new(s);
	t[1] = seconds();
	assert_int_equal(image_pack(v, &b), 0);
	t[2] = seconds();
	back = unpack(&b);
	t[3] = seconds();
	assert_true(store_load(copy, back));
	t[4] = seconds();
	assert_digest(s, copy);
	print_message("%u rows: view %.1f ms, pack %.0f ms, %.1f MB, "
		      "unpack %.0f ms, load %.0f ms\n", rows,
		      (t[1] - t[0]) * 1e3, (t[2] - t[1]) * 1e3,
		      (double)b.len / 1e6, (t[3] - t[2]) * 1e3,
		      (t[4] - t[3]) * 1e3);
	store_view_free(v);
	store_view_free(back);
	store_free(s);
	store_free(copy);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty_round_trip),
		cmocka_unit_test(test_horizon_round_trip),
		cmocka_unit_test(test_load_replaces),
		cmocka_unit_test(test_view_is_frozen),
		cmocka_unit_test(test_any_byte_flipped),
		cmocka_unit_test(test_truncated_anywhere),
		cmocka_unit_test(test_foreign_content),
		cmocka_unit_test(test_inconsistent_content),
		cmocka_unit_test(test_row_order_is_checked),
		cmocka_unit_test(test_schema_grew),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_lengths_that_lie),
		cmocka_unit_test(test_json_reads),
		cmocka_unit_test(test_json_round_trip),
		cmocka_unit_test(test_types_of_fields_are_storable),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
