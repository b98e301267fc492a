#include "xen/xl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"

/* How long an operation's process may take: generous, for what takes longer
 * hangs. Building is given more, for the memory that is to be filled. */
#define QUICK_MS 60000
#define DESTROY_MS 180000
#define CHANGE_MS 120000
#define BUILD_MS 300000
#define BUILD_MIB_PER_S 32
#define SHUTDOWN_MORE_MS 240000

static int64_t build_patience(const struct domain_config *cfg)
{
	return BUILD_MS + (int64_t)(cfg->memory_static_max >> 20) * 1000 /
				  BUILD_MIB_PER_S;
}

/* ---- around an operation ---- */

/* In a phase that only migrations may end. */
static bool is_moving(const struct xl_vm *v)
{
	return v->phase >= XL_SENDING;
}

static int fail_moving(struct xen_call *c)
{
	return xen_fail(c, "OTHER_OPERATION_IN_PROGRESS", "VM", c->vm,
			"pool_migrate", "");
}

/* From here on what happens to the domain is ours. */
int xl_op_begin(struct xl *x, struct xen_call *c, struct xl_vm **ret)
{
	struct xl_vm *v;
	int r = 0;

	pthread_mutex_lock(&x->lock);
	v = xl_get(x, c->vm);
	if (is_moving(v))
		r = fail_moving(c);
	else
		v->busy = true;
	/* Until it is seen again its end is no news. */
	v->alive = false;
	*ret = v;
	xl_tidy(x, v);
	pthread_mutex_unlock(&x->lock);
	return r;
}

void xl_op_end(struct xl *x, struct xl_vm *v)
{
	pthread_mutex_lock(&x->lock);
	v->busy = false;
	v->ended_ms = env_mono_ms();
	xl_tidy(x, v);
	pthread_mutex_unlock(&x->lock);
}

int xl_op_gone(struct xl *x, struct xl_vm *v)
{
	int r;

	pthread_mutex_lock(&x->lock);
	v->alive = v->activated = false;
	r = xl_set_phase(x, v, XL_HOME);
	pthread_mutex_unlock(&x->lock);
	return r;
}

int xl_phase_set(struct xl *x, struct xl_vm *v, enum xl_phase phase)
{
	int r;

	pthread_mutex_lock(&x->lock);
	r = xl_set_phase(x, v, phase);
	pthread_mutex_unlock(&x->lock);
	return r;
}

int xl_set_activated(struct xl *x, struct xl_vm *v, bool activated)
{
	bool before = v->activated;
	int r = 0;

	pthread_mutex_lock(&x->lock);
	v->activated = activated;
	if (activated != before)
		r = xl_state_save(x);
	if (r < 0)
		v->activated = before;
	pthread_mutex_unlock(&x->lock);
	return r;
}

static const struct xl_seen *seen_of(struct xl *x, const char *vm)
{
	for (uint32_t i = 0; x->view && i < x->view->n; i++)
		if (!strcmp(x->view->seen[i].vm, vm))
			return &x->view->seen[i];
	return NULL;
}

bool xl_has_domain(struct xl *x, const char *vm)
{
	bool found;

	pthread_mutex_lock(&x->lock);
	found = xl_watch_look(x) != 0 || seen_of(x, vm);
	pthread_mutex_unlock(&x->lock);
	return found;
}

uint64_t xl_memory_of(struct xl *x, const char *vm)
{
	const struct xl_seen *s;
	uint64_t kib;

	pthread_mutex_lock(&x->lock);
	s = seen_of(x, vm);
	kib = s ? s->memory_kib : 0;
	pthread_mutex_unlock(&x->lock);
	return kib;
}

static int run_simple(struct xl *x, struct xen_call *c, const char *op,
		      int64_t patience_ms)
{
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = xl_run(c, op, value_struct_new(0), NULL, 0, patience_ms, NULL);
	xl_op_end(x, v);
	return r;
}

/* ---- building ---- */

/* Whatever a failed build left, so that its memory is free again. The first
 * error stays, and an abort does not hinder it. */
static int clear_away(struct xen_call *c)
{
	struct xen_call own = { .vm = c->vm, .abort_fd = -1,
				.progress = c->progress };
	int r = xl_run(&own, "destroy", value_struct_new(0), NULL, 0,
		       DESTROY_MS, NULL);

	if (r != 0)
		log_error("VM %s: cannot clear away what its build left",
			  c->vm);
	value_unref(own.error);
	return r;
}

/* A worker that could say what is wrong has tidied up itself. */
static bool may_have_left(const struct xen_call *c)
{
	const char *code = c->error ? value_str(c->error->items[0]) : "";

	return !strcmp(code, "INTERNAL_ERROR") ||
	       !strcmp(code, "TASK_CANCELLED") || !*code;
}

static int build_worker(struct xl *x, struct xen_call *c,
			const struct xl_build *b, uint32_t *ret_domid)
{
	_cleanup_(value_unrefp) struct value *result = NULL;
	struct value *request = value_struct_of(
		"config", value_ref(b->cfg->source),
		"paused", value_bool(b->paused),
		"dm_root", value_bool(x->dm_root),
		"discard", value_bool(b->discard), NULL);
	int r = xl_run(c, "start", request, &b->fd, b->fd >= 0,
		       build_patience(b->cfg), &result);

	if (r == 0)
		*ret_domid = (uint32_t)value_get_int(result, "domid", 0);
	return r;
}

/* A killed worker, or a killed executor, leaves the phase: what is there then
 * is half a domain, unless it runs. */
int xl_build_run(struct xl *x, struct xen_call *c, struct xl_vm *v,
		 struct xl_build *b, uint32_t *ret_domid)
{
	bool half = v->phase == XL_BUILDING;
	int r;

	/* A guest that was stopped to be saved, and was not: see xl_save.c. */
	if (v->phase == XL_SAVING)
		xl_go_on(c);
	r = xl_phase_set(x, v, XL_BUILDING);

	if (r < 0)
		return r;
	b->discard = b->discard || half;
	r = build_worker(x, c, b, ret_domid);
	if (r == 0 || !may_have_left(c) || clear_away(c) == 0)
		xl_phase_set(x, v, XL_HOME);
	return r;
}

static int start(struct xen *xen, struct xen_call *c,
		 const struct domain_config *cfg, bool paused,
		 uint32_t *ret_domid)
{
	struct xl_build b = { .cfg = cfg, .paused = paused, .fd = -1 };
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = xl_build_run(x, c, v, &b, ret_domid);
	xl_op_end(x, v);
	return r;
}

/* ---- pause and unpause ---- */

static int do_pause(struct xen *x, struct xen_call *c)
{
	return run_simple(xl_of(x), c, "pause", QUICK_MS);
}

/* Also a guest that was stopped to be saved, and was not, or not needed. */
static int do_unpause(struct xen *xen, struct xen_call *c)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = xl_run(c, "unpause", value_struct_new(0), NULL, 0, QUICK_MS, NULL);
	if (r == 0 && v->phase != XL_BUILDING)
		r = xl_phase_set(x, v, XL_HOME);
	xl_op_end(x, v);
	return r;
}

/* ---- changes of a domain that lives ---- */

static int change(struct xen *x, struct xen_call *c,
		  const struct domain_change *change)
{
	struct xl_vm *v;
	int r = xl_op_begin(xl_of(x), c, &v);

	if (r != 0)
		return r;
	r = xl_run(c, "change",
		   value_struct_of("change", value_ref(change->source), NULL),
		   NULL, 0, CHANGE_MS, NULL);
	xl_op_end(xl_of(x), v);
	return r;
}

/* ---- what the guest is told ---- */

static int set_xenstore(struct xen *x, struct xen_call *c,
			const struct value *nodes)
{
	struct xl_vm *v;
	int r = xl_op_begin(xl_of(x), c, &v);

	if (r != 0)
		return r;
	r = xl_run(c, "xenstore",
		   value_struct_of("nodes", value_ref(nodes), NULL), NULL, 0,
		   QUICK_MS, NULL);
	xl_op_end(xl_of(x), v);
	return r;
}

/* ---- endings ---- */

static int ask_guest(struct xen_call *c, int64_t timeout_ms, bool reboot)
{
	return xl_run(c, "shutdown",
		      value_struct_of("timeout_ms", value_int(timeout_ms),
				      "reboot", value_bool(reboot), NULL),
		      NULL, 0, timeout_ms + SHUTDOWN_MORE_MS, NULL);
}

static int clean_shutdown(struct xen *xen, struct xen_call *c,
			  int64_t timeout_ms)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = ask_guest(c, timeout_ms, false);
	if (r == 0)
		r = xl_op_gone(x, v);
	xl_op_end(x, v);
	return r;
}

/* Whatever the phase: this is how a stuck migration ends. */
static int hard_shutdown(struct xen *xen, struct xen_call *c)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r;

	pthread_mutex_lock(&x->lock);
	v = xl_get(x, c->vm);
	v->busy = true;
	pthread_mutex_unlock(&x->lock);
	r = xl_run(c, "destroy", value_struct_new(0), NULL, 0, DESTROY_MS,
		   NULL);
	if (r == 0)
		r = xl_op_gone(x, v);
	xl_op_end(x, v);
	return r;
}

static int clean_reboot(struct xen *xen, struct xen_call *c, int64_t timeout_ms,
			const struct domain_config *cfg, uint32_t *ret_domid)
{
	struct xl_build b = { .cfg = cfg, .discard = true, .fd = -1 };
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = ask_guest(c, timeout_ms, true);
	if (r == 0)
		r = xl_build_run(x, c, v, &b, ret_domid);
	xl_op_end(x, v);
	return r;
}

static int hard_reboot(struct xen *xen, struct xen_call *c,
		       const struct domain_config *cfg, uint32_t *ret_domid)
{
	struct xl_build b = { .cfg = cfg, .discard = true, .fd = -1 };
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	r = xl_build_run(x, c, v, &b, ret_domid);
	xl_op_end(x, v);
	return r;
}

/* ---- facts ---- */

static bool is_hidden(const struct xl_vm *v)
{
	return v && v->phase == XL_BUILDING;
}

static void describe(struct xl *x, const struct xl_seen *s,
		     const struct xl_vm *v, struct xen_domain *ret)
{
	memcpy(ret->vm, s->vm, sizeof(ret->vm));
	ret->domid = s->domid;
	ret->state = s->state;
	ret->reason = s->reason;
	ret->fence = fences_get(&x->fences, s->vm);
	ret->memory_kib = s->memory_kib;
	ret->vcpus = s->vcpus;
	ret->incoming = v && (v->phase == XL_EXPECTED ||
			      v->phase == XL_ARRIVED);
	ret->guest_ticks = s->cpu_ms;
}

static int list(struct xen *xen, struct xen_domain **ret, size_t *ret_n)
{
	struct xl *x = xl_of(xen);
	size_t n = 0;
	int r;

	pthread_mutex_lock(&x->lock);
	r = xl_watch_look(x);
	if (r == 0) {
		*ret = xcalloc((size_t)x->view->n + 1, sizeof(**ret));
		for (uint32_t i = 0; i < x->view->n; i++) {
			const struct xl_seen *s = &x->view->seen[i];
			const struct xl_vm *v = xl_find(x, s->vm);

			if (!is_hidden(v))
				describe(x, s, v, &(*ret)[n++]);
		}
		*ret_n = n;
	}
	pthread_mutex_unlock(&x->lock);
	return r;
}

static int host(struct xen *xen, struct xen_host *ret)
{
	struct xl *x = xl_of(xen);

	pthread_mutex_lock(&x->lock);
	*ret = x->view->host;
	pthread_mutex_unlock(&x->lock);
	return 0;
}

/* ---- open and close ---- */

static void do_close(struct xen *xen)
{
	struct xl *x = xl_of(xen);

	xl_migrate_close(x);
	xl_guests_stop(x);
	xl_watch_stop(x);
	xl_state_close(x);
	pthread_mutex_destroy(&x->lock);
	free(x->cert);
	free(x->key);
	free(x->trust);
	free(x->dir);
	free(x);
}

static int do_open(const struct xen_options *o, struct xen **ret)
{
	struct xl *x = xcalloc(1, sizeof(*x));
	int r;

	x->dir = xstrdup(o->state_dir);
	x->cert = xstrdup(o->cert);
	x->key = xstrdup(o->key);
	x->trust = xstrdup(o->trust);
	x->dm_root = o->dm_root;
	list_init(&x->receives);
	x->event = o->event;
	x->guest = o->guest;
	x->event_data = o->event_data;
	x->lock_fd = x->stop_fd = x->guests.stop_fd = -1;
	snprintf(x->host_uuid, sizeof(x->host_uuid), "%s", o->host_uuid);
	snprintf(x->migrate_address, sizeof(x->migrate_address), "%s",
		 o->migrate_address);
	pthread_mutex_init(&x->lock, NULL);
	r = xl_state_open(x);
	if (r == 0)
		r = xl_watch_start(x);
	if (r == 0)
		r = xl_guests_start(x);
	if (r == -ENXIO)
		log_error("Xen does not answer: this must be root on a Xen "
			  "host whose xenstored runs");
	if (r < 0) {
		do_close((struct xen *)x);
		return r;
	}
	*ret = (struct xen *)x;
	return 0;
}

const struct xen_ops xen_xl_ops = {
	.name = "xen",
	.open = do_open,
	.close = do_close,
	.fence_raise = xl_fence_raise,
	.start = start,
	.pause = do_pause,
	.unpause = do_unpause,
	.clean_shutdown = clean_shutdown,
	.hard_shutdown = hard_shutdown,
	.clean_reboot = clean_reboot,
	.hard_reboot = hard_reboot,
	.suspend = xl_suspend,
	.resume = xl_resume,
	.drop_image = xl_drop_image,
	.migrate_receive = xl_migrate_receive,
	.migrate_send = xl_migrate_send,
	.migrate_activate = xl_migrate_activate,
	.migrate_abort = xl_migrate_abort,
	.migrate_finish = xl_migrate_finish,
	.console = xl_console_open,
	.set_xenstore = set_xenstore,
	.change = change,
	.list = list,
	.host = host,
};
