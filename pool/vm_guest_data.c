/* VM.xenstore_data of running guests: each change reaches the domain by a job of
 * the executor's that nobody waits for. It is compared, not remembered, so what
 * fails is tried again at the next `state`. */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/job.h"
#include "pool/vm_guest.h"

/* An executor that is busy is not asked for its state again before. */
#define ASK_MS 1000

static const struct value *domain_of(const struct pool *p, const char *uuid)
{
	const struct value *list = value_get(p->hosts->exec_state, "domains");

	for (uint32_t i = 0; i < list->n; i++)
		if (!strcmp(value_get_str(list->items[i], "vm"), uuid))
			return list->items[i];
	return NULL;
}

void guest_config_sent(struct pool *p, const char *uuid,
		       const struct value *config)
{
	const struct value *map = value_get(config, "xenstore");
	struct guest *g = map && p->guests ? guest_for(p, uuid) : NULL;

	if (!g)
		return;
	g->misses = 0;
	value_unref(TAKE_PTR(g->sent));
	value_unref(g->xenstore);
	g->xenstore = value_ref(map);
}

static void send(struct pool *p, struct guest *g, const struct value *dom,
		 struct value *wanted)
{
	struct value *id = value_printf("data:%s:%llu", g->uuid,
					(unsigned long long)
						p->guests->next_job++);
	struct value *msg = value_struct_of(
		"type", value_stringz("job"), "id", value_ref(id), "verb",
		value_stringz("set_xenstore"), "vm", value_stringz(g->uuid),
		"fence", value_int(value_get_int(dom, "fence", 0)), "params",
		value_struct_of("xenstore", value_ref(wanted), NULL), NULL);

	strncpy(g->job_id, value_str(id), sizeof g->job_id - 1);
	if (p->hooks.executor_send(p->hooks.data, msg) == 0)
		g->sent = value_ref(wanted);
	value_unref(msg);
	value_unref(id);
}

/* The domain's fence is known only as long as no job has ended since. */
static bool knows_fences(struct pool *p)
{
	struct value *msg;

	if (p->hosts->state_is_fresh || p->guests->asked_at_ms + ASK_MS >
						env_mono_ms())
		return p->hosts->state_is_fresh;
	msg = value_struct_of("type", value_stringz("list"), NULL);
	p->guests->asked_at_ms = env_mono_ms();
	p->hooks.executor_send(p->hooks.data, msg);
	value_unref(msg);
	return false;
}

/* A job of the VM's brings its own configuration: it is waited for. */
void guest_sync_data(struct pool *p, struct guest *g)
{
	struct record *vm = guest_vm(p, g->uuid);
	_cleanup_(value_unrefp) struct value *wanted = NULL;
	const struct value *dom;

	if (!vm || g->sent || !p->executor_up ||
	    job_of_vm(p->hooks.store(p->hooks.data), value_str(vm->ref)))
		return;
	wanted = job_vm_xenstore(vm);
	g->data_dirty = !g->xenstore || !value_equal(g->xenstore, wanted);
	if (!g->data_dirty || !knows_fences(p))
		return;
	g->data_dirty = false;
	dom = domain_of(p, g->uuid);
	if (dom)
		send(p, g, dom, wanted);
}

void guest_data_done(struct pool *p, const struct value *done)
{
	struct guest *g = map_getz(&p->guests->by_uuid,
				   value_get_str(done, "vm"));

	if (!g || !g->sent || strcmp(g->job_id, value_get_str(done, "id")))
		return;
	if (value_get_int(done, "ok", 0)) {
		value_unref(g->xenstore);
		g->xenstore = TAKE_PTR(g->sent);
	} else {
		log_warn("VM %s: its xenstore data are not there yet: %s",
			 g->uuid,
			 value_str(value_get(done, "error")->items[0]));
	}
	value_unref(TAKE_PTR(g->sent));
	g->data_dirty = true;
}
