#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/text.h"

/* Seeded, so that a failure comes again (splitmix64's constants). */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Buffers. */

static void test_buf_grows(void **state)
{
	struct buf b = BUF_INIT;
	char *text;
	size_t n;

	assert_string_equal(buf_cstr(&b), "");
	buf_append(&b, NULL, 0);
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%d,", i);
	buf_putc(&b, '!');
	assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4 + 1);
	assert_memory_equal(b.data, "0,1,2,", 6);
	buf_consume(&b, b.len - 5);
	assert_string_equal(buf_cstr(&b), "999,!");
	buf_printf(&b, "%s", "");
	text = buf_steal(&b, &n);
	assert_string_equal(text, "999,!");
	assert_int_equal(n, 5);
	free(text);
	assert_null(b.data);
	text = buf_steal(&b, NULL);
	assert_string_equal(text, "");
	free(text);
	buf_deinit(&b);
}

static void test_buf_printf_any_length(void **state)
{
	char *text = xmalloc(300);

	/* Every length meets every state of the buffer's end once. */
	for (size_t n = 0; n < 299; n++) {
		struct buf b = BUF_INIT;

		memset(text, 'x', n);
		text[n] = '\0';
		buf_putc(&b, '<');
		buf_printf(&b, "%s>", text);
		assert_int_equal(b.len, n + 2);
		assert_int_equal(b.data[n + 1], '>');
		buf_deinit(&b);
	}
	free(text);
}

static const uint64_t edges[] = {
	0, 1, 0x7f, 0x80, 0x3fff, 0x4000, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
	INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 1, UINT64_MAX
};

static void test_reader_round_trip(void **state)
{
	struct buf b = BUF_INIT;
	struct reader r;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
		buf_put_u8(&b, (uint8_t)edges[i]);
		buf_put_u32(&b, (uint32_t)edges[i]);
		buf_put_u64(&b, edges[i]);
		buf_put_varint(&b, edges[i]);
		buf_put_bytes(&b, "abc", i % 4);
	}
	r = reader_of(b.data, b.len);
	for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
		assert_int_equal(reader_u8(&r), (uint8_t)edges[i]);
		assert_int_equal(reader_u32(&r), (uint32_t)edges[i]);
		assert_true(reader_u64(&r) == edges[i]);
		assert_true(reader_varint(&r) == edges[i]);
		assert_memory_equal(reader_bytes(&r, &n), "abc", i % 4);
		assert_int_equal(n, i % 4);
	}
	assert_false(r.bad);
	assert_ptr_equal(r.p, r.end);
	reader_u8(&r);
	assert_true(r.bad);
	buf_deinit(&b);
}

static void test_numbers_are_little_endian(void **state)
{
	struct buf b = BUF_INIT;

	buf_put_u32(&b, 0x01020304);
	buf_put_u64(&b, 0x1112131415161718);
	buf_put_varint(&b, 300);
	assert_int_equal(b.len, 14);
	assert_memory_equal(b.data,
		"\x04\x03\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11\xac\x02", 14);
	buf_deinit(&b);
}

static void check_bad_varint(const char *bytes, size_t n)
{
	struct reader r = reader_of(bytes, n);

	assert_true(reader_varint(&r) == 0);
	assert_true(r.bad);
	/* And it stays bad, whatever follows. */
	assert_int_equal(reader_u8(&r), 0);
	assert_true(r.bad);
}

static void test_reader_refuses(void **state)
{
	struct reader r;
	size_t n = 1;

	check_bad_varint("", 0);
	check_bad_varint("\x80", 1);
	check_bad_varint("\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9);
	check_bad_varint("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10);
	check_bad_varint("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11);
	check_bad_varint("\x80\x00", 2); /* 0 in two bytes */
	check_bad_varint("\xff\x80\x00", 3);
	r = reader_of("\x05" "abcd", 5); /* a length past the end */
	assert_null(reader_bytes(&r, &n));
	assert_int_equal(n, 0);
	assert_true(r.bad);
	r = reader_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" "a", 11);
	assert_null(reader_bytes(&r, &n));
	r = reader_of("abc", 3);
	assert_int_equal(reader_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(reader_u8(&r), 0);
}

/* Lists. */

struct entry {
	int number;
	struct list link;
};

static int list_sum(struct list *head)
{
	int sum = 0;

	list_for_each(it, head)
		sum = sum * 10 + list_entry(it, struct entry, link)->number;
	return sum;
}

static void test_list(void **state)
{
	struct entry e[4] = { { .number = 1 }, { .number = 2 },
			      { .number = 3 }, { .number = 4 } };
	struct list a, b;

	list_init(&a);
	list_init(&b);
	list_push(&a, &e[0].link);
	list_push(&a, &e[1].link);
	list_push(&b, &e[2].link);
	list_push(&b, &e[3].link);
	list_splice(&a, &b);
	assert_true(list_empty(&b));
	assert_int_equal(list_sum(&a), 1234);
	list_splice(&a, &b);
	list_remove(&e[1].link);
	list_remove(&e[1].link);
	assert_int_equal(list_sum(&a), 134);
	list_for_each_safe(it, &a)
		list_remove(it);
	assert_true(list_empty(&a));
}

/* Maps. */

#define MODEL_KEYS 3000

struct model {
	char keys[MODEL_KEYS][16];
	int values[MODEL_KEYS];
	bool there[MODEL_KEYS];
	size_t count;
};

static void model_check(const struct model *model, const struct map *m)
{
	size_t seen = 0;
	int *v;

	assert_int_equal(m->count, model->count);
	assert_true(m->used >= m->count && m->used < m->cap);
	for (size_t k = 0; k < MODEL_KEYS; k++) {
		v = map_getz(m, model->keys[k]);
		assert_ptr_equal(v, model->there[k] ? &model->values[k] : NULL);
	}
	for (size_t i = 0; (v = map_next(m, &i)); seen++)
		assert_true(model->there[v - model->values]);
	assert_int_equal(seen, model->count);
}

static void model_step(struct model *model, struct map *m, size_t k, bool put)
{
	const char *key = model->keys[k];
	int *want = model->there[k] ? &model->values[k] : NULL;
	int *got;

	if (put)
		got = map_put(m, key, strlen(key), &model->values[k]);
	else
		got = map_del(m, key, strlen(key));
	assert_ptr_equal(got, want);
	model->count += (size_t)put - model->there[k];
	model->there[k] = put;
}

static void test_map_against_model(void **state)
{
	struct model *model = xcalloc(1, sizeof(*model));
	uint64_t seed = 42;
	struct map m;

	map_init(&m);
	for (size_t k = 0; k < MODEL_KEYS; k++)
		snprintf(model->keys[k], sizeof(model->keys[k]), "%zu",
			 k * 7919);
	for (unsigned i = 0; i < 300000; i++) {
		uint64_t r = random_next(&seed);
		/* Waves: mostly puts, then mostly deletes, and so on. */
		unsigned puts = i / 30000 % 2 ? 30 : 70;

		model_step(model, &m, r % MODEL_KEYS, (r >> 32) % 100 < puts);
		if (i % 7000 == 0)
			map_reserve(&m, (r >> 40) % (2 * MODEL_KEYS));
		if (i % 10000 == 0)
			model_check(model, &m);
	}
	model_check(model, &m);
	for (size_t k = 0; k < MODEL_KEYS; k++)
		model_step(model, &m, k, false);
	model_check(model, &m);
	map_deinit(&m);
	free(model);
}

static void test_map_with_room(void **state)
{
	struct map_slot *slots;
	uint64_t keys[1000];
	struct map m;

	map_init(&m);
	map_reserve(&m, 0);
	map_reserve(&m, ARRAY_LEN(keys));
	slots = m.slots;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		keys[i] = i;
		map_put(&m, (char *)&keys[i], 8, &keys[i]);
		map_reserve(&m, i);
	}
	assert_ptr_equal(m.slots, slots);
	map_deinit(&m);
}

/* A queue's use (put new, drop old) must not let tombs pile up. */
static void test_map_turnover(void **state)
{
	uint64_t keys[64] = { 0 };
	struct map m;

	map_init(&m);
	for (uint64_t i = 0; i < 100000; i++) {
		uint64_t *key = &keys[i % 64];

		if (i >= 64)
			assert_ptr_equal(map_del(&m, (char *)key, 8), key);
		*key = i;
		assert_null(map_put(&m, (char *)key, 8, key));
	}
	assert_int_equal(m.count, 64);
	assert_true(m.cap <= 256);
	map_deinit(&m);
}

static void test_map_keys(void **state)
{
	const char key[] = "a\0b";
	int one, two, three;
	struct map m;
	size_t i = 0;

	map_init(&m);
	assert_null(map_getz(&m, ""));
	assert_null(map_del(&m, "x", 1));
	assert_null(map_next(&m, &i));
	assert_null(map_put(&m, "", 0, &one));
	assert_null(map_put(&m, key, 3, &two));
	assert_null(map_put(&m, key, 1, &three));
	assert_ptr_equal(map_getz(&m, ""), &one);
	assert_ptr_equal(map_get(&m, key, 3), &two);
	assert_ptr_equal(map_getz(&m, "a"), &three);
	assert_null(map_get(&m, key, 2));
	assert_ptr_equal(map_put(&m, "a", 1, &one), &three);
	assert_int_equal(m.count, 3);
	map_deinit(&m);
	assert_null(map_getz(&m, "a"));
}

/* Entries may go while one walks. */
static void test_map_delete_in_walk(void **state)
{
	char keys[500][8], *v;
	struct map m;
	size_t seen = 0;

	map_init(&m);
	for (int i = 0; i < 500; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%d", i);
		map_put(&m, keys[i], strlen(keys[i]), keys[i]);
	}
	for (size_t i = 0; (v = map_next(&m, &i)); seen++)
		assert_ptr_equal(map_del(&m, v, strlen(v)), v);
	assert_int_equal(seen, 500);
	assert_int_equal(m.count, 0);
	map_deinit(&m);
}

/* Digests are compared between machines and versions. */
static void test_hash_is_pinned(void **state)
{
	struct hash128 h = hash128("", 0);

	assert_true(hash64("", 0) == 0x2d06800538d394c2);
	assert_true(h.lo == 0x6001c324468d497f && h.hi == 0x99aa06d3014798d8);
	assert_true(hash64("a", 1) != hash64("b", 1));
}

/* Text. */

/* The UTF-8 form of any number below 2^21 in `len` bytes, right or not. */
static void utf8_form(uint32_t c, size_t len, char *out)
{
	static const uint8_t heads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

	for (size_t i = len; i-- > 1; c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(len == 1 ? c : heads[len] | c);
}

static size_t utf8_length(uint32_t c)
{
	return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

/* XML 1.0, section 2.2, production 2. */
static bool xml_char(uint32_t c)
{
	return c == 0x9 || c == 0xa || c == 0xd || (c >= 0x20 && c <= 0xd7ff) ||
	       (c >= 0xe000 && c <= 0xfffd) || (c >= 0x10000 && c <= 0x10ffff);
}

static void test_text_every_character(void **state)
{
	char s[24];

	for (uint32_t c = 0; c < 0x200000; c++) {
		size_t len = utf8_length(c);

		utf8_form(c, len, s);
		if (text_valid(s, len) != xml_char(c))
			fail_msg("U+%X", c);
		if (c % 61 != 0 && xml_char(c))
			continue;
		/* Within the eight-byte steps too. */
		memset(s, 'x', sizeof(s));
		utf8_form(c, len, s + 9);
		if (text_valid(s, sizeof(s)) != xml_char(c))
			fail_msg("U+%X inside", c);
	}
}

static void test_text_overlong(void **state)
{
	char s[4];

	for (uint32_t c = 0; c < 0x10000; c++) {
		for (size_t len = utf8_length(c) + 1; len <= 4; len++) {
			utf8_form(c, len, s);
			if (text_valid(s, len))
				fail_msg("U+%X in %zu bytes", c, len);
		}
	}
}

static void test_text_malformed(void **state)
{
	static const char *const bad[] = {
		"\x80", "\xbf", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(",
		"\xe2(\xac", "\xe2\x82(", "\xf8\x88\x80\x80\x80", "\xfe",
		"\xff", "a\xcc", "\xed\xa0\x80\xed\xb0\x80", /* CESU-8 */
		"\xef\xbf\xbe", "\xef\xbf\xbf", "\xf4\x90\x80\x80",
		"\xc0\x80", "\x1b[31m", "abcdefg\x08", "abcdefgh\x7f\x01",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (text_valid(bad[i], strlen(bad[i])))
			fail_msg("number %zu", i);
	}
	assert_true(text_valid("", 0));
	assert_true(text_valid(NULL, 0));
	assert_true(text_valid("\t\r\n \x7f~", 6));
	assert_true(text_valid("\xf0\x9f\x98\x80 caf\xc3\xa9", 10));
	assert_true(text_valid("\xf0\x9f\xbf\xbe", 4)); /* U+1FFFE */
	assert_false(text_valid("a\0b", 3));
	assert_false(text_valid("aaaaaaa\0bbbbbbbb", 16));
}

/* Every byte value at every place of a longer plain text. */
static void test_text_steps(void **state)
{
	char s[20];

	for (size_t at = 0; at < sizeof(s); at++) {
		for (unsigned c = 0; c < 256; c++) {
			memset(s, 'A', sizeof(s));
			s[at] = (char)c;
			assert_int_equal(text_valid(s, sizeof(s)),
					 c < 0x80 && xml_char(c));
		}
	}
}

/* Dates. */

static void check_date(const char *s, int64_t want)
{
	char again[DATE_LEN + 1];
	int64_t t = -1;

	if (!date_parse(s, strlen(s), &t))
		fail_msg("%s refused", s);
	if (t != want)
		fail_msg("%s gives %lld", s, (long long)t);
	date_format(t, again);
	assert_true(date_parse(again, DATE_LEN, &t) && t == want);
}

static void test_date_forms(void **state)
{
	const int64_t t = 1514901954;

	check_date("20180102T14:05:54Z", t);
	check_date("20180102T14:05:54", t);
	check_date("2018-01-02T14:05:54Z", t);
	check_date("2018-01-02T14:05:54", t);
	check_date("20180102T15:05:54+01:00", t);
	check_date("2018-01-02T15:05:54+0100", t);
	check_date("2018-01-02T08:35:54-05:30", t);
	check_date("20180102T08:35:54-0530", t);
	check_date("20180102T14:05:54.9Z", t);
	check_date("2018-01-02T15:05:54.123456789+01:00", t);
	check_date("20180102T14:05:54.0", t);
	check_date("20180103T00:05:54+10:00", t);
	check_date("19700101T00:00:00Z", 0);
	check_date("19691231T23:59:59Z", -1);
	check_date("20161231T23:59:60Z", 1483228800);
	check_date("20000229T00:00:00Z", 951782400);
	check_date("99991231T23:59:59Z", 253402300799);
	check_date("00000101T00:00:00Z", -62167219200);
}

static void test_date_refused(void **state)
{
	static const char *const bad[] = {
		"", "2018", "20180102", "20180102T14:05", "20180102 14:05:54",
		"20180102T140554Z", "2018-0102T14:05:54Z",
		"201801-02T14:05:54Z", "20181302T14:05:54Z",
		"20180002T14:05:54Z", "20180100T14:05:54Z",
		"20180132T14:05:54Z", "20180230T14:05:54Z",
		"20180431T14:05:54Z", "20190229T14:05:54Z",
		"19000229T14:05:54Z", "20180102T24:00:00Z",
		"20180102T14:60:54Z", "20180102T14:05:61Z",
		"20180102T14:05:54z", "20180102T14:05:54Zx",
		"20180102T14:05:54.Z", "20180102T14:05:54+",
		"20180102T14:05:54+1", "20180102T14:05:54+01",
		"20180102T14:05:54+01:", "20180102T14:05:54+24:00",
		"20180102T14:05:54+01:60", "20180102T14:05:54+01:00Z",
		" 20180102T14:05:54Z", "-0180102T14:05:54Z",
		"2018010\xc3\xa9T14:05:54Z",
	};
	int64_t t;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (date_parse(bad[i], strlen(bad[i]), &t))
			fail_msg("%s taken", bad[i]);
	}
	assert_false(date_parse("20180102T14:05:54\0", 18, &t));
}

/* Against the C library, every ten days of all the years a date can show. */
static void test_date_format(void **state)
{
	char got[DATE_LEN + 1], want[64];
	struct tm tm;

	for (int64_t t = -62167219200; t <= 253402300799; t += 864001) {
		time_t clock = (time_t)t;

		gmtime_r(&clock, &tm);
		snprintf(want, sizeof(want), "%04d%02d%02dT%02d:%02d:%02dZ",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
			 tm.tm_hour, tm.tm_min, tm.tm_sec);
		date_format(t, got);
		if (strcmp(got, want) != 0)
			fail_msg("%s for %s", got, want);
	}
	date_format(INT64_MAX, got);
	assert_string_equal(got, "99991231T23:59:59Z");
	date_format(INT64_MIN, got);
	assert_string_equal(got, "00000101T00:00:00Z");
}

static void test_date_every_day(void **state)
{
	char s[DATE_LEN + 1];
	int64_t back;

	for (int64_t t = -62167219200; t <= 253402300799; t += 86400) {
		date_format(t, s);
		if (!date_parse(s, DATE_LEN, &back) || back != t)
			fail_msg("%s", s);
	}
}

/* Identifiers and numbers. */

static void counting_random(void *data, void *out, size_t n)
{
	memset(out, (*(int *)data)++, n);
}

static int64_t fixed_clock(void *data)
{
	return 1514901954123;
}

static void test_uuid(void **state)
{
	static const uint8_t bytes[16] = { 0xde, 0xad, 0xbe, 0xef, 0, 1, 2, 3,
					   4, 5, 6, 7, 8, 9, 10, 0xff };
	int counter = 0xff;
	struct env_ops ops = { fixed_clock, fixed_clock, counting_random,
			       &counter };
	char a[UUID_LEN + 1], ref[REF_LEN + 1];

	uuid_format(bytes, a);
	assert_string_equal(a, "deadbeef-0001-0203-0405-060708090aff");
	env_replace(&ops);
	uuid_new(a);
	assert_string_equal(a, "ffffffff-ffff-4fff-bfff-ffffffffffff");
	ref_new(ref);
	assert_string_equal(ref,
		"OpaqueRef:00000000-0000-4000-8000-000000000000");
	assert_true(env_wall_ms() == 1514901954123);
	env_replace(NULL);
	assert_true(env_wall_ms() > 1514901954123);
	uuid_new(a);
	uuid_new(ref);
	assert_string_not_equal(a, ref);
	assert_true(uuid_valid(a, UUID_LEN));
	assert_true(uuid_valid("DEADBEEF-0001-0203-0405-060708090aff", 36));
	assert_false(uuid_valid("deadbeef-0001-0203-0405-060708090af", 35));
	assert_false(uuid_valid("deadbeef-0001-0203-0405-060708090afg", 36));
	assert_false(uuid_valid("deadbeef00001-0203-0405-060708090aff", 36));
	assert_false(uuid_valid("deadbeef-0001-0203-0405-06070809-aff", 36));
}

static void test_env(void **state)
{
	uint8_t a[300] = { 0 }, b[300] = { 0 };
	int64_t before = env_mono_ms();

	env_random(a, sizeof(a));
	env_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	env_random(NULL, 0);
	assert_true(env_mono_ms() >= before);
}

static bool int_is(const char *s, int64_t want)
{
	int64_t i = want ^ 1;

	return int_parse(s, strlen(s), &i) && i == want;
}

static void test_int_parse(void **state)
{
	static const char *const bad[] = {
		"", "-", "+", "0x", "-0x", "x", "1 ", " 1", "1.0", "1e3", "--1",
		"+-1", "0xg", "9223372036854775808", "-9223372036854775809",
		"0x8000000000000000", "18446744073709551616", "12a",
		"99999999999999999999999999", "0x-1", "1_000",
	};
	int64_t i;

	assert_true(int_is("0", 0));
	assert_true(int_is("-0", 0));
	assert_true(int_is("+7", 7));
	assert_true(int_is("007", 7));
	assert_true(int_is("9223372036854775807", INT64_MAX));
	assert_true(int_is("-9223372036854775808", INT64_MIN));
	assert_true(int_is("0x1F", 31));
	assert_true(int_is("-0Xff", -255));
	assert_true(int_is("0x7fffffffffffffff", INT64_MAX));
	for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
		if (int_parse(bad[k], strlen(bad[k]), &i))
			fail_msg("%s taken", bad[k]);
	}
	assert_false(int_parse("1\0", 2, &i));
	assert_true(int_parse("123", 2, &i) && i == 12);
}

static bool float_is(const char *s, double want)
{
	double d = -12345;

	return float_parse(s, strlen(s), &d) && d == want;
}

static void test_float_parse(void **state)
{
	static const char *const bad[] = {
		"", " 1", "1 ", "1e", "0x10", "1e999", "-1e999", "nan(1)",
		"1,5", ".", "1.5.2", "\t1", "one",
	};
	char longest[600];
	double d;

	assert_true(float_is("0", 0));
	assert_true(float_is("-1.5", -1.5));
	assert_true(float_is("1e+20", 1e20));
	assert_true(float_is(".5", 0.5));
	assert_true(float_is("1e-400", 0));
	assert_true(float_is("inf", HUGE_VAL));
	assert_true(float_parse("nan", 3, &d) && isnan(d));
	for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
		if (float_parse(bad[k], strlen(bad[k]), &d))
			fail_msg("%s taken", bad[k]);
	}
	assert_false(float_parse("1\0", 2, &d));
	memset(longest, '1', sizeof(longest));
	assert_false(float_parse(longest, sizeof(longest), &d));
}

static void test_hex(void **state)
{
	uint8_t bytes[256], back[256];
	char hex[513];

	for (unsigned i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	hex_encode(bytes, 256, hex);
	assert_int_equal(strlen(hex), 512);
	assert_memory_equal(hex + 2 * 0xab, "abacad", 6);
	assert_true(hex_decode(hex, 512, back));
	assert_memory_equal(bytes, back, 256);
	assert_true(hex_decode("aBcD", 4, back));
	assert_memory_equal(back, "\xab\xcd", 2);
	assert_false(hex_decode("abc", 3, back));
	assert_false(hex_decode("ag", 2, back));
	assert_true(hex_decode("", 0, back));
}

/* Small helpers and the log. */

static void test_util(void **state)
{
	char *s = xasprintf("%d-%s", 7, "x"), *t;

	assert_string_equal(s, "7-x");
	t = TAKE_PTR(s);
	assert_null(s);
	freep(&t);
	t = xstrndup("abc\0d", 5);
	assert_string_equal(t, "abc");
	t = xrealloc(t, 100);
	assert_string_equal(t, "abc");
	free(t);
	assert_true(str_equal_n("ab", "abc", 2));
	assert_false(str_equal_n("ab", "abc", 3));
	assert_false(str_equal_n("ab", "ab\0", 3));
	assert_true(str_equal_n("", NULL, 0));
}

/* What log_line() writes, read back from a pipe in place of stderr. */
static void log_capture(enum log_level level, const char *text, char *out,
			size_t size)
{
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_true(saved >= 0 && pipe(fds) == 0);
	dup2(fds[1], STDERR_FILENO);
	log_line(level, "%s", text);
	dup2(saved, STDERR_FILENO);
	close(fds[1]);
	n = read(fds[0], out, size - 1);
	out[MAX(n, 0)] = '\0';
	close(fds[0]);
	close(saved);
}

static void test_log(void **state)
{
	struct env_ops ops = { fixed_clock, fixed_clock, counting_random,
			       NULL };
	enum log_level level = LOG_LEVEL_ERROR;
	char *huge = xmalloc(10001), *out = xmalloc(20000);

	env_replace(&ops);
	log_set_thread("front-1");
	log_capture(LOG_LEVEL_WARN, "a\nb\x1b[0m\x7f", out, 20000);
	assert_string_equal(out,
		"20180102T14:05:54.123Z warn front-1: a b?[0m?\n");
	log_capture(LOG_LEVEL_DEBUG, "hidden", out, 20000);
	assert_string_equal(out, "");
	assert_true(log_level_parse("debug", &level));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_false(log_level_parse("loud", &level));
	log_set_level(LOG_LEVEL_DEBUG);
	memset(huge, 'x', 10000);
	huge[10000] = '\0';
	log_capture(LOG_LEVEL_DEBUG, huge, out, 20000);
	assert_true(strlen(out) < 4096);
	assert_int_equal(out[strlen(out) - 1], '\n');
	log_set_level(LOG_LEVEL_INFO);
	log_set_thread("main");
	env_replace(NULL);
	free(huge);
	free(out);
}

static void *named_thread(void *data)
{
	log_set_thread("a-name-of-more-than-15");
	pthread_getname_np(pthread_self(), data, 16);
	return NULL;
}

static void test_thread_names(void **state)
{
	char seen[16], before[16];
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, named_thread, seen), 0);
	pthread_join(t, NULL);
	assert_string_equal(seen, "a-name-of-more-");
	pthread_getname_np(pthread_self(), before, sizeof before);
	log_set_thread("another");
	pthread_getname_np(pthread_self(), seen, sizeof seen);
	assert_string_equal(seen, before);
	log_set_thread("main");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_grows),
		cmocka_unit_test(test_buf_printf_any_length),
		cmocka_unit_test(test_reader_round_trip),
		cmocka_unit_test(test_numbers_are_little_endian),
		cmocka_unit_test(test_reader_refuses),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_map_against_model),
		cmocka_unit_test(test_map_with_room),
		cmocka_unit_test(test_map_turnover),
		cmocka_unit_test(test_map_keys),
		cmocka_unit_test(test_map_delete_in_walk),
		cmocka_unit_test(test_hash_is_pinned),
		cmocka_unit_test(test_text_every_character),
		cmocka_unit_test(test_text_overlong),
		cmocka_unit_test(test_text_malformed),
		cmocka_unit_test(test_text_steps),
		cmocka_unit_test(test_date_forms),
		cmocka_unit_test(test_date_refused),
		cmocka_unit_test(test_date_format),
		cmocka_unit_test(test_date_every_day),
		cmocka_unit_test(test_uuid),
		cmocka_unit_test(test_env),
		cmocka_unit_test(test_int_parse),
		cmocka_unit_test(test_float_parse),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_util),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_thread_names),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
