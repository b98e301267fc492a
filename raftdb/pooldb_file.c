/* pool.db as the worker writes it: one SQLite transaction a batch, the tables
 * of the classes as in an image (raftdb/image_table.c), _meta and the history.
 *
 * Rows are replaced, never updated, so that a table's rowids keep the order of
 * changes. A view is written as its difference from the file: rows with the
 * stamps that the file has are left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "raftdb/pooldb_impl.h"
#include "raftdb/store_impl.h"

#define ASK_EVERY 256 /* rows */

static int fail(struct pooldb_file *f)
{
	snprintf(f->why, sizeof f->why, "SQLite: %s",
		 f->db ? sqlite3_errmsg(f->db) : "out of memory");
	return -EIO;
}

static int exec(struct pooldb_file *f, const char *sql)
{
	return sqlite3_exec(f->db, sql, NULL, NULL, NULL);
}

static int execf(struct pooldb_file *f, const char *fmt, ...)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	buf_puts(&sql, text ? text : "");
	sqlite3_free(text);
	return exec(f, buf_cstr(&sql));
}

/* ---- _meta ---- */

static char *meta_text(sqlite3 *db, const char *key)
{
	sqlite3_stmt *st = NULL;
	char *ret = NULL;

	if (sqlite3_prepare_v2(db, "SELECT value FROM _meta WHERE key = ?", -1,
			       &st, NULL) == SQLITE_OK) {
		sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
		if (sqlite3_step(st) == SQLITE_ROW &&
		    sqlite3_column_text(st, 0))
			ret = xstrdup((const char *)sqlite3_column_text(st, 0));
	}
	sqlite3_finalize(st);
	return ret;
}

bool pooldb_read_meta(sqlite3 *db, const char *key, uint64_t *ret)
{
	_cleanup_(freep) char *text = meta_text(db, key);
	int64_t i;

	if (!text || !int_parse(text, strlen(text), &i) || i < 0)
		return false;
	*ret = (uint64_t)i;
	return true;
}

bool pooldb_read_digest(sqlite3 *db, struct hash128 *ret)
{
	_cleanup_(freep) char *text = meta_text(db, "digest");

	return text && strlen(text) == 32 &&
	       sscanf(text, "%16" SCNx64 "%16" SCNx64, &ret->hi, &ret->lo) == 2;
}

static int write_meta(struct pooldb_file *f, uint64_t generation,
		      uint64_t index, struct hash128 digest)
{
	char hex[33];

	snprintf(hex, sizeof hex, "%016" PRIx64 "%016" PRIx64, digest.hi,
		 digest.lo);
	return execf(f, "INSERT OR REPLACE INTO _meta VALUES"
		     " ('format', '%d'), ('generation', '%llu'),"
		     " ('index', '%llu'), ('digest', '%s'),"
		     " ('history_bytes', '%llu'), ('history_from', '%llu')",
		     POOLDB_FORMAT, (unsigned long long)generation,
		     (unsigned long long)index, hex,
		     (unsigned long long)f->history_bytes,
		     (unsigned long long)f->history_from);
}

/* ---- open and close ---- */

static void finalize_all(struct pooldb_file *f)
{
	for (unsigned i = 0; f->inserts && i < schema_n_classes; i++) {
		sqlite3_finalize(f->inserts[i]);
		sqlite3_finalize(f->deletes[i]);
	}
	sqlite3_finalize(f->history);
	free(TAKE_PTR(f->inserts));
	free(TAKE_PTR(f->deletes));
	f->history = NULL;
}

void pooldb_file_close(struct pooldb_file *f)
{
	finalize_all(f);
	sqlite3_close(TAKE_PTR(f->db));
	buf_deinit(&f->scratch);
	buf_deinit(&f->text[0]);
	buf_deinit(&f->text[1]);
}

/* True when the class's table is there as the schema says. */
static bool table_fits(struct pooldb_file *f, const struct class_def *c)
{
	_cleanup_(buf_deinit) struct buf want = BUF_INIT;
	sqlite3_stmt *st = NULL;
	bool fits = false;

	image_table_sql(c, &want);
	if (sqlite3_prepare_v2(f->db, "SELECT sql FROM sqlite_master WHERE"
			       " type = 'table' AND name = ?", -1, &st,
			       NULL) == SQLITE_OK) {
		sqlite3_bind_text(st, 1, c->name, -1, SQLITE_STATIC);
		fits = sqlite3_step(st) == SQLITE_ROW &&
		       !strcmp((const char *)sqlite3_column_text(st, 0),
			       buf_cstr(&want));
	}
	sqlite3_finalize(st);
	return fits;
}

/* A table of another version of the schema is filled again from a view. */
static int make_tables(struct pooldb_file *f, bool *ret_changed)
{
	int r = SQLITE_OK;

	for (unsigned i = 0; !r && i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];
		_cleanup_(buf_deinit) struct buf sql = BUF_INIT;

		if (!class_is_stored(c) || table_fits(f, c))
			continue;
		*ret_changed = true;
		image_table_sql(c, &sql);
		r = execf(f, "DROP TABLE IF EXISTS \"%w\"", c->name);
		r = r ? r : exec(f, buf_cstr(&sql));
	}
	return r;
}

/* Only its owner may read it: secrets are inside. */
static int touch(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int open_db(struct pooldb_file *f)
{
	int r = touch(f->path);

	if (r < 0) {
		snprintf(f->why, sizeof f->why, "%s", strerror(-r));
		return r;
	}
	if (sqlite3_open_v2(f->path, &f->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL))
		return fail(f);
	sqlite3_busy_timeout(f->db, 2000);
	if (exec(f, "PRAGMA auto_vacuum = INCREMENTAL;"
		 "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
		 "PRAGMA journal_size_limit = 16777216;"
		 "PRAGMA wal_autocheckpoint = 2000"))
		return fail(f);
	return 0;
}

static int load(struct pooldb_file *f)
{
	bool changed = false;
	uint64_t format;
	int r = exec(f, "BEGIN IMMEDIATE;"
		     "CREATE TABLE IF NOT EXISTS _meta"
		     " (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)");

	r = r ? r : exec(f, history_schema);
	r = r ? r : make_tables(f, &changed);
	r = r ? r : exec(f, "COMMIT");
	if (r)
		return fail(f);
	f->is_new = !pooldb_read_meta(f->db, "format", &format);
	if (!f->is_new && format != POOLDB_FORMAT) {
		snprintf(f->why, sizeof f->why, "format %llu",
			 (unsigned long long)format);
		return -EBADMSG;
	}
	f->generation = f->index = 0;
	f->history_bytes = f->history_from = f->history_to = 0;
	f->digest = (struct hash128){ 0, 0 };
	if (f->is_new)
		return 0;
	pooldb_read_meta(f->db, "history_bytes", &f->history_bytes);
	pooldb_read_meta(f->db, "history_from", &f->history_from);
	if (!pooldb_read_meta(f->db, "index", &f->index) ||
	    !pooldb_read_meta(f->db, "generation", &f->generation) ||
	    !pooldb_read_digest(f->db, &f->digest))
		return -EBADMSG;
	f->history_to = f->generation;
	f->is_new = changed;
	return 0;
}

static bool is_damaged(struct pooldb_file *f, int r)
{
	int code = f->db ? sqlite3_errcode(f->db) & 0xff : SQLITE_OK;

	return r == -EBADMSG || code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

static int set_damaged_aside(struct pooldb_file *f)
{
	log_error("%s is damaged or of another version (%s): it is kept as "
		  "pool.db.damaged, and made anew", f->path, f->why);
	pooldb_file_close(f);
	return pooldb_set_aside(f->cfg->dir, "damaged");
}

int pooldb_file_open(struct pooldb_file *f)
{
	int r = open_db(f);

	r = r ? r : load(f);
	if (r < 0 && is_damaged(f, r) && set_damaged_aside(f) == 0) {
		r = open_db(f);
		r = r ? r : load(f);
	}
	if (r < 0) {
		pooldb_file_close(f);
		return -EIO;
	}
	f->inserts = xcalloc(schema_n_classes, sizeof *f->inserts);
	f->deletes = xcalloc(schema_n_classes, sizeof *f->deletes);
	f->pruned_at = 0;
	return 0;
}

/* ---- rows ---- */

static int put_record(struct pooldb_file *f, const struct record *r)
{
	sqlite3_stmt **st = &f->inserts[r->cls->id];

	if (!*st && image_prepare_insert(f->db, r->cls, st))
		return SQLITE_ERROR;
	return image_insert_record(*st, r, &f->scratch);
}

static int delete_record(struct pooldb_file *f, const struct record *r)
{
	sqlite3_stmt **st = &f->deletes[r->cls->id];
	char sql[128];
	int e;

	snprintf(sql, sizeof sql, "DELETE FROM \"%s\" WHERE _ref = ?",
		 r->cls->name);
	if (!*st && sqlite3_prepare_v2(f->db, sql, -1, st, NULL))
		return SQLITE_ERROR;
	sqlite3_bind_text64(*st, 1, r->ref->s, r->ref->n, SQLITE_STATIC,
			    SQLITE_UTF8);
	e = sqlite3_step(*st);
	sqlite3_reset(*st);
	return e == SQLITE_DONE ? SQLITE_OK : e;
}

static const struct value *ref_of(const struct change *c)
{
	return (c->after ? c->after : c->before)->ref;
}

/* Only the last of a batch's versions of a row is written. */
static int put_rows(struct pooldb_file *f, struct pooldb_txn **txns, size_t n)
{
	struct map last;
	int r = SQLITE_OK;

	map_init(&last);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < txns[i]->n; k++) {
			struct change *c = &txns[i]->changes[k];

			map_put(&last, ref_of(c)->s, ref_of(c)->n, c);
		}
	for (size_t i = 0; !r && i < n; i++)
		for (size_t k = 0; !r && k < txns[i]->n; k++) {
			struct change *c = &txns[i]->changes[k];

			if (map_get(&last, ref_of(c)->s, ref_of(c)->n) != c)
				continue;
			r = c->after ? put_record(f, c->after) :
				       delete_record(f, c->before);
		}
	map_deinit(&last);
	return r;
}

static int put_history(struct pooldb_file *f, struct pooldb_txn **txns, size_t n)
{
	int r = SQLITE_OK;

	for (size_t i = 0; !r && i < n; i++)
		for (size_t k = 0; !r && k < txns[i]->n; k++)
			r = history_write(f, txns[i], &txns[i]->changes[k]);
	return r;
}

int pooldb_file_apply(struct pooldb_file *f, struct pooldb_txn **txns, size_t n)
{
	const struct pooldb_txn *last = txns[n - 1];
	int r = exec(f, "BEGIN IMMEDIATE");

	r = r ? r : put_history(f, txns, n);
	r = r ? r : put_rows(f, txns, n);
	r = r ? r : write_meta(f, last->generation, last->index, last->digest);
	r = r ? r : exec(f, "COMMIT");
	if (r)
		return fail(f);
	f->generation = last->generation;
	f->index = last->index;
	f->digest = last->digest;
	return 0;
}

/* ---- a view ---- */

struct sync {
	struct pooldb_file *f;
	const struct store_view *v;
	struct map rows;      /* of the view, by ref: those not met yet */
	struct pooldb_txn *t; /* one for all: what stands in the history */
	bool (*stop)(void *data);
	void *data;
	size_t n;
	bool with_history;
};

static bool must_stop(struct sync *s)
{
	return ++s->n % ASK_EVERY == 0 && s->stop && s->stop(s->data);
}

/* What became of a row that the file has. */
static int sync_known(struct sync *s, struct record *old)
{
	struct record *now = map_get(&s->rows, old->ref->s, old->ref->n);
	struct change c = { .cls = old->cls, .before = old };

	if (now && now->cls == old->cls && now->created == old->created &&
	    now->modified == old->modified) {
		map_del(&s->rows, now->ref->s, now->ref->n);
		return SQLITE_OK;
	}
	if (now && now->cls == old->cls && now->created == old->created)
		return SQLITE_OK; /* its turn comes in the view's order */
	c.kind = CHANGE_DEL;
	if (delete_record(s->f, old))
		return SQLITE_ERROR;
	s->t->generation = s->v->generation;
	return s->with_history ? history_write(s->f, s->t, &c) : SQLITE_OK;
}

static int sync_class(struct sync *s, const struct class_def *c)
{
	_cleanup_(image_rows_freep) struct image_rows *rows = NULL;
	struct image_reason why = { s->f->why, sizeof s->f->why };
	struct record *old = NULL;
	int r = image_rows_open(s->f->db, c, NULL, NULL, &rows, &why);

	while (r == 0 && (r = image_rows_next(rows, &old, &why)) > 0) {
		r = sync_known(s, old) ? fail(s->f) : 0;
		record_unref(old);
		if (r == 0 && must_stop(s))
			r = -ECANCELED;
	}
	return r;
}

static int old_record(struct sync *s, const struct record *now,
		      struct record **ret)
{
	_cleanup_(image_rows_freep) struct image_rows *rows = NULL;
	struct image_reason why = { s->f->why, sizeof s->f->why };
	int r = image_rows_open(s->f->db, now->cls, "_ref", value_str(now->ref),
				&rows, &why);

	*ret = NULL;
	return r < 0 ? r : image_rows_next(rows, ret, &why);
}

static int sync_new(struct sync *s, struct record *now)
{
	_cleanup_(record_unrefp) struct record *old = NULL;
	struct change c = { .kind = CHANGE_ADD, .cls = now->cls, .after = now };

	if (s->with_history && old_record(s, now, &old) < 0)
		return -EIO;
	c.before = old;
	c.kind = old ? CHANGE_MOD : CHANGE_ADD;
	s->t->generation = now->modified;
	if (put_record(s->f, now) ||
	    (s->with_history && history_write(s->f, s->t, &c)))
		return fail(s->f);
	return 0;
}

static int sync_rows(struct sync *s, bool foreign)
{
	const struct store_view *v = s->v;
	int r = 0;

	for (size_t i = 0; i < v->n_rows; i++)
		map_put(&s->rows, v->rows[i]->ref->s, v->rows[i]->ref->n,
			v->rows[i]);
	for (unsigned i = 0; r == 0 && i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		if (!class_is_stored(c))
			continue;
		if (foreign || s->f->is_new)
			r = execf(s->f, "DELETE FROM \"%w\"", c->name) ?
				    fail(s->f) : 0;
		else
			r = sync_class(s, c);
	}
	for (size_t i = 0; r == 0 && i < v->n_rows; i++) {
		if (must_stop(s))
			r = -ECANCELED;
		else if (map_get(&s->rows, v->rows[i]->ref->s,
				 v->rows[i]->ref->n))
			r = sync_new(s, v->rows[i]);
	}
	return r;
}

static int sync_gap(struct pooldb_file *f, const struct store_view *v,
		    uint64_t index, bool foreign)
{
	bool is_gap = f->generation < v->generation || foreign;

	if (f->generation == 0 || !is_gap) {
		if (f->history_from == 0)
			f->history_from = v->generation;
		return SQLITE_OK;
	}
	return history_write_gap(f, foreign ? 1 : f->generation + 1,
				 v->generation, index, foreign ?
				 "another past" : "not written one by one");
}

int pooldb_file_sync(struct pooldb_file *f, const struct store_view *v,
		     uint64_t index, bool foreign, bool (*stop)(void *data),
		     void *data)
{
	struct pooldb_txn *t = xcalloc(1, sizeof *t);
	struct sync s = { .f = f, .v = v, .t = t, .stop = stop, .data = data };
	int r;

	if (foreign)
		f->history_to = 0;
	s.with_history = !f->is_new && !foreign;
	t->index = index;
	t->time_ms = env_wall_ms();
	t->author = xstrdup("");
	map_init(&s.rows);
	r = exec(f, "BEGIN IMMEDIATE") ? fail(f) : 0;
	if (r == 0 && sync_gap(f, v, index, foreign))
		r = fail(f);
	r = r ? r : sync_rows(&s, foreign);
	if (r == 0 && (write_meta(f, v->generation, index, v->digest) ||
		       exec(f, "COMMIT")))
		r = fail(f);
	if (r == 0) {
		f->generation = v->generation;
		f->index = index;
		f->digest = v->digest;
		f->is_new = false;
	} else if (r == -ECANCELED) {
		exec(f, "ROLLBACK");
	} else {
		r = -EIO;
	}
	map_deinit(&s.rows);
	free(t->author);
	free(t);
	return r;
}
