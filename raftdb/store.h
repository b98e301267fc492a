/* The object database in memory: rows by reference, uuid, name and class, the
 * relations kept in step, change stamps, tombstones, and a digest of it all.
 * One thread (the core) uses it; records that it hands out may be kept by any
 * thread (record_ref).
 */
#ifndef RAFTDB_STORE_H
#define RAFTDB_STORE_H

#include "base/list.h"
#include "raftdb/txn.h"

struct store;

enum change_kind { CHANGE_ADD, CHANGE_MOD, CHANGE_DEL };

/* One row's change by one transaction (coalesced: one change a row). */
struct change {
	enum change_kind kind;
	const struct class_def *cls;
	struct record *before; /* NULL for ADD; borrowed */
	struct record *after;  /* NULL for DEL; borrowed */
};

/* Called by store_apply() after a transaction that changed something, when the
 * store shows the new state already; it must not apply another one. Changes are
 * in the order in which the transaction first used the rows, those of derived
 * sets last. */
typedef void (*store_observer)(void *data, const struct txn *t,
			       uint64_t generation,
			       const struct change *changes, size_t n);

struct store *store_new(void);
void store_free(struct store *s);
void store_set_observer(struct store *s, store_observer fn, void *data);

/* Pure: the same store and txn give the same result on every member. A txn
 * applies whole or not at all. An id seen before (among the last
 * STORE_REMEMBERED_IDS) is not applied again: its first result, a refusal too,
 * is returned. So what is built anew after TXN_CONFLICT needs a new id.
 *
 * A txn that changes something takes one generation, two with an OP_TOUCH; all
 * rows it changed get the last one as their stamp. One that changes nothing, as
 * writes of equal values do, takes none and is not observed.
 *
 * TXN_INVALID are also: an object without the uuid its class has, a ref that is
 * empty, null or longer than 255 bytes, and any write to a derived set.
 * TXN_NO_OBJECT is also: an object of another class than the operation says.
 * TXN_NOT_UNIQUE is also: a ref that the same txn destroyed. */
struct txn_result store_apply(struct store *s, const struct txn *t);
#define STORE_REMEMBERED_IDS 65536
/* True and the remembered result if the id was applied. */
bool store_txn_seen(const struct store *s, const uint8_t id[TXN_ID_LEN],
		    struct txn_result *ret);

/* Borrowed until the next store_apply; NULL if there is none. O(1). */
struct record *store_get(const struct store *s, const char *ref);
/* NULL also when ref exists but is of another class. */
struct record *store_get_class(const struct store *s, int cls, const char *ref);
struct record *store_by_uuid(const struct store *s, int cls, const char *uuid);
/* All rows of the class with this name_label, as a set value of refs. */
struct value *store_by_name(const struct store *s, int cls, const char *name);

/* Does any other row point to it with a RELATION_ONE field? Usually O(1). */
bool store_is_referenced(const struct store *s, const char *ref);

/* Rows of a class, oldest change first. */
size_t store_count(const struct store *s, int cls);
struct record *store_first(const struct store *s, int cls);
struct record *store_next(const struct store *s, const struct record *r);
/* The same, newest change first: event.from walks back until a stamp. */
struct record *store_last(const struct store *s, int cls);
struct record *store_prev(const struct store *s, const struct record *r);

/* Deletions of a class, newest first; borrowed. Together all classes keep the
 * last STORE_TOMBSTONES. */
struct tombstone {
	struct value *ref;
	uint64_t created, deleted;
	struct list in_class, in_all;
	int cls;
};
#define STORE_TOMBSTONES 65536
const struct tombstone *store_last_tombstone(const struct store *s, int cls);
const struct tombstone *store_prev_tombstone(const struct store *s,
					     const struct tombstone *t);
/* Deletions at or before this generation may have been forgotten. */
uint64_t store_tombstone_horizon(const struct store *s);

/* Counts transactions (and touches), the same on every member. */
uint64_t store_generation(const struct store *s);
/* Of all rows (class, ref, stamps, fields) and the generation; independent of
 * the order in which rows were written. O(1). */
struct hash128 store_digest(const struct store *s);

/* A frozen view for a worker thread: O(rows) to take, shares the records. */
struct store_view {
	uint64_t generation;
	struct record **rows;
	struct hash128 *hashes; /* store_hash() of each; NULL: not known */
	size_t n_rows;
	struct {
		struct value *ref;
		uint64_t created, deleted;
		int cls;
	} *tombs; /* oldest first */
	size_t n_tombs;
	struct {
		uint8_t id[TXN_ID_LEN];
		struct txn_result result;
	} *ids; /* oldest first */
	size_t n_ids;
	uint64_t tombstone_horizon;
	struct hash128 digest;
};
struct store_view *store_view_new(const struct store *s);
void store_view_free(struct store_view *v); /* any thread */
/* Replaces everything in s by the view's content (takes nothing: shares the
 * records). Relations and indexes are rebuilt; false, and s empty, when the
 * digest or a relation does not come out as the view says. */
bool store_load(struct store *s, const struct store_view *v);

/* SQLite image of a view (one table a class, see docs/formats.md), as bytes
 * compressed with zstd, appended to ret. Any thread. 0, or a negative errno:
 * -EFBIG over 1 GiB uncompressed, -ENOMEM. */
int image_pack(const struct store_view *v, struct buf *ret);
/* The view owns new records. -EBADMSG when the image is damaged or of a newer
 * format; reason says what. Any thread; store_load() checks the rest. */
int image_unpack(const void *p, size_t n, struct store_view **ret, char *reason,
		 size_t reason_size);
/* Writes a plain SQLite file readable with the sqlite3 tool: path.tmp, synced,
 * renamed, mode 0600. Any thread; 0 or a negative errno. */
int image_write_file(const struct store_view *v, const char *path);

#endif
