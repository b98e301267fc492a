/* Figures of running VMs that move all the time: the host where a VM runs has them
 * in memory, from its executor's last two states; no row is written for them. Any
 * member answers: it asks that host, in the caller's session.
 */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "pool/vm_calls.h"
#include "pool/vm_guest.h"

/* States that come faster, because somebody asked, are no measure. */
#define SPAN_MS 1000

void vm_sources_take(struct guest *g, const struct value *domain)
{
	int64_t ticks = value_get_int(domain, "guest_ticks", -1);
	int64_t domid = value_get_int(domain, "domid", -1);
	int64_t vcpus = value_get_int(domain, "vcpus", 0);
	int64_t now = env_mono_ms(), span = now - g->ticks_at_ms;
	bool same = g->has_ticks && g->ticks_domid == domid &&
		    ticks >= g->ticks;

	g->memory = value_get_int(domain, "memory_kib", 0) * 1024;
	if (same && span < SPAN_MS)
		return;
	g->cpu_usage = same && vcpus > 0 ?
		MIN((double)(ticks - g->ticks) / (double)(span * vcpus), 1) :
		NAN;
	g->has_ticks = ticks >= 0;
	g->ticks = ticks;
	g->ticks_domid = domid;
	g->ticks_at_ms = now;
}

/* ---- what there is ---- */

static double cpu_usage(const struct guest *g)
{
	return g->cpu_usage;
}

static double memory(const struct guest *g)
{
	return (double)g->memory;
}

static const struct source {
	const char *name, *description, *units;
	double max;
	double (*value)(const struct guest *g);
} sources[] = {
	{ "cpu_usage", "Share of its virtual CPUs' time that the domain ran",
	  "(fraction)", 1, cpu_usage },
	{ "memory", "Memory that the domain has", "B", INFINITY, memory },
};

/* NAN: not known yet. */
static double source_value(const struct pool *p, const struct record *vm,
			   const struct source *source)
{
	const struct guest *g = map_getz(&p->guests->by_uuid,
					 record_str(vm, F_VM_uuid));

	return g && g->ticks_at_ms ? source->value(g) : NAN;
}

static struct value *source_record(const struct pool *p,
				   const struct record *vm,
				   const struct source *source)
{
	return value_struct_of(
		"name_label", value_stringz(source->name),
		"name_description", value_stringz(source->description),
		"enabled", value_bool(true), "standard", value_bool(true),
		"units", value_stringz(source->units), "min", value_float(0),
		"max", value_float(source->max),
		"value", value_float(source_value(p, vm, source)), NULL);
}

static void list_here(struct req *r, const struct record *vm)
{
	struct value *set = value_set_new(ARRAY_LEN(sources));

	for (size_t i = 0; i < ARRAY_LEN(sources); i++)
		set->items[i] = source_record(r->pool, vm, &sources[i]);
	req_reply(r, set);
}

static void query_here(struct req *r, const struct record *vm)
{
	const char *name = req_arg_str(r, 1);

	for (size_t i = 0; i < ARRAY_LEN(sources); i++)
		if (!strcmp(sources[i].name, name)) {
			req_reply(r, value_float(source_value(r->pool, vm,
							      &sources[i])));
			return;
		}
	req_fail(r, "INVALID_VALUE", "data_source", name, NULL);
}

/* ---- where it is ---- */

struct asking {
	struct req *r;
	char host[REF_LEN + 1];
};

static void on_answer(void *data, int error, struct value *result,
		      struct value *api_err, const char *fingerprint)
{
	struct asking *a = data;
	struct value *v = NULL;
	char reason[128];

	if (error == 0)
		v = schema_coerce(a->r->method->result, result, reason,
				  sizeof reason);
	if (v)
		req_reply(a->r, v);
	else if (api_err)
		req_fail_value(a->r, value_ref(api_err));
	else
		req_fail(a->r, "CANNOT_CONTACT_HOST", a->host, NULL);
	free(a);
}

static void ask(struct req *r, const struct record *host,
		const struct record *member)
{
	const char *port = value_get_str(host->fields[F_host_other_config],
					 HOST_PORT_KEY);
	const char *address = record_str(host, F_host_address);
	_cleanup_(freep) char *to = xasprintf(
		strchr(address, ':') ? "[%s]:%s" : "%s:%s", address,
		*port ? port : "443");
	const struct pool_hooks *h = &r->pool->hooks;
	struct value *params[1 + CALL_MAX_ARGS] = { r->call->session };
	struct asking *a = xcalloc(1, sizeof *a);

	a->r = r;
	strcpy(a->host, value_str(host->ref));
	for (unsigned i = 0; i < r->call->n_args; i++)
		params[1 + i] = r->call->args[i];
	req_park(r);
	h->remote_call(h->data, to, r->method->name, params,
		       1 + r->call->n_args,
		       record_str(member, F_member_fingerprint), on_answer, a);
}

static void answer(struct req *r, const struct record *vm,
		   void (*here)(struct req *r, const struct record *vm))
{
	const char *ref = record_str(vm, F_VM_resident_on);
	const struct record *host = store_get_class(req_store(r), CLASS_host,
						    ref);
	const struct record *member = member_of_host(req_store(r), ref);

	if (host && host == pool_this_host(r->pool))
		here(r, vm);
	else if (!host || !member || !host_counts_live(r->pool, host))
		req_fail(r, "HOST_OFFLINE", ref, NULL);
	else
		ask(r, host, member);
}

/* Of one that does not run there are none. */
void vm_get_data_sources(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm && value_is_str(vm->fields[F_VM_power_state], "Running"))
		answer(r, vm, list_here);
	else if (vm)
		req_reply(r, value_set_empty());
}

void vm_query_data_source(struct req *r)
{
	struct record *vm = req_arg_record(r, 0, CLASS_VM);

	if (vm && !value_is_str(vm->fields[F_VM_power_state], "Running"))
		req_fail_value(r, vm_bad_power_state(vm, "running"));
	else if (vm)
		answer(r, vm, query_here);
}
