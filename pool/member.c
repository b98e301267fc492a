/* Members of the replication group. The `member` rows say who belongs to it and
 * in what role; the serving leader brings the group's configuration in step
 * with them, one change at a time. A member that has lost its log goes out and
 * comes in again, empty.
 *
 * Voters: all of up to three members, three of four, five of more; or three at
 * most. A voter that is gone for a time gives its seat to a stand-by that is
 * there. An operator sets both in pool.other_config.
 */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/vm.h"
#include "raftdb/db.h"

#define TICK_MS 500
#define THERE_MS 2000 /* heard of so lately: it may be given a seat */
#define MAX_LEFT 16

struct member_state {
	struct pool_timer timer;
	bool changing;      /* a configuration change is under way */
	bool rows_changing; /* a transaction on member rows is */
	uint64_t left[MAX_LEFT]; /* whose rows have gone; 0: free */
};

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static uint64_t id_of(const struct record *member)
{
	return strtoull(record_str(member, F_member_raft_id), NULL, 10);
}

struct record *member_of_host(const struct store *s, const char *host_ref)
{
	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m))
		if (value_is_str(m->fields[F_member_host], host_ref))
			return m;
	return NULL;
}

struct record *host_of_raft_id(const struct pool *p, uint64_t id)
{
	const struct store *s = store_of(p);

	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m))
		if (id_of(m) == id)
			return store_get_class(s, CLASS_host,
					       record_str(m, F_member_host));
	return NULL;
}

/* ---- the configuration follows the rows ---- */

static int wanted_role(const struct record *m)
{
	const char *role = record_str(m, F_member_wanted_role);

	return !strcmp(role, "voter") ? DB_VOTER :
	       !strcmp(role, "standby") ? DB_STANDBY : DB_SPARE;
}

static void on_configured(void *data, int error)
{
	struct pool *p = data;

	if (!p->members)
		return;
	p->members->changing = false;
	if (error < 0)
		log_warn("the group's configuration was not changed: %s",
			 strerror(-error));
	else
		pool_timer_arm(p, &p->members->timer, 0);
}

static bool is_lost(const struct pool *p, uint64_t id)
{
	return p->hooks.member_lost && p->hooks.member_lost(p->hooks.data, id);
}

static bool take_out(struct pool *p, uint64_t id)
{
	int r;

	p->members->changing = true;
	r = p->hooks.member_remove(p->hooks.data, id, on_configured, p);
	if (r < 0)
		p->members->changing = false;
	return r == 0;
}

/* True when a change has been begun. */
static bool configure(struct pool *p, const struct record *m, bool promote)
{
	uint64_t id = id_of(m);
	int has = p->hooks.member_role(p->hooks.data, id);
	int wants = wanted_role(m);
	int r;

	if (id && is_lost(p, id))
		return has >= 0 && take_out(p, id);
	if (has == wants || (wants > has) != promote || id == 0)
		return false;
	p->members->changing = true;
	r = has < 0 ? p->hooks.member_add(p->hooks.data, id,
					  record_str(m, F_member_peer_address),
					  on_configured, p) :
		      p->hooks.member_assign(p->hooks.data, id, wants,
					     on_configured, p);
	if (r < 0)
		p->members->changing = false;
	return r == 0;
}

static bool drop_left(struct pool *p)
{
	uint64_t *left = p->members->left;

	for (size_t i = 0; i < MAX_LEFT; i++) {
		if (!left[i])
			continue;
		if (left[i] == p->leader_id || host_of_raft_id(p, left[i]) ||
		    p->hooks.member_role(p->hooks.data, left[i]) < 0) {
			left[i] = 0;
			continue;
		}
		if (take_out(p, left[i]))
			return true;
	}
	return false;
}

/* Promotions go first: a seat is filled before another one is given up. */
static void follow_rows(struct pool *p)
{
	const struct store *s = store_of(p);

	if (p->members->changing)
		return;
	for (int promote = 1; promote >= 0; promote--)
		for (struct record *m = store_first(s, CLASS_member); m;
		     m = store_next(s, m))
			if (configure(p, m, promote))
				return;
	drop_left(p);
}

/* ---- the rows follow who is there ---- */

size_t member_voters_wanted(const struct pool *p, size_t members)
{
	size_t most = (size_t)member_setting(p, MEMBER_VOTERS);

	return members <= 3 ? members : MIN(members == 4 ? 3 : 5, most);
}

static bool is_here(const struct pool *p, const struct record *m)
{
	return id_of(m) == p->leader_id;
}

/* A new leader has not heard from anybody yet. */
static bool is_live(const struct pool *p, const struct record *m)
{
	int64_t limit = member_setting(p, MEMBER_REPLACE_AFTER) * 1000;

	return is_here(p, m) ||
	       env_mono_ms() < p->hosts->serving_since_ms + limit ||
	       p->hooks.member_alive(p->hooks.data, id_of(m), limit);
}

static bool is_there(const struct pool *p, const struct record *m)
{
	return is_here(p, m) ||
	       p->hooks.member_alive(p->hooks.data, id_of(m), THERE_MS);
}

/* Members whose row wants the role and for whom ok() is as said: the first one
 * that does not lead, and how many. */
static struct record *find_member(struct pool *p, int role,
				  bool (*ok)(const struct pool *,
					     const struct record *),
				  bool says, size_t *ret_n)
{
	const struct store *s = store_of(p);
	struct record *found = NULL;

	*ret_n = 0;
	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m)) {
		if (wanted_role(m) != role || ok(p, m) != says)
			continue;
		found = found || is_here(p, m) ? found : m;
		++*ret_n;
	}
	return found;
}

static void on_rows(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (p->members)
		p->members->rows_changing = false;
}

static void set_role(struct txn *t, const struct record *m, const char *role)
{
	if (!m)
		return;
	txn_guard_version(t, m);
	txn_set(t, m->cls, value_str(m->ref), F_member_wanted_role,
		value_stringz(role));
}

/* One seat at a time: a stand-by takes an empty one or that of a dead voter; of
 * too many the dead go first. */
static void balance(struct pool *p)
{
	size_t n_live, n_dead, n_standbys;
	struct record *live = find_member(p, DB_VOTER, is_live, true, &n_live);
	struct record *dead = find_member(p, DB_VOTER, is_live, false, &n_dead);
	struct record *standby = find_member(p, DB_STANDBY, is_there, true,
					     &n_standbys);
	size_t wanted = member_voters_wanted(p, store_count(store_of(p),
							    CLASS_member));
	bool surplus = n_live + n_dead > wanted;
	struct txn *t;

	if (p->members->rows_changing || p->members->changing ||
	    (!surplus && (!standby || n_live >= wanted)))
		return;
	t = txn_new("leader");
	if (!surplus)
		set_role(t, standby, "voter");
	if (surplus || n_live + n_dead >= wanted)
		set_role(t, dead || !surplus ? dead : live, "standby");
	p->members->rows_changing = true;
	pool_submit(p, t, on_rows, p);
}

/* ---- module ---- */

static void on_tick(struct pool *p, void *data)
{
	if (p->serving && pool_row(p)) {
		balance(p);
		follow_rows(p);
	}
	pool_timer_arm(p, &p->members->timer, TICK_MS);
}

static int member_init(struct pool *p)
{
	p->members = xcalloc(1, sizeof *p->members);
	pool_timer_init(&p->members->timer, on_tick, NULL);
	pool_timer_arm(p, &p->members->timer, TICK_MS);
	return 0;
}

static void member_free(struct pool *p)
{
	if (!p->members)
		return;
	pool_timer_cancel(p, &p->members->timer);
	free(TAKE_PTR(p->members));
}

static void member_changed(struct pool *p, const struct change *c)
{
	if (c->cls->id != CLASS_member || c->kind != CHANGE_DEL)
		return;
	for (size_t i = 0; i < MAX_LEFT; i++) {
		if (p->members->left[i])
			continue;
		p->members->left[i] = id_of(c->before);
		return;
	}
}

const struct pool_module member_module = {
	.name = "member",
	.init = member_init,
	.free = member_free,
	.changed = member_changed,
};
