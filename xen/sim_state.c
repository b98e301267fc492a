#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim.h"

int64_t sim_now(void)
{
	struct timespec ts;

	xassert(clock_gettime(CLOCK_BOOTTIME, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t sim_ticks(const struct sim_domain *d)
{
	if (d->state != SIM_RUNNING)
		return d->ticks;
	return d->ticks + MAX(sim_now() - d->since_ms, (int64_t)0);
}

void sim_set_state(struct sim_domain *d, enum sim_state state)
{
	d->ticks = sim_ticks(d);
	d->since_ms = sim_now();
	d->state = state;
}

struct sim_domain *sim_find(struct sim *s, const char *vm)
{
	return map_getz(&s->by_vm, vm);
}

static bool domid_used(struct sim *s, uint32_t domid)
{
	list_for_each(l, &s->domains)
		if (list_entry(l, struct sim_domain, link)->domid == domid)
			return true;
	return false;
}

int sim_domain_add(struct sim *s, const char *vm, struct sim_domain **ret)
{
	struct sim_domain *d;

	if (s->by_vm.count >= SIM_MAX_DOMAINS)
		return -ENOSPC;
	d = xcalloc(1, sizeof(*d));
	snprintf(d->vm, sizeof(d->vm), "%s", vm);
	do {
		d->domid = s->next_domid;
		s->next_domid = s->next_domid % SIM_MAX_DOMID + 1;
	} while (domid_used(s, d->domid));
	list_push(&s->domains, &d->link);
	xassert(!map_put(&s->by_vm, d->vm, strlen(d->vm), d));
	*ret = d;
	return 0;
}

void sim_domain_remove(struct sim *s, struct sim_domain *d)
{
	map_del(&s->by_vm, d->vm, strlen(d->vm));
	list_remove(&d->link);
	value_unref(d->xenstore);
	free(d);
}

int sim_domain_destroy(struct sim *s, struct sim_domain *d)
{
	struct sim_domain before = *d;
	int r;

	sim_set_state(d, SIM_BUILDING);
	r = sim_state_save(s);
	if (r < 0)
		*d = before;
	else
		sim_domain_remove(s, d);
	return r;
}

uint64_t sim_memory_free(struct sim *s)
{
	uint64_t used = 0;

	list_for_each(l, &s->domains)
		used += list_entry(l, struct sim_domain, link)->memory;
	return used < s->memory ? s->memory - used : 0;
}

/* ---- fences ---- */

static bool fence_kept(void *data, const char *vm)
{
	return sim_find(data, vm);
}

static int fence_raise_locked(struct sim *s, const char *vm, int64_t fence)
{
	int64_t before = fences_get(&s->fences, vm);
	int r;

	if (fence < before)
		return XEN_FAILED;
	if (fence == before)
		return 0;
	fences_raise(&s->fences, vm, fence);
	r = sim_state_save(s);
	if (r < 0)
		fences_set(&s->fences, vm, before);
	return r;
}

int sim_fence_raise(struct xen *x, const char *vm, int64_t fence,
		    int64_t *ret_highest)
{
	struct sim *s = sim_of(x);
	int r;

	pthread_mutex_lock(&s->lock);
	r = fence_raise_locked(s, vm, fence);
	*ret_highest = fences_get(&s->fences, vm);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- the file ---- */

static struct json_object *domain_json(const struct sim_domain *d)
{
	struct json_object *o = sim_guest_json(d);
	const struct sim_script *p = &d->script;

	json_add_str(o, "name", d->name);
	json_add_int(o, "domid", d->domid);
	json_add_int(o, "state", d->state);
	json_add_int(o, "reason", d->reason);
	json_add_int(o, "migration", d->migration);
	json_add_int(o, "activated", d->activated);
	/* ticks are those up to now, so the guest runs on from now. */
	json_add_int(o, "since_ms", sim_now());
	json_add_str(o, "token", d->token);
	json_add_int(o, "start_ms", p->start_ms);
	json_add_int(o, "shutdown_ms", p->shutdown_ms);
	json_add_int(o, "migrate_ms", p->migrate_ms);
	json_add_str(o, "fail", p->fail);
	json_add_int(o, "ignore_shutdown", p->ignore_shutdown);
	json_add_int(o, "event", p->event);
	json_add_int(o, "event_ms", p->event_ms);
	json_add_int(o, "guest", p->guest);
	sim_slots_add(o, "disks", d->disks);
	sim_slots_add(o, "vifs", d->vifs);
	return o;
}

static struct json_object *domains_json(struct sim *s)
{
	struct json_object *a = json_object_new_array();

	xassert(a);
	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (d->state != SIM_BUILDING)
			xassert(!json_object_array_add(a, domain_json(d)));
	}
	return a;
}

int sim_state_save(struct sim *s)
{
	_cleanup_(json_putp) struct json_object *o =
		json_object_new_object();
	_cleanup_(freep) char *path = xasprintf("%s/state.json", s->dir);
	char kernel[UUID_LEN + 1];
	const char *text;
	int r;

	xassert(o);
	file_kernel_boot(kernel, sizeof(kernel));
	json_add_int(o, "format", 1);
	json_add_str(o, "kernel_boot", kernel);
	json_add_str(o, "boot_id", s->boot_id);
	json_add_int(o, "next_domid", s->next_domid);
	json_object_object_add(o, "domains", domains_json(s));
	json_object_object_add(o, "fences", fences_json(&s->fences));
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY);
	xassert(text);
	r = file_replace(path, text, strlen(text));
	if (r < 0)
		log_error("cannot write %s: %s", path, strerror(-r));
	if (r > 0)
		log_warn("cannot make sure of %s", path);
	/* Domains do not outlive a power failure anyway. */
	return MIN(r, 0);
}

static bool load_script(struct json_object *o, struct sim_script *p)
{
	int64_t start, stop, migrate, ignore, event, event_ms, guest;

	if (!json_int(o, "start_ms", 0, SIM_MAX_DELAY_MS, &start) ||
	    !json_int(o, "shutdown_ms", 0, SIM_MAX_DELAY_MS, &stop) ||
	    !json_int(o, "migrate_ms", 0, SIM_MAX_DELAY_MS, &migrate) ||
	    !json_str(o, "fail", p->fail, sizeof(p->fail)) ||
	    !json_int(o, "ignore_shutdown", 0, 1, &ignore) ||
	    !json_int(o, "event", 0, XEN_EV_GONE, &event) ||
	    !json_int(o, "event_ms", 0, SIM_MAX_DELAY_MS, &event_ms) ||
	    !json_int(o, "guest", 0, SIM_GUEST_FLOOD, &guest))
		return false;
	p->start_ms = (uint32_t)start;
	p->shutdown_ms = (uint32_t)stop;
	p->migrate_ms = (uint32_t)migrate;
	p->ignore_shutdown = ignore;
	p->event = (enum xen_event_kind)event;
	p->event_ms = (uint32_t)event_ms;
	p->guest = (enum sim_guest_kind)guest;
	return true;
}

static bool load_fields(struct json_object *o, struct sim_domain *d)
{
	int64_t domid, state, reason, migration, activated;

	if (!json_str(o, "name", d->name, sizeof(d->name)) ||
	    !json_int(o, "domid", 1, SIM_MAX_DOMID, &domid) ||
	    !json_int(o, "state", SIM_RUNNING, SIM_SHUTDOWN, &state) ||
	    !json_int(o, "reason", 0, XEN_EV_GONE, &reason) ||
	    !json_int(o, "migration", 0, SIM_ARRIVED, &migration) ||
	    !json_int(o, "activated", 0, 1, &activated) ||
	    !json_int(o, "since_ms", 0, INT64_MAX / 2, &d->since_ms) ||
	    !json_str(o, "token", d->token, sizeof(d->token)) ||
	    !load_script(o, &d->script) ||
	    !sim_slots_load(o, "disks", d->disks) ||
	    !sim_slots_load(o, "vifs", d->vifs))
		return false;
	d->domid = (uint32_t)domid;
	d->state = (enum sim_state)state;
	d->reason = (enum xen_event_kind)reason;
	d->migration = (enum sim_migration)migration;
	d->activated = activated;
	/* Nobody listens for it any more. */
	if (d->migration == SIM_EXPECTED)
		d->token[0] = '\0';
	return true;
}

static bool load_domain(void *data, struct json_object *o)
{
	struct sim *s = data;
	struct sim_domain *d;
	struct sim_guest g;
	const char *text = json_object_to_json_string(o);

	if (!text || !sim_guest_parse(text, strlen(text), &g) ||
	    sim_find(s, g.vm) || sim_domain_add(s, g.vm, &d) < 0)
		return false;
	d->memory = g.memory;
	d->vcpus = g.vcpus;
	d->ticks = g.ticks;
	d->was_paused = g.was_paused;
	return load_fields(o, d);
}

static int load(struct sim *s, const char *p, size_t n, bool *reboot)
{
	_cleanup_(json_putp) struct json_object *o = json_parse(p, n);
	char kernel[UUID_LEN + 1], now[UUID_LEN + 1];
	int64_t format, next;

	if (!o || !json_int(o, "format", 1, 1, &format) ||
	    !json_str(o, "kernel_boot", kernel, sizeof(kernel)) ||
	    !json_str(o, "boot_id", s->boot_id, sizeof(s->boot_id)) ||
	    !json_int(o, "next_domid", 1, SIM_MAX_DOMID, &next) ||
	    !json_each(o, "fences", FENCES_MAX + SIM_MAX_DOMAINS, fences_load,
		       &s->fences))
		return -EBADMSG;
	file_kernel_boot(now, sizeof(now));
	*reboot = *reboot || strcmp(now, kernel);
	if (!*reboot &&
	    !json_each(o, "domains", SIM_MAX_DOMAINS, load_domain, s))
		return -EBADMSG;
	s->next_domid = (uint32_t)next;
	return 0;
}

static int state_load(struct sim *s, bool reboot)
{
	_cleanup_(freep) char *path = xasprintf("%s/state.json", s->dir);
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r = file_read(path, JSON_MAX_BYTES, &b);

	if (r == -ENOENT)
		reboot = true;
	else if (r == 0)
		r = load(s, buf_cstr(&b), b.len, &reboot);
	if (r < 0 && r != -ENOENT) {
		log_error("%s: %s; mend it, or move it away to begin with an "
			  "empty host", path, strerror(-r));
		return r;
	}
	if (!reboot)
		return 0;
	uuid_new(s->boot_id);
	return sim_state_save(s);
}

int sim_state_open(struct sim *s, bool reboot)
{
	_cleanup_(freep) char *path = xasprintf("%s/lock", s->dir);

	s->next_domid = 1;
	list_init(&s->domains);
	map_init(&s->by_vm);
	fences_init(&s->fences);
	s->fences.kept = fence_kept;
	s->fences.data = s;
	s->lock_fd =
		open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0) {
		log_error("cannot open %s: %s", path, strerror(errno));
		return -errno;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		log_error("%s is held: another simulated host uses this folder",
			  path);
		return -EBUSY;
	}
	return state_load(s, reboot);
}

void sim_state_close(struct sim *s)
{
	list_for_each_safe(l, &s->domains)
		sim_domain_remove(s, list_entry(l, struct sim_domain, link));
	map_deinit(&s->by_vm);
	fences_deinit(&s->fences);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
}
