/* Time, events, randomness, the trace: everything else happens from here. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "tests/sim/sim_run.h"

struct sim *sim;

struct event {
	struct list in_inbox;
	int64_t at;
	uint64_t seq;
	struct life *life;
	void (*fn)(void *data);
	void (*drop)(void *data);
	void *data;
};

static struct {
	struct event **heap;
	size_t n, cap;
	uint64_t seq;
	uint64_t random[4];
} core;

/* --- randomness: xoshiro256**, by its public description --- */

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

static void seed_random(uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15u;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		core.random[i] = z ^ z >> 31;
	}
}

uint64_t sim_next(void)
{
	uint64_t *s = core.random, r = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return r;
}

uint64_t sim_pick(uint64_t n)
{
	return sim_next() % n;
}

bool sim_chance(unsigned permille)
{
	return sim_pick(1000) < permille;
}

int64_t sim_between(int64_t a, int64_t b)
{
	return a + (int64_t)sim_pick((uint64_t)(b - a) + 1);
}

int64_t sim_spread(int64_t mean)
{
	/* The number of leading zeros is geometric: no floating point, so that
	 * it is the same on every machine. */
	uint64_t r = sim_next() | 1u << 8;
	int64_t halves = __builtin_clzll(r) % 6;

	return mean * (halves + 1) / 4 +
	       (int64_t)sim_pick((uint64_t)mean / 2 + 1);
}

/* --- trace --- */

static void mix(uint64_t v)
{
	sim->hash = rotl((sim->hash ^ v) * 0x9e3779b97f4a7c15u, 29);
}

static const char *who(void)
{
	static char name[8];

	if (!sim->cur)
		return "--";
	snprintf(name, sizeof name, "n%d", sim->cur->node->i);
	return name;
}

void sim_trace(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	mix(hash64(line, strlen(line)) ^ (uint64_t)sim->now);
	if (sim->tracing)
		printf("%4lld.%06lld %s %s\n", (long long)(sim->now / SEC),
		       (long long)(sim->now % SEC), who(), line);
}

_noreturn_ void sim_fail(const char *checker, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	run_failed(checker, line);
}

/* In place of base/log.c. */
void log_set_level(enum log_level level)
{
}

bool log_level_parse(const char *s, enum log_level *ret)
{
	return false;
}

void log_set_thread(const char *name)
{
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (sim && !sim->tracing)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	if (!sim || (sim->cur && sim->cur->dead))
		return;
	printf("%4lld.%06lld %s log: %s\n", (long long)(sim->now / SEC),
	       (long long)(sim->now % SEC), who(), line);
}

/* --- clock of whoever runs --- */

static int64_t wall_ms(void *data)
{
	int64_t offset = sim->cur ? sim->cur->node->clock_offset : 0;

	return 1700000000000 + (sim->now + offset) / MS;
}

static int64_t mono_ms(void *data)
{
	int64_t offset = sim->cur ? sim->cur->node->mono_offset : 0;

	return 100000 + (sim->now + offset) / MS;
}

static void random_bytes(void *data, void *out, size_t n)
{
	for (uint8_t *p = out; n > 0; n--)
		*p++ = (uint8_t)sim_next();
}

static const struct env_ops env_ops = { wall_ms, mono_ms, random_bytes, NULL };

int64_t sim_now(void)
{
	return sim->now;
}

/* --- events: a heap by time, then by order of making --- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void heap_put(struct event *e)
{
	size_t i = core.n++;

	if (core.n > core.cap) {
		core.cap = MAX(core.cap * 2, (size_t)1024);
		core.heap = xrealloc(core.heap, core.cap * sizeof(*core.heap));
	}
	while (i > 0 && before(e, core.heap[(i - 1) / 2])) {
		core.heap[i] = core.heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	core.heap[i] = e;
}

static struct event *heap_take(void)
{
	struct event *first = core.heap[0], *last = core.heap[--core.n];
	size_t i = 0;

	for (;;) {
		size_t kid = i * 2 + 1;

		if (kid >= core.n)
			break;
		if (kid + 1 < core.n &&
		    before(core.heap[kid + 1], core.heap[kid]))
			kid++;
		if (!before(core.heap[kid], last))
			break;
		core.heap[i] = core.heap[kid];
		i = kid;
	}
	core.heap[i] = last;
	return first;
}

static void push(int64_t at, struct life *life, void (*fn)(void *data),
		 void (*drop)(void *data), void *data)
{
	struct event *e = xcalloc(1, sizeof *e);

	list_init(&e->in_inbox);
	e->at = MAX(at, sim->now);
	e->seq = core.seq++;
	e->life = life;
	e->fn = fn;
	e->drop = drop;
	e->data = data;
	heap_put(e);
}

void sim_at(int64_t at, struct life *life, void (*fn)(void *data),
	    void (*drop)(void *data), void *data)
{
	if (life && life->dead) {
		if (drop)
			drop(data);
		return;
	}
	push(at, life, fn, drop, data);
}

static void event_drop(struct event *e)
{
	if (e->drop)
		e->drop(e->data);
	free(e);
}

static void on_turn(void *data)
{
	struct life *l = data;

	if (l->dead)
		return;
	if (l->busy_until > sim->now) {
		push(l->busy_until, NULL, on_turn, NULL, l);
		return;
	}
	l->turn_due = false;
	life_turn(l);
}

void run_turn_at(struct life *l, int64_t at)
{
	if (l->turn_due || l->dead)
		return;
	l->turn_due = true;
	push(MAX(at, l->busy_until), NULL, on_turn, NULL, l);
}

void run_inbox(struct life *l)
{
	struct list due;

	list_init(&due);
	list_splice(&due, &l->inbox);
	while (!list_empty(&due)) {
		struct event *e = list_entry(due.next, struct event, in_inbox);

		list_remove(&e->in_inbox);
		if (l->dead || l->dying) {
			event_drop(e);
			continue;
		}
		e->fn(e->data);
		free(e);
	}
}

void run_drop_inbox(struct life *l)
{
	while (!list_empty(&l->inbox)) {
		struct event *e =
			list_entry(l->inbox.next, struct event, in_inbox);

		list_remove(&e->in_inbox);
		event_drop(e);
	}
}

bool run_event(void)
{
	struct event *e;

	if (core.n == 0)
		return false;
	e = heap_take();
	sim->now = e->at;
	sim->events++;
	mix((uint64_t)e->at ^ e->seq << 32 ^
	    (e->life ? (uint64_t)e->life->node->i + 1 : 0));
	if (!e->life) {
		e->fn(e->data);
		free(e);
	} else if (e->life->dead) {
		event_drop(e);
	} else {
		list_push(&e->life->inbox, &e->in_inbox);
		run_turn_at(e->life, sim->now);
	}
	return true;
}

void run_core_init(uint64_t seed)
{
	core.n = 0;
	core.seq = 1;
	seed_random(seed);
	env_replace(&env_ops);
}

void run_core_free(void)
{
	for (size_t i = 0; i < core.n; i++)
		event_drop(core.heap[i]);
	core.n = 0;
}
