/* How fast the replicated database is: three members in one process (so one
 * core does the work of three hosts), TLS on loopback, the disk below /tmp or
 * the folder in argv[1]. Prints; checks nothing but that all succeed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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

int main(int argc, char **argv)
{
	struct pool *p = pool_new_in(argc > 1 ? argv[1] : "/tmp");
	const unsigned sizes[] = { 1, 16, 64, 256 };
	struct node *leader = &p->nodes[0], *follower = &p->nodes[1];

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
