/* Reading an image's SQLite file: it is opened read-only in memory, and only
 * tables and columns of the schema are accepted.
 *
 * A member that starts waits for this, so classes are read on several threads,
 * each with a connection of its own to the same bytes, the largest first.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "raftdb/image_impl.h"
#include "raftdb/store_impl.h"

#define THREADS_MAX 4
#define BYTES_A_THREAD (2u << 20) /* less is not worth another one */

struct load {
	unsigned char *file;
	size_t n;
	unsigned *order;  /* numbers of the classes that have a table */
	size_t n_classes;
	atomic_size_t next;
	atomic_bool failed;
	struct image_class *classes; /* by number */
	struct store *tables; /* empty: what hashing a row needs */
};

struct loader {
	struct load *load;
	pthread_t thread;
	bool started;
	int error;
	char text[300];
};

static void dbp(sqlite3 **db)
{
	sqlite3_close(*db);
}

static int open_file(struct load *l, sqlite3 **ret, struct image_reason *why)
{
	_cleanup_(dbp) sqlite3 *db = NULL;

	if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE |
			    SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX, NULL))
		return -ENOMEM;
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	if (sqlite3_deserialize(db, "main", l->file, (sqlite3_int64)l->n,
				(sqlite3_int64)l->n,
				SQLITE_DESERIALIZE_READONLY))
		return image_refuse(why, "SQLite: %s", sqlite3_errmsg(db));
	*ret = TAKE_PTR(db);
	return 0;
}

/* Here and not as the store is filled, which only one thread can do. */
static void hash_class(const struct load *l, struct image_class *c)
{
	_cleanup_(buf_deinit) struct buf scratch = BUF_INIT;

	c->hashes = xcalloc(c->n + 1, sizeof(*c->hashes));
	for (size_t i = 0; i < c->n; i++)
		c->hashes[i] = store_hash(store_table(l->tables,
						      c->rows[i]->cls),
					  c->rows[i], &scratch);
}

static int read_classes(struct loader *t, sqlite3 *db, struct image_reason *why)
{
	struct load *l = t->load;
	int r = 0;

	while (r == 0 && !atomic_load(&l->failed)) {
		size_t i = atomic_fetch_add(&l->next, 1);
		unsigned cls;

		if (i >= l->n_classes)
			break;
		cls = l->order[i];
		r = image_read_class(db, &schema_classes[cls], &l->classes[cls],
				     why);
		if (r == 0)
			hash_class(l, &l->classes[cls]);
	}
	return r;
}

static void *run(void *data)
{
	struct loader *t = data;
	struct image_reason why = { t->text, sizeof(t->text) };
	_cleanup_(dbp) sqlite3 *db = NULL;

	t->error = open_file(t->load, &db, &why);
	if (t->error == 0)
		t->error = read_classes(t, db, &why);
	if (t->error < 0)
		atomic_store(&t->load->failed, true);
	return NULL;
}

/* About how much there is to read: rows times fields. */
static int64_t size_of(sqlite3 *db, unsigned cls)
{
	_cleanup_(buf_deinit) struct buf sql = BUF_INIT;
	sqlite3_stmt *st = NULL;
	int64_t n = 0;

	buf_printf(&sql, "SELECT max(rowid) FROM \"%s\"",
		   schema_classes[cls].name);
	if (sqlite3_prepare_v2(db, buf_cstr(&sql), -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0) * schema_classes[cls].n_fields;
	sqlite3_finalize(st);
	return n;
}

static void put_in_order(struct load *l, sqlite3 *db, const bool *present)
{
	_cleanup_(freep) char *memory = xcalloc(schema_n_classes,
						sizeof(int64_t));
	int64_t *sizes = (int64_t *)(void *)memory;

	for (unsigned c = 0; c < schema_n_classes; c++) {
		size_t at = l->n_classes;

		if (!present[c])
			continue;
		sizes[c] = size_of(db, c);
		for (; at > 0 && sizes[l->order[at - 1]] < sizes[c]; at--)
			l->order[at] = l->order[at - 1];
		l->order[at] = c;
		l->n_classes++;
	}
}

static unsigned threads_for(size_t n)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	size_t wanted = n / BYTES_A_THREAD + 1;

	return (unsigned)MIN(MIN(wanted, (size_t)MAX(cores, 1)),
			     (size_t)THREADS_MAX);
}

/* This thread is one of them. */
static int read_rows(struct load *l, struct image_reason *why)
{
	struct loader t[THREADS_MAX] = { 0 };
	unsigned n = threads_for(l->n);
	int r = 0;

	for (unsigned i = 0; i < n; i++)
		t[i].load = l;
	for (unsigned i = 1; i < n; i++) {
		t[i].started = pthread_create(&t[i].thread, NULL, run,
					      &t[i]) == 0;
		if (t[i].started)
			pthread_setname_np(t[i].thread, "image-load");
	}
	run(&t[0]);
	for (unsigned i = 0; i < n; i++) {
		if (t[i].started)
			pthread_join(t[i].thread, NULL);
		if (t[i].error == 0 || r < 0)
			continue;
		r = t[i].error;
		image_refuse(why, "%s", t[i].text);
	}
	return r;
}

/* In the order of the classes. A class that could not be read has no hashes;
 * nobody asks for them then. */
static void collect(struct load *l, struct store_view *v)
{
	size_t n = 0;

	for (unsigned c = 0; c < schema_n_classes; c++)
		n += l->classes[c].n;
	v->rows = xcalloc(n + 1, sizeof(*v->rows));
	v->hashes = xcalloc(n + 1, sizeof(*v->hashes));
	for (unsigned c = 0; c < schema_n_classes; c++) {
		struct image_class *from = &l->classes[c];

		if (from->n > 0)
			memcpy(v->rows + v->n_rows, from->rows,
			       from->n * sizeof(*v->rows));
		if (from->hashes)
			memcpy(v->hashes + v->n_rows, from->hashes,
			       from->n * sizeof(*v->hashes));
		v->n_rows += from->n;
		free(from->rows);
		free(from->hashes);
	}
}

int image_load(unsigned char *file, size_t n, struct store_view *v,
	       struct image_reason *why)
{
	struct load l = { .file = file, .n = n };
	bool *present = xcalloc(schema_n_classes, sizeof(*present));
	_cleanup_(dbp) sqlite3 *db = NULL;
	int r = open_file(&l, &db, why);

	l.order = xcalloc(schema_n_classes, sizeof(*l.order));
	l.classes = xcalloc(schema_n_classes, sizeof(*l.classes));
	l.tables = store_new();
	r = r ? r : image_read_frame(db, v, present, why);
	if (r == 0) {
		put_in_order(&l, db, present);
		r = read_rows(&l, why);
	}
	collect(&l, v);
	store_free(l.tables);
	free(l.order);
	free(l.classes);
	free(present);
	return r;
}
