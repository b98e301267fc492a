/* The tables of a database image; docs/formats.md has the layout. Rows go in
 * in the view's order and come out by rowid, which keeps the order of changes
 * within a class.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "raftdb/image_impl.h"
#include "raftdb/store_impl.h"

#define FIXED_COLUMNS 3 /* _ref, _created, _modified */
#define MAX_COLUMNS 512

static void finalizep(sqlite3_stmt **st)
{
	sqlite3_finalize(*st);
}

int image_refuse(struct image_reason *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (why->size > 0)
		vsnprintf(why->text, why->size, fmt, ap);
	va_end(ap);
	return -EBADMSG;
}

static int prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret)
{
	return sqlite3_prepare_v2(db, sql, -1, ret, NULL);
}

/* Writing. */

static int exec(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* Steps a statement that gives no rows, and makes it ready for the next. */
static int run(sqlite3_stmt *st)
{
	int r = sqlite3_step(st);

	sqlite3_reset(st);
	return r == SQLITE_DONE ? SQLITE_OK : r;
}

void image_table_sql(const struct class_def *c, struct buf *sql)
{
	buf_printf(sql, "CREATE TABLE \"%s\" (_ref TEXT PRIMARY KEY NOT NULL,"
		   " _created INTEGER NOT NULL, _modified INTEGER NOT NULL",
		   c->name);
	for (unsigned i = 0; i < c->n_fields; i++)
		buf_printf(sql, ", \"%s\" %s NOT NULL", c->fields[i].name,
			   image_column_type(c->fields[i].type));
	buf_puts(sql, ")");
}

static int create_table(sqlite3 *db, const struct class_def *c)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;

	image_table_sql(c, &sql);
	return exec(db, buf_cstr(&sql));
}

static int create_tables(sqlite3 *db)
{
	int r = exec(db, "CREATE TABLE _meta (key TEXT PRIMARY KEY NOT NULL,"
			 " value TEXT NOT NULL);"
			 "CREATE TABLE _tombstone (ref TEXT NOT NULL,"
			 " class TEXT NOT NULL, created INTEGER NOT NULL,"
			 " deleted INTEGER NOT NULL);"
			 "CREATE TABLE _txn_id (id BLOB NOT NULL,"
			 " status INTEGER NOT NULL, item INTEGER NOT NULL,"
			 " generation INTEGER NOT NULL)");

	for (unsigned i = 0; r == SQLITE_OK && i < schema_n_classes; i++) {
		if (class_is_stored(&schema_classes[i]))
			r = create_table(db, &schema_classes[i]);
	}
	return r;
}

static int prepare_insert(sqlite3 *db, const char *table, unsigned columns,
			  sqlite3_stmt **ret)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;

	buf_printf(&sql, "INSERT OR REPLACE INTO \"%s\" VALUES (?", table);
	for (unsigned i = 1; i < columns; i++)
		buf_puts(&sql, ",?");
	buf_puts(&sql, ")");
	return prepare(db, buf_cstr(&sql), ret);
}

int image_prepare_insert(sqlite3 *db, const struct class_def *c,
			 sqlite3_stmt **ret)
{
	return prepare_insert(db, c->name, FIXED_COLUMNS + c->n_fields, ret);
}

int image_insert_record(sqlite3_stmt *st, const struct record *r,
			struct buf *scratch)
{
	const struct class_def *c = r->cls;
	int e = sqlite3_bind_text64(st, 1, r->ref->s, r->ref->n, SQLITE_STATIC,
				    SQLITE_UTF8);

	e = e ? e : sqlite3_bind_int64(st, 2, (int64_t)r->created);
	e = e ? e : sqlite3_bind_int64(st, 3, (int64_t)r->modified);
	for (int i = 0; e == SQLITE_OK && i < c->n_fields; i++)
		e = image_column_bind(st, FIXED_COLUMNS + 1 + i,
				      c->fields[i].type, r->fields[i],
				      scratch);
	return e ? e : run(st);
}

static int insert_rows(sqlite3 *db, const struct store_view *v,
		       sqlite3_stmt **inserts)
{
	_cleanup_(buf_deinit) struct buf scratch = BUF_INIT;
	int r = SQLITE_OK;

	for (size_t i = 0; r == SQLITE_OK && i < v->n_rows; i++) {
		const struct class_def *c = v->rows[i]->cls;
		sqlite3_stmt **st = &inserts[c->id];

		if (!*st)
			r = image_prepare_insert(db, c, st);
		if (r == SQLITE_OK)
			r = image_insert_record(*st, v->rows[i], &scratch);
	}
	return r;
}

static int write_rows(sqlite3 *db, const struct store_view *v)
{
	sqlite3_stmt **inserts = xcalloc(schema_n_classes, sizeof(*inserts));
	int r = insert_rows(db, v, inserts);

	for (unsigned i = 0; i < schema_n_classes; i++)
		sqlite3_finalize(inserts[i]);
	free(inserts);
	return r;
}

static int write_tombstones(sqlite3 *db, const struct store_view *v)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare_insert(db, "_tombstone", 4, &st);

	for (size_t i = 0; r == SQLITE_OK && i < v->n_tombs; i++) {
		__typeof__(v->tombs[i]) *t = &v->tombs[i];

		sqlite3_bind_text64(st, 1, t->ref->s, t->ref->n, SQLITE_STATIC,
				    SQLITE_UTF8);
		sqlite3_bind_text(st, 2, schema_classes[t->cls].name, -1,
				  SQLITE_STATIC);
		sqlite3_bind_int64(st, 3, (int64_t)t->created);
		sqlite3_bind_int64(st, 4, (int64_t)t->deleted);
		r = run(st);
	}
	return r;
}

static int write_txn_ids(sqlite3 *db, const struct store_view *v)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	int r = prepare_insert(db, "_txn_id", 4, &st);

	for (size_t i = 0; r == SQLITE_OK && i < v->n_ids; i++) {
		const struct txn_result *result = &v->ids[i].result;

		sqlite3_bind_blob(st, 1, v->ids[i].id, TXN_ID_LEN,
				  SQLITE_STATIC);
		sqlite3_bind_int64(st, 2, result->status);
		sqlite3_bind_int64(st, 3, result->item);
		sqlite3_bind_int64(st, 4, (int64_t)result->generation);
		r = run(st);
	}
	return r;
}

static int write_meta(sqlite3 *db, const struct store_view *v)
{
	char sql[512];

	snprintf(sql, sizeof(sql),
		 "INSERT INTO _meta VALUES ('format', '%d'),"
		 " ('generation', '%" PRIu64 "'),"
		 " ('tombstone_horizon', '%" PRIu64 "'),"
		 " ('digest', '%016" PRIx64 "%016" PRIx64 "')",
		 IMAGE_FORMAT, v->generation, v->tombstone_horizon,
		 v->digest.hi, v->digest.lo);
	return exec(db, sql);
}

int image_write_tables(sqlite3 *db, const struct store_view *v)
{
	int r = exec(db, "PRAGMA encoding = 'UTF-8';"
			 "PRAGMA journal_mode = OFF; BEGIN");

	r = r ? r : create_tables(db);
	r = r ? r : write_meta(db, v);
	r = r ? r : write_rows(db, v);
	r = r ? r : write_tombstones(db, v);
	r = r ? r : write_txn_ids(db, v);
	return r ? r : exec(db, "COMMIT");
}

/* Reading. */

static int refuse_sql(sqlite3 *db, struct image_reason *why, const char *table)
{
	return image_refuse(why, "%s: %s", table, sqlite3_errmsg(db));
}

static bool read_u64(sqlite3_stmt *st, int column, uint64_t *ret)
{
	int64_t i = sqlite3_column_int64(st, column);

	*ret = (uint64_t)i;
	return sqlite3_column_type(st, column) == SQLITE_INTEGER && i >= 0;
}

static struct value *read_ref(sqlite3_stmt *st, int column)
{
	static const struct type text = { .kind = TYPE_STRING };

	return image_column_read(st, column, &text);
}

/* A key of _meta as text, to be freed; NULL when it is not there. */
static char *meta_get(sqlite3 *db, const char *key)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	const char *s;

	if (prepare(db, "SELECT value FROM _meta WHERE key = ?", &st))
		return NULL;
	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	if (sqlite3_step(st) != SQLITE_ROW)
		return NULL;
	s = (const char *)sqlite3_column_text(st, 0);
	return s ? xstrdup(s) : NULL;
}

static int meta_number(sqlite3 *db, const char *key, uint64_t *ret,
		       struct image_reason *why)
{
	_cleanup_(freep) char *text = meta_get(db, key);
	int64_t i;

	if (!text || !int_parse(text, strlen(text), &i) || i < 0)
		return image_refuse(why, "_meta: no valid %s", key);
	*ret = (uint64_t)i;
	return 0;
}

static int meta_digest(sqlite3 *db, struct hash128 *ret,
		       struct image_reason *why)
{
	_cleanup_(freep) char *text = meta_get(db, "digest");
	uint64_t half[2] = { 0, 0 };
	uint8_t bytes[16];

	if (!text || strlen(text) != 32 || !hex_decode(text, 32, bytes))
		return image_refuse(why, "_meta: no valid digest");
	for (size_t i = 0; i < sizeof(bytes); i++)
		half[i / 8] = half[i / 8] << 8 | bytes[i];
	*ret = (struct hash128){ .lo = half[1], .hi = half[0] };
	return 0;
}

static int read_meta(sqlite3 *db, struct store_view *v,
		     struct image_reason *why)
{
	uint64_t format;
	int r = meta_number(db, "format", &format, why);

	if (r < 0)
		return r;
	if (format != IMAGE_FORMAT)
		return image_refuse(why, "format %" PRIu64 ", this program"
				    " reads %d", format, IMAGE_FORMAT);
	r = meta_number(db, "generation", &v->generation, why);
	if (r == 0)
		r = meta_number(db, "tombstone_horizon",
				&v->tombstone_horizon, why);
	return r ? r : meta_digest(db, &v->digest, why);
}

/* What each column of a class's table is: a field, or one of the fixed ones as
 * n_fields and up. */
struct columns {
	const struct class_def *cls;
	int n;
	unsigned field[MAX_COLUMNS];
	int fixed[FIXED_COLUMNS];
	/* Of the row before: rows of a class are alike, and equal values are
	 * shared, which saves reading and memory. */
	struct last {
		int kind; /* SQLite's */
		struct value *v;
		struct buf text;
	} last[MAX_COLUMNS];
};

static void columns_deinit(struct columns *c)
{
	for (int i = 0; i < c->n; i++) {
		value_unref(c->last[i].v);
		buf_deinit(&c->last[i].text);
	}
}

/* The value of a column, perhaps the one that the row before had. */
static struct value *read_column(sqlite3_stmt *st, int column,
				 const struct type *t, struct last *last)
{
	int kind = sqlite3_column_type(st, column);
	const char *s = NULL;
	size_t n = 0;

	if (last->v && kind == last->kind && kind == SQLITE_INTEGER &&
	    last->v->i == sqlite3_column_int64(st, column))
		return value_ref(last->v);
	if (kind == SQLITE_TEXT) {
		s = (const char *)sqlite3_column_text(st, column);
		n = (size_t)sqlite3_column_bytes(st, column);
		if (s && last->v && kind == last->kind && n == last->text.len &&
		    (n == 0 || memcmp(s, last->text.data, n) == 0))
			return value_ref(last->v);
	}
	value_unref(last->v);
	last->kind = kind;
	last->v = image_column_read(st, column, t);
	last->text.len = 0;
	if (s)
		buf_append(&last->text, s, n);
	return value_ref(last->v);
}

static int map_columns(sqlite3_stmt *st, const struct class_def *c,
		       struct columns *ret, struct image_reason *why)
{
	static const char *const fixed[] = { "_ref", "_created", "_modified" };

	*ret = (struct columns){ .cls = c, .n = sqlite3_column_count(st),
				 .fixed = { -1, -1, -1 } };
	if (ret->n > (int)ARRAY_LEN(ret->field))
		return image_refuse(why, "%s: too many columns", c->name);
	for (int i = 0; i < ret->n; i++) {
		const char *name = sqlite3_column_name(st, i);
		int f = schema_field(c, name, strlen(name));

		for (unsigned k = 0; k < FIXED_COLUMNS; k++) {
			if (strcmp(name, fixed[k]) == 0) {
				ret->fixed[k] = i;
				f = c->n_fields;
			}
		}
		if (f < 0)
			return image_refuse(why, "%s: unknown column %s",
					    c->name, name);
		ret->field[i] = (unsigned)f;
	}
	for (unsigned k = 0; k < FIXED_COLUMNS; k++) {
		if (ret->fixed[k] < 0)
			return image_refuse(why, "%s: no column %s", c->name,
					    fixed[k]);
	}
	return 0;
}

/* Fields that have no column get their defaults. */
static int read_fields(sqlite3_stmt *st, struct columns *columns,
		       struct record *rec, struct image_reason *why)
{
	const struct class_def *c = columns->cls;

	for (int i = 0; i < columns->n; i++) {
		unsigned f = columns->field[i];

		if (f == c->n_fields)
			continue;
		value_unref(rec->fields[f]);
		rec->fields[f] = read_column(st, i, c->fields[f].type,
					     &columns->last[i]);
		if (!rec->fields[f])
			return image_refuse(why, "%s %s: bad value of %s",
					    c->name, value_str(rec->ref),
					    c->fields[f].name);
	}
	for (unsigned f = 0; f < c->n_fields; f++) {
		if (!rec->fields[f])
			rec->fields[f] = schema_field_default(c, f);
	}
	return 0;
}

static int read_record(sqlite3_stmt *st, struct columns *columns,
		       struct record **ret, struct image_reason *why)
{
	_cleanup_(record_unrefp) struct record *rec = NULL;
	struct value *ref = read_ref(st, columns->fixed[0]);
	int r;

	if (!ref)
		return image_refuse(why, "%s: bad _ref", columns->cls->name);
	rec = record_new(columns->cls, ref);
	if (!read_u64(st, columns->fixed[1], &rec->created) ||
	    !read_u64(st, columns->fixed[2], &rec->modified))
		return image_refuse(why, "%s %s: bad stamps",
				    columns->cls->name, value_str(rec->ref));
	r = read_fields(st, columns, rec, why);
	*ret = r ? NULL : TAKE_PTR(rec);
	return r;
}

static void push_row(struct image_class *c, struct record *rec)
{
	if (c->n == c->cap) {
		c->cap = MAX(64, c->cap * 2);
		c->rows = xrealloc(c->rows, c->cap * sizeof(*c->rows));
	}
	c->rows[c->n++] = rec;
}

struct image_rows {
	sqlite3 *db;
	sqlite3_stmt *st;
	struct columns columns;
};

void image_rows_freep(struct image_rows **rows)
{
	if (!*rows)
		return;
	columns_deinit(&(*rows)->columns);
	sqlite3_finalize((*rows)->st);
	free(*rows);
}

int image_rows_open(sqlite3 *db, const struct class_def *c, const char *column,
		    const char *value, struct image_rows **ret,
		    struct image_reason *why)
{
	_cleanup_(image_rows_freep) struct image_rows *rows =
		xcalloc(1, sizeof(*rows));
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;
	int r;

	rows->db = db;
	buf_printf(&sql, "SELECT * FROM \"%s\"", c->name);
	if (column)
		buf_printf(&sql, " WHERE \"%s\" = ?", column);
	buf_puts(&sql, " ORDER BY rowid");
	if (prepare(db, buf_cstr(&sql), &rows->st))
		return refuse_sql(db, why, c->name);
	if (column)
		sqlite3_bind_text(rows->st, 1, value, -1, SQLITE_TRANSIENT);
	r = map_columns(rows->st, c, &rows->columns, why);
	if (r == 0)
		*ret = TAKE_PTR(rows);
	return r;
}

int image_rows_next(struct image_rows *rows, struct record **ret,
		    struct image_reason *why)
{
	int r, e = sqlite3_step(rows->st);

	if (e == SQLITE_DONE)
		return 0;
	if (e != SQLITE_ROW)
		return refuse_sql(rows->db, why, rows->columns.cls->name);
	r = read_record(rows->st, &rows->columns, ret, why);
	return r < 0 ? r : 1;
}

int image_read_class(sqlite3 *db, const struct class_def *c,
		     struct image_class *ret, struct image_reason *why)
{
	_cleanup_(image_rows_freep) struct image_rows *rows = NULL;
	struct record *rec = NULL;
	int r = image_rows_open(db, c, NULL, NULL, &rows, why);

	while (r == 0 && (r = image_rows_next(rows, &rec, why)) > 0) {
		push_row(ret, rec);
		r = 0;
	}
	return r;
}

static bool read_tombstone(sqlite3_stmt *st, struct store_view *v)
{
	__typeof__(v->tombs[0]) *t = &v->tombs[v->n_tombs];
	const char *name = (const char *)sqlite3_column_text(st, 1);
	const struct class_def *c = name ? schema_class(name, strlen(name)) :
					   NULL;

	if (!c || !class_is_stored(c) || !read_u64(st, 2, &t->created) ||
	    !read_u64(st, 3, &t->deleted))
		return false;
	t->cls = c->id;
	t->ref = read_ref(st, 0);
	v->n_tombs += t->ref != NULL;
	return t->ref != NULL;
}

static int read_tombstones(sqlite3 *db, struct store_view *v,
			   struct image_reason *why)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	int e;

	if (prepare(db, "SELECT ref, class, created, deleted FROM _tombstone"
		    " ORDER BY rowid", &st))
		return refuse_sql(db, why, "_tombstone");
	v->tombs = xcalloc(STORE_TOMBSTONES, sizeof(*v->tombs));
	while ((e = sqlite3_step(st)) == SQLITE_ROW) {
		if (v->n_tombs == STORE_TOMBSTONES || !read_tombstone(st, v))
			return image_refuse(why, "_tombstone: bad row");
	}
	return e == SQLITE_DONE ? 0 : refuse_sql(db, why, "_tombstone");
}

static bool read_txn_id(sqlite3_stmt *st, struct store_view *v)
{
	__typeof__(v->ids[0]) *t = &v->ids[v->n_ids];
	const void *id = sqlite3_column_blob(st, 0);
	uint64_t status, item, generation;

	if (!id || sqlite3_column_bytes(st, 0) != TXN_ID_LEN ||
	    !read_u64(st, 1, &status) || status > TXN_INVALID ||
	    !read_u64(st, 2, &item) || item > UINT32_MAX ||
	    !read_u64(st, 3, &generation))
		return false;
	memcpy(t->id, id, TXN_ID_LEN);
	t->result = (struct txn_result){ (enum txn_status)status,
					 (uint32_t)item, generation };
	v->n_ids++;
	return true;
}

static int read_txn_ids(sqlite3 *db, struct store_view *v,
			struct image_reason *why)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	int e;

	if (prepare(db, "SELECT id, status, item, generation FROM _txn_id"
		    " ORDER BY rowid", &st))
		return refuse_sql(db, why, "_txn_id");
	v->ids = xcalloc(STORE_REMEMBERED_IDS, sizeof(*v->ids));
	while ((e = sqlite3_step(st)) == SQLITE_ROW) {
		if (v->n_ids == STORE_REMEMBERED_IDS || !read_txn_id(st, v))
			return image_refuse(why, "_txn_id: bad row");
	}
	return e == SQLITE_DONE ? 0 : refuse_sql(db, why, "_txn_id");
}

static bool table_is_known(const char *type, const char *name)
{
	static const char *const own[] = { "_meta", "_tombstone", "_txn_id" };
	const struct class_def *c;

	if (!type || !name)
		return false;
	if (strcmp(type, "index") == 0)
		return strncmp(name, "sqlite_autoindex_", 17) == 0;
	if (strcmp(type, "table") != 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (strcmp(name, own[i]) == 0)
			return true;
	}
	c = schema_class(name, strlen(name));
	return c && class_is_stored(c);
}

/* Marks the classes that have a table; refuses whatever else there is. */
static int list_tables(sqlite3 *db, bool *present, struct image_reason *why)
{
	_cleanup_(finalizep) sqlite3_stmt *st = NULL;
	int e;

	if (prepare(db, "SELECT type, name FROM sqlite_master", &st))
		return refuse_sql(db, why, "tables");
	while ((e = sqlite3_step(st)) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(st, 0);
		const char *name = (const char *)sqlite3_column_text(st, 1);
		const struct class_def *c;

		if (!table_is_known(type, name))
			return image_refuse(why, "unknown %s %s",
					    type ? type : "thing",
					    name ? name : "without a name");
		c = schema_class(name, strlen(name));
		if (c)
			present[c->id] = true;
	}
	return e == SQLITE_DONE ? 0 : refuse_sql(db, why, "tables");
}

int image_read_frame(sqlite3 *db, struct store_view *v, bool *present,
		     struct image_reason *why)
{
	int r = read_meta(db, v, why);

	r = r ? r : list_tables(db, present, why);
	r = r ? r : read_tombstones(db, v, why);
	return r ? r : read_txn_ids(db, v, why);
}
