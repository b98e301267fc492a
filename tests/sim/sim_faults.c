/* What goes wrong, and what an operator does meanwhile: partitions, crashes,
 * slow and failing disks, jumping clocks, changes of membership, transfers. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "raftdb/db_impl.h"
#include "tests/sim/sim_run.h"

struct change_note {
	struct node *who;
	char what;
};

/* --- members that come back --- */

static void on_restart(void *data)
{
	struct node *n = data;

	if (!n->life && n->in_pool)
		node_start(n);
}

void node_restart_later(struct node *n)
{
	int64_t after = sim->healed ? 10 * MS : sim_spread(700 * MS);

	n->disk.fail_writes = n->disk.fail_meta = 0;
	sim_at(sim->now + after, NULL, on_restart, NULL, n);
}

static struct node *some(bool up)
{
	struct node *which[NODES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].in_pool && (sim->nodes[i].life != NULL) == up)
			which[n++] = &sim->nodes[i];
	return n > 0 ? which[sim_pick(n)] : NULL;
}

/* A victim: more often than by chance the leader. */
static struct node *victim(void)
{
	struct node *leader = node_serving();

	return leader && sim_chance(400) ? leader : some(true);
}

/* --- the network --- */

struct cut {
	int a, b;
};

static void on_uncut(void *data)
{
	struct cut *c = data;

	net_cut(c->a, c->b, false);
	free(c);
}

static void cut_for(int a, int b, int64_t us)
{
	struct cut *c = xcalloc(1, sizeof *c);

	*c = (struct cut){ a, b };
	net_cut(a, b, true);
	sim_at(sim->now + us, NULL, on_uncut, free, c);
}

static int64_t how_long(void)
{
	return sim_chance(150) ? sim_between(3 * SEC, 8 * SEC)
			       : sim_spread(900 * MS);
}

static void do_partition(void)
{
	uint64_t side = sim_next();
	int64_t us = how_long();
	struct node *alone = sim_chance(400) ? victim() : NULL;

	if (alone)
		side = 1ull << alone->i;
	sim_trace("partition %llx for %lld ms",
		  (unsigned long long)(side & ((1u << sim->n_nodes) - 1)),
		  (long long)us / MS);
	for (unsigned a = 0; a < sim->n_nodes; a++)
		for (unsigned b = 0; b < sim->n_nodes; b++)
			if ((side >> a & 1) != (side >> b & 1))
				cut_for((int)a, (int)b, us);
}

static void do_oneway(void)
{
	struct node *v = victim();
	int64_t us = how_long();
	bool in = sim_chance(500), all = sim_chance(400);

	if (!v)
		return;
	sim_trace("n%d: one way %s is cut for %lld ms", v->i, in ? "in" : "out",
		  (long long)us / MS);
	for (unsigned b = 0; b < sim->n_nodes; b++)
		if ((int)b != v->i && (all || sim_chance(500)))
			cut_for(in ? (int)b : v->i, in ? v->i : (int)b, us);
}

static void do_break(void)
{
	struct node *a = some(true), *b = some(true);

	if (a && b && a != b) {
		sim_trace("connections of n%d and n%d break", a->i, b->i);
		net_break(a, b);
	}
}

/* --- members --- */

static void do_crash(void)
{
	struct node *v = victim();

	if (!v)
		return;
	if (sim_chance(200))
		node_stop(v);
	else
		node_crash(v, "crash");
	node_restart_later(v);
}

static void do_midcrash(void)
{
	struct node *v = victim();

	if (v && v->life->crash_in == 0)
		v->life->crash_in = 1 + (unsigned)sim_pick(40);
}

/* Its memory ends at one of the next allocations, or so early in its next life
 * that it may not even start. */
static void do_memory(void)
{
	struct node *v = victim();
	unsigned n = 1 + (unsigned)sim_pick(sim_chance(500) ? 60 : 3000);

	if (!v)
		return;
	sim_trace("n%d: memory for %u allocations is left", v->i, n);
	if (sim_chance(300)) {
		v->start_memory = n;
		node_crash(v, "killed for its memory");
		node_restart_later(v);
	} else if (v->life->memory == 0) {
		v->life->memory = n;
	}
}

static void do_restart_all(void)
{
	sim_trace("power is lost");
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].life) {
			node_crash(&sim->nodes[i], "power");
			node_restart_later(&sim->nodes[i]);
		}
}

static void do_pause(void)
{
	struct node *v = victim();
	int64_t us = sim_spread(400 * MS);

	if (!v)
		return;
	sim_trace("n%d pauses for %lld ms", v->i, (long long)us / MS);
	v->life->busy_until = MAX(v->life->busy_until, sim->now + us);
}

static void do_slow(void)
{
	struct node *v = victim();

	if (!v)
		return;
	v->slow_until = sim->now + sim_spread(2 * SEC);
	v->slow_by = sim_between(1 * MS, 30 * MS);
	sim_trace("n%d is slow", v->i);
}

static void do_clock(void)
{
	struct node *v = some(true);

	if (!v)
		return;
	v->clock_offset += sim_between(-4000 * SEC, 4000 * SEC);
	if (sim_chance(300))
		v->mono_offset += sim_spread(5 * SEC); /* it was suspended */
	sim_trace("n%d: the clock jumps", v->i);
}

/* --- disks --- */

static void do_disk_error(void)
{
	struct node *v = victim();

	if (!v)
		return;
	sim_trace("n%d: disk writes will fail", v->i);
	if (sim_chance(400))
		v->disk.fail_meta = 1;
	else
		v->disk.fail_writes = 1;
}

static void do_disk_read(void)
{
	struct node *v = victim();

	if (!v)
		return;
	v->disk.fail_loads = 1 + (unsigned)sim_pick(3);
	sim_trace("n%d: %u loads of its snapshot will fail", v->i,
		  v->disk.fail_loads);
}

static void do_disk_stall(void)
{
	struct node *v = victim();
	int64_t us = sim_chance(100) ? 17 * SEC : sim_spread(500 * MS);

	if (!v)
		return;
	sim_trace("n%d: the disk hangs for %lld ms", v->i, (long long)us / MS);
	if (sim_chance(500))
		v->disk.stalled_until = sim->now + us;
	else
		v->disk.slow_until = sim->now + us;
}

static void on_not_full(void *data)
{
	((struct node *)data)->disk.full = false;
}

static void do_full(void)
{
	struct node *v = victim();

	if (!v)
		return;
	sim_trace("n%d: the disk is full", v->i);
	v->disk.full = true;
	sim_at(sim->now + sim_spread(2 * SEC), NULL, on_not_full, NULL, v);
}

/* --- the operator --- */

static void on_gone(void *data)
{
	struct node *n = data;

	if (n->life)
		node_crash(n, "it was removed");
	n->in_pool = false;
	node_wipe(n);
}

static void on_change(void *data, int error)
{
	struct change_note *note = data;

	if (sim->cur && (sim->cur->dying || sim->cur->dead))
		error = -ECANCELED; /* nobody is there any more to say so */
	sim_trace("operator: %c n%d: %d", note->what, note->who->i, error);
	if (error == 0)
		sim->n_changes++;
	if (error == 0 && note->what == '-')
		sim_at(sim->now + sim_spread(500 * MS), NULL, on_gone, NULL,
		       note->who);
	free(note);
}

static struct change_note *note(struct node *who, char what)
{
	struct change_note *n = xcalloc(1, sizeof *n);

	n->who = who;
	n->what = what;
	return n;
}

struct roles {
	enum db_role role[NODES_MAX];
	bool in[NODES_MAX];
	unsigned voters, n;
};

static struct roles roles_of(const struct db *db)
{
	struct roles r = { 0 };

	for (unsigned i = 0; i < db->n_members; i++) {
		const struct node *n = node_by_id(db->members[i].id);

		r.in[n->i] = true;
		r.role[n->i] = db->members[i].role;
		r.voters += db->members[i].role == DB_VOTER;
		r.n++;
	}
	return r;
}

static void change_member(struct db *db, struct node *n, const struct roles *r)
{
	struct change_note *c;
	int e = -EPERM;

	if (!r->in[n->i]) {
		if (n->in_pool)
			return; /* it is on its way out */
		n->in_pool = true;
		if (!n->life)
			node_start(n);
		c = note(n, '+');
		e = db_add_member(db, n->id, n->me.address, on_change, c);
	} else if (n->id == db->id) {
		return;
	} else if (r->role[n->i] != DB_VOTER) {
		bool up = r->voters < 5 && sim_chance(700);
		bool remove = !up && sim_chance(400);

		c = note(n, remove ? '-' : up ? 'v' : 's');
		e = remove ? db_remove_member(db, n->id, on_change, c)
			   : db_assign(db, n->id, up ? DB_VOTER : DB_STANDBY,
				       on_change, c);
	} else if (r->voters > 3) {
		bool remove = sim_chance(400);

		c = note(n, remove ? '-' : 's');
		e = remove ? db_remove_member(db, n->id, on_change, c)
			   : db_assign(db, n->id, DB_STANDBY, on_change, c);
	} else {
		return;
	}
	if (e < 0)
		on_change(c, e);
}

static void on_member(void *data)
{
	struct db *db = sim->cur->db;
	struct roles r = roles_of(db);
	struct node *n = &sim->nodes[sim_pick(sim->n_nodes)];

	change_member(db, n, &r);
}

static void do_member(void)
{
	struct node *leader = node_serving();

	if (leader)
		sim_at(sim->now, leader->life, on_member, NULL, NULL);
}

static void on_transfer(void *data)
{
	struct db *db = sim->cur->db;
	struct node *to = sim_chance(500) ? some(true) : NULL;
	struct change_note *c = note(to ? to : sim->cur->node, 't');
	int e = db_transfer(db, to ? to->id : 0, on_change, c);

	if (e < 0)
		on_change(c, e);
}

static void do_transfer(void)
{
	struct node *leader = node_serving();

	if (leader)
		sim_at(sim->now, leader->life, on_transfer, NULL, NULL);
}

/* --- all together --- */

static const struct {
	size_t weight; /* where in the shape */
	void (*fn)(void);
} kinds[] = {
#define KIND(name) { offsetof(struct shape, w_##name), do_##name }
	KIND(partition), KIND(oneway), KIND(crash), KIND(midcrash),
	KIND(pause), KIND(slow), KIND(disk_error), KIND(disk_stall),
	KIND(member), KIND(transfer), KIND(clock), KIND(break), KIND(full),
	KIND(restart_all), KIND(memory), KIND(disk_read),
};

static unsigned weight(size_t i)
{
	return *(const unsigned *)((const char *)&sim->shape + kinds[i].weight);
}

static void on_fault(void *data)
{
	uint64_t total = 0, at;

	if (sim->healed)
		return;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		total += weight(i);
	at = total > 0 ? sim_pick(total) : 0;
	for (size_t i = 0; total > 0 && i < ARRAY_LEN(kinds); i++) {
		if (at < weight(i)) {
			sim->n_faults++;
			kinds[i].fn();
			break;
		}
		at -= weight(i);
	}
	sim_at(sim->now + sim_spread(sim->shape.fault_mean), NULL, on_fault,
	       NULL, NULL);
}

/* One step on the way to the roles that members should have; true: all do. */
static bool form_step(struct db *db)
{
	struct roles r = roles_of(db);

	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct node *n = &sim->nodes[i];
		bool first = !sim->healed;
		enum db_role want = first && i < sim->shape.n_voters
					    ? DB_VOTER
					    : DB_STANDBY;
		struct change_note *c;
		int e;

		if (!n->in_pool || (r.in[i] && r.role[i] == want) ||
		    (r.in[i] && !first && r.role[i] != DB_SPARE))
			continue;
		c = note(n, r.in[i] ? 'a' : '+');
		e = r.in[i] ? db_assign(db, n->id, want, on_change, c)
			    : db_add_member(db, n->id, n->me.address, on_change,
					    c);
		if (e < 0)
			free(c);
		return false;
	}
	return true;
}

static void on_form(void *data);

static void form_soon(int64_t us)
{
	sim_at(sim->now + us, NULL, on_form, NULL, NULL);
}

static void on_form_there(void *data)
{
	if (!form_step(sim->cur->db)) {
		form_soon(20 * MS);
		return;
	}
	if (sim->healed) {
		load_final();
		form_soon(500 * MS); /* a change may be lost with its leader */
		return;
	}
	sim_trace("the pool is formed");
	sim_at(sim->now + sim_spread(300 * MS), NULL, on_fault, NULL, NULL);
}

static void on_form_dropped(void *data)
{
	form_soon(20 * MS);
}

static void on_form(void *data)
{
	struct node *leader = node_serving();

	if (leader)
		sim_at(sim->now, leader->life, on_form_there, on_form_dropped,
		       NULL);
	else
		form_soon(20 * MS);
}

void faults_start(void)
{
	unsigned n = sim->shape.n_voters + sim->shape.n_standbys;

	node_bootstrap(&sim->nodes[0]);
	for (unsigned i = 0; i < n; i++) {
		sim->nodes[i].in_pool = true;
		node_start(&sim->nodes[i]);
	}
	form_soon(20 * MS);
}

void faults_heal(void)
{
	sim->healed = true;
	sim_trace("everything heals");
	net_heal();
	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct node *n = &sim->nodes[i];

		n->slow_until = n->disk.slow_until = n->disk.stalled_until = 0;
		n->disk.full = false;
		n->disk.fail_writes = n->disk.fail_meta = 0;
		n->disk.fail_loads = n->start_memory = 0;
		if (n->life)
			n->life->crash_in = n->life->memory = 0;
		else if (n->in_pool)
			node_start(n);
	}
	form_soon(1 * SEC);
}
