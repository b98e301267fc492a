/* The replicated database: several members in one process. VERBOSE=1 shows
 * their logs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/db_help.h"

/* libraft 0.22.1 drops a second InstallSnapshot that arrives while it writes
 * the first, and forgets its memory. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libraft.so\n";
}

static int setup(void **state)
{
	*state = pool_new_in("/tmp");
	return 0;
}

static int teardown(void **state)
{
	pool_free(*state);
	return 0;
}

/* --- one member --- */

static void test_pool_of_one(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];

	assert_false(db_has_state(&n->cfg));
	assert_int_equal(db_bootstrap(&n->cfg), 0);
	assert_true(db_has_state(&n->cfg));
	assert_int_equal(db_bootstrap(&n->cfg), -EEXIST);
	assert_int_equal(node_try_open(n), 0);
	wait_for(p, 5000, n->serving);
	assert_int_equal(n->leader, n->me.id);
	submit_ok(n, new_secret("a", "1"));
	assert_int_equal(read_barrier(n), 0);
	assert_string_equal(secret_of(n, "a"), "1");
	assert_int_equal(n->n_changed, 1);
	node_close(n);
	assert_int_equal(node_try_open(n), 0);
	wait_for(p, 5000, n->serving);
	assert_string_equal(secret_of(n, "a"), "1");
}

static void test_results(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	struct answer a, b;
	struct txn *t;

	pool_start(p, 1);
	submit_ok(n, new_secret("a", "1"));
	a = submit(n, new_secret("a", "2"), 5000);
	assert_int_equal(a.error, 0);
	assert_int_equal(a.result.status, TXN_NOT_UNIQUE);
	/* the same id again: applied once, the same answer */
	t = set_secret("a", "3");
	b = (struct answer){ 0 };
	{
		struct txn *again = set_secret("a", "3");

		memcpy(again->id, t->id, TXN_ID_LEN);
		a = submit(n, t, 5000);
		submit_ok(n, set_secret("a", "4"));
		b = submit(n, again, 5000);
	}
	assert_int_equal(b.error, 0);
	assert_int_equal(b.result.generation, a.result.generation);
	assert_string_equal(secret_of(n, "a"), "4");
	/* too large for an entry */
	t = txn_new("test");
	for (int i = 0; i < 10; i++) {
		char *big = xmalloc(100000);

		memset(big, 'x', 100000);
		txn_set(t, SECRET, "a", F_secret_value,
			value_string(big, 100000));
		free(big);
	}
	a = submit(n, t, 5000);
	assert_int_equal(a.error, -E2BIG);
}

static void test_same_id_twice_at_once(void **state)
{
	struct pool *p = *state;
	struct txn *t = new_secret("a", "1"), *u = new_secret("a", "1");
	struct answer a = { 0 }, b = { 0 };

	pool_start(p, 1);
	memcpy(u->id, t->id, TXN_ID_LEN);
	db_submit(p->nodes[0].db, t, on_answer, &a);
	db_submit(p->nodes[0].db, u, on_answer, &b);
	wait_for(p, 5000, a.done && b.done);
	assert_int_equal(a.error, 0);
	assert_int_equal(b.error, -EALREADY);
}

static void test_second_open_is_refused(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	struct db *first;

	pool_start(p, 1);
	first = TAKE_PTR(n->db);
	log_set_level(-1);
	assert_int_equal(node_try_open(n), -EBUSY);
	assert_int_equal(db_bootstrap(&n->cfg), -EBUSY);
	n->db = first;
	submit_ok(n, new_secret("a", "1"));
}

static void test_bad_settings(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	const char *good = n->cfg.cert_file;

	log_set_level(-1);
	n->cfg.cert_file = "/nonexistent";
	assert_int_equal(node_try_open(n), -EINVAL);
	n->cfg.cert_file = good;
	n->cfg.peer_address = "nonsense";
	assert_int_equal(node_try_open(n), -EINVAL);
	n->cfg.peer_address = "192.0.2.1:8444";
	assert_int_equal(node_try_open(n), UV_EADDRNOTAVAIL);
	n->cfg.peer_address = n->me.address;
	n->cfg.key_file = p->nodes[1].cfg.key_file;
	assert_int_equal(node_try_open(n), -EINVAL);
	n->cfg.key_file = n->key;
	run_for(p, 20);
	pool_start(p, 1);
}

static void test_pending_limits(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	static struct answer answers[70000];
	unsigned busy = 0;

	pool_start(p, 1);
	memset(answers, 0, sizeof answers);
	for (unsigned i = 0; i < ARRAY_LEN(answers); i++)
		db_submit(n->db, set_secret("none", "x"), on_answer,
			  &answers[i]);
	for (unsigned i = 0; i < ARRAY_LEN(answers); i++) {
		wait_for(p, 20000, answers[i].done);
		busy += answers[i].error == -EBUSY;
		if (answers[i].error != -EBUSY) {
			assert_int_equal(answers[i].error, 0);
			assert_int_equal(answers[i].result.status,
					 TXN_NO_OBJECT);
		}
	}
	assert_int_equal(busy, 70000 - 65536);
}

/* --- three members --- */

static void test_three_members(void **state)
{
	struct pool *p = *state;
	struct db_status s;
	char ref[16];

	pool_start(p, 3);
	for (int i = 0; i < 3; i++) {
		snprintf(ref, sizeof ref, "s%d", i);
		submit_ok(&p->nodes[i], new_secret(ref, "v"));
		/* read your writes, on the spot */
		assert_string_equal(secret_of(&p->nodes[i], ref), "v");
		for (int k = 0; k < 3; k++) {
			assert_int_equal(read_barrier(&p->nodes[k]), 0);
			assert_string_equal(secret_of(&p->nodes[k], ref), "v");
		}
	}
	run_for(p, 700);
	s = status_of(&p->nodes[1]);
	assert_int_equal(s.n_members, 3);
	assert_int_equal(s.leader_id, p->nodes[0].me.id);
	assert_false(s.is_leader);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(s.members[i].role, DB_VOTER);
		assert_true(s.members[i].connected);
		assert_in_range(s.members[i].heard_ms_ago, 0, 600);
		assert_int_equal(s.members[i].applied_index, s.applied_index);
	}
	assert_true(db_member_alive(p->nodes[0].db, p->nodes[2].me.id, 300));
	assert_false(db_member_alive(p->nodes[0].db, 77, 300));
	assert_all_same(p);
}

static void test_many_from_everywhere(void **state)
{
	struct pool *p = *state;
	static struct answer answers[3][400];
	char ref[16];

	pool_start(p, 3);
	memset(answers, 0, sizeof answers);
	for (int k = 0; k < 400; k++)
		for (int i = 0; i < 3; i++) {
			snprintf(ref, sizeof ref, "s%d-%d", i, k);
			db_submit(p->nodes[i].db, new_secret(ref, "v"),
				  on_answer, &answers[i][k]);
			if (k % 50 == 0)
				uv_run(&p->loop, UV_RUN_NOWAIT);
		}
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 400; k++) {
			wait_for(p, 10000, answers[i][k].done);
			assert_int_equal(answers[i][k].error, 0);
			assert_int_equal(answers[i][k].result.status, TXN_OK);
		}
	assert_all_same(p);
	assert_int_equal(store_generation(db_store(p->nodes[2].db)), 1200);
}

static void test_big_transactions(void **state)
{
	struct pool *p = *state;
	struct answer answers[24] = { 0 };
	char *big = xmalloc(500001);
	char ref[16];

	memset(big, 'x', 500000);
	big[500000] = 0;
	pool_start(p, 3);
	for (int k = 0; k < 24; k++) {
		snprintf(ref, sizeof ref, "s%d", k);
		db_submit(p->nodes[k % 3].db, new_secret(ref, big), on_answer,
			  &answers[k]);
	}
	for (int k = 0; k < 24; k++) {
		wait_for(p, 20000, answers[k].done);
		assert_int_equal(answers[k].error, 0);
	}
	free(big);
	assert_all_same(p);
}

static void test_membership(void **state)
{
	struct pool *p = *state;
	struct node *a = &p->nodes[0], *b = &p->nodes[1], *c = &p->nodes[2];
	struct answer x = { 0 };

	pool_start(p, 2);
	assert_int_equal(node_try_open(c), 0);
	submit_ok(a, new_secret("s", "v"));
	/* only the leader, one at a time */
	assert_int_equal(add_member(b, c, DB_SPARE), -EPERM);
	assert_int_equal(db_add_member(a->db, c->me.id, c->me.address,
				       on_int_answer, &x), 0);
	assert_int_equal(db_assign(a->db, b->me.id, DB_STANDBY, on_int_answer,
				   &x), -EBUSY);
	wait_for(p, 5000, x.done);
	assert_int_equal(x.error, 0);
	assert_int_equal(add_member(a, c, DB_SPARE), -EEXIST);
	assert_int_equal(db_add_member(a->db, 9, "nonsense", on_int_answer, &x),
			 -EINVAL);
	/* a spare has no data; a stand-by has */
	run_for(p, 100);
	assert_null(secret_of(c, "s"));
	assert_int_equal(change(a, db_assign, c->me.id, DB_STANDBY), 0);
	wait_for(p, 5000, secret_of(c, "s"));
	assert_int_equal(change(a, db_assign, c->me.id, DB_STANDBY), -EALREADY);
	/* a stand-by writes and reads as well */
	submit_ok(c, new_secret("c", "v"));
	assert_int_equal(read_barrier(c), 0);
	assert_int_equal(change(a, db_assign, c->me.id, DB_VOTER), 0);
	assert_int_equal(change(a, db_assign, b->me.id, DB_STANDBY), 0);
	assert_int_equal(status_of(a).members[1].role, DB_STANDBY);
	assert_int_equal(change(a, db_assign, a->me.id, DB_STANDBY), -EINVAL);
	assert_int_equal(db_remove_member(a->db, a->me.id, on_int_answer, &x),
			 -EINVAL);
	assert_int_equal(remove_member(a, b), 0);
	assert_int_equal(status_of(a).n_members, 2);
}

static void test_removed_member_stops(void **state)
{
	struct pool *p = *state;

	pool_start(p, 3);
	/* the entry that removes it may reach it, or not */
	assert_int_equal(remove_member(&p->nodes[0], &p->nodes[2]), 0);
	if (status_of(&p->nodes[2]).n_members == 2)
		wait_for(p, 6000, p->nodes[2].n_fatal == 1);
	assert_int_equal(p->nodes[0].n_fatal, 0);
}

static void test_transfer(void **state)
{
	struct pool *p = *state;
	struct answer x = { 0 };

	pool_start(p, 3);
	assert_int_equal(db_transfer(p->nodes[1].db, 0, on_int_answer, &x),
			 -EPERM);
	assert_int_equal(db_transfer(p->nodes[0].db, p->nodes[2].me.id,
				     on_int_answer, &x), 0);
	/* writes go on meanwhile */
	for (int i = 0; i < 3; i++)
		submit_ok(&p->nodes[i], i ? set_secret("a", "2")
					  : new_secret("a", "1"));
	wait_for(p, 5000, x.done && p->nodes[2].serving);
	assert_int_equal(x.error, 0);
	assert_false(p->nodes[0].serving);
	submit_ok(&p->nodes[0], set_secret("a", "3"));
	assert_all_same(p);
}

static void test_messages(void **state)
{
	struct pool *p = *state;
	static char big[1024 * 1024];
	struct node *a = &p->nodes[0], *b = &p->nodes[1];

	pool_start(p, 2);
	assert_int_equal(db_send(a->db, 77, "x", 1), -ENOTCONN);
	assert_int_equal(db_send(a->db, b->me.id, big, sizeof big + 1),
			 -EMSGSIZE);
	wait_for(p, 5000, db_send(a->db, b->me.id, "hello", 5) == 0);
	wait_for(p, 5000, b->message_from == a->me.id);
	assert_string_equal(b->message, "hello");
	memset(big, 'y', sizeof big);
	b->message[0] = 0;
	assert_int_equal(db_send(a->db, b->me.id, big, sizeof big), 0);
	wait_for(p, 5000, b->message[0] == 'y');
}

/* --- faults --- */

static void test_leader_dies(void **state)
{
	struct pool *p = *state;
	struct node *old = &p->nodes[0], *l;
	struct answer answers[40] = { 0 };
	char ref[16];
	int64_t t0;

	pool_start(p, 3);
	submit_ok(old, new_secret("a", "1"));
	for (int k = 0; k < 40; k++) {
		snprintf(ref, sizeof ref, "k%d", k);
		db_submit(p->nodes[1 + k % 2].db, new_secret(ref, "v"),
			  on_answer, &answers[k]);
		if (k == 20)
			run_for(p, 1);
	}
	t0 = env_mono_ms();
	node_close(old);
	wait_for(p, 5000, serving_node(p));
	for (int k = 0; k < 40; k++) {
		wait_for(p, 10000, answers[k].done);
		assert_int_equal(answers[k].error, 0);
		/* each exactly once, or a second create would fail */
		assert_int_equal(answers[k].result.status, TXN_OK);
	}
	print_message("all acknowledged %d ms after the leader left\n",
		      (int)(env_mono_ms() - t0));
	l = serving_node(p);
	submit_ok(l, set_secret("a", "2"));
	for (int i = 1; i < 3; i++) {
		assert_int_equal(read_barrier(&p->nodes[i]), 0);
		assert_string_equal(secret_of(&p->nodes[i], "a"), "2");
	}
	assert_int_equal(node_try_open(old), 0);
	wait_for(p, 5000, old->leader == l->me.id);
	assert_int_equal(read_barrier(old), 0);
	assert_string_equal(secret_of(old, "a"), "2");
	assert_int_equal(store_generation(db_store(old->db)), 42);
	assert_all_same(p);
}

static void test_all_restart(void **state)
{
	struct pool *p = *state;

	pool_start(p, 3);
	submit_ok(&p->nodes[1], new_secret("a", "1"));
	for (int i = 0; i < 3; i++)
		node_close(&p->nodes[i]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_try_open(&p->nodes[i]), 0);
	wait_for(p, 5000, serving_node(p));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(read_barrier(&p->nodes[i]), 0);
		assert_string_equal(secret_of(&p->nodes[i], "a"), "1");
	}
	assert_all_same(p);
}

static void test_no_majority(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	struct answer a;

	for (int i = 0; i < 3; i++) {
		p->nodes[i].cfg.txn_timeout_ms = 700;
		p->nodes[i].cfg.read_timeout_ms = 400;
	}
	pool_start(p, 3);
	submit_ok(n, new_secret("a", "1"));
	node_close(&p->nodes[1]);
	node_close(&p->nodes[2]);
	/* at once, while it still believes to lead */
	assert_int_equal(read_barrier(n), -ETIMEDOUT);
	wait_for(p, 3000, !n->serving);
	a = submit(n, set_secret("a", "2"), 3000);
	assert_int_equal(a.error, -ETIMEDOUT);
	assert_string_equal(secret_of(n, "a"), "1");
	/* and it comes back */
	assert_int_equal(node_try_open(&p->nodes[1]), 0);
	wait_for(p, 5000, serving_node(p));
	submit_ok(n, set_secret("a", "3"));
	assert_int_equal(read_barrier(&p->nodes[1]), 0);
	assert_string_equal(secret_of(&p->nodes[1], "a"), "3");
}

static void test_close_with_pending(void **state)
{
	struct pool *p = *state;
	struct answer a = { 0 }, b = { 0 };

	pool_start(p, 3);
	db_submit(p->nodes[1].db, new_secret("a", "1"), on_answer, &a);
	db_read_barrier(p->nodes[1].db, on_int_answer, &b);
	node_close(&p->nodes[1]);
	assert_true(a.done && b.done);
	assert_int_equal(a.error, -ECANCELED);
	assert_int_equal(b.error, -ECANCELED);
}

static void close_in_callback(void *data, int error, struct txn_result result)
{
	struct node *n = data;

	db_close(n->db, NULL, NULL);
	n->db = NULL;
}

static void test_close_from_a_callback(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];

	pool_start(p, 1);
	db_submit(n->db, new_secret("a", "1"), close_in_callback, n);
	wait_for(p, 5000, !n->db);
	run_for(p, 200);
	assert_int_equal(node_try_open(n), 0);
	wait_for(p, 5000, n->serving);
	assert_string_equal(secret_of(n, "a"), "1");
}

static void fill(struct node *n, int from, int count)
{
	for (int k = from; k < from + count; k++) {
		char ref[16];

		snprintf(ref, sizeof ref, "f%d", k);
		submit_ok(n, new_secret(ref, "value"));
	}
}

static void test_snapshot_and_restart(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	uint64_t snapshot;

	n->cfg.snapshot_threshold = 32;
	pool_start(p, 1);
	fill(n, 0, 200);
	wait_for(p, 5000, status_of(n).snapshot_index > 100);
	snapshot = status_of(n).snapshot_index;
	run_for(p, 100);
	node_close(n);
	assert_int_equal(node_try_open(n), 0);
	assert_true(status_of(n).snapshot_index >= snapshot);
	wait_for(p, 5000, n->serving);
	assert_int_equal(store_generation(db_store(n->db)), 200);
	assert_non_null(secret_of(n, "f199"));
	assert_non_null(secret_of(n, "f0"));
}

static void test_snapshot_install(void **state)
{
	struct pool *p = *state;
	struct node *away = &p->nodes[2];

	for (int i = 0; i < 3; i++)
		p->nodes[i].cfg.snapshot_threshold = 32;
	pool_start(p, 3);
	fill(&p->nodes[0], 0, 10);
	node_close(away);
	fill(&p->nodes[1], 10, 300);
	wait_for(p, 5000, status_of(&p->nodes[0]).snapshot_index > 200);
	assert_int_equal(node_try_open(away), 0);
	wait_for(p, 10000, away->n_reloaded == 1);
	assert_int_equal(read_barrier(away), 0);
	assert_non_null(secret_of(away, "f309"));
	assert_all_same(p);
	submit_ok(away, set_secret("f1", "after"));
	assert_string_equal(secret_of(away, "f1"), "after");
	/* and a member that starts from nothing */
	node_close(away);
	assert_int_equal(remove_member(&p->nodes[0], away), 0);
	remove_tree(away->dir);
	pool_init_node(p, 2);
	away->cfg.snapshot_threshold = 32;
	assert_int_equal(node_try_open(away), 0);
	assert_int_equal(add_member(&p->nodes[0], away, DB_VOTER), 0);
	wait_for(p, 10000, away->n_reloaded == 2);
	assert_int_equal(read_barrier(away), 0);
	assert_string_equal(secret_of(away, "f1"), "after");
	assert_all_same(p);
}

/* Submitted before the snapshot arrives, applied in what it covers. */
static void test_snapshot_completes_pending(void **state)
{
	struct pool *p = *state;
	struct node *away = &p->nodes[2];
	struct answer a = { 0 };
	struct txn *t = new_secret("x", "1"), *again = new_secret("x", "1");

	for (int i = 0; i < 3; i++)
		p->nodes[i].cfg.snapshot_threshold = 32;
	pool_start(p, 3);
	memcpy(again->id, t->id, TXN_ID_LEN);
	node_close(away);
	submit_ok(&p->nodes[0], t);
	fill(&p->nodes[1], 0, 200);
	wait_for(p, 5000, status_of(&p->nodes[0]).snapshot_index > 100);
	assert_int_equal(node_try_open(away), 0);
	db_submit(away->db, again, on_answer, &a);
	wait_for(p, 10000, a.done);
	assert_int_equal(a.error, 0);
	assert_int_equal(a.result.status, TXN_OK);
	assert_all_same(p);
}

static void test_stranger_is_refused(void **state)
{
	struct pool *p = *state;
	struct node *s = &p->nodes[3];

	pool_start(p, 2);
	log_set_level(-1);
	/* it believes itself a member; the others do not know its certificate */
	assert_int_equal(db_bootstrap(&s->cfg), 0);
	assert_int_equal(node_try_open(s), 0);
	assert_int_equal(add_member(&p->nodes[0], s, DB_SPARE), 0);
	run_for(p, 500);
	assert_false(status_of(&p->nodes[0]).members[2].connected);
	assert_int_equal(status_of(&p->nodes[0]).members[2].heard_ms_ago, -1);
	assert_int_equal(read_barrier(&p->nodes[1]), 0);
	/* trusted now: the links come up; then not any more: they are cut */
	p->trusted[3] = true;
	wait_for(p, 5000, status_of(&p->nodes[0]).members[2].connected);
	p->trusted[3] = false;
	wait_for(p, 5000, !status_of(&p->nodes[0]).members[2].connected);
}

/* --- damaged files --- */

static char found[256];
static const char *find_prefix;

static int match_one(const char *path, const struct stat *s, int type,
		     struct FTW *ftw)
{
	if (strncmp(path + ftw->base, find_prefix, strlen(find_prefix)) == 0 &&
	    type == FTW_F)
		snprintf(found, sizeof found, "%s", path);
	return 0;
}

static const char *find_file(struct node *n, const char *prefix)
{
	find_prefix = prefix;
	found[0] = 0;
	nftw(n->dir, match_one, 16, FTW_PHYS);
	assert_string_not_equal(found, "");
	return found;
}

static void flip_byte(const char *path, off_t at)
{
	FILE *f = fopen(path, "r+");
	int c;

	assert_non_null(f);
	assert_int_equal(fseek(f, at, SEEK_SET), 0);
	c = fgetc(f);
	assert_int_equal(fseek(f, at, SEEK_SET), 0);
	fputc(c ^ 0x55, f);
	fclose(f);
}

static void copy_file(const char *from, const char *to)
{
	_cleanup_(freep) char *cmd =
		xasprintf("cp -r --sparse=always %s %s", from, to);

	assert_int_equal(system(cmd), 0);
}

/* A crash leaves an open segment; its torn end is forgotten, the rest is
 * there. */
static void test_torn_open_segment(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	_cleanup_(freep) char *crashed = xasprintf("%s/crashed", p->dir);
	char ref[16];
	int k;

	pool_start(p, 1);
	fill(n, 0, 20);
	/* the folder as a crash would leave it, and a torn write behind it */
	copy_file(n->dir, crashed);
	node_close(n);
	remove_tree(n->dir);
	assert_int_equal(rename(crashed, n->dir), 0);
	{
		/* the newest batch of the open segment that is in use */
		const char *path = find_file(n, "open-1");
		FILE *f = fopen(path, "r+");
		static char bytes[1 << 20];
		size_t len, last = 0;

		assert_non_null(f);
		len = fread(bytes, 1, sizeof bytes, f);
		for (size_t i = 0; i < len; i++)
			if (bytes[i])
				last = i;
		assert_true(last > 1000);
		fclose(f);
		flip_byte(path, (off_t)last - 5);
	}
	assert_int_equal(node_try_open(n), 0);
	wait_for(p, 5000, n->serving);
	for (k = 0; k < 18; k++) {
		snprintf(ref, sizeof ref, "f%d", k);
		assert_non_null(secret_of(n, ref));
	}
	submit_ok(n, new_secret("after", "1"));
}

static void test_damaged_log_is_refused(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];

	pool_start(p, 1);
	fill(n, 0, 20);
	node_close(n);
	flip_byte(find_file(n, "0000000000000002-"), 600);
	log_set_level(-1);
	assert_int_equal(node_try_open(n), -EBADMSG);
	run_for(p, 50);
	/* and leaves nothing behind that would hold the folder */
	assert_int_equal(node_try_open(n), -EBADMSG);
	run_for(p, 50);
}

static void test_damaged_snapshot(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	const char *path;

	n->cfg.snapshot_threshold = 16;
	pool_start(p, 1);
	fill(n, 0, 20);
	wait_for(p, 5000, status_of(n).snapshot_index > 0);
	run_for(p, 100);
	node_close(n);
	path = find_file(n, "snapshot-1");
	if (strstr(path, ".meta"))
		found[strlen(path) - 5] = 0;
	flip_byte(path, 300);
	log_set_level(-1);
	assert_int_equal(node_try_open(n), -EBADMSG);
	run_for(p, 50);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_pool_of_one),
		T(test_results),
		T(test_same_id_twice_at_once),
		T(test_second_open_is_refused),
		T(test_bad_settings),
		T(test_pending_limits),
		T(test_three_members),
		T(test_many_from_everywhere),
		T(test_big_transactions),
		T(test_membership),
		T(test_removed_member_stops),
		T(test_transfer),
		T(test_messages),
		T(test_leader_dies),
		T(test_all_restart),
		T(test_no_majority),
		T(test_close_with_pending),
		T(test_close_from_a_callback),
		T(test_snapshot_and_restart),
		T(test_snapshot_install),
		T(test_snapshot_completes_pending),
		T(test_stranger_is_refused),
		T(test_torn_open_segment),
		T(test_damaged_log_is_refused),
		T(test_damaged_snapshot),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
