/* One call while the pool works on it, and the tools that every handler uses.
 * Internal to pool/.
 *
 * A handler runs on the core thread. It reads the store (which is at least as
 * new as anything acknowledged before the call came: the read barrier is taken
 * before it runs), checks, and ends in exactly one of
 *     req_reply   the result is known, nothing to write
 *     req_fail    an API error
 *     req_commit  one transaction carries out the whole effect, then reply
 *     req_start_job  the same, but the reply waits for a job's task to end
 *     req_wait    some object is busy: run the handler again when it changes
 *     req_park    the handler has arranged to go on by itself (callbacks)
 * When a guard of a committed transaction did not hold, the handler simply runs
 * again from its start on the newer store: handlers keep no state between runs
 * except r->memo.
 */
#ifndef POOL_REQ_H
#define POOL_REQ_H

#include "base/list.h"
#include "base/text.h"
#include "pool/pool.h"
#include "schema/gen/schema_ids.h"

struct req {
	struct pool *pool;
	struct call *call;
	const struct method_def *method;
	struct record *session; /* NULL for calls without one; own reference */
	struct record *task;    /* ref of the task, for Async or jobs: below */
	char task_ref[REF_LEN + 1]; /* "" while there is none */
	bool task_is_async;     /* the caller has got the ref already */
	bool reads_local;       /* runs on this member's copy as it is */
	unsigned runs;          /* how often the handler has run */
	int64_t deadline_ms;    /* env_mono_ms() after which waiting ends */
	struct value *memo;     /* handler's own memory between runs */
	struct list link;       /* pool's */
	void *priv;
};

typedef void (*req_handler)(struct req *r);

/* The table of all custom handlers: one array a file, ended by a NULL name,
 * listed in pool/handlers.c. */
struct handler_def {
	int method; /* M_VM_start */
	req_handler fn;
};
extern const struct handler_def *const pool_handlers[];

/* NOT_IMPLEMENTED, for generated calls whose rows would do nothing; these count
 * as missing (pool_missing_message()). */
void req_not_implemented(struct req *r);

/* ---- arguments (after coercion, so types are right) ---- */
struct value *req_arg(const struct req *r, unsigned i); /* borrowed */
const char *req_arg_str(const struct req *r, unsigned i);
int64_t req_arg_int(const struct req *r, unsigned i);
bool req_arg_bool(const struct req *r, unsigned i);
/* The record that argument i refers to; NULL after req_fail(HANDLE_INVALID). */
struct record *req_arg_record(struct req *r, unsigned i, int cls);

const struct store *req_store(const struct req *r);

/* ---- endings ---- */
void req_reply(struct req *r, struct value *takes_result);
void req_fail(struct req *r, const char *code, ...); /* strings, NULL */
void req_fail_value(struct req *r, struct value *takes_error);
/* A transaction with the call's author set. */
struct txn *req_txn(const struct req *r);
/* Takes both. An empty transaction replies at once. Re-runs the handler on
 * TXN_CONFLICT; TXN_DUPLICATE_KEY becomes MAP_DUPLICATE_KEY, TXN_NO_OBJECT
 * HANDLE_INVALID. */
void req_commit(struct req *r, struct txn *t, struct value *result);
/* Gives the request a task ref (creates it in t when there is none yet) and
 * returns it, borrowed. For operations that put themselves into
 * current_operations or start jobs. A task made for a sync call disappears when
 * the call ends. */
const char *req_task(struct req *r, struct txn *t);
/* Commits t (which created a job that carries req_task()), then waits for that
 * task to end and replies with its result or error. An Async call has been
 * answered before; this only ends the request. */
void req_start_job(struct req *r, struct txn *t);
/* Run the handler again when the object changes (or 20 s pass); fails with the
 * given error (taken) once the request's deadline (2 h; "fail quickly" ops
 * less) is over or the client has gone. */
void req_wait(struct req *r, const char *ref, struct value *takes_error);
void req_park(struct req *r);
/* Runs the handler again from its start: how a parked request goes on. */
void req_again(struct req *r);

/* ---- RBAC ---- */
bool req_is_root(const struct req *r);
/* For checks beyond the method's own (already done): permission in the
 * session? */
bool req_may(const struct req *r, const char *permission);
/* For handlers that write a map whole: false, and the request has failed, when
 * the caller may not touch a key that differs. The transaction must guard row. */
bool req_may_set_map(struct req *r, const struct record *row, unsigned field,
		     const struct value *after);

/* ---- timers (env_mono_ms) and background transactions ---- */
typedef void (*pool_timer_fn)(struct pool *p, void *data);
struct pool_timer {
	int64_t at_ms;
	pool_timer_fn fn;
	void *data;
	size_t heap_index; /* SIZE_MAX: not armed */
};
void pool_timer_init(struct pool_timer *t, pool_timer_fn fn, void *data);
void pool_timer_arm(struct pool *p, struct pool_timer *t, int64_t after_ms);
void pool_timer_cancel(struct pool *p, struct pool_timer *t);

/* Submits for the daemon itself (no call). cb may be NULL. */
void pool_submit(struct pool *p, struct txn *takes_t, pool_txn_cb cb, void *data);

/* ---- watching changes inside the pool: modules that react to applied
 * transactions, in this order, each with its own state in struct pool ---- */
struct pool_module {
	const char *name;
	int (*init)(struct pool *p);
	void (*free)(struct pool *p);
	void (*changed)(struct pool *p, const struct change *c);
	void (*applied)(struct pool *p, uint64_t generation); /* once a txn */
	void (*reloaded)(struct pool *p);
	void (*leader)(struct pool *p);
	void (*executor_message)(struct pool *p, const struct value *msg);
	void (*executor_connected)(struct pool *p, bool up);
};
extern const struct pool_module *const pool_modules[]; /* handlers.c */

struct pool {
	struct pool_config cfg; /* strings copied and owned */
	struct pool_hooks hooks;
	uint64_t leader_id;
	bool serving;        /* this member is the serving leader */
	bool executor_up;
	struct timer_heap *timers;
	/* Each module's own state. */
	struct req_state *reqs;
	struct session_state *sessions;
	struct task_state *tasks;
	struct event_state *events;
	struct vm_state *vms;
	struct job_state *jobs;
	struct host_state *hosts;
	struct guest_state *guests;
	struct member_state *members;
	struct console_state *consoles;
};

/* This host's row; NULL before it exists. */
struct record *pool_this_host(const struct pool *p);
/* The pool row; NULL before it exists. */
struct record *pool_row(const struct pool *p);
/* The host row of the current leader; NULL if unknown. */
struct record *pool_master(const struct pool *p);
struct record *host_of_raft_id(const struct pool *p, uint64_t id);
/* True when the host is this one, or was heard from lately (leader's view;
 * other members use host_metrics.live). */
bool host_is_live(const struct pool *p, const struct record *host);

/* Adds to t the creation of a row: every field at its default, then the given
 * ones by txn_set. uuid is made unless given. ret_ref gets the ref. */
void row_create(struct txn *t, int cls, const char *uuid_or_null,
		char ret_ref[REF_LEN + 1]);

/* Ends a task inside t: success with result (NULL: void), failure with error.
 * Takes the values. Does nothing when the task is gone or has ended. */
void task_succeed(const struct pool *p, struct txn *t, const char *task_ref,
		  struct value *result);
void task_fail(const struct pool *p, struct txn *t, const char *task_ref,
	       struct value *error);
/* Result text: <value>...</value>. */
struct value *task_result_text(const struct value *v);

/* A message (alert) object inside t. */
void message_create(struct txn *t, const char *name, int priority,
		    const char *cls, const char *obj_uuid, const char *body);

#endif
