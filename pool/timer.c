/* Timers as a binary heap by time; equal times fire in the order of arming. */
#include "base/env.h"
#include "pool/core.h"

struct timer_heap {
	struct heap_slot {
		struct pool_timer *t;
		uint64_t seq;
	} *v;
	size_t n, cap;
	uint64_t seq;
	int64_t wished; /* INT64_MAX: none */
	bool held;
};

/* Timers that one pool_timers() runs before it gives others the thread. */
#define TIMER_BATCH 4096

struct timer_heap *timer_heap_new(void)
{
	struct timer_heap *h = xcalloc(1, sizeof *h);

	h->wished = INT64_MAX;
	return h;
}

void timer_heap_free(struct timer_heap *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->n; i++)
		h->v[i].t->heap_index = SIZE_MAX;
	free(h->v);
	free(h);
}

static bool slot_before(const struct heap_slot *a, const struct heap_slot *b)
{
	if (a->t->at_ms != b->t->at_ms)
		return a->t->at_ms < b->t->at_ms;
	return a->seq < b->seq;
}

static void heap_put(struct timer_heap *h, size_t i, struct heap_slot s)
{
	h->v[i] = s;
	s.t->heap_index = i;
}

static void heap_up(struct timer_heap *h, size_t i)
{
	struct heap_slot s = h->v[i];

	while (i > 0 && slot_before(&s, &h->v[(i - 1) / 2])) {
		heap_put(h, i, h->v[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(h, i, s);
}

static void heap_down(struct timer_heap *h, size_t i)
{
	struct heap_slot s = h->v[i];

	for (;;) {
		size_t c = 2 * i + 1;

		if (c >= h->n)
			break;
		if (c + 1 < h->n && slot_before(&h->v[c + 1], &h->v[c]))
			c++;
		if (!slot_before(&h->v[c], &s))
			break;
		heap_put(h, i, h->v[c]);
		i = c;
	}
	heap_put(h, i, s);
}

static void heap_remove(struct timer_heap *h, size_t i)
{
	struct heap_slot last = h->v[--h->n];

	if (i == h->n)
		return;
	heap_put(h, i, last);
	heap_up(h, i);
	heap_down(h, last.t->heap_index);
}

static void heap_wish(struct pool *p)
{
	struct timer_heap *h = p->timers;
	int64_t at = h->n ? h->v[0].t->at_ms : INT64_MAX;

	if (h->held || at == h->wished)
		return;
	h->wished = at;
	if (at != INT64_MAX)
		p->hooks.wake_at(p->hooks.data, at);
}

void timer_heap_hold(struct pool *p, bool hold)
{
	p->timers->held = hold;
	if (!hold)
		heap_wish(p);
}

void pool_timer_init(struct pool_timer *t, pool_timer_fn fn, void *data)
{
	*t = (struct pool_timer){ 0, fn, data, SIZE_MAX };
}

void pool_timer_cancel(struct pool *p, struct pool_timer *t)
{
	if (t->heap_index == SIZE_MAX)
		return;
	heap_remove(p->timers, t->heap_index);
	t->heap_index = SIZE_MAX;
	heap_wish(p);
}

void pool_timer_arm(struct pool *p, struct pool_timer *t, int64_t after_ms)
{
	struct timer_heap *h = p->timers;

	if (t->heap_index != SIZE_MAX)
		heap_remove(h, t->heap_index);
	if (h->n == h->cap) {
		h->cap = h->cap ? 2 * h->cap : 64;
		h->v = xrealloc(h->v, h->cap * sizeof *h->v);
	}
	t->at_ms = env_mono_ms() + MAX(after_ms, 0);
	h->n++;
	heap_put(h, h->n - 1, (struct heap_slot){ t, h->seq++ });
	heap_up(h, h->n - 1);
	heap_wish(p);
}

void timer_heap_run(struct pool *p)
{
	struct timer_heap *h = p->timers;
	int64_t now = env_mono_ms();

	h->held = true;
	h->wished = INT64_MAX;
	for (unsigned i = 0; i < TIMER_BATCH; i++) {
		struct pool_timer *t;

		if (h->n == 0 || h->v[0].t->at_ms > now)
			break;
		t = h->v[0].t;
		heap_remove(h, 0);
		t->heap_index = SIZE_MAX;
		t->fn(p, t->data);
	}
	h->held = false;
	heap_wish(p);
}
