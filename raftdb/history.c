/* Undoing history: the object as pool.db has it now, and then its rows from the
 * newest back, each putting its old text in place. A _created row undone leaves
 * nothing; a _deleted one brings the object back with its defaults, over which
 * the rows before it put what was different.
 */
#include "raftdb/history.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "raftdb/history_map.h"
#include "raftdb/pooldb_impl.h"
#include "raftdb/store_impl.h"

struct query {
	sqlite3 *db;
	const struct class_def *cls;
	const char *id;
	uint64_t file_generation, from;
	char *reason;
	size_t reason_size;
};

static _printf_(3, 4) int refuse(struct query *q, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(q->reason, q->reason_size, fmt, ap);
	va_end(ap);
	return error;
}

static int refuse_sql(struct query *q)
{
	return refuse(q, -EIO, "SQLite: %s", sqlite3_errmsg(q->db));
}

static int read_format(struct query *q)
{
	uint64_t format;

	if (!pooldb_read_meta(q->db, "format", &format) ||
	    !pooldb_read_meta(q->db, "generation", &q->file_generation) ||
	    !pooldb_read_meta(q->db, "history_from", &q->from))
		return refuse(q, -EIO, "no pool.db, or it is not filled yet");
	if (format != POOLDB_FORMAT)
		return refuse(q, -EIO, "a pool.db of format %" PRIu64
			      ", this program reads %d", format, POOLDB_FORMAT);
	return 0;
}

/* All of a query sees one state of the file. */
static int query_open(struct query *q, const char *path)
{
	if (sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READONLY, NULL))
		return refuse(q, -EIO, "cannot open %s: %s", path,
			      sqlite3_errmsg(q->db));
	sqlite3_busy_timeout(q->db, 5000);
	if (sqlite3_exec(q->db, "BEGIN", NULL, NULL, NULL))
		return refuse_sql(q);
	return read_format(q);
}

static void query_close(struct query *q)
{
	sqlite3_close(q->db);
}

static int query_class(struct query *q, const char *cls)
{
	q->cls = schema_class(cls, strlen(cls));
	if (!q->cls || !class_is_stored(q->cls))
		return refuse(q, -ENOENT, "no class \"%s\" (names are as in the "
			      "API: VM, host, VM_metrics)", cls);
	return 0;
}

static const char *id_column(const struct class_def *c)
{
	return c->f_uuid >= 0 ? "uuid" : "ref";
}

/* ---- rows ---- */

static const char *text(sqlite3_stmt *st, int column)
{
	return (const char *)sqlite3_column_text(st, column);
}

static void put(struct json_object *o, const char *key, const char *s)
{
	json_object_object_add(o, key, s ? json_object_new_string(s) : NULL);
}

static void put_int(struct json_object *o, const char *key, int64_t i)
{
	json_object_object_add(o, key, json_object_new_int64(i));
}

static struct json_object *row_json(sqlite3_stmt *st)
{
	static const char *const texts[] = { "author", "class", "ref", "uuid",
					     "field", "old", "new" };
	static const char *const numbers[] = { "id", "index", "generation",
					       "time" };
	struct json_object *o = json_object_new_object();

	for (int i = 0; i < 4; i++)
		put_int(o, numbers[i], sqlite3_column_int64(st, i));
	for (int i = 0; i < 7; i++)
		put(o, texts[i], text(st, 4 + i));
	return o;
}

static int select_rows(struct query *q, const char *field, unsigned max,
		       struct json_object *rows, bool *ret_more)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;
	sqlite3_stmt *st = NULL;
	int r;

	buf_printf(&sql, "SELECT * FROM (SELECT id, raft_index, generation,"
		   " time, author, class, ref, uuid, field, old, new FROM history"
		   " WHERE %s = ?1 AND class = ?2%s ORDER BY id DESC LIMIT ?3)"
		   " ORDER BY id", id_column(q->cls), field ?
		   " AND field IN (?4, '_created', '_deleted')" : "");
	if (sqlite3_prepare_v2(q->db, buf_cstr(&sql), -1, &st, NULL))
		return refuse_sql(q);
	sqlite3_bind_text(st, 1, q->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, q->cls->name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 3, (int64_t)max + 1);
	if (field)
		sqlite3_bind_text(st, 4, field, -1, SQLITE_STATIC);
	while ((r = sqlite3_step(st)) == SQLITE_ROW)
		json_object_array_add(rows, row_json(st));
	sqlite3_finalize(st);
	if (r != SQLITE_DONE)
		return refuse_sql(q);
	*ret_more = json_object_array_length(rows) > max;
	if (*ret_more)
		json_object_array_del_idx(rows, 0, 1);
	return 0;
}

static char *json_take_text(struct json_object *o)
{
	char *ret = xstrdup(json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PLAIN));

	json_object_put(o);
	return ret;
}

int history_rows(const char *path, const char *cls, const char *id,
		 const char *field, unsigned max, char **ret, char *reason,
		 size_t reason_size)
{
	struct query q = { .id = id, .reason = reason,
			   .reason_size = reason_size };
	struct json_object *rows = json_object_new_array(), *o;
	bool more = false;
	int r = query_open(&q, path);

	r = r ? r : query_class(&q, cls);
	if (r == 0 && field &&
	    schema_field(q.cls, field, strlen(field)) < 0)
		r = refuse(&q, -EINVAL, "%s has no field \"%s\"", cls, field);
	if (r == 0)
		r = select_rows(&q, field, MIN(max, HISTORY_ROWS_MAX), rows,
				&more);
	query_close(&q);
	if (r < 0) {
		json_object_put(rows);
		return r;
	}
	o = json_object_new_object();
	json_object_object_add(o, "rows", rows);
	json_object_object_add(o, "more", json_object_new_boolean(more));
	*ret = json_take_text(o);
	return 0;
}

/* ---- what was ---- */

struct past {
	bool exists, gap;
	struct buf *fields; /* n_fields of the class; texts */
};

static void set_text(struct buf *b, const char *s)
{
	b->len = 0;
	buf_puts(b, s ? s : "");
}

static void past_from_record(struct query *q, struct past *p,
			     const struct record *r)
{
	for (unsigned i = 0; i < q->cls->n_fields; i++) {
		_cleanup_(value_unrefp) struct value *def =
			r ? NULL : schema_field_default(q->cls, i);

		p->fields[i].len = 0;
		history_text(&p->fields[i], q->cls, i, r ? r->fields[i] : def);
	}
	p->exists = r != NULL;
}

/* For a class without uuids the id is the ref, and that of a session is in
 * disguise: such a row is found by looking at all. */
static int present(struct query *q, struct past *p)
{
	_cleanup_(image_rows_freep) struct image_rows *rows = NULL;
	struct image_reason why = { q->reason, q->reason_size };
	struct record *rec = NULL;
	int r = image_rows_open(q->db, q->cls,
				q->cls->f_uuid >= 0 ? "uuid" : "_ref", q->id,
				&rows, &why);

	r = r < 0 ? r : image_rows_next(rows, &rec, &why);
	if (r < 0)
		return -EIO;
	past_from_record(q, p, r ? rec : NULL);
	if (r)
		record_unref(rec);
	return 0;
}

static void undo_field(struct query *q, struct past *p, unsigned field,
		       const char *old, const char *new)
{
	if (!new || q->cls->fields[field].type->kind != TYPE_MAP)
		set_text(&p->fields[field], old);
	else if (!history_map_undo(&p->fields[field], old, new))
		p->gap = true;
}

static void undo(struct query *q, struct past *p, const char *field,
		 const char *old, const char *new)
{
	int i;

	if (!strcmp(field, "_created")) {
		p->exists = false;
	} else if (!strcmp(field, "_deleted")) {
		past_from_record(q, p, NULL);
		p->exists = true;
	} else if (old) {
		i = schema_field(q->cls, field, strlen(field));
		if (i >= 0)
			undo_field(q, p, (unsigned)i, old, new);
	}
}

static int undo_rows(struct query *q, struct past *p, uint64_t generation)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;
	sqlite3_stmt *st = NULL;
	int r;

	buf_printf(&sql, "SELECT field, old, new FROM history WHERE %s = ?1 AND"
		   " class = ?2 AND generation > ?3 ORDER BY id DESC",
		   id_column(q->cls));
	if (sqlite3_prepare_v2(q->db, buf_cstr(&sql), -1, &st, NULL))
		return refuse_sql(q);
	sqlite3_bind_text(st, 1, q->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, q->cls->name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 3, (int64_t)generation);
	while ((r = sqlite3_step(st)) == SQLITE_ROW)
		undo(q, p, text(st, 0), text(st, 1), text(st, 2));
	sqlite3_finalize(st);
	return r == SQLITE_DONE ? 0 : refuse_sql(q);
}

/* True: there is a gap within which the generation lies: then an object's state
 * there is that of one of its ends. */
static int find_gap(struct query *q, uint64_t generation, bool *ret)
{
	sqlite3_stmt *st = NULL;
	int r = sqlite3_prepare_v2(q->db, "SELECT 1 FROM history WHERE uuid = ''"
				   " AND field = '_gap' AND CAST(old AS INTEGER)"
				   " <= ?1 AND CAST(new AS INTEGER) > ?1", -1,
				   &st, NULL);

	if (r)
		return refuse_sql(q);
	sqlite3_bind_int64(st, 1, (int64_t)generation);
	r = sqlite3_step(st);
	sqlite3_finalize(st);
	*ret |= r == SQLITE_ROW;
	return r == SQLITE_ROW || r == SQLITE_DONE ? 0 : refuse_sql(q);
}

/* The first row at or after id: its number in the column, or -1. */
static int64_t row_at(struct query *q, const char *column, int64_t *id,
		      int64_t *ret_generation)
{
	char sql[200];
	sqlite3_stmt *st = NULL;
	int64_t ret = -1;

	snprintf(sql, sizeof sql, "SELECT id, generation, %s FROM history"
		 " WHERE id >= %" PRId64 " ORDER BY id LIMIT 1", column, *id);
	if (sqlite3_prepare_v2(q->db, sql, -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW) {
		*id = sqlite3_column_int64(st, 0);
		*ret_generation = sqlite3_column_int64(st, 1);
		ret = sqlite3_column_int64(st, 2);
	}
	sqlite3_finalize(st);
	return ret;
}

/* Times of rows rise, but for what clocks of hosts differ: the last row that is
 * not later, by halving. */
static uint64_t generation_not_after(struct query *q, const char *column,
				     int64_t limit)
{
	int64_t low = 0, high, generation = 0, id;
	uint64_t found = q->from;
	sqlite3_stmt *st = NULL;

	if (sqlite3_prepare_v2(q->db, "SELECT coalesce(max(id), 0) FROM history",
			       -1, &st, NULL) != SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_ROW) {
		sqlite3_finalize(st);
		return 0;
	}
	high = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	while (low <= high) {
		int64_t at;

		id = low + (high - low) / 2;
		at = row_at(q, column, &id, &generation);
		if (at < 0 || at > limit) {
			high = low + (high - low) / 2 - 1;
			continue;
		}
		found = (uint64_t)generation;
		low = id + 1;
	}
	return found;
}

/* Before the first row: is the first one later than the limit, and the
 * beginning was not seen? */
static bool is_too_early(struct query *q, const char *column, int64_t limit)
{
	int64_t id = 0, generation, at = row_at(q, column, &id, &generation);

	return at >= 0 && at > limit;
}

static void put_cut(struct json_object *o, const char *key, struct buf *b)
{
	history_cut(b);
	put(o, key, buf_cstr(b));
}

static int past_json(struct query *q, struct past *p, uint64_t generation,
		     char **ret)
{
	struct json_object *o = json_object_new_object();
	struct json_object *fields = json_object_new_object();
	struct json_object *missing = json_object_new_array();

	for (unsigned i = 0; i < q->cls->n_fields; i++) {
		const char *name = q->cls->fields[i].name;

		if (history_leaves_out(q->cls, i))
			json_object_array_add(missing,
					      json_object_new_string(name));
		else if (p->exists)
			put_cut(fields, name, &p->fields[i]);
	}
	put_int(o, "generation", (int64_t)generation);
	json_object_object_add(o, "exists", json_object_new_boolean(p->exists));
	json_object_object_add(o, "gap", json_object_new_boolean(p->gap));
	json_object_object_add(o, "fields", fields);
	json_object_object_add(o, "not_recorded", missing);
	*ret = json_take_text(o);
	return 0;
}

static int look_back(struct query *q, uint64_t generation, char **ret)
{
	struct past p = { .fields = xcalloc(q->cls->n_fields,
					    sizeof(struct buf)) };
	int r = present(q, &p);

	r = r ? r : undo_rows(q, &p, generation);
	r = r ? r : find_gap(q, generation, &p.gap);
	r = r ? r : past_json(q, &p, generation, ret);
	for (unsigned i = 0; i < q->cls->n_fields; i++)
		buf_deinit(&p.fields[i]);
	free(p.fields);
	return r;
}

int history_at(const char *path, const char *cls, const char *id,
	       uint64_t generation, int64_t time_ms, char **ret, char *reason,
	       size_t reason_size)
{
	struct query q = { .id = id, .reason = reason,
			   .reason_size = reason_size };
	int r = query_open(&q, path);
	bool early = false;

	r = r ? r : query_class(&q, cls);
	if (r == 0 && generation == 0) {
		early = is_too_early(&q, "time", time_ms);
		generation = generation_not_after(&q, "time", time_ms);
	}
	if (r == 0 && (early || generation < q.from))
		r = refuse(&q, -ERANGE, "that is before this member's "
			   "history, which begins at generation %" PRIu64,
			   q.from);
	if (r == 0 && generation > q.file_generation)
		r = refuse(&q, -ERANGE, "the pool has come to generation %"
			   PRIu64 " only", q.file_generation);
	r = r ? r : look_back(&q, generation, ret);
	query_close(&q);
	return r;
}

int history_generation_of_index(const char *path, uint64_t index, uint64_t *ret,
				char *reason, size_t reason_size)
{
	struct query q = { .reason = reason, .reason_size = reason_size };
	int r = query_open(&q, path);

	if (r == 0 && is_too_early(&q, "raft_index", (int64_t)index))
		r = refuse(&q, -ERANGE, "this member's history begins after log "
			   "index %" PRIu64, index);
	if (r == 0)
		*ret = generation_not_after(&q, "raft_index", (int64_t)index);
	query_close(&q);
	return r;
}

int history_newest(const char *path, uint64_t *ret, char *reason,
		   size_t reason_size)
{
	struct query q = { .reason = reason, .reason_size = reason_size };
	int r = query_open(&q, path);

	*ret = r < 0 ? 0 : q.file_generation;
	query_close(&q);
	return r;
}

int history_other_pool(const char *path, const char *uuid, bool *ret,
		       char *reason, size_t reason_size)
{
	struct query q = { .reason = reason, .reason_size = reason_size };
	sqlite3_stmt *st = NULL;
	int r = query_open(&q, path);

	if (r == 0 && sqlite3_prepare_v2(q.db, "SELECT uuid FROM pool", -1, &st,
					 NULL))
		r = refuse_sql(&q);
	if (r == 0 && sqlite3_step(st) == SQLITE_ROW)
		*ret = strcmp(text(st, 0), uuid) != 0;
	sqlite3_finalize(st);
	query_close(&q);
	return r;
}

/* ---- the file against its own digest ---- */

static int add_class(struct query *q, struct store *s, struct hash128 *sum,
		     const struct class_def *c)
{
	_cleanup_(image_rows_freep) struct image_rows *rows = NULL;
	_cleanup_(buf_deinit) struct buf scratch = BUF_INIT;
	struct image_reason why = { q->reason, q->reason_size };
	struct record *rec;
	int r = image_rows_open(q->db, c, NULL, NULL, &rows, &why);

	while (r == 0 && (r = image_rows_next(rows, &rec, &why)) > 0) {
		hash128_add(sum, store_hash(store_table(s, c), rec, &scratch));
		record_unref(rec);
		r = 0;
	}
	return r;
}

int history_verify(const char *path, char *reason, size_t reason_size)
{
	struct query q = { .reason = reason, .reason_size = reason_size };
	struct store *s = store_new();
	struct hash128 digest;
	int r = query_open(&q, path) < 0 ? -EBADMSG : 0;

	s->generation = q.file_generation;
	for (unsigned i = 0; r == 0 && i < schema_n_classes; i++)
		if (class_is_stored(&schema_classes[i]))
			r = add_class(&q, s, &s->sum, &schema_classes[i]);
	if (r == 0 && (!pooldb_read_digest(q.db, &digest) ||
		       !hash128_equal(digest, store_digest(s))))
		r = refuse(&q, -EBADMSG, "its rows do not have its digest");
	query_close(&q);
	s->sum = (struct hash128){ 0, 0 };
	store_free(s);
	return r < 0 ? -EBADMSG : 0;
}
