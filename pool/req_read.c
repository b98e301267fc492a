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

static void take_barrier(struct req *r)
{
	struct req_own *o = req_own(r);
	struct pool *p = r->pool;

	o->barrier = needs_barrier(r);
	if (o->barrier)
		p->hooks.read_barrier(p->hooks.data, on_barrier, r);
	else
		o->fresh(r);
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
	if (!o->barrier && req_needs_session(c) && h->age_ms)
		c->age_ms = h->age_ms(h->data);
}
