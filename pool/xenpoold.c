/* xenpoold: the daemon's main, the only place where the database, the front end
 * and the pool logic meet. Everything here runs on the core thread's loop,
 * except password hashing, which has the loop's worker threads.
 *
 * Data folder: host-uuid, server.crt, server.key, members.json (whose
 * certificates are trusted), raft/ (log and snapshots), pool.db (state and
 * history for queries), backups/ (being fetched), images/ (suspended VMs), xapi
 * (Unix socket), root-password (only when it was made up here).
 * joining.json is there between a successful pool.join and the restart that
 * leaves the old pool: whoever finds it at start moves raft/ aside first.
 * pool/rebuild.h tells of `rebuild` and `removed`.
 */
#include "config.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/text.h"
#include "pool/consoles.h"
#include "pool/options.h"
#include "pool/pool.h"
#include "pool/rebuild.h"
#include "pool/status.h"
#include "pool/tools.h"
#include "pool/trust.h"
#include "raftdb/db.h"
#include "rpc/client.h"
#include "rpc/front.h"
#include "schema/gen/schema_ids.h"
#include "xen/protocol.h"

struct daemon {
	struct options opt;
	char **argv;
	uv_loop_t loop;
	uv_timer_t wake, restart;
	uv_signal_t sigterm, sigint;
	char host_uuid[UUID_LEN + 1];
	char *cert_file, *key_file, *raft_parent, *image_dir, *www;
	char *peer_address;
	char *certificate; /* PEM */
	char fingerprint[65];
	char *first_password;
	struct trust trust;
	bool joining; /* this start is the second half of pool.join */
	char *removed; /* why this host is not in its pool any more; or NULL */
	bool members_changed;
	bool trust_lags; /* it may have members that have gone meanwhile */
	struct db *db;
	struct pooldb *pooldb;
	struct tools tools;
	struct pool *pool;
	struct exec_client *exec;
	struct consoles consoles;
	struct front *front;
	bool stopping, restarting;
	/* How long the loop's turns take, waiting aside. */
	uv_prepare_t turn;
	uint64_t turn_at, turn_idle, longest_turn; /* ns */
	int exit_code;
};

static char *path_in(const struct daemon *d, const char *name)
{
	return xasprintf("%s/%s", d->opt.data_dir, name);
}

/* ---- files of the data folder ---- */

static int make_dir(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int r = -errno;

		log_error("cannot make the folder %s: %s", path, strerror(-r));
		return r;
	}
	return 0;
}

/* First line of a small file, NULL when it cannot be read. */
static char *read_line(const char *path)
{
	FILE *f = fopen(path, "re");
	char line[512];
	char *ret = NULL;

	if (!f)
		return NULL;
	if (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\r\n")] = '\0';
		ret = xstrdup(line);
	}
	fclose(f);
	return ret;
}

static char *read_file(const char *path)
{
	struct buf b = BUF_INIT;
	char chunk[4096];
	size_t n;
	FILE *f = fopen(path, "re");

	if (!f)
		return NULL;
	while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && b.len < 65536)
		buf_append(&b, chunk, n);
	fclose(f);
	return buf_steal(&b, NULL);
}

static int write_secret(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (dprintf(fd, "%s\n", text) < 0 || fsync(fd) < 0)
		r = -EIO;
	close(fd);
	return r;
}

static int load_host_uuid(struct daemon *d)
{
	_cleanup_(freep) char *path = path_in(d, "host-uuid");
	_cleanup_(freep) char *line = read_line(path);

	if (line) {
		if (!uuid_valid(line, strlen(line))) {
			log_error("%s does not hold a uuid: restore it, or move "
				  "the data folder away", path);
			return -EBADMSG;
		}
		strcpy(d->host_uuid, line);
		return 0;
	}
	uuid_new(d->host_uuid);
	return write_secret(path, d->host_uuid);
}

static int load_certificate(struct daemon *d)
{
	int r;

	d->cert_file = path_in(d, "server.crt");
	d->key_file = path_in(d, "server.key");
	r = tls_ensure_certificate(d->cert_file, d->key_file, d->opt.address);
	if (r == 0)
		r = tls_fingerprint_of_file(d->cert_file, d->fingerprint);
	if (r < 0) {
		log_error("no usable certificate in %s: %s; restore "
			  "server.crt and server.key, which the other members "
			  "trust, or move the data folder away and join the "
			  "pool again", d->opt.data_dir, strerror(-r));
		return r;
	}
	d->certificate = read_file(d->cert_file);
	return d->certificate ? 0 : -EIO;
}

static int load_first_password(struct daemon *d)
{
	_cleanup_(freep) char *made = path_in(d, "root-password");
	uint8_t random[12];
	char hex[2 * sizeof random + 1];

	if (d->opt.root_password_file) {
		d->first_password = read_line(d->opt.root_password_file);
		if (d->first_password && *d->first_password)
			return 0;
		log_error("no password in the first line of %s",
			  d->opt.root_password_file);
		return -EINVAL;
	}
	d->first_password = read_line(made);
	if (d->first_password)
		return 0;
	env_random(random, sizeof random);
	hex_encode(random, sizeof random, hex);
	d->first_password = xstrdup(hex);
	log_info("root's first password has been written to %s", made);
	return write_secret(made, hex);
}

/* Second half of pool.join: see the top of this file. */
static int finish_joining(struct daemon *d)
{
	_cleanup_(freep) char *joining = path_in(d, "joining.json");
	_cleanup_(freep) char *members = path_in(d, "members.json");
	_cleanup_(freep) char *raft = path_in(d, "raft");
	_cleanup_(freep) char *aside = xasprintf(
		"%s/raft.left-%lld", d->opt.data_dir,
		(long long)(env_wall_ms() / 1000));
	struct trust to;
	int r;

	if (access(joining, F_OK) < 0)
		return 0;
	r = trust_load(&to, joining); /* before anything is moved */
	trust_deinit(&to);
	if (r < 0) {
		log_error("remove %s, and this host stays in the pool that it "
			  "was in", joining);
		return r;
	}
	if (rename(raft, aside) < 0 && errno != ENOENT) {
		log_error("cannot move %s aside: %s", raft, strerror(errno));
		return -errno;
	}
	pooldb_set_aside(d->opt.data_dir, strrchr(aside, '/') + 6);
	if (rename(joining, members) < 0)
		return -errno;
	d->joining = true;
	log_info("left the old pool (its data is in %s); waiting to be added "
		 "to the new one", aside);
	return 0;
}

/* ---- trust ---- */

static const struct db_member *on_trusted(void *data, const char *fingerprint)
{
	struct daemon *d = data;

	return d->removed ? NULL : trust_find(&d->trust, fingerprint);
}

#define TRUST_AGE_MS 2000

static bool knows(const struct db_member *list, size_t n,
		  const struct db_member *m)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].id == m->id)
			return true;
	return false;
}

static void refresh_trust(struct daemon *d)
{
	const struct store *s = db_store(d->db);
	struct db_member list[TRUST_MAX_MEMBERS];
	size_t n = 0;
	struct record *r;

	d->members_changed = false;
	memset(list, 0, sizeof list);
	for (r = store_first(s, CLASS_member); r && n < TRUST_MAX_MEMBERS;
	     r = store_next(s, r)) {
		struct db_member *m = &list[n++];

		m->id = strtoull(record_str(r, F_member_raft_id), NULL, 10);
		snprintf(m->address, sizeof m->address, "%s",
			 record_str(r, F_member_peer_address));
		snprintf(m->fingerprint, sizeof m->fingerprint, "%s",
			 record_str(r, F_member_fingerprint));
		snprintf(m->uuid, sizeof m->uuid, "%s",
			 record_str(r, F_member_uuid));
	}
	/* A store that lags, or was loaded from an old snapshot, does not know
	 * the newer members, and one of them may be the leader it waits for. */
	d->trust_lags = db_age_ms(d->db) > TRUST_AGE_MS;
	for (size_t i = 0; d->trust_lags && i < d->trust.n; i++)
		if (n < TRUST_MAX_MEMBERS && !knows(list, n, &d->trust.members[i]))
			list[n++] = d->trust.members[i];
	if (n > 0)
		trust_replace(&d->trust, list, n);
}

/* ---- database callbacks ---- */

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	struct daemon *d = data;

	for (size_t i = 0; i < n; i++)
		if (changes[i].cls->id == CLASS_member)
			d->members_changed = true;
	if (d->members_changed && d->db)
		refresh_trust(d);
	if (d->pooldb)
		pooldb_changed(d->pooldb, db_applied_index(d->db), t,
			       generation, changes, n);
	if (d->pool)
		pool_changed(d->pool, t, generation, changes, n);
}

static void on_reloaded(void *data)
{
	struct daemon *d = data;

	if (d->db)
		refresh_trust(d);
	if (d->pooldb)
		pooldb_reloaded(d->pooldb, db_applied_index(d->db));
	if (d->pool)
		pool_reloaded(d->pool);
}

static void on_leader(void *data, uint64_t leader_id, bool serving)
{
	struct daemon *d = data;

	if (d->pool)
		pool_leader(d->pool, leader_id, serving);
}

static void on_flushed(void *data)
{
	struct daemon *d = data;

	if (d->front)
		front_flush(d->front);
}

/* The folder is in a state that any start can go on from, so there is nothing
 * to close with care; exec keeps the process id that a supervisor knows. */
static _noreturn_ void start_again(struct daemon *d)
{
	execv("/proc/self/exe", d->argv);
	log_error("cannot start again: %s", strerror(errno));
	_exit(3);
}

static void on_fatal(void *data, enum db_end end, const char *why)
{
	struct daemon *d = data;
	const char *dir = d->opt.data_dir;

	log_error("this member stops: %s", why);
	/* Nothing may be written any more, and other members go on without
	 * us: an orderly way out would only keep a broken leader alive. */
	if ((end == DB_END_REBUILD && rebuild_note(dir, why, false) == 0) ||
	    (end == DB_END_REMOVED && removed_note(dir, why) == 0))
		start_again(d);
	_exit(3);
}

static void on_rebuilt(void *data)
{
	struct daemon *d = data;
	_cleanup_(freep) char *why = rebuild_done(d->opt.data_dir);

	if (d->pool)
		pool_alarm(d->pool, NULL, "MEMBER_REBUILT", 3, why);
}

static void on_diverged(void *data, const uint8_t id[TXN_ID_LEN],
			const char *text)
{
	struct daemon *d = data;

	if (d->pool)
		pool_alarm(d->pool, id, "MEMBER_STATE_DIFFERS", 1, text);
}

/* ---- hooks of the pool ---- */

static const struct store *hook_store(void *data)
{
	struct daemon *d = data;

	return db_store(d->db);
}

static void hook_submit(void *data, struct txn *t, pool_txn_cb cb, void *cb_data)
{
	struct daemon *d = data;

	db_submit(d->db, t, cb, cb_data);
}

static void hook_read_barrier(void *data, pool_done_cb cb, void *cb_data)
{
	struct daemon *d = data;

	db_read_barrier(d->db, cb, cb_data);
}

struct password_job {
	uv_work_t work;
	char *password, *hash; /* hash NULL: make one */
	char *made;
	bool ok;
	pool_password_cb cb;
	void *cb_data;
};

static void password_work(uv_work_t *w)
{
	struct password_job *j = container_of(w, struct password_job, work);
	struct crypt_data *c = xcalloc(1, sizeof *c);
	char salt[CRYPT_GENSALT_OUTPUT_SIZE];
	const char *setting = j->hash, *out;

	if (!setting)
		setting = crypt_gensalt_rn("$y$", 0, NULL, 0, salt, sizeof salt);
	out = setting ? crypt_r(j->password, setting, c) : NULL;
	if (out && *out != '*') {
		j->ok = !j->hash || !strcmp(out, j->hash);
		j->made = xstrdup(out);
	}
	explicit_bzero(c, sizeof *c);
	free(c);
}

static void password_done(uv_work_t *w, int status)
{
	struct password_job *j = container_of(w, struct password_job, work);

	j->cb(j->cb_data, j->ok, j->made);
	explicit_bzero(j->password, strlen(j->password));
	free(j->password);
	free(j->hash);
	free(j->made);
	free(j);
}

static void hook_password(void *data, const char *password, const char *hash,
			  pool_password_cb cb, void *cb_data)
{
	struct daemon *d = data;
	struct password_job *j = xcalloc(1, sizeof *j);

	j->password = xstrdup(password);
	j->hash = hash ? xstrdup(hash) : NULL;
	j->cb = cb;
	j->cb_data = cb_data;
	xassert(uv_queue_work(&d->loop, &j->work, password_work,
			      password_done) == 0);
}

static void on_wake(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->trust_lags && db_age_ms(d->db) <= TRUST_AGE_MS)
		refresh_trust(d);
	pool_timers(d->pool);
}

static void hook_wake_at(void *data, int64_t mono_ms)
{
	struct daemon *d = data;
	int64_t in = mono_ms - env_mono_ms();

	if (d->stopping)
		return;
	uv_update_time(&d->loop);
	uv_timer_start(&d->wake, on_wake, in > 0 ? (uint64_t)in : 0, 0);
}

static int hook_executor_send(void *data, const struct value *msg)
{
	struct daemon *d = data;

	return d->exec ? exec_client_send(d->exec, msg) : -ENOTCONN;
}

static void hook_remote_call(void *data, const char *address, const char *method,
			     struct value **params, unsigned n_params,
			     const char *fingerprint, pool_remote_cb cb,
			     void *cb_data)
{
	struct daemon *d = data;
	struct rpc_client_request req = {
		.address = address,
		.default_port = d->opt.https_port,
		.method = method,
		.params = params,
		.n_params = n_params,
		.timeout_ms = 15000,
		.fingerprint = fingerprint,
	};

	rpc_client_call(&d->loop, &req, cb, cb_data);
}

static int hook_member_add(void *data, uint64_t id, const char *peer_address,
			   pool_done_cb cb, void *cb_data)
{
	struct daemon *d = data;

	return db_add_member(d->db, id, peer_address, cb, cb_data);
}

static int hook_member_assign(void *data, uint64_t id, int role,
			      pool_done_cb cb, void *cb_data)
{
	struct daemon *d = data;

	return db_assign(d->db, id, (enum db_role)role, cb, cb_data);
}

static int hook_member_remove(void *data, uint64_t id, pool_done_cb cb,
			      void *cb_data)
{
	struct daemon *d = data;

	return db_remove_member(d->db, id, cb, cb_data);
}

static int hook_transfer(void *data, uint64_t id, pool_done_cb cb, void *cb_data)
{
	struct daemon *d = data;

	return db_transfer(d->db, id, cb, cb_data);
}

static int hook_member_role(void *data, uint64_t id)
{
	struct daemon *d = data;
	struct db_status s;

	db_get_status(d->db, &s);
	for (unsigned i = 0; i < s.n_members; i++)
		if (s.members[i].id == id)
			return (int)s.members[i].role;
	return -1;
}

static bool hook_member_alive(void *data, uint64_t id, int64_t within_ms)
{
	struct daemon *d = data;

	return db_member_alive(d->db, id, within_ms);
}

static bool hook_member_lost(void *data, uint64_t id)
{
	struct daemon *d = data;

	return db_member_lost(d->db, id);
}

static enum pool_absence hook_absence(void *data)
{
	struct daemon *d = data;

	if (d->removed)
		return POOL_REMOVED;
	return db_is_rebuilding(d->db) ? POOL_REBUILDING : POOL_PRESENT;
}

static int64_t hook_age_ms(void *data)
{
	struct daemon *d = data;

	return db_age_ms(d->db);
}

static char *hook_status(void *data)
{
	struct daemon *d = data;

	uint64_t us = d->longest_turn / 1000;

	d->longest_turn = 0;
	return status_json(d->db, d->front, d->pooldb, d->pool, us);
}

static bool hook_tool(void *data, const char *fn, const struct value *args,
		      pool_tool_cb cb, void *cb_data)
{
	struct daemon *d = data;

	return tools_call(&d->tools, fn, args, cb, cb_data);
}

static void hook_console(void *data, const char *vm, bool raw,
			 pool_console_cb cb, void *cb_data)
{
	struct daemon *d = data;

	consoles_ask(&d->consoles, vm, raw, cb, cb_data);
}

/* ---- stopping and starting again ---- */

static void on_db_closed(void *data)
{
	struct daemon *d = data;

	uv_stop(&d->loop);
}

static void stop(struct daemon *d, int exit_code)
{
	if (d->stopping)
		return;
	d->stopping = true;
	d->exit_code = exit_code;
	uv_timer_stop(&d->wake);
	front_stop(TAKE_PTR(d->front));
	consoles_lost(&d->consoles);
	if (d->exec)
		exec_client_close(d->exec);
	d->exec = d->consoles.exec = NULL;
	d->tools.pooldb = NULL;
	if (d->pooldb)
		pooldb_stop(TAKE_PTR(d->pooldb));
	db_close(d->db, on_db_closed, d);
}

/* The answer to pool.join must reach its client before the front end goes. */
#define RESTART_AFTER_MS 500

static void on_restart(uv_timer_t *t)
{
	log_info("starting again as a member of another pool");
	start_again(t->data);
}

static void hook_become_member(void *data, const struct value *members)
{
	struct daemon *d = data;
	_cleanup_(freep) char *path = path_in(d, "joining.json");

	if (trust_write_value(path, members) < 0)
		return;
	uv_timer_start(&d->restart, on_restart, RESTART_AFTER_MS, 0);
}

static void on_transferred(void *data, int error)
{
	stop(data, 0);
}

#define HAND_OVER_MS 1000

static void on_transfer_late(uv_timer_t *t)
{
	stop(t->data, 0);
}

static void on_signal(uv_signal_t *s, int signum)
{
	struct daemon *d = s->data;
	struct db_status st;

	log_info("stopping (%s)", signum == SIGTERM ? "SIGTERM" : "SIGINT");
	uv_signal_stop(s);
	db_get_status(d->db, &st);
	if (st.is_leader && st.n_members > 1 &&
	    db_transfer(d->db, 0, on_transferred, d) == 0)
		/* Nobody may be there to take over. */
		uv_timer_start(&d->restart, on_transfer_late, HAND_OVER_MS, 0);
	else
		stop(d, 0);
}

/* ---- executor, front end ---- */

static void on_exec_message(void *data, const struct value *msg, int *fd)
{
	struct daemon *d = data;

	if (!consoles_message(&d->consoles, msg, fd))
		pool_executor_message(d->pool, msg);
}

static void on_exec_connected(void *data, bool up)
{
	struct daemon *d = data;

	if (!up)
		consoles_lost(&d->consoles);
	pool_executor_connected(d->pool, up);
}

static void on_call(void *data, struct call *c)
{
	struct daemon *d = data;

	pool_call(d->pool, c);
}

/* ---- start ---- */

static void open_pooldb(struct daemon *d)
{
	const struct pooldb_config cfg = {
		.dir = d->opt.data_dir,
		.history_days = d->opt.history_days,
		.history_mib = d->opt.history_mib,
		.min_free_mib = d->opt.min_free_mib,
	};

	d->pooldb = pooldb_start(&d->loop, &cfg, db_store(d->db),
				 db_applied_index(d->db));
	d->tools = (struct tools){
		.loop = &d->loop,
		.db = d->db,
		.pooldb = d->pooldb,
		.data_dir = d->opt.data_dir,
	};
}

/* The identity of a member is for one host. A copy of its folder that is started
 * elsewhere must not even say hello. */
static int check_identity(const struct daemon *d)
{
	const struct db_member *me = trust_find(&d->trust, d->fingerprint);

	if (!me || d->trust.n < 2 || !strcmp(me->address, d->peer_address))
		return 0;
	log_error("%s is the folder of the member at %s, and this host is %s. "
		  "If the folder was copied: start this host with an empty one "
		  "and let it join the pool. If the host's address has changed: "
		  "take it out of the pool (pool.eject through another member), "
		  "and let it join again with an empty folder. Nothing was "
		  "changed.", d->opt.data_dir, me->address, d->peer_address);
	return -EADDRNOTAVAIL;
}

static int open_database(struct daemon *d)
{
	const struct options *o = &d->opt;
	struct db_config cfg = {
		.dir = d->raft_parent,
		.id = db_id_of_uuid(d->host_uuid),
		.peer_address = d->peer_address,
		.cert_file = d->cert_file,
		.key_file = d->key_file,
		.election_timeout_ms = o->election_timeout_ms,
		.heartbeat_ms = o->heartbeat_ms,
		.snapshot_threshold = o->snapshot_threshold,
		.min_free_mib = o->min_free_mib,
	};
	struct db_callbacks cb = {
		.data = d,
		.trusted = on_trusted,
		.changed = on_changed,
		.reloaded = on_reloaded,
		.leader = on_leader,
		.flushed = on_flushed,
		.fatal = on_fatal,
		.rebuilt = on_rebuilt,
		.diverged = on_diverged,
	};
	int r = 0;

	if (d->removed)
		cfg.rebuild = 1; /* it hears nobody, and nobody knows it */
	else
		r = rebuild_prepare(o->data_dir, db_has_state(&cfg),
				    d->trust.n, d->joining, &cfg.rebuild);
	if (r == 0 && !d->removed && !db_has_state(&cfg) && d->trust.n == 0) {
		log_info("no data in %s: starting as a pool of one", cfg.dir);
		pooldb_set_aside(o->data_dir, "old");
		r = db_bootstrap(&cfg);
	}
	if (r == 0)
		r = db_open(&d->loop, &cfg, &cb, &d->db);
	if (r == 0) {
		refresh_trust(d);
		if (!d->removed)
			open_pooldb(d);
	}
	return r;
}

static struct pool *make_pool(struct daemon *d)
{
	const struct options *o = &d->opt;
	char name[256] = "localhost";
	struct pool_config cfg = {
		.host_uuid = d->host_uuid,
		.address = o->address,
		.https_port = o->https_port,
		.peer_address = d->peer_address,
		.certificate = d->certificate,
		.fingerprint = d->fingerprint,
		.hostname = o->hostname ? o->hostname : name,
		.version = PACKAGE_VERSION,
		.first_password = d->first_password,
		.login_delay_ms = o->login_delay_ms,
		.host_dead_after_ms = o->host_dead_after_ms,
		.restart_gap_s = o->restart_gap_s,
		.image_dir = d->image_dir,
	};
	struct pool_hooks hooks = {
		.data = d,
		.store = hook_store,
		.submit = hook_submit,
		.read_barrier = hook_read_barrier,
		.password = hook_password,
		.wake_at = hook_wake_at,
		.executor_send = hook_executor_send,
		.remote_call = hook_remote_call,
		.member_add = hook_member_add,
		.member_assign = hook_member_assign,
		.member_remove = hook_member_remove,
		.transfer = hook_transfer,
		.member_role = hook_member_role,
		.member_alive = hook_member_alive,
		.member_lost = hook_member_lost,
		.absence = hook_absence,
		.age_ms = hook_age_ms,
		.become_member = hook_become_member,
		.status = hook_status,
		.tool = hook_tool,
		.console = hook_console,
	};

	gethostname(name, sizeof name - 1);
	return pool_new(&cfg, &hooks);
}

static const char *http_address(const struct options *o)
{
	bool loopback = !strncmp(o->address, "127.", 4) ||
			!strcmp(o->address, "::1");

	return loopback ? o->address : "127.0.0.1";
}

/* A start that can come to nothing begins no folder. In one that is there the
 * lock tells more than the ports do. */
static int check_ports(const struct daemon *d)
{
	const struct options *o = &d->opt;
	const struct {
		const char *address;
		unsigned port;
	} wanted[] = { { o->address, o->https_port },
		       { http_address(o), o->http_port },
		       { o->address, o->peer_port } };
	_cleanup_(freep) char *begun = path_in(d, "host-uuid");
	int r = 0;

	if (access(begun, F_OK) == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(wanted) && r == 0; i++) {
		r = front_check_port(wanted[i].address, wanted[i].port);
		if (r < 0)
			log_error("cannot listen on %s port %u: %s; is the "
				  "address right, and no other daemon there? "
				  "Nothing was written", wanted[i].address,
				  wanted[i].port, strerror(-r));
	}
	return r;
}

static int start_front(struct daemon *d)
{
	const struct options *o = &d->opt;
	struct front_config cfg = {
		.address = o->address,
		.https_port = o->https_port,
		.http_port = o->http_port,
		.http_address = http_address(o),
		.unix_path = o->unix_socket,
		.cert_file = d->cert_file,
		.key_file = d->key_file,
		.www_dir = o->www_dir,
		.n_threads = o->front_threads,
		.max_body_bytes = o->max_body_kib * 1024,
	};

	return front_start(&d->loop, &cfg, on_call, d, &d->front);
}

static void on_turn(uv_prepare_t *h)
{
	struct daemon *d = h->data;
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(&d->loop);
	uint64_t busy = now - d->turn_at - (idle - d->turn_idle);

	if (d->turn_at && busy <= now - d->turn_at)
		d->longest_turn = MAX(d->longest_turn, busy);
	d->turn_at = now;
	d->turn_idle = idle;
}

static void init_loop(struct daemon *d)
{
	xassert(uv_loop_init(&d->loop) == 0);
	uv_loop_configure(&d->loop, UV_METRICS_IDLE_TIME);
	uv_prepare_init(&d->loop, &d->turn);
	uv_prepare_start(&d->turn, on_turn);
	d->turn.data = d;
	uv_timer_init(&d->loop, &d->wake);
	uv_timer_init(&d->loop, &d->restart);
	consoles_init(&d->consoles, &d->loop);
	uv_signal_init(&d->loop, &d->sigterm);
	uv_signal_init(&d->loop, &d->sigint);
	d->wake.data = d->restart.data = d;
	d->sigterm.data = d->sigint.data = d;
	uv_signal_start(&d->sigterm, on_signal, SIGTERM);
	uv_signal_start(&d->sigint, on_signal, SIGINT);
}

static int start(struct daemon *d)
{
	const struct options *o = &d->opt;
	struct exec_client_callbacks cb = { d, on_exec_message, on_exec_connected };
	_cleanup_(freep) char *members = path_in(d, "members.json");
	int r;

	d->removed = removed_why(o->data_dir);
	d->raft_parent = d->removed ? path_in(d, "removed") :
				      xstrdup(o->data_dir);
	d->image_dir = o->image_dir ? xstrdup(o->image_dir) :
				      path_in(d, "images");
	d->peer_address = xasprintf(strchr(o->address, ':') ? "[%s]:%u" : "%s:%u",
				    o->address, o->peer_port);
	if ((r = check_ports(d)) < 0 || (r = make_dir(o->data_dir)) < 0 ||
	    (!o->image_dir && (r = make_dir(d->image_dir)) < 0) ||
	    (r = load_host_uuid(d)) < 0 || (r = load_certificate(d)) < 0 ||
	    (r = load_first_password(d)) < 0 || (r = finish_joining(d)) < 0 ||
	    (r = trust_load(&d->trust, members)) < 0 ||
	    (r = check_identity(d)) < 0 ||
	    (r = open_database(d)) < 0)
		return r;
	d->pool = make_pool(d);
	if (d->removed)
		log_error("this host is not in its pool any more (%s): see "
			  "\"A host that was removed\" in docs/operations.md",
			  d->removed);
	else /* guests of a removed host are let alone */
		r = exec_client_start(&d->loop, o->executor_socket,
				      d->host_uuid, &cb, &d->exec);
	d->consoles.exec = d->exec;
	if (r == 0)
		r = start_front(d);
	if (r == 0)
		log_info("host %s serves https://%s:%u, members on %s",
			 d->host_uuid, o->address, o->https_port,
			 d->peer_address);
	return r;
}

static void deinit(struct daemon *d)
{
	pool_free(d->pool);
	trust_deinit(&d->trust);
	if (d->first_password)
		explicit_bzero(d->first_password, strlen(d->first_password));
	free(d->first_password);
	free(d->cert_file);
	free(d->key_file);
	free(d->raft_parent);
	free(d->image_dir);
	free(d->peer_address);
	free(d->certificate);
	free(d->removed);
	options_free(&d->opt);
}

int main(int argc, char **argv)
{
	static struct daemon d;
	enum log_level level = LOG_LEVEL_INFO;
	int r;

	d.argv = argv;
	r = options_parse(&d.opt, argc, argv);
	if (r != 0)
		return r > 0 ? 0 : 2;
	if (!log_level_parse(d.opt.log_level, &level)) {
		fprintf(stderr, "xenpoold: log-level must be error, warn, info "
				"or debug, not \"%s\"\n", d.opt.log_level);
		return 2;
	}
	log_set_level(level);
	log_set_thread("core");
	r = failpoints_start(getenv("XENPOOL_FAILPOINTS"));
	if (r != 0)
		return r > 0 ? 0 : 2;
	signal(SIGPIPE, SIG_IGN);
	umask(0077);
	init_loop(&d);
	r = start(&d);
	if (r < 0) {
		log_error("cannot start: %s", strerror(-r));
		return 1;
	}
	uv_run(&d.loop, UV_RUN_DEFAULT);
	deinit(&d);
	return d.exit_code;
}
