#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "tests/raft_requests.h"
#include "tests/unit/raft_cluster.h"

#define DIR_PREFIX "cluster/"

static struct cluster *cluster; /* the only one */

static struct seat *seat_of(const struct raft_io *io)
{
	return io->impl;
}

struct raft *seat_raft(const struct seat *s)
{
	return s->top->data;
}

/* --- what libraft calls: mostly the fixture's, in its own words --- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
	struct seat *s = seat_of(io);

	assert_int_equal(s->transport->init(s->transport, id, address), 0);
	return s->real->init(s->real, id, s->address);
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote,
		   struct raft_snapshot **snapshot, raft_index *start,
		   struct raft_entry *entries[], size_t *n)
{
	struct raft_io *real = seat_of(io)->real;

	return real->load(real, term, vote, snapshot, start, entries, n);
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *c)
{
	struct raft_io *real = seat_of(io)->real;

	return real->bootstrap(real, c);
}

static int io_recover(struct raft_io *io, const struct raft_configuration *c)
{
	return RAFT_IOERR;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
	struct raft_io *real = seat_of(io)->real;

	return real->set_term(real, term);
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
	struct raft_io *real = seat_of(io)->real;

	return real->set_vote(real, id);
}

static int io_truncate(struct raft_io *io, raft_index index)
{
	return 0; /* nobody loads what the fixture keeps */
}

static raft_time io_time(struct raft_io *io)
{
	struct raft_io *real = seat_of(io)->real;

	return real->time(real);
}

static int io_random(struct raft_io *io, int min, int max)
{
	cluster->random = cluster->random * 1103515245u + 12345u;
	return min + (int)((cluster->random >> 8) % (unsigned)(max - min));
}

/* A write that fails when it is done. */
struct failing {
	struct raft_io_append real;
	struct raft_io_append *req;
	int status;
};

static void on_failed(struct raft_io_append *real, int status)
{
	struct failing *w = (struct failing *)real;
	struct raft_io_append *req = w->req;

	status = w->status;
	free(w);
	req->cb(req, status);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct seat *s = seat_of(io);
	struct failing *w;

	if (s->append_now)
		return s->append_now;
	if (!s->append_later)
		return s->real->append(s->real, req, entries, n, cb);
	w = xcalloc(1, sizeof *w);
	w->req = req;
	w->status = s->append_later;
	req->cb = cb;
	return s->real->append(s->real, &w->real, entries, n, on_failed);
}

static int io_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *m, raft_io_send_cb cb)
{
	struct seat *s = seat_of(io);

	s->n_sent++;
	if (m->type == RAFT_APPEND_ENTRIES_RESULT &&
	    m->append_entries_result.rejected > 0)
		s->refusal = m->append_entries_result;
	if (m->type == RAFT_REQUEST_VOTE_RESULT)
		s->vote = m->request_vote_result;
	return s->real->send(s->real, req, m, cb);
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct seat *s = seat_of(io);

	s->n_puts++;
	return s->real->snapshot_put(s->real, trailing, req, snapshot, cb);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	struct seat *s = seat_of(io);

	s->n_gets++;
	if (s->fail_gets == 0)
		return s->real->snapshot_get(s->real, req, cb);
	s->fail_gets--;
	assert_null(s->failing_get);
	req->cb = cb;
	s->failing_get = req;
	return 0;
}

/* --- what the fixture calls --- */

static struct seat *seat_of_real(const struct raft_io *real)
{
	for (unsigned i = 0; i < cluster->n; i++)
		if (cluster->seats[i].real == real)
			return &cluster->seats[i];
	fail();
	return NULL;
}

static void on_tick(struct raft_io *real)
{
	struct seat *s = seat_of_real(real);

	if (!s->silent && s->c)
		s->tick(s->top);
}

static void on_recv(struct raft_io *real, struct raft_message *m)
{
	struct seat *s = seat_of_real(real);

	if (!s->silent && s->c) {
		s->recv(s->top, m);
	} else if (m->type == RAFT_APPEND_ENTRIES &&
		   m->append_entries.n_entries > 0) {
		raft_free(m->append_entries.entries[0].batch);
		raft_free(m->append_entries.entries);
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->install_snapshot.conf);
		raft_free(m->install_snapshot.data.base);
	}
}

static int io_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick,
		    raft_io_recv_cb recv)
{
	struct seat *s = seat_of(io);

	s->tick = tick;
	s->recv = recv;
	return s->real->start(s->real, ms, on_tick, on_recv);
}

static void on_closed(struct raft_uv_transport *t)
{
	struct seat *s = t->data;

	s->close_cb(s->top);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct seat *s = seat_of(io);

	s->close_cb = cb;
	s->transport->data = s;
	s->transport->close(s->transport, on_closed);
}

/* --- in place of raft/uv.h --- */

int raft_uv_init(struct raft_io *io, struct uv_loop_s *loop, const char *dir,
		 struct raft_uv_transport *transport)
{
	struct seat *s = &cluster->seats[atoi(dir + strlen(DIR_PREFIX))];

	s->transport = transport;
	s->top = io;
	*io = (struct raft_io){
		.data = io->data,
		.version = s->real->version,
		.capacity = s->real->capacity,
		.impl = s,
		.init = io_init,
		.close = io_close,
		.load = io_load,
		.start = io_start,
		.bootstrap = io_bootstrap,
		.recover = io_recover,
		.set_term = io_set_term,
		.set_vote = io_set_vote,
		.append = io_append,
		.truncate = io_truncate,
		.send = io_send,
		.snapshot_put = io_snapshot_put,
		.snapshot_get = io_snapshot_get,
		.time = io_time,
		.random = io_random,
	};
	return 0;
}

void raft_uv_close(struct raft_io *io)
{
}

void raft_uv_set_segment_size(struct raft_io *io, size_t size)
{
}

void raft_uv_set_connect_retry_delay(struct raft_io *io, unsigned ms)
{
}

void raft_uv_set_disk_retry(struct raft_io *io, unsigned ms)
{
}

void raft_uv_set_auto_recovery(struct raft_io *io, bool on)
{
}

/* --- the state machine --- */

static void on_apply(void *data, uint64_t index, const char *p, size_t n)
{
	struct seat *s = data;
	uint64_t number;

	assert_true(index > s->applied_index);
	assert_int_equal(n, sizeof number);
	memcpy(&number, p, n);
	s->applied_index = index;
	s->state.n++;
	s->state.sum = s->state.sum * 31 + number;
}

static int on_restore(void *data, const char *p, size_t n)
{
	struct seat *s = data;

	assert_int_equal(n, sizeof s->state);
	memcpy(&s->state, p, n);
	s->applied_index = 0;
	s->n_restored++;
	return 0;
}

static int on_snapshot(void *data, uint64_t index,
		       struct consensus_part parts[CONSENSUS_PARTS],
		       unsigned *ret_n)
{
	struct seat *s = data;

	assert_null(s->snapshot);
	s->snapshot = xmalloc(sizeof *s->snapshot);
	memcpy(s->snapshot, &s->state, sizeof s->state);
	parts[0].base = s->snapshot;
	parts[0].len = sizeof s->state;
	*ret_n = 1;
	return 0;
}

static void on_snapshot_done(void *data)
{
	struct seat *s = data;

	free(TAKE_PTR(s->snapshot));
}

static void on_proposed(void *data, uint64_t tag, bool applied)
{
	struct seat *s = data;

	if (applied)
		s->n_done++;
	else
		s->n_unknown++;
}

static void on_barrier(void *data, uint64_t term, bool applied)
{
	struct seat *s = data;

	if (applied)
		s->barrier_term = term;
}

void seat_changed(void *data, int error)
{
	((struct seat *)data)->changed = error;
}

/* --- steps --- */

static void seat_turn(struct seat *s)
{
	struct raft_io_snapshot_get *get;

	if (!s->c || s->silent)
		return;
	if (s->failing_get) {
		get = TAKE_PTR(s->failing_get);
		get->cb(get, NULL, RAFT_IOERR);
	}
	raft_fire_requests(seat_raft(s));
	consensus_turn(s->c);
}

static void on_step(struct raft_fixture *f, struct raft_fixture_event *event)
{
	uint64_t term = 0;

	for (unsigned i = 0; i < cluster->n; i++)
		seat_turn(&cluster->seats[i]);
	for (unsigned i = 0; i < cluster->n; i++) {
		struct consensus_state st;

		if (!cluster->seats[i].c)
			continue;
		st = seat_state(&cluster->seats[i]);
		if (!st.is_leader)
			continue;
		assert_int_not_equal(st.term, term); /* one leader a term */
		term = st.term;
	}
}

void cluster_run(struct cluster *k, unsigned ms)
{
	raft_fixture_step_until_elapsed(&k->f, ms);
}

bool cluster_until(struct cluster *k, bool (*fn)(struct cluster *k, void *data),
		   void *data, unsigned ms)
{
	raft_time end = raft_fixture_time(&k->f) + ms;

	while (!fn(k, data)) {
		if (raft_fixture_time(&k->f) >= end)
			return false;
		raft_fixture_step(&k->f);
	}
	return true;
}

struct consensus_state seat_state(const struct seat *s)
{
	struct consensus_state st;

	consensus_get(s->c, &st);
	return st;
}

bool seat_leads(const struct seat *s)
{
	return s->c && !s->silent && seat_state(s).is_leader;
}

static struct seat *find_leader(struct cluster *k)
{
	struct seat *best = NULL;

	for (unsigned i = 0; i < k->n; i++) {
		struct seat *s = &k->seats[i];

		if (seat_leads(s) &&
		    (!best || seat_state(s).term > seat_state(best).term))
			best = s;
	}
	return best;
}

static bool has_leader(struct cluster *k, void *data)
{
	return find_leader(k) != NULL;
}

struct seat *cluster_leader(struct cluster *k)
{
	assert_true(cluster_until(k, has_leader, NULL, 10000));
	return find_leader(k);
}

static bool all_applied(struct cluster *k, void *data)
{
	const struct seat *leader = find_leader(k);
	uint64_t last;

	if (!leader)
		return false;
	last = seat_state(leader).last_index;
	for (unsigned i = 0; i < k->n; i++)
		if (k->seats[i].c && !k->seats[i].silent &&
		    seat_state(&k->seats[i]).applied_index != last)
			return false;
	return true;
}

void cluster_settle(struct cluster *k)
{
	assert_true(cluster_until(k, all_applied, NULL, 60000));
}

void cluster_same(struct cluster *k)
{
	cluster_settle(k);
	for (unsigned i = 1; i < k->n; i++) {
		assert_int_equal(k->seats[i].state.n, k->seats[0].state.n);
		assert_int_equal(k->seats[i].state.sum, k->seats[0].state.sum);
	}
}

int seat_propose(struct seat *s, uint64_t number)
{
	uint64_t *p = consensus_alloc(sizeof *p);
	int r;

	*p = number;
	r = consensus_propose(s->c, p, sizeof *p, number);
	if (r == -EPERM)
		consensus_free(p);
	return r;
}

static bool change_ended(struct cluster *k, void *data)
{
	return ((struct seat *)data)->changed <= 0;
}

static int change_end(struct seat *leader, int r)
{
	if (r < 0)
		return r;
	assert_true(cluster_until(cluster, change_ended, leader, 60000));
	return leader->changed;
}

int seat_assign(struct seat *leader, const struct seat *who, enum db_role role)
{
	leader->changed = 1;
	return change_end(leader, consensus_assign(leader->c, who->id, role,
						   seat_changed, leader));
}

static int seat_add(struct seat *leader, const struct seat *who)
{
	leader->changed = 1;
	return change_end(leader, consensus_add(leader->c, who->id,
						who->address, seat_changed,
						leader));
}

void seat_connect(struct seat *s, bool connect)
{
	for (unsigned i = 0; i < cluster->n; i++) {
		if (i == s->i)
			continue;
		(connect ? raft_fixture_reconnect : raft_fixture_disconnect)(
			&cluster->f, s->i, i);
		(connect ? raft_fixture_reconnect : raft_fixture_disconnect)(
			&cluster->f, i, s->i);
	}
}

void seat_silence(struct seat *s, bool silent)
{
	s->silent = silent;
}

/* --- start and stop --- */

static int64_t now_ms(void *data)
{
	return (int64_t)raft_fixture_time(&cluster->f) + 1000;
}

static void random_bytes(void *data, void *out, size_t n)
{
	memset(out, 7, n);
}

static const struct env_ops env_ops = { now_ms, now_ms, random_bytes, NULL };

static void seat_open(struct cluster *k, unsigned i, unsigned election_ms,
		      unsigned heartbeat_ms)
{
	struct seat *s = &k->seats[i];
	char dir[32];
	const struct consensus_ops ops = {
		.data = s,
		.apply = on_apply,
		.restore = on_restore,
		.snapshot = on_snapshot,
		.snapshot_done = on_snapshot_done,
		.proposed = on_proposed,
		.barrier = on_barrier,
	};
	const struct consensus_config cfg = {
		.loop = &k->loop,
		.dir = dir,
		.id = s->id,
		.address = s->address,
		.election_ms = election_ms,
		.heartbeat_ms = heartbeat_ms,
	};

	snprintf(dir, sizeof dir, DIR_PREFIX "%u", i);
	if (i == 0)
		assert_int_equal(
			consensus_bootstrap(dir, s->id, s->address), 0);
	assert_int_equal(consensus_open(&cfg, &ops, &s->c), 0);
}

void cluster_start(struct cluster *k, unsigned n, unsigned n_voters,
		   unsigned election_ms, unsigned heartbeat_ms)
{
	static struct raft_fsm unused = { .version = 1 };

	memset(k, 0, sizeof *k);
	cluster = k;
	k->random = 1;
	env_replace(&env_ops);
	assert_int_equal(uv_loop_init(&k->loop), 0);
	assert_int_equal(raft_fixture_initialize(&k->f), 0);
	for (; k->n < n; k->n++) {
		struct seat *s = &k->seats[k->n];

		assert_int_equal(raft_fixture_grow(&k->f, &unused), 0);
		s->cluster = k;
		s->i = k->n;
		s->id = k->n + 1;
		snprintf(s->address, sizeof s->address, "10.0.0.%u:1", k->n);
		s->real = raft_fixture_get(&k->f, k->n)->io;
		raft_fixture_set_network_latency(&k->f, k->n, 2);
		raft_fixture_set_disk_latency(&k->f, k->n, 1);
	}
	for (unsigned i = 0; i < n; i++)
		seat_open(k, i, election_ms, heartbeat_ms);
	raft_fixture_hook(&k->f, on_step);
	for (unsigned i = 1; i < n; i++) {
		struct seat *leader = cluster_leader(k);

		assert_int_equal(seat_add(leader, &k->seats[i]), 0);
		assert_int_equal(seat_assign(leader, &k->seats[i],
					     i < n_voters ? DB_VOTER
							  : DB_STANDBY), 0);
	}
	cluster_settle(k);
}

/* Requests that the fixture has end before their owners do. */
void cluster_stop(struct cluster *k)
{
	for (unsigned i = 0; i < k->n; i++)
		seat_silence(&k->seats[i], true);
	cluster_run(k, 5000);
	for (unsigned i = 0; i < k->n; i++) {
		struct raft_io_snapshot_get *get =
			TAKE_PTR(k->seats[i].failing_get);

		if (get)
			get->cb(get, NULL, RAFT_CANCELED);
		consensus_close(k->seats[i].c, NULL, NULL);
		k->seats[i].c = NULL;
	}
	uv_run(&k->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&k->loop), 0);
	raft_fixture_hook(&k->f, NULL);
	raft_fixture_close(&k->f);
	env_replace(NULL);
	cluster = NULL;
}
