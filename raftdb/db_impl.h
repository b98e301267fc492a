/* Inside of raftdb/db*.c: the parts of the facade and what they share.
 *
 * libraft calls apply from inside its own step, where it must not be called
 * back; so what apply finds out is queued, and every proposal, reply and
 * callback leaves from db_flush(), which runs twice in every turn of the loop
 * (after polling, and before it would sleep).
 */
#ifndef RAFTDB_DB_IMPL_H
#define RAFTDB_DB_IMPL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "raftdb/consensus.h"
#include "raftdb/db.h"
#include "raftdb/db_compare.h"
#include "raftdb/db_heal.h"
#include "raftdb/db_members.h"
#include "raftdb/peers.h"

#define DB_PENDING_MAX 65536              /* transactions of this member */
#define DB_PENDING_BYTES (64 * 1024 * 1024)
#define DB_READERS_MAX 262144
#define DB_ENTRY_BYTES (1024 * 1024)      /* of one log entry */
#define DB_SPREAD_BYTES ((size_t)4 * 1024 * 1024) /* of it to all members */
#define DB_IN_FLIGHT 2                    /* entries proposed, not applied */
#define DB_CHUNK_BYTES (64 * 1024)        /* of forwarded transactions */
#define DB_FORWARD_WINDOW (2 * 1024 * 1024) /* forwarded, not applied yet */
#define DB_FRESH_MS 200 /* without a read round: make one for the age */

#define DB_ENTRY_VERSION 1
/* A log entry: u8 version, u32 count, then each transaction as bytes (varint
 * length and txn_encode()), and zeros up to whole words of 8 bytes. */

/* Frames between members; ids, indexes, terms and sequence numbers are u64. */
enum db_frame {
	FRAME_PING = 1,  /* applied, generation, digest lo hi, term, u8 flags,
			    number of the loss or 0, match index or 0 */
	FRAME_FORWARD,   /* seq, term, varint count, transactions */
	FRAME_REFUSED,   /* seq, u8 reason: none of FORWARD seq was proposed */
	FRAME_READ,      /* seq: which index must I have applied? */
	FRAME_READ_AT,   /* seq, u8 ok, index */
	FRAME_CONFIRM,   /* seq, term: is this still your term? */
	FRAME_CONFIRMED, /* seq, u8 yes */
	FRAME_SYNC,      /* seq, term: forget what you have not proposed of me */
	FRAME_SYNCED,    /* seq, u8 ok, index: what you have is up to here */
	FRAME_USER,      /* bytes */
	FRAME_READMIT,   /* number of the loss, term, configuration index */
	/* See db_compare.h; "bytes" as in base/buf.h. */
	FRAME_ROWS_ASK,  /* place; 0: from the beginning */
	FRAME_ROWS,      /* next place or 0, generation, rows: bytes ref, stamp, hash */
	FRAME_ROW_ASK,   /* bytes of a ref */
	FRAME_ROW,       /* bytes of the ref, bytes of the class's name (none: no
			    such object), each field: bytes of its name, hash */
	FRAME_DIVERGED,  /* bytes of an id, bytes of text */
	FRAME_RAFT,      /* a message of libraft's: raftmsg.h */
	FRAME_RAFT_PART, /* u8 what (consensus_wire.h), total, offset, bytes */
};

enum refusal { REFUSED_NOT_LEADER = 1, REFUSED_NO_SPACE, REFUSED_BUSY };

#define PING_DISK_LOW 1

/* --- transactions: raftdb/db_txns.c --- */

enum sync_state { SYNC_IDLE, SYNC_ASKED, SYNC_WAITING };
/* A pending transaction is in exactly one of the lists queued (nobody has it),
 * sent (the current target has it), unsure (a former target may have it) and
 * done (its callback is due). */
struct txns {
	struct map by_id;
	struct list all; /* oldest deadline first; not the done ones */
	struct list queued, sent, unsure, done;
	size_t n_pending, bytes, sent_bytes;
	uint64_t next_tag; /* of proposals and forwards */
	/* who sequences: we ourselves, or a peer over one life of our link */
	uint64_t target_id, target_term, target_epoch;
	enum sync_state sync;
	uint64_t sync_seq, sync_index;
	int64_t sync_at, retry_at;
	/* leader: what others forwarded */
	struct list forwarded;
	size_t forwarded_bytes;
	unsigned in_flight;
};

/* --- reads: raftdb/db_reads.c --- */

struct reads {
	struct list all;      /* oldest deadline first; not the done ones */
	struct list waiting;  /* readers: nobody asked for them yet */
	struct list asked;    /* batches: the leader was asked */
	struct list applying; /* batches: waiting for our apply */
	struct list done;     /* readers: callback is due */
	size_t n_readers;
	uint64_t next_seq;
	int64_t retry_at;
	int64_t fresh_at; /* all that was acknowledged by then is here; or -1 */
	bool refreshing;
	/* leader */
	struct list remote; /* questions of peers for the next round */
	struct {
		bool active;
		uint64_t seq, term, index, configuration_index;
		uint64_t yes[DB_MEMBERS_MAX];
		unsigned n_yes;
		int64_t started_at;
		struct list batches; /* ours: at most one */
		struct list remote;
	} round;
};

/* --- snapshots: raftdb/db_snaps.c --- */

struct snap_work;
struct snaps {
	unsigned threshold;
	uint64_t index;        /* of the newest snapshot */
	uint64_t bytes_since;  /* of entries after it */
	struct snap_work *work; /* being packed, or packed and waiting */
	uint32_t *sizes;       /* of the last SNAP_TRAILING entries, by index */
	int64_t retry_at;
};

struct db {
	uv_loop_t *loop;
	char *dir, *raft_dir, *address;
	uint64_t id;
	unsigned min_free_mib, txn_timeout_ms, read_timeout_ms;
	struct db_callbacks cb;
	db_message_fn message_fn;
	void *message_data;
	int lock_fd;

	struct store *store;
	struct link *link;
	struct consensus *consensus;
	struct peers *peers;
	struct txns txns;
	struct reads reads;
	struct snaps snaps;
	struct heal heal;
	struct compare compare;
	struct change_op change, transfer;

	struct consensus_state st; /* as of the last flush */
	uint64_t configuration_seen;
	struct consensus_member members[DB_MEMBERS_MAX];
	unsigned n_members;
	bool was_member, had_row;
	int64_t not_member_since;

	bool leading, serving, barrier_pending;
	uint64_t leading_term;
	uint64_t told_leader;
	bool told_serving;

	struct digest_at *digests; /* ring by count of entries applied here */
	uint64_t n_digests;
	uint64_t n_txns; /* applied since the start */
	uint64_t applying; /* index of the entry applied last, or just now */
	uint64_t n_differences; /* digests of others that were not ours */

	bool disk_low;
	uint64_t disk_free;
	int64_t disk_at, low_transfer_at;
	uint64_t stall_index;
	int64_t stalled_ms, stall_at; /* stall_at: looked last */

	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t timer;
	bool kicked, flushing, restoring, opened, broken, closing;
	const char *fatal;
	enum db_end end;
	bool fatal_told;
	void (*close_cb)(void *data);
	void *close_data;
	unsigned closing_parts;
};

/* Do not sleep before the next flush. */
void db_kick(struct db *db);
/* The process must end; reported from the next flush. why: a literal, or what
 * lives as long as db. */
void db_fail(struct db *db, const char *why);
void db_end(struct db *db, enum db_end end, const char *why);
/* Refreshes db->st; true when we lead and our barrier of this term has been
 * applied. */
bool db_serving_now(struct db *db);

void txns_init(struct txns *t);
void txns_deinit(struct txns *t);
void txns_flush(struct db *db);
void txns_tick(struct db *db, int64_t now);
void txns_applied(struct db *db, const uint8_t id[TXN_ID_LEN],
		  struct txn_result result);
/* The store was replaced; ids_full: it may have forgotten old ids. */
void txns_restored(struct db *db, bool ids_full);
void txns_proposed(struct db *db, uint64_t tag, bool applied);
void txns_cancel_all(struct db *db, int error);
bool txns_fire(struct db *db);
void txns_on_forward(struct db *db, struct peer *from, struct reader *r);
void txns_on_refused(struct db *db, struct peer *from, struct reader *r);
void txns_on_sync(struct db *db, struct peer *from, struct reader *r);
void txns_on_synced(struct db *db, struct peer *from, struct reader *r);

void reads_init(struct reads *rs);
void reads_flush(struct db *db);
void reads_tick(struct db *db, int64_t now);
void reads_cancel_all(struct db *db, int error);
bool reads_fire(struct db *db);
void reads_on_read(struct db *db, struct peer *from, struct reader *r);
void reads_on_read_at(struct db *db, struct peer *from, struct reader *r);
void reads_on_confirm(struct db *db, struct peer *from, struct reader *r);
void reads_on_confirmed(struct db *db, struct peer *from, struct reader *r);

void snaps_init(struct snaps *s, unsigned threshold);
void snaps_deinit(struct snaps *s);
void snaps_applied(struct db *db, uint64_t index, const char *p, size_t n);
void snaps_flush(struct db *db);
/* Called when the loop is to be left; true when no worker is busy. */
bool snaps_close(struct db *db);
int snaps_take(void *data, uint64_t index,
	       struct consensus_part parts[CONSENSUS_PARTS], unsigned *ret_n);
void snaps_done(void *data);
int snaps_restore(void *data, const char *p, size_t n);

/* Applies the transactions of a log entry; false: it cannot be read. */
bool db_apply_entry(struct db *db, const char *p, size_t n);
void db_close_part(struct db *db);

void snaps_header(struct buf *h, uint64_t index, uint64_t n_ids,
		  const struct buf *image, const struct buf *tail);

/* raftdb/db_folder.c */
int disk_lock(const char *dir, int *ret_fd);
bool disk_has_state(const char *raft_dir);
int disk_make_dir(const char *path);
/* Notes whose the folder is; -EBADMSG, logged: it is another member's. */
int disk_claim(const char *raft_dir, uint64_t id);
bool disk_room(const char *dir, uint64_t *ret_bytes); /* false: cannot tell */
void disk_tick(struct db *db, int64_t now);
/* An index that survives the process, beside the log: DIR/floor. 0: none. */
uint64_t disk_floor(const char *dir);
void disk_set_floor(const char *dir, uint64_t index); /* 0: forgets it */

#endif
