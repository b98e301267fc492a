/* How fast the replicated database is: three members in one process (so one
 * core does the work of three hosts), TLS on loopback, the disk below /tmp or
 * the folder in argv[1]. Prints; checks nothing but that all succeed.
 * With a number of rows in argv[2], and perhaps of bytes in each in argv[3]:
 * what snapshots of so many cost instead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>

#include "tests/unit/db_help.h"

#define RUN_MS 1000

struct load {
	struct node *node;
	bool reads;
	int64_t end;
	uint64_t n;
	unsigned out;
	double worst;
};

struct client {
	struct load *load;
	char ref[16];
	double started;
};

static double now_s(void)
{
	return (double)uv_hrtime() / 1e9;
}

static void next(struct client *c);

static void ended(struct client *c, int error)
{
	struct load *l = c->load;
	double took = now_s() - c->started;

	assert_int_equal(error, 0);
	l->n++;
	l->out--;
	if (took > l->worst)
		l->worst = took;
	if (env_mono_ms() < l->end)
		next(c);
}

static void on_write(void *data, int error, struct txn_result result)
{
	assert_int_equal(result.status, TXN_OK);
	ended(data, error);
}

static void on_read(void *data, int error)
{
	ended(data, error);
}

static void next(struct client *c)
{
	struct load *l = c->load;

	l->out++;
	c->started = now_s();
	if (l->reads)
		db_read_barrier(l->node->db, on_read, c);
	else
		db_submit(l->node->db, set_secret(c->ref, "some new value"),
			  on_write, c);
}

static void run(struct node *n, const char *what, bool reads, unsigned clients)
{
	struct load l = { .node = n, .reads = reads };
	struct client c[1024];
	double t0 = now_s();

	l.end = env_mono_ms() + RUN_MS;
	for (unsigned i = 0; i < clients; i++) {
		c[i].load = &l;
		snprintf(c[i].ref, sizeof c[i].ref, "s%u", i);
		next(&c[i]);
	}
	wait_for(n->pool, 60000, l.out == 0);
	t0 = now_s() - t0;
	printf("%-22s %4u outstanding: %9.0f/s, mean %7.3f ms, worst %6.1f ms\n",
	       what, clients, (double)l.n / t0, t0 * 1000 * clients / (double)l.n,
	       l.worst * 1000);
	fflush(stdout);
}

static void stage(struct pool *p, const char *what, double t0)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	printf("%-34s %7.2f s, slowest turn of the loop %5d ms, peak %5ld "
	       "MiB\n", what, now_s() - t0, (int)p->slowest_turn,
	       u.ru_maxrss / 1024);
	fflush(stdout);
	p->slowest_turn = 0;
}

static void on_filled(void *data, int error, struct txn_result result)
{
	unsigned *left = data;

	assert_int_equal(error, 0);
	--*left;
}

/* Hardly compressible. */
static struct value *some_text(unsigned seed, unsigned size)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
	char *p = xmalloc(size);
	struct value *v;

	for (unsigned i = 0; i < size; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		p[i] = (char)(' ' + 1 + (x >> 33) % 94);
	}
	v = value_string(p, size);
	free(p);
	return v;
}

static void fill(struct pool *p, unsigned rows, unsigned size)
{
	unsigned left = 0;

	for (unsigned i = 0; i < rows; i += 10) {
		struct txn *t = txn_new("bench");

		for (unsigned k = i; k < i + 10; k++) {
			char ref[24];

			snprintf(ref, sizeof ref, "row-%u", k);
			txn_create(t, SECRET, ref);
			txn_set(t, SECRET, ref, F_secret_uuid,
				value_printf("u-%u", k));
			txn_set(t, SECRET, ref, F_secret_value,
				some_text(k, size));
		}
		left++;
		db_submit(p->nodes[0].db, t, on_filled, &left);
		wait_for(p, 60000, left < 100);
	}
	wait_for(p, 60000, left == 0);
}

static void snapshots(struct pool *p, unsigned rows, unsigned size)
{
	struct node *late = &p->nodes[3];
	double t0 = now_s();
	uint64_t before;
	char ref[24];

	p->trusted[3] = true;
	for (int i = 0; i < NODES; i++)
		p->nodes[i].cfg.snapshot_threshold = 1000;
	pool_start(p, 3);
	stage(p, "start", t0);
	t0 = now_s();
	fill(p, rows, size);
	stage(p, "writing the rows, 10 at a time", t0);
	before = status_of(&p->nodes[0]).snapshot_index;
	t0 = now_s();
	snprintf(ref, sizeof ref, "row-%u", rows - 1);
	for (int i = 0; i < 1100; i++)
		submit_ok(&p->nodes[0], set_secret(ref, "x"));
	wait_for(p, 60000, status_of(&p->nodes[0]).snapshot_index > before);
	stage(p, "1100 writes and a snapshot", t0);
	t0 = now_s();
	assert_int_equal(node_try_open(late), 0);
	assert_int_equal(add_member(&p->nodes[0], late, DB_STANDBY), 0);
	wait_for(p, 60000, late->n_reloaded > 0 &&
				   same_state(late, &p->nodes[0]));
	stage(p, "a new member gets it", t0);
	assert_true(p->nodes[0].serving);
	node_close(late);
	t0 = now_s();
	assert_int_equal(node_try_open(late), 0);
	stage(p, "it starts again", t0);
}

int main(int argc, char **argv)
{
	struct pool *p = pool_new_in(argc > 1 ? argv[1] : "/tmp");
	const unsigned sizes[] = { 1, 16, 64, 256 };
	struct node *leader = &p->nodes[0], *follower = &p->nodes[1];

	if (argc > 2) {
		snapshots(p, (unsigned)atoi(argv[2]),
			  argc > 3 ? (unsigned)atoi(argv[3]) : 30);
		pool_free(p);
		return 0;
	}
	pool_start(p, 3);
	for (unsigned i = 0; i < 1024; i++) {
		char ref[16];

		snprintf(ref, sizeof ref, "s%u", i);
		submit_ok(leader, new_secret(ref, "value"));
	}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		run(leader, "submit on the leader", false, sizes[i]);
		run(follower, "submit on a follower", false, sizes[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		run(leader, "read on the leader", true, sizes[i]);
		run(follower, "read on a follower", true, sizes[i]);
	}
	assert_all_same(p);
	pool_free(p);
	return 0;
}
