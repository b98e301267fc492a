/* Members: their start, their turns, their end; and the data folder, in place of
 * raftdb/db_folder.c. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "raftdb/db_impl.h"
#include "tests/sim/sim_run.h"

static struct life **lives; /* all of the run */
static size_t n_lives, cap_lives;

/* --- raftdb/db_folder.c --- */

int disk_make_dir(const char *path)
{
	return 0;
}

int disk_claim(const char *raft_dir, uint64_t id)
{
	return 0;
}

int disk_lock(const char *dir, int *ret_fd)
{
	*ret_fd = -1;
	return 0;
}

struct node *node_by_dir(const char *dir)
{
	return &sim->nodes[strtoul(dir + 4, NULL, 10)]; /* "sim/N..." */
}

static struct disk *disk_of(const char *dir)
{
	return &node_by_dir(dir)->disk;
}

bool disk_has_state(const char *raft_dir)
{
	const struct disk *d = disk_of(raft_dir);

	return d->term > 0 || d->n_entries > 0 || d->snapshot;
}

bool disk_room(const char *dir, uint64_t *ret_bytes)
{
	*ret_bytes = disk_of(dir)->full ? 1 << 20 : (uint64_t)10 << 30;
	return true;
}

/* Disks here lose nothing but what was not synced. */
uint64_t disk_floor(const char *dir)
{
	return 0;
}

void disk_set_floor(const char *dir, uint64_t index)
{
}

/* --- who is who --- */

void nodes_init(void)
{
	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct node *n = &sim->nodes[i];

		n->i = (int)i;
		snprintf(n->dir, sizeof n->dir, "sim/%u", i);
		snprintf(n->me.address, sizeof n->me.address, "10.0.0.%u:8444",
			 i + 1);
		snprintf(n->me.fingerprint, sizeof n->me.fingerprint, "f%u", i);
		snprintf(n->me.uuid, sizeof n->me.uuid,
			 "%08x-0000-0000-0000-000000000000", 0xa0 + i);
		n->me.id = n->id = db_id_of_uuid(n->me.uuid);
		n->disk.first = 1;
	}
	n_lives = 0;
}

struct node *node_by_id(uint64_t id)
{
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].id == id)
			return &sim->nodes[i];
	return NULL;
}

struct node *node_by_address(const char *address)
{
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (strcmp(sim->nodes[i].me.address, address) == 0)
			return &sim->nodes[i];
	return NULL;
}

struct node *node_serving(void)
{
	struct node *best = NULL;
	uint64_t term = 0;

	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct node *n = &sim->nodes[i];

		if (n->life && n->life->serving_term > term) {
			best = n;
			term = n->life->serving_term;
		}
	}
	return best;
}

/* --- what the database says --- */

static const struct db_member *on_trusted(void *data, const char *fingerprint)
{
	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (strcmp(sim->nodes[i].me.fingerprint, fingerprint) == 0)
			return &sim->nodes[i].me;
	return NULL;
}

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	check_changed(data, t, generation, changes, n);
}

static void on_reloaded(void *data)
{
	sim_trace("reloaded");
	check_reloaded(data);
}

static void on_leader(void *data, uint64_t id, bool serving)
{
	struct life *l = data;
	struct node *n = node_by_id(id);

	l->serving_term = serving ? l->db->st.term : 0;
	sim->n_elections += serving;
	sim_trace("leader: %c%d%s, term %llu", n ? 'n' : '-', n ? n->i : 0,
		  serving ? " (me)" : "", (unsigned long long)l->db->st.term);
}

/* Without its cause among the faults of the run none is expected. */
static const struct {
	const char *why;
	size_t weight; /* in the shape; 0: always */
} expected_ends[] = {
	{ "raft gave up: a write to its log failed",
	  offsetof(struct shape, w_disk_error) },
	{ "the disk takes no writes of the raft log",
	  offsetof(struct shape, w_disk_stall) },
	{ "this host was removed from the pool", 0 },
};

static bool is_expected(size_t i)
{
	return expected_ends[i].weight == 0 ||
	       *(const unsigned *)((const char *)&sim->shape +
				   expected_ends[i].weight) > 0;
}

static void on_fatal(void *data, enum db_end end, const char *why)
{
	struct life *l = data;

	if (l->dying)
		return;
	sim_trace("fatal: %s", why);
	for (size_t i = 0; i < ARRAY_LEN(expected_ends); i++)
		if (strcmp(why, expected_ends[i].why) == 0 && is_expected(i)) {
			l->dying = expected_ends[i].why;
			return;
		}
	sim_fail("fatal", "member n%d: %s", l->node->i, why);
}

/* --- memory --- */

/* A member whose memory ends is dead at that very place (base/util.h ends the
 * process). What it does in the rest of its turn has no effect on anything that
 * outlives it: see life_effect(). */
static void count_allocation(void)
{
	struct life *l = sim ? sim->cur : NULL;

	if (!l || !l->in_turn || l->dead || l->dying || l->memory == 0 ||
	    --l->memory > 0)
		return;
	sim_trace("memory ends");
	sim->n_exhausted++;
	l->dying = "no memory";
}

void *__wrap_xmalloc(size_t n);
void *__wrap_xcalloc(size_t n, size_t size);
void *__wrap_xrealloc(void *p, size_t n);
char *__wrap_xstrdup(const char *s);
char *__wrap_xstrndup(const char *s, size_t n);

void *__wrap_xmalloc(size_t n)
{
	count_allocation();
	return __real_xmalloc(n);
}

void *__wrap_xcalloc(size_t n, size_t size)
{
	count_allocation();
	return __real_xcalloc(n, size);
}

void *__wrap_xrealloc(void *p, size_t n)
{
	count_allocation();
	return __real_xrealloc(p, n);
}

char *__wrap_xstrdup(const char *s)
{
	count_allocation();
	return __real_xstrdup(s);
}

char *__wrap_xstrndup(const char *s, size_t n)
{
	count_allocation();
	return __real_xstrndup(s, n);
}

/* --- life --- */

static struct life *life_new(struct node *n)
{
	struct life *l = xcalloc(1, sizeof *l);

	l->node = n;
	l->started_at = sim->now;
	l->memory = n->start_memory;
	n->start_memory = 0;
	list_init(&l->conns);
	list_init(&l->inbox);
	if (n_lives == cap_lives) {
		cap_lives = MAX(cap_lives * 2, (size_t)64);
		lives = xrealloc(lives, cap_lives * sizeof(struct life *));
	}
	lives[n_lives++] = l;
	return l;
}

static struct db_config config_of(const struct node *n)
{
	const struct shape *s = &sim->shape;

	return (struct db_config){
		.dir = n->dir,
		.id = n->id,
		.peer_address = n->me.address,
		.election_timeout_ms = s->election_ms,
		.heartbeat_ms = s->heartbeat_ms,
		.snapshot_threshold = s->snapshot_threshold,
		.txn_timeout_ms = s->txn_timeout_ms,
		.read_timeout_ms = s->read_timeout_ms,
	};
}

void node_bootstrap(struct node *n)
{
	struct db_config cfg = config_of(n);

	xassert(db_bootstrap(&cfg) == 0);
}

void node_start(struct node *n)
{
	struct life *l = life_new(n), *before = sim->cur;
	struct db_config cfg = config_of(n);
	const struct db_callbacks cb = {
		.data = l,
		.trusted = on_trusted,
		.changed = on_changed,
		.reloaded = on_reloaded,
		.leader = on_leader,
		.fatal = on_fatal,
	};
	int r;

	xassert(!n->life);
	sim->cur = l;
	sim_trace("start");
	l->in_turn = true;
	uv_loop_init(&l->loop);
	r = db_open(&l->loop, &cfg, &cb, &l->db);
	if (r < 0 && !l->dying)
		sim_fail("start", "member n%d does not start: %d", n->i, r);
	l->in_turn = false;
	l->open = r == 0;
	n->life = l;
	n->removed = false;
	if (l->dying) {
		node_crash(n, l->dying);
		node_restart_later(n);
	} else {
		check_started(l);
		run_turn_at(l, sim->now);
	}
	sim->cur = before;
}

static void on_db_closed(void *data)
{
	((struct life *)data)->open = false;
}

/* What has no effect any more is closed as if it had time to. */
static void life_end(struct life *l)
{
	struct life *before = sim->cur;

	xassert(!l->in_turn && !l->dead);
	l->dead = true;
	l->node->life = NULL;
	net_life_ended(l);
	run_drop_inbox(l);
	sim->cur = l;
	if (l->open)
		db_close(l->db, on_db_closed, l);
	while (uvsim_drain_turn(&l->loop))
		;
	xassert(!l->open);
	l->db = NULL;
	uvsim_free(&l->loop);
	sim->cur = before;
}

void node_crash(struct node *n, const char *why)
{
	struct life *l = n->life;

	sim_trace("n%d ends: %s", n->i, why);
	sim->n_crashes++;
	io_life_ended(l);
	life_end(l);
}

void node_stop(struct node *n)
{
	sim_trace("n%d stops", n->i);
	io_life_ending(n->life);
	life_end(n->life);
}

void node_wipe(struct node *n)
{
	xassert(!n->life);
	disk_free_all(&n->disk);
}

bool life_effect(struct life *l)
{
	if (!l)
		return true;
	if (l->dead || l->dying)
		return false;
	if (l->crash_in > 0 && --l->crash_in == 0) {
		l->dying = "a crash within a step";
		return false;
	}
	return true;
}

static void on_wake(void *data)
{
	struct life *l = data;

	if (!l->dead)
		run_turn_at(l, sim->now);
}

static void plan_next(struct life *l)
{
	int64_t next = uvsim_next(&l->loop);

	if (uvsim_idle_active(&l->loop)) {
		run_turn_at(l, l->busy_until);
		return;
	}
	if (next == INT64_MAX || (l->wake_at > sim->now && l->wake_at <= next))
		return;
	l->wake_at = next;
	sim_at(next, NULL, on_wake, NULL, l);
}

void life_turn(struct life *l)
{
	struct node *n = l->node;

	sim->cur = l;
	l->in_turn = true;
	uvsim_turn(l);
	l->in_turn = false;
	sim->cur = NULL;
	if (l->dying) {
		node_crash(n, l->dying);
		node_restart_later(n);
		return;
	}
	l->busy_until = sim->now + sim_between(10, 60);
	if (n->slow_until > sim->now)
		l->busy_until += sim_spread(n->slow_by);
	plan_next(l);
}

void nodes_free(void)
{
	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct node *n = &sim->nodes[i];

		if (n->life)
			life_end(n->life);
		disk_free_all(&n->disk);
	}
	for (size_t i = 0; i < n_lives; i++)
		free(lives[i]);
	n_lives = 0;
}
