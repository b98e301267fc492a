/* Runs seeds: the shape of each run comes from its seed. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "tests/sim/sim_run.h"

static const char usage[] =
	"usage: sim [--seeds N] [--start S] [--jobs J] [--trace] [--plant NAME]\n"
	"           [--hash] [--members M]\n"
	"Runs the database of a whole pool on simulated time, disk and network,\n"
	"N seeds from S on. Ends with 1 at the first seed that breaks a rule.\n"
	"--members M: of a pool of so many (7 to 64), most of which stand by.\n"
	"--plant NAME builds a mistake in; --plant list tells their names.\n";

static const char *const plants[PLANTS] = {
	[PLANT_NONE] = "none",
	[PLANT_READ_LOCAL] = "read-local",
	[PLANT_APPLY_TWICE] = "apply-twice",
	[PLANT_NO_CONFIRM] = "no-confirm",
	[PLANT_LOST_CHANGE] = "lost-change",
	[PLANT_LOST_VOTE] = "lost-vote",
	[PLANT_LOST_LOG] = "lost-log",
	[PLANT_ACK_EARLY] = "ack-early",
	[PLANT_DIVERGE] = "diverge",
	[PLANT_RELATION] = "relation",
	[PLANT_GUARDS] = "guards",
	[PLANT_TOMBSTONE] = "tombstone",
	[PLANT_AGE] = "age",
	[PLANT_SESSION] = "session",
	[PLANT_STALE_SEARCH] = "stale-search",
};

struct options {
	uint64_t seeds, start, jobs, members;
	bool trace, hash;
	enum plant plant;
};

static struct options options = { .seeds = 1, .start = 1, .jobs = 1 };

/* Shared by the jobs. */
static struct shared {
	volatile uint64_t next, failed; /* failed: seed + 1 */
	volatile uint64_t runs, events, faults, crashes, exhausted, elections, acked,
		unknown, refused, reads, local, failed_reads, snapshots, installs,
		changes, searches, open_searches, simulated_ms, joined_ms;
} *shared;

static void tell_repeat(FILE *f)
{
	fprintf(f, "seed %llu; repeat: tests/sim/sim --start %llu%s%s",
		(unsigned long long)sim->seed, (unsigned long long)sim->seed,
		sim->plant ? " --plant " : "",
		sim->plant ? plants[sim->plant] : "");
	if (options.members)
		fprintf(f, " --members %u", sim->n_nodes);
	fprintf(f, " --trace\n");
}

_noreturn_ void run_failed(const char *checker, const char *what)
{
	printf("FAILED %s: %s (at %lld ms)\n", checker, what,
	       (long long)(sim->now / MS));
	tell_repeat(stdout);
	fflush(stdout);
	shared->failed = sim->seed + 1;
	_exit(1);
}

static void on_abort(int sig)
{
	static char line[200];
	int n = snprintf(line, sizeof line, "FAILED by signal %d\n", sig);

	fflush(stdout);
	if (write(1, line, (size_t)n) < 0)
		_exit(3);
	if (sim) {
		tell_repeat(stdout);
		fflush(stdout);
		shared->failed = sim->seed + 1;
	}
	_exit(1);
}

/* --- the shape of a run --- */

#define FEW_MAX 7u /* members, but for --members */

static unsigned weight_of(unsigned normal)
{
	return sim_chance(350) ? 0 : (unsigned)sim_pick(normal * 2) + 1;
}

static void pick_faults(struct shape *s)
{
	s->w_partition = weight_of(20);
	s->w_oneway = weight_of(10);
	s->w_crash = weight_of(20);
	s->w_midcrash = weight_of(15);
	s->w_pause = weight_of(10);
	s->w_slow = weight_of(8);
	s->w_disk_error = weight_of(5);
	s->w_disk_stall = weight_of(8);
	s->w_member = weight_of(20);
	s->w_transfer = weight_of(10);
	s->w_clock = weight_of(6);
	s->w_break = weight_of(8);
	s->w_full = weight_of(4);
	s->w_restart_all = weight_of(3);
	s->w_memory = weight_of(15);
	s->w_disk_read = weight_of(5);
	s->fault_mean = sim_between(100 * MS, 1500 * MS);
}

static void pick_shape(struct shape *s)
{
	static const unsigned elections[] = { 150, 200, 300, 600 };

	memset(s, 0, sizeof *s);
	s->n_voters = sim_chance(300) ? 5 : 3;
	s->n_standbys = (unsigned)sim_pick(3);
	s->n_nodes = MIN(s->n_voters + s->n_standbys + (unsigned)sim_pick(2),
			 FEW_MAX);
	s->faults_until = sim_between(6 * SEC, 14 * SEC);
	s->end = s->faults_until + 60 * SEC;
	s->election_ms = elections[sim_pick(ARRAY_LEN(elections))];
	s->heartbeat_ms = s->election_ms / (5 + (unsigned)sim_pick(4));
	s->snapshot_threshold = sim_chance(600)
					? 20 + (unsigned)sim_pick(150)
					: 8192;
	s->txn_timeout_ms = 1000 + (unsigned)sim_pick(4000);
	s->read_timeout_ms = 500 + (unsigned)sim_pick(2500);
	s->delay_min = sim_between(20, 300);
	s->delay_mean = sim_chance(200) ? sim_between(1 * MS, 15 * MS)
					: sim_between(30, 800);
	s->spike_permille = sim_chance(500) ? 0 : (unsigned)sim_pick(30);
	s->disk_mean = sim_between(50, 4 * MS);
	s->n_clients = 3 + (unsigned)sim_pick(6);
	s->n_registers = 2 + (unsigned)sim_pick(REGISTERS_MAX - 1);
	s->think_mean = sim_between(5 * MS, 60 * MS);
	s->real_images = sim_chance(30);
	pick_faults(s);
}

/* --- one run --- */

#define CHECK_US (250 * MS)

static void on_periodic(void *data)
{
	check_periodic();
	sim_at(sim->now + CHECK_US, NULL, on_periodic, NULL, NULL);
}

static void on_heal(void *data)
{
	faults_heal();
}

static void add_up(void)
{
	shared->runs++;
	shared->events += sim->events;
	shared->faults += sim->n_faults;
	shared->crashes += sim->n_crashes;
	shared->exhausted += sim->n_exhausted;
	shared->elections += sim->n_elections;
	shared->acked += sim->n_acked;
	shared->unknown += sim->n_unknown;
	shared->refused += sim->n_refused;
	shared->reads += sim->n_reads;
	shared->local += sim->n_local;
	shared->failed_reads += sim->n_failed_reads;
	shared->snapshots += sim->n_snapshots;
	shared->installs += sim->n_installs;
	shared->changes += sim->n_changes;
	shared->searches += sim->n_searches;
	shared->open_searches += sim->n_searches_open;
	shared->simulated_ms += (uint64_t)(sim->now / MS);
	shared->joined_ms += sim->joined_ms;
}

static void run_to_end(void)
{
	while (run_event()) {
		if (sim->now > sim->shape.end)
			sim_fail("progress", "the pool does not recover: %s",
				 !load_final_done() ? "calls do not end"
						    : "members differ");
		if (sim->healed && load_final_done() && check_converged())
			break;
	}
	check_end();
	if (options.members)
		many_end();
	sim_trace("end: %zu transactions", check_history());
}

static uint64_t run_seed(uint64_t seed)
{
	struct sim s = { .seed = seed, .tracing = options.trace,
			 .plant = options.plant };
	uint64_t hash;

	sim = &s;
	run_core_init(seed);
	pick_shape(&s.shape);
	if (options.members)
		many_shape(&s.shape, (unsigned)options.members);
	s.n_nodes = s.shape.n_nodes;
	nodes_init();
	net_init();
	check_init();
	load_start();
	if (options.members) {
		many_start();
	} else {
		faults_start();
		sim_at(s.shape.faults_until, NULL, on_heal, NULL, NULL);
	}
	sim_at(CHECK_US, NULL, on_periodic, NULL, NULL);
	run_to_end();
	hash = s.hash;
	nodes_free();
	run_core_free();
	net_free();
	load_free();
	check_free();
	add_up();
	sim = NULL;
	env_replace(NULL);
	return hash;
}

/* --- jobs --- */

static void work(void)
{
	for (;;) {
		uint64_t i = __sync_fetch_and_add(&shared->next, 1), hash;

		if (i >= options.seeds || shared->failed)
			return;
		hash = run_seed(options.start + i);
		if (options.hash)
			printf("%llu %016llx\n",
			       (unsigned long long)(options.start + i),
			       (unsigned long long)hash);
		fflush(stdout);
	}
}

static int run_jobs(void)
{
	int status, bad = 0;

	if (options.jobs <= 1) {
		work();
		return 0;
	}
	for (uint64_t i = 0; i < options.jobs; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("fork");
			return 1;
		}
		if (pid == 0) {
			work();
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		if (status != 0)
			bad = 1;
	return bad;
}

static bool parse_number(const char *s, uint64_t *ret)
{
	char *end;

	if (!s)
		return false;
	*ret = strtoull(s, &end, 10);
	return *s && !*end;
}

static bool parse_plant(const char *name)
{
	for (int i = 0; name && i < PLANTS; i++)
		if (strcmp(name, plants[i]) == 0) {
			options.plant = (enum plant)i;
			return true;
		}
	for (int i = 1; i < PLANTS; i++)
		printf("%s\n", plants[i]);
	return false;
}

static bool parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
		bool ok = true, took = true;

		if (strcmp(a, "--seeds") == 0)
			ok = parse_number(v, &options.seeds);
		else if (strcmp(a, "--start") == 0)
			ok = parse_number(v, &options.start);
		else if (strcmp(a, "--jobs") == 0)
			ok = parse_number(v, &options.jobs);
		else if (strcmp(a, "--members") == 0)
			ok = parse_number(v, &options.members) &&
			     options.members >= 7 &&
			     options.members <= NODES_MAX;
		else if (strcmp(a, "--plant") == 0)
			ok = parse_plant(v);
		else
			took = false;
		if (took)
			i++;
		else if (strcmp(a, "--trace") == 0)
			options.trace = true;
		else if (strcmp(a, "--hash") == 0)
			options.hash = true;
		else
			ok = false;
		if (!ok)
			return false;
	}
	return true;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(double took)
{
#define N(field) ((unsigned long long)shared->field)
	printf("%llu runs, %.1f s, %.0f ms a run, of %llu simulated ms\n"
	       "%llu events, %llu faults, %llu crashes (%llu without memory), "
	       "%llu elections, %llu changes of membership\n"
	       "%llu writes acknowledged, %llu unknown, %llu refused; "
	       "%llu reads, %llu without an answer, %llu local ones\n"
	       "%llu snapshots taken, %llu received; %llu searches, %llu not "
	       "finished\n",
	       N(runs), took, took * 1000 / (double)MAX(N(runs), 1ull),
	       N(simulated_ms) / MAX(N(runs), 1ull), N(events), N(faults),
	       N(crashes), N(exhausted), N(elections), N(changes), N(acked), N(unknown),
	       N(refused), N(reads), N(failed_reads), N(local), N(snapshots), N(installs),
	       N(searches), N(open_searches));
	if (options.members)
		printf("%llu members, with all of the state after %llu simulated ms\n",
		       (unsigned long long)options.members,
		       N(joined_ms) / MAX(N(runs), 1ull));
}

int main(int argc, char **argv)
{
	double start = seconds();
	int bad;

	if (!parse(argc, argv)) {
		fputs(usage, stderr);
		return 2;
	}
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	bad = run_jobs();
	if (!options.hash)
		tell(seconds() - start);
	return bad || shared->failed ? 1 : 0;
}
