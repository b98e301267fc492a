/* The parts of a database image (docs/formats.md), for raftdb/image*.c and
 * their tests only.
 */
#ifndef RAFTDB_IMAGE_IMPL_H
#define RAFTDB_IMAGE_IMPL_H

#include <sqlite3.h>

#include "raftdb/store.h"

#define IMAGE_FORMAT 1
#define IMAGE_MAX_BYTES (1 << 30) /* of the SQLite file inside */

/* A refusal: writes why and returns -EBADMSG. */
struct image_reason {
	char *text;
	size_t size;
};
int image_refuse(struct image_reason *why, const char *fmt, ...)
	_printf_(2, 3);

/* JSON of a value of type t; the set's order and every bit of a float come
 * back. RECORD, OPTION and VOID are no types of fields that are stored. */
void image_json_write(struct buf *b, const struct type *t,
		      const struct value *v);
/* NULL when it is not exactly JSON text of a value of type t. */
struct value *image_json_read(const struct type *t, const char *p, size_t n);

/* The SQL type of a column for values of type t. */
const char *image_column_type(const struct type *t);
/* Columns count from 1 when binding, from 0 when reading, as SQLite's. What is
 * bound is borrowed: v, and scratch, must live until the statement's step. */
int image_column_bind(sqlite3_stmt *st, int column, const struct type *t,
		      const struct value *v, struct buf *scratch);
/* NULL when the column does not hold a value of type t. */
struct value *image_column_read(sqlite3_stmt *st, int column,
				const struct type *t);

/* What pool.db shares with the image: the tables of classes. */
void image_table_sql(const struct class_def *c, struct buf *sql);
/* A statement that inserts a record as the newest row of its table, in place
 * of the one with the same ref. SQLite's results. */
int image_prepare_insert(sqlite3 *db, const struct class_def *c,
			 sqlite3_stmt **ret);
int image_insert_record(sqlite3_stmt *st, const struct record *r,
			struct buf *scratch);

/* Records of a class's table in the order of their last change: all, or those
 * whose column has this text. The column's name is the caller's own. */
struct image_rows;
int image_rows_open(sqlite3 *db, const struct class_def *c, const char *column,
		    const char *value, struct image_rows **ret,
		    struct image_reason *why);
/* 1 and a record (the caller's), 0 at the end, or a negative errno. */
int image_rows_next(struct image_rows *rows, struct record **ret,
		    struct image_reason *why);
void image_rows_freep(struct image_rows **rows);

/* Fills an empty database. SQLITE_OK or SQLite's error. */
int image_write_tables(sqlite3 *db, const struct store_view *v);
/* Reading: all but the rows into v, which is fresh, and which of the classes
 * have a table; then class by class. 0 or a negative errno. */
struct image_class {
	struct record **rows;
	struct hash128 *hashes; /* store_hash() of each, of image_load() only */
	size_t n, cap;
};
int image_read_frame(sqlite3 *db, struct store_view *v, bool *present,
		     struct image_reason *why);
int image_read_class(sqlite3 *db, const struct class_def *c,
		     struct image_class *ret, struct image_reason *why);
/* All of it, from a SQLite file of n bytes in memory, on several threads. */
int image_load(unsigned char *file, size_t n, struct store_view *v,
	       struct image_reason *why);

/* Around a SQLite file: magic, length, hash, zstd. Appends to ret. */
int image_wrap(const void *p, size_t n, struct buf *ret);
/* ret is of sqlite3_malloc64(). */
int image_unwrap(const void *p, size_t n, unsigned char **ret, size_t *ret_n,
		 struct image_reason *why);

#endif
