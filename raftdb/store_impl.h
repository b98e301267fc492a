/* The insides of the store, for raftdb/store*.c and their tests only.
 *
 * A row is the current version of an object (an immutable record) and its place
 * in the indexes. A link is a pointer from a row to another object, kept for
 * every reference in a RELATION_ONE field and every member of a RELATION_BOTH
 * set whether or not the object exists: from the links a derived set is rebuilt
 * when its object is created late, and checked when an image is loaded.
 */
#ifndef RAFTDB_STORE_IMPL_H
#define RAFTDB_STORE_IMPL_H

#include "base/map.h"
#include "raftdb/store.h"

struct row;

/* All links to one object. */
struct target {
	struct value *ref;
	struct list links;
	size_t n_links;
};

struct link {
	struct list in_target, in_row;
	struct target *target;
	struct row *source;
	uint16_t field;
};

/* All rows of a class with one name_label. */
struct name {
	struct value *text;
	struct row **rows;
	size_t n, cap;
};

struct row {
	struct record *rec;
	struct hash128 hash;
	struct list in_class; /* by modified, oldest first */
	struct list links;
	struct name *name;    /* NULL: the class has no names */
	size_t name_place;    /* in name->rows */
};

struct table {
	const struct class_def *cls;
	struct list rows;
	size_t count;
	struct map names;
	struct list tombstones; /* oldest first */
	struct value **defaults;
	uint16_t *by_name; /* field numbers in the order of their names */
	uint16_t *linking; /* fields whose pointers are links */
	size_t n_linking;
	uint16_t *derived; /* RELATION_MANY fields */
	size_t n_derived;
};

struct seen {
	uint8_t id[TXN_ID_LEN];
	struct txn_result result;
};

struct store {
	struct table *tables; /* one a class */
	struct map rows;      /* by ref */
	struct map uuids;     /* rows by uuid */
	struct map targets;   /* by ref */
	struct list tombstones;
	size_t n_tombstones;
	uint64_t horizon;
	uint64_t generation;
	struct hash128 sum; /* of the rows' hashes, modulo 2^128 */
	struct seen *seen;  /* ring of STORE_REMEMBERED_IDS */
	size_t seen_next, n_seen;
	struct map seen_by_id;
	struct buf scratch; /* of hashing */
	store_observer observer;
	void *observer_data;
};

/* What a relation asks of a field. A set related to itself by the same field
 * (role.subroles) is a plain set: the relation is directed. */
bool field_is_one(const struct field_def *f);
bool field_is_both(const struct class_def *c, unsigned field);
bool field_is_derived(const struct field_def *f);
bool class_is_stored(const struct class_def *c);

static inline struct table *store_table(const struct store *s,
					const struct class_def *c)
{
	return &s->tables[c->id];
}

static inline struct row *store_row(const struct store *s, const char *ref,
				    size_t n)
{
	return map_get(&s->rows, ref, n);
}

/* Change all indexes, the digest's sum and the links, but not the generation.
 * Each takes the record, whose stamps and derived sets are final. */
struct row *store_insert(struct store *s, struct record *rec);
/* For who knows the row's store_hash() already. */
struct row *store_insert_hashed(struct store *s, struct record *rec,
				struct hash128 hash);
void store_replace(struct store *s, struct row *row, struct record *rec);
void store_remove(struct store *s, struct row *row);

/* Borrows ref. Forgets the oldest one when there are too many. */
void store_add_tombstone(struct store *s, int cls, struct value *ref,
			 uint64_t created, uint64_t deleted);
void store_remember(struct store *s, const uint8_t id[TXN_ID_LEN],
		    struct txn_result result);

void store_clear(struct store *s);

/* Digest arithmetic: a 128-bit number, low half first. */
void hash128_add(struct hash128 *sum, struct hash128 h);
void hash128_sub(struct hash128 *sum, struct hash128 h);
bool hash128_equal(struct hash128 a, struct hash128 b);
/* A row's share of the digest; scratch is overwritten. Only fields that differ
 * from their defaults count, by name: a field that a newer schema added does
 * not change the digest before it is used. */
struct hash128 store_hash(const struct table *t, const struct record *r,
			  struct buf *scratch);

/* The refs of all rows that point to target (may be NULL) by this field, as a
 * sorted set. */
struct value *store_pointing(const struct target *target, int cls, int field);

/* Recomputes every derived set and many-to-many side from the links. */
bool store_relations_agree(const struct store *s);

/* A transaction being applied: versions of rows that nobody else sees yet. */
struct edit {
	struct value *ref;
	struct row *row;      /* NULL: created by this transaction */
	struct record *after; /* NULL: destroyed */
	bool writable;        /* after is a copy of our own */
	bool touched;
	uint32_t item;        /* operation that created it or set its uuid */
};

/* A member of a RELATION_BOTH set that did not exist when it was written. */
struct dangling {
	struct edit *source;
	unsigned field;
	struct value *ref;
};

struct scratch {
	struct store *store;
	struct edit **edits; /* in the order of their first use */
	size_t n_edits, cap_edits;
	struct map by_ref;
	struct dangling *dangling;
	size_t n_dangling, cap_dangling;
	bool touched;
};

/* The transaction's version of an object; NULL if there is none (any more). */
struct edit *scratch_get(struct scratch *sc, const char *ref, size_t n);
/* Takes v. No relation is looked after. */
void edit_set(struct edit *e, unsigned field, struct value *v);
static inline const struct record *edit_before(const struct edit *e)
{
	return e->row ? e->row->rec : NULL;
}

/* Writes a RELATION_BOTH set and the other sides; takes set. */
void relate_both(struct scratch *sc, struct edit *e, unsigned field,
		 struct value *set);
/* Fills the RELATION_BOTH sets of a new object that others name already. */
void relate_created(struct scratch *sc, struct edit *e);
/* Takes an object out of the other sides' sets before it goes. */
void relate_destroyed(struct scratch *sc, struct edit *e);
/* Once all operations are done: the derived sets. */
void relate_derived(struct scratch *sc);

#endif
