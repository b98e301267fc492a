/* Whether all members have the same state; and if not, what differs, who is the
 * odd one out, and what becomes of it.
 *
 *   digests by log index come with the pings; each member also hashes its own
 *   rows again, a few at a time, so that memory that changed by itself shows
 *   differs from more than agree with it, or from its own hashes: the odd one
 *   it compares its rows with a peer's: ROWS_ASK, ROWS (refs, stamps, hashes),
 *   and the fields of those that differ: ROW_ASK, ROW (hashes by name)
 *   it tells everybody what it found (DIVERGED), who put it into the log and
 *   raise an alarm, and is rebuilt (db_heal.h)
 *   as many differ as agree: one of the two compares and tells, nobody is rebuilt
 *
 * Only for raftdb/db*.c.
 */
#ifndef RAFTDB_DB_COMPARE_H
#define RAFTDB_DB_COMPARE_H

#include "base/map.h"
#include "raftdb/db.h"

struct peer;

#define COMPARE_FOUND 8 /* objects that are named */

enum compare_phase { COMPARE_IDLE, COMPARE_ROWS, COMPARE_FIELDS, COMPARE_TOLD };

struct compare {
	enum compare_phase phase;
	bool odd;        /* we are */
	bool told;       /* of the difference that there is now */
	uint64_t peer;   /* with whom */
	int64_t until;
	struct map seen; /* refs that the peer has; the keys are ours */
	struct value *found[COMPARE_FOUND]; /* refs */
	unsigned n_found, n_more, next;
	struct buf text; /* a line each */
	/* The other end. */
	struct store_view *view;
	uint64_t asker;
	int64_t view_at;
	/* Our own rows. */
	size_t scrub_at;
	int64_t scrub_from;
};

void compare_deinit(struct compare *c);
/* Notes what the state is like at this log index. */
void compare_note(struct db *db, uint64_t index);
void compare_tick(struct db *db, int64_t now);
/* Nobody should ask this member for anything. */
static inline bool compare_is_odd(const struct compare *c)
{
	return c->odd && c->phase != COMPARE_IDLE;
}

void compare_on_rows_ask(struct db *db, struct peer *from, struct reader *r);
void compare_on_rows(struct db *db, struct peer *from, struct reader *r);
void compare_on_row_ask(struct db *db, struct peer *from, struct reader *r);
void compare_on_row(struct db *db, struct peer *from, struct reader *r);
void compare_on_diverged(struct db *db, struct peer *from, struct reader *r);

#endif
