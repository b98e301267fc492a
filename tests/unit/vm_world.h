/* A pool of several hosts in one thread: one store that all members share (as
 * if the log were instantaneous), a simulated executor a host, and a clock that
 * the test moves. Whatever is not told to fail succeeds at once.
 *
 * The invariant is checked whenever a domain changes: no VM is unpaused on two
 * hosts.
 */
#ifndef TESTS_VM_WORLD_H
#define TESTS_VM_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/core.h"
#include "pool/vm.h"
#include "raftdb/db.h"

#define MAX_HOSTS 3
#define MAX_DOMAINS 32
#define DEAD_AFTER_MS 5000
#define S(text) value_stringz(text)
#define B(b) value_bool(b)
#define I(i) value_int(i)

enum dom_state { GONE, RUNNING, PAUSED, SHUT, KEPT, INCOMING };

struct dom {
	char vm[UUID_LEN + 1];
	int domid;
	int64_t fence;
	enum dom_state state;
	const char *reason;
	bool image; /* a suspended image of it is here */
	int64_t memory_kib; /* 0: some */
	int64_t ticks;
};

struct sim_host {
	char uuid[UUID_LEN + 1], ref[REF_LEN + 1];
	struct pool *pool;       /* NULL: its daemon is down */
	bool cut;                /* not heard of by the others */
	bool executor_down;
	struct dom doms[MAX_DOMAINS];
	int next_domid;
	struct value *inbox[64]; /* to the daemon */
	size_t n_inbox;
	char done_ids[64][128];  /* what has been answered lately */
	struct value *done[64];
	size_t n_done;
	int64_t wake_ms, heard_ms;
	const char *boot_id;
	unsigned verbs;          /* carried out */
};

struct wish {
	struct list link;
	struct sim_host *host;
	struct txn *txn;
	pool_txn_cb txn_cb;
	pool_done_cb done_cb;
	pool_password_cb password_cb;
	pool_remote_cb remote_cb;
	const struct remote_answer *answer;
	void *data;
};

/* What another pool answers to a call. */
struct remote_answer {
	const char *method;
	int error;
	struct value *result, *api_error;
};

static struct vm_world {
	struct store *store;
	struct sim_host h[MAX_HOSTS];
	int n, leader; /* leader: index, -1 none */
	int64_t wall_ms, mono_ms;
	uint64_t random;
	struct list wishes;
	char session[REF_LEN + 1];
	/* Verb whose next use is not answered (held), or that fails, on any
	 * host; NULL none. */
	const char *hold, *fail;
	struct value *held; /* the message */
	struct sim_host *held_at;
	int roles[MAX_HOSTS + 1]; /* Raft configuration: role by host, -1 */
	unsigned become_member;
	struct remote_answer answers[8];
	char called[256]; /* methods called there, in order */
} w;

/* ---- clock ---- */

static int64_t fake_wall(void *data)
{
	return w.wall_ms;
}

static int64_t fake_mono(void *data)
{
	return w.mono_ms;
}

static void fake_random(void *data, void *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		w.random =
			w.random * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)out)[i] = (uint8_t)(w.random >> 56);
	}
}

static const struct env_ops fake_env = { fake_wall, fake_mono, fake_random,
					NULL };

/* ---- the simulated executor ---- */

static inline struct dom *dom_find(struct sim_host *h, const char *vm)
{
	for (int i = 0; i < MAX_DOMAINS; i++)
		if (!strcmp(h->doms[i].vm, vm))
			return &h->doms[i];
	return NULL;
}

static inline struct dom *dom_get(struct sim_host *h, const char *vm)
{
	struct dom *d = dom_find(h, vm);

	for (int i = 0; !d && i < MAX_DOMAINS; i++)
		if (!*h->doms[i].vm) {
			d = &h->doms[i];
			strcpy(d->vm, vm);
		}
	xassert(d);
	return d;
}

static inline void check_unpaused_once(const char *vm)
{
	int n = 0;

	for (int i = 0; i < w.n; i++) {
		struct dom *d = dom_find(&w.h[i], vm);

		n += d && d->state == RUNNING;
	}
	if (n > 1)
		fail_msg("VM %s runs on %d hosts", vm, n);
}

static inline void tell(struct sim_host *h, struct value *takes_msg)
{
	xassert(h->n_inbox < ARRAY_LEN(h->inbox));
	h->inbox[h->n_inbox++] = takes_msg;
}

static inline struct value *dom_value(const struct dom *d)
{
	static const char *const names[] = { "", "running", "paused",
					    "shutdown",
					     "paused", "paused" };

	return value_struct_of("vm", S(d->vm), "domid", I(d->domid), "state",
			       S(names[d->state]), "fence", I(d->fence),
			       "memory_kib",
			       I(d->memory_kib ? d->memory_kib : 1024), "vcpus", I(1), "guest_ticks",
			       I(d->ticks), "incoming",
			       B(d->state == INCOMING), "reason",
			       S(d->reason ? d->reason : ""), NULL);
}

#define HOST_MEMORY (8LL << 30)

static inline void tell_state(struct sim_host *h)
{
	struct value *set = value_set_new(MAX_DOMAINS);
	uint32_t n = 0;

	for (int i = 0; i < MAX_DOMAINS; i++)
		if (h->doms[i].state != GONE)
			set->items[n++] = dom_value(&h->doms[i]);
	set->n = n;
	tell(h, value_struct_of(
			"type", S("state"), "boot_id", S(h->boot_id), "domains",
			set, "host",
			value_struct_of("memory_total", I(HOST_MEMORY),
					"memory_free", I(HOST_MEMORY / 2),
					"cpu_count", I(4), "cpu_model", S("sim"),
					"cpu_vendor", S("sim"), "cpu_mhz",
					I(2000), "xen_version", S("4.17"),
					"backend", S("sim"), "dom0_memory",
					I(HOST_MEMORY / 16), "dom0_vcpus", I(2),
					NULL),
			NULL));
}

static inline struct value *failure(const char *code, const char *param)
{
	return api_error(code, param, NULL);
}

static inline struct value *result_domid(const struct dom *d)
{
	return value_struct_of("domid", I(d->domid), NULL);
}

/* Does the verb: NULL and a result, or an error. */
static inline struct value *do_verb(struct sim_host *h, const char *verb,
				    struct dom *d, const struct value *params,
				    struct value **result)
{
	bool paused = value_get(params, "paused") &&
		      value_get(params, "paused")->i;

	h->verbs++;
	if (!strcmp(verb, "start") || !strcmp(verb, "resume")) {
		if (!strcmp(verb, "resume") && !d->image && d->state == GONE)
			return failure("SUSPEND_IMAGE_NOT_ACCESSIBLE", d->vm);
		if (d->state == GONE)
			d->domid = ++h->next_domid;
		d->state = paused ? PAUSED : RUNNING;
		d->image = d->image && !strcmp(verb, "start");
		*result = result_domid(d);
	} else if (strstr(verb, "reboot")) {
		d->domid = ++h->next_domid;
		d->state = RUNNING;
		*result = result_domid(d);
	} else if (!strcmp(verb, "pause")) {
		if (d->state == GONE)
			return failure("VM_BAD_POWER_STATE", d->vm);
		d->state = PAUSED;
	} else if (!strcmp(verb, "unpause")) {
		if (d->state == KEPT)
			return failure("OTHER_OPERATION_IN_PROGRESS", d->vm);
		if (d->state != GONE)
			d->state = RUNNING;
	} else if (strstr(verb, "shutdown")) {
		d->state = GONE;
	} else if (!strcmp(verb, "suspend")) {
		d->state = GONE;
		d->image = true;
	} else if (!strcmp(verb, "drop_image")) {
		d->image = false;
	} else if (!strcmp(verb, "change") && d->state == GONE) {
		return failure("VM_BAD_POWER_STATE", d->vm);
	} else if (!strcmp(verb, "set_xenstore") || !strcmp(verb, "change")) {
		; /* the domain has them now */
	} else if (!strcmp(verb, "migrate_receive")) {
		if (d->state == GONE)
			d->domid = ++h->next_domid;
		d->state = INCOMING;
		*result = value_struct_of("domid", I(d->domid), "address",
					  S("10.0.0.1"), "port", I(7000),
					  "token", S("t"), NULL);
	} else if (!strcmp(verb, "migrate_send")) {
		d->state = KEPT;
	} else if (!strcmp(verb, "migrate_activate")) {
		if (d->state != INCOMING && d->state != RUNNING)
			return failure("INTERNAL_ERROR", "no copy");
		d->state = RUNNING;
		*result = result_domid(d);
	} else if (!strcmp(verb, "migrate_abort")) {
		if (d->state == INCOMING)
			d->state = GONE;
		else if (d->state == KEPT)
			d->state = RUNNING;
	} else if (!strcmp(verb, "migrate_finish")) {
		if (d->state == KEPT)
			d->state = GONE;
	} else {
		return failure("NOT_IMPLEMENTED", verb);
	}
	return NULL;
}

static inline void remember(struct sim_host *h, const char *id,
			    struct value *done)
{
	size_t i = h->n_done++ % ARRAY_LEN(h->done);

	value_unref(h->done[i]);
	h->done[i] = value_ref(done);
	snprintf(h->done_ids[i], sizeof h->done_ids[i], "%s", id);
}

static inline bool told_before(struct sim_host *h, const char *id)
{
	for (size_t i = 0; i < ARRAY_LEN(h->done); i++)
		if (h->done[i] && !strcmp(h->done_ids[i], id)) {
			tell(h, value_ref(h->done[i]));
			return true;
		}
	return false;
}

static inline void carry_out(struct sim_host *h, const struct value *msg)
{
	const char *id = value_get_str(msg, "id");
	const char *verb = value_get_str(msg, "verb");
	int64_t fence = value_get_int(msg, "fence", -1);
	struct dom *d = dom_get(h, value_get_str(msg, "vm"));
	struct value *result = NULL, *error = NULL, *done;

	if (told_before(h, id))
		return;
	if (strcmp(verb, "drop_image") != 0) {
		if (fence < d->fence)
			error = failure("FENCED", d->vm);
		else
			d->fence = fence;
	}
	if (!error && w.fail && !strcmp(w.fail, verb))
		error = failure("INTERNAL_ERROR", "simulated failure");
	if (!error)
		error = do_verb(h, verb, d, value_get(msg, "params"), &result);
	check_unpaused_once(d->vm);
	done = value_struct_of("type", S("done"), "id", S(id), "vm", S(d->vm),
			       "ok", B(!error), "error",
			       error ? error : value_set_empty(), "result",
			       result ? result : value_struct_new(0), NULL);
	remember(h, id, done);
	tell(h, done);
}

static inline void cancel_held(struct sim_host *h, const char *id)
{
	struct value *msg = w.held;

	if (!msg || w.held_at != h || strcmp(value_get_str(msg, "id"), id))
		return;
	tell(h, value_struct_of("type", S("done"), "id", S(id), "vm",
				value_ref(value_get(msg, "vm")), "ok", B(false),
				"error", failure("TASK_CANCELLED",
						 id), "result",
				value_struct_new(0), NULL));
	value_unref(TAKE_PTR(w.held));
}

static inline int sim_send(struct sim_host *h, const struct value *msg)
{
	const char *type = value_get_str(msg, "type");

	if (h->executor_down)
		return -ENOTCONN;
	if (!strcmp(type, "list"))
		tell_state(h);
	else if (!strcmp(type, "cancel"))
		cancel_held(h, value_get_str(msg, "id"));
	else if (w.hold && !w.held &&
		 !strcmp(w.hold, value_get_str(msg, "verb"))) {
		w.held = value_ref(msg);
		w.held_at = h;
	} else
		carry_out(h, msg);
	return 0;
}

/* The held verb is carried out now; later ones of its kind at once. */
static inline void release_held(void)
{
	struct value *msg = TAKE_PTR(w.held);

	w.hold = NULL;
	if (msg)
		carry_out(w.held_at, msg);
	value_unref(msg);
}

/* ---- hooks ---- */

static inline struct wish *wish_new(struct sim_host *h, void *data)
{
	struct wish *wish = xcalloc(1, sizeof *wish);

	wish->host = h;
	wish->data = data;
	list_push(&w.wishes, &wish->link);
	return wish;
}

static const struct store *hook_store(void *data)
{
	return w.store;
}

static void hook_submit(void *data, struct txn *t, pool_txn_cb cb,
			void *cb_data)
{
	struct wish *wish = wish_new(data, cb_data);

	wish->txn = t;
	wish->txn_cb = cb;
}

static void hook_barrier(void *data, pool_done_cb cb, void *cb_data)
{
	wish_new(data, cb_data)->done_cb = cb;
}

static void hook_password(void *data, const char *password, const char *hash,
			  pool_password_cb cb, void *cb_data)
{
	wish_new(data, cb_data)->password_cb = cb;
}

static void hook_wake_at(void *data, int64_t mono_ms)
{
	((struct sim_host *)data)->wake_ms = mono_ms;
}

static int hook_executor_send(void *data, const struct value *msg)
{
	return sim_send(data, msg);
}

static struct sim_host *host_of_id(uint64_t id)
{
	for (int i = 0; i < MAX_HOSTS; i++)
		if (*w.h[i].uuid && db_id_of_uuid(w.h[i].uuid) == id)
			return &w.h[i];
	return NULL;
}

static int hook_member_role(void *data, uint64_t id)
{
	struct sim_host *h = host_of_id(id);

	return h ? w.roles[h - w.h] : -1;
}

static int hook_member_add(void *data, uint64_t id, const char *peer_address,
			   pool_done_cb cb, void *cb_data)
{
	w.roles[host_of_id(id) - w.h] = DB_SPARE;
	wish_new(data, cb_data)->done_cb = cb;
	return 0;
}

static int hook_member_assign(void *data, uint64_t id, int role,
			      pool_done_cb cb, void *cb_data)
{
	w.roles[host_of_id(id) - w.h] = role;
	wish_new(data, cb_data)->done_cb = cb;
	return 0;
}

static int hook_member_remove(void *data, uint64_t id, pool_done_cb cb,
			      void *cb_data)
{
	w.roles[host_of_id(id) - w.h] = -1;
	wish_new(data, cb_data)->done_cb = cb;
	return 0;
}

static bool hook_member_alive(void *data, uint64_t id, int64_t within_ms)
{
	struct sim_host *h = host_of_id(id);

	return h && w.mono_ms - h->heard_ms <= within_ms;
}

static void hook_remote_call(void *data, const char *address,
			     const char *method,
			     struct value **params, unsigned n_params,
			     const char *fingerprint, pool_remote_cb cb,
			     void *cb_data)
{
	static const struct remote_answer nothing = { "", -ECONNREFUSED, NULL,
						      NULL };
	struct wish *wish = wish_new(data, cb_data);
	size_t n = strlen(w.called);

	snprintf(w.called + n, sizeof w.called - n, "%s ", method);
	wish->remote_cb = cb;
	wish->answer = &nothing;
	for (size_t i = 0; i < ARRAY_LEN(w.answers); i++)
		if (w.answers[i].method &&
		    !strcmp(w.answers[i].method, method))
			wish->answer = &w.answers[i];
}

/* "VM" or "VM raw" of the last stream that a host was asked for. */
static char console_asked[64];

static void hook_console(void *data, const char *vm, bool raw,
			 pool_console_cb cb, void *cb_data)
{
	snprintf(console_asked, sizeof console_asked, "%s%s",
		 *vm ? vm : "host", raw ? " raw" : "");
	cb(cb_data, dup(STDERR_FILENO), NULL);
}

static void hook_become_member(void *data, const struct value *members)
{
	w.become_member++;
}

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	for (int i = 0; i < w.n; i++)
		if (w.h[i].pool)
			pool_changed(w.h[i].pool, t, generation, changes, n);
}

/* ---- running ---- */

static inline void wish_fulfil(struct wish *wish)
{
	struct txn_result result = { 0 };
	bool away = wish->host->cut;

	if (wish->txn) {
		if (!away)
			result = store_apply(w.store, wish->txn);
		wish->txn_cb(wish->data, away ? -ETIMEDOUT : 0, result);
	} else if (wish->done_cb) {
		wish->done_cb(wish->data, away ? -ETIMEDOUT : 0);
	} else if (wish->remote_cb) {
		const struct remote_answer *a = wish->answer;

		wish->remote_cb(wish->data, a->error, a->result, a->api_error,
				"their fingerprint");
	} else {
		wish->password_cb(wish->data, true, "hash");
	}
}

static inline void wish_free(struct wish *wish)
{
	list_remove(&wish->link);
	txn_free(wish->txn);
	free(wish);
}

static inline bool run_wish(void)
{
	struct wish *wish;

	if (list_empty(&w.wishes))
		return false;
	wish = list_entry(w.wishes.next, struct wish, link);
	list_remove(&wish->link);
	if (wish->host->pool)
		wish_fulfil(wish);
	wish_free(wish);
	return true;
}

static inline bool run_inbox(struct sim_host *h)
{
	struct value *msg;

	if (h->n_inbox == 0)
		return false;
	msg = h->inbox[0];
	memmove(h->inbox, h->inbox + 1, --h->n_inbox * sizeof h->inbox[0]);
	if (h->pool && !h->executor_down)
		pool_executor_message(h->pool, msg);
	value_unref(msg);
	return true;
}

static inline bool run_timers(struct sim_host *h)
{
	if (!h->pool || h->wake_ms > w.mono_ms)
		return false;
	h->wake_ms = INT64_MAX;
	pool_timers(h->pool);
	return true;
}

static inline void world_run(void)
{
	for (unsigned i = 0; i < 100000; i++) {
		bool did = run_wish();

		for (int k = 0; k < w.n; k++)
			did |= run_inbox(&w.h[k]) || run_timers(&w.h[k]);
		if (!did)
			return;
	}
	fail_msg("the world does not come to rest");
}

/* In steps of 500 ms; executors tell their state every 5 s. */
static inline void world_advance(int64_t ms)
{
	for (int64_t t = 0; t < ms; t += 500) {
		for (int k = 0; k < w.n; k++)
			if (w.h[k].pool && !w.h[k].cut)
				w.h[k].heard_ms = w.mono_ms;
		w.mono_ms += 500;
		w.wall_ms += 500;
		for (int k = 0; k < w.n; k++)
			if (w.mono_ms % 5000 == 0 && w.h[k].pool &&
			    !w.h[k].executor_down)
				tell_state(&w.h[k]);
		world_run();
	}
}

/* ---- members ---- */

static inline void daemon_start(struct sim_host *h)
{
	char address[32];
	struct pool_config cfg = {
		.host_uuid = h->uuid,
		.address = address,
		.https_port = 443,
		.peer_address = "127.0.0.1:8444",
		.certificate = "PEM",
		.fingerprint = "0123456789012345678901234567890123456789012345"
			       "678901234567890123",
		.hostname = "host",
		.version = "1",
		.first_password = "secret",
		.host_dead_after_ms = DEAD_AFTER_MS,
		.image_dir = "/images",
	};
	struct pool_hooks hooks = {
		.data = h,
		.store = hook_store,
		.submit = hook_submit,
		.read_barrier = hook_barrier,
		.password = hook_password,
		.wake_at = hook_wake_at,
		.executor_send = hook_executor_send,
		.member_add = hook_member_add,
		.member_assign = hook_member_assign,
		.member_remove = hook_member_remove,
		.member_role = hook_member_role,
		.member_alive = hook_member_alive,
		.become_member = hook_become_member,
		.remote_call = hook_remote_call,
		.console = hook_console,
	};

	snprintf(address, sizeof address, "10.0.0.%d", (int)(h - w.h) + 1);
	h->wake_ms = INT64_MAX;
	h->pool = pool_new(&cfg, &hooks);
	assert_non_null(h->pool);
	if (w.leader >= 0)
		pool_leader(h->pool, db_id_of_uuid(w.h[w.leader].uuid),
			    w.leader == h - w.h);
	if (!h->executor_down) {
		pool_executor_connected(h->pool, true);
		tell_state(h);
	}
}

static inline void daemon_stop(struct sim_host *h)
{
	list_for_each_safe(it, &w.wishes) {
		struct wish *wish = list_entry(it, struct wish, link);

		if (wish->host == h)
			wish_free(wish);
	}
	pool_free(TAKE_PTR(h->pool));
	while (h->n_inbox > 0)
		value_unref(h->inbox[--h->n_inbox]);
}

static inline void executor_stop(struct sim_host *h)
{
	h->executor_down = true;
	for (size_t i = 0; i < ARRAY_LEN(h->done); i++) {
		value_unref(TAKE_PTR(h->done[i]));
		h->done_ids[i][0] = '\0';
	}
	if (w.held_at == h)
		value_unref(TAKE_PTR(w.held));
	while (h->n_inbox > 0)
		value_unref(h->inbox[--h->n_inbox]);
	if (h->pool)
		pool_executor_connected(h->pool, false);
}

static inline void executor_start(struct sim_host *h)
{
	h->executor_down = false;
	if (h->pool) {
		pool_executor_connected(h->pool, true);
		tell_state(h);
	}
}

static inline void lead(int index)
{
	w.leader = index;
	for (int i = 0; i < w.n; i++)
		if (w.h[i].pool)
			pool_leader(w.h[i].pool,
				    index < 0 ? 0 : db_id_of_uuid(w.h[index].uuid),
				    i == index);
	world_run();
}

#include "tests/unit/vm_world_calls.h"

/* ---- rows ---- */

static inline struct record *row(const char *ref)
{
	struct record *r = store_get(w.store, ref);

	if (!r)
		fail_msg("no row %s", ref);
	return r;
}

static inline const char *text_of(const char *ref, unsigned field)
{
	return record_str(row(ref), field);
}

static inline struct value *field_of(const char *ref, unsigned field)
{
	return row(ref)->fields[field];
}

#define assert_text(ref, field, text) \
	assert_string_equal(text_of(ref, field), text)
#define assert_state(ref, text) assert_text(ref, F_VM_power_state, text)

static inline enum dom_state dom_at(struct sim_host *h, const char *vm_ref)
{
	struct dom *d = dom_find(h, text_of(vm_ref, F_VM_uuid));

	return d ? d->state : GONE;
}

static inline bool set_has(const struct value *set, const char *text)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (value_is_str(set->items[i], text))
			return true;
	return false;
}

/* The newest of them. */
static inline struct record *message_named(const char *name, unsigned *ret_n)
{
	struct record *found = NULL;

	*ret_n = 0;
	for (struct record *m = store_first(w.store, CLASS_message); m;
	     m = store_next(w.store, m))
		if (value_is_str(m->fields[F_message_name], name)) {
			found = m;
			++*ret_n;
		}
	return found;
}

static inline unsigned messages_named(const char *name)
{
	unsigned n;

	message_named(name, &n);
	return n;
}

static inline struct record *find_by_name(int cls, const char *name)
{
	struct value *set = store_by_name(w.store, cls, name);
	struct record *r = set->n ? store_get(w.store,
					      value_str(set->items[0])) :
				    NULL;

	value_unref(set);
	return r;
}

/* A VM made from the PVH template; ref is written to. */
static inline void make_vm(char ref[REF_LEN + 1], const char *name)
{
	struct record *t = find_by_name(CLASS_VM, "Linux (PVH)");
	struct value *v;

	assert_non_null(t);
	v = ok("VM.clone", value_ref(t->ref), S(name));
	strcpy(ref, value_str(v));
	value_unref(v);
	do_ok("VM.provision", S(ref));
}

/* ---- a pool with n hosts ---- */

static inline void world_login(void)
{
	struct reply reply;
	struct call *c = call_new();

	c->name = xstrdup("session.login_with_password");
	c->method = schema_method(c->name, strlen(c->name));
	c->origin.local_root = true;
	for (; c->n_args < 4; c->n_args++)
		c->args[c->n_args] = S("");
	c->done = reply_done;
	c->owner = &reply;
	memset(&reply, 0, sizeof reply);
	pool_call(w.h[0].pool, c);
	world_run();
	assert_non_null(reply.result);
	strcpy(w.session, value_str(reply.result));
	reply_clear(&reply);
}

static inline struct value *description_of(const struct sim_host *h)
{
	int i = (int)(h - w.h);

	return value_map_of(
		"uuid", S(h->uuid), "peer_address", value_printf("10.0.0.%d:1",
								 i),
		"fingerprint", value_printf("%064d",
					    i), "certificate", S("PEM"),
		"address", value_printf("10.0.0.%d", i + 1), "https_port",
		S("443"), "hostname", value_printf("host%d", i), "memory_total",
		value_printf("%lld", HOST_MEMORY), "cpu_count", S("4"),
		"cpu_vendor", S("sim"), NULL);
}

static inline void world_join(struct sim_host *h)
{
	do_ok("member.register", description_of(h),
	      value_ref(field_of(w.h[0].ref, F_host_software_version)));
	daemon_start(h);
	world_run();
	strcpy(h->ref, value_str(store_by_uuid(w.store, CLASS_host,
					       h->uuid)->ref));
}

static inline void world_begin(int n)
{
	memset(&w, 0, sizeof w);
	w.wall_ms = 1700000000000;
	w.mono_ms = 10000;
	w.random = 1;
	w.n = n;
	list_init(&w.wishes);
	env_replace(&fake_env);
	w.store = store_new();
	store_set_observer(w.store, on_changed, NULL);
	for (int i = 0; i < MAX_HOSTS; i++) {
		struct sim_host *h = &w.h[i];

		snprintf(h->uuid, sizeof h->uuid,
			 "0%d0a0a0a-0000-4000-8000-00000000000%d", i, i);
		h->boot_id = "boot-1";
		h->next_domid = 10 * (i + 1);
		w.roles[i] = -1;
	}
	w.roles[0] = DB_VOTER;
	daemon_start(&w.h[0]);
	lead(0);
	strcpy(w.h[0].ref, value_str(store_by_uuid(w.store, CLASS_host,
						   w.h[0].uuid)->ref));
	world_login();
	for (int i = 1; i < n; i++)
		world_join(&w.h[i]);
	world_advance(2 * DEAD_AFTER_MS);
}

static inline int world_end(void **state)
{
	for (int i = 0; i < MAX_HOSTS; i++) {
		struct sim_host *h = &w.h[i];

		if (h->pool)
			daemon_stop(h);
		while (h->n_inbox > 0)
			value_unref(h->inbox[--h->n_inbox]);
		for (size_t k = 0; k < ARRAY_LEN(h->done); k++)
			value_unref(h->done[k]);
	}
	value_unref(w.held);
	for (size_t i = 0; i < ARRAY_LEN(w.answers); i++) {
		value_unref(w.answers[i].result);
		value_unref(w.answers[i].api_error);
	}
	list_for_each_safe(it, &w.wishes)
		wish_free(list_entry(it, struct wish, link));
	store_free(w.store);
	env_replace(NULL);
	return 0;
}

static inline int world_of_one(void **state)
{
	world_begin(1);
	return 0;
}

static inline int world_of_two(void **state)
{
	world_begin(2);
	return 0;
}

static inline int world_of_three(void **state)
{
	world_begin(3);
	return 0;
}

#define one_test(f) cmocka_unit_test_setup_teardown(f, world_of_one, world_end)
#define two_test(f) cmocka_unit_test_setup_teardown(f, world_of_two, world_end)
#define three_test(f) \
	cmocka_unit_test_setup_teardown(f, world_of_three, world_end)

#endif
