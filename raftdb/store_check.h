/* Checking a state from the outside: everything that a store promises of its
 * rows, found out again from the rows alone. Any thread. */
#ifndef RAFTDB_STORE_CHECK_H
#define RAFTDB_STORE_CHECK_H

#include "raftdb/store.h"

struct check_result {
	size_t rows, references;
	size_t dangling; /* the API allows them: a count, no finding */
	size_t findings;
	struct buf text; /* a line for each of the first CHECK_LINES */
};
#define CHECK_LINES 100

void check_result_deinit(struct check_result *c);
void check_finding(struct check_result *c, const char *fmt, ...) _printf_(2, 3);

/* Types, unique refs and uuids, derived and many-to-many sets, stamps, digest. */
void store_check_view(const struct store_view *v, struct check_result *c);
/* On the thread of the store: do the indexes lead to this row? It must be the
 * store's current version of it. */
void store_check_indexes(const struct store *s, const struct record *r,
			 struct check_result *c);

#endif
