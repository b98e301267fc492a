/* A pool of several database members in one process and one loop, with real
 * TLS between 127.0.0.1, .2, .3 ... and real folders. Include after <cmocka.h>.
 */
#ifndef TESTS_UNIT_DB_HELP_H
#define TESTS_UNIT_DB_HELP_H

#include <errno.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "raftdb/db_impl.h"
#include "schema/gen/schema_ids.h"

#define NODES 4
#define SECRET (&schema_classes[CLASS_secret])

struct node {
	struct pool *pool;
	struct db *db; /* NULL: down */
	struct db_config cfg;
	struct db_member me;
	char *dir, *cert, *key;
	uint64_t leader;
	bool serving;
	unsigned n_changed, n_reloaded, n_fatal;
	char fatal[200];
	enum db_end end;
	uint64_t message_from;
	char message[64];
};

struct pool {
	uv_loop_t loop;
	uv_timer_t waker;
	int64_t woke_at, slowest_turn; /* of the loop, ms */
	char dir[64];
	struct node nodes[NODES];
	bool trusted[NODES]; /* by everybody */
	bool cut[NODES][NODES]; /* but not by this one: no connection */
};

/* --- certificates --- */

static void make_certificate(struct node *n)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509_NAME *name = X509_get_subject_name(x);
	unsigned char digest[32];
	FILE *f;

	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
				   (const unsigned char *)"host", -1, -1, 0);
	X509_set_issuer_name(x, name);
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	f = fopen(n->cert, "w");
	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, x), 1);
	fclose(f);
	f = fopen(n->key, "w");
	assert_non_null(f);
	assert_int_equal(
		PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
	X509_digest(x, EVP_sha256(), digest, NULL);
	hex_encode(digest, sizeof digest, n->me.fingerprint);
	X509_free(x);
	EVP_PKEY_free(key);
}

/* --- the pool --- */

static const struct db_member *node_trusted(void *data, const char *fingerprint)
{
	struct node *n = data;

	for (int i = 0; i < NODES; i++)
		if (n->pool->trusted[i] &&
		    !n->pool->cut[n - n->pool->nodes][i] &&
		    strcmp(n->pool->nodes[i].me.fingerprint, fingerprint) == 0)
			return &n->pool->nodes[i].me;
	return NULL;
}

static void node_changed(void *data, const struct txn *t, uint64_t generation,
			 const struct change *changes, size_t count)
{
	((struct node *)data)->n_changed++;
}

static void node_reloaded(void *data)
{
	((struct node *)data)->n_reloaded++;
}

static void node_leader(void *data, uint64_t leader, bool serving)
{
	struct node *n = data;

	n->leader = leader;
	n->serving = serving;
}

static void node_fatal(void *data, enum db_end end, const char *why)
{
	struct node *n = data;

	n->n_fatal++;
	n->end = end;
	snprintf(n->fatal, sizeof n->fatal, "%s", why);
}

static void node_message(void *data, uint64_t from, const char *p, size_t len)
{
	struct node *n = data;

	n->message_from = from;
	snprintf(n->message, sizeof n->message, "%.*s", (int)len, p);
}

static int node_try_open(struct node *n)
{
	const struct db_callbacks cb = {
		.data = n,
		.trusted = node_trusted,
		.changed = node_changed,
		.reloaded = node_reloaded,
		.leader = node_leader,
		.fatal = node_fatal,
	};
	int r;

	assert_null(n->db);
	n->leader = 0;
	n->serving = false;
	r = db_open(&n->pool->loop, &n->cfg, &cb, &n->db);
	if (r == 0)
		db_set_message_fn(n->db, node_message, n);
	return r;
}

static void on_waker(uv_timer_t *t)
{
	struct pool *p = t->data;
	int64_t now = env_mono_ms();

	if (p->woke_at && now - p->woke_at > p->slowest_turn)
		p->slowest_turn = now - p->woke_at;
	p->woke_at = now;
}

static void pool_init_node(struct pool *p, int i)
{
	struct node *n = &p->nodes[i];

	n->pool = p;
	if (!n->dir) {
		n->dir = xasprintf("%s/n%d", p->dir, i + 1);
		n->cert = xasprintf("%s/cert.pem", n->dir);
		n->key = xasprintf("%s/key.pem", n->dir);
	}
	assert_int_equal(mkdir(n->dir, 0700), 0);
	snprintf(n->me.address, sizeof n->me.address, "127.0.0.%d:18%03d", i + 1,
		 (int)(getpid() % 1000));
	memcpy(n->me.uuid, "00000000-0000-0000-0000-000000000000", UUID_LEN + 1);
	n->me.uuid[7] = n->me.uuid[35] = (char)('1' + i);
	n->me.id = db_id_of_uuid(n->me.uuid);
	make_certificate(n);
	n->cfg = (struct db_config){
		.dir = n->dir,
		.id = n->me.id,
		.peer_address = n->me.address,
		.cert_file = n->cert,
		.key_file = n->key,
		.min_free_mib = 1,
		.election_timeout_ms = 400, /* the machine may be busy */
	};
}

static _unused_ struct pool *pool_new_in(const char *parent)
{
	struct pool *p = xcalloc(1, sizeof *p);

	log_set_level(getenv("VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	snprintf(p->dir, sizeof p->dir, "%s/test-db-XXXXXX", parent);
	assert_non_null(mkdtemp(p->dir));
	assert_int_equal(uv_loop_init(&p->loop), 0);
	uv_timer_init(&p->loop, &p->waker);
	p->waker.data = p;
	uv_timer_start(&p->waker, on_waker, 5, 5);
	for (int i = 0; i < NODES; i++) {
		pool_init_node(p, i);
		p->trusted[i] = i < 3;
	}
	return p;
}

static int remove_one(const char *path, const struct stat *s, int type,
		      struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void set_true(void *data)
{
	*(bool *)data = true;
}

static _unused_ void node_close(struct node *n)
{
	bool closed = false;

	db_close(n->db, set_true, &closed);
	n->db = NULL;
	while (!closed)
		uv_run(&n->pool->loop, UV_RUN_ONCE);
}

static void count_open(uv_handle_t *h, void *n)
{
	*(unsigned *)n += !uv_is_closing(h);
}

/* A test that failed halfway may leave handles of its own: they are leaked. */
static _unused_ void pool_free(struct pool *p)
{
	unsigned open = 0;

	for (int i = 0; i < NODES; i++)
		if (p->nodes[i].db)
			node_close(&p->nodes[i]);
	uv_close((uv_handle_t *)&p->waker, NULL);
	uv_walk(&p->loop, count_open, &open);
	remove_tree(p->dir);
	if (open > 0) {
		print_error("%u handles are still open\n", open);
		return;
	}
	uv_run(&p->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&p->loop), 0);
	for (int i = 0; i < NODES; i++) {
		free(p->nodes[i].dir);
		free(p->nodes[i].cert);
		free(p->nodes[i].key);
	}
	free(p);
}

/* --- waiting --- */

static unsigned length(const struct list *l)
{
	unsigned n = 0;

	list_for_each(it, l)
		n++;
	return n;
}

/* Who waits for what. */
static void pool_dump(struct pool *p)
{
	print_error("slowest turn of the loop: %d ms\n", (int)p->slowest_turn);
	for (int i = 0; i < NODES; i++) {
		struct db *db = p->nodes[i].db;

		if (!db)
			continue;
		print_error("member %d: leader %llx term %llu%s%s%s, index "
			    "%llu applied %llu commit %llu stored %llu last; "
			    "txns %u queued %u sent %u unsure %u forwarded %u "
			    "in flight, sync %d at %llu; reads %u waiting %u "
			    "asked %u applying%s\n",
			    i + 1, (unsigned long long)db->st.leader_id >> 32,
			    (unsigned long long)db->st.term,
			    db->st.is_leader ? " leads" : "",
			    db->serving ? " serves" : "",
			    db->st.transferring ? " hands over" : "",
			    (unsigned long long)db->st.applied_index,
			    (unsigned long long)db->st.commit_index,
			    (unsigned long long)db->st.stored_index,
			    (unsigned long long)db->st.last_index,
			    length(&db->txns.queued), length(&db->txns.sent),
			    length(&db->txns.unsure),
			    length(&db->txns.forwarded), db->txns.in_flight,
			    db->txns.sync,
			    (unsigned long long)db->txns.sync_index,
			    length(&db->reads.waiting),
			    length(&db->reads.asked),
			    length(&db->reads.applying),
			    db->reads.round.active ? ", a round" : "");
	}
}

/* Runs the loop until the expression holds; fails the test after ms. */
#define wait_for(p, ms, expression)                                     \
	do {                                                            \
		int64_t _end = env_mono_ms() + (ms);                    \
		while (!(expression)) {                                 \
			if (env_mono_ms() > _end) {                     \
				pool_dump(p);                           \
				fail_msg("not in %d ms: %s", (int)(ms), \
					 #expression);                  \
			}                                               \
			uv_run(&(p)->loop, UV_RUN_ONCE);                \
		}                                                       \
	} while (0)

static _unused_ void run_for(struct pool *p, int ms)
{
	int64_t end = env_mono_ms() + ms;

	while (env_mono_ms() < end)
		uv_run(&p->loop, UV_RUN_ONCE);
}

static _unused_ struct node *serving_node(struct pool *p)
{
	for (int i = 0; i < NODES; i++)
		if (p->nodes[i].db && p->nodes[i].serving)
			return &p->nodes[i];
	return NULL;
}

static _unused_ struct db_status status_of(struct node *n)
{
	struct db_status s;

	db_get_status(n->db, &s);
	return s;
}

/* --- calls that wait --- */

struct answer {
	bool done;
	int error;
	struct txn_result result;
};

static _unused_ void on_answer(void *data, int error, struct txn_result result)
{
	*(struct answer *)data = (struct answer){ true, error, result };
}

static void on_int_answer(void *data, int error)
{
	struct answer *a = data;

	a->done = true;
	a->error = error;
}

static _unused_ struct txn *new_secret(const char *ref, const char *value)
{
	struct txn *t = txn_new("test");

	txn_create(t, SECRET, ref);
	txn_set(t, SECRET, ref, F_secret_uuid, value_printf("u-%s", ref));
	txn_set(t, SECRET, ref, F_secret_value, value_stringz(value));
	return t;
}

static _unused_ struct txn *set_secret(const char *ref, const char *value)
{
	struct txn *t = txn_new("test");

	txn_set(t, SECRET, ref, F_secret_value, value_stringz(value));
	return t;
}

static _unused_ struct answer submit(struct node *n, struct txn *t, int ms)
{
	struct answer a = { 0 };

	db_submit(n->db, t, on_answer, &a);
	wait_for(n->pool, ms, a.done);
	return a;
}

static _unused_ void submit_ok(struct node *n, struct txn *t)
{
	struct answer a = submit(n, t, 10000);

	assert_int_equal(a.error, 0);
	assert_int_equal(a.result.status, TXN_OK);
}

static _unused_ int read_barrier(struct node *n)
{
	struct answer a = { 0 };

	db_read_barrier(n->db, on_int_answer, &a);
	wait_for(n->pool, 10000, a.done);
	return a.error;
}

/* NULL: no such row. */
static _unused_ const char *secret_of(struct node *n, const char *ref)
{
	struct record *r = store_get(db_store(n->db), ref);

	return r ? record_str(r, F_secret_value) : NULL;
}

static _unused_ int change(struct node *n,
			   int (*fn)(struct db *, uint64_t, enum db_role,
				     db_change_cb, void *),
			   uint64_t id, enum db_role role)
{
	struct answer a = { 0 };
	int r = fn(n->db, id, role, on_int_answer, &a);

	if (r < 0)
		return r;
	wait_for(n->pool, 20000, a.done);
	return a.error;
}

static _unused_ int add_member(struct node *n, struct node *who,
			       enum db_role role)
{
	struct answer a = { 0 };
	int r = db_add_member(n->db, who->me.id, who->me.address, on_int_answer,
			      &a);

	if (r < 0)
		return r;
	wait_for(n->pool, 20000, a.done);
	return a.error || role == DB_SPARE
		       ? a.error
		       : change(n, db_assign, who->me.id, role);
}

static _unused_ int remove_member(struct node *n, struct node *who)
{
	struct answer a = { 0 };
	int r = db_remove_member(n->db, who->me.id, on_int_answer, &a);

	if (r < 0)
		return r;
	wait_for(n->pool, 20000, a.done);
	return a.error;
}

/* Members 1..n, all voters; the first leads. */
static _unused_ void pool_start(struct pool *p, int n)
{
	assert_int_equal(db_bootstrap(&p->nodes[0].cfg), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(node_try_open(&p->nodes[i]), 0);
	wait_for(p, 5000, p->nodes[0].serving);
	for (int i = 1; i < n; i++)
		assert_int_equal(
			add_member(&p->nodes[0], &p->nodes[i], DB_VOTER), 0);
	for (int i = 1; i < n; i++)
		wait_for(p, 5000, p->nodes[i].leader == p->nodes[0].me.id);
}

static _unused_ bool same_state(struct node *a, struct node *b)
{
	struct hash128 x = store_digest(db_store(a->db));
	struct hash128 y = store_digest(db_store(b->db));

	return x.lo == y.lo && x.hi == y.hi &&
	       store_generation(db_store(a->db)) ==
		       store_generation(db_store(b->db));
}

static _unused_ void assert_all_same(struct pool *p)
{
	struct node *first = NULL;

	for (int i = 0; i < NODES; i++) {
		struct node *n = &p->nodes[i];

		if (!n->db)
			continue;
		if (!first)
			first = n;
		wait_for(p, 10000, same_state(first, n));
		assert_int_equal(n->n_fatal, 0);
	}
}

#endif
