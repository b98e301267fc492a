#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "xen/domain_config.h"

/* Where a parse writes its first complaint. */
struct parse {
	const struct value *v;
	char *reason;
	size_t size;
	bool failed;
};

struct word {
	const char *name;
	int number;
};

static const struct word types[] = {
	{ "hvm", DOMAIN_HVM }, { "pv", DOMAIN_PV }, { "pvh", DOMAIN_PVH },
	{ NULL, 0 },
};

static const struct word actions[] = {
	{ "destroy", DOMAIN_DESTROY },
	{ "restart", DOMAIN_RESTART },
	{ "preserve", DOMAIN_PRESERVE },
	{ "rename_restart", DOMAIN_RENAME_RESTART },
	{ "coredump_and_destroy", DOMAIN_COREDUMP_DESTROY },
	{ "coredump_and_restart", DOMAIN_COREDUMP_RESTART },
	{ NULL, 0 },
};

static void complain(struct parse *p, const char *fmt, ...) _printf_(2, 3);
static void complain(struct parse *p, const char *fmt, ...)
{
	va_list ap;

	if (p->failed)
		return;
	p->failed = true;
	va_start(ap, fmt);
	vsnprintf(p->reason, p->size, fmt, ap);
	va_end(ap);
}

static const struct value *member(struct parse *p, const char *name,
				  enum value_kind kind, bool required)
{
	const struct value *v = value_get(p->v, name);

	if (v && v->kind == kind)
		return v;
	if (v)
		complain(p, "%s: wrong type", name);
	else if (required)
		complain(p, "%s: missing", name);
	return NULL;
}

static char *text(struct parse *p, const char *name, size_t max)
{
	const struct value *v = member(p, name, VALUE_STRING, false);

	if (!v)
		return xstrdup("");
	if (v->n > max) {
		complain(p, "%s: longer than %zu bytes", name, max);
		return xstrdup("");
	}
	if (!text_valid(v->s, v->n)) {
		complain(p, "%s: not valid text", name);
		return xstrdup("");
	}
	return xstrdup(v->s);
}

static uint64_t number(struct parse *p, const char *name, uint64_t min,
		       uint64_t max, uint64_t otherwise)
{
	const struct value *v = member(p, name, VALUE_INT, !otherwise);

	if (!v)
		return otherwise;
	if (v->i < 0 || (uint64_t)v->i < min || (uint64_t)v->i > max)
		complain(p, "%s: %" PRId64 " is not in %" PRIu64 "..%" PRIu64,
			 name, v->i, min, max);
	return (uint64_t)v->i;
}

static int word(struct parse *p, const char *name, const struct word *words,
		int otherwise)
{
	const struct value *v = member(p, name, VALUE_STRING, otherwise < 0);

	if (!v || (v->n == 0 && otherwise >= 0))
		return otherwise;
	for (const struct word *w = words; w->name; w++)
		if (value_is_str(v, w->name))
			return w->number;
	complain(p, "%s: unknown word \"%.32s\"", name, value_str(v));
	return 0;
}

static bool good_string(const struct value *v, size_t max)
{
	return v && v->kind == VALUE_STRING && v->n <= max &&
	       text_valid(v->s, v->n);
}

static struct value *strings(struct parse *p, const char *name)
{
	const struct value *v = value_get(p->v, name);

	if (!v)
		return value_map_empty();
	if (v->kind != VALUE_MAP) {
		complain(p, "%s: wrong type", name);
		return value_map_empty();
	}
	if (v->n > DOMAIN_MAX_KEYS)
		complain(p, "%s: more than %d keys", name, DOMAIN_MAX_KEYS);
	for (uint32_t i = 0; i < v->n && !p->failed; i++) {
		if (!good_string(v->items[2 * i], DOMAIN_MAX_KEY))
			complain(p, "%s: bad key", name);
		else if (!good_string(v->items[2 * i + 1], DOMAIN_MAX_ITEM))
			complain(p, "%s: bad value at key \"%.64s\"", name,
				 value_str(v->items[2 * i]));
	}
	return value_ref(v);
}

bool domain_uuid(const char *s, char out[UUID_LEN + 1])
{
	if (strlen(s) != UUID_LEN || !uuid_valid(s, UUID_LEN))
		return false;
	for (size_t i = 0; i <= UUID_LEN; i++)
		out[i] = s[i] >= 'A' && s[i] <= 'F' ? (char)(s[i] + 32) : s[i];
	return true;
}

static void parse_sizes(struct parse *p, struct domain_config *c)
{
	c->memory_static_max = number(p, "memory_static_max", DOMAIN_MIN_MEMORY,
				      DOMAIN_MAX_MEMORY, 0);
	c->memory_target = number(p, "memory_target", 0, DOMAIN_MAX_MEMORY,
				  c->memory_static_max);
	if (!c->memory_target)
		c->memory_target = c->memory_static_max;
	if (c->memory_target < DOMAIN_MIN_MEMORY)
		complain(p, "memory_target: below 1 MiB");
	if (c->memory_target > c->memory_static_max)
		complain(p, "memory_target: above memory_static_max");
	c->vcpus = (uint32_t)number(p, "vcpus", 1, DOMAIN_MAX_VCPUS, 0);
	c->vcpus_max = (uint32_t)number(p, "vcpus_max", 1, DOMAIN_MAX_VCPUS,
					c->vcpus);
	if (c->vcpus > c->vcpus_max)
		complain(p, "vcpus: above vcpus_max");
}

/* ---- devices ---- */

bool domain_path_plain(const char *path)
{
	return path_is_plain(path, DOMAIN_MAX_PATH);
}

static const struct word formats[] = {
	{ "raw", DISK_RAW }, { "qcow2", DISK_QCOW2 }, { "vhd", DISK_VHD },
	{ NULL, 0 },
};

static bool flag(struct parse *p, const char *name)
{
	const struct value *v = member(p, name, VALUE_BOOL, false);

	return v && v->i;
}

static void parse_disk(struct parse *p, struct domain_disk *d)
{
	d->number = (uint32_t)number(p, "number", 0, DOMAIN_MAX_DISKS - 1, 0);
	d->path = text(p, "path", DOMAIN_MAX_PATH);
	d->format = (enum disk_format)word(p, "format", formats, DISK_RAW);
	d->readonly = flag(p, "readonly");
	d->cdrom = flag(p, "cdrom");
	if (*d->path && !domain_path_plain(d->path))
		complain(p, "path: not a plain absolute path");
	if (!*d->path && !d->cdrom)
		complain(p, "path: missing");
	if (d->cdrom && !d->readonly)
		complain(p, "cdrom: not readonly");
}

bool domain_disk_parse(const struct value *v, struct domain_disk *ret,
		       char *reason, size_t reason_size)
{
	struct parse p = { v, reason, reason_size, false };

	memset(ret, 0, sizeof(*ret));
	parse_disk(&p, ret);
	return !p.failed;
}

static bool mac_parse(const char *s, char out[18])
{
	uint8_t bytes[6];

	if (strlen(s) != 17)
		return false;
	for (int i = 0; i < 6; i++)
		if (!hex_decode(s + (size_t)i * 3, 2, &bytes[i]) ||
		    (i < 5 && s[i * 3 + 2] != ':'))
			return false;
	snprintf(out, 18, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1],
		 bytes[2], bytes[3], bytes[4], bytes[5]);
	return !(bytes[0] & 1);
}

/* It becomes an argument of a script that runs as root. */
static bool bridge_valid(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= DOMAIN_MAX_BRIDGE && *s != '-' && *s != '.' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789_.-") == n;
}

static void parse_vif(struct parse *p, struct domain_vif *v)
{
	const struct value *mac = member(p, "mac", VALUE_STRING, true);
	const struct value *bridge = member(p, "bridge", VALUE_STRING, true);

	v->number = (uint32_t)number(p, "number", 0, DOMAIN_MAX_VIFS - 1, 0);
	if (value_get(p->v, "mtu"))
		v->mtu = (uint32_t)number(p, "mtu", 68, 65521, 1500);
	if (mac && !mac_parse(value_str(mac), v->mac))
		complain(p, "mac: not the address of one card");
	if (bridge && !bridge_valid(value_str(bridge)))
		complain(p, "bridge: not an interface's name");
	else if (bridge)
		snprintf(v->bridge, sizeof(v->bridge), "%s",
			 value_str(bridge));
}

bool domain_vif_parse(const struct value *v, struct domain_vif *ret,
		      char *reason, size_t reason_size)
{
	struct parse p = { v, reason, reason_size, false };

	memset(ret, 0, sizeof(*ret));
	parse_vif(&p, ret);
	return !p.failed;
}

/* The elements of a member that may be absent; NULL and 0 then. */
static const struct value *list_member(struct parse *p, const char *name,
				       size_t max)
{
	const struct value *v = member(p, name, VALUE_SET, false);

	if (v && v->n > max)
		complain(p, "%s: more than %zu", name, max);
	return p->failed ? NULL : v;
}

static void parse_disks(struct parse *p, struct domain_config *c)
{
	const struct value *v = list_member(p, "disks", DOMAIN_MAX_DISKS);
	bool used[DOMAIN_MAX_DISKS] = { false };

	c->disks = v ? xcalloc(v->n + 1, sizeof(*c->disks)) : NULL;
	for (uint32_t i = 0; v && i < v->n && !p->failed; i++) {
		struct parse one = { v->items[i], p->reason, p->size, false };

		parse_disk(&one, &c->disks[c->n_disks++]);
		p->failed = one.failed;
		if (!p->failed && used[c->disks[i].number])
			complain(p, "disks: number %u twice",
				 c->disks[i].number);
		else if (!p->failed)
			used[c->disks[i].number] = true;
	}
}

static void parse_vifs(struct parse *p, struct domain_config *c)
{
	const struct value *v = list_member(p, "vifs", DOMAIN_MAX_VIFS);
	bool used[DOMAIN_MAX_VIFS] = { false };

	c->vifs = v ? xcalloc(v->n + 1, sizeof(*c->vifs)) : NULL;
	for (uint32_t i = 0; v && i < v->n && !p->failed; i++) {
		struct parse one = { v->items[i], p->reason, p->size, false };

		parse_vif(&one, &c->vifs[c->n_vifs++]);
		p->failed = one.failed;
		if (!p->failed && used[c->vifs[i].number])
			complain(p, "vifs: number %u twice", c->vifs[i].number);
		else if (!p->failed)
			used[c->vifs[i].number] = true;
	}
}

/* ---- changes ---- */

static const struct {
	const char *name;
	uint64_t min, max; /* of a number; 0: a disk or a card */
} changes[] = {
	[CHANGE_PLUG_DISK] = { "plug_disk", 0, 0 },
	[CHANGE_UNPLUG_DISK] = { "unplug_disk", 0, DOMAIN_MAX_DISKS - 1 },
	[CHANGE_MEDIUM] = { "set_medium", 0, 0 },
	[CHANGE_PLUG_VIF] = { "plug_vif", 0, 0 },
	[CHANGE_UNPLUG_VIF] = { "unplug_vif", 0, DOMAIN_MAX_VIFS - 1 },
	[CHANGE_MEMORY] = { "memory", DOMAIN_MIN_MEMORY, DOMAIN_MAX_MEMORY },
	[CHANGE_VCPUS] = { "vcpus", 1, DOMAIN_MAX_VCPUS },
};

static void parse_change(struct parse *p, struct domain_change *c)
{
	struct parse one = *p;

	c->name = changes[c->kind].name;
	if (changes[c->kind].max) {
		c->number = number(p, c->name, changes[c->kind].min,
				   changes[c->kind].max, 0);
		return;
	}
	one.v = value_get(p->v, c->name);
	if (c->kind == CHANGE_PLUG_VIF)
		parse_vif(&one, &c->vif);
	else
		parse_disk(&one, &c->disk);
	p->failed = one.failed;
}

bool domain_change_parse(const struct value *v, struct domain_change *ret,
			 char *reason, size_t reason_size)
{
	struct parse p = { v, reason, reason_size, false };
	unsigned n = 0;

	memset(ret, 0, sizeof(*ret));
	ret->source = v;
	for (size_t i = 0; i < ARRAY_LEN(changes); i++)
		if (value_get(v, changes[i].name)) {
			ret->kind = (enum domain_change_kind)i;
			n++;
		}
	if (n != 1)
		complain(&p, "%u changes, not one", n);
	else
		parse_change(&p, ret);
	ret->force = flag(&p, "force");
	if (!p.failed && ret->kind == CHANGE_MEDIUM && !ret->disk.cdrom)
		complain(&p, "set_medium: not a cdrom");
	return !p.failed;
}

void domain_change_deinit(struct domain_change *c)
{
	free(c->disk.path);
}

static void parse_all(struct parse *p, struct domain_config *c)
{
	const struct value *uuid = member(p, "uuid", VALUE_STRING, true);

	if (uuid && !domain_uuid(value_str(uuid), c->uuid))
		complain(p, "uuid: not a uuid");
	c->name = text(p, "name", DOMAIN_MAX_NAME);
	parse_sizes(p, c);
	c->type = (enum domain_type)word(p, "domain_type", types, -1);
	c->kernel = text(p, "kernel", DOMAIN_MAX_PATH);
	c->ramdisk = text(p, "ramdisk", DOMAIN_MAX_PATH);
	c->args = text(p, "args", DOMAIN_MAX_ARGS);
	c->bootloader = text(p, "bootloader", DOMAIN_MAX_PATH);
	c->on_shutdown = (enum domain_action)word(p, "on_shutdown", actions,
						  DOMAIN_DESTROY);
	c->on_reboot = (enum domain_action)word(p, "on_reboot", actions,
						DOMAIN_RESTART);
	c->on_crash = (enum domain_action)word(p, "on_crash", actions,
					       DOMAIN_RESTART);
	c->xenstore = strings(p, "xenstore");
	c->platform = strings(p, "platform");
	c->other_config = strings(p, "other_config");
	c->hvm_boot = strings(p, "hvm_boot");
	parse_disks(p, c);
	parse_vifs(p, c);
}

struct domain_config *domain_config_parse(const struct value *v, char *reason,
					  size_t reason_size)
{
	_cleanup_(domain_config_freep) struct domain_config *c = NULL;
	struct parse p = { v, reason, reason_size, false };

	if (!v || (v->kind != VALUE_STRUCT && v->kind != VALUE_MAP)) {
		complain(&p, "missing or not a struct");
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	parse_all(&p, c);
	c->source = value_ref(v);
	return p.failed ? NULL : TAKE_PTR(c);
}

void domain_config_free(struct domain_config *c)
{
	if (!c)
		return;
	free(c->name);
	free(c->kernel);
	free(c->ramdisk);
	free(c->args);
	free(c->bootloader);
	value_unref(c->xenstore);
	value_unref(c->platform);
	value_unref(c->other_config);
	value_unref(c->hvm_boot);
	value_unref(c->source);
	for (size_t i = 0; i < c->n_disks; i++)
		free(c->disks[i].path);
	free(c->disks);
	free(c->vifs);
	free(c);
}

void domain_config_freep(struct domain_config **c)
{
	domain_config_free(*c);
}
