#include "raftdb/consensus.h"

#include <errno.h>
#include <limits.h>
#include <raft/uv.h>
#include <stdio.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "raftdb/consensus_send.h"
#include "raftdb/ioguard.h"
#include "raftdb/consensus_aio.h"
#include "raftdb/consensus_heap.h"
#include "raftdb/raftmsg.h"

#define SEGMENT_BYTES (16 * 1024 * 1024)
#define DISK_RETRY_MS 200
#define INSTALL_TIMEOUT_MS 120000
#define MAX_IN_FLIGHT 8 /* entries to a member that catches up */
#define NEVER 0xffffffffu /* as a snapshot threshold */

struct consensus {
	int (*start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		     raft_io_recv_cb receive); /* the guard's */
	raft_io_recv_cb receive; /* libraft's */
	raft_time suspect_start; /* election_timer_start of a lost leader */
	uint64_t heard_term; /* messages of older terms are dropped */
	struct raft raft;
	struct ioguard disk;
	struct sender sender;
	struct raft_fsm fsm;
	struct wire wire;
	struct raft_uv_transport no_transport;
	struct consensus_ops ops;
	uint64_t last_applied; /* seen by our own apply */
	uint64_t barrier_term; /* newest term of which our barrier was applied */
	struct {
		uint64_t id, index;
	} told[DB_MEMBERS_MAX]; /* see tell_commit() */
	uint64_t told_all;
	bool stepping; /* inside a callback of libraft's state machine */
	bool closing;
	struct raft_change change;
	struct raft_transfer transfer;
	consensus_change_cb change_cb, transfer_cb;
	void *change_data, *transfer_data;
	uint64_t transfer_to;
	bool transfer_waits; /* libraft has not been told yet */
	raft_time transfer_until;
	void (*close_cb)(void *data);
	void *close_data;
};

struct proposal {
	struct raft_apply req;
	struct consensus *consensus;
	uint64_t tag;
};

struct barrier {
	struct raft_barrier req;
	struct consensus *consensus;
	uint64_t term;
};

static const struct {
	int raft, error;
} errors[] = {
	{ RAFT_NOMEM, -ENOMEM },
	{ RAFT_BADID, -EINVAL },
	{ RAFT_DUPLICATEID, -EEXIST },
	{ RAFT_DUPLICATEADDRESS, -EEXIST },
	{ RAFT_BADROLE, -EALREADY },
	{ RAFT_MALFORMED, -EBADMSG },
	{ RAFT_NOTLEADER, -EPERM },
	{ RAFT_LEADERSHIPLOST, -ECANCELED },
	{ RAFT_SHUTDOWN, -ECANCELED },
	{ RAFT_CANCELED, -ECANCELED },
	{ RAFT_CANTBOOTSTRAP, -EEXIST },
	{ RAFT_CANTCHANGE, -EBUSY },
	{ RAFT_CORRUPT, -EBADMSG },
	{ RAFT_NAMETOOLONG, -ENAMETOOLONG },
	{ RAFT_NOCONNECTION, -EHOSTUNREACH },
	{ RAFT_BUSY, -EBUSY },
	{ RAFT_NOTFOUND, -ENOENT },
	{ RAFT_NOSPACE, -ENOSPC },
};

static int error_of(int rv)
{
	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		if (errors[i].raft == rv)
			return errors[i].error;
	return rv == 0 ? 0 : -EIO;
}

static const int raft_roles[] = {
	[DB_SPARE] = RAFT_SPARE,
	[DB_STANDBY] = RAFT_STANDBY,
	[DB_VOTER] = RAFT_VOTER,
};

static enum db_role role_of(int raft_role)
{
	return raft_role == RAFT_VOTER	   ? DB_VOTER
	       : raft_role == RAFT_STANDBY ? DB_STANDBY
					   : DB_SPARE;
}

/* --- what libraft calls --- */

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf,
		    void **result)
{
	struct consensus *c = fsm->data;
	uint64_t index = raft_last_applied(&c->raft) + 1;

	/* libraft's packages are built without its assertions. */
	xassert(index > c->last_applied);
	xassert(index <= raft_commit_index(&c->raft));
	c->last_applied = index;
	c->stepping = true;
	failpoint("entry.committed");
	c->ops.apply(c->ops.data, index, buf->base, buf->len);
	c->stepping = false;
	*result = NULL;
	return 0;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *c = fsm->data;
	int r;

	c->stepping = true;
	failpoint("snapshot.load");
	r = c->ops.restore(c->ops.data, buf->base, buf->len);
	c->stepping = false;
	if (r < 0)
		/* libraft frees the buffer */
		return r == -ENOMEM ? RAFT_NOMEM : RAFT_CORRUPT;
	raft_free(buf->base);
	return 0;
}

static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[],
		       unsigned *n_bufs)
{
	struct consensus *c = fsm->data;
	struct consensus_part parts[CONSENSUS_PARTS];
	unsigned n = 0;
	int r;

	raft_set_snapshot_threshold(&c->raft, NEVER);
	c->stepping = true;
	r = c->ops.snapshot(c->ops.data, raft_last_applied(&c->raft), parts, &n);
	c->stepping = false;
	if (r != 0)
		return RAFT_BUSY;
	*bufs = raft_malloc(n * sizeof **bufs);
	xassert(*bufs && n > 0);
	for (unsigned i = 0; i < n; i++)
		(*bufs)[i] = (struct raft_buffer){ parts[i].base, parts[i].len };
	*n_bufs = n;
	return 0;
}

static int on_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[],
				unsigned *n_bufs)
{
	struct consensus *c = fsm->data;

	raft_free(*bufs);
	*bufs = NULL;
	*n_bufs = 0;
	c->ops.snapshot_done(c->ops.data);
	return 0;
}

/* --- elections ---
 *
 * With pre-vote, a follower turns candidates down as long as it believes in a
 * leader. libraft lets it believe until its own randomized timeout ends, so the
 * last follower to run out of patience decides when there can be a new leader.
 * The rule asks for the smallest timeout only (Ongaro's thesis, 4.2.3), so votes
 * are judged without that belief once it is over, and the first one to run out
 * wins.
 *
 * A process that dies takes its connections with it. Who loses all of those to
 * the leader stops believing at once, and candidates come forward in an order
 * that all know, so that they do not split the votes. Where the leader lives on
 * after all, those that still hear it turn the candidate down.
 */

#define STAGGER_MS 45 /* time for one candidate to win */

static bool doubts_leader(struct consensus *c)
{
	const struct raft *r = &c->raft;

	return c->suspect_start == r->election_timer_start ||
	       c->disk.io.time(&c->disk.io) >=
		       r->election_timer_start + r->election_timeout;
}

static bool is_follower_of(struct raft *r, uint64_t id)
{
	return raft_state(r) == RAFT_FOLLOWER &&
	       r->follower_state.current_leader.id == id;
}

static raft_term term_of(const struct raft_message *m)
{
	switch (m->type) {
	case RAFT_APPEND_ENTRIES:
		return m->append_entries.term;
	case RAFT_APPEND_ENTRIES_RESULT:
		return m->append_entries_result.term;
	case RAFT_REQUEST_VOTE:
		return m->request_vote.term;
	case RAFT_REQUEST_VOTE_RESULT:
		return m->request_vote_result.term;
	case RAFT_INSTALL_SNAPSHOT:
		return m->install_snapshot.term;
	default:
		return m->timeout_now.term;
	}
}

void consensus_deafen(struct consensus *c)
{
	c->heard_term = UINT64_MAX;
}

void consensus_readmit(struct consensus *c, uint64_t term)
{
	c->heard_term = term;
}

static void on_receive(struct raft_io *io, struct raft_message *m)
{
	struct raft *r = io->data;
	struct consensus *c = container_of(r, struct consensus, raft);
	uint64_t term = raft_current_term(r), leader = 0;

	if (term_of(m) < c->heard_term) {
		raftmsg_free(m);
		return;
	}
	if (m->type == RAFT_REQUEST_VOTE && raft_state(r) == RAFT_FOLLOWER &&
	    doubts_leader(c)) {
		leader = r->follower_state.current_leader.id;
		r->follower_state.current_leader.id = 0;
	}
	c->receive(io, m);
	/* libraft answers it by this id when a write has ended. */
	if (leader && raft_current_term(r) == term && is_follower_of(r, 0))
		r->follower_state.current_leader.id = leader;
}

static int on_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		    raft_io_recv_cb receive)
{
	struct raft *r = io->data;
	struct consensus *c = container_of(r, struct consensus, raft);

	xassert(io == &c->disk.io);
	c->receive = receive;
	return c->start(io, msecs, tick, on_receive);
}

/* Between libraft and the guard of its I/O. */
static void watch_votes(struct consensus *c)
{
	c->suspect_start = UINT64_MAX;
	c->start = c->disk.io.start;
	c->disk.io.start = on_start;
}

/* Our place among the voters that are left; -1: we are none. */
static int rank_without(const struct raft *r, uint64_t id)
{
	const struct raft_configuration *conf = &r->configuration;
	int rank = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].role != RAFT_VOTER ||
		    conf->servers[i].id == id)
			continue;
		if (conf->servers[i].id == r->id)
			return rank;
		rank++;
	}
	return -1;
}

static void suspect(struct consensus *c, uint64_t id)
{
	struct raft *r = &c->raft;
	int rank = rank_without(r, id);
	raft_time at, timeout;

	if (rank < 0 || id == 0 || !is_follower_of(r, id))
		return;
	at = c->disk.io.time(&c->disk.io) + (raft_time)(rank * STAGGER_MS);
	timeout = r->follower_state.randomized_election_timeout;
	if (at >= timeout)
		r->election_timer_start = MIN(r->election_timer_start,
					      at - timeout);
	/* A word from the leader sets it anew. */
	c->suspect_start = r->election_timer_start;
}

/* --- open and close --- */

static void transfer_end(struct consensus *c, int error);

static void on_raft_closed(struct raft *r)
{
	struct consensus *c = container_of(r, struct consensus, raft);

	raft_uv_close(&c->disk.io);
	if (c->close_cb)
		c->close_cb(c->close_data);
	free(c);
}

void consensus_close(struct consensus *c, void (*cb)(void *data), void *data)
{
	xassert(!c->stepping && !c->closing);
	c->closing = true;
	c->close_cb = cb;
	c->close_data = data;
	sender_close(&c->sender);
	wire_close(&c->wire);
	if (c->transfer_waits)
		transfer_end(c, -ECANCELED);
	raft_close(&c->raft, on_raft_closed);
}

/* --- the transport that raft_uv has to have: messages take the wire --- */

static int no_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
	return 0;
}

static int no_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	return 0;
}

static int no_connect(struct raft_uv_transport *t, struct raft_uv_connect *req,
		      raft_id id, const char *address, raft_uv_connect_cb cb)
{
	return RAFT_NOCONNECTION;
}

static void no_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	cb(t);
}

static const struct raft_uv_transport no_transport = {
	.version = 1,
	.init = no_init,
	.listen = no_listen,
	.connect = no_connect,
	.close = no_close,
};

/* peers NULL: there is nobody to talk to. */
static int init(struct consensus *c, uv_loop_t *loop, struct peers *peers,
		const char *dir, uint64_t id, const char *address)
{
	int rv;

	consensus_heap_set();
	consensus_aio_set();
	c->no_transport = no_transport;
	wire_init(&c->wire, &c->raft, peers);
	c->fsm.version = 2;
	c->fsm.data = c;
	c->fsm.apply = on_apply;
	c->fsm.snapshot = on_snapshot;
	c->fsm.snapshot_finalize = on_snapshot_finalize;
	c->fsm.restore = on_restore;
	rv = raft_uv_init(&c->disk.io, loop, dir, &c->no_transport);
	if (rv != 0) {
		log_error("raft log %s: %s", dir, c->disk.io.errmsg);
		return error_of(rv);
	}
	sender_arm(&c->sender, &c->disk.io, &c->raft, peers ? &c->wire : NULL);
	ioguard_arm(&c->disk);
	watch_votes(c);
	rv = raft_init(&c->raft, &c->disk.io, &c->fsm, id, address);
	if (rv != 0) {
		log_error("raft log %s: %s: %s", dir, raft_strerror(rv),
			  raft_errmsg(&c->raft));
		raft_uv_close(&c->disk.io);
		return error_of(rv);
	}
	return 0;
}

static void configure(struct consensus *c, const struct consensus_config *cfg)
{
	raft_uv_set_segment_size(&c->disk.io, SEGMENT_BYTES);
	raft_uv_set_disk_retry(&c->disk.io, DISK_RETRY_MS);
	/* It would drop committed entries behind a damaged one. */
	raft_uv_set_auto_recovery(&c->disk.io, false);
	raft_set_election_timeout(&c->raft, cfg->election_ms);
	raft_set_heartbeat_timeout(&c->raft, cfg->heartbeat_ms);
	/* Some versions multiply small values in secret. */
	c->raft.election_timeout = cfg->election_ms;
	c->raft.heartbeat_timeout = cfg->heartbeat_ms;
	raft_set_pre_vote(&c->raft, true);
	raft_set_install_snapshot_timeout(&c->raft, INSTALL_TIMEOUT_MS);
	raft_set_max_inflight_entries(&c->raft, MAX_IN_FLIGHT);
	/* Snapshots come when we have one ready: see consensus_snapshot(). */
	raft_set_snapshot_threshold(&c->raft, NEVER);
}

int consensus_open(const struct consensus_config *cfg,
		   const struct consensus_ops *ops, struct consensus **ret)
{
	struct consensus *c = xcalloc(1, sizeof *c);
	int r;

	c->ops = *ops;
	r = init(c, cfg->loop, cfg->peers, cfg->dir, cfg->id, cfg->address);
	if (r < 0) {
		free(c);
		return r;
	}
	configure(c, cfg);
	if (cfg->deaf)
		consensus_deafen(c);
	r = raft_start(&c->raft);
	if (r != 0) {
		log_error("raft log %s: %s: %s", cfg->dir, raft_strerror(r),
			  raft_errmsg(&c->raft));
		consensus_close(c, NULL, NULL);
		return error_of(r);
	}
	*ret = c;
	return 0;
}

static void on_seeded(struct raft_io_snapshot_put *req, int status)
{
	*(int *)req->data = status;
}

/* What libraft itself does with a snapshot that another member sent. */
static int put_snapshot(struct consensus *c, uv_loop_t *loop,
			struct raft_snapshot *snapshot)
{
	struct raft_snapshot *none = NULL;
	struct raft_entry *entries = NULL;
	struct raft_io_snapshot_put put;
	raft_index start = 1;
	raft_term term = 0;
	raft_id vote = 0;
	size_t n = 0;
	int status = INT_MAX;
	int rv = c->disk.io.load(&c->disk.io, &term, &vote, &none, &start, &entries, &n);

	if (rv == 0 && (term != 0 || none || n > 0))
		rv = RAFT_CANTBOOTSTRAP;
	rv = rv ? rv : c->disk.io.set_term(&c->disk.io, snapshot->term);
	put.data = &status;
	rv = rv ? rv : c->disk.io.snapshot_put(&c->disk.io, 0, &put, snapshot, on_seeded);
	while (rv == 0 && status == INT_MAX)
		uv_run(loop, UV_RUN_ONCE);
	return rv ? rv : status;
}

int consensus_seed(const char *dir, uint64_t id, const char *address,
		   uint64_t index, const struct consensus_part *parts,
		   unsigned n_parts)
{
	struct consensus *c = xcalloc(1, sizeof *c);
	struct raft_buffer bufs[CONSENSUS_PARTS];
	struct raft_snapshot snapshot;
	uv_loop_t loop;
	int r, rv;

	xassert(n_parts <= CONSENSUS_PARTS && uv_loop_init(&loop) == 0);
	memset(&snapshot, 0, sizeof snapshot);
	snapshot.index = snapshot.configuration_index = index;
	snapshot.term = 1;
	snapshot.bufs = bufs;
	snapshot.n_bufs = n_parts;
	for (unsigned i = 0; i < n_parts; i++)
		bufs[i] = (struct raft_buffer){ parts[i].base, parts[i].len };
	raft_configuration_init(&snapshot.configuration);
	r = init(c, &loop, NULL, dir, id, address);
	if (r < 0) {
		free(c);
		goto out;
	}
	rv = raft_configuration_add(&snapshot.configuration, id, address,
				    RAFT_VOTER);
	rv = rv ? rv : put_snapshot(c, &loop, &snapshot);
	if (rv != 0)
		log_error("raft log %s: cannot write the first snapshot: %s: %s",
			  dir, raft_strerror(rv), c->disk.io.errmsg);
	r = error_of(rv);
	consensus_close(c, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
out:
	raft_configuration_close(&snapshot.configuration);
	xassert(uv_loop_close(&loop) == 0);
	return r;
}

int consensus_bootstrap(const char *dir, uint64_t id, const char *address)
{
	struct consensus *c = xcalloc(1, sizeof *c);
	struct raft_configuration conf;
	uv_loop_t loop;
	int r, rv;

	xassert(uv_loop_init(&loop) == 0);
	raft_configuration_init(&conf);
	r = init(c, &loop, NULL, dir, id, address);
	if (r < 0) {
		free(c);
		goto out;
	}
	rv = raft_configuration_add(&conf, id, address, RAFT_VOTER);
	if (rv == 0)
		rv = raft_bootstrap(&c->raft, &conf);
	if (rv != 0)
		log_error("raft log %s: cannot write the first configuration: "
			  "%s: %s", dir, raft_strerror(rv),
			  raft_errmsg(&c->raft));
	r = error_of(rv);
	consensus_close(c, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
out:
	raft_configuration_close(&conf);
	xassert(uv_loop_close(&loop) == 0);
	return r;
}

/* --- what members send --- */

void consensus_on_message(struct consensus *c, const struct peer *from,
			  struct reader *r)
{
	struct raft_message m;

	if (wire_on_message(&c->wire, from, r, &m))
		ioguard_receive(&c->disk, &m);
}

void consensus_on_part(struct consensus *c, const struct peer *from,
		       struct reader *r)
{
	struct raft_message m;

	if (wire_on_part(&c->wire, from, r, &m))
		ioguard_receive(&c->disk, &m);
}

void consensus_peer_changed(struct consensus *c, const struct peer *p)
{
	if (p->connected)
		sender_connected(&c->sender, p->id);
	if (!p->in)
		wire_unheard(&c->wire, p->id);
	if (!p->connected && !p->in)
		suspect(c, p->id);
}

/* --- state --- */

static bool hands_over(const struct consensus *c)
{
	return c->transfer_waits || raft_transferee(&c->raft) != 0;
}

void consensus_get(struct consensus *c, struct consensus_state *ret)
{
	struct raft *r = &c->raft;
	const char *address;
	raft_id leader = 0;

	raft_leader(r, &leader, &address);
	*ret = (struct consensus_state){
		.available = raft_state(r) != RAFT_UNAVAILABLE &&
			     !c->disk.failed,
		.is_leader = raft_state(r) == RAFT_LEADER,
		.term = raft_current_term(r),
		.leader_id = leader,
		.commit_index = raft_commit_index(r),
		.applied_index = raft_last_applied(r),
		.last_index = raft_last_index(r),
		.stored_index = r->last_stored,
		.configuration_index = MAX(r->configuration_committed_index,
					   r->configuration_uncommitted_index),
		.configuration_changing =
			r->configuration_uncommitted_index != 0,
	};
	/* libraft says 0 while it hands over, but until then we lead. */
	if (ret->is_leader)
		ret->leader_id = r->id;
	ret->transferring = ret->is_leader && hands_over(c);
}

uint64_t consensus_match(struct consensus *c, uint64_t id)
{
	raft_index match = 0;

	if (raft_state(&c->raft) != RAFT_LEADER ||
	    raft_match_index(&c->raft, id, &match) != 0)
		return 0;
	return match;
}

uint64_t consensus_installing(const struct consensus *c)
{
	return sender_installing(&c->sender);
}

unsigned consensus_members(struct consensus *c, struct consensus_member *ret,
			   unsigned max)
{
	const struct raft_configuration *conf = &c->raft.configuration;
	unsigned n = MIN(conf->n, max);

	for (unsigned i = 0; i < n; i++) {
		ret[i].id = conf->servers[i].id;
		snprintf(ret[i].address, sizeof ret[i].address, "%s",
			 conf->servers[i].address);
		ret[i].role = role_of(conf->servers[i].role);
	}
	return n;
}

/* --- entries --- */

void *consensus_alloc(size_t n)
{
	void *p = raft_malloc(n);

	xassert(p);
	return p;
}

void consensus_free(void *p)
{
	raft_free(p);
}

static void on_proposed(struct raft_apply *req, int status, void *result)
{
	struct proposal *p = container_of(req, struct proposal, req);
	struct consensus *c = p->consensus;
	uint64_t tag = p->tag;

	free(p);
	c->ops.proposed(c->ops.data, tag, status == 0);
}

int consensus_propose(struct consensus *c, void *p, size_t n, uint64_t tag)
{
	struct raft_buffer buf = { p, n };
	struct proposal *q;
	int rv;

	xassert(!c->stepping && !c->closing);
	if (raft_state(&c->raft) != RAFT_LEADER || hands_over(c))
		return -EPERM;
	q = xcalloc(1, sizeof *q);
	q->consensus = c;
	q->tag = tag;
	rv = raft_apply(&c->raft, &q->req, &buf, 1, on_proposed);
	if (rv == 0)
		return 0;
	free(q);
	log_error("raft refuses an entry: %s: %s", raft_strerror(rv),
		  raft_errmsg(&c->raft));
	return rv == RAFT_NOTLEADER ? -EPERM : -EIO;
}

static void on_barrier(struct raft_barrier *req, int status)
{
	struct barrier *b = container_of(req, struct barrier, req);
	struct consensus *c = b->consensus;
	uint64_t term = b->term;

	free(b);
	if (status == 0)
		c->barrier_term = term;
	c->ops.barrier(c->ops.data, term, status == 0);
}

int consensus_barrier(struct consensus *c)
{
	struct barrier *b = xcalloc(1, sizeof *b);
	int rv;

	xassert(!c->stepping && !c->closing);
	b->consensus = c;
	b->term = raft_current_term(&c->raft);
	rv = raft_barrier(&c->raft, &b->req, on_barrier);
	if (rv != 0)
		free(b);
	return error_of(rv);
}

static void on_told(struct raft_io_send *req, int status)
{
	raft_free(req);
}

/* The heartbeat that libraft would send to this server, but now: its log is as
 * long as ours, and our last entry is of our own term. */
static void send_heartbeat(struct consensus *c, const struct raft_server *s)
{
	struct raft *r = &c->raft;
	struct raft_io_send *req = raft_malloc(sizeof *req);
	struct raft_message m;

	xassert(req);
	memset(req, 0, sizeof *req);
	memset(&m, 0, sizeof m);
	m.type = RAFT_APPEND_ENTRIES;
	m.server_id = s->id;
	m.server_address = s->address;
	m.append_entries.term = raft_current_term(r);
	m.append_entries.prev_log_index = raft_last_index(r);
	m.append_entries.prev_log_term = raft_current_term(r);
	m.append_entries.leader_commit = raft_commit_index(r);
	if (c->disk.io.send(&c->disk.io, req, &m, on_told) != 0)
		raft_free(req);
}

/* False: it has not acknowledged all of our log yet. */
static bool tell_server(struct consensus *c, unsigned i, uint64_t last)
{
	const struct raft_server *s = &c->raft.configuration.servers[i];
	raft_index match;

	if (s->id == c->raft.id || s->role == RAFT_SPARE ||
	    (c->told[i].id == s->id && c->told[i].index == last))
		return true;
	if (raft_match_index(&c->raft, s->id, &match) != 0 || match != last)
		return false;
	c->told[i].id = s->id;
	c->told[i].index = last;
	send_heartbeat(c, s);
	failpoint("commit.told");
	return true;
}

static void tell_commit(struct consensus *c)
{
	struct raft *r = &c->raft;
	uint64_t last = raft_last_index(r);
	bool all = true;

	if (raft_state(r) != RAFT_LEADER || raft_commit_index(r) != last ||
	    c->told_all == last || c->barrier_term != raft_current_term(r))
		return;
	for (unsigned i = 0; i < MIN(r->configuration.n, DB_MEMBERS_MAX); i++)
		all = tell_server(c, i, last) && all;
	if (all)
		c->told_all = last;
}

/* libraft checks the threshold at its next event, and then calls on_snapshot,
 * which must answer at once: so the state is packed before we ask. */
void consensus_snapshot(struct consensus *c, unsigned trailing)
{
	raft_set_snapshot_trailing(&c->raft, MAX(trailing, 1u));
	raft_set_snapshot_threshold(&c->raft, 1);
}

/* --- membership --- */

static void on_change(struct raft_change *req, int status)
{
	struct consensus *c = container_of(req, struct consensus, change);
	consensus_change_cb cb = TAKE_PTR(c->change_cb);

	cb(c->change_data, error_of(status));
}

static int change_ready(struct consensus *c, consensus_change_cb cb, void *data)
{
	xassert(!c->stepping && !c->closing);
	if (c->change_cb)
		return -EBUSY;
	if (raft_state(&c->raft) != RAFT_LEADER || hands_over(c))
		return -EPERM;
	memset(&c->change, 0, sizeof c->change);
	c->change_cb = cb;
	c->change_data = data;
	return 0;
}

static int change_started(struct consensus *c, int rv)
{
	if (rv != 0)
		c->change_cb = NULL;
	return error_of(rv);
}

int consensus_add(struct consensus *c, uint64_t id, const char *address,
		  consensus_change_cb cb, void *data)
{
	int r = change_ready(c, cb, data);

	if (r < 0)
		return r;
	return change_started(
		c, raft_add(&c->raft, &c->change, id, address, on_change));
}

int consensus_assign(struct consensus *c, uint64_t id, enum db_role role,
		     consensus_change_cb cb, void *data)
{
	int r = change_ready(c, cb, data);

	if (r < 0)
		return r;
	return change_started(c, raft_assign(&c->raft, &c->change, id,
					     raft_roles[role], on_change));
}

int consensus_remove(struct consensus *c, uint64_t id, consensus_change_cb cb,
		     void *data)
{
	int r = change_ready(c, cb, data);

	if (r < 0)
		return r;
	return change_started(
		c, raft_remove(&c->raft, &c->change, id, on_change));
}

/* --- handing over ---
 *
 * libraft tells the next leader to go ahead when it has sent it all of the log,
 * once. Who has not written all of that yet takes no notice, and nobody writes
 * until the attempt is given up. So it is asked when the other has everything;
 * new entries wait for that. */

static void transfer_end(struct consensus *c, int error)
{
	consensus_change_cb cb = TAKE_PTR(c->transfer_cb);

	c->transfer_waits = false;
	cb(c->transfer_data, error);
}

static void on_transfer(struct raft_transfer *req)
{
	struct consensus *c = container_of(req, struct consensus, transfer);
	const char *address;
	raft_id leader = 0;

	raft_leader(&c->raft, &leader, &address);
	transfer_end(c, leader == c->transfer_to ? 0 : -ECANCELED);
}

static void transfer_turn(struct consensus *c)
{
	raft_index match = 0;
	int rv;

	if (!c->transfer_waits)
		return;
	if (raft_state(&c->raft) != RAFT_LEADER ||
	    c->disk.io.time(&c->disk.io) >= c->transfer_until) {
		transfer_end(c, -ECANCELED);
		return;
	}
	if (raft_match_index(&c->raft, c->transfer_to, &match) != 0 ||
	    match < raft_last_index(&c->raft))
		return;
	c->transfer_waits = false;
	rv = raft_transfer(&c->raft, &c->transfer, c->transfer_to, on_transfer);
	if (rv != 0)
		transfer_end(c, error_of(rv));
}

/* The voter, or the one that has most of the log; 0: there is none. */
static uint64_t transfer_target(const struct consensus *c, uint64_t id)
{
	const struct raft_configuration *conf = &c->raft.configuration;
	raft_index match, best_match = 0;
	uint64_t best = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *s = &conf->servers[i];

		if (s->role != RAFT_VOTER || s->id == c->raft.id ||
		    (id != 0 && s->id != id) ||
		    raft_match_index((struct raft *)&c->raft, s->id, &match))
			continue;
		if (best == 0 || match > best_match) {
			best = s->id;
			best_match = match;
		}
	}
	return best;
}

int consensus_transfer(struct consensus *c, uint64_t id, consensus_change_cb cb,
		       void *data)
{
	xassert(!c->stepping && !c->closing);
	if (c->transfer_cb)
		return -EBUSY;
	if (raft_state(&c->raft) != RAFT_LEADER)
		return -EPERM;
	c->transfer_to = transfer_target(c, id);
	if (c->transfer_to == 0)
		return -EINVAL;
	memset(&c->transfer, 0, sizeof c->transfer);
	c->transfer_cb = cb;
	c->transfer_data = data;
	c->transfer_waits = true;
	c->transfer_until = c->disk.io.time(&c->disk.io) +
			    c->raft.election_timeout;
	return 0;
}

bool consensus_push(struct consensus *c)
{
	return wire_turn(&c->wire);
}

void consensus_turn(struct consensus *c)
{
	xassert(!c->stepping && !c->closing);
	sender_turn(&c->sender);
	transfer_turn(c);
	tell_commit(c);
}
