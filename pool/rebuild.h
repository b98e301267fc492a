/* What the data folder says of a member that cannot go on as it was: its log is
 * to be given up (`rebuild`), or its pool goes on without it (`removed/`).
 *
 * The file `rebuild` holds the reason, and is there from the moment at which the
 * log is given up until the others have taken this member in again: who finds
 * it at start begins with an empty raft/. Then it becomes `rebuilt`, whose age
 * keeps a broken host from being rebuilt again and again. What raft/ had is kept
 * as raft.before-rebuild, the newest only.
 *
 * The folder `removed` holds `why` and an empty database. Everything else stays
 * as it was.
 */
#ifndef POOL_REBUILD_H
#define POOL_REBUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REBUILD_AGAIN_S 600

/* At start. has_state: raft/ holds a log; n_members: in members.json; joining:
 * this start is the second half of pool.join. *ret_number: for
 * db_config.rebuild. Negative errno, and a log line that says what to do. */
int rebuild_prepare(const char *data_dir, bool has_state, size_t n_members,
		    bool joining, uint64_t *ret_number);
/* The log is given up: the next start begins anew. -EAGAIN: that was done not
 * long ago. asked: an operator wants it, so however often. */
int rebuild_note(const char *data_dir, const char *why, bool asked);
/* The reason, the caller's. */
char *rebuild_done(const char *data_dir);

int removed_note(const char *data_dir, const char *why);
/* Why, the caller's; NULL: it was not. */
char *removed_why(const char *data_dir);

#endif
