/* The part of libuv that raftdb/ uses, on simulated time: timers, prepare,
 * check and idle handles, closing, and work of a thread (which runs in the loop,
 * at a time of its own). A turn has libuv's order: timers, idle, prepare, what
 * came in, check, closing; handles of a kind run in the reverse order of their
 * start, as libuv's do.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <string.h>

#include "tests/sim/sim_run.h"

#define HANDLES_MAX 32

enum handle_state { HANDLE_IDLE = 0, HANDLE_ACTIVE = 1, HANDLE_CLOSING = 2 };

struct simloop {
	uv_handle_t *handles[HANDLES_MAX]; /* in the order of their start */
	unsigned n;
	uv_handle_t *closing[HANDLES_MAX];
	unsigned n_closing;
	struct list works;
	uint64_t starts;
};

struct work {
	struct list in_loop;
	struct simloop *loop;
	uv_work_t *req;
	uv_work_cb fn;
	uv_after_work_cb after;
	bool dropped;
};

static struct simloop *of(const uv_loop_t *loop)
{
	return loop->data;
}

int uv_loop_init(uv_loop_t *loop)
{
	struct simloop *s = xcalloc(1, sizeof *s);

	memset(loop, 0, sizeof *loop);
	list_init(&s->works);
	loop->data = s;
	return 0;
}

int uv_loop_close(uv_loop_t *loop)
{
	struct simloop *s = of(loop);

	if (s->n > 0 || s->n_closing > 0 || !list_empty(&s->works))
		return UV_EBUSY;
	free(s);
	loop->data = NULL;
	return 0;
}

void uvsim_free(uv_loop_t *loop)
{
	xassert(uv_loop_close(loop) == 0);
}

static void init(uv_loop_t *loop, uv_handle_t *h, uv_handle_type type)
{
	h->loop = loop;
	h->type = type;
	h->flags = HANDLE_IDLE;
	h->close_cb = NULL;
}

static void add(uv_handle_t *h)
{
	struct simloop *s = of(h->loop);

	xassert(!(h->flags & HANDLE_CLOSING));
	if (h->flags & HANDLE_ACTIVE)
		return;
	xassert(s->n < HANDLES_MAX);
	s->handles[s->n++] = h;
	h->flags |= HANDLE_ACTIVE;
}

static void take(uv_handle_t *h)
{
	struct simloop *s = of(h->loop);

	if (!(h->flags & HANDLE_ACTIVE))
		return;
	h->flags &= ~(unsigned)HANDLE_ACTIVE;
	for (unsigned i = 0; i < s->n; i++)
		if (s->handles[i] == h) {
			memmove(s->handles + i, s->handles + i + 1,
				(s->n - i - 1) * sizeof(h));
			s->n--;
			return;
		}
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *h)
{
	init(loop, (uv_handle_t *)h, UV_TIMER);
	return 0;
}

int uv_timer_start(uv_timer_t *h, uv_timer_cb cb, uint64_t timeout,
		   uint64_t repeat)
{
	take((uv_handle_t *)h);
	h->timer_cb = cb;
	h->timeout = (uint64_t)sim->now + timeout * MS;
	h->repeat = repeat;
	h->start_id = of(h->loop)->starts++;
	add((uv_handle_t *)h);
	return 0;
}

int uv_timer_stop(uv_timer_t *h)
{
	take((uv_handle_t *)h);
	return 0;
}

#define SIMPLE(name, NAME)                                              \
	int uv_##name##_init(uv_loop_t *loop, uv_##name##_t *h)         \
	{                                                               \
		init(loop, (uv_handle_t *)h, UV_##NAME);                \
		return 0;                                               \
	}                                                               \
	int uv_##name##_start(uv_##name##_t *h, uv_##name##_cb cb)      \
	{                                                               \
		h->name##_cb = cb;                                      \
		add((uv_handle_t *)h);                                  \
		return 0;                                               \
	}                                                               \
	int uv_##name##_stop(uv_##name##_t *h)                          \
	{                                                               \
		take((uv_handle_t *)h);                                 \
		return 0;                                               \
	}
SIMPLE(prepare, PREPARE)
SIMPLE(check, CHECK)
SIMPLE(idle, IDLE)

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
	struct simloop *s = of(h->loop);

	take(h);
	xassert(!(h->flags & HANDLE_CLOSING) && s->n_closing < HANDLES_MAX);
	h->flags |= HANDLE_CLOSING;
	h->close_cb = cb;
	s->closing[s->n_closing++] = h;
}

int uv_is_closing(const uv_handle_t *h)
{
	return (h->flags & HANDLE_CLOSING) != 0;
}

/* --- work of threads --- */

static void work_end(struct work *w)
{
	list_remove(&w->in_loop);
	w->fn(w->req);
	w->after(w->req, 0);
}

static void on_work(void *data)
{
	struct work *w = data;

	if (!w->dropped)
		work_end(w);
	free(w);
}

static void on_work_dropped(void *data)
{
	struct work *w = data;

	/* The dying loop runs it: see uvsim_drain_turn(). */
	if (w->dropped)
		free(w);
	else
		w->dropped = true;
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *req, uv_work_cb fn,
		  uv_after_work_cb after)
{
	struct work *w = xcalloc(1, sizeof *w);

	w->loop = of(loop);
	w->req = req;
	w->fn = fn;
	w->after = after;
	req->loop = loop;
	list_push(&w->loop->works, &w->in_loop);
	sim_at(sim->now + sim_spread(20 * MS), sim->cur, on_work,
	       on_work_dropped, w);
	return 0;
}

/* --- the turn --- */

static uv_timer_t *due_timer(const struct simloop *s, uint64_t now)
{
	uv_timer_t *best = NULL;

	for (unsigned i = 0; i < s->n; i++) {
		uv_timer_t *t = (uv_timer_t *)s->handles[i];

		if (t->type != UV_TIMER || t->timeout > now)
			continue;
		if (!best || t->timeout < best->timeout ||
		    (t->timeout == best->timeout &&
		     t->start_id < best->start_id))
			best = t;
	}
	return best;
}

static void run_timers(struct simloop *s, uint64_t now)
{
	uint64_t last = s->starts;
	uv_timer_t *t;

	while ((t = due_timer(s, now)) && t->start_id < last) {
		take((uv_handle_t *)t);
		if (t->repeat)
			uv_timer_start(t, t->timer_cb, t->repeat, t->repeat);
		t->timer_cb(t);
	}
}

static void run_kind(struct simloop *s, uv_handle_type type)
{
	uv_handle_t *some[HANDLES_MAX];
	unsigned n = 0;

	for (unsigned i = s->n; i-- > 0;)
		if (s->handles[i]->type == type)
			some[n++] = s->handles[i];
	for (unsigned i = 0; i < n; i++) {
		if (!(some[i]->flags & HANDLE_ACTIVE))
			continue;
		if (type == UV_PREPARE)
			((uv_prepare_t *)some[i])
				->prepare_cb((uv_prepare_t *)some[i]);
		else if (type == UV_CHECK)
			((uv_check_t *)some[i])
				->check_cb((uv_check_t *)some[i]);
		else
			((uv_idle_t *)some[i])->idle_cb((uv_idle_t *)some[i]);
	}
}

static void run_closing(struct simloop *s)
{
	uv_handle_t *some[HANDLES_MAX];
	unsigned n = s->n_closing;

	memcpy(some, s->closing, sizeof some);
	s->n_closing = 0;
	for (unsigned i = 0; i < n; i++)
		if (some[i]->close_cb)
			some[i]->close_cb(some[i]);
}

static void turn(struct simloop *s, uint64_t timers_until, struct life *l)
{
	run_timers(s, timers_until);
	run_kind(s, UV_IDLE);
	run_kind(s, UV_PREPARE);
	if (l)
		run_inbox(l);
	run_kind(s, UV_CHECK);
	run_closing(s);
}

void uvsim_turn(struct life *l)
{
	turn(of(&l->loop), (uint64_t)sim->now, l);
}

static bool alive(const struct simloop *s)
{
	return s->n > 0 || s->n_closing > 0 || !list_empty(&s->works);
}

bool uvsim_drain_turn(uv_loop_t *loop)
{
	struct simloop *s = of(loop);

	if (!alive(s))
		return false;
	/* Timers of any time: nobody waits for a dead member's clock. */
	turn(s, UINT64_MAX, NULL);
	list_for_each_safe(it, &s->works) {
		struct work *w = list_entry(it, struct work, in_loop);

		work_end(w);
		if (w->dropped)
			free(w);
		else
			w->dropped = true;
	}
	return true;
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
	while (uvsim_drain_turn(loop))
		;
	return 0;
}

int64_t uvsim_next(const uv_loop_t *loop)
{
	const struct simloop *s = of(loop);
	int64_t next = INT64_MAX;

	for (unsigned i = 0; i < s->n; i++) {
		const uv_timer_t *t = (const uv_timer_t *)s->handles[i];

		if (t->type == UV_TIMER)
			next = MIN(next, (int64_t)t->timeout);
	}
	return next;
}

bool uvsim_idle_active(const uv_loop_t *loop)
{
	const struct simloop *s = of(loop);

	for (unsigned i = 0; i < s->n; i++)
		if (s->handles[i]->type == UV_IDLE)
			return true;
	return s->n_closing > 0;
}
