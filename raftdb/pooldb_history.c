/* The history in pool.db: one row for every field that a transaction changed.
 *
 *   field       old              new
 *   name_label  text before      text after     a change; of a map, the pairs
 *                                               that changed
 *   _created                                    the object came into being; a
 *                                               row follows for each field that
 *                                               is not at its default, old NULL
 *   _deleted                                    it went; a row came before it
 *                                               for each field that was not at
 *                                               its default, new NULL
 *   _gap        first generation last           no object: what happened in
 *                                               these is known in sum only
 *
 * There is no index: it would cost every write more than the row itself does,
 * and who asks reads the whole table: 0.15 s for a million rows.
 *
 * Texts are those of value_to_text(). What would drown the rest is left out,
 * and what nobody may read is blotted out: the rules are below.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "raftdb/history_map.h"
#include "raftdb/pooldb_impl.h"
#include "schema/gen/schema_ids.h"

#define HIDDEN "(hidden)"
#define ROW_BYTES 160 /* of a row beside its texts */
#define PRUNE_EVERY_MS 10000
#define PRUNE_ROWS 5000
#define PRUNE_ROUNDS 20

const char history_schema[] =
	"CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY,"
	" raft_index INTEGER NOT NULL, generation INTEGER NOT NULL,"
	" time INTEGER NOT NULL, author TEXT NOT NULL, class TEXT NOT NULL,"
	" ref TEXT NOT NULL, uuid TEXT NOT NULL, field TEXT NOT NULL,"
	" old TEXT, new TEXT);"
	"DROP INDEX IF EXISTS history_of"; /* earlier versions had it */

enum rule_kind { RULE_NOISE, RULE_HIDDEN };

/* Beside what the schema itself calls volatile. */
static const struct rule {
	int cls, field; /* field -1: all of them */
	enum rule_kind kind;
} rules[] = {
	{ CLASS_session, F_session_last_active, RULE_NOISE },
	{ CLASS_session, F_session_rbac_permissions, RULE_NOISE },
	{ CLASS_task, F_task_progress, RULE_NOISE },
	{ CLASS_host_metrics, F_host_metrics_last_updated, RULE_NOISE },
	{ CLASS_host_metrics, F_host_metrics_memory_free, RULE_NOISE },
	{ CLASS_VM_guest_metrics, F_VM_guest_metrics_last_updated, RULE_NOISE },
	{ CLASS_VM_guest_metrics, F_VM_guest_metrics_memory, RULE_NOISE },
	{ CLASS_VBD_metrics, F_VBD_metrics_last_updated, RULE_NOISE },
	{ CLASS_VIF_metrics, F_VIF_metrics_last_updated, RULE_NOISE },
	{ CLASS_PIF_metrics, F_PIF_metrics_last_updated, RULE_NOISE },
	{ CLASS_credential, F_credential_hash, RULE_HIDDEN },
	{ CLASS_secret, F_secret_value, RULE_HIDDEN },
	{ CLASS_Cluster, F_Cluster_cluster_token, RULE_HIDDEN },
};

/* Values of map keys that contain one of these. */
static const char *const secret_keys[] = { "passw", "secret", "token",
					   "chap", "credential", "private" };

static const struct rule *rule_of(const struct class_def *c, unsigned field)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		if (rules[i].cls == c->id && (rules[i].field < 0 ||
					      rules[i].field == (int)field))
			return &rules[i];
	return NULL;
}

const char *history_leaves_out(const struct class_def *c, unsigned field)
{
	const struct field_def *f = &c->fields[field];
	const struct rule *rule = rule_of(c, field);

	if (f->relation == RELATION_MANY)
		return "derived";
	if (f->flags & FIELD_VOLATILE || (rule && rule->kind == RULE_NOISE))
		return "volatile";
	return NULL;
}

/* ---- texts ---- */

static bool is_session(const struct type *t)
{
	return t->kind == TYPE_REF && t->id == CLASS_session;
}

static void put_session(struct buf *b, const struct value *ref)
{
	if (value_is_null_ref(ref))
		value_to_text(b, ref);
	else
		buf_printf(b, "session:%016" PRIx64, hash64(ref->s, ref->n));
}

void history_ref_text(struct buf *b, const struct class_def *c,
		      const struct value *ref)
{
	if (c->id == CLASS_session)
		put_session(b, ref);
	else
		value_to_text(b, ref);
}

static bool is_secret_key(const struct value *key)
{
	for (size_t i = 0; i < ARRAY_LEN(secret_keys); i++)
		if (strcasestr(value_str(key), secret_keys[i]))
			return true;
	return false;
}

/* The map with what its secret keys hold blotted out; the caller's. */
static struct value *blot_map(const struct value *map)
{
	struct value *v = value_ref(map);

	for (uint32_t i = 0; i < map->n; i++) {
		const struct value *key = map->items[2 * i];
		_cleanup_(value_unrefp) struct value *before = NULL;
		struct value *hidden;

		if (!is_secret_key(key) ||
		    map->items[2 * i + 1]->kind != VALUE_STRING)
			continue;
		hidden = value_stringz(HIDDEN);
		before = v;
		v = value_map_with(before, key, hidden);
		value_unref(hidden);
	}
	return v;
}

void history_cut(struct buf *b)
{
	size_t all = b->len, n = HISTORY_TEXT_MAX;

	if (all <= HISTORY_TEXT_MAX)
		return;
	while (n > 0 && ((unsigned char)b->data[n] & 0xc0) == 0x80)
		n--;
	b->len = n;
	buf_printf(b, "... (%zu bytes in all)", all);
}

void history_text(struct buf *b, const struct class_def *c, unsigned field,
		  const struct value *v)
{
	const struct type *t = c->fields[field].type;
	const struct rule *rule = rule_of(c, field);
	_cleanup_(value_unrefp) struct value *blotted = NULL;

	if (rule && rule->kind == RULE_HIDDEN) {
		buf_puts(b, HIDDEN);
	} else if (is_session(t)) {
		put_session(b, v);
	} else if (t->kind == TYPE_SET && is_session(t->item)) {
		buf_printf(b, "(%u sessions)", (unsigned)v->n);
	} else {
		if (t->kind == TYPE_MAP)
			blotted = blot_map(v);
		value_to_text(b, blotted ? blotted : v);
	}
}

/* ---- rows ---- */

struct row {
	const struct pooldb_txn *t;
	const char *cls, *field;
	struct buf *ref;
	const struct value *uuid;
	const struct buf *old, *new; /* NULL: none */
};

static void bind_buf(sqlite3_stmt *st, int column, const struct buf *b)
{
	if (b)
		sqlite3_bind_text64(st, column, b->len ? b->data : "", b->len,
				    SQLITE_STATIC, SQLITE_UTF8);
	else
		sqlite3_bind_null(st, column);
}

static int insert(struct pooldb_file *f, const struct row *row)
{
	sqlite3_stmt *st;
	int r;

	if (!f->history &&
	    sqlite3_prepare_v2(f->db, "INSERT INTO history (raft_index,"
			       " generation, time, author, class, ref, uuid,"
			       " field, old, new)"
			       " VALUES (?,?,?,?,?,?,?,?,?,?)", -1,
			       &f->history, NULL))
		return SQLITE_ERROR;
	st = f->history;
	sqlite3_bind_int64(st, 1, (int64_t)row->t->index);
	sqlite3_bind_int64(st, 2, (int64_t)row->t->generation);
	sqlite3_bind_int64(st, 3, row->t->time_ms);
	sqlite3_bind_text(st, 4, row->t->author, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 5, row->cls, -1, SQLITE_STATIC);
	bind_buf(st, 6, row->ref);
	sqlite3_bind_text(st, 7, row->uuid ? value_str(row->uuid) : "", -1,
			  SQLITE_STATIC);
	sqlite3_bind_text(st, 8, row->field, -1, SQLITE_STATIC);
	bind_buf(st, 9, row->old);
	bind_buf(st, 10, row->new);
	r = sqlite3_step(st);
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	f->history_bytes += ROW_BYTES + (row->old ? row->old->len : 0) +
			    (row->new ? row->new->len : 0);
	return r == SQLITE_DONE ? SQLITE_OK : r;
}

/* old or new NULL: the row was not, or is no more. */
static int write_field(struct pooldb_file *f, struct row *row, unsigned field,
		       const struct change *c, const struct value *old,
		       const struct value *new)
{
	struct buf *texts = f->text;

	_cleanup_(value_unrefp) struct value *gone = NULL, *came = NULL;

	row->field = c->cls->fields[field].name;
	if (old && new && c->cls->fields[field].type->kind == TYPE_MAP) {
		history_map_diff(old, new, &gone, &came);
		old = gone;
		new = came;
	}
	texts[0].len = texts[1].len = 0;
	if (old)
		history_text(&texts[0], c->cls, field, old);
	if (new)
		history_text(&texts[1], c->cls, field, new);
	history_cut(&texts[0]);
	history_cut(&texts[1]);
	row->old = old ? &texts[0] : NULL;
	row->new = new ? &texts[1] : NULL;
	return insert(f, row);
}

static int write_fields(struct pooldb_file *f, struct row *row,
			const struct change *c)
{
	int r = SQLITE_OK;

	for (unsigned i = 0; !r && i < c->cls->n_fields; i++) {
		const struct value *old = c->before ? c->before->fields[i] : NULL;
		const struct value *new = c->after ? c->after->fields[i] : NULL;
		_cleanup_(value_unrefp) struct value *def = NULL;

		if ((old && new && (old == new || value_equal(old, new))) ||
		    history_leaves_out(c->cls, i))
			continue;
		if (!old || !new) {
			def = schema_field_default(c->cls, i);
			if (value_equal(old ? old : new, def))
				continue;
		}
		r = write_field(f, row, i, c, old, new);
	}
	return r;
}

static int write_mark(struct pooldb_file *f, struct row *row, const char *mark)
{
	row->field = mark;
	row->old = row->new = NULL;
	return insert(f, row);
}

int history_write(struct pooldb_file *f, const struct pooldb_txn *t,
		  const struct change *c)
{
	const struct record *any = c->after ? c->after : c->before;
	_cleanup_(buf_deinit) struct buf ref = BUF_INIT;
	struct row row = { .t = t, .cls = c->cls->name, .ref = &ref };
	int r = SQLITE_OK;

	if (f->cfg->history_days == 0 || f->cfg->history_mib == 0 ||
	    t->generation <= f->history_to)
		return r;
	history_ref_text(&ref, c->cls, any->ref);
	if (c->cls->f_uuid >= 0)
		row.uuid = any->fields[c->cls->f_uuid];
	if (c->kind == CHANGE_ADD)
		r = write_mark(f, &row, "_created");
	r = r ? r : write_fields(f, &row, c);
	if (c->kind == CHANGE_DEL)
		r = r ? r : write_mark(f, &row, "_deleted");
	return r;
}

int history_write_gap(struct pooldb_file *f, uint64_t from, uint64_t to,
		      uint64_t index, const char *why)
{
	struct pooldb_txn t = { .generation = to, .index = index,
				.time_ms = env_wall_ms(),
				.author = (char *)why };
	_cleanup_(buf_deinit) struct buf ref = BUF_INIT;
	struct row row = { .t = &t, .cls = "", .ref = &ref, .field = "_gap" };

	f->text[0].len = f->text[1].len = 0;
	buf_printf(&f->text[0], "%" PRIu64, from);
	buf_printf(&f->text[1], "%" PRIu64, to);
	row.old = &f->text[0];
	row.new = &f->text[1];
	return insert(f, &row);
}

/* ---- pruning: the oldest go first ---- */

struct oldest {
	int64_t last_id;
	uint64_t bytes, generation;
	size_t n;
};

static uint64_t row_bytes(sqlite3_stmt *st)
{
	return ROW_BYTES + (uint64_t)sqlite3_column_int64(st, 3) +
	       (uint64_t)sqlite3_column_int64(st, 4);
}

/* The oldest rows that have to go, not all at once. */
static int find_oldest(struct pooldb_file *f, uint64_t limit, int64_t before_ms,
		       struct oldest *ret)
{
	sqlite3_stmt *st = NULL;
	int r = sqlite3_prepare_v2(
		f->db, "SELECT id, time, generation,"
		" coalesce(length(CAST(old AS BLOB)), 0),"
		" coalesce(length(CAST(new AS BLOB)), 0)"
		" FROM history ORDER BY id LIMIT ?", -1, &st, NULL);

	*ret = (struct oldest){ 0 };
	if (r)
		return r;
	sqlite3_bind_int64(st, 1, PRUNE_ROWS);
	while ((r = sqlite3_step(st)) == SQLITE_ROW) {
		if (f->history_bytes <= limit + ret->bytes &&
		    sqlite3_column_int64(st, 1) >= before_ms)
			break;
		ret->last_id = sqlite3_column_int64(st, 0);
		ret->generation = MAX(ret->generation,
				      (uint64_t)sqlite3_column_int64(st, 2));
		ret->bytes += row_bytes(st);
		ret->n++;
	}
	sqlite3_finalize(st);
	return r == SQLITE_ROW || r == SQLITE_DONE ? SQLITE_OK : r;
}

static int drop_oldest(struct pooldb_file *f, const struct oldest *o)
{
	char sql[512];

	f->history_bytes -= MIN(f->history_bytes, o->bytes);
	f->history_from = MAX(f->history_from, o->generation);
	snprintf(sql, sizeof sql, "BEGIN IMMEDIATE;"
		 "DELETE FROM history WHERE id <= %" PRId64 ";"
		 "UPDATE _meta SET value = '%" PRIu64 "' WHERE"
		 " key = 'history_bytes';"
		 "UPDATE _meta SET value = '%" PRIu64 "' WHERE"
		 " key = 'history_from'; COMMIT;"
		 "PRAGMA incremental_vacuum(2000)",
		 o->last_id, f->history_bytes, f->history_from);
	return sqlite3_exec(f->db, sql, NULL, NULL, NULL);
}

int history_prune(struct pooldb_file *f, int64_t now_ms)
{
	uint64_t limit = (uint64_t)f->cfg->history_mib << 20;
	int64_t keep_ms = (int64_t)f->cfg->history_days * 86400 * 1000;
	struct oldest o;

	if (now_ms - f->pruned_at < PRUNE_EVERY_MS && now_ms >= f->pruned_at &&
	    f->history_bytes <= limit + limit / 4)
		return 0;
	f->pruned_at = now_ms;
	for (int i = 0; i < PRUNE_ROUNDS; i++) {
		if (find_oldest(f, limit, now_ms - keep_ms, &o))
			goto failed;
		if (o.n == 0)
			return 0;
		if (drop_oldest(f, &o))
			goto failed;
	}
	return 0;
failed:
	snprintf(f->why, sizeof f->why, "SQLite: %s", sqlite3_errmsg(f->db));
	return -1;
}
