/* A pool of many members, of which few vote: it grows from one to all, and then
 * what happens to such a pool happens in turn, while clients write and read: its
 * master dies, a third of it is cut off, a member is removed and comes back. Who
 * and for how long, and all of the network and the disks, come from the seed. */
#include "tests/sim/sim.h"

#include <string.h>

#include "raftdb/db_impl.h"
#include "tests/sim/sim_run.h"

#define STEP_US (20 * MS)
#define WRITES 50 /* at least, between two steps of the story */

static struct {
	unsigned step;
	uint64_t acked; /* when the step began */
	int64_t since;
	int64_t grows_at; /* the first is asked for */
	uint64_t index;   /* the newcomers must reach */
	struct node *leaver;
} story;

/* --- membership --- */

static void step_now(void);

static void on_change(void *data, int error)
{
	sim_trace("operator: n%d: %d", ((struct node *)data)->i, error);
	sim->n_changes += error == 0;
	if (error == 0)
		step_now();
}

/* One step on the way; true: it is in, and in this role. What is refused, or
 * lost with the master, is asked for again. */
static bool bring(struct db *db, struct node *n, enum db_role role)
{
	const struct consensus_member *m = members_find(db, n->id);

	if (m && m->role == role)
		return true;
	n->in_pool = true;
	if (!n->life && !m)
		node_start(n);
	if (m)
		db_assign(db, n->id, role, on_change, n);
	else
		db_add_member(db, n->id, n->me.address, on_change, n);
	return false;
}

static bool all_stand_by(struct db *db)
{
	if (story.grows_at == 0)
		story.grows_at = sim->now;
	for (unsigned i = 1; i < sim->n_nodes; i++)
		if (!bring(db, &sim->nodes[i], DB_STANDBY))
			return false;
	return true;
}

/* What the master had when all were in. */
static bool all_have_the_state(struct db *db)
{
	if (story.index == 0)
		story.index = db->st.commit_index;
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].life->db->st.applied_index < story.index)
			return false;
	sim->joined_ms = (uint64_t)((sim->now - story.grows_at) / MS);
	return true;
}

static bool voters_are_chosen(struct db *db)
{
	for (unsigned i = 0; i < sim->shape.n_voters; i++)
		if (!bring(db, &sim->nodes[i], DB_VOTER))
			return false;
	return true;
}

/* --- what happens --- */

static bool clients_write(struct db *db)
{
	return sim->n_acked >= story.acked + WRITES &&
	       sim->now >= story.since + SEC;
}

static bool master_dies(struct db *db)
{
	sim->n_faults++;
	sim->cur->dying = "crash";
	return true;
}

static void on_reunited(void *data)
{
	net_heal();
}

static bool third_is_cut_off(struct db *db)
{
	bool off[NODES_MAX] = { false };

	for (unsigned n = 0; n < sim->n_nodes / 3;) {
		unsigned i = (unsigned)sim_pick(sim->n_nodes);

		n += !off[i];
		off[i] = true;
	}
	for (unsigned a = 0; a < sim->n_nodes; a++)
		for (unsigned b = 0; b < sim->n_nodes; b++)
			if (off[a] != off[b])
				net_cut((int)a, (int)b, true);
	sim_at(sim->now + sim_between(1 * SEC, 5 * SEC), NULL, on_reunited,
	       NULL, NULL);
	sim->n_faults++;
	return true;
}

/* As an operator wipes what was removed; who hears of it first ends itself. */
static void on_wipe(void *data)
{
	struct node *n = data;

	n->in_pool = false;
	if (n->life)
		node_crash(n, "it was removed");
	node_wipe(n);
}

static bool one_is_removed(struct db *db)
{
	if (!story.leaver)
		story.leaver = &sim->nodes[sim->shape.n_voters +
					   sim_pick(sim->shape.n_standbys)];
	if (members_find(db, story.leaver->id)) {
		db_remove_member(db, story.leaver->id, on_change, story.leaver);
		return false;
	}
	if (db->st.configuration_changing)
		return false;
	sim_at(sim->now, NULL, on_wipe, NULL, story.leaver);
	return true;
}

static bool it_comes_back(struct db *db)
{
	return bring(db, story.leaver, DB_STANDBY);
}

static bool all_heals(struct db *db)
{
	faults_heal();
	return true;
}

static const struct {
	const char *name;
	bool (*done)(struct db *db); /* in the master's turn */
} steps[] = {
#define STEP(name) { #name, name }
	STEP(clients_write), STEP(all_stand_by), STEP(all_have_the_state),
	STEP(voters_are_chosen), STEP(clients_write), STEP(master_dies),
	STEP(clients_write), STEP(third_is_cut_off), STEP(clients_write),
	STEP(one_is_removed), STEP(clients_write), STEP(it_comes_back),
	STEP(clients_write), STEP(all_heals),
};

static void on_step(void *data)
{
	if (story.step == ARRAY_LEN(steps) ||
	    !steps[story.step].done(sim->cur->db))
		return;
	sim_trace("story: %s", steps[story.step].name);
	story.step++;
	story.acked = sim->n_acked;
	story.since = sim->now;
}

static void step_now(void)
{
	struct node *leader = node_serving();

	if (leader)
		sim_at(sim->now, leader->life, on_step, NULL, NULL);
}

/* Besides what has been done: time goes on, and clients write. */
static void on_tick(void *data)
{
	step_now();
	if (story.step < ARRAY_LEN(steps))
		sim_at(sim->now + STEP_US, NULL, on_tick, NULL, NULL);
}

/* --- start and end --- */

void many_shape(struct shape *s, unsigned members)
{
	s->n_nodes = members;
	s->n_voters = MIN(sim_chance(500) ? 5u : 3u, members - 1);
	s->n_standbys = members - s->n_voters;
	s->w_disk_error = s->w_disk_stall = 0;
	s->end = 300 * SEC;
}

void many_start(void)
{
	memset(&story, 0, sizeof story);
	node_bootstrap(&sim->nodes[0]);
	sim->nodes[0].in_pool = true;
	node_start(&sim->nodes[0]);
	on_tick(NULL);
}

void many_end(void)
{
	const struct db *db = sim->nodes[0].life->db;
	struct hash128 digest = store_digest(db_store(db));
	unsigned voters = 0;

	for (unsigned i = 0; i < sim->n_nodes; i++) {
		const struct node *n = &sim->nodes[i];
		const struct consensus_member *m = members_find(db, n->id);
		struct hash128 d = { 0 };

		if (!m || m->role == DB_SPARE || !n->life)
			sim_fail("members", "n%u is not there in the end", i);
		d = store_digest(db_store(n->life->db));
		if (d.hi != digest.hi || d.lo != digest.lo)
			sim_fail("digest", "n%u differs in the end", i);
		voters += m->role == DB_VOTER;
	}
	if (db->n_members != sim->n_nodes || voters != sim->shape.n_voters)
		sim_fail("members", "%u members, %u voters in the end",
			 db->n_members, voters);
}
