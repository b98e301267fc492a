/* Bringing rows and domains together on one host: after a start of either
 * process, after an absence, and when a guest stops by itself.
 *
 * The store says what is wanted. A domain that the store wants paused, running
 * or elsewhere is made so; a VM without a domain gets a job that makes sure
 * that none comes up late and then halts it; a domain that the store thinks is
 * halted is taken in again, if the VM is still free.
 *
 * A `state` message counts only while no job has ended since, and only after a
 * read barrier: a host that was away must first learn what it has lost.
 */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "base/map.h"
#include "pool/foreign.h"
#include "pool/job.h"

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static const struct value *domain_of(const struct value *state,
				     const char *uuid)
{
	const struct value *list = value_get(state, "domains");

	for (uint32_t i = 0; i < list->n; i++)
		if (!strcmp(value_get_str(list->items[i], "vm"), uuid))
			return list->items[i];
	return NULL;
}

static bool is_incoming(const struct value *dom)
{
	return value_get_int(dom, "incoming", 0) != 0;
}

static bool dom_is(const struct value *dom, const char *state)
{
	return !strcmp(value_get_str(dom, "state"), state);
}

/* ---- jobs without a caller ---- */

/* Nobody waits for it: on a conflict the next `state` tries again. */
static void start_own_job(struct pool *p, struct record *vm, const char *kind,
			  const char *author, int64_t not_before)
{
	struct record *me = pool_this_host(p);
	struct job_spec spec = { .kind = kind, .step = "run", .host = me,
				 .task = "", .author = author };
	struct txn *t = txn_new(author);
	char ref[REF_LEN + 1];
	struct draft d;

	if (not_before > env_wall_ms() / 1000) {
		spec.step = "wait";
		spec.deadline = not_before;
	}
	draft_edit(&d, t, vm);
	job_create(p, t, vm, &spec, NULL, ref);
	draft_map_put(&d, F_VM_current_operations, ref, value_stringz(kind));
	draft_write_vm(&d, store_of(p));
	pool_submit(p, t, NULL, NULL);
}

static void keep_for_inspection(struct pool *p, struct record *vm)
{
	struct txn *t = txn_new("guest");
	struct draft d;

	draft_edit(&d, t, vm);
	draft_str(&d, F_VM_power_state, "Paused");
	draft_write_vm(&d, store_of(p));
	pool_submit(p, t, NULL, NULL);
}

static void report_crash(struct pool *p, const struct record *vm)
{
	struct txn *t = txn_new("guest");

	message_create(t, "VM_CRASHED", 2, "VM", record_str(vm, F_VM_uuid),
		       "The guest has crashed");
	pool_submit(p, t, NULL, NULL);
}

static const char *action_after(const struct record *vm, const char *event)
{
	static const struct {
		const char *event;
		unsigned field;
	} fields[] = {
		{ "shutdown", F_VM_actions_after_shutdown },
		{ "reboot", F_VM_actions_after_reboot },
		{ "crash", F_VM_actions_after_crash },
	};

	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		if (!strcmp(fields[i].event, event))
			return record_str(vm, fields[i].field);
	return "destroy";
}

/* When the VM may start again, Unix s: a guest that reboots or crashes as soon as
 * it runs must not keep its host at building domains, and the pool at writing
 * them down. A start that lies in the future is a clock's mistake. */
static int64_t restart_time(const struct pool *p, const struct record *vm)
{
	const struct record *m = store_get_class(store_of(p), CLASS_VM_metrics,
						 record_str(vm, F_VM_metrics));
	int64_t started = m ? record_int(m, F_VM_metrics_start_time) : 0;

	return MIN(started, env_wall_ms() / 1000) + p->cfg.restart_gap_s;
}

static void follow_event(struct pool *p, struct record *vm, const char *event)
{
	const char *action = action_after(vm, event);

	if (!strcmp(event, "crash"))
		report_crash(p, vm);
	if (!strcmp(action, "preserve"))
		keep_for_inspection(p, vm);
	else if (strstr(action, "restart"))
		start_own_job(p, vm, "hard_reboot", "guest",
			      restart_time(p, vm));
	else
		start_own_job(p, vm, "hard_shutdown", "guest", 0);
}

static bool lives_here(const struct pool *p, const struct record *vm)
{
	const struct record *me = pool_this_host(p);

	return me && vm && vm_is_live(vm) &&
	       !record_bool(vm, F_VM_is_control_domain) &&
	       value_equal(vm->fields[F_VM_resident_on], me->ref);
}

void vm_domain_event(struct pool *p, const struct value *msg)
{
	struct record *vm = store_by_uuid(store_of(p), CLASS_VM,
					  value_get_str(msg, "vm"));
	int64_t domid = value_get_int(msg, "domid", -1);

	/* While a job works on the VM the event is its doing, or its result
	 * will tell. An earlier domain's end, heard late, is not this one's; and
	 * if the row has it wrong the next `state` tells. */
	if (lives_here(p, vm) && record_int(vm, F_VM_domid) == domid &&
	    !job_of_vm(store_of(p), value_str(vm->ref)))
		follow_event(p, vm, value_get_str(msg, "event"));
}

/* ---- making domains as the rows say ---- */

static void tell_executor(struct pool *p, const struct value *dom,
			  const char *verb)
{
	const char *uuid = value_get_str(dom, "vm");
	struct value *msg;

	log_info("VM %s: the domain here is not as the pool wants it: %s", uuid,
		 verb);
	msg = value_struct_of(
		"type", value_stringz("job"),
		"id", value_printf("fix:%s:%s:%lld", uuid, verb,
				   (long long)env_mono_ms()),
		"verb", value_stringz(verb), "vm", value_stringz(uuid),
		"fence", value_int(value_get_int(dom, "fence", 0)),
		"params", value_struct_new(0), NULL);
	p->hooks.executor_send(p->hooks.data, msg);
	value_unref(msg);
}

static void set_domid(struct pool *p, struct record *vm, int64_t domid)
{
	struct txn *t = txn_new("host");

	txn_guard_version(t, vm);
	txn_set(t, vm->cls, value_str(vm->ref), F_VM_domid, value_int(domid));
	pool_submit(p, t, NULL, NULL);
}

static void adopt(struct pool *p, struct record *vm, const struct value *dom)
{
	struct record *me = pool_this_host(p);
	struct txn *t = txn_new("host");
	struct draft d;

	log_info("VM %s: its domain is here although it counted as halted",
		 record_str(vm, F_VM_uuid));
	draft_edit(&d, t, vm);
	vm_becomes_live(p, &d, me, value_get_int(dom, "domid", -1), false,
			false);
	draft_write_vm(&d, store_of(p));
	pool_submit(p, t, NULL, NULL);
}

static const char *reason_of(const struct value *dom)
{
	const char *reason = value_get_str(dom, "reason");

	return *reason ? reason : "shutdown";
}

/* ---- finding the differences; act says whether to do something too ---- */

static bool check_resident(struct pool *p, struct record *vm,
			   const struct value *dom, bool act)
{
	bool paused = value_is_str(vm->fields[F_VM_power_state], "Paused");
	int64_t domid = dom ? value_get_int(dom, "domid", -1) : -1;

	if (!dom || is_incoming(dom)) {
		if (act)
			start_own_job(p, vm, "hard_shutdown", "host", 0);
	} else if (dom_is(dom, "shutdown") && !paused) {
		if (act)
			follow_event(p, vm, reason_of(dom));
	} else if (dom_is(dom, "shutdown")) {
		return false;
	} else if (domid != record_int(vm, F_VM_domid)) {
		if (act)
			set_domid(p, vm, domid);
	} else if (paused != dom_is(dom, "paused")) {
		if (act)
			tell_executor(p, dom, paused ? "pause" : "unpause");
	} else {
		return false;
	}
	return true;
}

static bool check_residents(struct pool *p, const struct value *state, bool act)
{
	const struct record *me = pool_this_host(p);
	_cleanup_(value_unrefp) struct value *vms =
		value_ref(me->fields[F_host_resident_VMs]);
	bool found = false;

	for (uint32_t i = 0; i < vms->n; i++) {
		struct record *vm = store_get_class(store_of(p), CLASS_VM,
						    value_str(vms->items[i]));

		if (!lives_here(p, vm) ||
		    job_of_vm(store_of(p), value_str(vm->ref)))
			continue;
		found |= check_resident(p, vm,
					domain_of(state, record_str(vm,
								    F_VM_uuid)),
					act);
	}
	return found;
}

static bool job_is_about(const struct pool *p, const struct record *vm)
{
	const struct record *me = pool_this_host(p);
	const struct record *job = job_of_vm(store_of(p), value_str(vm->ref));

	return job && (value_equal(job->fields[F_job_host], me->ref) ||
		       value_equal(job->fields[F_job_source], me->ref) ||
		       value_equal(job->fields[F_job_destination], me->ref));
}

enum fate {
	FATE_STAY,    /* as its VM's row wants it, or a job sees to it */
	FATE_GO,      /* its VM lives elsewhere */
	FATE_ADOPT,
	FATE_FOREIGN, /* of no VM, or of one that should have none */
};

static enum fate fate_of(const struct pool *p, const struct value *dom)
{
	const struct record *vm = store_by_uuid(store_of(p), CLASS_VM,
						value_get_str(dom, "vm"));

	if (!vm)
		return FATE_FOREIGN;
	if (value_equal(vm->fields[F_VM_resident_on], pool_this_host(p)->ref) ||
	    job_is_about(p, vm))
		return FATE_STAY;
	if (store_get_class(store_of(p), CLASS_host,
			    record_str(vm, F_VM_resident_on)) ||
	    is_incoming(dom))
		return FATE_GO;
	if (job_of_vm(store_of(p), value_str(vm->ref)))
		return FATE_STAY;
	/* A paused one may be what a migration has left. */
	return !strcmp(vm_state_lower(vm), "halted") &&
	       dom_is(dom, "running") && !record_bool(vm, F_VM_is_a_template) ?
		       FATE_ADOPT : FATE_FOREIGN;
}

/* Not silently. However often it is said, it is the same transaction: there
 * is one message for a domain. */
static void report_copy(struct pool *p, const struct value *dom)
{
	const char *uuid = value_get_str(dom, "vm");
	_cleanup_(freep) char *body = xasprintf(
		"Host %s (%s) has a copy of it, domid %lld, which is destroyed: "
		"the VM lives on another host", p->cfg.hostname,
		p->cfg.host_uuid, (long long)value_get_int(dom, "domid", -1));
	_cleanup_(freep) char *what = xasprintf(
		"%s of %s, fence %lld", body, uuid,
		(long long)value_get_int(dom, "fence", 0));
	struct hash128 id = hash128(what, strlen(what));
	struct txn *t = txn_new("host");

	_Static_assert(sizeof id == TXN_ID_LEN, "the id is the hash");
	memcpy(t->id, &id, sizeof id);
	message_create(t, "VM_COPY_DESTROYED", 2, "VM", uuid, body);
	pool_submit(p, t, NULL, NULL);
}

/* What a migration that failed has left is nobody's loss. */
static void remove_copy(struct pool *p, const struct value *dom)
{
	if (is_incoming(dom)) {
		tell_executor(p, dom, "migrate_abort");
		return;
	}
	report_copy(p, dom);
	tell_executor(p, dom, "hard_shutdown");
}

static bool check_domains(struct pool *p, const struct value *list, bool act)
{
	_cleanup_(value_unrefp) struct value *foreign = value_set_new(list->n);
	uint32_t n = 0;
	bool found = false;

	for (uint32_t i = 0; i < list->n; i++) {
		struct value *dom = list->items[i];
		enum fate fate = fate_of(p, dom);

		if (fate == FATE_FOREIGN)
			foreign->items[n++] = value_ref(dom);
		if (fate == FATE_GO && act)
			remove_copy(p, dom);
		if (fate == FATE_ADOPT && act)
			adopt(p, store_by_uuid(store_of(p), CLASS_VM,
					       value_get_str(dom, "vm")), dom);
		found |= fate == FATE_GO || fate == FATE_ADOPT;
	}
	if (n < foreign->n)
		foreign->n = n;
	return foreign_note(p, foreign, act) || found;
}

static bool check(struct pool *p, const struct value *state, bool act)
{
	bool found = check_residents(p, state, act);

	return check_domains(p, value_get(state, "domains"), act) || found;
}

static void on_barrier(void *data, int error)
{
	struct pool *p = data;
	struct value *state;

	if (!p->hosts)
		return;
	p->hosts->reconciling = false;
	if (error < 0 || !p->hosts->state_is_fresh || !pool_this_host(p))
		return;
	state = value_ref(p->hosts->exec_state);
	check(p, state, true);
	value_unref(state);
}

void vm_reconcile(struct pool *p, const struct value *state)
{
	if (!p->hosts->synced || p->hosts->reconciling || !pool_this_host(p) ||
	    !check(p, state, false))
		return;
	p->hosts->reconciling = true;
	p->hooks.read_barrier(p->hooks.data, on_barrier, p);
}
