/* Looking into the history of a pool.db: what changed, and what was. Reads the
 * file only, so it works on any thread, beside a daemon that writes it, and on
 * the folder of a dead one. Answers are JSON text for the tools; the caller
 * frees it.
 */
#ifndef RAFTDB_HISTORY_H
#define RAFTDB_HISTORY_H

#include "base/util.h"

#define HISTORY_ROWS_MAX 10000

/* The newest rows (at most max) of an object, oldest first; field NULL: of all
 * fields. {"rows": [{"id", "index", "generation", "time" (ms), "author",
 * "class", "ref", "uuid", "field", "old", "new"}], "more": bool}. id is the
 * uuid, or the ref of an object of a class without uuids. 0; -ENOENT no such
 * class, -EINVAL no such field, -EIO; reason says what. */
int history_rows(const char *path, const char *cls, const char *id,
		 const char *field, unsigned max, char **ret, char *reason,
		 size_t reason_size);

/* What the object was after this generation; or, when generation is 0, at this
 * time. {"generation", "exists", "fields": {name: text}, "not_recorded":
 * [name], "gap": bool (some of the steps back are known in sum only, or were
 * too long to be kept whole)}.
 * Also -ERANGE: before the history's beginning. */
int history_at(const char *path, const char *cls, const char *id,
	       uint64_t generation, int64_t time_ms, char **ret, char *reason,
	       size_t reason_size);

/* The generation after the entry with this log index was applied. -ERANGE:
 * before the history's beginning; -EIO. */
int history_generation_of_index(const char *path, uint64_t index, uint64_t *ret,
				char *reason, size_t reason_size);

/* The generation that the file has come to. 0 or -EIO. */
int history_newest(const char *path, uint64_t *ret, char *reason,
		   size_t reason_size);

/* Is the file about another pool than the one with this uuid? */
int history_other_pool(const char *path, const char *uuid, bool *ret,
		       char *reason, size_t reason_size);

/* Reads every row of the file and compares their digest with what the file
 * says. 0, -EBADMSG: it does not fit, or cannot be read: reason. */
int history_verify(const char *path, char *reason, size_t reason_size);

#endif
