/* Pool logic: what the API's calls mean. No sockets, threads, files or clock in
 * here: calls, applied changes, executor messages, timer ticks come in; and
 * transactions, replies, executor messages and timer wishes go out through the
 * hooks. So a whole pool of these runs in one thread under a simulated clock.
 */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "raftdb/store.h"
#include "schema/call.h"

struct pool;

/* error as db_txn_cb's. */
typedef void (*pool_txn_cb)(void *data, int error, struct txn_result result);
typedef void (*pool_done_cb)(void *data, int error);
/* Verified: ok tells if the password fits. Hashed: hash is the new hash. */
typedef void (*pool_password_cb)(void *data, bool ok, const char *hash);
typedef void (*pool_remote_cb)(void *data, int error, struct value *result,
			       struct value *api_error,
			       const char *peer_fingerprint);

/* text NULL: failed, error says why. Both borrowed. */
typedef void (*pool_tool_cb)(void *data, const char *text, const char *error);

/* error NULL: fd is the stream. Takes both. */
typedef void (*pool_console_cb)(void *data, int fd, struct value *takes_error);

/* Why this host cannot answer anything. */
enum pool_absence {
	POOL_PRESENT,
	POOL_REBUILDING, /* it has no state yet, and will soon */
	POOL_REMOVED,    /* it is not in the pool any more */
};

struct pool_hooks {
	void *data;
	const struct store *(*store)(void *data);
	void (*submit)(void *data, struct txn *takes_t, pool_txn_cb cb, void *cb_data);
	void (*read_barrier)(void *data, pool_done_cb cb, void *cb_data);
	/* hash NULL: make a new hash of password. On a worker thread. */
	void (*password)(void *data, const char *password, const char *hash,
			 pool_password_cb cb, void *cb_data);
	/* Wall clock and monotonic milliseconds come from base/env.h. The daemon
	 * calls pool_timers() at this env_mono_ms(); a later wish replaces it. */
	void (*wake_at)(void *data, int64_t mono_ms);
	/* To this host's executor; -ENOTCONN when it is away. */
	int (*executor_send)(void *data, const struct value *msg);
	/* A call to another host's front end (see rpc/client.h). fingerprint may
	 * be NULL. */
	void (*remote_call)(void *data, const char *address, const char *method,
			    struct value **params, unsigned n_params,
			    const char *fingerprint, pool_remote_cb cb,
			    void *cb_data);
	/* Raft membership, serving leader only; -EBUSY: one at a time. */
	int (*member_add)(void *data, uint64_t id, const char *peer_address,
			  pool_done_cb cb, void *cb_data);
	int (*member_assign)(void *data, uint64_t id, int db_role,
			     pool_done_cb cb, void *cb_data);
	int (*member_remove)(void *data, uint64_t id, pool_done_cb cb, void *cb_data);
	int (*transfer)(void *data, uint64_t id, pool_done_cb cb, void *cb_data);
	/* db_role of a member in the Raft configuration, -1 if it has none. */
	int (*member_role)(void *data, uint64_t id);
	/* It has lost its log: to be removed, and added again once it is not
	 * lost any more (db_member_lost()). The hook may be NULL. */
	bool (*member_lost)(void *data, uint64_t id);
	/* The hook may be NULL. */
	enum pool_absence (*absence)(void *data);
	bool (*member_alive)(void *data, uint64_t id, int64_t within_ms);
	/* How old the store may be, ms (db_age_ms()). The hook may be NULL. */
	int64_t (*age_ms)(void *data);
	/* Leave our own pool and start again as a member of another: forget the
	 * old data folder (moved aside), trust these members ([{raft_id,
	 * peer_address, fingerprint}] as a set of structs), wait to be added. */
	void (*become_member)(void *data, const struct value *members);
	/* What the database knows of itself, as JSON (see pool/status.h); the
	 * caller frees it. The hook may be NULL. */
	char *(*status)(void *data);
	/* What else the project's tools ask for by name (pool/tools.h), on worker
	 * threads; cb comes once, perhaps at once. False: no such function. The
	 * hook may be NULL. */
	bool (*tool)(void *data, const char *fn, const struct value *args,
		     pool_tool_cb cb, void *cb_data);
	/* A stream to the console of a VM that is on this host, vm "": of the
	 * host itself. raw: a text console as it is, not as RFB. cb comes once,
	 * perhaps at once. The hook may be NULL. */
	void (*console)(void *data, const char *vm, bool raw,
			pool_console_cb cb, void *cb_data);
};

struct pool_config {
	const char *host_uuid;
	const char *address;       /* management address of this host */
	unsigned https_port;
	const char *peer_address;  /* address:port of its Raft port */
	const char *certificate;   /* PEM */
	const char *fingerprint;   /* SHA-256 hex */
	const char *hostname;
	const char *version;       /* the product's */
	const char *first_password; /* for root, used when the pool is created */
	unsigned login_delay_ms;   /* after a wrong password */
	unsigned host_dead_after_ms;
	/* From a start to the next one that the guest brings about. */
	unsigned restart_gap_s;
	const char *image_dir;     /* where suspend images go (a path text) */
};

/* NULL when a module cannot start (told in the log). */
struct pool *pool_new(const struct pool_config *cfg, const struct pool_hooks *h);
/* Calls that have not ended are freed without an outcome. No callback of a hook
 * may come afterwards, so whoever carries out the hooks has to have stopped. */
void pool_free(struct pool *p);

/* Takes c; it ends by call_reply/call_fail at some time. */
void pool_call(struct pool *p, struct call *c);
/* After every transaction that changed something here, in order. */
void pool_changed(struct pool *p, const struct txn *t, uint64_t generation,
		  const struct change *changes, size_t n);
/* The store was replaced (snapshot): everything may have changed. */
void pool_reloaded(struct pool *p);
/* leader_id 0: nobody. is_serving: it is us, and we may sequence. */
void pool_leader(struct pool *p, uint64_t leader_id, bool is_serving);
void pool_timers(struct pool *p);
void pool_executor_message(struct pool *p, const struct value *msg);
void pool_executor_connected(struct pool *p, bool up);

/* Posts a message on the pool. id: several members post it, once in all; NULL:
 * this one alone. */
void pool_alarm(struct pool *p, const uint8_t id[TXN_ID_LEN], const char *name,
		int priority, const char *text);

/* Names of all custom messages without a handler, for `xenpoolctl api`; the
 * i-th, NULL at the end. */
const char *pool_missing_message(size_t i);

/* A setting of the whole pool's membership, a key of pool.other_config: what is in
 * force, and what would be if it were not set (or to nonsense). */
struct pool_setting {
	const char *key;
	int64_t value, def;
};
bool pool_setting(const struct pool *p, size_t i,
		  struct pool_setting *ret); /* false: no more */

#endif
