/* How fresh the store must be that a call sees, and what its reply tells of it.
 *
 * A call waits, if it must, first for the generation that its client has seen
 * on some member, then for the read barrier. A local read does without the
 * barrier: then the generation is what keeps time from running backwards for a
 * client that goes from member to member. docs/consistency.md says more.
 */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/core.h"

#define BEHIND_MS 5000 /* for a generation that this member lacks */
#define READ_KEY "xenpool-read" /* in session.other_config */

bool req_needs_session(const struct call *c)
{
	return c->method ? c->method->flags & METHOD_SESSION : c->session != NULL;
}

/* ---- what is a local read ---- */

static const bool read_kinds[METHOD_KIND_MAX] = {
	[METHOD_GET] = true,
	[METHOD_GET_RECORD] = true,
	[METHOD_GET_BY_UUID] = true,
	[METHOD_GET_BY_NAME_LABEL] = true,
	[METHOD_GET_ALL] = true,
	[METHOD_GET_ALL_WHERE] = true,
	[METHOD_GET_ALL_RECORDS] = true,
	[METHOD_GET_ALL_RECORDS_WHERE] = true,
};

/* The names of custom messages that change nothing say so. */
static bool only_reads(const struct method_def *m)
{
	const char *verb = strchr(m->name, '.');

	return read_kinds[m->kind] || m->cls == CLASS_event ||
	       (verb && (!strncmp(verb, ".get_", 5) ||
			 !strncmp(verb, ".assert_", 8)));
}

static bool session_wants_local(const struct record *session)
{
	const struct value *config = session->fields[F_session_other_config];

	return !strcmp(value_get_str(config, READ_KEY), "local");
}

/* A session's wish is for what it reads; checks before a change stay fresh
 * unless the call itself asks. */
static bool wants_local(const struct req *r, const struct record *session)
{
	const struct call *c = r->call;

	if (c->origin.read != CALL_READ_DEFAULT)
		return c->origin.read == CALL_READ_LOCAL;
	return c->method && c->mode == CALL_SYNC && only_reads(c->method) &&
	       session && session_wants_local(session);
}

/* A call may do without the barrier when it changes nothing that others must
 * see, or when it must work without a majority. A session that is not known
 * here may have come to be elsewhere just now. */
static bool needs_barrier(struct req *r)
{
	const struct call *c = r->call;
	const char *ref = value_str(c->session);
	struct record *session;

	if (!req_needs_session(c))
		return false;
	session = session_find(r->pool, ref);
	r->reads_local = wants_local(r, session);
	if (session_is_local(r->pool, ref))
		return false;
	if (!session)
		return true;
	return !r->reads_local &&
	       !(c->method && c->method->flags & METHOD_EMERGENCY);
}

/* ---- waiting ---- */

static void on_barrier(void *data, int error)
{
	struct req *r = data;

	if (error < 0)
		req_fail_value(r, error_of_errno(r->pool, error));
	else
		req_own(r)->fresh(r);
}

/* ---- trials ----
 *
 * A change is judged where it is applied, by its guards, on a store that has
 * everything before it; the barrier only sees to it that what the handler finds
 * wrong is really so. So the generated changes run at once. What they commit
 * needs no barrier (the session is one more guard); when they end in any other
 * way, that does not count, and they run again behind one.
 */

#define TRIAL_AGE_MS 500 /* an older store has likely lost the majority */

static const bool trial_kinds[METHOD_KIND_MAX] = {
	[METHOD_SET] = true,	     [METHOD_ADD] = true,
	[METHOD_REMOVE] = true,	     [METHOD_ADD_TO] = true,
	[METHOD_REMOVE_FROM] = true, [METHOD_CREATE] = true,
	[METHOD_DESTROY] = true,
};

static bool may_try(const struct req *r)
{
	const struct pool_hooks *h = &r->pool->hooks;
	const struct method_def *m = r->method;

	return m && trial_kinds[m->kind] && r->call->mode == CALL_SYNC &&
	       r->pool->reqs->handlers[m - schema_methods] ==
		       generic_handlers[m->kind] &&
	       session_find(r->pool, value_str(r->call->session)) &&
	       h->age_ms && h->age_ms(h->data) < TRIAL_AGE_MS;
}

static void take_barrier(struct req *r)
{
	struct req_own *o = req_own(r);
	struct pool *p = r->pool;

	o->no_barrier = !needs_barrier(r);
	o->trial = !o->no_barrier && may_try(r);
	if (o->no_barrier || o->trial)
		o->fresh(r);
	else
		p->hooks.read_barrier(p->hooks.data, on_barrier, r);
}

void req_end_trial(struct req *r)
{
	struct pool *p = r->pool;

	req_own(r)->trial = false;
	p->hooks.read_barrier(p->hooks.data, on_barrier, r);
}

static void on_behind(struct pool *p, void *data)
{
	struct req_own *o = data;
	char wanted[24], here[24];

	snprintf(wanted, sizeof wanted, "%llu",
		 (unsigned long long)o->r.call->origin.min_generation);
	snprintf(here, sizeof here, "%llu",
		 (unsigned long long)store_generation(req_store(&o->r)));
	req_fail(&o->r, "XENPOOL_GENERATION_NOT_REACHED", wanted, here, NULL);
}

void req_when_fresh(struct req *r, void (*fresh)(struct req *r))
{
	struct req_own *o = req_own(r);

	o->fresh = fresh;
	if (store_generation(req_store(r)) >= r->call->origin.min_generation) {
		take_barrier(r);
		return;
	}
	list_push(&r->pool->reqs->behind, &o->in_key);
	o->timer.fn = on_behind;
	pool_timer_arm(r->pool, &o->timer, BEHIND_MS);
}

void req_generation_reached(struct pool *p, uint64_t generation)
{
	list_for_each_safe(it, &p->reqs->behind) {
		struct req_own *o = list_entry(it, struct req_own, in_key);

		if (o->r.call->origin.min_generation > generation)
			continue;
		list_remove(&o->in_key);
		pool_timer_cancel(p, &o->timer);
		req_set_ready(&o->r, take_barrier);
	}
}

/* ---- what the reply tells ---- */

void req_tell(const struct req *r, struct call *c)
{
	const struct req_own *o = (const struct req_own *)r;
	const struct pool_hooks *h = &r->pool->hooks;

	c->generation = store_generation(req_store(r));
	if (o->no_barrier && req_needs_session(c) && h->age_ms)
		c->age_ms = h->age_ms(h->data);
}
