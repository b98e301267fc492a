/* raftdb/consensus.c, with all its guards, on libraft's own simulated cluster
 * (raft/fixture.h): simulated time, disks and network. The library is given the
 * fixture's I/O in place of its libuv one, because this program defines
 * raft_uv_init() itself; the fixture's own raft objects stay unused, so of its
 * functions those about time, disks, connections and steps apply, not those
 * about leaders.
 */
#ifndef TESTS_UNIT_RAFT_CLUSTER_H
#define TESTS_UNIT_RAFT_CLUSTER_H

#include <raft.h>
#include <raft/fixture.h>
#include <raft/uv.h>

#include "raftdb/consensus.h"

#define SEATS_MAX RAFT_FIXTURE_MAX_SERVERS

struct cluster;

/* One member. Its state machine adds up the numbers that are proposed. */
struct seat {
	struct cluster *cluster;
	unsigned i;
	uint64_t id;
	char address[32];
	struct consensus *c;    /* NULL: not open */
	struct raft_io *real;   /* the fixture's */
	struct raft_io *top;    /* what consensus.c knows; ->data is its raft */
	struct raft_uv_transport *transport;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	raft_io_close_cb close_cb;
	struct { /* the state machine */
		uint64_t n, sum;
	} state, *snapshot;
	uint64_t applied_index; /* our own count of what apply was called with */
	unsigned n_done, n_unknown; /* proposals */
	uint64_t barrier_term;  /* newest that was applied */
	unsigned n_restored, n_puts, n_gets;
	int changed;            /* how the last change ended; 1: not yet */
	bool silent;            /* it hears nothing and has no ticks */
	/* faults */
	int append_now, append_later; /* raft errors of log writes, 0: none */
	unsigned fail_gets;
	struct raft_io_snapshot_get *failing_get;
	unsigned n_sent;        /* messages that left */
	/* the last ones sent */
	struct raft_append_entries_result refusal;
	struct raft_request_vote_result vote;
};

struct cluster {
	struct raft_fixture f;
	uv_loop_t loop;
	struct seat seats[SEATS_MAX];
	unsigned n;
	unsigned random;
};

/* Opens so many members and forms them into one cluster: the first one is
 * bootstrapped and adds the others, n_voters of them in all as voters. */
void cluster_start(struct cluster *k, unsigned n, unsigned n_voters,
		   unsigned election_ms, unsigned heartbeat_ms);
void cluster_stop(struct cluster *k);

void cluster_run(struct cluster *k, unsigned ms);
/* False: not within so many ms. */
bool cluster_until(struct cluster *k, bool (*fn)(struct cluster *k, void *data),
		   void *data, unsigned ms);
/* The one that leads in the newest term and is not silent; fails the test when
 * there is none within ten seconds. */
struct seat *cluster_leader(struct cluster *k);
/* Waits until all that are not silent have applied what the leader has. */
void cluster_settle(struct cluster *k);
/* All have the same state. */
void cluster_same(struct cluster *k);

struct raft *seat_raft(const struct seat *s);
struct consensus_state seat_state(const struct seat *s);
bool seat_leads(const struct seat *s);
int seat_propose(struct seat *s, uint64_t number);
/* A change by the leader, to its end. */
int seat_assign(struct seat *leader, const struct seat *who, enum db_role role);
/* Both directions between it and all others. */
void seat_connect(struct seat *s, bool connect);
/* It hangs, or goes on. */
void seat_silence(struct seat *s, bool silent);
/* For ops of consensus_add() and the like; data is the seat. */
void seat_changed(void *data, int error);

#endif
