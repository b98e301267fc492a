/* What the files of the pool's core share: the life of a request, sessions,
 * roles, tasks, the generic verbs. Handlers of objects need req.h only.
 */
#ifndef POOL_CORE_H
#define POOL_CORE_H

#include "pool/req.h"

/* ---- error.c: [code, params...] values, owned by the caller ---- */
struct value *error_handle_invalid(int cls, const char *ref);
struct value *error_internal(const char *fmt, ...) _printf_(1, 2);
/* Of a transaction or barrier that nobody answered. */
struct value *error_of_errno(const struct pool *p, int error);
/* Of a transaction's refusal that running the handler again did not explain. */
struct value *error_of_txn(const struct req *r, const struct txn_result *result);

/* ---- timer.c ---- */
struct timer_heap *timer_heap_new(void);
void timer_heap_free(struct timer_heap *h);
void timer_heap_run(struct pool *p);
void timer_heap_hold(struct pool *p, bool hold); /* no wishes meanwhile */

/* ---- req.c: a request's life ---- */
enum req_step {
	REQ_ARRIVED,   /* waits until the store is fresh enough */
	REQ_ADOPTING,  /* the Async task is being written */
	REQ_RUNNING,   /* in its handler, or just about to be */
	REQ_READY,     /* on the list of those that run next */
	REQ_COMMITTING,
	REQ_IN_JOB,    /* sync call: its job's task goes on */
	REQ_WAITING,   /* for an object */
	REQ_PARKED,
	REQ_ENDING,    /* Async: the task's end is being written */
};

struct req_own {
	struct req r; /* first: a req is one of these */
	enum req_step step;
	void (*next)(struct req *r); /* what REQ_READY or the timer goes on with */
	struct pool_timer timer;
	struct list in_ready, in_key;
	struct req_key *key;      /* the ref it waits for */
	struct value *wait_error; /* what waiting in vain ends with */
	struct value *result;     /* of a commit under way */
	struct value *error;      /* Async: what the task shall end with */
	void (*committed)(struct req *r, const struct txn_result *result);
	/* While the handler runs: it may end the request and look at it still,
	 * so the end comes after its return. */
	bool in_handler, has_outcome, is_freed;
	struct value *end_result, *end_error;
	const struct txn *task_in; /* the txn that creates the task */
	unsigned conflicts, misses;
	int64_t backoff_ms;
	void (*fresh)(struct req *r); /* what REQ_ARRIVED goes on with */
	bool no_barrier; /* none was wanted */
	bool trial; /* no barrier yet: only what is committed counts */
	bool by_task; /* is in the map of requests by task */
	bool cancelled;
};

static inline struct req_own *req_own(struct req *r)
{
	return (struct req_own *)r;
}

void req_begin(struct pool *p, struct call *takes_c);
/* Commits t; committed() must end the request (reply, fail, ...). For results
 * that depend on the generation of the change. */
void req_commit_then(struct req *r, struct txn *takes_t,
		     void (*committed)(struct req *r,
				       const struct txn_result *result));
/* Some request here works for this task. */
bool req_owns_task(const struct pool *p, const char *task_ref);
size_t req_count(const struct pool *p);
extern const struct pool_module req_module;

/* Runs the handler again after a time: for a request that would park. */
void req_again_after(struct req *r, int64_t ms);

/* ---- req_*.c: between the files of requests only ---- */
struct req_state {
	struct list all, ready;
	struct list behind; /* those that wait for a generation */
	struct pool_timer run_ready;
	struct map waits;   /* ref -> struct req_key */
	struct map by_task; /* task ref -> struct req_own */
	size_t n;
	req_handler *handlers; /* by method number */
};
void req_set_ready(struct req *r, void (*next)(struct req *r));
void req_run(struct req *r);
void req_free(struct req *r);
/* Carries out what the handler ended with. */
void req_end_handler(struct req *r);
void req_unwait(struct req_own *o);
void req_wake(struct pool *p, const char *ref);
void req_index_task(struct req_own *o);
bool req_needs_session(const struct call *c);
/* Goes on with fresh(), now or later, when the store is as fresh as the call
 * wants it, or fails the request. */
void req_when_fresh(struct req *r, void (*fresh)(struct req *r));
void req_generation_reached(struct pool *p, uint64_t generation);
/* Takes the barrier after all and begins again. */
void req_end_trial(struct req *r);
/* Writes what the reply shall tell of the store into c. */
void req_tell(const struct req *r, struct call *c);
/* Writes the Async task, answers the caller with it, goes on with req_run. */
void req_adopt(struct req *r);
/* No more tasks may begin: their clients hold no connection that would bound
 * them. */
bool req_tasks_full(const struct req *r);
/* The Async task is still pending (nobody has cancelled it). */
bool req_task_is_pending(const struct req *r);
/* Ends the task with o->result or o->error, for as long as it takes, and then
 * frees the request. */
void req_end_task(struct req *r);
void req_end_task_after(struct req *r, int64_t ms);
/* The outcome of a sync call whose job's task has ended. */
void req_end_job(struct req *r);
void req_task_changed(struct pool *p, const char *ref, const struct record *row);

/* ---- session.c ---- */
extern const struct handler_def session_handlers[];
extern const struct pool_module session_module;
/* The session's row (borrowed), from the store or this host's memory. */
struct record *session_find(const struct pool *p, const char *ref);
bool session_is_local(const struct pool *p, const char *ref);
/* Notes that the session is in use (at most one write in 10 minutes). */
void session_touch(struct pool *p, const struct record *session);

/* ---- credential.c ---- */
/* Adds the creation of a user's password hash to t. */
void credential_create(struct txn *t, const char *name, const char *hash);
/* NULL if there is none. */
struct record *credential_find(const struct pool *p, const char *name);
/* Hashes cfg.first_password; cb gets the hash for credential_create(). */
void session_hash_first_password(struct pool *p, pool_password_cb cb, void *data);

/* ---- rbac.c ---- */
/* The field whose map keys a call of m touches (add_to_, remove_from_, generated
 * or custom); NULL if keys play no part. */
const struct field_def *rbac_keyed_field(const struct method_def *m);
/* Permission that a call of m with these arguments needs. */
void rbac_permission(const struct method_def *m, struct value *const *args,
		     unsigned n_args, struct buf *ret);
/* NULL if allowed, else the error. */
struct value *rbac_check(const struct record *session, const struct method_def *m,
			 struct value *const *args, unsigned n_args);
/* NULL, or the error of a map's guarded key that a caller without its role would
 * add, change or remove by writing the field whole. A key that stays as it is may
 * stay. before NULL: the object is made. session NULL: nobody is asked. */
struct value *rbac_map_error(const struct record *session,
			     const struct class_def *c, unsigned field,
			     const struct value *before,
			     const struct value *after);
bool rbac_may(const struct record *session, const char *permission);
struct value *rbac_denied(const char *permission);

/* ---- role.c ---- */
/* Role and permission objects are the same on every member and for ever: they
 * are made once and are in no store. All borrowed, immutable. */
size_t role_count(void);
struct record *role_at(size_t i);
struct record *role_by_ref(const char *ref);
struct record *role_by_uuid(const char *uuid);
struct record *role_by_name(const char *name); /* of a role or permission */
/* Names of the roles that hold the permission, highest first. Owned. */
struct value *role_names_with(const char *permission);
extern const struct handler_def role_handlers[];

/* ---- rows.c: rows of any class, stored or virtual (role) ---- */
struct rows {
	const struct store *store;
	int cls;
	size_t i;
	struct record *r;
};
struct rows rows_of(const struct store *s, int cls);
struct record *rows_next(struct rows *it); /* NULL at the end */
size_t rows_count(const struct store *s, int cls);
struct record *row_get(const struct store *s, int cls, const char *ref);
struct record *row_by_uuid(const struct store *s, int cls, const char *uuid);
struct value *row_by_name(const struct store *s, int cls, const char *name);
/* row_create() with a ref of the caller's. */
void row_create_as(struct txn *t, int cls, const char *uuid_or_null,
		   const char *ref);

/* ---- member_setting.c ---- */
/* Settings of the whole pool, in pool.other_config: how many voters at most (3 or
 * 5; 5), and after how many seconds of silence one of them is replaced
 * (--host-dead-after). */
enum member_setting { MEMBER_VOTERS, MEMBER_REPLACE_AFTER };
/* NULL: the key is none of these, or its value is good. */
struct value *member_setting_error(const char *key, const struct value *v);
/* As it is in force: pool_setting() of pool.h. */
int64_t member_setting(const struct pool *p, enum member_setting which);

/* ---- generic.c ---- */
extern const req_handler generic_handlers[METHOD_KIND_MAX];

/* ---- where.c ---- */
struct where;
/* NULL and a reason when the expression is malformed. */
struct where *where_parse(const struct class_def *cls, const char *text,
			  size_t n, char *reason, size_t reason_size);
void where_free(struct where *w);
void where_freep(struct where **w);
bool where_match(const struct where *w, const struct record *r);

/* ---- task.c ---- */
extern const struct handler_def task_handlers[];
extern const struct pool_module task_module;
/* Adds to t the creation of a pending task. session, host may be NULL. */
void task_create(struct txn *t, const char *ref, const char *label,
		 const char *description, const struct record *session,
		 const struct record *host, bool works_here);
bool task_has_ended(const struct record *task);
/* current_operations holds the word (cancel, destroy). */
bool task_is_asked_to(const struct record *task, const char *word);
/* Implemented with the jobs: a job of this task should end early. */
void job_cancel_requested(struct pool *p, const char *task_ref);

/* ---- result.c ---- */
/* The value whose text this is, coerced to type; NULL if it is none. */
struct value *task_result_value(const struct type *type, const struct value *text);

/* ---- event.c, message.c ---- */
extern const struct handler_def event_handlers[];
extern const struct pool_module event_module;
/* Blocked calls of the session end; what it registered for goes. */
void event_session_gone(struct pool *p, const char *session_ref);
extern const struct handler_def message_handlers[];
/* Adds the removal of the oldest messages over the limit to t. */
void message_collect(const struct pool *p, struct txn *t, unsigned at_most);

#endif
