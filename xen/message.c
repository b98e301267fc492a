#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "xen/message.h"

enum { STR = 1, INT = 2, BOOL = 4, FLOAT = 8, STRUCT = 16, SET = 32 };

struct form_member {
	const char *name;
	unsigned kinds;
};

#define MAX_MEMBERS 7

struct form {
	enum exec_direction dir;
	const char *type;
	struct form_member members[MAX_MEMBERS];
};

static const struct form forms[] = {
	{ EXEC_TO_EXECUTOR, "hello", { { "protocol", INT }, { "host", STR } } },
	{ EXEC_TO_EXECUTOR,
	  "job",
	  { { "id", STR },
	    { "verb", STR },
	    { "vm", STR },
	    { "fence", INT },
	    { "params", STRUCT } } },
	{ EXEC_TO_EXECUTOR, "cancel", { { "id", STR } } },
	{ EXEC_TO_EXECUTOR, "list", { { NULL, 0 } } },
	{ EXEC_TO_EXECUTOR, "console", { { "id", STR }, { "vm", STR }, { "raw", BOOL } } },
	{ EXEC_TO_DAEMON,
	  "state",
	  { { "boot_id", STR }, { "domains", SET }, { "host", STRUCT } } },
	{ EXEC_TO_DAEMON,
	  "done",
	  { { "id", STR },
	    { "vm", STR },
	    { "ok", BOOL },
	    { "error", SET },
	    { "result", STRUCT } } },
	{ EXEC_TO_DAEMON,
	  "progress",
	  { { "id", STR }, { "progress", FLOAT } } },
	{ EXEC_TO_DAEMON,
	  "console",
	  { { "id", STR }, { "ok", BOOL }, { "error", SET } } },
	{ EXEC_TO_DAEMON,
	  "guest",
	  { { "vm", STR }, { "domid", INT }, { "metrics", STRUCT } } },
	{ EXEC_TO_DAEMON,
	  "domain",
	  { { "vm", STR }, { "domid", INT }, { "event", STR } } },
};

static const struct form_member domain_form[MAX_MEMBERS + 1] = {
	{ "vm", STR }, { "domid", INT }, { "state", STR }, { "fence", INT },
	{ "memory_kib", INT }, { "vcpus", INT }, { "incoming", BOOL },
};

static const struct form_member host_form[] = {
	{ "memory_total", INT }, { "memory_free", INT }, { "cpu_count", INT },
	{ "cpu_model", STR }, { "cpu_vendor", STR }, { "cpu_mhz", INT },
	{ "xen_version", STR }, { "backend", STR }, { "cpu", STRUCT },
	{ "boot_time", INT }, { "capabilities", STR }, { "scheduler", STR },
	{ "kernel", STR }, { "dom0_memory", INT }, { "dom0_vcpus", INT },
};

static const struct form_member cpu_form[] = {
	{ "sockets", INT }, { "nodes", INT }, { "cores_per_socket", INT },
	{ "threads_per_core", INT }, { "family", INT }, { "model", INT },
	{ "stepping", INT }, { "flags", STR }, { "features", STR },
};

static unsigned kind_bit(const struct value *v)
{
	static const unsigned bits[] = {
		[VALUE_STRING] = STR, [VALUE_INT] = INT, [VALUE_BOOL] = BOOL,
		[VALUE_FLOAT] = FLOAT, [VALUE_STRUCT] = STRUCT,
		[VALUE_MAP] = STRUCT, [VALUE_SET] = SET,
	};

	return v && v->kind < ARRAY_LEN(bits) ? bits[v->kind] : 0;
}

/* Depth is bounded by value_decode(). */
static bool texts_valid(const struct value *v)
{
	size_t n = kind_bit(v) == STRUCT ? 2 * (size_t)v->n : v->n;

	if (v->kind == VALUE_STRING)
		return text_valid(v->s, v->n);
	if (!(kind_bit(v) & (STRUCT | SET)))
		return true;
	for (size_t i = 0; i < n; i++)
		if (!texts_valid(v->items[i]))
			return false;
	return true;
}

static bool has_members(const struct value *v, const struct form_member *m,
			size_t max, char *reason, size_t size)
{
	if (kind_bit(v) != STRUCT) {
		snprintf(reason, size, "not a struct");
		return false;
	}
	for (size_t i = 0; i < max && m[i].name; i++) {
		if (kind_bit(value_get(v, m[i].name)) & m[i].kinds)
			continue;
		snprintf(reason, size,
			 "member %s is missing or of a wrong type", m[i].name);
		return false;
	}
	return true;
}

/* Longer than any list of a processor's features, and more than hosts tell. */
#define MAX_FACT 8192
#define MAX_FACTS 64

static bool facts_bounded(const struct value *v, char *reason, size_t size)
{
	bool good = v->n <= MAX_FACTS;

	for (uint32_t i = 0; good && i < v->n; i++) {
		const struct value *fact = v->items[2 * (size_t)i + 1];

		good = fact->kind != VALUE_STRING || fact->n <= MAX_FACT;
	}
	if (!good)
		snprintf(reason, size, "host: too many or too long facts");
	return good;
}

static bool state_valid(const struct value *v, char *reason, size_t size)
{
	const struct value *domains = value_get(v, "domains");
	const struct value *host = value_get(v, "host");

	if (!has_members(host, host_form, ARRAY_LEN(host_form), reason, size) ||
	    !has_members(value_get(host, "cpu"), cpu_form, ARRAY_LEN(cpu_form),
			 reason, size) ||
	    !facts_bounded(host, reason, size) ||
	    !facts_bounded(value_get(host, "cpu"), reason, size))
		return false;
	for (uint32_t i = 0; i < domains->n; i++)
		if (!has_members(domains->items[i], domain_form,
				 ARRAY_LEN(domain_form), reason, size))
			return false;
	return true;
}

static bool outcome_valid(const struct value *v, char *reason, size_t size)
{
	const struct value *error = value_get(v, "error");

	for (uint32_t i = 0; i < error->n; i++) {
		if (error->items[i]->kind == VALUE_STRING)
			continue;
		snprintf(reason, size, "error holds more than strings");
		return false;
	}
	if (error->n > 0 || value_get(v, "ok")->i)
		return true;
	snprintf(reason, size, "failure without an error");
	return false;
}

static const struct form_member metrics_form[] = {
	{ "PV_drivers_version", STRUCT }, { "os_version", STRUCT },
	{ "netbios_name", STRUCT }, { "memory", STRUCT },
	{ "networks", STRUCT }, { "other", STRUCT },
	{ "can_use_hotplug_vbd", STR }, { "can_use_hotplug_vif", STR },
	{ "PV_drivers_detected", BOOL },
};

static bool is_map_of_texts(const struct value *v)
{
	if (v->kind != VALUE_MAP)
		return false;
	for (uint32_t i = 0; i < v->n; i++)
		if (v->items[2 * (size_t)i + 1]->kind != VALUE_STRING)
			return false;
	return true;
}

static bool guest_valid(const struct value *v, char *reason, size_t size)
{
	const struct value *m = value_get(v, "metrics");

	if (!has_members(m, metrics_form, ARRAY_LEN(metrics_form), reason,
			 size))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(metrics_form); i++) {
		if (metrics_form[i].kinds != STRUCT ||
		    is_map_of_texts(value_get(m, metrics_form[i].name)))
			continue;
		snprintf(reason, size, "%s is not a map of strings",
			 metrics_form[i].name);
		return false;
	}
	return true;
}

static bool id_valid(const struct value *v, char *reason, size_t size)
{
	const struct value *id = value_get(v, "id");

	if (!id || (id->n > 0 && id->n <= EXEC_MAX_ID))
		return true;
	snprintf(reason, size, "id is empty or too long");
	return false;
}

static const struct form *form_of(enum exec_direction dir,
				  const struct value *v)
{
	const struct value *type = value_get(v, "type");

	for (size_t i = 0; i < ARRAY_LEN(forms); i++)
		if (forms[i].dir == dir && type &&
		    value_is_str(type, forms[i].type))
			return &forms[i];
	return NULL;
}

bool exec_message_check(enum exec_direction dir, const struct value *v,
			char *reason, size_t size)
{
	const struct form *f =
		kind_bit(v) == STRUCT ? form_of(dir, v) : NULL;

	if (!f) {
		snprintf(reason, size, "no known type");
		return false;
	}
	if (!texts_valid(v)) {
		snprintf(reason, size, "%s: a string is not valid text",
			 f->type);
		return false;
	}
	if (!has_members(v, f->members, MAX_MEMBERS, reason, size) ||
	    !id_valid(v, reason, size))
		return false;
	if (!strcmp(f->type, "state"))
		return state_valid(v, reason, size);
	if (!strcmp(f->type, "guest"))
		return guest_valid(v, reason, size);
	if (f->dir == EXEC_TO_DAEMON && value_get(v, "ok"))
		return outcome_valid(v, reason, size);
	return true;
}

struct value *exec_message_decode(enum exec_direction dir, const void *p,
				  size_t n, char *reason, size_t size)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	struct reader r = reader_of(p, n);

	if (n > EXEC_MAX_MESSAGE) {
		snprintf(reason, size, "longer than %d bytes",
			 EXEC_MAX_MESSAGE);
		return NULL;
	}
	v = value_decode(&r);
	if (!v || r.bad || r.p != r.end) {
		snprintf(reason, size, "not an encoded value");
		return NULL;
	}
	if (!exec_message_check(dir, v, reason, size))
		return NULL;
	return TAKE_PTR(v);
}

int exec_message_encode(struct buf *b, const struct value *v)
{
	size_t before = b->len;

	value_encode(b, v);
	return b->len - before > EXEC_MAX_MESSAGE ? -E2BIG : 0;
}
