/* Jobs that change a VM that runs: devices, memory, virtual CPUs. One step, one
 * verb; a row in the table says what the executor is told and what then is
 * true. The device's row names the job as its operation until it ends. */
#include <stdlib.h>
#include <string.h>

#include "pool/job.h"
#include "pool/vm_calls.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static const char *param(const struct record *job, const char *key)
{
	return value_get_str(job->fields[F_job_params], key);
}

static int64_t number_param(const struct record *job, const char *key)
{
	return atoll(param(job, key));
}

/* ---- what the executor is told; NULL: it is there no more ---- */

struct telling {
	const struct store *s;
	const struct record *job, *vm, *device, *host;
};

static struct value *whole_disk(const struct telling *c)
{
	return c->device ? job_disk(c->s, c->device,
				    record_str(c->device, F_VBD_VDI), c->host) :
			   NULL;
}

static struct value *disk_number(const struct telling *c)
{
	return c->device ? value_int(vbd_number(record_str(
				   c->device, F_VBD_userdevice))) : NULL;
}

static struct value *new_medium(const struct telling *c)
{
	return c->device ? job_disk(c->s, c->device, param(c->job, "vdi"),
				    c->host) : NULL;
}

static struct value *whole_vif(const struct telling *c)
{
	return c->device ? job_vif(c->s, c->device) : NULL;
}

static struct value *vif_number(const struct telling *c)
{
	return c->device ? value_int(atoi(record_str(c->device,
						     F_VIF_device))) : NULL;
}

static struct value *number(const struct telling *c)
{
	return value_int(number_param(c->job, "number"));
}

/* ---- what then is true ---- */

static void vbd_attached(struct draft *d, bool attached)
{
	char name[16];

	vbd_device_name(record_str(d->now, F_VBD_userdevice), name);
	if (attached)
		draft_str(d, F_VBD_device, name);
	draft_bool(d, F_VBD_currently_attached, attached);
	draft_bool(d, F_VBD_reserved, false);
}

static void vbd_medium(struct draft *d, const char *vdi_ref)
{
	draft_str(d, F_VBD_VDI, vdi_ref);
	draft_bool(d, F_VBD_empty, !strcmp(vdi_ref, REF_NULL));
	draft_bool(d, F_VBD_reserved, false);
}

static void vif_attached(struct draft *d, const struct store *s, bool attached)
{
	draft_bool(d, F_VIF_currently_attached, attached);
	if (attached)
		draft_int(d, F_VIF_MTU, vif_mtu(s, d->now));
}

void device_becomes(struct draft *d, const struct store *s, const char *kind,
		    const char *vdi_ref)
{
	if (!strcmp(kind, "vbd_plug") || !strcmp(kind, "vbd_unplug"))
		vbd_attached(d, !strcmp(kind, "vbd_plug"));
	else if (!strcmp(kind, "vbd_insert") || !strcmp(kind, "vbd_eject"))
		vbd_medium(d, *vdi_ref ? vdi_ref : REF_NULL);
	else
		vif_attached(d, s, !strcmp(kind, "vif_plug"));
}

void device_write(struct draft *d, const struct store *s,
		  const struct record *vm)
{
	if (d->now->cls->id == CLASS_VBD)
		draft_write_vbd(d, s, vm);
	else
		draft_write_vif(d, vm);
}

static struct record *device_of_job(const struct store *s, const struct record *job)
{
	const char *ref = param(job, "device");
	struct record *vbd = store_get_class(s, CLASS_VBD, ref);

	return vbd ? vbd : store_get_class(s, CLASS_VIF, ref);
}

/* The mark goes when the job does, whatever has become of it. */
void device_unmark(const struct store *s, struct txn *t,
		   const struct record *vm, const struct record *job,
		   const char *became)
{
	struct record *device = device_of_job(s, job);
	struct draft d;
	unsigned field;

	if (!device)
		return;
	field = device->cls->id == CLASS_VBD ? F_VBD_current_operations :
					       F_VIF_current_operations;
	draft_edit(&d, t, device);
	draft_map_remove(&d, field, job_mark(job));
	if (device->cls->id == CLASS_VBD)
		draft_bool(&d, F_VBD_reserved, false);
	if (became)
		device_becomes(&d, s, became, param(job, "vdi"));
	device_write(&d, s, vm);
}

static void device_done(struct job_end *e)
{
	job_finish(e);
	device_unmark(e->s, e->t, e->vm.now, e->job,
		      record_str(e->job, F_job_kind));
}

static void memory_done(struct job_end *e)
{
	draft_int(&e->vm, F_VM_memory_target, number_param(e->job, "number"));
	job_finish(e);
}

static void vcpus_done(struct job_end *e)
{
	const struct record *m = store_get_class(
		e->s, CLASS_VM_metrics, record_str(e->vm.now, F_VM_metrics));
	int64_t n = number_param(e->job, "number");

	draft_int(&e->vm, F_VM_VCPUs_at_startup, n);
	if (m)
		txn_set(e->t, m->cls, value_str(m->ref),
			F_VM_metrics_VCPUs_number, value_int(n));
	job_finish(e);
}

/* ---- failures ---- */

/* The executor knows a device by its number. */
static struct value *change_error(const struct job_end *e)
{
	const char *code = value_str(e->error->items[0]);

	if (strncmp(code, "DEVICE_", 7) || e->error->n < 2)
		return job_error(e);
	return api_error(code, value_str(e->error->items[1]),
			 param(e->job, "device"), NULL);
}

/* Jobs that do not change the VM's row do not rise above each other's fences by
 * themselves. This one is the oldest of the VM's, and its row names this host:
 * it may. */
static void change_failed(struct job_end *e)
{
	if (!error_is(e->error, "FENCED")) {
		job_fail(e, change_error(e));
		return;
	}
	job_raise_fence(e, NULL);
}

static void memory_failed(struct job_end *e)
{
	if (!error_is(e->error, "FENCED")) {
		draft_int(&e->vm, F_VM_memory_dynamic_min,
			  number_param(e->job, "old_min"));
		draft_int(&e->vm, F_VM_memory_dynamic_max,
			  number_param(e->job, "old_max"));
	}
	change_failed(e);
}

/* ---- the table ---- */

static struct value *change_params(const struct pool *p,
				   const struct record *job,
				   const struct record *vm);

#define CHANGE(kind, done, failed) \
	{ kind, "run", "change", change_params, done, failed, \
	  DEAD_FAIL, false, NULL, 0, 1, NULL }
const struct job_step job_change_steps[] = {
	CHANGE("vbd_plug", device_done, change_failed),
	CHANGE("vbd_unplug", device_done, change_failed),
	CHANGE("vbd_insert", device_done, change_failed),
	CHANGE("vbd_eject", device_done, change_failed),
	CHANGE("vif_plug", device_done, change_failed),
	CHANGE("vif_unplug", device_done, change_failed),
	CHANGE("set_memory", memory_done, memory_failed),
	CHANGE("set_vcpus", vcpus_done, change_failed),
	{ .kind = NULL },
};

static const struct {
	const char *kind, *member;
	struct value *(*what)(const struct telling *c);
} members[] = {
	{ "vbd_plug", "plug_disk", whole_disk },
	{ "vbd_unplug", "unplug_disk", disk_number },
	{ "vbd_insert", "set_medium", new_medium },
	{ "vbd_eject", "set_medium", new_medium },
	{ "vif_plug", "plug_vif", whole_vif },
	{ "vif_unplug", "unplug_vif", vif_number },
	{ "set_memory", "memory", number },
	{ "set_vcpus", "vcpus", number },
};

static struct value *change_params(const struct pool *p,
				   const struct record *job,
				   const struct record *vm)
{
	struct telling c = { .s = store_of(p), .job = job, .vm = vm };
	bool force = !strcmp(param(job, "force"), "true");
	struct value *v = NULL;
	size_t i = 0;

	c.device = device_of_job(c.s, job);
	c.host = store_get_class(c.s, CLASS_host, record_str(job, F_job_host));
	while (!value_is_str(job->fields[F_job_kind], members[i].kind))
		i++;
	v = members[i].what(&c);
	return value_struct_of(members[i].member,
			       v ? v : value_struct_new(0), "force",
			       value_bool(force), NULL);
}
