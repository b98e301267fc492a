#include "xen/guest_scan.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* Members of the metrics, in the order in which they are told. */
enum member {
	DRIVERS,
	SYSTEM,
	NETBIOS,
	MEMORY,
	NETWORKS,
	OTHER,
	N_MAPS,
	HOTPLUG_VBD = N_MAPS,
	HOTPLUG_VIF,
	CONNECTED,
};

static const char *const map_names[] = {
	[DRIVERS] = "PV_drivers_version", [SYSTEM] = "os_version",
	[NETBIOS] = "netbios_name", [MEMORY] = "memory",
	[NETWORKS] = "networks", [OTHER] = "other",
};

/* ---- what a value may look like ---- */

static bool is_text(const char *s)
{
	return true;
}

static bool is_number(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= 15 && strspn(s, "0123456789") == n;
}

static bool is_ipv4(const char *s)
{
	struct in_addr a;

	return inet_pton(AF_INET, s, &a) == 1;
}

static bool is_ipv6(const char *s)
{
	struct in6_addr a;

	return inet_pton(AF_INET6, s, &a) == 1;
}

struct fact {
	enum member member;
	const char *key;
	bool (*fits)(const char *s);
};

static const struct {
	const char *path;
	struct fact fact;
} nodes[] = {
	{ "attr/PVAddons/MajorVersion", { DRIVERS, "major", is_number } },
	{ "attr/PVAddons/MinorVersion", { DRIVERS, "minor", is_number } },
	{ "attr/PVAddons/MicroVersion", { DRIVERS, "micro", is_number } },
	{ "attr/PVAddons/BuildVersion", { DRIVERS, "build", is_number } },
	{ "data/os_name", { SYSTEM, "name", is_text } },
	{ "data/os_uname", { SYSTEM, "uname", is_text } },
	{ "data/os_distro", { SYSTEM, "distro", is_text } },
	{ "data/os_majorver", { SYSTEM, "major", is_text } },
	{ "data/os_minorver", { SYSTEM, "minor", is_text } },
	{ "data/host_name", { NETBIOS, "host_name", is_text } },
	{ "data/domain", { NETBIOS, "domain", is_text } },
	{ "data/meminfo_total", { MEMORY, "total", is_number } },
	{ "data/meminfo_free", { MEMORY, "free", is_number } },
	{ "data/cant_suspend_reason",
	  { OTHER, "data-cant-suspend-reason", is_text } },
	{ "feature/hotplug/vbd", { HOTPLUG_VBD, "", is_number } },
	{ "feature/hotplug/vif", { HOTPLUG_VIF, "", is_number } },
};

/* ---- the machine ---- */

struct step;
/* A child of a listed node: what to look at because of it. */
typedef void (*child_fn)(struct guest_scan *s, const struct step *of,
			 const char *name);

struct step {
	char path[GUEST_MAX_PATH];
	child_fn child; /* NULL: to be read, else to be listed */
	unsigned max;   /* children that count */
	/* Of what is read; a list hands them on. */
	struct fact fact;
	char key[GUEST_MAX_NAME + 1];
};

struct found {
	enum member member;
	struct value *key, *value;
};

struct guest_scan {
	struct step steps[GUEST_MAX_STEPS];
	size_t n_steps, at;
	struct found found[GUEST_MAX_FACTS];
	size_t n_found, bytes;
	bool connected;
	char hotplug[2]; /* '0', '1' or 0 when not told: vbd, vif */
};

struct guest_scan *guest_scan_new(void)
{
	return xcalloc(1, sizeof(struct guest_scan));
}

static void forget(struct guest_scan *s)
{
	for (size_t i = 0; i < s->n_found; i++) {
		value_unref(s->found[i].key);
		value_unref(s->found[i].value);
	}
	s->n_steps = s->at = s->n_found = s->bytes = 0;
	s->connected = false;
	memset(s->hotplug, 0, sizeof(s->hotplug));
}

void guest_scan_free(struct guest_scan *s)
{
	if (!s)
		return;
	forget(s);
	free(s);
}

/* Does nothing when there is no room for the step or its path. */
static void step_add(struct guest_scan *s, const struct step *wanted,
		     const char *parent, const char *name, const char *below)
{
	struct step *st = &s->steps[s->n_steps];
	int n;

	if (s->n_steps == GUEST_MAX_STEPS)
		return;
	*st = *wanted;
	n = snprintf(st->path, sizeof(st->path), "%s%s%s%s", parent,
		     *name ? "/" : "", name, below);
	s->n_steps += n > 0 && (size_t)n < sizeof(st->path);
}

/* A device's or an address's number: no sign, no zero in front. */
static bool is_index(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= 3 && strspn(s, "0123456789") == n &&
	       (n == 1 || *s != '0');
}

/* ---- children ---- */

static void on_control(struct guest_scan *s, const struct step *of,
		       const char *name)
{
	struct step st = { .fact = { OTHER, NULL, is_text } };

	snprintf(st.key, sizeof(st.key), "%s", name);
	step_add(s, &st, of->path, name, "");
}

static void on_address(struct guest_scan *s, const struct step *of,
		       const char *name)
{
	struct step st = { .fact = of->fact };

	if (!is_index(name))
		return;
	snprintf(st.key, sizeof(st.key), "%.32s/%s", of->key, name);
	step_add(s, &st, of->path, name, "");
}

/* attr/ethN/ipv6/I/addr */
static void on_eth_address(struct guest_scan *s, const struct step *of,
			   const char *name)
{
	struct step st = { .fact = of->fact };

	if (!is_index(name))
		return;
	snprintf(st.key, sizeof(st.key), "%.32s/%s", of->key, name);
	step_add(s, &st, of->path, name, "/addr");
}

#define MAX_ADDRESSES 8
#define MAX_DEVICES 16
#define MAX_CONTROLS 64

static void on_vif(struct guest_scan *s, const struct step *of,
		   const char *name)
{
	struct step four = { .child = on_address, .max = MAX_ADDRESSES,
			     .fact = { NETWORKS, NULL, is_ipv4 } };
	struct step six = { .child = on_address, .max = MAX_ADDRESSES,
			    .fact = { NETWORKS, NULL, is_ipv6 } };

	if (!is_index(name))
		return;
	snprintf(four.key, sizeof(four.key), "%s/ipv4", name);
	snprintf(six.key, sizeof(six.key), "%s/ipv6", name);
	step_add(s, &four, of->path, name, "/ipv4");
	step_add(s, &six, of->path, name, "/ipv6");
}

static void on_attr(struct guest_scan *s, const struct step *of,
		    const char *name)
{
	struct step four = { .fact = { NETWORKS, NULL, is_ipv4 } };
	struct step six = { .child = on_eth_address, .max = MAX_ADDRESSES,
			    .fact = { NETWORKS, NULL, is_ipv6 } };

	if (strncmp(name, "eth", 3) || !is_index(name + 3))
		return;
	snprintf(four.key, sizeof(four.key), "%s/ip", name + 3);
	snprintf(six.key, sizeof(six.key), "%s/ipv6", name + 3);
	step_add(s, &four, of->path, name, "/ip");
	step_add(s, &six, of->path, name, "/ipv6");
}

static void on_device(struct guest_scan *s, const struct step *of,
		      const char *name)
{
	struct step st = { .fact = { CONNECTED, NULL, is_number } };

	/* A disk has its number as the guest knows it: 51712 is xvda. */
	if (strlen(name) <= 9 && strspn(name, "0123456789") == strlen(name))
		step_add(s, &st, of->path, name, "/state");
}

static const struct {
	const char *path;
	child_fn child;
	unsigned max;
} folders[] = {
	{ "attr/vif", on_vif, MAX_DEVICES },
	{ "attr", on_attr, MAX_DEVICES },
	{ "device/vbd", on_device, MAX_DEVICES },
	{ "device/vif", on_device, MAX_DEVICES },
	{ "control", on_control, MAX_CONTROLS },
};

void guest_scan_begin(struct guest_scan *s)
{
	forget(s);
	for (size_t i = 0; i < ARRAY_LEN(nodes); i++) {
		struct step st = { .fact = nodes[i].fact };

		snprintf(st.key, sizeof(st.key), "%s", nodes[i].fact.key);
		step_add(s, &st, nodes[i].path, "", "");
	}
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		struct step st = { .child = folders[i].child,
				   .max = folders[i].max };

		step_add(s, &st, folders[i].path, "", "");
	}
}

enum guest_ask guest_scan_next(struct guest_scan *s, const char **ret_path)
{
	if (s->at == s->n_steps)
		return GUEST_DONE;
	*ret_path = s->steps[s->at].path;
	return s->steps[s->at].child ? GUEST_LIST : GUEST_READ;
}

/* ---- answers ---- */

static const struct value *find(const struct guest_scan *s, enum member member,
				const char *key)
{
	for (size_t i = 0; i < s->n_found; i++)
		if (s->found[i].member == member &&
		    value_is_str(s->found[i].key, key))
			return s->found[i].value;
	return NULL;
}

/* The first of two with one key stays. */
static void keep(struct guest_scan *s, enum member member, const char *key,
		 const char *text)
{
	size_t n = strlen(key) + strlen(text);

	if (s->n_found == GUEST_MAX_FACTS || s->bytes + n > GUEST_MAX_BYTES ||
	    find(s, member, key))
		return;
	s->bytes += n;
	s->found[s->n_found++] = (struct found){ member, value_stringz(key),
						 value_stringz(text) };
}

static void take(struct guest_scan *s, const struct step *st, const char *text)
{
	switch (st->fact.member) {
	case CONNECTED:
		/* XenbusStateConnected */
		s->connected = s->connected || !strcmp(text, "4");
		break;
	case HOTPLUG_VBD:
	case HOTPLUG_VIF:
		s->hotplug[st->fact.member - HOTPLUG_VBD] = text[0];
		break;
	default:
		keep(s, st->fact.member, st->key, text);
	}
}

void guest_scan_read(struct guest_scan *s, const char *p, size_t n)
{
	const struct step *st = &s->steps[s->at];
	char text[GUEST_MAX_VALUE + 1];

	xassert(s->at < s->n_steps && !st->child);
	s->at++;
	if (!p || n > GUEST_MAX_VALUE || !text_valid(p, n))
		return;
	memcpy(text, p, n);
	text[n] = '\0';
	if (st->fact.fits(text))
		take(s, st, text);
}

static bool name_fits(const char *name)
{
	size_t n = strnlen(name, GUEST_MAX_NAME + 1);

	return n > 0 && n <= GUEST_MAX_NAME && text_valid(name, n) &&
	       !strchr(name, '/');
}

void guest_scan_list(struct guest_scan *s, const char *const *names, size_t n)
{
	const struct step *st = &s->steps[s->at];
	unsigned taken = 0;

	xassert(s->at < s->n_steps && st->child);
	s->at++;
	for (size_t i = 0; i < n && taken < st->max; i++) {
		size_t before = s->n_steps;

		if (name_fits(names[i]))
			st->child(s, st, names[i]);
		taken += s->n_steps > before;
	}
}

/* ---- the metrics ---- */

/* Clients of old agents look for N/ip. */
static void add_old_addresses(struct guest_scan *s)
{
	for (unsigned i = 0; i < MAX_DEVICES; i++) {
		char key[16];
		const struct value *v;

		snprintf(key, sizeof(key), "%u/ipv4/0", i);
		v = find(s, NETWORKS, key);
		snprintf(key, sizeof(key), "%u/ip", i);
		if (v)
			keep(s, NETWORKS, key, value_str(v));
	}
}

static struct value *map_of(const struct guest_scan *s, enum member member)
{
	struct value *pairs[2 * GUEST_MAX_FACTS];
	size_t n = 0;

	for (size_t i = 0; i < s->n_found; i++) {
		if (s->found[i].member != member)
			continue;
		pairs[2 * n] = value_ref(s->found[i].key);
		pairs[2 * n++ + 1] = value_ref(s->found[i].value);
	}
	return value_map_from(pairs, n);
}

static struct value *tristate(char c)
{
	return value_stringz(c == '1' ? "yes" : c == '0' ? "no" :
							   "unspecified");
}

struct value *guest_scan_end(struct guest_scan *s)
{
	bool drivers = find(s, DRIVERS, "major") != NULL;
	struct value *ret;

	if (s->n_found == 0 && !s->connected)
		return NULL;
	add_old_addresses(s);
	/* Agents that have no such number count as older than all that have. */
	if (drivers)
		keep(s, DRIVERS, "micro", "-1");
	ret = value_struct_new(N_MAPS + 3);
	for (unsigned i = 0; i < N_MAPS; i++) {
		ret->items[(size_t)2 * i] = value_stringz(map_names[i]);
		ret->items[(size_t)2 * i + 1] = map_of(s, (enum member)i);
	}
	ret->items[2 * N_MAPS] = value_stringz("can_use_hotplug_vbd");
	ret->items[2 * N_MAPS + 1] = tristate(s->hotplug[0]);
	ret->items[2 * N_MAPS + 2] = value_stringz("can_use_hotplug_vif");
	ret->items[2 * N_MAPS + 3] = tristate(s->hotplug[1]);
	ret->items[2 * N_MAPS + 4] = value_stringz("PV_drivers_detected");
	ret->items[2 * N_MAPS + 5] = value_bool(s->connected || drivers);
	return ret;
}
