/* What simulated guests tell: each plays an agent that has written its nodes
 * into xenstore, made up here when they are asked for. */
#include <stdio.h>
#include <string.h>

#include "xen/sim.h"

/* A flood: so many nodes of so many bytes, and all of them change always. */
#define FLOOD_NODES 8000
#define FLOOD_BYTES 2048
#define FLOOD_EVENTS 100
#define FLOOD_MS 50
/* What the guest was given is told back under this name. */
#define ECHO "vm-data/sim-echo"

/* ---- the nodes ---- */

/* Stable over restarts and migrations. */
static unsigned guest_hash(const struct sim_domain *d)
{
	return (unsigned)hash64(d->vm, strlen(d->vm));
}

static struct value *ipv4_of(const struct sim_domain *d)
{
	unsigned h = guest_hash(d);

	return value_printf("10.%u.%u.%u", h % 250 + 1, h / 250 % 250 + 1,
			    h / 62500 % 250 + 1);
}

static struct value *ipv6_of(const struct sim_domain *d)
{
	unsigned h = guest_hash(d);

	return value_printf("fd00::%x:%x", h >> 16 | 1, h & 0xffff);
}

static struct value *total_of(const struct sim_domain *d)
{
	return value_printf("%llu", (unsigned long long)d->memory / 1024);
}

/* Moves with the time that the guest has run. */
static struct value *free_of(const struct sim_domain *d)
{
	return value_printf("%llu", (unsigned long long)d->memory / 2048 +
			    (unsigned long long)(sim_ticks(d) / 1000 % 1024));
}

static struct value *echo_of(const struct sim_domain *d)
{
	return value_ref(value_get(d->xenstore, ECHO));
}

static const struct {
	const char *path, *text;
	struct value *(*make)(const struct sim_domain *d);
} nodes[] = {
	{ "attr/PVAddons/MajorVersion", "8", NULL },
	{ "attr/PVAddons/MinorVersion", "4", NULL },
	{ "attr/PVAddons/MicroVersion", "0", NULL },
	{ "attr/PVAddons/BuildVersion", "1", NULL },
	{ "attr/vif/0/ipv4/0", NULL, ipv4_of },
	{ "attr/vif/0/ipv6/0", NULL, ipv6_of },
	{ "data/os_name", "Simulated OS 1.0", NULL },
	{ "data/os_uname", "1.0-sim", NULL },
	{ "data/os_distro", "simulated", NULL },
	{ "data/os_majorver", "1", NULL },
	{ "data/os_minorver", "0", NULL },
	{ "data/meminfo_total", NULL, total_of },
	{ "data/meminfo_free", NULL, free_of },
	{ "control/feature-shutdown", "1", NULL },
	{ "control/feature-poweroff", "1", NULL },
	{ "control/feature-reboot", "1", NULL },
	{ "control/feature-suspend", "1", NULL },
	{ "control/feature-vcpu-hotplug", "1", NULL },
	{ "control/sim-echo", NULL, echo_of },
	{ "device/vif/0/state", "4", NULL },
	{ "feature/hotplug/vbd", "1", NULL },
	{ "feature/hotplug/vif", "1", NULL },
};

static struct value *node_value(const struct sim_domain *d, size_t i)
{
	return nodes[i].make ? nodes[i].make(d) : value_stringz(nodes[i].text);
}

/* Every other one is too long to be told, the rest is not. */
static struct value *flood_value(const struct sim_domain *d, unsigned i)
{
	char text[FLOOD_BYTES + 1];
	size_t n = i % 2 ? FLOOD_BYTES : GUEST_MAX_VALUE;

	for (size_t k = 0; k < n; k++)
		text[k] = k % 2 ? '"' : '&';
	/* ... and is not what it was. */
	snprintf(text + 8, 24, "%015llu",
		 (unsigned long long)(sim_now() + i) % 1000000000000000ull);
	text[23] = '&';
	return value_string(text, n);
}

static struct value *node_read(const struct sim_domain *d, const char *path)
{
	unsigned i;

	if (d->script.guest == SIM_GUEST_FLOOD &&
	    sscanf(path, "control/flood-%u", &i) == 1)
		return flood_value(d, i);
	for (size_t k = 0; k < ARRAY_LEN(nodes); k++)
		if (!strcmp(nodes[k].path, path))
			return node_value(d, k);
	return NULL;
}

/* The names right below path, each once. */
struct names {
	char (*name)[GUEST_MAX_NAME + 1];
	const char **list;
	size_t n;
};

static void names_add(struct names *l, const char *name, size_t n)
{
	for (size_t i = 0; i < l->n; i++)
		if (strlen(l->name[i]) == n && !memcmp(l->name[i], name, n))
			return;
	snprintf(l->name[l->n], sizeof(*l->name), "%.*s", (int)n, name);
	l->list[l->n] = l->name[l->n];
	l->n++;
}

static void names_flood(struct names *l)
{
	for (unsigned i = 0; i < FLOOD_NODES; i++) {
		snprintf(l->name[l->n], sizeof(*l->name), "flood-%u", i);
		l->list[l->n] = l->name[l->n];
		l->n++;
	}
}

static void node_list(const struct sim_domain *d, const char *path,
		      struct guest_scan *scan)
{
	size_t most = ARRAY_LEN(nodes) + FLOOD_NODES, n = strlen(path);
	struct names l = { xcalloc(most, sizeof(*l.name)),
			   xcalloc(most, sizeof(*l.list)), 0 };

	for (size_t i = 0; i < ARRAY_LEN(nodes); i++) {
		const char *below = nodes[i].path + n + 1;

		if (!strncmp(nodes[i].path, path, n) &&
		    nodes[i].path[n] == '/')
			names_add(&l, below, strcspn(below, "/"));
	}
	if (d->script.guest == SIM_GUEST_FLOOD && !strcmp(path, "control"))
		names_flood(&l);
	guest_scan_list(scan, l.list, l.n);
	free(l.name);
	free(l.list);
}

/* ---- looking at them ---- */

static void look(struct sim_domain *d, struct guest_scan *scan)
{
	enum guest_ask ask;
	const char *path;

	guest_scan_begin(scan);
	while ((ask = guest_scan_next(scan, &path)) != GUEST_DONE) {
		_cleanup_(value_unrefp) struct value *v = NULL;

		guest_pace_spend(&d->pace, sim_now(), 1);
		if (ask == GUEST_LIST) {
			node_list(d, path, scan);
			continue;
		}
		v = node_read(d, path);
		guest_scan_read(scan, v ? value_str(v) : NULL, v ? v->n : 0);
	}
}

static bool talks(const struct sim_domain *d)
{
	return d->state == SIM_RUNNING && d->migration == SIM_HOME &&
	       d->script.guest != SIM_GUEST_SILENT;
}

static void domain_tick(struct sim *s, struct sim_domain *d)
{
	int64_t now = sim_now();
	struct value *metrics;

	if (!d->heard) {
		guest_pace_init(&d->pace, now);
		d->heard = true;
	}
	for (unsigned i = 0; d->script.guest == SIM_GUEST_FLOOD &&
			     i < FLOOD_EVENTS && !d->pace.deaf; i++)
		guest_pace_event(&d->pace, now);
	if (!guest_pace_due(&d->pace, now))
		return;
	look(d, s->scan);
	metrics = guest_scan_end(s->scan);
	if (metrics)
		s->guest(s->event_data, d->vm, d->domid, metrics);
}

void sim_guest_tick(struct sim *s)
{
	pthread_mutex_lock(&s->lock);
	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (talks(d))
			domain_tick(s, d);
	}
	pthread_mutex_unlock(&s->lock);
}

static int64_t domain_wait(const struct sim_domain *d, int64_t now)
{
	if (!d->heard)
		return 0;
	if (d->script.guest == SIM_GUEST_FLOOD && !d->pace.deaf)
		return FLOOD_MS;
	return guest_pace_wait(&d->pace, now);
}

int64_t sim_guest_wait(struct sim *s)
{
	int64_t least = INT64_MAX, now = sim_now();

	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (talks(d))
			least = MIN(least, domain_wait(d, now));
	}
	return least;
}

/* ---- what the pool tells a guest ---- */

int sim_set_xenstore(struct xen *x, struct xen_call *c,
		     const struct value *nodes_wanted)
{
	struct sim *s = sim_of(x);
	struct sim_domain *d;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (!d || d->state == SIM_BUILDING || d->state == SIM_SHUTDOWN) {
		r = sim_fail_state(c, "running, paused", d);
	} else {
		value_unref(d->xenstore);
		d->xenstore = value_ref(nodes_wanted);
		if (d->heard) {
			guest_pace_spend(&d->pace, sim_now(),
					 GUEST_COST_TRANSACTION);
			guest_pace_event(&d->pace, sim_now());
		}
	}
	pthread_mutex_unlock(&s->lock);
	sim_net_wake(s);
	return r;
}

/* "sim:guest" of other_config. */
bool sim_guest_mode(struct xen_call *c, const char *word,
		    enum sim_guest_kind *ret)
{
	static const char *const words[] = {
		[SIM_GUEST_AGENT] = "agent", [SIM_GUEST_SILENT] = "none",
		[SIM_GUEST_FLOOD] = "flood",
	};

	*ret = SIM_GUEST_AGENT;
	for (size_t i = 0; *word && i < ARRAY_LEN(words); i++) {
		if (strcmp(words[i], word))
			continue;
		*ret = (enum sim_guest_kind)i;
		return true;
	}
	if (*word)
		xen_fail(c, "INVALID_VALUE", "sim:guest", word);
	return !*word;
}
