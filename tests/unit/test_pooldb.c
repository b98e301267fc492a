/* pool.db: it follows the store whatever happens to the queue and the file, its
 * history leads back to every earlier state, and restarts double nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store_help.h"
#include "raftdb/history.h"
#include "raftdb/pooldb.h"
#include "raftdb/pooldb_impl.h"
#include "raftdb/store_check.h"

struct fixture {
	uv_loop_t loop;
	struct store *store;
	struct pooldb *d;
	uint64_t index;
	char dir[64], path[80];
	struct pooldb_config cfg;
	int synced; /* 1: waiting */
};

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	struct fixture *f = data;

	if (f->d)
		pooldb_changed(f->d, f->index, t, generation, changes, n);
}

static void open_d(struct fixture *f)
{
	f->d = pooldb_start(&f->loop, &f->cfg, f->store, f->index);
}

static void sync_d(struct fixture *f);

/* And has it write what the store has, so that the history begins. */
static void open_filled(struct fixture *f)
{
	open_d(f);
	sync_d(f);
}

static void close_d(struct fixture *f)
{
	pooldb_stop(TAKE_PTR(f->d));
	uv_run(&f->loop, UV_RUN_DEFAULT);
}

static struct fixture *setup(void)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	env_replace(NULL);
	strcpy(f->dir, "/tmp/test-pooldb-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof f->path, "%s/pool.db", f->dir);
	f->cfg = (struct pooldb_config){ .dir = f->dir, .history_days = 30,
					 .history_mib = 64, .batch_ms = 5,
					 .retry_ms = 50 };
	uv_loop_init(&f->loop);
	f->store = store_new();
	store_set_observer(f->store, on_changed, f);
	return f;
}

static void teardown(struct fixture *f)
{
	char command[128];

	if (f->d)
		close_d(f);
	store_free(f->store);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	snprintf(command, sizeof command, "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
}

static void on_synced(void *data, int error)
{
	struct fixture *f = data;

	f->synced = error;
}

static int try_sync(struct fixture *f)
{
	f->synced = 1;
	pooldb_sync(f->d, on_synced, f);
	while (f->synced == 1)
		uv_run(&f->loop, UV_RUN_ONCE);
	return f->synced;
}

static void sync_d(struct fixture *f)
{
	assert_int_equal(try_sync(f), 0);
}

static void random_txns(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		f->index++;
		apply_free(f->store, random_txn(f->store));
	}
}

static int64_t number(struct fixture *f, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *st;
	int64_t ret;

	assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READONLY,
					 NULL), 0);
	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL))
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	ret = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return ret;
}

/* The file has exactly what the store has. */
static void assert_follows(struct fixture *f)
{
	char why[256] = "";
	struct pooldb_status s;
	int64_t rows = 0;

	sync_d(f);
	pooldb_get_status(f->d, &s);
	assert_int_equal(s.generation, store_generation(f->store));
	if (history_verify(f->path, why, sizeof why) != 0)
		fail_msg("%s", why);
	for (unsigned i = 0; i < schema_n_classes; i++) {
		char sql[100];

		if (!class_is_stored(&schema_classes[i]))
			continue;
		snprintf(sql, sizeof sql, "SELECT count(*) FROM \"%s\"",
			 schema_classes[i].name);
		rows = number(f, sql);
		assert_int_equal(rows, store_count(f->store, (int)i));
	}
}

static void set_name(struct fixture *f, const char *ref, const char *name)
{
	f->index++;
	assert_int_equal(apply_set(f->store, CLS(VM), ref, F_VM_name_label,
				   value_stringz(name)).status, TXN_OK);
}

/* The object as `at` gives it; to be json_object_put(). */
static struct json_object *at(struct fixture *f, const char *cls,
			      const char *uuid, uint64_t generation)
{
	char why[256] = "";
	char *text = NULL;
	struct json_object *o;

	if (history_at(f->path, cls, uuid, generation, 0, &text, why,
		       sizeof why) != 0)
		fail_msg("%s", why);
	o = json_tokener_parse(text);
	free(text);
	return o;
}

static void assert_at(struct fixture *f, const char *cls, const char *uuid,
		      uint64_t generation, const char *field, const char *want)
{
	struct json_object *o = at(f, cls, uuid, generation), *fields;
	bool exists = json_object_get_boolean(json_object_object_get(o, "exists"));

	assert_int_equal(exists, want != NULL);
	fields = json_object_object_get(o, "fields");
	if (want)
		assert_string_equal(json_object_get_string(
			json_object_object_get(fields, field)), want);
	json_object_put(o);
}

/* ---- following ---- */

static void test_follows(void **state)
{
	struct fixture *f = setup();
	struct stat st;

	world_seed = 7;
	random_txns(f, 300);
	open_d(f);
	assert_follows(f);
	for (unsigned i = 0; i < 10; i++) {
		random_txns(f, 200);
		assert_follows(f);
	}
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* One view, at the start. */
	assert_int_equal(number(f, "SELECT count(*) FROM history"
				" WHERE field = '_gap'"), 0);
	teardown(f);
}

/* Rows keep the order of changes, as event.from needs and people expect. */
static void test_order(void **state)
{
	struct fixture *f = setup();

	open_filled(f);
	apply_new(f->store, CLS(VM), "a");
	apply_new(f->store, CLS(VM), "b");
	set_name(f, "a", "changed last");
	sync_d(f);
	assert_int_equal(number(f, "SELECT (SELECT rowid FROM VM WHERE _ref ="
				" 'a') > (SELECT rowid FROM VM WHERE _ref ="
				" 'b')"), 1);
	teardown(f);
}

/* ---- history ---- */

static void test_history(void **state)
{
	struct fixture *f = setup();
	uint64_t g[6];
	char *text = NULL, why[200];

	open_filled(f);
	apply_new(f->store, CLS(VM), "first");
	sync_d(f);
	g[0] = store_generation(f->store);
	apply_new(f->store, CLS(VM), "x");
	g[1] = store_generation(f->store);
	set_name(f, "x", "one");
	g[2] = store_generation(f->store);
	set_name(f, "x", "two");
	g[3] = store_generation(f->store);
	{
		_txn_ t = txn_new("somebody");

		txn_destroy(t, "x");
		assert_int_equal(store_apply(f->store, t).status, TXN_OK);
	}
	g[4] = store_generation(f->store);
	sync_d(f);
	assert_at(f, "VM", "u-x", g[0], "name_label", NULL);
	assert_at(f, "VM", "u-x", g[1], "name_label", "");
	assert_at(f, "VM", "u-x", g[2], "name_label", "one");
	assert_at(f, "VM", "u-x", g[3], "name_label", "two");
	assert_at(f, "VM", "u-x", g[4], "name_label", NULL);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE uuid ="
				" 'u-x' AND field = 'name_label' AND new ="
				" 'two' AND old = 'one' AND author = 'test'"),
			 1);
	assert_int_equal(history_rows(f->path, "VM", "u-x", "name_label", 2,
				      &text, why, sizeof why), 0);
	assert_non_null(strstr(text, "\"more\":true"));
	free(text);
	assert_int_equal(history_rows(f->path, "Vm", "u-x", NULL, 2, &text, why,
				      sizeof why), -ENOENT);
	assert_int_equal(history_rows(f->path, "VM", "u-x", "nam", 2, &text,
				      why, sizeof why), -EINVAL);
	assert_int_equal(history_at(f->path, "VM", "u-x", g[4] + 1, 0, &text,
				    why, sizeof why), -ERANGE);
	teardown(f);
}

/* Every object of a random world, at every one of some earlier moments. */
static void test_any_past(void **state)
{
	struct fixture *f = setup();
	struct record **then;
	uint64_t generation;
	size_t n = 0;

	world_seed = world_seed_or(11);
	open_filled(f);
	random_txns(f, 3000);
	sync_d(f);
	then = xcalloc(store_count(f->store, CLASS_VM) + 1, sizeof *then);
	for (struct record *r = store_first(f->store, CLASS_VM); r;
	     r = store_next(f->store, r))
		then[n++] = record_ref(r);
	generation = store_generation(f->store);
	assert_true(n > 3);
	random_txns(f, 800);
	sync_d(f);
	for (size_t i = 0; i < n; i++) {
		struct buf b = BUF_INIT;

		for (unsigned k = 0; k < CLS(VM)->n_fields; k++) {
			b.len = 0;
			if (history_leaves_out(CLS(VM), k) ||
			    memchr(then[i]->fields[k]->s, 0, 1))
				continue;
			history_text(&b, CLS(VM), k, then[i]->fields[k]);
			/* The tools' text is what JSON and C strings take. */
			if (strlen(buf_cstr(&b)) != b.len ||
			    !text_valid(b.data, b.len))
				continue;
			assert_at(f, "VM", record_str(then[i],
						      (unsigned)CLS(VM)->f_uuid),
				  generation, CLS(VM)->fields[k].name,
				  buf_cstr(&b));
		}
		buf_deinit(&b);
		record_unref(then[i]);
	}
	free(then);
	teardown(f);
}

static void put_key(struct fixture *f, const char *key, const char *text)
{
	_txn_ t = txn_new("somebody");

	txn_map_put(t, CLS(VM), "m", F_VM_other_config, key,
		    value_stringz(text));
	assert_int_equal(store_apply(f->store, t).status, TXN_OK);
}

/* A large map that changes in one place costs that place. */
static void test_map(void **state)
{
	struct fixture *f = setup();
	char key[20], *large = xcalloc(1, 70001);
	_cleanup_(buf_deinit) struct buf before = BUF_INIT;
	uint64_t g, cut;
	struct json_object *o;

	open_filled(f);
	apply_new(f->store, CLS(VM), "m");
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof key, "k%d ') (", i);
		put_key(f, key, "it's (\\) ('so')");
	}
	g = store_generation(f->store);
	value_to_text(&before, store_get(f->store, "m")
				       ->fields[F_VM_other_config]);
	put_key(f, "k7 ') (", "changed");
	put_key(f, "added", "new");
	sync_d(f);
	assert_at(f, "VM", "u-m", g, "other_config", buf_cstr(&before));
	assert_int_equal(number(f, "SELECT max(length(old) + length(new)) FROM"
				" history WHERE field = 'other_config'") < 100,
			 1);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE old ="
				" '()' AND new = '((''added'' ''new''))'"), 1);

	/* What was too long to be kept whole is said to be so. */
	memset(large, 'x', 70000);
	put_key(f, "added", large);
	cut = store_generation(f->store);
	put_key(f, "added", "short");
	sync_d(f);
	o = at(f, "VM", "u-m", cut);
	assert_true(json_object_get_boolean(json_object_object_get(o, "gap")));
	json_object_put(o);
	free(large);
	teardown(f);
}

static void test_secrets(void **state)
{
	struct fixture *f = setup();
	_value_ text = value_stringz("geheim");

	open_filled(f);
	apply_new(f->store, CLS(secret), "s");
	apply_set(f->store, CLS(secret), "s", F_secret_value, value_ref(text));
	apply_new(f->store, CLS(credential), "c");
	apply_set(f->store, CLS(credential), "c", F_credential_hash,
		  value_ref(text));
	apply_new(f->store, CLS(PBD), "p");
	apply_set(f->store, CLS(PBD), "p", F_PBD_device_config,
		  value_map_of("cifspassword", value_ref(text), "server",
			       value_stringz("nas"), NULL));
	apply_new(f->store, CLS(session), "OpaqueRef:geheim");
	apply_set(f->store, CLS(session), "OpaqueRef:geheim", F_session_uuid,
		  value_stringz("its uuid"));
	apply_new(f->store, CLS(task), "t");
	apply_set(f->store, CLS(task), "t", F_task_session,
		  value_stringz("OpaqueRef:geheim"));
	sync_d(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE"
				" coalesce(old, '') || coalesce(new, '') ||"
				" ref || author LIKE '%geheim%'"
				" AND field != 'uuid'"), 0);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE new ="
				" '(hidden)' AND class IN ('secret',"
				" 'credential')"), 2);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE new LIKE"
				" '%server%nas%' AND class = 'PBD'"), 1);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE class ="
				" 'task' AND new LIKE 'session:%'"), 1);
	teardown(f);
}

static void test_noise(void **state)
{
	struct fixture *f = setup();

	open_filled(f);
	apply_new(f->store, CLS(task), "t");
	for (int i = 1; i < 50; i++)
		apply_set(f->store, CLS(task), "t", F_task_progress,
			  value_float(i / 50.0));
	sync_d(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history"
				" WHERE field = 'progress'"), 0);
	teardown(f);
}

static void test_pruned_by_size(void **state)
{
	struct fixture *f = setup();
	char *big = xmalloc(30001), *text, why[200];

	memset(big, 'x', 30000);
	big[30000] = 0;
	f->cfg.history_mib = 1;
	open_filled(f);
	apply_new(f->store, CLS(VM), "x");
	for (int i = 0; i < 400; i++) {
		big[0] = (char)('a' + i % 26);
		set_name(f, "x", big);
		if (i % 20 == 0)
			sync_d(f);
	}
	sync_d(f);
	assert_in_range(number(f, "SELECT sum(length(old) + length(new))"
			       " FROM history"), 1, 1400000);
	assert_int_equal(history_at(f->path, "VM", "u-x", 1, 0, &text, why,
				    sizeof why), -ERANGE);
	free(big);
	teardown(f);
}

static void test_no_history(void **state)
{
	struct fixture *f = setup();

	f->cfg.history_days = 0;
	open_d(f);
	world_seed = 5;
	random_txns(f, 100);
	assert_follows(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history"), 0);
	teardown(f);
}

/* ---- restarts ---- */

static void load_copy(struct fixture *f, const struct store_view *v)
{
	assert_true(store_load(f->store, v));
}

/* A daemon that starts again has an older store and replays the log: nothing
 * is written twice. */
static void test_replay(void **state)
{
	struct fixture *f = setup();
	struct store_view *old;
	struct txn *t[300];
	int64_t rows;

	world_seed = 3;
	open_filled(f);
	random_txns(f, 200);
	old = store_view_new(f->store);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		t[i] = random_txn(f->store);
		f->index++;
		store_apply(f->store, t[i]);
	}
	assert_follows(f);
	rows = number(f, "SELECT count(*) FROM history");
	close_d(f);
	load_copy(f, old);
	store_view_free(old);
	f->index -= ARRAY_LEN(t);
	open_d(f);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		f->index++;
		store_apply(f->store, t[i]);
		txn_free(t[i]);
	}
	assert_follows(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history"), rows);
	random_txns(f, 50);
	assert_follows(f);
	assert_true(number(f, "SELECT count(*) FROM history") > rows);
	assert_int_equal(number(f, "SELECT count(*) FROM history"
				" WHERE field = '_gap'"), 0);
	teardown(f);
}

/* The snapshot is newer than the file: the net change is there, and a row that
 * says so. */
static void test_gap_at_start(void **state)
{
	struct fixture *f = setup();
	uint64_t before;

	open_filled(f);
	apply_new(f->store, CLS(VM), "x");
	apply_new(f->store, CLS(VM), "gone");
	set_name(f, "x", "one");
	sync_d(f);
	before = store_generation(f->store);
	close_d(f);
	set_name(f, "x", "two");
	set_name(f, "x", "three");
	{
		_txn_ t = txn_new("somebody");

		txn_destroy(t, "gone");
		assert_int_equal(store_apply(f->store, t).status, TXN_OK);
	}
	open_d(f);
	assert_follows(f);
	assert_int_equal(number(f, "SELECT old FROM history"
				" WHERE field = '_gap'"), before + 1);
	assert_int_equal(number(f, "SELECT new FROM history"
				" WHERE field = '_gap'"), before + 3);
	assert_at(f, "VM", "u-x", before, "name_label", "one");
	assert_at(f, "VM", "u-gone", before, "name_label", "");
	assert_at(f, "VM", "u-gone", before + 3, "name_label", NULL);
	teardown(f);
}

/* Another pool's file at a generation that ours comes to. */
static void test_foreign(void **state)
{
	struct fixture *f = setup();

	world_seed = 21;
	open_d(f);
	random_txns(f, 100);
	sync_d(f);
	close_d(f);
	store_free(f->store);
	f->store = store_new();
	store_set_observer(f->store, on_changed, f);
	f->index = 0;
	open_d(f);
	while (store_generation(f->store) < 150)
		random_txns(f, 1);
	assert_follows(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history WHERE field ="
				" '_gap' AND author = 'another past'"), 1);
	teardown(f);
}

/* A snapshot replaces the store while it runs. */
static void test_reloaded(void **state)
{
	struct fixture *f = setup();
	struct store_view *v;

	world_seed = 31;
	open_d(f);
	random_txns(f, 100);
	sync_d(f);
	store_set_observer(f->store, NULL, NULL);
	random_txns(f, 100);
	v = store_view_new(f->store);
	store_set_observer(f->store, on_changed, f);
	load_copy(f, v);
	store_view_free(v);
	pooldb_reloaded(f->d, f->index);
	random_txns(f, 20);
	assert_follows(f);
	assert_int_equal(number(f, "SELECT count(*) FROM history"
				" WHERE field = '_gap'"), 1);
	teardown(f);
}

/* ---- trouble ---- */

static void test_queue_overflow(void **state)
{
	struct fixture *f = setup();
	struct pooldb_status s;

	world_seed = 41;
	f->cfg.queue_bytes = 20000;
	open_d(f);
	for (unsigned i = 0; i < 5; i++) {
		random_txns(f, 500);
		pooldb_get_status(f->d, &s);
		assert_in_range(s.queued_bytes, 0, 200000);
		assert_follows(f);
	}
	pooldb_get_status(f->d, &s);
	assert_true(s.resyncs > 1);
	assert_true(number(f, "SELECT count(*) FROM history"
			   " WHERE field = '_gap'") > 0);
	teardown(f);
}

static void test_cannot_write(void **state)
{
	struct fixture *f = setup();
	struct pooldb_status s;

	world_seed = 51;
	/* A folder in the file's place: root may write anything else. */
	assert_int_equal(mkdir(f->path, 0700), 0);
	open_d(f);
	random_txns(f, 50);
	assert_int_equal(try_sync(f), -EIO);
	pooldb_get_status(f->d, &s);
	assert_true(s.failing);
	random_txns(f, 50);
	assert_int_equal(rmdir(f->path), 0);
	for (int i = 0; i < 200 && try_sync(f) != 0; i++)
		usleep(10000);
	random_txns(f, 50);
	assert_follows(f);
	pooldb_get_status(f->d, &s);
	assert_false(s.failing);
	teardown(f);
}

static void test_damaged(void **state)
{
	struct fixture *f = setup();
	char junk[8192], path[120];
	int fd;

	memset(junk, 'x', sizeof junk);
	fd = open(f->path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
	close(fd);
	world_seed = 61;
	random_txns(f, 100);
	open_d(f);
	assert_follows(f);
	snprintf(path, sizeof path, "%s.damaged", f->path);
	assert_int_equal(access(path, F_OK), 0);
	teardown(f);
}

/* A row changed by hand does not go unnoticed. */
static void test_verify(void **state)
{
	struct fixture *f = setup();
	char why[200] = "";
	sqlite3 *db;

	open_filled(f);
	apply_new(f->store, CLS(VM), "x");
	sync_d(f);
	assert_int_equal(history_verify(f->path, why, sizeof why), 0);
	assert_int_equal(sqlite3_open(f->path, &db), 0);
	assert_int_equal(sqlite3_exec(db, "UPDATE VM SET name_label = 'evil'",
				      NULL, NULL, NULL), 0);
	sqlite3_close(db);
	assert_int_equal(history_verify(f->path, why, sizeof why), -EBADMSG);
	assert_non_null(strstr(why, "digest"));
	teardown(f);
}

/* An earlier version's file had an index of the history. */
static void test_old_index(void **state)
{
	static const char indexes[] = "SELECT count(*) FROM sqlite_master WHERE"
				      " type = 'index' AND tbl_name = 'history'";
	struct fixture *f = setup();
	sqlite3 *db;

	open_filled(f);
	apply_new(f->store, CLS(VM), "x");
	sync_d(f);
	close_d(f);
	assert_int_equal(sqlite3_open(f->path, &db), 0);
	assert_int_equal(sqlite3_exec(db, "CREATE INDEX history_of ON history"
				      " (uuid, id)", NULL, NULL, NULL), 0);
	sqlite3_close(db);
	assert_int_equal(number(f, indexes), 1);
	open_d(f);
	sync_d(f);
	assert_int_equal(number(f, indexes), 0);
	assert_true(number(f, "SELECT count(*) FROM history WHERE uuid = 'u-x'")
		    > 0);
	teardown(f);
}

/* Threads of this process with that niceness. */
static int threads_at(int nice)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.' &&
		     getpriority(PRIO_PROCESS, (id_t)atoi(e->d_name)) == nice;
	closedir(d);
	return n;
}

/* The writer's turn comes after that of the threads that clients wait for. */
static void test_gives_way(void **state)
{
	struct fixture *f = setup();
	int core = getpriority(PRIO_PROCESS, 0);

	if (core + 5 > 19)
		skip();
	open_filled(f);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), core);
	assert_int_equal(threads_at(core + 5), 1);
	teardown(f);
}

/* ---- checking a state ---- */

static struct record *row_of(struct store_view *v, const char *ref, size_t *at)
{
	for (size_t i = 0; i < v->n_rows; i++)
		if (value_is_str(v->rows[i]->ref, ref))
			return v->rows[*at = i];
	fail_msg("no row %s", ref);
	return NULL;
}

static void check_has(const struct store_view *v, const char *words)
{
	struct check_result c = { 0 };

	store_check_view(v, &c);
	if (words ? !strstr(buf_cstr(&c.text), words) : c.findings > 0)
		fail_msg("\"%s\" is not in: %s", words ? words : "nothing",
			 buf_cstr(&c.text));
	check_result_deinit(&c);
}

/* A version of the row with another value, in its place. */
static void change_row(struct store_view *v, const char *ref, unsigned field,
		       struct value *takes_v)
{
	size_t at = 0;
	struct record *old = row_of(v, ref, &at), *new = record_copy(old);

	record_set(new, field, takes_v);
	record_unref(old);
	v->rows[at] = new;
}

static void test_check(void **state)
{
	static const struct {
		unsigned field;
		const char *text, *words;
	} changes[] = {
		{ F_VM_VBDs, NULL, "VBDs has 0 members, 1 point to it" },
		{ F_VM_name_label, "evil", "digest is not that of its rows" },
		{ F_VM_uuid, "u-b", "uuid u-b is there twice" },
	};
	struct fixture *f = setup();
	struct check_result c = { 0 };
	struct store_view *v;

	world_seed = 71;
	random_txns(f, 2000);
	v = store_view_new(f->store);
	check_has(v, NULL);
	store_view_free(v);
	apply_new(f->store, CLS(VM), "b");
	apply_new(f->store, CLS(VM), "a");
	apply_new(f->store, CLS(VBD), "d");
	apply_set(f->store, CLS(VBD), "d", F_VBD_VM, value_stringz("a"));
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		v = store_view_new(f->store);
		change_row(v, "a", changes[i].field, changes[i].text ?
			   value_stringz(changes[i].text) : value_set_empty());
		check_has(v, changes[i].words);
		store_view_free(v);
	}
	for (struct record *r = store_first(f->store, CLASS_VM); r;
	     r = store_next(f->store, r))
		store_check_indexes(f->store, r, &c);
	assert_int_equal(c.findings, 0);
	check_result_deinit(&c);
	teardown(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follows),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_history),
		cmocka_unit_test(test_any_past),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_pruned_by_size),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_no_history),
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_gap_at_start),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_reloaded),
		cmocka_unit_test(test_queue_overflow),
		cmocka_unit_test(test_cannot_write),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_old_index),
		cmocka_unit_test(test_gives_way),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
