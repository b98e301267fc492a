/* Members come and go, links are cut and healed, at random; meanwhile every
 * write that is acknowledged must stay, in order and once, and every read must
 * see all that was acknowledged before it began.
 * SEED=n another run, SECONDS=n a longer one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/db_help.h"

#define CLIENTS 8 /* of each kind and member */
#define VOTERS 3
#define ALL 4 /* and one stand-by */

struct world;

/* Writes 1, 2, 3 ... into a row of its own, each only over the one before. */
struct writer {
	struct world *world;
	int node;
	unsigned life;
	char ref[32];
	uint64_t written, acked;
	bool busy, broken;
};

struct reader_client {
	struct world *world;
	int node;
	struct writer *about;
	char ref[32];
	uint64_t at_least;
	bool busy;
};

struct world {
	struct pool *pool;
	struct writer writers[ALL][CLIENTS];
	struct reader_client readers[ALL][CLIENTS];
	struct {
		uint64_t generation, n_txns;
		unsigned n_reloaded;
	} opened[ALL];
	int64_t down_until[ALL], heal_at;
	bool cut;
	uint64_t random;
	uint64_t n_writes, n_reads, n_lost, n_kills, n_cuts, n_transfers;
	uint64_t n_read_timeouts;
};

static unsigned pick(struct world *w, unsigned n)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (unsigned)((z ^ z >> 31) % n);
}

static uint64_t value_at(struct node *n, const char *ref)
{
	const char *s = secret_of(n, ref);

	return s ? strtoull(s, NULL, 10) : 0;
}

/* --- clients --- */

static void on_written(void *data, int error, struct txn_result result)
{
	struct writer *c = data;
	struct node *n = &c->world->pool->nodes[c->node];

	c->busy = false;
	if (error) {
		/* It may be there or not: the row is left alone. Of a member
		 * that was away for more writes than are remembered nobody
		 * can say. */
		if (error != -ETIMEDOUT ||
		    c->world->n_writes < STORE_REMEMBERED_IDS)
			assert_int_equal(error, -ECANCELED);
		c->world->n_lost++;
		c->broken = true;
		return;
	}
	assert_int_equal(result.status, TXN_OK);
	c->acked = c->written;
	c->world->n_writes++;
	assert_true(value_at(n, c->ref) == c->acked);
}

static void write_next(struct writer *c)
{
	struct node *n = &c->world->pool->nodes[c->node];
	struct txn *t;
	struct record *r;

	/* started again, and not caught up yet */
	if (!c->broken && value_at(n, c->ref) != c->acked)
		return;
	t = txn_new("test");
	if (c->broken || c->written == 0) {
		snprintf(c->ref, sizeof c->ref, "w%d-%d-%u", c->node,
			 (int)(c - c->world->writers[c->node]), ++c->life);
		c->written = c->acked = 0;
		c->broken = false;
		txn_create(t, SECRET, c->ref);
		txn_set(t, SECRET, c->ref, F_secret_uuid,
			value_printf("u-%s", c->ref));
	} else {
		r = store_get(db_store(n->db), c->ref);
		assert_non_null(r);
		txn_guard_field(t, r, F_secret_value);
	}
	txn_set(t, SECRET, c->ref, F_secret_value,
		value_printf("%llu", (unsigned long long)++c->written));
	c->busy = true;
	db_submit(n->db, t, on_written, c);
}

static void on_read(void *data, int error)
{
	struct reader_client *c = data;
	struct node *n = &c->world->pool->nodes[c->node];

	c->busy = false;
	if (error == -ETIMEDOUT)
		c->world->n_read_timeouts++;
	if (error)
		return;
	c->world->n_reads++;
	if (value_at(n, c->ref) < c->at_least)
		fail_msg("stale read of %s at member %d: %llu, %llu was "
			 "acknowledged", c->ref, c->node,
			 (unsigned long long)value_at(n, c->ref),
			 (unsigned long long)c->at_least);
}

static void read_next(struct reader_client *c)
{
	struct world *w = c->world;
	struct writer *about = &w->writers[pick(w, ALL)][pick(w, CLIENTS)];

	c->about = about;
	snprintf(c->ref, sizeof c->ref, "%s", about->ref);
	c->at_least = about->acked;
	c->busy = true;
	db_read_barrier(w->pool->nodes[c->node].db, on_read, c);
}

static void drive(struct world *w, bool more)
{
	for (int i = 0; i < ALL && more; i++) {
		if (!w->pool->nodes[i].db)
			continue;
		for (int k = 0; k < CLIENTS; k++) {
			if (!w->writers[i][k].busy)
				write_next(&w->writers[i][k]);
			if (!w->readers[i][k].busy)
				read_next(&w->readers[i][k]);
		}
	}
	uv_run(&w->pool->loop, UV_RUN_ONCE);
}

static bool any_busy(struct world *w)
{
	for (int i = 0; i < ALL; i++)
		for (int k = 0; k < CLIENTS; k++)
			if (w->writers[i][k].busy || w->readers[i][k].busy)
				return true;
	return false;
}

/* --- faults --- */

static void on_transferred(void *data, int error)
{
}

static void cut_one(struct world *w, int64_t now)
{
	int a = (int)pick(w, VOTERS);

	/* one of the voters from the others, or only one of the links */
	for (int b = 0; b < ALL; b++)
		if (b != a && (pick(w, 2) || b == (a + 1) % VOTERS))
			w->pool->cut[a][b] = w->pool->cut[b][a] = true;
	w->cut = true;
	w->heal_at = now + 800 + pick(w, 1500);
	w->n_cuts++;
}

static void kill_one(struct world *w, int64_t now)
{
	int i = (int)pick(w, ALL);

	/* never so many that no majority is left for long */
	for (int k = 0; k < ALL; k++)
		if (!w->pool->nodes[k].db)
			return;
	node_close(&w->pool->nodes[i]);
	w->down_until[i] = now + 100 + pick(w, 1500);
	w->n_kills++;
}

static void open_one(struct world *w, int i)
{
	struct node *n = &w->pool->nodes[i];

	assert_int_equal(node_try_open(n), 0);
	w->opened[i].generation = store_generation(db_store(n->db));
	w->opened[i].n_txns = n->db->n_txns;
	w->opened[i].n_reloaded = n->n_reloaded;
}

/* Every transaction here changes something, so each counts once, unless it was
 * in the log twice: our own retries must never put it there. */
static void assert_nothing_twice(struct world *w)
{
	for (int i = 0; i < ALL; i++) {
		struct node *n = &w->pool->nodes[i];

		assert_int_equal(n->db->n_differences, 0);
		if (n->n_reloaded == w->opened[i].n_reloaded)
			assert_int_equal(
				store_generation(db_store(n->db)) -
					w->opened[i].generation,
				n->db->n_txns - w->opened[i].n_txns);
	}
}

static void heal(struct world *w, int64_t now, bool all)
{
	if (w->cut && (all || now >= w->heal_at)) {
		memset(w->pool->cut, 0, sizeof w->pool->cut);
		w->cut = false;
	}
	for (int i = 0; i < ALL; i++)
		if (!w->pool->nodes[i].db && (all || now >= w->down_until[i]))
			open_one(w, i);
}

static void fault(struct world *w, int64_t now)
{
	struct node *l = serving_node(w->pool);

	switch (pick(w, 3)) {
	case 0:
		kill_one(w, now);
		break;
	case 1:
		if (!w->cut)
			cut_one(w, now);
		break;
	case 2:
		if (l && db_transfer(l->db, 0, on_transferred, NULL) == 0)
			w->n_transfers++;
		break;
	}
}

/* --- the test --- */

static void start(struct world *w)
{
	w->pool = pool_new_in("/tmp");
	w->pool->trusted[3] = true;
	for (int i = 0; i < ALL; i++) {
		w->pool->nodes[i].cfg.snapshot_threshold = 200;
		for (int k = 0; k < CLIENTS; k++) {
			w->writers[i][k].world = w->readers[i][k].world = w;
			w->writers[i][k].node = w->readers[i][k].node = i;
		}
	}
	pool_start(w->pool, VOTERS);
	assert_int_equal(node_try_open(&w->pool->nodes[3]), 0);
	assert_int_equal(add_member(&w->pool->nodes[0], &w->pool->nodes[3],
				    DB_STANDBY), 0);
}

static void check_end(struct world *w)
{
	int64_t end = env_mono_ms() + 20000;

	heal(w, 0, true);
	while (any_busy(w)) {
		assert_true(env_mono_ms() < end);
		drive(w, false);
	}
	assert_all_same(w->pool);
	assert_nothing_twice(w);
	for (int i = 0; i < ALL; i++)
		for (int k = 0; k < CLIENTS; k++) {
			struct writer *c = &w->writers[i][k];
			uint64_t v = value_at(&w->pool->nodes[0], c->ref);

			assert_in_range(v, c->acked, c->written);
		}
}

static void test_random(void **state)
{
	const char *seed = getenv("SEED"), *seconds = getenv("SECONDS");
	struct world *w = xcalloc(1, sizeof *w);
	int64_t end, next;

	w->random = seed ? strtoull(seed, NULL, 10) : 1;
	start(w);
	end = env_mono_ms() + (seconds ? atoi(seconds) : 8) * 1000;
	next = env_mono_ms() + 300;
	while (env_mono_ms() < end) {
		int64_t now = env_mono_ms();

		if (now >= next) {
			fault(w, now);
			next = now + 50 + pick(w, 700);
		}
		heal(w, now, false);
		drive(w, true);
	}
	check_end(w);
	print_message("%llu writes, %llu unknown, %llu reads, %llu timed out, "
		      "%llu kills, %llu cuts, %llu transfers\n",
		      (unsigned long long)w->n_writes,
		      (unsigned long long)w->n_lost,
		      (unsigned long long)w->n_reads,
		      (unsigned long long)w->n_read_timeouts,
		      (unsigned long long)w->n_kills,
		      (unsigned long long)w->n_cuts,
		      (unsigned long long)w->n_transfers);
	assert_true(w->n_writes > 100 && w->n_reads > 100);
	pool_free(w->pool);
	free(w);
}

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libraft.so\n"; /* see test_db.c */
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
