/* The replicated database: several members in one process. VERBOSE=1 shows
 * their logs. Faults are in test_db_faults.c. */
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

/* Load that never ends: at least so many transactions always wait, and still
 * all of them end, in few entries, of which two at most are under way. */
static void test_window(void **state)
{
	static struct answer answers[20000];
	struct pool *p = *state;
	const struct db *db;
	unsigned n = 0, done = 0;
	uint64_t first;

	pool_start(p, 3);
	db = p->nodes[0].db;
	memset(answers, 0, sizeof answers);
	first = db->st.last_index;
	while (done < ARRAY_LEN(answers)) {
		for (; n < MIN(done + 2000, ARRAY_LEN(answers)); n++)
			db_submit(p->nodes[n % 3].db, set_secret("none", "x"),
				  on_answer, &answers[n]);
		uv_run(&p->loop, UV_RUN_ONCE);
		assert_in_range(db->txns.in_flight, 0, 2);
		while (done < n && answers[done].done)
			assert_int_equal(answers[done++].error, 0);
	}
	assert_true(db->st.last_index - first < ARRAY_LEN(answers) / 5);
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
		wait_for(p, 10000, answers[k].done);
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

/* --- a member that speaks for itself --- */

struct raw {
	struct node *node;
	struct link *link;
	struct link_conn *in, *out;
	bool ready;
	unsigned n[16];
	struct buf last[16]; /* by type */
};

static void raw_ready(void *data)
{
	((struct raw *)data)->ready = true;
}

static void raw_frame(void *data, uint8_t type, const char *p, size_t n)
{
	struct raw *r = data;

	assert_true(type < 16);
	r->n[type]++;
	r->last[type].len = 0;
	buf_append(&r->last[type], p, n);
}

static void raw_in_closed(void *data, const char *why)
{
	((struct raw *)data)->in = NULL;
}

static void raw_out_closed(void *data, const char *why)
{
	((struct raw *)data)->out = NULL;
}

static const struct link_conn_ops raw_in_ops = {
	.frame = raw_frame,
	.closed = raw_in_closed,
};

static const struct link_conn_ops raw_out_ops = {
	.ready = raw_ready,
	.closed = raw_out_closed,
};

static void raw_accepted(void *data, struct link_conn *c, enum link_kind kind,
			 const struct db_member *m)
{
	struct raw *r = data;

	if (kind != LINK_MESSAGES)
		return;
	r->in = c;
	link_conn_attach(c, &raw_in_ops, r);
}

static const struct db_member *raw_trusted(void *data, const char *fingerprint)
{
	return node_trusted(((struct raw *)data)->node, fingerprint);
}

static void raw_open(struct raw *r, struct node *n, struct node *to)
{
	const struct link_config cfg = { n->me.address, n->me.id, n->cert,
					 n->key };
	const struct link_ops ops = { r, raw_trusted, raw_accepted };

	memset(r, 0, sizeof *r);
	r->node = n;
	n->pool->trusted[n - n->pool->nodes] = true;
	assert_int_equal(link_new(&n->pool->loop, &cfg, &ops, &r->link), 0);
	r->out = link_connect(r->link, LINK_MESSAGES, to->me.id, to->me.address,
			      &raw_out_ops, r);
	wait_for(n->pool, 5000, r->ready && r->in);
}

static void raw_close(struct raw *r)
{
	bool closed = false;

	link_close(r->link, set_true, &closed);
	wait_for(r->node->pool, 5000, closed);
	for (int i = 0; i < 16; i++)
		buf_deinit(&r->last[i]);
}

static void raw_send(struct raw *r, uint8_t type, const void *p, size_t n)
{
	struct buf *b = link_frame_begin(r->out, type);

	assert_non_null(b);
	buf_append(b, p, n);
	link_frame_end(r->out);
	link_flush(r->link);
}

/* Sends u64 numbers (and perhaps bytes), waits for an answer of this type. */
static struct reader raw_ask(struct raw *r, uint8_t type, uint64_t x, uint64_t y,
			     const struct buf *more, uint8_t answer)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	unsigned n = r->n[answer];

	buf_put_u64(&b, x);
	buf_put_u64(&b, y);
	if (more)
		buf_append(&b, more->data, more->len);
	raw_send(r, type, b.data, b.len);
	wait_for(r->node->pool, 2000, r->n[answer] > n);
	return reader_of(r->last[answer].data, r->last[answer].len);
}

static void assert_answer(struct reader r, uint64_t seq, uint8_t code)
{
	assert_true(reader_u64(&r) == seq);
	assert_int_equal(reader_u8(&r), code);
	assert_false(r.bad);
}

static void test_protocol(void **state)
{
	struct pool *p = *state;
	struct node *l = &p->nodes[0];
	_cleanup_(buf_deinit) struct buf chunk = BUF_INIT, t = BUF_INIT;
	struct txn *txn = new_secret("raw", "1");
	uint64_t term, last;
	struct raw r;

	pool_start(p, 1);
	raw_open(&r, &p->nodes[3], l);
	term = status_of(l).term;
	txn_encode(&t, txn);
	txn_free(txn);
	buf_put_varint(&chunk, 1);
	buf_put_bytes(&chunk, t.data, t.len);
	/* it confirms its own term only */
	assert_answer(raw_ask(&r, FRAME_CONFIRM, 7, term, NULL,
			      FRAME_CONFIRMED), 7, 1);
	assert_answer(raw_ask(&r, FRAME_CONFIRM, 8, term - 1, NULL,
			      FRAME_CONFIRMED), 8, 0);
	assert_answer(raw_ask(&r, FRAME_CONFIRM, 9, term + 1, NULL,
			      FRAME_CONFIRMED), 9, 0);
	/* takes what is meant for this term only */
	last = status_of(l).last_index;
	assert_answer(raw_ask(&r, FRAME_FORWARD, 10, term - 1, &chunk,
			      FRAME_REFUSED), 10, REFUSED_NOT_LEADER);
	assert_answer(raw_ask(&r, FRAME_SYNC, 11, term - 1, NULL,
			      FRAME_SYNCED), 11, 0);
	assert_answer(raw_ask(&r, FRAME_SYNC, 12, term, NULL, FRAME_SYNCED),
		      12, 1);
	assert_int_equal(status_of(l).last_index, last);
	/* and so it goes into the log */
	{
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;

		buf_put_u64(&b, 13);
		buf_put_u64(&b, term);
		buf_append(&b, chunk.data, chunk.len);
		raw_send(&r, FRAME_FORWARD, b.data, b.len);
		wait_for(p, 2000, secret_of(l, "raw"));
	}
	assert_answer(raw_ask(&r, FRAME_READ, 14, 0, NULL, FRAME_READ_AT), 14,
		      1);
	raw_close(&r);
}

/* Whatever an authenticated member sends, the others go on. */
static void test_nonsense_frames(void **state)
{
	struct pool *p = *state;
	struct node *l = &p->nodes[0];
	uint64_t random = 42;
	struct raw r;
	char junk[64];

	pool_start(p, 1);
	raw_open(&r, &p->nodes[3], l);
	log_set_level(-1);
	for (int i = 0; i < 4000; i++) {
		size_t n;

		random = random * 6364136223846793005u + 1442695040888963407u;
		n = random >> 58;
		for (size_t k = 0; k < n; k++) {
			random = random * 6364136223846793005u + 1;
			/* small numbers get further */
			junk[k] = (char)(random >> 60 ? 0 : random >> 40);
		}
		raw_send(&r, (uint8_t)(i % 14), junk, n);
		if (i % 100 == 0)
			uv_run(&p->loop, UV_RUN_NOWAIT);
	}
	run_for(p, 100);
	assert_non_null(r.out);
	submit_ok(l, new_secret("a", "1"));
	assert_int_equal(read_barrier(l), 0);
	raw_close(&r);
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
		T(test_window),
		T(test_big_transactions),
		T(test_membership),
		T(test_removed_member_stops),
		T(test_transfer),
		T(test_messages),
		T(test_protocol),
		T(test_nonsense_frames),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
