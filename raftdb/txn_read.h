/* Walking over a transaction's guards and operations, for the store that
 * applies it and for the tools that show it.
 *
 *	_cleanup_(txn_iter_deinit) struct txn_iter it;
 *
 *	txn_iter_ops(&it, t);
 *	while (txn_iter_next(&it))
 *		apply(it.item.kind, it.item.ref, ...);
 *
 * It never fails on a transaction of txn_new() or txn_decode(): the one writes
 * only what can be read, the other has read it all before.
 */
#ifndef RAFTDB_TXN_READ_H
#define RAFTDB_TXN_READ_H

#include "raftdb/txn.h"

/* Texts are NUL-terminated, hold no NUL inside, and are borrowed from the
 * transaction (not from the iterator). What a kind does not have is NULL, as is
 * the class of a GUARD_EXISTS that takes any. */
struct txn_text {
	const char *s;
	size_t n;
};

struct txn_item {
	uint8_t kind;       /* enum txn_guard_kind or enum txn_op_kind */
	uint32_t index;     /* from 0, among the guards or the operations */
	struct txn_text cls, ref, field, key;
	struct value *value; /* the iterator's until the next step; a caller
			      * keeps it by value_ref() or TAKE_PTR() */
	uint64_t version;    /* GUARD_VERSION */
};

struct txn_iter {
	struct reader r;
	uint32_t left;
	bool guards;
	struct txn_item item;
};

void txn_iter_guards(struct txn_iter *it, const struct txn *t);
void txn_iter_ops(struct txn_iter *it, const struct txn *t);
/* False at the end. */
bool txn_iter_next(struct txn_iter *it);
void txn_iter_deinit(struct txn_iter *it);

#endif
