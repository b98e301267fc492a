/* The host module: what must be done now and then on each host, and, on the
 * serving leader, who is alive. */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/storage.h"

#define TICK_MS 1000

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

/* ---- who is alive ---- */

static uint64_t raft_id_of(const struct pool *p, const struct record *host)
{
	const struct record *m = member_of_host(store_of(p),
						value_str(host->ref));

	return m ? strtoull(record_str(m, F_member_raft_id), NULL, 10) : 0;
}

/* A new leader has not heard from anybody yet. */
static bool is_grace(const struct pool *p)
{
	return env_mono_ms() < p->hosts->serving_since_ms +
				       (int64_t)p->cfg.host_dead_after_ms;
}

bool host_is_live(const struct pool *p, const struct record *host)
{
	uint64_t id;

	if (host == pool_this_host(p))
		return true;
	if (!p->serving || is_grace(p))
		return host_counts_live(p, host);
	id = raft_id_of(p, host);
	return id && p->hooks.member_alive(p->hooks.data, id,
					   p->cfg.host_dead_after_ms);
}

static void note_liveness(struct pool *p, struct record *host, bool live)
{
	struct record *m = store_get_class(store_of(p), CLASS_host_metrics,
					   record_str(host, F_host_metrics));
	struct txn *t;
	struct draft d;

	if (!m || record_bool(m, F_host_metrics_live) == live)
		return;
	log_info("host %s is %s", record_str(host, F_host_hostname),
		 live ? "alive" : "gone");
	t = txn_new("leader");
	txn_guard_version(t, m);
	txn_set(t, m->cls, value_str(m->ref), F_host_metrics_live,
		value_bool(live));
	draft_edit(&d, t, host);
	draft_write_host(&d, live);
	pool_submit(p, t, NULL, NULL);
}

static void watch_hosts(struct pool *p)
{
	const struct store *s = store_of(p);
	size_t n = 0, max = store_count(s, CLASS_host);
	char(*refs)[REF_LEN + 1] = xcalloc(max + 1, sizeof *refs);

	for (struct record *h = store_first(s, CLASS_host); h && n < max;
	     h = store_next(s, h))
		strncpy(refs[n++], value_str(h->ref), REF_LEN);
	for (size_t i = 0; i < n; i++) {
		struct record *h = store_get_class(s, CLASS_host, refs[i]);

		if (h)
			note_liveness(p, h, host_is_live(p, h));
	}
	free(refs);
}

/* ---- the leader is the pool's master ---- */

static void on_master_set(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (p->hosts)
		p->hosts->master_pending = false;
}

static void become_master(struct pool *p)
{
	struct record *pool = pool_row(p), *me = pool_this_host(p);
	struct txn *t;

	if (!pool || !me || p->hosts->master_pending ||
	    value_equal(pool->fields[F_pool_master], me->ref))
		return;
	t = txn_new("leader");
	txn_guard_field(t, pool, F_pool_master);
	txn_set(t, pool->cls, value_str(pool->ref), F_pool_master,
		value_ref(me->ref));
	message_create(t, "POOL_MASTER_TRANSITION", 4, "Host",
		       p->cfg.host_uuid, "This host is the pool's master now");
	p->hosts->master_pending = true;
	pool_submit(p, t, on_master_set, p);
}

/* ---- ticks ---- */

static void on_barrier(void *data, int error)
{
	struct pool *p = data;

	if (!p->hosts)
		return;
	p->hosts->barrier_pending = false;
	dbsync_refresh_host(p, error);
}

/* Own rows are written once after the start, and once more when the executor
 * has told what this host is. */
static void keep_own_rows(struct pool *p)
{
	struct host_state *h = p->hosts;
	bool due = !h->synced || (p->executor_up && h->exec_state &&
				  !h->hardware_synced);

	if (!due || h->barrier_pending || h->sync_pending || !pool_this_host(p))
		return;
	h->barrier_pending = true;
	p->hooks.read_barrier(p->hooks.data, on_barrier, p);
}

static void lead(struct pool *p)
{
	if (!pool_row(p)) {
		dbsync_create_pool(p);
		return;
	}
	become_master(p);
	sm_keep_drivers(p);
	watch_hosts(p);
	job_leader_tick(p);
}

static void work(struct pool *p)
{
	if (p->serving)
		lead(p);
	keep_own_rows(p);
}

static void on_tick(struct pool *p, void *data)
{
	work(p);
	pool_timer_arm(p, &p->hosts->timer, TICK_MS);
}

static int host_init(struct pool *p)
{
	p->hosts = xcalloc(1, sizeof *p->hosts);
	p->hosts->serving_since_ms = -1;
	pool_timer_init(&p->hosts->timer, on_tick, NULL);
	pool_timer_arm(p, &p->hosts->timer, 0);
	return 0;
}

static void host_free(struct pool *p)
{
	if (!p->hosts)
		return;
	pool_timer_cancel(p, &p->hosts->timer);
	value_unref(p->hosts->exec_state);
	free(TAKE_PTR(p->hosts));
}

static void host_leader(struct pool *p)
{
	if (p->serving && p->hosts->serving_since_ms < 0)
		p->hosts->serving_since_ms = env_mono_ms();
	if (!p->serving)
		p->hosts->serving_since_ms = -1;
	pool_timer_arm(p, &p->hosts->timer, 0);
}

static void host_changed(struct pool *p, const struct change *c)
{
	/* Our row has come: from our own first transaction, or by joining. */
	if (c->cls->id == CLASS_host && c->kind == CHANGE_ADD)
		pool_timer_arm(p, &p->hosts->timer, 0);
}

static void host_reloaded(struct pool *p)
{
	pool_timer_arm(p, &p->hosts->timer, 0);
}

static void take_state(struct pool *p, const struct value *msg)
{
	struct host_state *h = p->hosts;

	value_unref(h->exec_state);
	h->exec_state = value_ref(msg);
	h->state_is_fresh = true;
	keep_own_rows(p);
	if (h->hardware_synced)
		dbsync_refresh_metrics(p);
	vm_reconcile(p, msg);
}

static void host_message(struct pool *p, const struct value *msg)
{
	const char *type = value_get_str(msg, "type");

	if (!strcmp(type, "state")) {
		take_state(p, msg);
	} else if (!strcmp(type, "done")) {
		p->hosts->state_is_fresh = false;
	} else if (!strcmp(type, "domain")) {
		p->hosts->state_is_fresh = false;
		vm_domain_event(p, msg);
	}
}

static void host_executor(struct pool *p, bool up)
{
	p->hosts->state_is_fresh = false;
	if (!up)
		p->hosts->hardware_synced = false;
}

const struct pool_module host_module = {
	.name = "host",
	.init = host_init,
	.free = host_free,
	.changed = host_changed,
	.reloaded = host_reloaded,
	.leader = host_leader,
	.executor_message = host_message,
	.executor_connected = host_executor,
};
