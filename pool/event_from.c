/* What has happened since a token: from the store alone, nothing is queued.
 *
 * Each class keeps its rows in the order of their last change, and its
 * deletions in the order of their time, so the cost is the number of changes:
 * walk back from the newest until the token's generation. Created after it: one
 * add; changed after it: one mod; deleted after it but created before: one del.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pool/event.h"

/* ---- values that every event shares ---- */

static struct {
	struct value *id, *timestamp, *class, *operation, *ref, *snapshot;
	struct value *ops[3];
	struct value *zero, *no_time;
	struct value *class_names[EVENT_CLASSES];
} shared;

static void share(void)
{
	if (shared.id)
		return;
	shared.timestamp = value_stringz("timestamp");
	shared.class = value_stringz("class");
	shared.operation = value_stringz("operation");
	shared.ref = value_stringz("ref");
	shared.snapshot = value_stringz("snapshot");
	shared.ops[EVENT_ADD] = value_stringz("add");
	shared.ops[EVENT_MOD] = value_stringz("mod");
	shared.ops[EVENT_DEL] = value_stringz("del");
	shared.zero = value_stringz("0");
	shared.no_time = value_stringz("0.0");
	for (unsigned i = 0; i < schema_n_classes; i++)
		shared.class_names[i] =
			value_stringz(schema_classes[i].event_name);
	shared.id = value_stringz("id");
}

static void set_member(struct value *s, unsigned i, struct value *name,
		       struct value *takes_v)
{
	s->items[2 * i] = value_ref(name);
	s->items[2 * i + 1] = takes_v;
}

struct value *event_value(struct value *id, struct value *timestamp,
			  const struct class_def *cls, enum event_op op,
			  struct value *ref, struct record *snapshot)
{
	struct value *s;

	share();
	s = value_struct_new(snapshot ? 6 : 5);
	set_member(s, 0, shared.id, id);
	set_member(s, 1, shared.timestamp, timestamp);
	set_member(s, 2, shared.class, value_ref(shared.class_names[cls->id]));
	set_member(s, 3, shared.operation, value_ref(shared.ops[op]));
	set_member(s, 4, shared.ref, value_ref(ref));
	if (snapshot)
		set_member(s, 5, shared.snapshot, value_record(snapshot));
	return s;
}

/* ---- collecting ---- */

struct batch {
	struct value **v;
	size_t n, cap;
};

struct collection {
	const struct store *store;
	uint64_t since;
	struct batch messages, ops[3];
};

static void batch_add(struct batch *b, struct value *v)
{
	if (b->n == b->cap) {
		b->cap = b->cap ? 2 * b->cap : 32;
		b->v = xrealloc(b->v, b->cap * sizeof *b->v);
	}
	b->v[b->n++] = v;
}

static void add_event(struct collection *c, const struct class_def *cls,
		      enum event_op op, struct value *ref, uint64_t generation,
		      struct record *snapshot)
{
	bool is_message = cls->id == CLASS_message;
	struct value *id;

	share();
	id = is_message ? value_ref(shared.zero) :
			  value_printf("%" PRIu64, generation);
	batch_add(is_message ? &c->messages : &c->ops[op],
		  event_value(id, value_ref(shared.no_time), cls, op, ref,
			      snapshot));
}

static void add_row(struct collection *c, struct record *r)
{
	add_event(c, r->cls, r->created > c->since ? EVENT_ADD : EVENT_MOD,
		  r->ref, r->modified, r);
}

static void add_tombstone(struct collection *c, const struct tombstone *t)
{
	if (t->created <= c->since)
		add_event(c, &schema_classes[t->cls], EVENT_DEL, t->ref,
			  t->deleted, NULL);
}

static void collect_class(struct collection *c, int cls)
{
	const struct tombstone *t = store_last_tombstone(c->store, cls);
	struct record *r = store_last(c->store, cls);

	for (; r && r->modified > c->since; r = store_prev(c->store, r))
		add_row(c, r);
	for (; t && t->deleted > c->since; t = store_prev_tombstone(c->store, t))
		add_tombstone(c, t);
}

static void collect_ref(struct collection *c, const struct event_sub_ref *sub)
{
	struct record *r = store_get_class(c->store, sub->cls,
					   value_str(sub->ref));
	const struct tombstone *t = store_last_tombstone(c->store, sub->cls);

	if (r) {
		if (r->modified > c->since)
			add_row(c, r);
		return;
	}
	for (; t && t->deleted > c->since;
	     t = store_prev_tombstone(c->store, t)) {
		if (value_equal(t->ref, sub->ref)) {
			add_tombstone(c, t);
			return;
		}
	}
}

/* Oldest change first within a batch; frees it. */
static void batch_move(struct batch *b, struct value *set, size_t *n)
{
	while (b->n > 0)
		set->items[(*n)++] = b->v[--b->n];
	free(b->v);
}

static struct value *collection_set(struct collection *c)
{
	size_t n = c->messages.n + c->ops[EVENT_ADD].n + c->ops[EVENT_MOD].n +
		   c->ops[EVENT_DEL].n;
	struct value *set;

	if (n == 0)
		return NULL;
	set = value_set_new(n);
	n = 0;
	batch_move(&c->messages, set, &n);
	for (int op = EVENT_ADD; op <= EVENT_DEL; op++)
		batch_move(&c->ops[op], set, &n);
	return set;
}

static struct value *collect(const struct store *s, const struct event_subs *subs,
			     uint64_t since, uint64_t messages_since)
{
	struct collection c = { .store = s };

	for (unsigned i = 0; subs->any_class && i < schema_n_classes; i++) {
		c.since = i == CLASS_message ? messages_since : since;
		if (subs->classes[i])
			collect_class(&c, (int)i);
	}
	for (size_t i = 0; i < subs->n_refs; i++) {
		c.since = subs->refs[i].cls == CLASS_message ? messages_since :
							       since;
		collect_ref(&c, &subs->refs[i]);
	}
	return collection_set(&c);
}

/* A change wakes all who wait for its class, and most of those ask for the same
 * classes since the same token. */
struct value *event_collect(struct pool *p, const struct event_subs *subs,
			    uint64_t since, uint64_t messages_since)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	struct event_cache *c = &p->events->cache;

	if (subs->n_refs > 0)
		return collect(s, subs, since, messages_since);
	if (c->events && c->generation == store_generation(s) &&
	    c->since == since && c->messages_since == messages_since &&
	    !memcmp(c->classes, subs->classes, sizeof c->classes))
		return value_ref(c->events);
	value_unref(c->events);
	c->events = collect(s, subs, since, messages_since);
	c->generation = store_generation(s);
	c->since = since;
	c->messages_since = messages_since;
	memcpy(c->classes, subs->classes, sizeof c->classes);
	return value_ref(c->events);
}

void event_cache_clear(struct pool *p)
{
	value_unref(TAKE_PTR(p->events->cache.events));
}

/* ---- counts ---- */

static struct value *count_rows(const struct store *s)
{
	struct value *pairs[2 * EVENT_CLASSES];
	size_t n = 0;

	share();
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		if (!(c->flags & CLASS_IN_DB) || c->flags & CLASS_PRIVATE)
			continue;
		pairs[2 * n] = value_ref(shared.class_names[i]);
		pairs[2 * n + 1] = value_count((int64_t)rows_count(s, (int)i));
		n++;
	}
	return value_map_from(pairs, n);
}

struct value *event_ref_counts(struct pool *p)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	struct event_state *e = p->events;

	if (!e->counts || e->counts_at != store_generation(s)) {
		value_unref(e->counts);
		e->counts = count_rows(s);
		e->counts_at = store_generation(s);
	}
	return value_ref(e->counts);
}

/* ---- tokens ---- */

struct value *event_token(uint64_t generation, uint64_t messages)
{
	return value_printf("%020" PRIu64 ",%020" PRIu64, generation, messages);
}

static bool parse_number(const char *s, size_t n, uint64_t *ret)
{
	int64_t i;

	if (!int_parse(s, n, &i) || i < 0)
		return false;
	*ret = (uint64_t)i;
	return true;
}

bool event_token_parse(const struct value *token, uint64_t *ret,
		       uint64_t *ret_messages)
{
	const char *comma = memchr(token->s, ',', token->n);
	size_t n;

	*ret = *ret_messages = 0;
	if (token->n == 0)
		return true;
	if (!comma)
		return false;
	n = (size_t)(comma - token->s);
	return parse_number(token->s, n, ret) &&
	       parse_number(comma + 1, token->n - n - 1, ret_messages);
}
