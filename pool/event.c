/* event.from and event.inject: waiting for changes.
 *
 * A waiting call hangs in the list of each class that it subscribes to, so a
 * change costs the number of calls that it concerns. It does not answer at
 * once: 50 ms let the changes of one operation come together. Calls for tasks
 * only (clients that wait for one to end) are answered right away, but at most
 * every 50 ms.
 */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "pool/event.h"

#define BATCH_MS 50
#define MAX_TIMEOUT_S 86400
#define SWEEP_MS 10000
#define SWEEPS_A_HEARTBEAT 3

struct ref_waits {
	struct list list;
	struct value *ref;
};

struct wait_link {
	struct list in;
	struct from_wait *wait;
	struct ref_waits *ref; /* NULL: a class's list */
};

struct from_wait {
	struct req *r;
	struct event_session *session;
	struct event_subs subs;
	uint64_t since, messages_since;
	int64_t deadline_ms, read_ms;
	struct pool_timer timer;
	bool woken;
	struct list in_all, in_session;
	size_t n_links;
	struct wait_link *links;
};

/* ---- sessions ---- */

struct event_session *event_session_find(const struct pool *p, const char *ref)
{
	return map_getz(&p->events->sessions, ref);
}

struct event_session *event_session_get(struct pool *p, const char *ref)
{
	struct event_session *es = event_session_find(p, ref);

	if (es)
		return es;
	es = xcalloc(1, sizeof *es);
	strncpy(es->ref, ref, sizeof es->ref - 1);
	list_init(&es->waits);
	map_put(&p->events->sessions, es->ref, strlen(es->ref), es);
	return es;
}

void event_session_put(struct pool *p, struct event_session *es)
{
	if (es->n_calls > 0 || es->queue)
		return;
	map_del(&p->events->sessions, es->ref, strlen(es->ref));
	free(es);
}

bool event_call_begins(struct req *r, struct event_session *es)
{
	if (es->n_calls >= EVENT_CALLS_PER_SESSION) {
		req_fail(r, "TOO_MANY_PENDING_TASKS", NULL);
		return false;
	}
	es->n_calls++;
	event_sweep_on(r->pool);
	return true;
}

/* ---- the lists ---- */

static struct ref_waits *ref_waits_get(struct event_state *e, struct value *ref)
{
	struct ref_waits *w = map_get(&e->by_ref, ref->s, ref->n);

	if (w)
		return w;
	w = xcalloc(1, sizeof *w);
	w->ref = value_ref(ref);
	list_init(&w->list);
	map_put(&e->by_ref, w->ref->s, w->ref->n, w);
	return w;
}

static void link_to(struct from_wait *w, struct list *list, struct ref_waits *ref)
{
	struct wait_link *l = &w->links[w->n_links++];

	l->wait = w;
	l->ref = ref;
	list_push(list, &l->in);
}

static void wait_link(struct from_wait *w)
{
	struct event_state *e = w->r->pool->events;

	w->links = xcalloc(schema_n_classes + w->subs.n_refs,
			   sizeof *w->links);
	for (unsigned i = 0; i < schema_n_classes; i++)
		if (w->subs.classes[i])
			link_to(w, &e->by_class[i], NULL);
	for (size_t i = 0; i < w->subs.n_refs; i++) {
		struct ref_waits *rw = ref_waits_get(e, w->subs.refs[i].ref);

		link_to(w, &rw->list, rw);
	}
	list_push(&e->waits, &w->in_all);
	list_push(&w->session->waits, &w->in_session);
}

static void wait_unlink(struct pool *p, struct from_wait *w)
{
	for (size_t i = 0; i < w->n_links; i++) {
		struct ref_waits *rw = w->links[i].ref;

		list_remove(&w->links[i].in);
		if (rw && list_empty(&rw->list)) {
			map_del(&p->events->by_ref, rw->ref->s, rw->ref->n);
			value_unref(rw->ref);
			free(rw);
		}
	}
	list_remove(&w->in_all);
	list_remove(&w->in_session);
}

static void wait_free(struct pool *p, struct from_wait *w)
{
	pool_timer_cancel(p, &w->timer);
	wait_unlink(p, w);
	w->session->n_calls--;
	event_session_put(p, w->session);
	event_subs_deinit(&w->subs);
	free(w->links);
	free(w);
}

/* ---- waiting ---- */

static void from_reply(struct from_wait *w, struct value *events)
{
	struct req *r = w->r;
	uint64_t now = store_generation(req_store(r));
	uint64_t token = now;

	/* A local copy that lags behind the token must not take the client
	 * back; a current one that does has lost its data and must. */
	if (r->reads_local)
		token = MAX(now, w->since);
	wait_free(r->pool, w);
	req_reply(r, value_struct_of(
		"events", events ? events : value_set_empty(),
		"valid_ref_counts", event_ref_counts(r->pool),
		"token", event_token(token, token), NULL));
}

static void from_invalid(struct from_wait *w)
{
	struct req *r = w->r;

	wait_free(r->pool, w);
	req_fail(r, "SESSION_INVALID", value_str(r->call->session), NULL);
}

static void arm_until(struct from_wait *w, int64_t at_ms)
{
	int64_t now = env_mono_ms();

	pool_timer_arm(w->r->pool, &w->timer, MIN(at_ms, w->deadline_ms) - now);
}

static void from_read(struct from_wait *w)
{
	struct value *events = event_collect(w->r->pool, &w->subs, w->since,
					     w->messages_since);

	w->woken = false;
	w->read_ms = env_mono_ms();
	if (events || w->read_ms >= w->deadline_ms)
		from_reply(w, events);
	else
		arm_until(w, w->deadline_ms);
}

static void on_from_timer(struct pool *p, void *data)
{
	struct from_wait *w = data;

	if (atomic_load(&w->r->call->gone))
		from_reply(w, NULL);
	else
		from_read(w);
}

static void from_wake(struct from_wait *w)
{
	int64_t now = env_mono_ms();

	if (w->woken)
		return;
	w->woken = true;
	arm_until(w, w->subs.only_tasks ? MAX(now, w->read_ms + BATCH_MS) :
					  now + BATCH_MS);
}

static int64_t timeout_ms(double seconds)
{
	if (!(seconds <= MAX_TIMEOUT_S)) /* NaN too */
		return MAX_TIMEOUT_S * 1000LL;
	return seconds > 0 ? (int64_t)(seconds * 1000) : 0;
}

static struct from_wait *from_begin(struct req *r, struct event_subs *subs)
{
	struct from_wait *w = xcalloc(1, sizeof *w);

	w->r = r;
	w->subs = *subs;
	w->read_ms = env_mono_ms() - BATCH_MS;
	w->deadline_ms = env_mono_ms() + timeout_ms(req_arg(r, 2)->d);
	pool_timer_init(&w->timer, on_from_timer, w);
	return w;
}

static void event_from(struct req *r)
{
	const char *session = value_str(r->call->session);
	struct event_session *es;
	struct event_subs subs;
	uint64_t since, messages;
	struct from_wait *w;
	struct value *error;

	if (!event_token_parse(req_arg(r, 1), &since, &messages)) {
		req_fail(r, "EVENT_FROM_TOKEN_PARSE_FAILURE", req_arg_str(r, 1),
			 NULL);
		return;
	}
	error = event_subs_parse(req_arg(r, 0), &subs);
	if (error) {
		req_fail_value(r, error);
		return;
	}
	es = event_session_get(r->pool, session);
	if (!event_call_begins(r, es)) {
		event_subs_deinit(&subs);
		return;
	}
	w = from_begin(r, &subs);
	w->session = es;
	w->since = since;
	w->messages_since = messages;
	wait_link(w);
	req_park(r);
	if (since == 0 || w->subs.only_tasks || w->deadline_ms <= env_mono_ms())
		from_read(w);
	else
		arm_until(w, env_mono_ms() + BATCH_MS);
}

/* ---- inject ---- */

static void injected(struct req *r, const struct txn_result *result)
{
	/* The touch took two generations: the one before its own has never
	 * been anybody's token. */
	req_reply(r, event_token(result->generation - 1, 0));
}

static void event_inject(struct req *r)
{
	const struct value *name = req_arg(r, 0), *ref = req_arg(r, 1);
	const struct class_def *c = schema_class(name->s, name->n);
	struct txn *t;

	if (!c || c->flags & CLASS_PRIVATE || !(c->flags & CLASS_STORED) ||
	    !store_get_class(req_store(r), c->id, value_str(ref))) {
		req_fail(r, "HANDLE_INVALID", value_str(name), value_str(ref),
			 NULL);
		return;
	}
	t = req_txn(r);
	txn_touch(t, value_str(ref));
	req_commit_then(r, t, injected);
}

/* ---- changes ---- */

static void wake_list(struct list *list)
{
	list_for_each(it, list)
		from_wake(list_entry(it, struct wait_link, in)->wait);
}

static void event_changed(struct pool *p, const struct change *c)
{
	const struct record *row = c->after ? c->after : c->before;
	struct event_state *e = p->events;
	struct ref_waits *rw;

	if (c->cls->id == CLASS_session && c->kind == CHANGE_DEL)
		event_session_gone(p, value_str(row->ref));
	if (!event_class(c->cls))
		return;
	e->changed[c->cls->id] = true;
	e->any_changed = true;
	if (e->n_queues > 0)
		event_queue_changed(p, c);
	rw = e->by_ref.count ? map_get(&e->by_ref, row->ref->s, row->ref->n) :
			       NULL;
	if (rw)
		wake_list(&rw->list);
}

static void event_applied(struct pool *p, uint64_t generation)
{
	struct event_state *e = p->events;

	if (!e->any_changed)
		return;
	for (unsigned i = 0; i < schema_n_classes; i++)
		if (e->changed[i])
			wake_list(&e->by_class[i]);
	memset(e->changed, 0, sizeof e->changed);
	e->any_changed = false;
}

void event_session_gone(struct pool *p, const char *ref)
{
	struct event_session *es = event_session_find(p, ref);

	if (!es)
		return;
	es->n_calls++; /* keeps it while its calls end */
	while (!list_empty(&es->waits))
		from_invalid(list_entry(es->waits.next, struct from_wait,
					in_session));
	if (es->queue)
		event_queue_drop(p, es);
	es->n_calls--;
	event_session_put(p, es);
}

/* Replaced by a snapshot, the store may lack sessions, and has changes that no
 * queue has seen. */
static void event_reloaded(struct pool *p)
{
	struct event_state *e = p->events;
	struct event_session *es;
	size_t i = 0;

	event_cache_clear(p);
	value_unref(TAKE_PTR(e->counts));
	while ((es = map_next(&e->sessions, &i))) {
		if (!session_find(p, es->ref)) {
			event_session_gone(p, es->ref);
			continue;
		}
		event_queue_lost(es);
	}
	list_for_each(it, &e->waits)
		from_wake(list_entry(it, struct from_wait, in_all));
}

/* ---- calls whose clients have gone, and the heartbeat of event.next ---- */

void event_sweep_on(struct pool *p)
{
	if (p->events->sweep.heap_index == SIZE_MAX)
		pool_timer_arm(p, &p->events->sweep, SWEEP_MS);
}

static void on_sweep(struct pool *p, void *data)
{
	struct event_state *e = p->events;
	bool heartbeat = ++e->sweeps % SWEEPS_A_HEARTBEAT == 0;
	struct event_session *es;
	size_t i = 0;

	event_cache_clear(p); /* it keeps old rows in memory */
	list_for_each_safe(it, &e->waits) {
		struct from_wait *w = list_entry(it, struct from_wait, in_all);

		if (atomic_load(&w->r->call->gone))
			from_reply(w, NULL);
	}
	while ((es = map_next(&e->sessions, &i)))
		if (es->queue)
			event_queue_sweep(p, es, heartbeat);
	if (e->sessions.count > 0)
		event_sweep_on(p);
}

/* ---- the module ---- */

static int event_init(struct pool *p)
{
	struct event_state *e = xcalloc(1, sizeof *e);

	xassert(schema_n_classes <= EVENT_CLASSES);
	list_init(&e->waits);
	for (unsigned i = 0; i < EVENT_CLASSES; i++)
		list_init(&e->by_class[i]);
	map_init(&e->by_ref);
	map_init(&e->sessions);
	pool_timer_init(&e->sweep, on_sweep, NULL);
	p->events = e;
	return 0;
}

static void event_free(struct pool *p)
{
	struct event_state *e = p->events;
	struct event_session *es;
	size_t i = 0;

	if (!e)
		return;
	list_for_each_safe(it, &e->waits)
		wait_free(p, list_entry(it, struct from_wait, in_all));
	while ((es = map_next(&e->sessions, &i))) {
		event_queue_free(p, es);
		es->n_calls = 0;
		event_session_put(p, es);
	}
	map_deinit(&e->by_ref);
	map_deinit(&e->sessions);
	event_cache_clear(p);
	value_unref(e->counts);
	free(e);
	p->events = NULL;
}

const struct pool_module event_module = {
	.name = "event",
	.init = event_init,
	.free = event_free,
	.changed = event_changed,
	.applied = event_applied,
	.reloaded = event_reloaded,
};

const struct handler_def event_handlers[] = {
	{ M_event_from, event_from },
	{ M_event_inject, event_inject },
	{ M_event_register, event_register },
	{ M_event_unregister, event_unregister },
	{ M_event_next, event_next },
	{ M_event_get_current_id, event_get_current_id },
	{ -1, NULL },
};
