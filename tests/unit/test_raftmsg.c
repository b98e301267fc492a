/* libraft's messages as bytes, whole, cut, and made of anything; and what comes
 * of parts that are not what they should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "raftdb/consensus_heap.h"
#include "raftdb/consensus_wire.h"
#include "raftdb/raftmsg.h"

#define N_SAMPLES 9
#define N_ENTRIES 5
#define BIG 5000

static char bytes[BIG];
static struct raft_entry entries[N_ENTRIES];
static struct raft_server servers[] = {
	{ 7, (char *)"10.0.0.1:8444", RAFT_VOTER },
	{ UINT64_MAX, (char *)"[fe80::1]:8444", RAFT_STANDBY },
	{ 1, (char *)"x", RAFT_SPARE },
};

static void fill_entries(void)
{
	static const size_t lens[N_ENTRIES] = { 8, 0, BIG, 127, 128 };

	for (size_t i = 0; i < BIG; i++)
		bytes[i] = (char)(i * 7);
	for (unsigned i = 0; i < N_ENTRIES; i++)
		entries[i] = (struct raft_entry){
			.term = i + 1,
			.type = (enum raft_entry_type)(1 + i % 3),
			.buf = { bytes + i, lens[i] - (i == 2 ? i : 0) },
		};
}

static struct raft_message append_of(unsigned n)
{
	return (struct raft_message){
		.type = RAFT_APPEND_ENTRIES,
		.append_entries = { 1, 2, 3, UINT64_MAX, 5, entries, n },
	};
}

static struct raft_message sample(unsigned i)
{
	const struct raft_message all[] = {
		{ .type = RAFT_APPEND_ENTRIES_RESULT,
		  .append_entries_result = { 2, 1ull << 63, 8, 9, 65535, 257 } },
		{ .type = RAFT_REQUEST_VOTE,
		  .request_vote = { 2, 3, 4, 5, 6, true, false } },
		{ .type = RAFT_REQUEST_VOTE,
		  .request_vote = { 0, 3, 4, 5, 6, false, true } },
		{ .type = RAFT_REQUEST_VOTE_RESULT,
		  .request_vote_result = { 2, 9, true, true, 1, 65535 } },
		{ .type = RAFT_TIMEOUT_NOW, .timeout_now = { 1, 2, 3, 4 } },
		{ .type = RAFT_INSTALL_SNAPSHOT,
		  .install_snapshot = { 1, 2, 3, 4,
					{ servers, ARRAY_LEN(servers) }, 6,
					{ NULL, 1234567890123 } } },
		append_of(0), append_of(1), append_of(N_ENTRIES),
	};

	_Static_assert(ARRAY_LEN(all) == N_SAMPLES, "");
	return all[i];
}

static void encode(struct buf *b, unsigned i)
{
	struct raft_message m = sample(i);

	assert_true(raftmsg_put(b, &m));
	assert_true(raftmsg_size(&m) >= b->len);
}

static bool decode(const char *p, size_t n, struct raft_message *ret)
{
	struct reader r = reader_of(p, n);

	return raftmsg_get(&r, ret);
}

static void assert_same_entries(const struct raft_append_entries *a,
				const struct raft_append_entries *b)
{
	assert_int_equal(a->n_entries, b->n_entries);
	if (a->n_entries == 0)
		assert_null(b->entries);
	for (unsigned i = 0; i < a->n_entries; i++) {
		const struct raft_entry *x = &a->entries[i], *y = &b->entries[i];

		assert_int_equal(x->term, y->term);
		assert_int_equal(x->type, y->type);
		assert_int_equal(x->buf.len, y->buf.len);
		assert_memory_equal(x->buf.base, y->buf.base, x->buf.len);
		/* one piece of memory, of which the first is the start */
		assert_ptr_equal(y->batch, b->entries[0].buf.base);
		assert_int_equal((uintptr_t)y->buf.base % 8, 0);
	}
}

static void assert_same_conf(const struct raft_configuration *a,
			     const struct raft_configuration *b)
{
	assert_int_equal(a->n, b->n);
	for (unsigned i = 0; i < a->n; i++) {
		assert_int_equal(a->servers[i].id, b->servers[i].id);
		assert_string_equal(a->servers[i].address,
				    b->servers[i].address);
		assert_int_equal(a->servers[i].role, b->servers[i].role);
	}
}

/* The rest is compared by its bytes: what is decoded encodes to the same. */
static void test_round_trip(void **state)
{
	for (unsigned i = 0; i < N_SAMPLES; i++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT, again = BUF_INIT;
		struct raft_message in = sample(i), out;

		encode(&b, i);
		assert_true(decode(b.data, b.len, &out));
		assert_int_equal(out.type, in.type);
		assert_int_equal(out.server_id, 0);
		if (in.type == RAFT_APPEND_ENTRIES)
			assert_same_entries(&in.append_entries,
					    &out.append_entries);
		if (in.type == RAFT_INSTALL_SNAPSHOT) {
			assert_same_conf(&in.install_snapshot.conf,
					 &out.install_snapshot.conf);
			assert_int_equal(out.install_snapshot.data.len,
					 in.install_snapshot.data.len);
			assert_null(out.install_snapshot.data.base);
		}
		assert_true(raftmsg_put(&again, &out));
		assert_int_equal(again.len, b.len);
		assert_memory_equal(again.data, b.data, b.len);
		raftmsg_free(&out);
	}
}

/* The layout that docs/formats.md gives. */
static void test_layout(void **state)
{
	static const uint8_t want[] = {
		1, 2,                          /* version, type */
		2,                             /* libraft's own version */
		0, 0, 0, 0, 0, 0, 0, 0x80,     /* term */
		8, 0, 0, 0, 0, 0, 0, 0,        /* rejected */
		9, 0, 0, 0, 0, 0, 0, 0,        /* last index */
		0xff, 0xff, 1, 1,              /* features, capacity */
	};
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	encode(&b, 0);
	assert_int_equal(b.len, sizeof want);
	assert_memory_equal(b.data, want, sizeof want);
}

/* Memory of just that size, so that a sanitizer sees who reads on. */
static bool decode_exact(const char *p, size_t n)
{
	char *copy = xmalloc(n + (n == 0));
	struct raft_message m;
	bool ok;

	memcpy(copy, p, n);
	ok = decode(copy, n, &m);
	free(copy);
	if (ok)
		raftmsg_free(&m);
	return ok;
}

static void test_cut_and_longer(void **state)
{
	for (unsigned i = 0; i < N_SAMPLES; i++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;

		encode(&b, i);
		for (size_t n = 0; n < b.len; n++)
			assert_false(decode_exact(b.data, n));
		assert_true(decode_exact(b.data, b.len));
		buf_put_u8(&b, 0);
		assert_false(decode_exact(b.data, b.len));
	}
}

static void test_bad_fields(void **state)
{
	/* sample, byte in it, value */
	static const struct {
		unsigned sample, at, value;
	} bad[] = {
		{ 0, 0, 0 }, { 0, 0, 2 },       /* version */
		{ 0, 1, 0 }, { 0, 1, 7 }, { 0, 1, 255 }, /* type */
		{ 1, 35, 2 }, { 3, 11, 2 },     /* bools */
		{ 8, 38, 255 },                 /* number of entries */
		{ 7, 47, 0 }, { 7, 47, 4 },     /* an entry's type */
		{ 7, 48, 9 }, { 7, 48, 7 },     /* an entry's length */
		{ 5, 35, 65 }, { 5, 37, 1 },    /* number of servers */
		{ 5, 47, 200 }, { 5, 50, 0 },   /* an address */
		{ 5, 61, 3 },                   /* a role */
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;

		encode(&b, bad[i].sample);
		assert_true(b.data[bad[i].at] != (char)bad[i].value);
		b.data[bad[i].at] = (char)bad[i].value;
		if (decode_exact(b.data, b.len))
			fail_msg("case %zu is taken", i);
	}
}

static void test_bad_configurations(void **state)
{
	char names[DB_MEMBERS_MAX + 1][8];
	struct raft_server twice[] = {
		{ 7, names[0], RAFT_VOTER }, { 7, names[1], RAFT_VOTER },
	};
	struct raft_server nobody[] = { { 0, names[0], RAFT_VOTER } };
	struct raft_server many[DB_MEMBERS_MAX + 1];
	struct raft_configuration confs[] = {
		{ twice, 2 }, { nobody, 1 }, { many, ARRAY_LEN(many) },
	};

	for (unsigned i = 0; i < ARRAY_LEN(many); i++) {
		snprintf(names[i], sizeof names[i], "%u", i);
		many[i] = (struct raft_server){ i + 1, names[i], RAFT_SPARE };
	}
	for (unsigned i = 0; i < ARRAY_LEN(confs); i++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;
		struct raft_message m = sample(5);

		m.install_snapshot.conf = confs[i];
		assert_true(raftmsg_put(&b, &m));
		assert_false(decode_exact(b.data, b.len));
		if (i != 2)
			continue;
		b.len = 0;
		m.install_snapshot.conf.n--;
		assert_true(raftmsg_put(&b, &m));
		assert_true(decode_exact(b.data, b.len));
	}
}

static uint32_t random_next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

/* Nothing is asked but to live and to free; most of it is refused. */
static void test_anything(void **state)
{
	uint32_t x = 2463534242;
	unsigned taken = 0;

	for (unsigned k = 0; k < 60000; k++) {
		char p[200];
		size_t n = random_next(&x) % sizeof p;

		for (size_t i = 0; i < n; i++)
			p[i] = (char)(random_next(&x) >> (k % 3 ? 8 : 29));
		if (n > 1) {
			p[0] = 1;
			p[1] = (char)(1 + k % 6);
		}
		taken += decode_exact(p, n);
	}
	for (unsigned k = 0; k < 60000; k++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;

		encode(&b, k % N_SAMPLES);
		for (unsigned i = 0; i <= k % 3; i++)
			b.data[random_next(&x) % MIN(b.len, (size_t)120)] ^=
				(char)(1 << random_next(&x) % 8);
		taken += decode_exact(b.data, b.len);
	}
	assert_in_range(taken, 1000, 100000);
}

/* --- parts --- */

struct part {
	unsigned what;
	uint64_t total, at, n;
};

static bool feed(struct wire *w, const struct peer *from, struct part p,
		 const char *all, struct raft_message *ret)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct reader r;

	buf_put_u8(&b, (uint8_t)p.what);
	buf_put_u64(&b, p.total);
	buf_put_u64(&b, p.at);
	buf_append(&b, all, p.n);
	r = reader_of(b.data, b.len);
	return wire_on_part(w, from, &r, ret);
}

static void test_parts(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct peer a = { .id = 7, .address = "a" }, other = { .id = 8 };
	struct raft_message m, whole = sample(8);
	struct wire w;
	size_t n;

	wire_init(&w, NULL, NULL);
	encode(&b, 8);
	n = b.len;
	assert_false(feed(&w, &a, (struct part){ 0, n, 0, 9 }, b.data, &m));
	/* of another, over the end, not the next, another total */
	assert_false(feed(&w, &other, (struct part){ 0, n, 9, n - 9 }, b.data + 9,
			  &m));
	assert_false(feed(&w, &a, (struct part){ 0, n, 9, n - 8 }, b.data + 8, &m));
	assert_false(feed(&w, &a, (struct part){ 0, n, 8, n - 8 }, b.data + 8, &m));
	assert_false(feed(&w, &a, (struct part){ 0, n - 1, 9, n - 10 },
			  b.data + 9, &m));
	assert_false(feed(&w, &a, (struct part){ 2, n, 9, n - 9 }, b.data + 9, &m));
	assert_true(feed(&w, &a, (struct part){ 0, n, 9, n - 9 }, b.data + 9, &m));
	assert_int_equal(m.server_id, 7);
	assert_string_equal(m.server_address, "a");
	assert_same_entries(&whole.append_entries, &m.append_entries);
	raftmsg_free(&m);
	/* once only; not beyond the limit; not after it has gone */
	assert_false(feed(&w, &a, (struct part){ 0, n, 9, n - 9 }, b.data + 9, &m));
	assert_false(feed(&w, &a, (struct part){ 0, WIRE_MESSAGE_MAX + 1, 0, 9 },
			  b.data, &m));
	assert_int_equal(w.in[0].from, 0);
	assert_false(feed(&w, &a, (struct part){ 0, n, 0, 9 }, b.data, &m));
	wire_unheard(&w, 7);
	assert_false(feed(&w, &a, (struct part){ 0, n, 9, n - 9 }, b.data + 9, &m));
	wire_close(&w);
}

static bool tell(struct wire *w, const struct peer *from, uint64_t len,
		 struct raft_message *ret)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct raft_message m = sample(5);
	struct reader r;

	m.install_snapshot.data.len = len;
	assert_true(raftmsg_put(&b, &m));
	r = reader_of(b.data, b.len);
	return wire_on_message(w, from, &r, ret);
}

/* A snapshot's message is one only behind all of its data. */
static void test_snapshot_parts(void **state)
{
	struct peer a = { .id = 7 }, other = { .id = 8 };
	struct raft_message m;
	struct wire w;

	wire_init(&w, NULL, NULL);
	assert_false(tell(&w, &a, 0, &m));
	assert_false(tell(&w, &a, 20, &m));
	assert_false(feed(&w, &a, (struct part){ 1, 20, 0, 15 }, bytes, &m));
	assert_false(tell(&w, &a, 20, &m));
	assert_false(feed(&w, &a, (struct part){ 1, 20, 0, 15 }, bytes, &m));
	assert_false(tell(&w, &other, 20, &m));
	assert_false(feed(&w, &a, (struct part){ 1, 20, 15, 5 }, bytes + 15, &m));
	assert_false(tell(&w, &other, 20, &m));
	assert_true(tell(&w, &a, 20, &m));
	assert_memory_equal(m.install_snapshot.data.base, bytes, 20);
	raftmsg_free(&m);
	assert_false(tell(&w, &a, 20, &m));
	assert_false(feed(&w, &a, (struct part){ 1, WIRE_SNAPSHOT_MAX + 1, 0, 5 },
			  bytes, &m));
	assert_int_equal(w.in[1].from, 0);
	wire_close(&w);
}

static int setup(void **state)
{
	consensus_heap_set();
	log_set_level(-1);
	fill_entries();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_cut_and_longer),
		cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_bad_configurations),
		cmocka_unit_test(test_anything),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_snapshot_parts),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
