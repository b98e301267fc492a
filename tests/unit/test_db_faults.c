/* The replicated database when members, links, disks and files fail. VERBOSE=1
 * shows the logs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mount.h>
#include <sys/syscall.h>

#include "raftdb/consensus_aio.h"
#include "raftdb/link_impl.h"
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

static void cut(struct pool *p, int a, int b, bool on)
{
	p->cut[a][b] = p->cut[b][a] = on;
}

/* It still believes to lead when another does already, and must not read. */
static void test_stale_leader_does_not_read(void **state)
{
	struct pool *p = *state;
	struct node *old = &p->nodes[0], *l;
	struct answer a = { 0 }, r = { 0 };

	old->cfg.election_timeout_ms = 4000;
	old->cfg.read_timeout_ms = 300;
	pool_start(p, 3);
	submit_ok(old, new_secret("a", "1"));
	cut(p, 0, 1, true);
	cut(p, 0, 2, true);
	wait_for(p, 3000, p->nodes[1].serving || p->nodes[2].serving);
	l = p->nodes[1].serving ? &p->nodes[1] : &p->nodes[2];
	submit_ok(l, set_secret("a", "2"));
	assert_true(old->serving);
	assert_int_equal(read_barrier(old), -ETIMEDOUT);
	assert_true(old->serving);
	db_submit(old->db, set_secret("a", "3"), on_answer, &a);
	run_for(p, 100);
	assert_true(old->serving);
	assert_false(a.done);
	assert_string_equal(secret_of(old, "a"), "1");
	/* back in the pool both find their way */
	old->db->read_timeout_ms = 5000;
	db_read_barrier(old->db, on_int_answer, &r);
	cut(p, 0, 1, false);
	cut(p, 0, 2, false);
	wait_for(p, 8000, a.done && r.done);
	assert_int_equal(a.error, 0);
	assert_int_equal(r.error, 0);
	assert_all_same(p);
	assert_string_equal(secret_of(l, "a"), "3");
}

/* The leader has two in its log and one in its queue, the link breaks: they are
 * not sent again before their fate is known. */
static void test_retry_is_exact(void **state)
{
	struct pool *p = *state;
	struct node *l = &p->nodes[0], *o = &p->nodes[3];
	struct answer a = { 0 }, b = { 0 }, c = { 0 };
	uint64_t last, n_txns;

	p->trusted[3] = true;
	l->cfg.election_timeout_ms = 8000;
	pool_start(p, 3);
	assert_int_equal(node_try_open(o), 0);
	assert_int_equal(add_member(l, o, DB_STANDBY), 0);
	submit_ok(o, new_secret("a", "1"));
	n_txns = l->db->n_txns;
	/* nothing can be committed any more */
	node_close(&p->nodes[1]);
	node_close(&p->nodes[2]);
	last = status_of(l).last_index;
	db_submit(o->db, set_secret("a", "2"), on_answer, &a);
	wait_for(p, 2000, status_of(l).last_index == last + 1);
	db_submit(o->db, set_secret("a", "3"), on_answer, &b);
	wait_for(p, 2000, status_of(l).last_index == last + 2);
	db_submit(o->db, set_secret("a", "4"), on_answer, &c);
	wait_for(p, 2000, !list_empty(&l->db->txns.forwarded));
	cut(p, 0, 3, true);
	wait_for(p, 2000, !peers_get(o->db->peers, l->me.id)->connected);
	cut(p, 0, 3, false);
	wait_for(p, 2000, peers_get(o->db->peers, l->me.id)->connected);
	run_for(p, 400);
	assert_true(l->serving);
	assert_int_equal(status_of(l).last_index, last + 2);
	assert_false(a.done || b.done || c.done);
	assert_int_equal(node_try_open(&p->nodes[1]), 0);
	wait_for(p, 10000, a.done && b.done && c.done);
	assert_int_equal(a.error | b.error | c.error, 0);
	assert_all_same(p);
	assert_int_equal(l->db->n_txns, n_txns + 3);
	assert_string_equal(secret_of(o, "a"), "4");
}

/* What the leader had not proposed yet when the link broke is sent again. */
static void test_retry_of_the_lost(void **state)
{
	struct pool *p = *state;
	struct node *l = &p->nodes[0], *o = &p->nodes[1];
	static struct answer answers[2000];
	uint64_t n_txns;

	pool_start(p, 3);
	memset(answers, 0, sizeof answers);
	submit_ok(o, new_secret("a", "1"));
	n_txns = l->db->n_txns;
	for (unsigned i = 0; i < ARRAY_LEN(answers); i++) {
		db_submit(o->db, set_secret("a", "2"), on_answer, &answers[i]);
		if (i % 200 == 100) {
			struct peer *out = peers_get(o->db->peers, l->me.id);

			uv_run(&p->loop, UV_RUN_NOWAIT);
			if (out->connected)
				conn_fail(out->out, "cut by the test");
		}
	}
	for (unsigned i = 0; i < ARRAY_LEN(answers); i++) {
		wait_for(p, 10000, answers[i].done);
		assert_int_equal(answers[i].error, 0);
		assert_int_equal(answers[i].result.status, TXN_OK);
	}
	assert_int_equal(l->db->n_txns, n_txns + ARRAY_LEN(answers));
	assert_all_same(p);
}

/* Pauses what comes to a member from others; tells its bytes so far. */
static uint64_t hold_links(struct node *n, bool hold)
{
	uint64_t bytes = 0;

	list_for_each(it, &n->db->link->conns) {
		struct link_conn *c = list_entry(it, struct link_conn, in_link);

		if (c->outgoing)
			continue;
		link_conn_pause(c, hold);
		bytes += BIO_number_read(c->rbio);
	}
	return bytes;
}

/* What does not arrive at once is not sent again with every heartbeat. */
static void test_slow_network_is_not_flooded(void **state)
{
	struct pool *p = *state;
	struct answer answers[20] = { 0 };
	uint64_t before, bytes;
	char *big = xmalloc(300001), ref[16];

	memset(big, 'x', 300000);
	big[300000] = 0;
	for (int i = 0; i < 3; i++)
		p->nodes[i].cfg.election_timeout_ms = 5000;
	pool_start(p, 3);
	before = hold_links(&p->nodes[1], true);
	hold_links(&p->nodes[2], true);
	for (int k = 0; k < 20; k++) {
		snprintf(ref, sizeof ref, "s%d", k);
		db_submit(p->nodes[0].db, new_secret(ref, big), on_answer,
			  &answers[k]);
	}
	run_for(p, 700);
	hold_links(&p->nodes[2], false);
	bytes = hold_links(&p->nodes[1], false);
	for (int k = 0; k < 20; k++) {
		wait_for(p, 10000, answers[k].done);
		assert_int_equal(answers[k].error, 0);
	}
	assert_all_same(p);
	bytes = hold_links(&p->nodes[1], false) - before;
	print_message("%d KiB of transactions took %d KiB\n", 20 * 300000 / 1024,
		      (int)(bytes / 1024));
	assert_in_range(bytes, 20 * 300000, 2 * 20 * 300000);
	free(big);
}

static void test_odd_one_stops(void **state)
{
	struct pool *p = *state;
	struct txn *t = new_secret("only-here", "1");

	pool_start(p, 3);
	submit_ok(&p->nodes[0], new_secret("a", "1"));
	log_set_level(-1);
	store_apply(p->nodes[2].db->store, t);
	txn_free(t);
	submit_ok(&p->nodes[0], set_secret("a", "2"));
	wait_for(p, 8000, p->nodes[2].n_fatal == 1);
	assert_int_equal(p->nodes[2].end, DB_END_REBUILD);
	assert_non_null(strstr(p->nodes[2].fatal, "differed"));
	run_for(p, 300);
	assert_int_equal(p->nodes[0].n_fatal + p->nodes[1].n_fatal, 0);
	submit_ok(&p->nodes[1], set_secret("a", "3"));
}

/* --- full disks --- */

static bool small_disk(struct node *n, const char *options)
{
	_cleanup_(freep) char *cert = xasprintf("%s/../c%d.pem", n->dir, 1);
	_cleanup_(freep) char *key = xasprintf("%s/../k%d.pem", n->dir, 1);

	assert_int_equal(rename(n->cert, cert), 0);
	assert_int_equal(rename(n->key, key), 0);
	if (mount("tmpfs", n->dir, "tmpfs", 0, options) < 0)
		return false;
	free(n->cert);
	free(n->key);
	n->cfg.cert_file = n->cert = TAKE_PTR(cert);
	n->cfg.key_file = n->key = TAKE_PTR(key);
	return true;
}

static void use_space(struct node *n, unsigned mib)
{
	_cleanup_(freep) char *path = xasprintf("%s/ballast", n->dir);
	FILE *f;

	if (mib == 0) {
		assert_int_equal(unlink(path), 0);
		return;
	}
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(posix_fallocate(fileno(f), 0, (off_t)mib << 20), 0);
	fclose(f);
}

static void test_disk_full(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	struct answer a;

	if (!small_disk(n, "size=200m"))
		skip();
	n->cfg.min_free_mib = 64;
	pool_start(p, 1);
	submit_ok(n, new_secret("a", "1"));
	log_set_level(-1);
	use_space(n, 100);
	wait_for(p, 2000, n->db->disk_low);
	a = submit(n, set_secret("a", "2"), 2000);
	assert_int_equal(a.error, -ENOSPC);
	assert_int_equal(read_barrier(n), 0);
	assert_string_equal(secret_of(n, "a"), "1");
	use_space(n, 0);
	wait_for(p, 2000, !n->db->disk_low);
	submit_ok(n, set_secret("a", "3"));
	node_close(n);
	assert_int_equal(umount2(n->dir, MNT_DETACH), 0);
}

static void test_disk_full_hands_over(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];

	if (!small_disk(n, "size=200m"))
		skip();
	for (int i = 0; i < 3; i++)
		p->nodes[i].cfg.min_free_mib = 64;
	pool_start(p, 3);
	submit_ok(n, new_secret("a", "1"));
	log_set_level(-1);
	use_space(n, 100);
	wait_for(p, 5000, !n->serving &&
				  (p->nodes[1].serving || p->nodes[2].serving));
	/* it goes on as a follower */
	submit_ok(n, set_secret("a", "2"));
	run_for(p, 1000);
	assert_false(n->serving);
	assert_all_same(p);
	node_close(n);
	assert_int_equal(umount2(n->dir, MNT_DETACH), 0);
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

/* What libraft says of its log must be true, or we believe a disk stuck. */
static void assert_stored(struct node *n)
{
	wait_for(n->pool, 2000, n->db->st.stored_index == n->db->st.last_index);
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
	assert_stored(n);
	assert_int_equal(store_generation(db_store(n->db)), 200);
	assert_non_null(secret_of(n, "f199"));
	assert_non_null(secret_of(n, "f0"));
}

/* Areas of memory that the kernel shares with a context for asynchronous
 * writes: one each. */
static unsigned count_aio(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		n += strstr(line, "[aio]") != NULL;
	fclose(f);
	return n;
}

/* The kernel takes its time to end a file's context of asynchronous writes: no
 * turn of the loop may wait for it. */
static void test_ends_of_files_hold_nobody_up(void **state)
{
	struct pool *p = *state;
	struct node *n = &p->nodes[0];
	uint64_t before;

	n->cfg.snapshot_threshold = 32;
	pool_start(p, 1);
	assert_true(count_aio() > 0);
	before = consensus_aio_ends();
	fill(n, 0, 100);
	wait_for(p, 5000, status_of(n).snapshot_index > 50);
	wait_for(p, 5000, consensus_aio_ends() > before);
	node_close(n);
	wait_for(p, 5000, count_aio() == 0);

	/* everything else is as ever */
	assert_int_equal(syscall(SYS_getpid), getpid());
	errno = 0;
	assert_int_equal(syscall(SYS_close, -1), -1);
	assert_int_equal(errno, EBADF);
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
	wait_for(p, 10000, away->n_reloaded >= 1);
	assert_int_equal(read_barrier(away), 0);
	assert_non_null(secret_of(away, "f309"));
	assert_all_same(p);
	assert_stored(away);
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
	wait_for(p, 10000, away->n_reloaded >= 2);
	assert_int_equal(read_barrier(away), 0);
	assert_string_equal(secret_of(away, "f1"), "after");
	assert_all_same(p);
	for (int i = 0; i < 3; i++)
		assert_stored(&p->nodes[i]);
}

/* Hardly to be made smaller. */
static char *noise(size_t n, unsigned seed)
{
	char *p = xmalloc(n + 1);

	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (char)('0' + (seed >> 24) % 64);
	}
	p[n] = 0;
	return p;
}

/* Bytes that to has got of from over the connection that it reads. */
static uint64_t heard(struct node *to, struct node *from)
{
	struct peer *p = peers_get(to->db->peers, from->cfg.id);

	return p && p->in ? BIO_number_read(p->in->rbio) : 0;
}

static bool reloaded(struct node *n, struct node *from, size_t *peak)
{
	struct peer *p = peers_get(from->db->peers, n->cfg.id);

	if (p && p->connected)
		*peak = MAX(*peak, link_conn_queued(p->out));
	return n->n_reloaded > 0;
}

/* The leader, while a large snapshot is on its way to the third member. */
static struct node *start_large_snapshot(struct pool *p)
{
	struct node *away = &p->nodes[2], *l = &p->nodes[0];
	char ref[16];

	for (int i = 0; i < 3; i++) {
		p->nodes[i].cfg.snapshot_threshold = 32;
		/* All three wait while one of them packs or loads it. */
		p->nodes[i].cfg.election_timeout_ms = 8000;
	}
	pool_start(p, 3);
	node_close(away);
	for (unsigned i = 0; i < 24; i++) {
		_cleanup_(freep) char *big = noise(600000, i);

		snprintf(ref, sizeof ref, "n%u", i);
		submit_ok(l, new_secret(ref, big));
	}
	fill(l, 0, 100);
	wait_for(p, 20000, status_of(l).snapshot_index > 100 &&
				   !l->db->snaps.work); /* and it is written */
	assert_true(l->serving);
	assert_int_equal(node_try_open(away), 0);
	wait_for(p, 20000, heard(away, l) > 2000000);
	assert_int_equal(away->n_reloaded, 0);
	return l;
}

/* It goes in pieces that do not pile up, also when the connection breaks between
 * them, and meanwhile all goes on. */
static void test_large_snapshot(void **state)
{
	struct pool *p = *state;
	struct node *l = start_large_snapshot(p), *away = &p->nodes[2];
	size_t peak = 0;

	log_set_level(-1);
	conn_fail(peers_get(l->db->peers, away->cfg.id)->out, "by the test");
	run_for(p, 20);
	assert_int_equal(away->n_reloaded, 0);
	submit_ok(l, new_secret("meanwhile", "1"));
	wait_for(p, 20000, reloaded(away, l, &peak));
	assert_in_range(peak, 0, 3 * LINK_QUEUE_HIGH);
	assert_int_equal(read_barrier(away), 0);
	assert_all_same(p);
	assert_non_null(secret_of(away, "meanwhile"));
}

/* It reads no more of the snapshot that is on its way to it, or does again. */
static void hold_snapshot(struct node *to, struct node *from, bool hold)
{
	link_conn_pause(peers_get(to->db->peers, from->cfg.id)->in, hold);
}

/* The others' change waits for the snapshot, but not for ever. */
static void test_no_change_during_a_snapshot(void **state)
{
	struct pool *p = *state;
	struct node *l = start_large_snapshot(p), *away = &p->nodes[2];
	struct node *fourth = &p->nodes[3];
	struct answer a = { 0 };
	uint64_t last;

	hold_snapshot(away, l, true);
	last = status_of(l).last_index;
	assert_int_equal(db_add_member(l->db, fourth->me.id,
				       fourth->me.address, on_int_answer, &a),
			 0);
	run_for(p, 300);
	assert_int_equal(consensus_installing(l->db->consensus), away->me.id);
	assert_false(a.done);
	assert_int_equal(status_of(l).last_index, last);
	hold_snapshot(away, l, false);
	wait_for(p, 20000, a.done);
	assert_int_equal(a.error, 0);
	assert_true(status_of(l).last_index > last);
	wait_for(p, 20000, away->n_reloaded > 0);
	assert_all_same(p);
}

/* The one that the snapshot is for may hang: it can be removed all the same, and
 * after a while the others' change goes on. */
static void test_change_past_a_hanging_receiver(void **state)
{
	struct pool *p = *state;
	struct node *l = start_large_snapshot(p), *away = &p->nodes[2];
	struct node *fourth = &p->nodes[3];
	struct answer a = { 0 };

	hold_snapshot(away, l, true);
	assert_int_equal(db_add_member(l->db, fourth->me.id,
				       fourth->me.address, on_int_answer, &a),
			 0);
	run_for(p, 100);
	assert_false(a.done);
	l->db->change.asked_at -= 20000;
	wait_for(p, 2000, a.done);
	a.done = false;
	assert_int_equal(consensus_installing(l->db->consensus), away->me.id);
	assert_int_equal(db_remove_member(l->db, away->me.id, on_int_answer,
					  &a), 0);
	wait_for(p, 1500, a.done); /* before the connection is given up */
	assert_int_equal(a.error, 0);
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
	    type == FTW_F && !strstr(path, ".meta"))
		snprintf(found, sizeof found, "%s", path);
	return 0;
}

static bool has_file(struct node *n, const char *prefix)
{
	find_prefix = prefix;
	found[0] = 0;
	nftw(n->dir, match_one, 16, FTW_PHYS);
	return found[0] != 0;
}

static const char *find_file(struct node *n, const char *prefix)
{
	has_file(n, prefix);
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
	wait_for(p, 5000, has_file(n, "snapshot-1"));
	node_close(n);
	path = find_file(n, "snapshot-1");
	flip_byte(path, 300);
	log_set_level(-1);
	assert_int_equal(node_try_open(n), -EBADMSG);
	run_for(p, 50);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_leader_dies),
		T(test_all_restart),
		T(test_no_majority),
		T(test_stale_leader_does_not_read),
		T(test_retry_is_exact),
		T(test_retry_of_the_lost),
		T(test_slow_network_is_not_flooded),
		T(test_odd_one_stops),
		T(test_disk_full),
		T(test_disk_full_hands_over),
		T(test_close_with_pending),
		T(test_close_from_a_callback),
		T(test_snapshot_and_restart),
		T(test_ends_of_files_hold_nobody_up),
		T(test_snapshot_install),
		T(test_large_snapshot),
		T(test_no_change_during_a_snapshot),
		T(test_change_past_a_hanging_receiver),
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
