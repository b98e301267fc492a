/* The guards for what libraft 0.22.1 does not stand (raftdb/ioguard.h,
 * consensus_send.h, consensus_heap.h), and what we rely on it for, on its own
 * simulated cluster. A newer version of the library shows here what changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/raft_cluster.h"

#define ELECTION_MS 150
#define HEARTBEAT_MS 15

static struct cluster k;

static void start(unsigned n, unsigned n_voters)
{
	cluster_start(&k, n, n_voters, ELECTION_MS, HEARTBEAT_MS);
}

static int teardown(void **state)
{
	cluster_stop(&k);
	return 0;
}

static struct seat *follower(const struct seat *leader)
{
	return &k.seats[(leader->i + 1) % k.n];
}

static bool has_done(struct cluster *cluster, void *data)
{
	const struct seat *s = data;

	return seat_state(s).applied_index == seat_state(s).last_index;
}

static void write_some(struct seat *leader, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(seat_propose(leader, i), 0);
		cluster_run(&k, 1);
	}
}

/* --- load --- */

/* Entries that come faster than they can be replicated, without end: the older
 * library committed none of them. */
static void test_commits_under_any_load(void **state)
{
	struct seat *leader;
	unsigned n = 0, done = 0;

	start(3, 3);
	leader = cluster_leader(&k);
	for (unsigned i = 0; i < 3; i++) {
		raft_fixture_set_network_latency(&k.f, i, 10);
		raft_fixture_set_disk_latency(&k.f, i, 5);
	}
	for (unsigned ms = 1; ms <= 1000; ms++) {
		for (unsigned i = 0; i < 3; i++, n++)
			assert_int_equal(seat_propose(leader, n), 0);
		cluster_run(&k, 1);
		assert_true(seat_leads(leader));
		if (ms % 100 > 0)
			continue;
		assert_true(leader->n_done > done);
		done = leader->n_done;
	}
	assert_true(cluster_until(&k, has_done, leader, 20000));
	cluster_same(&k);
	assert_int_equal(leader->n_done, n);
	assert_int_equal(leader->state.n, n);
}

/* --- serving --- */

static bool new_leader(struct cluster *cluster, void *data)
{
	for (unsigned i = 0; i < cluster->n; i++)
		if (&cluster->seats[i] != data && seat_leads(&cluster->seats[i]))
			return true;
	return false;
}

static struct seat *other_leader(const struct seat *old)
{
	for (unsigned i = 0; i < k.n; i++)
		if (&k.seats[i] != old && seat_leads(&k.seats[i]))
			return &k.seats[i];
	fail();
	return NULL;
}

static bool barrier_applied(struct cluster *cluster, void *data)
{
	const struct seat *s = data;

	return s->barrier_term == seat_state(s).term;
}

static bool one_done(struct cluster *cluster, void *data)
{
	return ((struct seat *)data)->n_done == 1;
}

/* What the old leader has acknowledged the new one has, but does not know yet
 * that it is committed: its barrier finds out. */
static void test_barrier_before_serving(void **state)
{
	struct seat *old, *leader;

	start(3, 3);
	old = cluster_leader(&k);
	assert_int_equal(seat_propose(old, 7), 0);
	assert_true(cluster_until(&k, one_done, old, 1000));
	seat_silence(old, true);
	seat_connect(old, false); /* with the word of the commit */
	assert_true(cluster_until(&k, new_leader, old, 5000));
	leader = cluster_leader(&k);
	assert_int_equal(leader->state.n, 0);
	assert_int_equal(consensus_barrier(leader->c), 0);
	assert_true(cluster_until(&k, barrier_applied, leader, 1000));
	assert_int_equal(leader->state.n, 1);
	assert_int_equal(leader->state.sum, 7);
	seat_connect(old, true);
	seat_silence(old, false);
	cluster_same(&k);
}

/* --- disks --- */

/* Its failed write stays with it: it leads and acknowledges no more, nobody
 * hears of what it has not on its disk, and the others go on. */
static void check_failed_write(int now, int later)
{
	struct seat *old, *leader;
	unsigned sent;

	start(3, 3);
	old = cluster_leader(&k);
	write_some(old, 5);
	cluster_settle(&k);
	assert_int_equal(old->n_done, 5);
	old->append_now = now;
	old->append_later = later;
	assert_int_equal(seat_propose(old, 100), 0);
	cluster_run(&k, 3);
	assert_false(seat_state(old).available);
	sent = old->n_sent;
	assert_true(cluster_until(&k, new_leader, old, 5000));
	cluster_run(&k, 1000);
	assert_int_equal(old->n_sent, sent); /* not a word */
	assert_int_equal(old->n_done, 5);
	leader = other_leader(old);
	seat_silence(old, true); /* its process ends */
	write_some(leader, 5);
	cluster_settle(&k);
	assert_int_equal(leader->n_done, 5);
	/* The proposal of an unknown end is there as a whole or not at all. */
	assert_in_range(leader->state.n, 10, 11);
}

static void test_write_fails_at_once(void **state)
{
	check_failed_write(RAFT_IOERR, 0);
}

static void test_write_fails_later(void **state)
{
	check_failed_write(0, RAFT_IOERR);
}

static void test_disk_is_full(void **state)
{
	check_failed_write(0, RAFT_NOSPACE);
}

/* While it still can, a leader hands over: that takes no election timeout, even
 * when the next one has a part of the log yet to write, of which libraft alone
 * would not think. */
static void test_hands_over(void **state)
{
	struct seat *old, *to;
	raft_time start_at;

	start(3, 3);
	old = cluster_leader(&k);
	to = follower(old);
	write_some(old, 5);
	old->changed = 1;
	start_at = raft_fixture_time(&k.f);
	assert_int_equal(consensus_transfer(old->c, to->id, seat_changed, old),
			 0);
	assert_int_equal(seat_propose(old, 9), -EPERM);
	assert_true(cluster_until(&k, new_leader, old, 1000));
	assert_true(raft_fixture_time(&k.f) - start_at < ELECTION_MS);
	assert_ptr_equal(cluster_leader(&k), to);
	cluster_run(&k, 100);
	assert_int_equal(old->changed, 0);
	write_some(to, 5);
	cluster_same(&k);
	assert_int_equal(to->state.n, 10);
}

/* --- membership --- */

static void test_one_change_at_a_time(void **state)
{
	struct seat *leader, *standby;

	start(4, 3);
	leader = cluster_leader(&k);
	standby = &k.seats[3];
	leader->changed = 1;
	assert_int_equal(consensus_assign(leader->c, standby->id, DB_VOTER,
					  seat_changed, leader), 0);
	assert_int_equal(consensus_add(leader->c, 99, "10.0.0.9:1",
				       seat_changed, leader), -EBUSY);
	assert_int_equal(consensus_remove(leader->c, standby->id, seat_changed,
					  leader), -EBUSY);
	cluster_run(&k, 2000);
	assert_int_equal(leader->changed, 0);
	assert_int_equal(seat_assign(leader, standby, DB_STANDBY), 0);
	cluster_same(&k);
}

/* A change that is lost with its leader leaves none half done. */
static void test_change_is_lost_with_its_leader(void **state)
{
	struct seat *old, *leader;

	start(4, 3);
	old = cluster_leader(&k);
	seat_connect(old, false);
	old->changed = 1;
	assert_int_equal(consensus_remove(old->c, k.seats[3].id, seat_changed,
					  old), 0);
	assert_true(cluster_until(&k, new_leader, old, 5000));
	leader = other_leader(old);
	assert_int_equal(consensus_barrier(leader->c), 0);
	seat_connect(old, true);
	cluster_run(&k, 1000);
	assert_int_equal(old->changed, -ECANCELED);
	for (unsigned i = 0; i < 4; i++) {
		struct consensus_member m[8];

		assert_int_equal(consensus_members(k.seats[i].c, m, 8), 4);
		assert_false(seat_state(&k.seats[i]).configuration_changing);
	}
	assert_int_equal(seat_assign(leader, &k.seats[3], DB_VOTER), 0);
	cluster_settle(&k);
}

/* --- snapshots --- */

/* Leaves a member without what its leader keeps of the log. */
static struct seat *lag(struct seat *leader)
{
	struct seat *s = follower(leader);

	seat_connect(s, false);
	write_some(leader, 50);
	consensus_snapshot(leader->c, 1);
	write_some(leader, 5);
	assert_true(leader->n_puts > 0);
	return s;
}

static bool is_installing(struct cluster *cluster, void *data)
{
	return consensus_installing(((struct seat *)data)->c) != 0;
}

static bool is_restored(struct cluster *cluster, void *data)
{
	return ((struct seat *)data)->n_restored > 0;
}

static void test_snapshot_is_installed(void **state)
{
	struct seat *leader, *s;

	start(3, 3);
	leader = cluster_leader(&k);
	s = lag(leader);
	seat_connect(s, true);
	assert_true(cluster_until(&k, is_restored, s, 10000));
	cluster_same(&k);
	assert_int_equal(s->n_restored, 1);
	assert_int_equal(leader->n_gets, 1);
}

/* libraft frees what it has not got when a load fails: it never hears of it,
 * and the load is tried again, after a pause. */
static void test_snapshot_load_fails(void **state)
{
	struct seat *leader, *s;
	raft_time start_at;

	start(3, 3);
	leader = cluster_leader(&k);
	s = lag(leader);
	leader->fail_gets = 3;
	start_at = raft_fixture_time(&k.f);
	seat_connect(s, true);
	assert_true(cluster_until(&k, is_restored, s, 20000));
	assert_int_equal(leader->n_gets, 4);
	assert_true(raft_fixture_time(&k.f) - start_at >= 3 * 1000);
	assert_true(seat_leads(leader));
	cluster_same(&k);
}

static void test_snapshot_load_fails_for_good(void **state)
{
	struct seat *leader, *s;

	start(3, 3);
	leader = cluster_leader(&k);
	s = lag(leader);
	leader->fail_gets = 1000000;
	seat_connect(s, true);
	write_some(leader, 5000); /* the others do not suffer */
	assert_int_equal(s->n_restored, 0);
	assert_in_range(leader->n_gets, 4, 7);
	assert_true(seat_leads(leader));
	cluster_run(&k, 50);
	assert_int_equal(leader->n_done, 5055);
}

static void test_leader_changes_while_a_snapshot_travels(void **state)
{
	struct seat *old, *s;

	start(3, 3);
	old = cluster_leader(&k);
	raft_fixture_set_network_latency(&k.f, old->i, 40);
	s = lag(old);
	cluster_run(&k, 200);
	for (unsigned i = 0; i < 3; i++)
		if (&k.seats[i] != old && &k.seats[i] != s)
			consensus_snapshot(k.seats[i].c, 1);
	write_some(old, 5);
	seat_connect(s, true);
	assert_true(cluster_until(&k, is_installing, old, 5000));
	seat_silence(old, true);
	seat_connect(old, false);
	assert_true(cluster_until(&k, is_restored, s, 20000));
	write_some(cluster_leader(&k), 5);
	seat_connect(old, true);
	seat_silence(old, false);
	cluster_same(&k);
}

/* --- elections --- */

/* A member that was cut off has asked for votes all the time. */
static void test_rejoining_member_does_not_unseat(void **state)
{
	struct seat *leader, *s;
	uint64_t term;

	start(3, 3);
	leader = cluster_leader(&k);
	term = seat_state(leader).term;
	s = follower(leader);
	seat_connect(s, false);
	write_some(leader, 10);
	cluster_run(&k, 10000);
	assert_int_equal(raft_state(seat_raft(s)), RAFT_CANDIDATE);
	assert_int_equal(seat_state(s).term, term);
	seat_connect(s, true);
	cluster_run(&k, 2000);
	assert_true(seat_leads(leader));
	assert_int_equal(seat_state(leader).term, term);
	cluster_same(&k);
}

/* The results of its pre-vote come when it has found the leader again. libraft
 * then looks the kind of the vote up in the second byte of the pointer to its
 * leader's address: here it is zero, as it is in one of sixteen processes. */
static void test_late_vote_result(void **state)
{
	struct seat *leader, *s;
	struct raft_message m;
	char *address, *known;
	uint64_t term;

	start(3, 3);
	leader = cluster_leader(&k);
	s = follower(leader);
	term = seat_state(s).term;
	assert_int_equal(raft_state(seat_raft(s)), RAFT_FOLLOWER);
	address = aligned_alloc(65536, 65536);
	known = seat_raft(s)->follower_state.current_leader.address;
	strcpy(address, known);
	seat_raft(s)->follower_state.current_leader.address = address;
	memset(&m, 0, sizeof m);
	m.type = RAFT_REQUEST_VOTE_RESULT;
	m.server_id = k.seats[3 - s->i - leader->i].id;
	m.server_address = k.seats[3 - s->i - leader->i].address;
	m.request_vote_result.version = 2;
	m.request_vote_result.term = term + 1;
	m.request_vote_result.pre_vote = true;
	s->recv(s->top, &m);
	assert_int_equal(seat_state(s).term, term);
	seat_raft(s)->follower_state.current_leader.address = known;
	free(address);
	cluster_run(&k, 1000);
	assert_true(seat_leads(leader));
	assert_int_equal(seat_state(leader).term, term);
}

static void soil_stack(void)
{
	volatile char soil[16384];

	memset((void *)soil, 0x5a, sizeof soil);
}

/* Whom an older leader wants to append something tells where its log ends, and
 * not what stood on its stack. */
static void test_refusal_tells_the_end(void **state)
{
	struct seat *leader, *s;
	struct raft_message m;

	start(3, 3);
	leader = cluster_leader(&k);
	write_some(leader, 20);
	cluster_settle(&k);
	s = follower(leader);
	memset(&m, 0, sizeof m);
	m.type = RAFT_APPEND_ENTRIES;
	m.server_id = leader->id;
	m.server_address = leader->address;
	m.append_entries.term = seat_state(s).term - 1;
	m.append_entries.prev_log_index = 3;
	soil_stack();
	s->recv(s->top, &m);
	assert_int_equal(s->refusal.rejected, 3);
	assert_int_equal(s->refusal.last_log_index, seat_state(s).last_index);
}

/* Whom a candidate of an older term asks in a pre-vote tells its own term, or the
 * candidate would ask for votes in the older one for ever. */
static void test_pre_vote_tells_the_term(void **state)
{
	struct seat *leader, *s;
	struct raft_message m;
	uint64_t term;

	start(3, 3);
	leader = cluster_leader(&k);
	write_some(leader, 20);
	cluster_settle(&k);
	s = follower(leader);
	seat_silence(leader, true);
	assert_true(cluster_until(&k, new_leader, leader, 10000));
	seat_silence(leader, false);
	cluster_settle(&k);
	term = seat_state(s).term;
	assert_true(term > 1);
	memset(&m, 0, sizeof m);
	m.type = RAFT_REQUEST_VOTE;
	m.server_id = leader->id;
	m.server_address = leader->address;
	m.request_vote.version = 2;
	m.request_vote.term = term - 1;
	m.request_vote.candidate_id = leader->id;
	m.request_vote.pre_vote = true;
	s->recv(s->top, &m);
	cluster_run(&k, 5);
	assert_true(s->vote.pre_vote);
	assert_false(s->vote.vote_granted);
	assert_int_equal(s->vote.term, term);
}

static raft_time time_to_failover(unsigned election_ms, unsigned heartbeat_ms)
{
	struct seat *old;
	raft_time at;

	cluster_start(&k, 3, 3, election_ms, heartbeat_ms);
	old = cluster_leader(&k);
	cluster_run(&k, 1000);
	seat_silence(old, true);
	at = raft_fixture_time(&k.f);
	assert_true(cluster_until(&k, new_leader, old, 10000));
	return raft_fixture_time(&k.f) - at;
}

static void test_election_timeout_is_what_was_set(void **state)
{
	raft_time t = time_to_failover(150, 15);

	assert_in_range(t, 100, 500);
	cluster_stop(&k);
	t = time_to_failover(1500, 15);
	assert_in_range(t, 1400, 4000);
}

static void test_heartbeat_is_what_was_set(void **state)
{
	static const unsigned ms[] = { 15, 100 };
	unsigned n;

	for (unsigned i = 0; i < 2; i++) {
		struct seat *leader;

		if (i > 0)
			cluster_stop(&k);
		cluster_start(&k, 3, 3, 600, ms[i]);
		leader = cluster_leader(&k);
		cluster_run(&k, 1000);
		n = leader->n_sent;
		cluster_run(&k, 3000);
		n = leader->n_sent - n;
		assert_in_range(n, 2 * 3000 / ms[i] * 7 / 10,
				2 * 3000 / ms[i] * 11 / 10);
	}
}

/* --- memory --- */

static void allocate(size_t n)
{
	signal(SIGABRT, SIG_DFL);
	dup2(open("/dev/null", O_WRONLY), 2);
	raft_free(raft_malloc(n));
	_exit(0);
}

static int end_of_allocation(size_t n)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		allocate(n);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* libraft would go on with half of what it was doing. */
static void test_no_memory_ends_the_process(void **state)
{
	int status;

	start(1, 1);
	assert_int_equal(end_of_allocation(1000), 0);
	status = end_of_allocation(SIZE_MAX / 4);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

#define T(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_commits_under_any_load),
		T(test_barrier_before_serving),
		T(test_write_fails_at_once),
		T(test_write_fails_later),
		T(test_disk_is_full),
		T(test_hands_over),
		T(test_one_change_at_a_time),
		T(test_change_is_lost_with_its_leader),
		T(test_snapshot_is_installed),
		T(test_snapshot_load_fails),
		T(test_snapshot_load_fails_for_good),
		T(test_leader_changes_while_a_snapshot_travels),
		T(test_rejoining_member_does_not_unseat),
		T(test_late_vote_result),
		T(test_refusal_tells_the_end),
		T(test_pre_vote_tells_the_term),
		T(test_election_timeout_is_what_was_set),
		T(test_heartbeat_is_what_was_set),
		T(test_no_memory_ends_the_process),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
