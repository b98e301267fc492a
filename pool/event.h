/* Events: what event.c (waiting), event_subs.c (who wants what), event_from.c
 * (what has happened since) and event_next.c (the old queue) share.
 */
#ifndef POOL_EVENT_H
#define POOL_EVENT_H

#include "pool/core.h"

#define EVENT_CLASSES 128 /* at least schema_n_classes */

/* ---- event_subs.c ---- */
struct event_subs {
	bool classes[EVENT_CLASSES];
	bool any_class;
	bool only_tasks; /* and something at all */
	struct event_sub_ref {
		int cls;
		struct value *ref;
	} *refs; /* of classes that are not subscribed to as a whole */
	size_t n_refs;
};

/* True if rows of the class give events to clients. */
bool event_class(const struct class_def *c);
/* names: a set of strings. NULL on success, else the error. */
struct value *event_subs_parse(const struct value *names, struct event_subs *ret);
void event_subs_deinit(struct event_subs *s);
bool event_subs_match(const struct event_subs *s, int cls,
		      const struct value *ref);

/* ---- event_from.c ---- */
enum event_op { EVENT_ADD, EVENT_MOD, EVENT_DEL };
/* snapshot may be NULL; takes id and timestamp. */
struct value *event_value(struct value *id, struct value *timestamp,
			  const struct class_def *cls, enum event_op op,
			  struct value *ref, struct record *snapshot);
/* Events since the generations, NULL if there are none. Clients that ask the
 * same share the answer. */
struct value *event_collect(struct pool *p, const struct event_subs *subs,
			    uint64_t since, uint64_t messages_since);
void event_cache_clear(struct pool *p);
/* Rows of each public class; cached until the generation changes. */
struct value *event_ref_counts(struct pool *p);
bool event_token_parse(const struct value *token, uint64_t *ret,
		       uint64_t *ret_messages);
struct value *event_token(uint64_t generation, uint64_t messages);

/* ---- event.c ---- */
struct event_session {
	char ref[REF_LEN + 1];
	struct list waits; /* event.from calls */
	unsigned n_calls;  /* of both kinds that wait */
	struct event_queue *queue; /* event_next.c's; NULL: not registered */
};

/* The last answer and what was asked; only subscriptions to whole classes. */
struct event_cache {
	struct value *events; /* NULL: nothing is cached */
	uint64_t since, messages_since, generation;
	bool classes[EVENT_CLASSES];
};

struct event_state {
	struct list waits;                  /* all event.from calls */
	struct list by_class[EVENT_CLASSES];
	struct map by_ref;                  /* ref -> struct ref_waits */
	struct map sessions;                /* ref -> struct event_session */
	bool changed[EVENT_CLASSES];        /* by the transaction in hand */
	bool any_changed;
	struct pool_timer sweep;
	unsigned sweeps;
	struct value *counts;
	uint64_t counts_at;
	struct event_cache cache;
	uint64_t serial; /* of event.next */
	size_t n_queues;
};

struct event_session *event_session_get(struct pool *p, const char *ref);
struct event_session *event_session_find(const struct pool *p, const char *ref);
/* Frees it when nothing waits and nothing is registered. */
void event_session_put(struct pool *p, struct event_session *es);
#define EVENT_CALLS_PER_SESSION 256
/* False after failing the request: the session has too many calls waiting. */
bool event_call_begins(struct req *r, struct event_session *es);
void event_sweep_on(struct pool *p);

/* ---- event_next.c ---- */
void event_register(struct req *r);
void event_unregister(struct req *r);
void event_next(struct req *r);
void event_get_current_id(struct req *r);
void event_queue_changed(struct pool *p, const struct change *c);
void event_queue_sweep(struct pool *p, struct event_session *es, bool heartbeat);
void event_queue_lost(struct event_session *es);
/* Fails the calls that wait for it (with SESSION_INVALID) and frees it. */
void event_queue_drop(struct pool *p, struct event_session *es);
void event_queue_free(struct pool *p, struct event_session *es);

#endif
