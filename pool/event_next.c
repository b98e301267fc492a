/* The old way of getting events: a session registers for classes and then takes
 * every single change, in order, from a queue that this member keeps for it.
 * The queue is bounded: who falls behind gets EVENTS_LOST until it registers
 * anew.
 */
#include <inttypes.h>
#include <string.h>

#include "base/env.h"
#include "pool/event.h"

#define QUEUE_MAX_BYTES (10 << 20) /* roughly, as JSON */
#define QUEUE_MAX_EVENTS 20000
#define MAX_QUEUES 256
#define MAX_CLASSES 1024
#define DELAY_MS 200

struct event_queue {
	struct event_session *session;
	struct pool *pool;
	struct value *classes; /* as registered, a set of strings */
	struct event_subs subs;
	struct value **events;
	size_t n, cap, bytes;
	bool lost;
	struct list waits; /* struct next_wait */
	struct pool_timer timer;
};

struct next_wait {
	struct list in_queue;
	struct req *r;
};

/* ---- the queue ---- */

static size_t weight_of(const struct record *r)
{
	size_t n = 256;

	for (unsigned f = 0; f < r->cls->n_fields; f++) {
		const struct value *v = r->fields[f];
		bool holds = v->kind == VALUE_SET || v->kind == VALUE_MAP;

		n += 32 + (holds ? 64 * (size_t)v->n : v->n);
	}
	return n;
}

static void queue_clear(struct event_queue *q)
{
	for (size_t i = 0; i < q->n; i++)
		value_unref(q->events[i]);
	q->n = q->bytes = 0;
}

static void queue_push(struct event_queue *q, struct value *event, size_t weight)
{
	if (q->n >= QUEUE_MAX_EVENTS || q->bytes + weight > QUEUE_MAX_BYTES) {
		queue_clear(q);
		q->lost = true;
		value_unref(event);
		return;
	}
	if (q->n == q->cap) {
		q->cap = q->cap ? 2 * q->cap : 32;
		q->events = xrealloc(q->events, q->cap * sizeof *q->events);
	}
	q->events[q->n++] = event;
	q->bytes += weight;
}

static struct value *queue_take(struct event_queue *q)
{
	struct value *set = value_set_new(q->n);

	for (size_t i = 0; i < q->n; i++)
		set->items[i] = q->events[i];
	q->n = q->bytes = 0;
	return set;
}

static struct req *wait_end(struct event_queue *q, struct next_wait *w)
{
	struct req *r = w->r;

	list_remove(&w->in_queue);
	q->session->n_calls--;
	free(w);
	return r;
}

/* The call that has waited longest gets what there is. */
static void deliver(struct event_queue *q)
{
	while (!list_empty(&q->waits) && (q->n > 0 || q->lost)) {
		struct next_wait *w = list_entry(q->waits.next,
						 struct next_wait, in_queue);
		bool gone = atomic_load(&w->r->call->gone);
		struct req *r = wait_end(q, w);

		if (q->lost)
			req_fail(r, "EVENTS_LOST", NULL);
		else
			req_reply(r, gone ? value_set_empty() : queue_take(q));
	}
}

static void on_delay(struct pool *p, void *data)
{
	deliver(data);
}

static void deliver_soon(struct event_queue *q)
{
	if ((q->n > 0 || q->lost) && !list_empty(&q->waits) &&
	    q->timer.heap_index == SIZE_MAX)
		pool_timer_arm(q->pool, &q->timer, DELAY_MS);
}

static const enum event_op op_of[] = {
	[CHANGE_ADD] = EVENT_ADD, [CHANGE_MOD] = EVENT_MOD,
	[CHANGE_DEL] = EVENT_DEL,
};

static void push_row(struct event_queue *q, enum event_op op, struct record *row)
{
	struct event_state *e = q->pool->events;
	struct value *id, *time;

	if (q->lost || !event_subs_match(&q->subs, row->cls->id, row->ref))
		return;
	id = value_printf("%" PRIu64, e->serial);
	time = value_printf("%" PRId64 ".", env_wall_ms() / 1000);
	queue_push(q, event_value(id, time, row->cls, op, row->ref, row),
		   weight_of(row));
	deliver_soon(q);
}

void event_queue_changed(struct pool *p, const struct change *c)
{
	struct event_session *es;

	p->events->serial++;
	for (size_t i = 0; (es = map_next(&p->events->sessions, &i)); )
		if (es->queue)
			push_row(es->queue, op_of[c->kind],
				 c->after ? c->after : c->before);
}

void event_queue_lost(struct event_session *es)
{
	if (!es->queue)
		return;
	queue_clear(es->queue);
	es->queue->lost = true;
	deliver_soon(es->queue);
}

void event_queue_sweep(struct pool *p, struct event_session *es, bool heartbeat)
{
	struct record *pool = heartbeat ? pool_row(p) : NULL;
	struct event_queue *q = es->queue;

	list_for_each_safe(it, &q->waits) {
		struct next_wait *w = list_entry(it, struct next_wait, in_queue);

		if (atomic_load(&w->r->call->gone))
			req_reply(wait_end(q, w), value_set_empty());
	}
	if (!pool)
		return;
	p->events->serial++;
	push_row(q, EVENT_MOD, pool);
}

void event_queue_free(struct pool *p, struct event_session *es)
{
	struct event_queue *q = TAKE_PTR(es->queue);

	if (!q)
		return;
	pool_timer_cancel(p, &q->timer);
	list_for_each_safe(it, &q->waits)
		wait_end(q, list_entry(it, struct next_wait, in_queue));
	queue_clear(q);
	event_subs_deinit(&q->subs);
	value_unref(q->classes);
	free(q->events);
	free(q);
	p->events->n_queues--;
}

static void end_waits(struct event_queue *q, const char *code)
{
	while (!list_empty(&q->waits)) {
		struct req *r = wait_end(q, list_entry(q->waits.next,
						       struct next_wait,
						       in_queue));

		req_fail(r, code, value_str(r->call->session), NULL);
	}
}

void event_queue_drop(struct pool *p, struct event_session *es)
{
	end_waits(es->queue, "SESSION_INVALID");
	event_queue_free(p, es);
}

/* ---- calls ---- */

static struct event_queue *queue_new(struct pool *p, struct event_session *es)
{
	struct event_queue *q = xcalloc(1, sizeof *q);

	q->session = es;
	q->pool = p;
	q->classes = value_set_empty();
	list_init(&q->waits);
	pool_timer_init(&q->timer, on_delay, q);
	p->events->n_queues++;
	es->queue = q;
	event_sweep_on(p);
	return q;
}

/* The queue's classes become this set (taken). */
static void set_classes(struct event_queue *q, struct value *classes)
{
	value_unref(q->classes);
	q->classes = classes;
	event_subs_deinit(&q->subs);
	value_unref(event_subs_parse(classes, &q->subs));
}

static struct value *joined(const struct value *a, const struct value *b)
{
	struct value *set = value_set_new((size_t)a->n + b->n);

	for (unsigned i = 0; i < a->n; i++)
		set->items[i] = value_ref(a->items[i]);
	for (unsigned i = 0; i < b->n; i++)
		set->items[a->n + i] = value_ref(b->items[i]);
	return set;
}

void event_register(struct req *r)
{
	struct pool *p = r->pool;
	struct event_session *es =
		event_session_get(p, value_str(r->call->session));
	const struct value *classes = req_arg(r, 0);
	struct event_queue *q = es->queue;

	if (!q && p->events->n_queues >= MAX_QUEUES) {
		event_session_put(p, es);
		req_fail(r, "TOO_MANY_PENDING_TASKS", NULL);
		return;
	}
	if (!q)
		q = queue_new(p, es);
	if ((size_t)q->classes->n + classes->n > MAX_CLASSES) {
		req_fail(r, "EVENT_SUBSCRIPTION_PARSE_FAILURE",
			 "too many subscriptions", NULL);
		return;
	}
	set_classes(q, joined(q->classes, classes));
	req_reply(r, NULL);
}

/* Each name goes as often as it is given. */
static struct value *without(const struct value *a, const struct value *b)
{
	struct value *left = value_ref(a);

	for (unsigned i = 0; i < b->n; i++) {
		struct value *less;
		unsigned at = 0;

		while (at < left->n && !value_equal(left->items[at], b->items[i]))
			at++;
		if (at == left->n)
			continue;
		less = value_set_new(left->n - 1);
		for (unsigned k = 0; k < less->n; k++)
			less->items[k] = value_ref(left->items[k + (k >= at)]);
		value_unref(left);
		left = less;
	}
	return left;
}

void event_unregister(struct req *r)
{
	struct pool *p = r->pool;
	struct event_session *es =
		event_session_find(p, value_str(r->call->session));
	struct event_queue *q = es ? es->queue : NULL;

	if (q) {
		set_classes(q, without(q->classes, req_arg(r, 0)));
		if (q->classes->n == 0) {
			end_waits(q, "SESSION_NOT_REGISTERED");
			event_queue_free(p, es);
			event_session_put(p, es);
		}
	}
	req_reply(r, NULL);
}

void event_next(struct req *r)
{
	struct event_session *es =
		event_session_find(r->pool, value_str(r->call->session));
	struct next_wait *w;

	if (!es || !es->queue) {
		req_fail(r, "SESSION_NOT_REGISTERED",
			 value_str(r->call->session), NULL);
		return;
	}
	if (es->queue->lost) {
		req_fail(r, "EVENTS_LOST", NULL);
		return;
	}
	if (!event_call_begins(r, es))
		return;
	w = xcalloc(1, sizeof *w);
	w->r = r;
	list_push(&es->queue->waits, &w->in_queue);
	req_park(r);
	deliver_soon(es->queue);
}

void event_get_current_id(struct req *r)
{
	req_reply(r, value_int((int64_t)r->pool->events->serial));
}
