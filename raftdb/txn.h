/* A transaction: preconditions, operations, an id that makes a retry harmless,
 * and who asked for it and when. Everything that is not determined by the
 * store (refs, uuids, times, defaults) is resolved by the author: applying one
 * reads no clock, no random numbers and does no I/O.
 */
#ifndef RAFTDB_TXN_H
#define RAFTDB_TXN_H

#include "schema/record.h"

struct store;

enum txn_guard_kind {
	GUARD_EXISTS,  /* class (or any class when NULL), ref */
	GUARD_ABSENT,  /* ref */
	GUARD_VERSION, /* ref was last modified at this generation */
	GUARD_FIELD,   /* ref's field equals this value */
};

enum txn_op_kind {
	OP_CREATE,     /* ref, class; fields follow as OP_SET of the same txn */
	OP_DESTROY,
	OP_SET,        /* field := value */
	OP_MAP_ADD,    /* fails with TXN_DUPLICATE_KEY when the key is there */
	OP_MAP_PUT,
	OP_MAP_REMOVE, /* absent: no effect */
	OP_SET_ADD,
	OP_SET_REMOVE,
	OP_TOUCH,      /* an event without a change; takes one extra generation */
};

enum txn_status {
	TXN_OK,
	TXN_CONFLICT,      /* a guard does not hold: re-read and try again */
	TXN_NO_OBJECT,     /* an operation's object does not exist (any more) */
	TXN_DUPLICATE_KEY, /* OP_MAP_ADD */
	TXN_NOT_UNIQUE,    /* OP_CREATE: ref or uuid is taken */
	TXN_INVALID,       /* unknown class or field, or a value of another type:
			    * an author's mistake or a newer member's txn */
};

struct txn_result {
	enum txn_status status;
	uint32_t item;       /* of the guard or operation that failed */
	uint64_t generation; /* of the changes; when not OK, the current one */
};

#define TXN_ID_LEN 16
#define TXN_MAX_BYTES (768 * 1024) /* encoded */

struct txn {
	uint8_t id[TXN_ID_LEN]; /* random; kept over retries */
	int64_t time_ms;        /* Unix time of its author */
	char *author;           /* "root (task OpaqueRef:...)": for the history */
	uint32_t n_guards, n_ops;
	struct buf body;        /* guards and operations, encoded */
	struct buf guards;
};

/* A new transaction with a fresh id and env_wall_ms(). Copies author. */
struct txn *txn_new(const char *author);
void txn_free(struct txn *t);
void txn_freep(struct txn **t);

/* All borrow their arguments. Field numbers are those of the class; on the wire
 * and in the log classes and fields go by name. */
void txn_guard_exists(struct txn *t, const struct class_def *cls, const char *ref);
void txn_guard_absent(struct txn *t, const char *ref);
void txn_guard_version(struct txn *t, const struct record *r);
void txn_guard_field(struct txn *t, const struct record *r, unsigned field);

void txn_create(struct txn *t, const struct class_def *cls, const char *ref);
void txn_destroy(struct txn *t, const char *ref);
/* The takes_ variants are what handlers mostly need: they consume v. */
void txn_set(struct txn *t, const struct class_def *cls, const char *ref,
	     unsigned field, struct value *takes_v);
void txn_map_add(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, const char *key, struct value *takes_v);
void txn_map_put(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, const char *key, struct value *takes_v);
void txn_map_remove(struct txn *t, const struct class_def *cls, const char *ref,
		    unsigned field, const char *key);
void txn_set_add(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, struct value *takes_v);
void txn_set_remove(struct txn *t, const struct class_def *cls, const char *ref,
		    unsigned field, struct value *takes_v);
void txn_touch(struct txn *t, const char *ref);

bool txn_is_empty(const struct txn *t); /* no operations */
size_t txn_size(const struct txn *t);   /* encoded bytes, about */

void txn_encode(struct buf *b, const struct txn *t);
/* NULL when malformed. The result owns copies. */
struct txn *txn_decode(struct reader *r);

#endif
