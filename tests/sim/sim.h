/* The seeded simulation of a whole pool's database: several members with the
 * real store, consensus and raftdb/db*.c in one thread, on simulated time, disk
 * and network. Everything that happens comes from one seed.
 *
 * The real code is not changed for it: this program defines the functions of
 * libuv (sim_uv.c), of raftdb/link.h (sim_link.c), of raft_uv (sim_io.c), of
 * the data folder (sim_node.c) and of the log (sim.c) itself, so that the linker
 * takes them in place of the real ones. docs/simulation.md tells more.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "raftdb/db.h"

#define NODES_MAX DB_MEMBERS_MAX
#define MS 1000 /* simulated time is in microseconds */
#define SEC (INT64_C(1000) * MS)

struct node;
struct life;
struct pipe;

/* --- memory ---
 *
 * What a member asks for is counted, to let it run out: the linker gives its
 * code functions that count (sim_node.c). What this program needs for itself is
 * not the member's. */
void *__real_xmalloc(size_t n);
void *__real_xcalloc(size_t n, size_t size);
void *__real_xrealloc(void *p, size_t n);
char *__real_xstrdup(const char *s);
char *__real_xstrndup(const char *s, size_t n);
#define xmalloc __real_xmalloc
#define xcalloc __real_xcalloc
#define xrealloc __real_xrealloc
#define xstrdup __real_xstrdup
#define xstrndup __real_xstrndup

/* --- rarely right mistakes, built in to see them caught --- */

enum plant {
	PLANT_NONE,
	PLANT_READ_LOCAL,   /* barrier reads on a follower answer at once */
	PLANT_APPLY_TWICE,  /* a retry of a transaction is applied again */
	PLANT_NO_CONFIRM,   /* voters' confirmations are made up */
	PLANT_LOST_CHANGE,  /* the observer misses a change now and then */
	PLANT_LOST_VOTE,    /* votes and terms are not synced */
	PLANT_LOST_LOG,     /* log writes are not synced */
	PLANT_ACK_EARLY,    /* a write is acknowledged when it is forwarded */
	PLANT_DIVERGE,      /* one member applies something else now and then */
	PLANT_RELATION,     /* derived sets are not kept on one member */
	PLANT_GUARDS,       /* guards are not looked at */
	PLANT_TOMBSTONE,    /* deletions are not recorded */
	PLANT_AGE,          /* local reads say that they are of now */
	PLANT_SESSION,      /* they do not mind what their session has seen */
	PLANT_STALE_SEARCH, /* as READ_LOCAL, with the witness looking away */
	PLANTS
};

/* --- the shape of a run, from the seed --- */

struct shape {
	unsigned n_voters, n_standbys; /* at the start */
	unsigned n_nodes;
	int64_t faults_until, end;     /* us */
	unsigned election_ms, heartbeat_ms, snapshot_threshold;
	unsigned txn_timeout_ms, read_timeout_ms;
	int64_t delay_min, delay_mean; /* of a message, us */
	unsigned spike_permille;       /* messages that take much longer */
	int64_t disk_mean;             /* of a disk write, us */
	unsigned n_clients, n_registers;
	int64_t think_mean;            /* a client's pause, us */
	/* weights of faults; 0: none of the kind */
	unsigned w_partition, w_oneway, w_crash, w_midcrash, w_pause, w_slow,
		w_disk_error, w_disk_stall, w_member, w_transfer, w_clock,
		w_break, w_full, w_restart_all, w_memory, w_disk_read;
	int64_t fault_mean;            /* between faults, us */
	bool real_images;              /* SQLite images, slow */
};

/* --- events --- */

/* Called in the life's loop (or in the world's when life is NULL); drop instead
 * when the life has ended, may be NULL. */
void sim_at(int64_t at, struct life *life, void (*fn)(void *data),
	    void (*drop)(void *data), void *data);
int64_t sim_now(void); /* us */

uint64_t sim_next(void);
/* 0 .. n-1; n > 0 */
uint64_t sim_pick(uint64_t n);
bool sim_chance(unsigned permille);
int64_t sim_between(int64_t a, int64_t b); /* a..b */
int64_t sim_spread(int64_t mean);          /* about exponential, up to 8 mean */

/* A line of the trace; all of them make the run's hash. */
void sim_trace(const char *fmt, ...) _printf_(1, 2);
/* What must never be: ends the run. */
_noreturn_ void sim_fail(const char *checker, const char *fmt, ...) _printf_(2, 3);

/* --- disks, which outlive crashes --- */

struct disk_entry {
	uint64_t term;
	int type;
	char *data;
	size_t n;
};

struct disk_snapshot {
	uint64_t index, term, configuration_index;
	char *configuration, *data;
	size_t configuration_len, n;
};

struct disk {
	uint64_t term, vote;
	uint64_t synced_term, synced_vote; /* differ with PLANT_LOST_VOTE only */
	uint64_t first;                    /* index of entries[0] */
	struct disk_entry *entries;
	size_t n_entries, cap;
	struct disk_snapshot *snapshot;    /* NULL: none */
	int64_t slow_until, stalled_until;
	unsigned fail_writes;              /* so many of the next ones fail */
	unsigned fail_meta;
	unsigned fail_loads;               /* of snapshots */
	bool full;
	size_t unsynced;                   /* PLANT_LOST_LOG: of the last entries */
};

/* --- members --- */

/* From a start of the process to its end. */
struct life {
	struct node *node;
	uv_loop_t loop;
	struct db *db;
	struct list conns;   /* ends of pipes: sim_net.c */
	struct list inbox;   /* events that are due */
	struct sim_io *io;
	void (*accept[2])(void *data, struct pipe *p); /* by PIPE_ kind */
	void *accept_data[2];
	int64_t busy_until, wake_at, started_at;
	bool turn_due, in_turn, dead, open;
	const char *dying;  /* end the life at the end of the turn; why */
	unsigned crash_in;  /* so many outward effects from now; 0: not */
	unsigned memory;    /* so many allocations are left; 0: enough */
	uint64_t serving_term;
	/* checkers: sim_check.c */
	size_t position;     /* in the history */
	uint64_t seen_generation;
	bool reloaded;
	uint64_t mirror, mirror_n;
	bool mirror_known;
};

struct node {
	int i;
	uint64_t id;
	struct db_member me;
	char dir[32];
	struct disk disk;
	struct life *life; /* NULL: down */
	bool in_pool;      /* it should be running */
	bool removed;      /* wanted out */
	bool has_state;
	int64_t clock_offset, mono_offset; /* us */
	unsigned start_memory; /* the next life's */
	int64_t slow_until, down_until;
	int64_t slow_by;
};

struct sim {
	uint64_t seed;
	struct shape shape;
	enum plant plant;
	int64_t now;
	bool tracing, healed;
	struct node nodes[NODES_MAX];
	unsigned n_nodes;
	bool cut[NODES_MAX][NODES_MAX]; /* from, to */
	struct life *cur;
	uint64_t events, hash;
	uint64_t joined_ms; /* when all had joined: sim_many.c */
	/* for the sums */
	uint64_t n_elections, n_crashes, n_exhausted, n_acked, n_unknown, n_refused, n_reads, n_local,
		n_snapshots, n_installs, n_changes, n_faults, n_failed_reads,
		n_searches, n_searches_open;
};
extern struct sim *sim;

/* sim_node.c */
void nodes_init(void);
void node_start(struct node *n);
void node_bootstrap(struct node *n);
/* Ends its life: what was not synced is lost, or some of it. */
void node_crash(struct node *n, const char *why);
/* An orderly stop. */
void node_stop(struct node *n);
void node_wipe(struct node *n);
struct node *node_by_id(uint64_t id);
struct node *node_by_address(const char *address);
struct node *node_by_dir(const char *dir);
struct node *node_serving(void); /* NULL: none says so */
void life_turn(struct life *l);
/* An effect that others can see is about to happen; false: we are dead. */
bool life_effect(struct life *l);
void nodes_free(void);

/* sim_uv.c */
void uvsim_turn(struct life *l);
/* When the next timer is due, us; INT64_MAX: none. */
int64_t uvsim_next(const uv_loop_t *loop);
bool uvsim_idle_active(const uv_loop_t *loop);
/* Runs a dead life's loop until nothing is left. */
bool uvsim_drain_turn(uv_loop_t *loop);
void uvsim_free(uv_loop_t *loop);

/* --- the network: ordered pipes between two lives --- */

enum pipe_kind { PIPE_LINK, PIPE_RAFT };

struct message {
	struct list in_held;
	struct pipe *pipe;
	int to;
	size_t n; /* bytes, for its delay */
	void (*free)(struct message *m);
};

struct pipe_ops {
	void (*ready)(void *data); /* connector */
	void (*message)(void *data, struct message *m); /* takes m */
	void (*closed)(void *data, const char *why);    /* the end is gone */
};

struct pipe_end {
	struct pipe *pipe;
	struct life *life;
	const struct pipe_ops *ops;
	void *data;
	bool open;
	int64_t last_at;   /* of the newest message to this end */
	struct list held;  /* to this end, waiting for the network */
	bool dead_check;
	struct list in_life;
};

struct pipe {
	enum pipe_kind kind;
	struct node *to;
	bool ready;
	struct pipe_end end[2]; /* connector, acceptor */
	struct list in_all;
};

struct pipe *pipe_connect(enum pipe_kind kind, struct node *to,
			  const struct pipe_ops *ops, void *data);
void pipe_attach(struct pipe *p, const struct pipe_ops *ops, void *data);
void pipe_send(struct pipe *p, int from, struct message *m);
void pipe_close(struct pipe *p, int side);
/* What was closed leaves held messages; a healed network lets them go. */
void net_cut(int from, int to, bool cut);
void net_heal(void);
void net_break(struct node *a, struct node *b);
void net_life_ended(struct life *l);
int64_t net_delay(size_t bytes);
void net_init(void);
void net_free(void);

/* sim_io.c */
void io_life_ended(struct life *l);  /* crashed */
void io_life_ending(struct life *l); /* stopped in order */

/* sim_disk.c */
void entry_free(struct disk_entry *e);
void snapshot_free(struct disk_snapshot *s);
uint64_t disk_last(const struct disk *d);
void disk_truncate(struct disk *d, uint64_t index);
void disk_drop_until(struct disk *d, uint64_t index);
/* Takes the entry's data. */
void disk_append(struct disk *d, uint64_t index, struct disk_entry *e);
void disk_free_all(struct disk *d);

/* sim_faults.c */
void faults_start(void);
void faults_heal(void);
void node_restart_later(struct node *n);

/* sim_many.c: a pool of so many members, in place of faults_start(). */
void many_shape(struct shape *s, unsigned members);
void many_start(void);
void many_end(void);

/* --- the workload: sim_load.c --- */

#define REGISTERS_MAX 6
#define VMS 3
#define DISKS 8 /* VBDs: created and destroyed, each of one VM */

enum op_kind_client {
	OPC_INIT, OPC_SET, OPC_CAS, OPC_SWAP, OPC_TAG, OPC_CREATE, OPC_REMOVE,
	OPC_TOUCH, OPC_READ, OPC_LOCAL,
};

/* What a client wants done, over all its attempts. */
struct client_op {
	uint64_t number; /* from 1; what it writes */
	enum op_kind_client kind;
	unsigned a, b;            /* registers, or disk and VM */
	uint64_t expect_a, expect_b;
	uint8_t id[TXN_ID_LEN];
	struct buf encoded;
	unsigned attempts, waiting, unknown; /* under way; ended unknown */
	size_t floor;     /* of the history when it was asked for first */
	uint64_t called, returned; /* steps; 0: never */
	bool acked, never; /* never: told that it was not applied */
	struct txn_result result;
	uint64_t values[REGISTERS_MAX]; /* read */
};

void load_start(void);
/* A last write and read on every member of the pool. */
void load_final(void);
bool load_final_done(void);
struct client_op *load_op_of(const uint8_t id[TXN_ID_LEN]);
struct client_op *load_op(size_t i); /* NULL: no more */
void load_free(void);
/* What a store shows of it. */
uint64_t load_register(const struct store *s, unsigned i);
bool load_disk(const struct store *s, unsigned i);
size_t load_tags(const struct store *s);

/* --- checkers: sim_check.c, sim_lin.c --- */

void check_init(void);
void check_started(struct life *l);
void check_changed(struct life *l, const struct txn *t, uint64_t generation,
		   const struct change *changes, size_t n);
void check_reloaded(struct life *l);
/* How much of the history was seen by somebody whose call has ended. */
size_t check_floor(void);
/* It says that it leads in this term. */
void check_leader(const struct node *n, uint64_t term);
void check_acked(struct life *l, struct client_op *op, struct txn_result r);
void check_read(struct life *l, struct client_op *op);
/* A local read, of this age; seen: position of what its session saw before,
 * raised to what it sees now. */
void check_local(struct life *l, struct client_op *op, int64_t age_ms,
		 size_t *seen);
void check_periodic(void);
void check_end(void);
bool check_converged(void);
size_t check_history(void);
void check_free(void);
/* Values that nobody else interprets: an independent search. */
void lin_check(void);

#endif
