/* Linearizability of single registers, found by search and not from the log: is
 * there an order of the calls, each at some time between its start and its end,
 * in which every one has the result that its client got? A depth-first search
 * over "which of the calls that may be next is next", that remembers which sets
 * of calls it has seen lead to which value. Calls with an unknown end may stand
 * anywhere after their start, or nowhere.
 */
#include "tests/sim/sim.h"

#include <string.h>

#define STEPS_MAX 100000 /* then it is not known */

enum call_kind { CALL_READ, CALL_WRITE, CALL_CAS, CALL_MISS };

struct call {
	enum call_kind kind;
	uint64_t value, expect;
	uint64_t start, end; /* end UINT64_MAX: unknown */
	uint64_t key[2];
	bool done;
};

struct search {
	struct call *calls; /* by start */
	size_t n, n_known, steps;
	uint64_t (*seen)[2];
	size_t cap, used;
};

enum found { FOUND_NO, FOUND_YES, FOUND_TOO_LONG };

/* True when this state is new. */
static bool remember(struct search *s, const uint64_t key[2])
{
	size_t i = key[0] & (s->cap - 1);

	while (s->seen[i][0] || s->seen[i][1]) {
		if (s->seen[i][0] == key[0] && s->seen[i][1] == key[1])
			return false;
		i = (i + 1) & (s->cap - 1);
	}
	s->seen[i][0] = key[0];
	s->seen[i][1] = key[1];
	return true;
}

static bool fits(const struct call *c, uint64_t value)
{
	switch (c->kind) {
	case CALL_READ:
		return value == c->value;
	case CALL_CAS:
		return value == c->expect;
	case CALL_MISS:
		return value != c->expect;
	default:
		return true;
	}
}

static uint64_t after(const struct call *c, uint64_t value)
{
	return c->kind == CALL_WRITE || c->kind == CALL_CAS ? c->value : value;
}

static enum found search(struct search *s, size_t first, size_t known_done,
			 uint64_t value, const uint64_t key[2])
{
	uint64_t end = UINT64_MAX, state[2];
	enum found f;

	if (known_done == s->n_known)
		return FOUND_YES;
	if (++s->steps > STEPS_MAX)
		return FOUND_TOO_LONG;
	state[0] = key[0] ^ hash64(&value, sizeof value);
	state[1] = key[1] + value * 0x9e3779b97f4a7c15u;
	if (!remember(s, state))
		return FOUND_NO;
	while (first < s->n && s->calls[first].done)
		first++;
	for (size_t i = first; i < s->n && s->calls[i].start < end; i++)
		if (!s->calls[i].done)
			end = MIN(end, s->calls[i].end);
	for (size_t i = first; i < s->n && s->calls[i].start < end; i++) {
		struct call *c = &s->calls[i];
		uint64_t next[2] = { key[0] ^ c->key[0], key[1] ^ c->key[1] };

		if (c->done || !fits(c, value))
			continue;
		c->done = true;
		f = search(s, first, known_done + (c->end != UINT64_MAX),
			   after(c, value), next);
		c->done = false;
		if (f != FOUND_NO)
			return f;
	}
	return FOUND_NO;
}

/* --- histories --- */

static bool call_of(const struct client_op *op, unsigned reg, struct call *c)
{
	bool a = op->a == reg, ok = op->result.status == TXN_OK;
	uint64_t expect = a ? op->expect_a : op->expect_b;

	memset(c, 0, sizeof *c);
	c->start = op->called;
	c->end = op->acked ? op->returned : UINT64_MAX;
	c->value = op->number;
	c->expect = expect;
	switch (op->kind) {
	case OPC_READ:
		c->kind = CALL_READ;
		c->value = op->values[reg];
		return op->acked;
	case OPC_SET:
	case OPC_TOUCH:
		c->kind = CALL_WRITE;
		return a && !op->never && (ok || !op->acked);
	case OPC_CAS:
	case OPC_SWAP:
		if (!a && !(op->kind == OPC_SWAP && op->b == reg))
			return false;
		if (op->attempts == 0 || op->never)
			return false;
		c->kind = expect == UINT64_MAX ? CALL_WRITE : CALL_CAS;
		if (ok || !op->acked)
			return true;
		/* The other register may have been the reason of a swap's. */
		c->kind = CALL_MISS;
		return op->kind == OPC_CAS && op->result.status == TXN_CONFLICT;
	default:
		return false;
	}
}

static bool observed(const struct call *calls, size_t n, uint64_t value)
{
	for (size_t i = 0; i < n; i++)
		if ((calls[i].kind == CALL_READ && calls[i].value == value) ||
		    (calls[i].kind == CALL_CAS && calls[i].expect == value))
			return true;
	return false;
}

/* Calls with an unknown end that nobody saw need not have happened; but then a
 * guard that failed may have failed because of them. */
static size_t drop_unseen(struct call *calls, size_t n)
{
	size_t kept = 0;
	bool dropped = false;

	for (size_t i = 0; i < n; i++) {
		if (calls[i].end == UINT64_MAX &&
		    !observed(calls, n, calls[i].value))
			dropped = true;
		else
			calls[kept++] = calls[i];
	}
	n = kept;
	kept = 0;
	for (size_t i = 0; i < n; i++)
		if (!dropped || calls[i].kind != CALL_MISS)
			calls[kept++] = calls[i];
	return kept;
}

static void check_register(unsigned reg)
{
	struct search s = { .cap = 1 << 18 };
	const struct client_op *op;
	uint64_t zero[2] = { 0, 0 };
	enum found f;
	size_t n = 0;

	while (load_op(n))
		n++;
	s.calls = xcalloc(n + 1, sizeof *s.calls);
	for (size_t i = 0; (op = load_op(i)); i++)
		s.n += call_of(op, reg, &s.calls[s.n]);
	s.n = drop_unseen(s.calls, s.n);
	for (size_t i = 0; i < s.n; i++) {
		struct hash128 k = hash128(&i, sizeof i);

		s.calls[i].key[0] = k.lo;
		s.calls[i].key[1] = k.hi;
		s.n_known += s.calls[i].end != UINT64_MAX;
	}
	s.seen = xcalloc(s.cap, sizeof *s.seen);
	f = search(&s, 0, 0, 0, zero);
	sim->n_searches++;
	sim->n_searches_open += f == FOUND_TOO_LONG;
	if (f == FOUND_NO)
		sim_fail("linearizability", "no order of the %zu calls on "
			 "register %u explains their results", s.n, reg);
	free(s.seen);
	free(s.calls);
}

void lin_check(void)
{
	if (sim->seed % 4 == 0)
		check_register((unsigned)(sim->seed / 4 %
					  sim->shape.n_registers));
}
