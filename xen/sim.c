#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/sim.h"

#define DEFAULT_START_MS 100
#define DEFAULT_SHUTDOWN_MS 150
#define DEFAULT_MIGRATE_MS 300
/* How long a guest may take to say that it has heard the wish to shut down. */
#define ACKNOWLEDGE_MS 60000
/* Progress is reported, and an abort seen at the latest, so often. */
#define SLICE_MS 100

/* ---- what other_config asks for ---- */

static bool script_ms(struct xen_call *c, const struct domain_config *cfg,
		      const char *key, uint32_t otherwise, uint32_t *ret)
{
	const struct value *v = value_get(cfg->other_config, key);
	int64_t i = otherwise;

	if (v &&
	    (!int_parse(v->s, v->n, &i) || i < 0 || i > SIM_MAX_DELAY_MS)) {
		xen_fail(c, "INVALID_VALUE", key, value_str(v));
		return false;
	}
	*ret = (uint32_t)i;
	return true;
}

static bool script_event(struct xen_call *c, const struct domain_config *cfg,
			 struct sim_script *ret)
{
	static const char *const words[] = {
		[XEN_EV_SHUTDOWN] = "shutdown", [XEN_EV_REBOOT] = "reboot",
		[XEN_EV_CRASH] = "crash", [XEN_EV_GONE] = "gone",
	};
	const char *event = value_get_str(cfg->other_config, "sim:event");

	if (!*event) {
		ret->event_ms = 0;
		return true;
	}
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(words[i], event))
			continue;
		ret->event = (enum xen_event_kind)i;
		return script_ms(c, cfg, "sim:event_ms", 1000, &ret->event_ms);
	}
	xen_fail(c, "INVALID_VALUE", "sim:event", event);
	return false;
}

bool sim_script_parse(struct xen_call *c, const struct domain_config *cfg,
		      struct sim_script *ret)
{
	const char *fail = value_get_str(cfg->other_config, "sim:fail");
	const char *ignore = value_get_str(cfg->other_config,
					   "sim:ignore_shutdown");

	memset(ret, 0, sizeof(*ret));
	if (strlen(fail) >= sizeof(ret->fail)) {
		xen_fail(c, "INVALID_VALUE", "sim:fail", fail);
		return false;
	}
	snprintf(ret->fail, sizeof(ret->fail), "%s", fail);
	if (!sim_guest_mode(c, value_get_str(cfg->other_config, "sim:guest"),
			    &ret->guest))
		return false;
	ret->ignore_shutdown = *ignore && strcmp(ignore, "false") &&
			       strcmp(ignore, "0");
	return script_ms(c, cfg, "sim:start_ms", DEFAULT_START_MS,
			 &ret->start_ms) &&
	       script_ms(c, cfg, "sim:shutdown_ms", DEFAULT_SHUTDOWN_MS,
			 &ret->shutdown_ms) &&
	       script_ms(c, cfg, "sim:migrate_ms", DEFAULT_MIGRATE_MS,
			 &ret->migrate_ms) &&
	       script_ms(c, cfg, "sim:list_ms", 0, &ret->list_ms) &&
	       script_event(c, cfg, ret);
}

/* ---- small steps ---- */

int sim_wait(struct xen_call *c, int64_t ms, double from, double to)
{
	struct pollfd p = { .fd = c->abort_fd, .events = POLLIN };
	int64_t start = sim_now(), done = 0;

	while (done < ms && !xen_aborted(c)) {
		poll(&p, 1, (int)MIN(ms - done, (int64_t)SLICE_MS));
		done = sim_now() - start;
		c->progress(c, from + (to - from) *
					   (double)MIN(done, ms) / (double)ms);
	}
	return xen_aborted(c) ? xen_fail_aborted(c) : 0;
}

int sim_scripted(struct xen_call *c, const struct sim_script *script,
		 const char *verb)
{
	if (strcmp(script->fail, verb))
		return 0;
	return xen_fail(c, "INTERNAL_ERROR", "simulated failure");
}

static const char *state_name(const struct sim_domain *d)
{
	if (!d || d->state == SIM_BUILDING || d->state == SIM_SHUTDOWN)
		return "halted";
	return d->state == SIM_RUNNING ? "running" : "paused";
}

int sim_fail_state(struct xen_call *c, const char *expected,
		   const struct sim_domain *d)
{
	if (d && d->migration != SIM_HOME)
		return xen_fail(c, "OTHER_OPERATION_IN_PROGRESS", "VM", c->vm,
				"pool_migrate", "");
	return xen_fail(c, "VM_BAD_POWER_STATE", c->vm, expected,
			state_name(d));
}

static bool is_home(const struct sim_domain *d, enum sim_state state)
{
	return d && d->state == state && d->migration == SIM_HOME;
}

static bool is_alive(const struct sim_domain *d)
{
	return is_home(d, SIM_RUNNING) || is_home(d, SIM_PAUSED);
}

int sim_domain_reserve(struct sim *s, struct xen_call *c,
		       const struct domain_config *cfg,
		       const struct sim_script *script, struct sim_domain **ret)
{
	uint64_t available = sim_memory_free(s);
	char needed[24], have[24];
	struct sim_domain *d;
	int r;

	if (cfg->memory_target > available) {
		snprintf(needed, sizeof(needed), "%" PRIu64,
			 cfg->memory_target);
		snprintf(have, sizeof(have), "%" PRIu64, available);
		return xen_fail(c, "HOST_NOT_ENOUGH_FREE_MEMORY", needed, have);
	}
	r = sim_domain_add(s, c->vm, &d);
	if (r < 0)
		return r;
	snprintf(d->name, sizeof(d->name), "%s", cfg->name);
	/* Cutting may have left half a character. */
	while (*d->name && !text_valid(d->name, strlen(d->name)))
		d->name[strlen(d->name) - 1] = '\0';
	d->memory = cfg->memory_target;
	d->vcpus = cfg->vcpus;
	for (size_t i = 0; i < cfg->n_disks; i++)
		sim_slot_set(d->disks, cfg->disks[i].number, true);
	for (size_t i = 0; i < cfg->n_vifs; i++)
		sim_slot_set(d->vifs, cfg->vifs[i].number, true);
	d->script = *script;
	d->xenstore = value_ref(cfg->xenstore);
	*ret = d;
	return 0;
}

/* Stays as it was when the disk refuses. */
static int set_state_saved(struct sim *s, struct sim_domain *d,
			   enum sim_state state)
{
	struct sim_domain before = *d;
	int r;

	sim_set_state(d, state);
	r = sim_state_save(s);
	if (r < 0)
		*d = before;
	sim_net_wake(s);
	return r;
}

/* ---- building ---- */

struct build {
	const char *verb;
	int64_t ticks;
	bool paused;
	bool firm; /* past the point where an abort may be heeded */
};

static int build_end(struct sim *s, struct xen_call *c, const struct build *b,
		     int r, uint32_t *ret_domid)
{
	struct sim_domain *d;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	xassert(d && d->state == SIM_BUILDING);
	if (r == 0) {
		d->ticks = b->ticks;
		d->state = SIM_PAUSED;
		r = set_state_saved(s, d, b->paused ? SIM_PAUSED : SIM_RUNNING);
	}
	if (r == 0)
		*ret_domid = d->domid;
	else
		sim_domain_remove(s, d);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* From a reserve to a domain that runs, or nothing. */
static int build(struct sim *s, struct xen_call *c,
		 const struct sim_script *script, const struct build *b,
		 uint32_t *ret_domid)
{
	int r = sim_wait(c, script->start_ms, 0.0, 1.0);

	if (r == XEN_FAILED && b->firm) {
		value_unref(TAKE_PTR(c->error));
		r = 0;
	}
	if (r == 0 && !b->firm)
		r = sim_scripted(c, script, b->verb);
	return build_end(s, c, b, r, ret_domid);
}

/* 1: there is a domain already that fits; *ret_domid tells. */
static int build_begin(struct sim *s, struct xen_call *c,
		       const struct domain_config *cfg,
		       const struct sim_script *script, uint32_t *ret_domid,
		       bool *ret_exists)
{
	struct sim_domain *d = sim_find(s, c->vm);

	*ret_exists = is_alive(d);
	if (*ret_exists) {
		*ret_domid = d->domid;
		return 0;
	}
	if (d && d->migration != SIM_HOME)
		return sim_fail_state(c, "halted", d);
	if (d)
		sim_domain_remove(s, d); /* what a guest left that ended */
	return sim_domain_reserve(s, c, cfg, script, &d);
}

static int sim_start(struct xen *x, struct xen_call *c,
		     const struct domain_config *cfg, bool paused,
		     uint32_t *ret_domid)
{
	struct build b = { "start", 0, paused, false };
	struct sim *s = sim_of(x);
	struct sim_script script;
	bool exists;
	int r;

	if (!sim_script_parse(c, cfg, &script))
		return XEN_FAILED;
	pthread_mutex_lock(&s->lock);
	r = build_begin(s, c, cfg, &script, ret_domid, &exists);
	pthread_mutex_unlock(&s->lock);
	if (r != 0 || exists)
		return r;
	return build(s, c, &script, &b, ret_domid);
}

/* ---- pause and unpause ---- */

static int sim_pause(struct xen *x, struct xen_call *c)
{
	struct sim *s = sim_of(x);
	struct sim_domain *d;
	int r;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (!is_alive(d))
		r = sim_fail_state(c, "running", d);
	else if (!(r = sim_scripted(c, &d->script, "pause")) &&
		 d->state == SIM_RUNNING)
		r = set_state_saved(s, d, SIM_PAUSED);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int sim_unpause(struct xen *x, struct xen_call *c)
{
	struct sim *s = sim_of(x);
	struct sim_domain *d;
	int r;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (!is_alive(d))
		r = sim_fail_state(c, "paused", d);
	else if (!(r = sim_scripted(c, &d->script, "unpause")) &&
		 d->state == SIM_PAUSED)
		r = set_state_saved(s, d, SIM_RUNNING);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- endings ---- */

static int guest_wait(struct xen_call *c, const struct sim_script *script,
		      int64_t timeout_ms)
{
	char seconds[24];
	int r;

	if (script->ignore_shutdown) {
		r = sim_wait(c, MIN(timeout_ms, (int64_t)ACKNOWLEDGE_MS), 0, 0);
		return r ? r : xen_fail(c, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT",
					c->vm);
	}
	if (script->shutdown_ms <= timeout_ms)
		return sim_wait(c, script->shutdown_ms, 0.0, 0.9);
	r = sim_wait(c, timeout_ms, 0.0, 0.9);
	snprintf(seconds, sizeof(seconds), "%" PRId64, timeout_ms / 1000);
	return r ? r : xen_fail(c, "VM_SHUTDOWN_TIMEOUT", c->vm, seconds);
}

/* Asks the guest to end, and waits until it would have. The domain is there
 * still, unless the guest ended by itself meanwhile. */
static int guest_ask(struct sim *s, struct xen_call *c, const char *verb,
		     int64_t timeout_ms)
{
	struct sim_script script = { 0 };
	struct sim_domain *d;
	int r;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (is_home(d, SIM_RUNNING)) {
		script = d->script;
		r = sim_scripted(c, &script, verb);
	} else {
		r = sim_fail_state(c, "running", d);
	}
	pthread_mutex_unlock(&s->lock);
	return r ? r : guest_wait(c, &script, timeout_ms);
}

/* Nothing here, or only what is left of a guest that has ended. */
static bool has_ended(struct sim *s, const char *vm)
{
	struct sim_domain *d;
	bool ended;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, vm);
	ended = !d || is_home(d, SIM_SHUTDOWN);
	pthread_mutex_unlock(&s->lock);
	return ended;
}

static int destroy(struct sim *s, const char *vm)
{
	struct sim_domain *d;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, vm);
	if (d)
		r = sim_domain_destroy(s, d);
	pthread_mutex_unlock(&s->lock);
	sim_net_wake(s);
	return r;
}

static int sim_clean_shutdown(struct xen *x, struct xen_call *c,
			      int64_t timeout_ms)
{
	struct sim *s = sim_of(x);
	int r;

	if (!has_ended(s, c->vm)) {
		r = guest_ask(s, c, "clean_shutdown", timeout_ms);
		if (r != 0)
			return r;
	}
	return destroy(s, c->vm);
}

static int sim_hard_shutdown(struct xen *x, struct xen_call *c)
{
	struct sim *s = sim_of(x);
	struct sim_domain *d;
	int r;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	r = d ? sim_scripted(c, &d->script, "hard_shutdown") : 0;
	pthread_mutex_unlock(&s->lock);
	return r ? r : destroy(s, c->vm);
}

/* The old domain makes room for the new one in one step. */
static int rebuild(struct sim *s, struct xen_call *c,
		   const struct domain_config *cfg,
		   const struct sim_script *script, uint32_t *ret_domid)
{
	struct build b = { "reboot", 0, false, true };
	struct sim_domain *d;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (d && d->migration != SIM_HOME)
		r = sim_fail_state(c, "running", d);
	else if (d)
		r = sim_domain_destroy(s, d);
	if (r == 0)
		r = sim_domain_reserve(s, c, cfg, script, &d);
	pthread_mutex_unlock(&s->lock);
	return r ? r : build(s, c, script, &b, ret_domid);
}

static int sim_clean_reboot(struct xen *x, struct xen_call *c,
			    int64_t timeout_ms, const struct domain_config *cfg,
			    uint32_t *ret_domid)
{
	struct sim *s = sim_of(x);
	struct sim_script script;
	int r;

	if (!sim_script_parse(c, cfg, &script))
		return XEN_FAILED;
	if (!has_ended(s, c->vm)) {
		r = guest_ask(s, c, "clean_reboot", timeout_ms);
		if (r != 0)
			return r;
	}
	return rebuild(s, c, cfg, &script, ret_domid);
}

static int sim_hard_reboot(struct xen *x, struct xen_call *c,
			   const struct domain_config *cfg, uint32_t *ret_domid)
{
	struct sim_script script;
	int r;

	if (!sim_script_parse(c, cfg, &script))
		return XEN_FAILED;
	r = sim_scripted(c, &script, "hard_reboot");
	return r ? r : rebuild(sim_of(x), c, cfg, &script, ret_domid);
}

/* ---- suspend and resume ---- */

static int fail_image(struct xen_call *c, const char *image, int r)
{
	log_warn("image %s of %s: %s", image, c->vm, strerror(-r));
	return xen_fail(c, "SUSPEND_IMAGE_NOT_ACCESSIBLE", image);
}

/* The image holds the guest before the domain is gone: whoever is killed in
 * between leaves a guest that runs and an image that the next one replaces. */
static int suspend_now(struct sim *s, struct xen_call *c, const char *image)
{
	struct sim_domain *d;
	int r;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (!is_home(d, SIM_RUNNING)) {
		r = sim_fail_state(c, "running", d);
	} else {
		r = sim_image_write(image, d);
		r = r < 0 ? fail_image(c, image, r) : sim_domain_destroy(s, d);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int sim_suspend(struct xen *x, struct xen_call *c, const char *image,
		       int64_t timeout_ms)
{
	struct sim *s = sim_of(x);
	struct sim_guest guest;
	int r;

	if (has_ended(s, c->vm) && sim_image_read(image, c->vm, &guest) == 0)
		return destroy(s, c->vm);
	r = guest_ask(s, c, "suspend", timeout_ms);
	return r ? r : suspend_now(s, c, image);
}

static int resume_build(struct sim *s, struct xen_call *c, const char *image,
			const struct sim_script *script, bool paused,
			uint32_t *ret_domid)
{
	struct build b = { "resume", 0, paused, false };
	struct sim_guest guest;
	int r = sim_image_read(image, c->vm, &guest);

	if (r < 0) {
		destroy(s, c->vm); /* the reserve */
		return fail_image(c, image, r);
	}
	b.ticks = guest.ticks;
	return build(s, c, script, &b, ret_domid);
}

static int sim_resume(struct xen *x, struct xen_call *c, const char *image,
		      const struct domain_config *cfg, bool paused,
		      uint32_t *ret_domid)
{
	struct sim *s = sim_of(x);
	struct sim_script script;
	bool exists;
	int r;

	if (!sim_script_parse(c, cfg, &script))
		return XEN_FAILED;
	pthread_mutex_lock(&s->lock);
	r = build_begin(s, c, cfg, &script, ret_domid, &exists);
	pthread_mutex_unlock(&s->lock);
	if (r == 0 && !exists)
		r = resume_build(s, c, image, &script, paused, ret_domid);
	/* Of one that is not this guest's nothing was made. */
	if (r == 0 && sim_image_remove(image, c->vm) < 0)
		log_warn("the image %s stays", image);
	return r;
}

static int sim_drop_image(struct xen *x, struct xen_call *c, const char *image)
{
	int r = sim_image_remove(image, c->vm);

	return r < 0 ? fail_image(c, image, r) : 0;
}

/* ---- facts ---- */

static void describe(struct sim *s, const struct sim_domain *d,
		     struct xen_domain *ret)
{
	static const enum xen_domain_state states[] = {
		[SIM_RUNNING] = XEN_RUNNING, [SIM_PAUSED] = XEN_PAUSED,
		[SIM_SHUTDOWN] = XEN_SHUTDOWN,
	};

	memcpy(ret->vm, d->vm, sizeof(ret->vm));
	ret->domid = d->domid;
	ret->state = states[d->state];
	ret->reason = d->reason;
	ret->fence = fences_get(&s->fences, d->vm);
	ret->memory_kib = d->memory / 1024;
	ret->vcpus = d->vcpus;
	ret->incoming = d->migration == SIM_EXPECTED ||
			d->migration == SIM_ARRIVED;
	ret->guest_ticks = sim_ticks(d);
}

static int sim_list(struct xen *x, struct xen_domain **ret, size_t *ret_n)
{
	struct sim *s = sim_of(x);
	uint32_t ms = 0;
	size_t n = 0;

	pthread_mutex_lock(&s->lock);
	*ret = xcalloc(s->by_vm.count + 1, sizeof(**ret));
	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		ms = MAX(ms, d->script.list_ms);
		if (d->state != SIM_BUILDING)
			describe(s, d, &(*ret)[n++]);
	}
	pthread_mutex_unlock(&s->lock);
	if (ms > 0)
		poll(NULL, 0, (int)ms);
	*ret_n = n;
	return 0;
}

static int sim_host(struct xen *x, struct xen_host *ret)
{
	struct sim *s = sim_of(x);

	pthread_mutex_lock(&s->lock);
	*ret = (struct xen_host){
		.memory_total = s->memory,
		.memory_free = sim_memory_free(s),
		.cpu_count = s->cpus,
		.cpu_mhz = 2400,
		.cpu_model = "Simulated CPU",
		.cpu_vendor = "Simulated",
		.xen_version = "4.17.0",
		.cpu_sockets = 1,
		.cpu_nodes = 1,
		.cpu_cores_per_socket = s->cpus,
		.cpu_threads_per_core = 1,
		.cpu_family = 25,
		.cpu_model_number = 1,
		.cpu_stepping = 1,
		.cpu_flags = "fpu de tsc msr pae cx8 apic cmov clflush mmx "
			     "fxsr sse sse2 ht syscall nx lm svm npt",
		.cpu_features = "178bfbff-00000001-2c100800-00000005",
		.xen_capabilities = "xen-3.0-x86_64 hvm-3.0-x86_64",
		.scheduler = "credit2",
		.kernel = "6.1.0-sim",
		.dom0_memory = MIN(MAX(s->memory / 16, 64u << 20), 1u << 30),
		.dom0_vcpus = MIN(s->cpus, 16u),
		.boot_time = s->boot_time,
	};
	memcpy(ret->boot_id, s->boot_id, sizeof(ret->boot_id));
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* ---- open and close ---- */

static void sim_close(struct xen *x)
{
	struct sim *s = sim_of(x);

	sim_console_stop(s);
	sim_net_close(s);
	sim_state_close(s);
	guest_scan_free(s->scan);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
}

static int sim_open(const struct xen_options *o, struct xen **ret)
{
	struct sim *s = xcalloc(1, sizeof(*s));
	int r;

	s->dir = xstrdup(o->state_dir);
	s->memory = o->memory_bytes;
	s->cpus = o->cpus;
	s->event = o->event;
	s->guest = o->guest;
	s->event_data = o->event_data;
	s->scan = guest_scan_new();
	snprintf(s->host_uuid, sizeof(s->host_uuid), "%s", o->host_uuid);
	snprintf(s->migrate_address, sizeof(s->migrate_address), "%s",
		 o->migrate_address);
	pthread_mutex_init(&s->lock, NULL);
	s->boot_time = env_wall_ms() / 1000;
	r = sim_state_open(s, o->reboot);
	if (r == 0)
		r = sim_net_open(s);
	if (r == 0)
		r = sim_console_start(s);
	if (r < 0) {
		sim_close((struct xen *)s);
		return r;
	}
	*ret = (struct xen *)s;
	return 0;
}

const struct xen_ops xen_sim_ops = {
	.name = "sim",
	.open = sim_open,
	.close = sim_close,
	.fence_raise = sim_fence_raise,
	.start = sim_start,
	.pause = sim_pause,
	.unpause = sim_unpause,
	.clean_shutdown = sim_clean_shutdown,
	.hard_shutdown = sim_hard_shutdown,
	.clean_reboot = sim_clean_reboot,
	.hard_reboot = sim_hard_reboot,
	.set_xenstore = sim_set_xenstore,
	.change = sim_change,
	.suspend = sim_suspend,
	.resume = sim_resume,
	.drop_image = sim_drop_image,
	.migrate_receive = sim_migrate_receive,
	.migrate_send = sim_migrate_send,
	.migrate_activate = sim_migrate_activate,
	.migrate_abort = sim_migrate_abort,
	.migrate_finish = sim_migrate_finish,
	.console = sim_console_open,
	.list = sim_list,
	.host = sim_host,
};
