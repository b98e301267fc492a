/* Changes of a simulated domain that lives. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "xen/sim.h"

/* ---- sets of numbers ---- */

void sim_slot_set(uint8_t *slots, uint32_t number, bool used)
{
	uint8_t bit = (uint8_t)(1u << (number % 8));

	if (used)
		slots[number / 8] |= bit;
	else
		slots[number / 8] &= (uint8_t)~bit;
}

void sim_slots_add(struct json_object *o, const char *key, const uint8_t *slots)
{
	struct json_object *a = json_object_new_array();

	xassert(a);
	for (int i = 0; i < SIM_SLOTS; i++)
		if (slots[i / 8] & 1u << (i % 8))
			json_object_array_add(a, json_object_new_int(i));
	json_object_object_add(o, key, a);
}

static bool load_slot(void *data, struct json_object *o)
{
	int64_t i = json_object_get_int64(o);

	if (!json_object_is_type(o, json_type_int) || i < 0 || i >= SIM_SLOTS)
		return false;
	sim_slot_set(data, (uint32_t)i, true);
	return true;
}

bool sim_slots_load(struct json_object *o, const char *key, uint8_t *slots)
{
	struct json_object *a;

	/* A state of an earlier version has none. */
	return !json_object_object_get_ex(o, key, &a) ||
	       json_each(o, key, SIM_SLOTS, load_slot, slots);
}

/* ---- changing ---- */

/* libxl asks the guest's half of a device to close. */
static int unplug(struct xen_call *c, struct sim_domain *d,
		  const struct domain_change *change, const char *class,
		  uint8_t *slots)
{
	char number[24];

	snprintf(number, sizeof(number), "%" PRIu64, change->number);
	if (slots[change->number / 8] & 1u << (change->number % 8) &&
	    d->script.ignore_shutdown && !change->force)
		return xen_fail(c, "DEVICE_DETACH_TIMEOUT", class, number);
	sim_slot_set(slots, (uint32_t)change->number, false);
	return 0;
}

static int set_memory(struct sim *s, struct xen_call *c, struct sim_domain *d,
		      uint64_t bytes)
{
	uint64_t available = sim_memory_free(s);
	char needed[24], have[24];

	if (bytes <= d->memory || bytes - d->memory <= available) {
		d->memory = bytes;
		return 0;
	}
	snprintf(needed, sizeof(needed), "%" PRIu64, bytes - d->memory);
	snprintf(have, sizeof(have), "%" PRIu64, available);
	return xen_fail(c, "HOST_NOT_ENOUGH_FREE_MEMORY", needed, have);
}

static int apply(struct sim *s, struct xen_call *c, struct sim_domain *d,
		 const struct domain_change *change)
{
	switch (change->kind) {
	case CHANGE_PLUG_DISK:
	case CHANGE_MEDIUM:
		sim_slot_set(d->disks, change->disk.number, true);
		return 0;
	case CHANGE_UNPLUG_DISK:
		return unplug(c, d, change, "VBD", d->disks);
	case CHANGE_PLUG_VIF:
		sim_slot_set(d->vifs, change->vif.number, true);
		return 0;
	case CHANGE_UNPLUG_VIF:
		return unplug(c, d, change, "VIF", d->vifs);
	case CHANGE_MEMORY:
		return set_memory(s, c, d, change->number);
	case CHANGE_VCPUS:
		d->vcpus = (uint32_t)change->number;
		return 0;
	}
	return -EINVAL;
}

static int change_locked(struct sim *s, struct xen_call *c,
			 const struct domain_change *change)
{
	struct sim_domain *d = sim_find(s, c->vm), before;
	int r;

	if (!d || d->migration != SIM_HOME ||
	    (d->state != SIM_RUNNING && d->state != SIM_PAUSED))
		return sim_fail_state(c, "running", d);
	r = sim_scripted(c, &d->script, change->name);
	if (r != 0)
		return r;
	before = *d;
	r = apply(s, c, d, change);
	if (r == 0)
		r = sim_state_save(s);
	if (r != 0)
		*d = before;
	return r;
}

int sim_change(struct xen *x, struct xen_call *c,
	       const struct domain_change *change)
{
	struct sim *s = sim_of(x);
	int r;

	pthread_mutex_lock(&s->lock);
	r = change_locked(s, c, change);
	pthread_mutex_unlock(&s->lock);
	return r;
}
