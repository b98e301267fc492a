/* The replicated database as the pool sees it: submit transactions from any
 * member, read the local store after a read barrier, watch what is applied.
 * Everything here runs on the core thread's loop.
 */
#ifndef RAFTDB_DB_H
#define RAFTDB_DB_H

#include "base/text.h"

#include <uv.h>

#include "raftdb/store.h"

struct db;

/* A member of the pool as its configuration knows it. */
struct db_member {
	uint64_t id;         /* Raft server id, from the host's uuid; never 0 */
	char address[64];    /* "127.0.0.2:8444": where its peer port is */
	char fingerprint[65]; /* SHA-256 of its certificate (DER), hex */
	char uuid[UUID_LEN + 1];
};

#define DB_MEMBERS_MAX 64

enum db_role { DB_SPARE, DB_STANDBY, DB_VOTER };

struct db_config {
	const char *dir;          /* raft/ lives below it */
	uint64_t id;
	const char *peer_address; /* "127.0.0.1:8444": to listen and be known by */
	const char *cert_file, *key_file;
	unsigned election_timeout_ms; /* 0: 150 */
	unsigned heartbeat_ms;        /* 0: 15 */
	unsigned snapshot_threshold;  /* entries; 0: 8192 */
	unsigned min_free_mib;        /* 0: 64; below it the disk counts as full */
	unsigned txn_timeout_ms;      /* 0: 30000 */
	unsigned read_timeout_ms;     /* 0: 5000 */
	/* The folder is empty though this member is one of the group: its log
	 * was lost or given up. A random number, new with every start; 0: no.
	 * Such a member takes no part before the leader has taken it out of the
	 * group and added it again: see docs/consistency.md. */
	uint64_t rebuild;
};

/* Which peers may speak with us: asked at every connection. Borrowed answer;
 * NULL: unknown, refuse. */
typedef const struct db_member *(*db_trust_fn)(void *data, const char *fingerprint);

/* What has to follow when a member cannot go on; the process ends anyway. */
enum db_end {
	DB_END_BROKEN,  /* a failed disk, a log that cannot be read: an operator */
	DB_END_REBUILD, /* start again with an empty folder and config.rebuild */
	DB_END_REMOVED, /* the pool goes on without this host */
};

struct db_callbacks {
	void *data;
	db_trust_fn trusted;
	/* Applied transaction that changed something (see store_observer). */
	store_observer changed;
	/* The whole store was replaced by a snapshot. */
	void (*reloaded)(void *data);
	/* Leadership or the known leader changed; leader_id 0: none known.
	 * is_serving_leader: we lead and our barrier has been applied. */
	void (*leader)(void *data, uint64_t leader_id, bool is_serving_leader);
	/* Callbacks of finished transactions and reads may have been called:
	 * just before the loop waits, and after it has waited. May be NULL. */
	void (*flushed)(void *data);
	/* The process must end. why is for the log line. */
	void (*fatal)(void *data, enum db_end end, const char *why);
	/* Some member's state differs: text says whose and in what, a line each.
	 * All members that hear of it get the same id, which is one for a
	 * transaction. May be NULL. */
	void (*diverged)(void *data, const uint8_t id[TXN_ID_LEN],
			 const char *text);
	/* Opened with config.rebuild: it is one of the group again, and has the
	 * state. May be NULL. */
	void (*rebuilt)(void *data);
};

/* Opens (creating if asked) and starts. Negative errno and a log line with what
 * to do on failure: -EBUSY another process has the folder, -EBADMSG damaged or
 * foreign content, ... */
int db_open(uv_loop_t *loop, const struct db_config *cfg,
	    const struct db_callbacks *cb, struct db **ret);
/* First start of a pool of one: writes the initial configuration. */
int db_bootstrap(const struct db_config *cfg);
bool db_has_state(const struct db_config *cfg);
/* Makes the folder that of a pool of one whose state is s, with a generation
 * far beyond any that clients of an earlier life may know. A log that is there
 * is kept as raft.SUFFIX. For restoring a backup: no daemon may run (-EBUSY).
 * Blocks; needs id, dir and peer_address only. */
int db_seed(const struct db_config *cfg, struct store *s, const char *suffix);
/* cb when all handles are closed; frees db. */
void db_close(struct db *db, void (*cb)(void *data), void *data);

const struct store *db_store(const struct db *db);
/* Log index that the store is at; in the changed callback, the one of the entry
 * that is being applied. */
uint64_t db_applied_index(const struct db *db);

/* result.status is TXN_OK.. when error == 0. Outcome unknown (it may be applied
 * or not; submitting the same id again is safe while the store remembers ids):
 * -ETIMEDOUT nobody answered in time, -ECANCELED the database was closed. Not
 * applied: -ENOSPC the leader's disk is full, -E2BIG too large, -EBUSY too many
 * are pending (65536, or 64 MiB), -EALREADY one with this id is pending here. */
typedef void (*db_txn_cb)(void *data, int error, struct txn_result result);
/* Takes t. cb fires when the txn has been applied here (so a read that follows
 * sees it), wherever it was sequenced; never from within this call. May be
 * called on any member. */
void db_submit(struct db *db, struct txn *t, db_txn_cb cb, void *data);

/* cb(0) as soon as this member's store is at least as new as any write that was
 * acknowledged anywhere before this call. cb(-ETIMEDOUT) when no majority
 * answers in time. Many waiting callers cost one round trip. May fire from
 * within the call when this member is the only voter. */
typedef void (*db_read_cb)(void *data, int error);
void db_read_barrier(struct db *db, db_read_cb cb, void *data);

/* How old this member's store may be, ms: every write that was acknowledged
 * anywhere before that is in it. Kept small as long as a majority answers, by
 * asking for it when nobody reads (DB_FRESH_MS); grows without one. Unknown
 * until the first answer after the start. */
#define DB_AGE_UNKNOWN ((int64_t)1 << 53) /* exact in JSON readers, too */
int64_t db_age_ms(const struct db *db);
/* As in struct db_status, without the rest. */
bool db_is_rebuilding(const struct db *db);

/* Membership; on the serving leader only, else -EPERM. One change at a time:
 * -EBUSY. -EINVAL: a bad address, or the leader's own demotion or removal (hand
 * over first). The callback gets 0 or a negative errno: -EEXIST the id or address
 * is a member, -EALREADY it has this role, -ENOENT no such member, -EHOSTUNREACH
 * a voter to be did not catch up, -ECANCELED leadership was lost: look again. */
typedef void (*db_change_cb)(void *data, int error);
int db_add_member(struct db *db, uint64_t id, const char *peer_address,
		  db_change_cb cb, void *data); /* as DB_SPARE */
int db_assign(struct db *db, uint64_t id, enum db_role role, db_change_cb cb,
	      void *data);
int db_remove_member(struct db *db, uint64_t id, db_change_cb cb, void *data);
/* Hands leadership over (0: to whoever is most up to date). */
int db_transfer(struct db *db, uint64_t id, db_change_cb cb, void *data);

struct db_status {
	uint64_t id, leader_id, term, commit_index, applied_index, last_index;
	uint64_t snapshot_index;
	bool is_leader, is_serving_leader;
	bool rebuilding; /* opened so, and not one of the group again yet */
	unsigned n_members;
	struct {
		uint64_t id;
		char address[64];
		enum db_role role;
		bool connected;          /* we have an authenticated link to it */
		bool lost;               /* it says so: see db_member_lost() */
		int64_t heard_ms_ago;    /* -1: never */
		uint64_t applied_index, digest_generation;
		struct hash128 digest;
	} members[DB_MEMBERS_MAX];
	uint64_t disk_free_bytes;
	uint64_t pending_txns;
};
void db_get_status(const struct db *db, struct db_status *ret);
/* Heard from the member within so many ms (the leader knows all, others know
 * the leader). */
bool db_member_alive(const struct db *db, uint64_t id, int64_t within_ms);

/* The member says that its log is gone (config.rebuild): the serving leader has
 * to remove it, and may add it again when this has become false. */
bool db_member_lost(const struct db *db, uint64_t id);

/* Opaque messages from host to host over the authenticated links (at most 1
 * MiB, at most once, in order while the link stands). */
typedef void (*db_message_fn)(void *data, uint64_t from, const char *p, size_t n);
void db_set_message_fn(struct db *db, db_message_fn fn, void *data);
/* -ENOTCONN; -ENOBUFS: too much waits to be sent; -EMSGSIZE. */
int db_send(struct db *db, uint64_t to, const char *p, size_t n);

/* Raft id of a host: the first 8 bytes of its uuid, never 0. */
uint64_t db_id_of_uuid(const char *uuid);

#endif
