/* The facade: what comes from outside goes to the modules in their order. */
#include <string.h>

#include "pool/core.h"

static char *copy_text(const char *s)
{
	return xstrdup(s ? s : "");
}

static void config_copy(struct pool_config *to, const struct pool_config *from)
{
	*to = *from;
	to->host_uuid = copy_text(from->host_uuid);
	to->address = copy_text(from->address);
	to->peer_address = copy_text(from->peer_address);
	to->certificate = copy_text(from->certificate);
	to->fingerprint = copy_text(from->fingerprint);
	to->hostname = copy_text(from->hostname);
	to->version = copy_text(from->version);
	to->first_password = copy_text(from->first_password);
	to->image_dir = copy_text(from->image_dir);
}

static void config_free(struct pool_config *c)
{
	explicit_bzero((char *)c->first_password, strlen(c->first_password));
	free((char *)c->host_uuid);
	free((char *)c->address);
	free((char *)c->peer_address);
	free((char *)c->certificate);
	free((char *)c->fingerprint);
	free((char *)c->hostname);
	free((char *)c->version);
	free((char *)c->first_password);
	free((char *)c->image_dir);
}

#define FOR_EACH_MODULE(m)                                             \
	for (const struct pool_module *const *m_ = pool_modules, *m;   \
	     (m = *m_); m_++)

struct pool *pool_new(const struct pool_config *cfg, const struct pool_hooks *h)
{
	struct pool *p = xcalloc(1, sizeof *p);

	config_copy(&p->cfg, cfg);
	p->hooks = *h;
	p->timers = timer_heap_new();
	FOR_EACH_MODULE(m) {
		if (m->init && m->init(p) < 0) {
			pool_free(p);
			return NULL;
		}
	}
	return p;
}

void pool_free(struct pool *p)
{
	size_t n = 0;

	if (!p)
		return;
	/* Modules put timers in and may use those before them. */
	while (pool_modules[n])
		n++;
	timer_heap_free(TAKE_PTR(p->timers));
	p->timers = timer_heap_new();
	timer_heap_hold(p, true);
	while (n-- > 0)
		if (pool_modules[n]->free)
			pool_modules[n]->free(p);
	timer_heap_free(p->timers);
	config_free(&p->cfg);
	free(p);
}

/* Without its state, or without its pool, a member knows no session: who waits
 * for one would wait in vain. */
static struct value *absence_error(const struct pool *p)
{
	const struct pool_hooks *h = &p->hooks;

	switch (h->absence ? h->absence(h->data) : POOL_PRESENT) {
	case POOL_REBUILDING:
		return api_error("HOST_STILL_BOOTING", NULL);
	case POOL_REMOVED:
		return api_error("HOST_UNKNOWN_TO_MASTER", p->cfg.host_uuid,
				 NULL);
	default:
		return NULL;
	}
}

void pool_call(struct pool *p, struct call *c)
{
	struct value *error = absence_error(p);

	if (error)
		call_fail_value(c, error);
	else
		req_begin(p, c);
}

void pool_changed(struct pool *p, const struct txn *t, uint64_t generation,
		  const struct change *changes, size_t n)
{
	FOR_EACH_MODULE(m) {
		for (size_t i = 0; m->changed && i < n; i++)
			m->changed(p, &changes[i]);
	}
	FOR_EACH_MODULE(m) {
		if (m->applied)
			m->applied(p, generation);
	}
}

void pool_reloaded(struct pool *p)
{
	FOR_EACH_MODULE(m) {
		if (m->reloaded)
			m->reloaded(p);
	}
}

void pool_leader(struct pool *p, uint64_t leader_id, bool is_serving)
{
	p->leader_id = leader_id;
	p->serving = is_serving;
	FOR_EACH_MODULE(m) {
		if (m->leader)
			m->leader(p);
	}
}

void pool_timers(struct pool *p)
{
	timer_heap_run(p);
}

void pool_executor_message(struct pool *p, const struct value *msg)
{
	FOR_EACH_MODULE(m) {
		if (m->executor_message)
			m->executor_message(p, msg);
	}
}

void pool_executor_connected(struct pool *p, bool up)
{
	p->executor_up = up;
	FOR_EACH_MODULE(m) {
		if (m->executor_connected)
			m->executor_connected(p, up);
	}
}

/* ---- background transactions ---- */

static void submit_ignored(void *data, int error, struct txn_result result)
{
}

void pool_submit(struct pool *p, struct txn *t, pool_txn_cb cb, void *data)
{
	p->hooks.submit(p->hooks.data, t, cb ? cb : submit_ignored, data);
}

/* ---- rows that everybody needs ---- */

struct record *pool_this_host(const struct pool *p)
{
	return store_by_uuid(p->hooks.store(p->hooks.data), CLASS_host,
			     p->cfg.host_uuid);
}

struct record *pool_row(const struct pool *p)
{
	return store_first(p->hooks.store(p->hooks.data), CLASS_pool);
}

struct record *pool_master(const struct pool *p)
{
	return p->leader_id ? host_of_raft_id(p, p->leader_id) : NULL;
}
