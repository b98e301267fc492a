/* Inside of raftdb/pooldb*.c: what the core queues, and the file as the worker
 * sees it.
 */
#ifndef RAFTDB_POOLDB_IMPL_H
#define RAFTDB_POOLDB_IMPL_H

#include <sqlite3.h>

#include "base/list.h"
#include "raftdb/image_impl.h"
#include "raftdb/pooldb.h"

#define POOLDB_FORMAT 1
#define POOLDB_BATCH_CHANGES 5000

/* One applied transaction, with references of its own. */
struct pooldb_txn {
	uint64_t generation, index;
	int64_t time_ms;
	struct hash128 digest; /* of the state after it */
	char *author;
	size_t n;
	struct change changes[];
};

enum pooldb_item_kind { ITEM_TXN, ITEM_VIEW, ITEM_SYNC };

struct pooldb_item {
	struct list link;
	enum pooldb_item_kind kind;
	size_t bytes;
	struct pooldb_txn *txn;  /* ITEM_TXN; behind this, with its author */
	struct store_view *view; /* ITEM_VIEW */
	uint64_t index;          /* ITEM_VIEW */
	pooldb_synced_cb cb;     /* ITEM_SYNC */
	void *data;
	bool needs_view;         /* what came before it is not in the queue */
	uint64_t at_view;        /* views written when its turn came */
	int error;
};

/* --- the file: raftdb/pooldb_file.c, on the worker --- */

struct pooldb_file {
	char *path;
	const struct pooldb_config *cfg;
	sqlite3 *db; /* NULL: closed */
	bool is_new; /* there was none, or it was of no use */
	uint64_t generation, index;
	struct hash128 digest;
	uint64_t history_bytes;
	uint64_t history_from; /* generation that it can lead back to */
	uint64_t history_to;   /* what it had when it was opened */
	sqlite3_stmt **inserts; /* one a class, made when needed */
	sqlite3_stmt **deletes;
	sqlite3_stmt *history;
	struct buf scratch, text[2];
	int64_t pruned_at;
	char why[300]; /* of the last failure */
};

/* Opens or creates it. 0, or -EIO with f->why; a file that is damaged or of
 * another format is renamed and made anew. */
int pooldb_file_open(struct pooldb_file *f);
void pooldb_file_close(struct pooldb_file *f);
/* All or nothing; on failure the file must be closed. */
int pooldb_file_apply(struct pooldb_file *f, struct pooldb_txn **txns, size_t n);
/* Makes the file's state the view's. foreign: the file is of another past, all
 * of it is written anew. stop is asked now and then: -ECANCELED. */
int pooldb_file_sync(struct pooldb_file *f, const struct store_view *v,
		     uint64_t index, bool foreign, bool (*stop)(void *data),
		     void *data);
/* Reads _meta of any file that is open. False: not a pool.db of this format. */
bool pooldb_read_meta(sqlite3 *db, const char *key, uint64_t *ret);
bool pooldb_read_digest(sqlite3 *db, struct hash128 *ret);

/* --- its history: raftdb/pooldb_history.c --- */

#define HISTORY_TEXT_MAX 65536 /* bytes of one value */

extern const char history_schema[]; /* SQL */
/* Rows for a change. SQLite's results. */
int history_write(struct pooldb_file *f, const struct pooldb_txn *t,
		  const struct change *c);
/* A row that stands for the generations from..to. */
int history_write_gap(struct pooldb_file *f, uint64_t from, uint64_t to,
		      uint64_t index, const char *why);
int history_prune(struct pooldb_file *f, int64_t now_ms);
/* Why a field has no history, NULL if it has. */
const char *history_leaves_out(const struct class_def *c, unsigned field);
/* The text of a field's value as the history shows it, but for its length. */
void history_text(struct buf *b, const struct class_def *c, unsigned field,
		  const struct value *v);
/* To HISTORY_TEXT_MAX bytes, at a character's start, and says so. */
void history_cut(struct buf *b);
/* A session's ref never appears: it is a key to the pool. */
void history_ref_text(struct buf *b, const struct class_def *c,
		      const struct value *ref);

#endif
