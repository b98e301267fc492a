/* pool.db: the state and its history as a SQLite file beside the raft log,
 * written behind the core by one worker thread, for queries, lookups into the
 * past and checks. Never the truth: that is the log, from which the state comes
 * at every start. docs/formats.md has the tables.
 *
 * The core hands over what each transaction changed and goes on; all calls are
 * its own. When the worker cannot keep up, or the file cannot be written, what
 * follows is not queued: once the worker is ready again it gets a frozen view
 * of the whole store, writes what differs from the file, and leaves a row in
 * the history that names the generations of which the steps are not known.
 */
#ifndef RAFTDB_POOLDB_H
#define RAFTDB_POOLDB_H

#include <uv.h>

#include "raftdb/store.h"

struct pooldb;

struct pooldb_config {
	const char *dir;       /* pool.db is made in it, mode 0600 */
	unsigned history_days; /* 0: keep no history */
	unsigned history_mib;  /* 0: keep no history */
	unsigned min_free_mib; /* with less disk space the file waits */
	size_t queue_bytes;    /* handed over, not written; 0: 64 MiB */
	unsigned batch_ms;     /* 0: 250 */
	unsigned retry_ms;     /* after an error; 0: 10000 */
};

/* Borrows s, the loaded store as of this log index, until pooldb_stop(). Never
 * fails: a file that cannot be written is told in the log and tried again. */
struct pooldb *pooldb_start(uv_loop_t *loop, const struct pooldb_config *cfg,
			    const struct store *s, uint64_t index);
/* Ends the thread, after it has written what it has in its queue (not what it
 * would need a view for). Frees d on the loop. */
void pooldb_stop(struct pooldb *d);

/* As store_observer; index: of the log entry. */
void pooldb_changed(struct pooldb *d, uint64_t index, const struct txn *t,
		    uint64_t generation, const struct change *changes,
		    size_t n);
/* The store's content was replaced as a whole, as of this index. */
void pooldb_reloaded(struct pooldb *d, uint64_t index);

/* cb as soon as everything handed over before is in the file: 0, or -EIO when
 * the file cannot be written now, or -ECANCELED when pooldb_stop() comes. */
typedef void (*pooldb_synced_cb)(void *data, int error);
void pooldb_sync(struct pooldb *d, pooldb_synced_cb cb, void *data);

struct pooldb_status {
	uint64_t generation, index; /* of the file */
	size_t queued_bytes;
	uint64_t history_bytes; /* about */
	uint64_t resyncs;       /* views written since the start */
	bool failing;           /* the last attempt to write failed */
};
void pooldb_get_status(struct pooldb *d, struct pooldb_status *ret);

/* Where the file is; owned by the caller. */
char *pooldb_path(const char *dir);
/* Renames the file, if there is one, to pool.db.SUFFIX: it belongs to a state
 * that this folder no longer has. */
int pooldb_set_aside(const char *dir, const char *suffix);

#endif
