/* What must hold, always.
 *
 * The history is the sequence of transactions that took effect on the member
 * that was first to apply each; every member must apply the same ones in the
 * same order, with the same results, and have the same digest after each. It is
 * also the witness of linearizability: a call that begins after another one has
 * ended must stand, or look, behind it. Besides, a model of the workload says
 * what each transaction's result and each read must be.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#include "raftdb/store_impl.h"
#include "schema/gen/schema_ids.h"

struct applied {
	uint8_t id[TXN_ID_LEN];
	struct txn_result result;
	uint64_t generation;
	struct hash128 digest;
	struct client_op *op;
	bool changed; /* the observers hear of it */
};

struct version {
	size_t position; /* of the history: from here on */
	uint64_t value;
};

struct timeline {
	struct version *v;
	size_t n, cap;
};

static struct {
	struct applied *all;
	size_t n, cap;
	struct map by_id; /* index + 1 */
	size_t floor;
	struct {
		int64_t at;
		size_t floor; /* from then on */
	} *floors;
	size_t n_floors, cap_floors;
	struct timeline registers[REGISTERS_MAX], disks[DISKS], tags;
	struct {
		uint64_t term;
		const struct node *node;
	} leaders[256]; /* of the newest terms */
} h;

static const uint8_t *applying; /* the transaction's id */

/* --- the model --- */

static uint64_t now_of(const struct timeline *t)
{
	return t->n > 0 ? t->v[t->n - 1].value : 0;
}

static uint64_t value_at(const struct timeline *t, size_t position)
{
	for (size_t i = t->n; i-- > 0;)
		if (t->v[i].position <= position)
			return t->v[i].value;
	return 0;
}

static void set(struct timeline *t, uint64_t value)
{
	if (t->n == t->cap) {
		t->cap = MAX(t->cap * 2, (size_t)32);
		t->v = xrealloc(t->v, t->cap * sizeof(*t->v));
	}
	t->v[t->n++] = (struct version){ h.n, value };
}

/* UINT64_MAX: its author's member had no such row, so there is no guard. */
static bool holds(unsigned reg, uint64_t expect)
{
	return expect == UINT64_MAX || now_of(&h.registers[reg]) == expect;
}

/* h.n counts the operation already: what it writes is seen from there on. */
static enum txn_status model(const struct client_op *op)
{
	switch (op->kind) {
	case OPC_SET:
	case OPC_TOUCH:
		set(&h.registers[op->a], op->number);
		return TXN_OK;
	case OPC_SWAP:
		if (!holds(op->b, op->expect_b))
			return TXN_CONFLICT;
		/* fall through */
	case OPC_CAS:
		if (!holds(op->a, op->expect_a))
			return TXN_CONFLICT;
		set(&h.registers[op->a], op->number);
		if (op->kind == OPC_SWAP)
			set(&h.registers[op->b], op->number);
		return TXN_OK;
	case OPC_TAG:
		set(&h.tags, now_of(&h.tags) + 1);
		return TXN_OK;
	case OPC_CREATE:
		if (now_of(&h.disks[op->a]))
			return TXN_CONFLICT;
		set(&h.disks[op->a], 1);
		return TXN_OK;
	case OPC_REMOVE:
		if (!now_of(&h.disks[op->a]))
			return TXN_NO_OBJECT;
		set(&h.disks[op->a], 0);
		return TXN_OK;
	default:
		return TXN_OK;
	}
}

/* --- the history --- */

static size_t find(const uint8_t id[TXN_ID_LEN])
{
	return (size_t)(uintptr_t)map_get(&h.by_id, (const char *)id,
					  TXN_ID_LEN);
}

static void append(const struct store *s, const struct txn *t,
		   struct txn_result result, uint64_t before)
{
	struct applied *a;
	enum txn_status expected;

	if (h.n == h.cap) {
		/* The map borrows ids from operations, not from here. */
		h.cap = MAX(h.cap * 2, (size_t)256);
		h.all = xrealloc(h.all, h.cap * sizeof(*h.all));
	}
	a = &h.all[h.n++];
	memset(a, 0, sizeof *a);
	memcpy(a->id, t->id, TXN_ID_LEN);
	a->result = result;
	a->generation = store_generation(s);
	a->digest = store_digest(s);
	a->changed = a->generation != before;
	a->op = load_op_of(t->id);
	if (!a->op)
		sim_fail("exactly-once", "a transaction nobody asked for");
	map_put(&h.by_id, (const char *)a->op->id, TXN_ID_LEN,
		(void *)(uintptr_t)h.n);
	expected = model(a->op);
	if (result.status != expected)
		sim_fail("model", "operation %llu ends with status %d, not %d",
			 (unsigned long long)a->op->number, result.status,
			 expected);
}

static bool same_result(struct txn_result a, struct txn_result b)
{
	return a.status == b.status && a.item == b.item &&
	       a.generation == b.generation;
}

static void check_digest(const struct life *l, const struct store *s,
			 const char *when)
{
	const struct applied *a = &h.all[l->position - 1];
	struct hash128 d = store_digest(s);

	if (a->generation != store_generation(s) ||
	    a->digest.lo != d.lo || a->digest.hi != d.hi)
		sim_fail("digest", "n%d differs at position %zu, %s", l->node->i,
			 l->position, when);
}

static void applied(struct life *l, const struct store *s,
		    const struct txn *t, bool seen, struct txn_result result,
		    uint64_t before)
{
	size_t at = find(t->id);

	if (seen) {
		if (at == 0 || at > l->position ||
		    !same_result(h.all[at - 1].result, result))
			sim_fail("exactly-once", "n%d remembers another result",
				 l->node->i);
		return;
	}
	if (at > 0 && at <= l->position)
		sim_fail("exactly-once", "n%d applies operation %llu again",
			 l->node->i,
			 (unsigned long long)h.all[at - 1].op->number);
	if (l->position == h.n) {
		append(s, t, result, before);
	} else if (at != l->position + 1) {
		sim_fail("agreement", "n%d applies another transaction at "
			 "position %zu of %zu", l->node->i, l->position, h.n);
	} else if (!same_result(h.all[at - 1].result, result)) {
		sim_fail("agreement", "n%d has another result at position %zu",
			 l->node->i, l->position);
	}
	l->position++;
	check_digest(l, s, "after applying");
}

struct txn_result __real_store_apply(struct store *s, const struct txn *t);
struct txn_result __wrap_store_apply(struct store *s, const struct txn *t);

/* The linker has raftdb/ call this one. */
struct txn_result __wrap_store_apply(struct store *s, const struct txn *t)
{
	struct life *l = sim->cur;
	struct txn planted = *t;
	struct txn_result result;
	uint64_t before = store_generation(s);
	bool seen;

	if (!l || l->dead || l->dying)
		return __real_store_apply(s, t);
	seen = store_txn_seen(s, t->id, &result);
	applying = t->id;
	if (sim->plant == PLANT_APPLY_TWICE && seen) {
		planted.id[0] ^= 0x80;
		seen = false;
	}
	if (sim->plant == PLANT_GUARDS) {
		planted.n_guards = 0;
		planted.guards = (struct buf)BUF_INIT;
	}
	if (sim->plant == PLANT_DIVERGE && l->node->i == 1 && sim_chance(50))
		return (struct txn_result){ .status = TXN_OK,
					    .generation = before };
	result = __real_store_apply(s, &planted);
	if (!l->dying) /* of what it has just allocated */
		applied(l, s, t, seen, result, before);
	return result;
}

bool __real_store_load(struct store *s, const struct store_view *v);
bool __wrap_store_load(struct store *s, const struct store_view *v);

bool __wrap_store_load(struct store *s, const struct store_view *v)
{
	struct life *l = sim->cur;
	bool ok = __real_store_load(s, v);

	if (l->dead || l->dying)
		return ok;
	l->position = v->n_ids > 0 ? find(v->ids[v->n_ids - 1].id) : 0;
	if (v->n_ids > 0 && l->position == 0)
		sim_fail("agreement", "a snapshot of another history");
	return ok;
}

void __real_relate_derived(struct scratch *sc);
void __wrap_relate_derived(struct scratch *sc);

void __wrap_relate_derived(struct scratch *sc)
{
	if (sim->plant == PLANT_RELATION && applying[3] < 64)
		return;
	__real_relate_derived(sc);
}

void __real_store_add_tombstone(struct store *s, int cls, struct value *ref,
				uint64_t created, uint64_t deleted);
void __wrap_store_add_tombstone(struct store *s, int cls, struct value *ref,
				uint64_t created, uint64_t deleted);

void __wrap_store_add_tombstone(struct store *s, int cls, struct value *ref,
				uint64_t created, uint64_t deleted)
{
	if (sim->plant != PLANT_TOMBSTONE)
		__real_store_add_tombstone(s, cls, ref, created, deleted);
}

/* --- leaders --- */

void check_leader(const struct node *n, uint64_t term)
{
	size_t i = term % ARRAY_LEN(h.leaders);

	if (term > h.leaders[i].term) {
		h.leaders[i].term = term;
		h.leaders[i].node = n;
	} else if (term == h.leaders[i].term && n != h.leaders[i].node) {
		sim_fail("leaders", "n%d and n%d lead in term %llu",
			 h.leaders[i].node->i, n->i, (unsigned long long)term);
	}
}

/* --- what clients are told --- */

size_t check_floor(void)
{
	return h.floor;
}

static void raise_floor(size_t position)
{
	if (position <= h.floor)
		return;
	if (h.n_floors == h.cap_floors) {
		h.cap_floors = MAX(h.cap_floors * 2, (size_t)256);
		h.floors = xrealloc(h.floors,
				    h.cap_floors * sizeof(*h.floors));
	}
	h.floor = position;
	h.floors[h.n_floors].at = sim->now;
	h.floors[h.n_floors++].floor = position;
}

static size_t floor_at(int64_t time)
{
	for (size_t i = h.n_floors; i-- > 0;)
		if (h.floors[i].at <= time)
			return h.floors[i].floor;
	return 0;
}

size_t check_history(void)
{
	return h.n;
}

void check_acked(struct life *l, struct client_op *op, struct txn_result r)
{
	size_t at = find(op->id);

	if (at == 0)
		sim_fail("exactly-once", "operation %llu was acknowledged, and "
			 "nobody has applied it",
			 (unsigned long long)op->number);
	if (at > l->position)
		sim_fail("own writes", "n%d acknowledges operation %llu before "
			 "it has applied it", l->node->i,
			 (unsigned long long)op->number);
	if (!same_result(h.all[at - 1].result, r))
		sim_fail("exactly-once", "operation %llu: another result was "
			 "told", (unsigned long long)op->number);
	if (at <= op->floor)
		sim_fail("linearizability", "operation %llu stands at %zu, and "
			 "%zu was seen before it began",
			 (unsigned long long)op->number, at, op->floor);
	raise_floor(at);
}

static void check_content(struct life *l, struct client_op *op)
{
	const struct store *s = db_store(l->db);

	for (unsigned i = 0; i < sim->shape.n_registers; i++) {
		uint64_t v = load_register(s, i);

		op->values[i] = v;
		if (v != value_at(&h.registers[i], l->position))
			sim_fail("model", "register %u is %llu at %zu", i,
				 (unsigned long long)v, l->position);
	}
	for (unsigned i = 0; i < DISKS; i++)
		if (load_disk(s, i) != value_at(&h.disks[i], l->position))
			sim_fail("model", "disk %u at %zu", i, l->position);
	if (load_tags(s) != value_at(&h.tags, l->position))
		sim_fail("model", "tags at %zu", l->position);
}

void check_read(struct life *l, struct client_op *op)
{
	if (l->position < op->floor && sim->plant != PLANT_STALE_SEARCH)
		sim_fail("linearizability", "read %llu on n%d sees %zu, and %zu "
			 "was seen before it began",
			 (unsigned long long)op->number, l->node->i,
			 l->position, op->floor);
	raise_floor(l->position);
	check_content(l, op);
}

void check_local(struct life *l, struct client_op *op, int64_t age_ms,
		 size_t *seen)
{
	/* Clocks tell whole milliseconds. */
	int64_t of = sim->now - (age_ms + 1) * MS;

	if (age_ms < DB_AGE_UNKNOWN && l->position < floor_at(of))
		sim_fail("ages", "n%d shows position %zu and says that it is "
			 "%lld ms old, but %zu was seen before", l->node->i,
			 l->position, (long long)age_ms, floor_at(of));
	for (size_t i = l->position; i < *seen; i++)
		if (h.all[i].changed)
			sim_fail("sessions", "n%d shows position %zu, and its "
				 "session has seen %zu", l->node->i,
				 l->position, *seen);
	*seen = MAX(*seen, l->position);
	check_content(l, op);
}

/* --- observers: a sum over all rows, kept from changes --- */

static uint64_t row_sum(const struct record *r)
{
	uint64_t x = hash64(r->ref->s, r->ref->n) ^ r->modified << 20 ^
		     r->created;

	return hash64(&x, sizeof x);
}

static uint64_t store_sum(const struct store *s, uint64_t *n)
{
	uint64_t sum = 0;

	*n = 0;
	for (int c = 0; c < CLASS_COUNT; c++) {
		if (!class_is_stored(&schema_classes[c]))
			continue;
		for (struct record *r = store_first(s, c); r;
		     r = store_next(s, r), (*n)++)
			sum += row_sum(r);
	}
	return sum;
}

void check_changed(struct life *l, const struct txn *t, uint64_t generation,
		   const struct change *changes, size_t n)
{
	if (l->dead || l->dying)
		return;
	if (sim->plant == PLANT_LOST_CHANGE && sim_chance(20))
		return;
	if (generation <= l->seen_generation)
		sim_fail("events", "n%d observes generation %llu after %llu",
			 l->node->i, (unsigned long long)generation,
			 (unsigned long long)l->seen_generation);
	l->seen_generation = generation;
	for (size_t i = 0; i < n; i++) {
		if (changes[i].before) {
			l->mirror -= row_sum(changes[i].before);
			l->mirror_n--;
		}
		if (changes[i].after) {
			l->mirror += row_sum(changes[i].after);
			l->mirror_n++;
		}
	}
}

void check_reloaded(struct life *l)
{
	const struct store *s = db_store(l->db);

	if (l->dead || l->dying)
		return;
	l->mirror = store_sum(s, &l->mirror_n);
	l->seen_generation = store_generation(s);
	if (l->position > 0)
		check_digest(l, s, "after a snapshot");
}

void check_started(struct life *l)
{
	check_reloaded(l);
}

static void check_mirror(struct life *l)
{
	uint64_t n, sum = store_sum(db_store(l->db), &n);

	if (sum != l->mirror || n != l->mirror_n)
		sim_fail("events", "what n%d observed does not add up to its "
			 "rows: %llu and %llu of them", l->node->i,
			 (unsigned long long)l->mirror_n,
			 (unsigned long long)n);
}

/* --- relations --- */

static void check_relations(struct life *l)
{
	const struct store *s = db_store(l->db);
	size_t n = 0;

	for (struct record *d = store_first(s, CLASS_VBD); d;
	     d = store_next(s, d)) {
		struct record *vm = store_get_class(
			s, CLASS_VM, record_str(d, F_VBD_VM));

		if (!vm || !value_set_has(vm->fields[F_VM_VBDs], d->ref))
			sim_fail("relations", "n%d: a VM does not have its VBD",
				 l->node->i);
	}
	for (struct record *vm = store_first(s, CLASS_VM); vm;
	     vm = store_next(s, vm))
		n += vm->fields[F_VM_VBDs]->n;
	if (n != store_count(s, CLASS_VBD))
		sim_fail("relations", "n%d: a VM has a VBD that is none",
			 l->node->i);
	if (!store_relations_agree(s))
		sim_fail("relations", "n%d: a derived set is wrong", l->node->i);
}

/* --- consumers: follow rows by tokens, now here, now there --- */

#define ROWS_MAX 64
#define CONSUMERS 3

struct consumer {
	uint64_t token;
	size_t n;
	struct {
		uint64_t ref, modified;
	} rows[ROWS_MAX];
};

static struct consumer consumers[CONSUMERS];

static void consumer_set(struct consumer *c, const struct value *ref,
			 uint64_t modified)
{
	uint64_t key = hash64(ref->s, ref->n);
	size_t i = 0;

	while (i < c->n && c->rows[i].ref != key)
		i++;
	if (i == c->n) {
		if (modified == 0)
			return; /* came and went in between */
		xassert(c->n < ROWS_MAX);
		c->n++;
		c->rows[i].ref = key;
	}
	c->rows[i].modified = modified;
	if (modified == 0)
		c->rows[i] = c->rows[--c->n];
}

static void consume_class(struct consumer *c, const struct store *s, int cls)
{
	uint64_t after = UINT64_MAX;
	const struct tombstone *t;
	struct record *r;

	for (t = store_last_tombstone(s, cls); t && t->deleted > c->token;
	     t = store_prev_tombstone(s, t))
		if (!store_get(s, t->ref->s))
			consumer_set(c, t->ref, 0);
	for (r = store_last(s, cls); r && r->modified > c->token;
	     r = store_prev(s, r)) {
		if (r->modified > after)
			sim_fail("events", "rows are not in their order");
		after = r->modified;
		consumer_set(c, r->ref, r->modified);
	}
}

static void consumer_poll(struct consumer *c, struct life *l)
{
	static const int classes[] = { CLASS_secret, CLASS_VM, CLASS_VBD };
	const struct store *s = db_store(l->db);
	size_t n = 0;

	if (store_generation(s) < c->token)
		return; /* it lags: event.from would wait */
	xassert(store_tombstone_horizon(s) == 0);
	for (size_t i = 0; i < ARRAY_LEN(classes); i++)
		consume_class(c, s, classes[i]);
	c->token = store_generation(s);
	for (size_t k = 0; k < ARRAY_LEN(classes); k++)
		for (struct record *r = store_first(s, classes[k]); r;
		     r = store_next(s, r)) {
			uint64_t key = hash64(r->ref->s, r->ref->n);
			bool ok = false;

			for (size_t i = 0; i < c->n; i++)
				ok = ok || (c->rows[i].ref == key &&
					    c->rows[i].modified == r->modified);
			if (!ok)
				sim_fail("events", "a consumer that came to n%d "
					 "with a token has missed a change",
					 l->node->i);
			n++;
		}
	if (n != c->n)
		sim_fail("events", "a consumer that came to n%d with a token "
			 "has missed a deletion", l->node->i);
}

/* --- when --- */

static void check_life(struct life *l)
{
	if (l->position > 0)
		check_digest(l, db_store(l->db), "later");
	check_mirror(l);
	check_relations(l);
}

void check_periodic(void)
{
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].life)
			check_life(sim->nodes[i].life);
	for (unsigned i = 0; i < CONSUMERS; i++) {
		struct node *n = &sim->nodes[sim_pick(sim->n_nodes)];

		if (n->life)
			consumer_poll(&consumers[i], n->life);
	}
}

bool check_converged(void)
{
	for (unsigned i = 0; i < sim->n_nodes; i++) {
		const struct node *n = &sim->nodes[i];

		if (n->in_pool && (!n->life || n->life->position != h.n))
			return false;
	}
	return true;
}

static void check_op(const struct client_op *op)
{
	bool reads = op->kind == OPC_READ || op->kind == OPC_LOCAL;
	size_t at = reads ? 0 : find(op->id);

	if (op->never && at > 0)
		sim_fail("exactly-once", "operation %llu was refused, and was "
			 "applied", (unsigned long long)op->number);
	if (!reads && op->acked && at == 0)
		sim_fail("exactly-once", "operation %llu was acknowledged, and "
			 "is lost", (unsigned long long)op->number);
}

void check_end(void)
{
	const struct client_op *op;

	for (size_t i = 0; (op = load_op(i)); i++)
		check_op(op);
	check_periodic();
	lin_check();
}

void check_init(void)
{
	memset(&h, 0, sizeof h);
	memset(consumers, 0, sizeof consumers);
	map_init(&h.by_id);
}

void check_free(void)
{
	free(h.all);
	free(h.floors);
	map_deinit(&h.by_id);
	for (size_t i = 0; i < REGISTERS_MAX; i++)
		free(h.registers[i].v);
	for (size_t i = 0; i < DISKS; i++)
		free(h.disks[i].v);
	free(h.tags.v);
}
