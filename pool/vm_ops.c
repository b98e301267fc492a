/* Which operation a VM (or one of its devices, or a host) allows, as pure
 * functions of the store. The same rules fill allowed_operations and refuse
 * calls, so the two cannot differ. Rules stand in the order in which they are
 * checked; the first that fails gives the error.
 */
#include <ctype.h>
#include <string.h>

#include "pool/vm_calls.h"

enum { HALTED = 1, PAUSED = 2, RUNNING = 4, SUSPENDED = 8, ANY = 15 };
enum {
	UNLISTED = 1 << 0,   /* never in allowed_operations */
	TEMPLATE = 1 << 1,   /* templates too */
	OWN_TEMPLATE = 1 << 2, /* templates too, but no default template */
	SNAPSHOT = 1 << 3,   /* snapshots too */
	CONTROL = 1 << 4,    /* control domains too */
	NOT_DOM0 = 1 << 5,   /* ... but not the host's own */
	MOVES = 1 << 6,      /* memory leaves the host or is frozen */
	UPGRADE = 1 << 7,    /* during a rolling upgrade too */
	DISK_STATE = 1 << 8, /* needs disks that keep what is written */
};

struct op {
	const char *name;
	uint8_t states, control_states;
	unsigned flags;
};

static const struct op ops[] = {
	{ "snapshot", ANY, ANY, DISK_STATE },
	{ "clone", HALTED, HALTED, TEMPLATE | SNAPSHOT | UPGRADE },
	{ "copy", HALTED, HALTED, TEMPLATE | SNAPSHOT | UPGRADE },
	{ "create_template", HALTED | SUSPENDED, HALTED | SUSPENDED, UNLISTED },
	{ "revert", ANY, ANY, SNAPSHOT },
	{ "checkpoint", PAUSED | RUNNING | SUSPENDED,
	  PAUSED | RUNNING | SUSPENDED,
	  MOVES | DISK_STATE },
	{ "snapshot_with_quiesce", ANY, ANY, 0 },
	{ "provision", HALTED, HALTED, TEMPLATE | UPGRADE },
	{ "start", HALTED, HALTED, CONTROL | UPGRADE },
	{ "start_on", HALTED, HALTED, CONTROL | UPGRADE },
	{ "pause", RUNNING, RUNNING, UPGRADE },
	{ "unpause", PAUSED, PAUSED, UPGRADE },
	{ "clean_shutdown", RUNNING, RUNNING, UPGRADE },
	{ "clean_reboot", RUNNING, RUNNING, UPGRADE },
	{ "hard_shutdown", PAUSED | RUNNING | SUSPENDED,
	  PAUSED | RUNNING | SUSPENDED, SNAPSHOT | UPGRADE },
	{ "power_state_reset", ANY, ANY, UNLISTED | UPGRADE },
	{ "hard_reboot", PAUSED | RUNNING, PAUSED | RUNNING, UPGRADE },
	{ "suspend", RUNNING, RUNNING, MOVES | UPGRADE | DISK_STATE },
	{ "csvm", SUSPENDED, SUSPENDED, UNLISTED | UPGRADE },
	{ "resume", SUSPENDED, SUSPENDED, UPGRADE },
	{ "resume_on", SUSPENDED, SUSPENDED, UPGRADE },
	{ "pool_migrate", RUNNING, RUNNING, MOVES | UPGRADE },
	{ "migrate_send", HALTED | SUSPENDED | RUNNING,
	  HALTED | SUSPENDED | RUNNING, OWN_TEMPLATE | MOVES | UPGRADE },
	{ "get_boot_record", PAUSED | RUNNING | SUSPENDED,
	  PAUSED | RUNNING | SUSPENDED, UNLISTED | UPGRADE },
	{ "send_sysrq", RUNNING, RUNNING, UNLISTED | UPGRADE },
	{ "send_trigger", RUNNING, RUNNING, UNLISTED | UPGRADE },
	{ "query_services", ANY, ANY, UNLISTED },
	{ "shutdown", PAUSED | RUNNING | SUSPENDED,
	  PAUSED | RUNNING | SUSPENDED, UNLISTED | UPGRADE },
	{ "call_plugin", RUNNING, RUNNING, UNLISTED },
	{ "changing_memory_live", RUNNING, RUNNING,
	  UNLISTED | CONTROL | UPGRADE },
	{ "awaiting_memory_live", RUNNING, RUNNING,
	  UNLISTED | CONTROL | UPGRADE },
	{ "changing_dynamic_range", HALTED | RUNNING, HALTED | RUNNING,
	  TEMPLATE | CONTROL },
	{ "changing_static_range", HALTED, HALTED | RUNNING,
	  TEMPLATE | CONTROL },
	{ "changing_memory_limits", HALTED, HALTED | RUNNING,
	  UNLISTED | TEMPLATE | CONTROL },
	{ "changing_shadow_memory", HALTED, HALTED, TEMPLATE | CONTROL },
	{ "changing_shadow_memory_live", RUNNING, RUNNING,
	  UNLISTED | CONTROL | UPGRADE },
	{ "changing_VCPUs", HALTED, HALTED | RUNNING,
	  UNLISTED | TEMPLATE | CONTROL | NOT_DOM0 },
	{ "changing_VCPUs_live", RUNNING, RUNNING, CONTROL | UPGRADE },
	{ "changing_NVRAM", HALTED, HALTED, TEMPLATE },
	{ "assert_operation_valid", ANY, ANY, UNLISTED },
	{ "data_source_op", RUNNING, RUNNING, UNLISTED | CONTROL },
	{ "update_allowed_operations", ANY, ANY, UNLISTED },
	{ "make_into_template", HALTED, HALTED, UPGRADE },
	{ "import", ANY, ANY, UNLISTED | UPGRADE },
	{ "export", HALTED | SUSPENDED, HALTED | SUSPENDED,
	  TEMPLATE | SNAPSHOT | UPGRADE },
	{ "metadata_export", ANY, ANY, TEMPLATE | SNAPSHOT | CONTROL },
	{ "reverting", ANY, ANY, UNLISTED },
	{ "destroy", HALTED | SUSPENDED, HALTED | SUSPENDED,
	  OWN_TEMPLATE | SNAPSHOT | CONTROL | NOT_DOM0 | UPGRADE },
	{ "create_vtpm", HALTED, HALTED, 0 },
	{ "sysprep", RUNNING, RUNNING, 0 },
};

static const struct op *op_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ops); i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}

bool error_is(const struct value *error, const char *code)
{
	return error->n > 0 && value_is_str(error->items[0], code);
}

static unsigned state_bit(const struct record *vm)
{
	switch (record_str(vm, F_VM_power_state)[0]) {
	case 'P': return PAUSED;
	case 'R': return RUNNING;
	case 'S': return SUSPENDED;
	default: return HALTED;
	}
}

static const char *state_name(unsigned bit)
{
	return bit == HALTED ? "halted" : bit == PAUSED ? "paused" :
	       bit == RUNNING ? "running" : "suspended";
}

bool vm_is_live(const struct record *vm)
{
	return state_bit(vm) & (RUNNING | PAUSED);
}

const char *vm_state_lower(const struct record *vm)
{
	return state_name(state_bit(vm));
}

struct value *vm_bad_power_state(const struct record *vm, const char *expected)
{
	return api_error("VM_BAD_POWER_STATE", value_str(vm->ref), expected,
			 vm_state_lower(vm), NULL);
}

static bool is_template(const struct record *vm)
{
	return record_bool(vm, F_VM_is_a_template) &&
	       !record_bool(vm, F_VM_is_a_snapshot);
}

static bool is_default_template(const struct record *vm)
{
	return record_bool(vm, F_VM_is_default_template) ||
	       !strcmp(value_get_str(vm->fields[F_VM_other_config],
				     "default_template"), "true");
}

/* ---- the rules ---- */

struct check {
	const struct store *s;
	const struct record *vm;
	const struct op *op;
	bool strict;
};

static struct value *simple_error(const struct check *c, const char *code)
{
	return api_error(code, value_str(c->vm->ref), NULL);
}

static struct value *rule_blocked(const struct check *c)
{
	const struct value *why = value_get(
		c->vm->fields[F_VM_blocked_operations], c->op->name);

	return why ? api_error("OPERATION_BLOCKED", value_str(c->vm->ref),
			       value_str(why), NULL) : NULL;
}

static struct value *rule_power_state(const struct check *c)
{
	bool control = record_bool(c->vm, F_VM_is_control_domain);
	unsigned states = control ? c->op->control_states : c->op->states;
	_cleanup_(buf_deinit) struct buf expected = BUF_INIT;

	/* A snapshot of a suspended VM (a checkpoint) may be copied. */
	if (record_bool(c->vm, F_VM_is_a_snapshot) &&
	    (!strcmp(c->op->name, "clone") || !strcmp(c->op->name, "copy")))
		states |= SUSPENDED;
	if (states & state_bit(c->vm))
		return NULL;
	for (unsigned bit = HALTED; bit <= SUSPENDED; bit <<= 1) {
		if (!(states & bit))
			continue;
		buf_puts(&expected, expected.len ? ", " : "");
		buf_puts(&expected, state_name(bit));
	}
	return vm_bad_power_state(c->vm, buf_cstr(&expected));
}

static bool one_of(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(*list, s))
			return true;
	return false;
}

/* May op begin while current is under way? */
static bool may_overlap(const char *op, const char *current)
{
	static const char *const copies[] = { "clone", "copy", "export", NULL };
	static const char *const snaps[] = { "snapshot", "checkpoint", NULL };
	static const char *const record[] = { "get_boot_record", NULL };
	static const char *const sending[] = { "metadata_export",
					       "clean_shutdown", "clean_reboot",
					       NULL };
	static const char *const *const groups[] = { copies, snaps, record };

	if (!strcmp(op, "hard_shutdown"))
		return strcmp(current, "hard_shutdown") != 0;
	if (!strcmp(op, "hard_reboot"))
		return strncmp(current, "hard_", 5) != 0;
	if (!strcmp(current, "migrate_send") && one_of(op, sending))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(groups); i++)
		if (one_of(op, groups[i]) && one_of(current, groups[i]))
			return true;
	return false;
}

static void append_name(struct buf *b, const char *s, size_t n_before)
{
	if (n_before)
		buf_putc(b, ',');
	buf_puts(b, s);
}

static char *braced(struct buf *b, size_t n)
{
	return n > 1 ? xasprintf("{%s}", buf_cstr(b)) : xstrdup(buf_cstr(b));
}

static struct value *busy_error(const char *cls, const struct record *obj,
				const struct value *current)
{
	struct buf names = BUF_INIT, tasks = BUF_INIT;
	_cleanup_(freep) char *op = NULL, *task = NULL;
	struct value *error;

	for (uint32_t i = 0; i < current->n; i++) {
		append_name(&tasks, value_str(current->items[2 * i]), i);
		append_name(&names, value_str(current->items[2 * i + 1]), i);
	}
	op = braced(&names, current->n);
	task = braced(&tasks, current->n);
	error = api_error("OTHER_OPERATION_IN_PROGRESS", cls,
			  value_str(obj->ref), op, task, NULL);
	buf_deinit(&names);
	buf_deinit(&tasks);
	return error;
}

static struct value *rule_busy(const struct check *c)
{
	const struct value *current = c->vm->fields[F_VM_current_operations];

	for (uint32_t i = 0; i < current->n; i++)
		if (!may_overlap(c->op->name,
				 value_str(current->items[2 * i + 1])))
			return busy_error("VM", c->vm, current);
	return NULL;
}

static struct value *rule_template(const struct check *c)
{
	if (!is_template(c->vm) || c->op->flags & TEMPLATE)
		return NULL;
	if (c->op->flags & OWN_TEMPLATE && !is_default_template(c->vm))
		return NULL;
	if (c->op->flags & UNLISTED && c->op->states == ANY)
		return NULL;
	return api_error("VM_IS_TEMPLATE", value_str(c->vm->ref), c->op->name,
			 NULL);
}

static struct value *rule_snapshot(const struct check *c)
{
	if (!record_bool(c->vm, F_VM_is_a_snapshot) || c->op->flags & SNAPSHOT)
		return NULL;
	if (c->op->flags & UNLISTED && c->op->states == ANY)
		return NULL;
	return api_error("VM_IS_SNAPSHOT", value_str(c->vm->ref), c->op->name,
			 NULL);
}

static struct value *rule_only_on(const struct check *c)
{
	if (!strcmp(c->op->name, "provision") && !is_template(c->vm))
		return api_error("PROVISION_ONLY_ALLOWED_ON_TEMPLATE", NULL);
	if (!strcmp(c->op->name, "revert") &&
	    !record_bool(c->vm, F_VM_is_a_snapshot))
		return api_error("REVERT_ONLY_ALLOWED_ON_SNAPSHOT", NULL);
	return NULL;
}

static bool platform_says(const struct record *vm, const char *key)
{
	const char *v = value_get_str(vm->fields[F_VM_platform], key);

	return !strcmp(v, "true") || !strcmp(v, "1");
}

static struct value *rule_mobile(const struct check *c)
{
	bool nested = platform_says(c->vm, "nested-virt");

	if (c->strict && c->op->flags & MOVES &&
	    (nested || platform_says(c->vm, "nomigrate")))
		return simple_error(c, "VM_IS_IMMOBILE");
	if (nested && !strcmp(c->op->name, "changing_dynamic_range"))
		return simple_error(c, "VM_IS_USING_NESTED_VIRT");
	return NULL;
}

static struct value *rule_control_domain(const struct check *c)
{
	bool dom0 = record_int(c->vm, F_VM_domid) == 0;

	if (!record_bool(c->vm, F_VM_is_control_domain))
		return NULL;
	if (dom0 && c->op->flags & NOT_DOM0)
		return api_error("OPERATION_NOT_ALLOWED",
				 "This operation is not allowed on dom0", NULL);
	if (!(c->op->flags & CONTROL) &&
	    !(c->op->flags & UNLISTED && c->op->states == ANY))
		return api_error("OPERATION_NOT_ALLOWED",
				 "This operation is not allowed on a control "
				 "domain", NULL);
	return NULL;
}

static bool is_hvm(const struct record *vm)
{
	const char *type = record_str(vm, F_VM_domain_type);

	return !strcmp(type, "hvm") ||
	       (!strcmp(type, "unspecified") &&
		*record_str(vm, F_VM_HVM_boot_policy));
}

/* What the guest has told of itself; NULL while it has told nothing, and then
 * nothing is refused for the lack of it. */
static const struct value *guest_features(const struct check *c)
{
	const struct record *g = store_get_class(
		c->s, CLASS_VM_guest_metrics,
		record_str(c->vm, F_VM_guest_metrics));

	return g && vm_is_live(c->vm) ? g->fields[F_VM_guest_metrics_other] :
					NULL;
}

static struct value *rule_guest(const struct check *c)
{
	static const struct {
		const char *op, *feature, *or_feature;
	} needs[] = {
		{ "clean_shutdown", "feature-shutdown", "feature-poweroff" },
		{ "clean_reboot", "feature-shutdown", "feature-reboot" },
		{ "suspend", "feature-suspend", "" },
		{ "checkpoint", "feature-suspend", "" },
		{ "pool_migrate", "feature-suspend", "" },
		{ "migrate_send", "feature-suspend", "" },
		{ "changing_VCPUs_live", "feature-vcpu-hotplug", "" },
	};
	const struct value *f = guest_features(c);
	const char *reason = f ? value_get_str(f, "data-cant-suspend-reason") :
				 "";

	if (*reason && c->op->flags & MOVES)
		return api_error("VM_NON_SUSPENDABLE", value_str(c->vm->ref),
				 reason, NULL);
	if (!f || !is_hvm(c->vm) || state_bit(c->vm) != RUNNING)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(needs); i++)
		if (!strcmp(needs[i].op, c->op->name) &&
		    (c->strict || !strcmp(c->op->name,
					  "changing_VCPUs_live")) &&
		    !value_get(f, needs[i].feature) &&
		    !value_get(f, needs[i].or_feature))
			return simple_error(c, "VM_LACKS_FEATURE");
	return NULL;
}

static bool has_reset_disk(const struct check *c)
{
	const struct value *vbds = c->vm->fields[F_VM_VBDs];

	for (uint32_t i = 0; i < vbds->n; i++) {
		const struct record *vbd = store_get_class(
			c->s, CLASS_VBD, value_str(vbds->items[i]));
		const struct record *vdi = vbd ? store_get_class(
			c->s, CLASS_VDI, record_str(vbd, F_VBD_VDI)) : NULL;

		if (vdi && value_is_str(vdi->fields[F_VDI_on_boot], "reset"))
			return true;
	}
	return false;
}

static struct value *rule_devices(const struct check *c)
{
	if (!strcmp(c->op->name, "snapshot_with_quiesce"))
		return simple_error(c,
				    "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED");
	if (c->op->flags & DISK_STATE && has_reset_disk(c))
		return api_error("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",
				 NULL);
	if (c->op->flags & MOVES && c->vm->fields[F_VM_attached_PCIs]->n)
		return simple_error(c, "VM_HAS_PCI_ATTACHED");
	if (c->op->flags & MOVES && c->vm->fields[F_VM_VGPUs]->n)
		return simple_error(c, "VM_HAS_VGPU");
	if (c->op->flags & (MOVES | DISK_STATE) && c->vm->fields[F_VM_VUSBs]->n)
		return simple_error(c, "VM_HAS_VUSBS");
	return NULL;
}

static struct value *rule_belongs(const struct check *c)
{
	const struct value *vtpms = c->vm->fields[F_VM_VTPMs];
	const char *op = c->op->name;

	if (!strcmp(op, "make_into_template")) {
		if (!value_is_null_ref(c->vm->fields[F_VM_appliance]))
			return api_error("VM_IS_PART_OF_AN_APPLIANCE",
					 value_str(c->vm->ref),
					 record_str(c->vm,
						    F_VM_appliance), NULL);
		if (!value_is_null_ref(c->vm->fields[F_VM_snapshot_schedule]))
			return api_error("VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE",
					 value_str(c->vm->ref),
					 record_str(c->vm,
						    F_VM_snapshot_schedule),
					 NULL);
	}
	if (!strcmp(op, "query_services"))
		return simple_error(c, "NOT_SYSTEM_DOMAIN");
	if (!strcmp(op, "create_vtpm") && vtpms->n)
		return api_error("VTPM_MAX_AMOUNT_REACHED", "1", NULL);
	return NULL;
}

static struct value *rule_upgrade(const struct check *c)
{
	const struct record *pool = store_first(c->s, CLASS_pool);

	if (c->op->flags & UPGRADE || !pool ||
	    !value_get(pool->fields[F_pool_other_config],
		       "rolling_upgrade_in_progress"))
		return NULL;
	return api_error("NOT_SUPPORTED_DURING_UPGRADE", NULL);
}

struct value *vm_op_error(const struct store *s, const struct record *vm,
			  const char *name, bool strict)
{
	static struct value *(*const rules[])(const struct check *) = {
		rule_blocked, rule_power_state, rule_busy, rule_template,
		rule_snapshot, rule_only_on, rule_mobile, rule_control_domain,
		rule_guest, rule_devices, rule_belongs, rule_upgrade,
	};
	struct check c = { s, vm, op_find(name), strict };
	struct value *error;

	xassert(c.op);
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		error = rules[i](&c);
		if (error)
			return error;
	}
	return NULL;
}

struct value *vm_allowed_operations(const struct store *s,
				    const struct record *vm)
{
	struct value *set = value_set_new(ARRAY_LEN(ops));
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		_cleanup_(value_unrefp) struct value *error = NULL;

		if (ops[i].flags & UNLISTED)
			continue;
		error = vm_op_error(s, vm, ops[i].name, true);
		if (!error)
			set->items[n++] = value_stringz(ops[i].name);
	}
	set->n = n;
	return set;
}

bool vm_check_op(struct req *r, const struct record *vm, const char *op,
		 bool strict)
{
	struct value *error = vm_op_error(req_store(r), vm, op, strict);

	if (!error)
		return true;
	if (error_is(error, "OTHER_OPERATION_IN_PROGRESS"))
		req_wait(r, value_str(vm->ref), error);
	else
		req_fail_value(r, error);
	return false;
}

/* ---- devices ---- */

static struct value *strings(const char *const *list)
{
	struct value *set;
	size_t n = 0;

	while (list[n])
		n++;
	set = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		set->items[i] = value_stringz(list[i]);
	return set;
}

bool vm_is_stopping(const struct record *vm)
{
	static const char *const names[] = { "clean_shutdown", "hard_shutdown",
					     "suspend", "pause", NULL };
	const struct value *current = vm->fields[F_VM_current_operations];

	for (uint32_t i = 0; i < current->n; i++)
		if (one_of(value_str(current->items[2 * i + 1]), names))
			return true;
	return false;
}

struct value *vbd_allowed_operations(const struct record *vm,
				     const struct record *vbd)
{
	const char *list[6] = { NULL };
	bool cd = value_is_str(vbd->fields[F_VBD_type], "CD");
	bool running = state_bit(vm) == RUNNING;
	size_t n = 0;

	if (vbd->fields[F_VBD_current_operations]->n ||
	    (running && vm_is_stopping(vm)))
		return value_set_empty();
	if (!running || !record_bool(vbd, F_VBD_currently_attached))
		list[n++] = "attach";
	if (cd && (running || state_bit(vm) == HALTED))
		list[n++] = record_bool(vbd, F_VBD_empty) ? "insert" : "eject";
	if (running && !(cd && is_hvm(vm))) {
		if (!record_bool(vbd, F_VBD_currently_attached))
			list[n++] = "plug";
		else if (record_bool(vbd, F_VBD_unpluggable)) {
			list[n++] = "unplug";
			list[n++] = "unplug_force";
		}
	}
	return strings(list);
}

struct value *vif_allowed_operations(const struct record *vm,
				     const struct record *vif)
{
	const char *list[3] = { NULL };
	bool running = state_bit(vm) == RUNNING;
	bool attached = record_bool(vif, F_VIF_currently_attached);
	size_t n = 0;

	if (vif->fields[F_VIF_current_operations]->n ||
	    (running && vm_is_stopping(vm)))
		return value_set_empty();
	if (!running || !attached)
		list[n++] = "attach";
	if (running)
		list[n++] = attached ? "unplug" : "plug";
	return strings(list);
}

/* ---- hosts ---- */

static bool host_does(const struct record *host, const char *op)
{
	const struct value *current = host->fields[F_host_current_operations];

	for (uint32_t i = 0; i < current->n; i++)
		if (value_is_str(current->items[2 * i + 1], op))
			return true;
	return false;
}

bool host_is_evacuating(const struct record *host)
{
	return host_does(host, "evacuate");
}

/* VM operations under way are left out of the account, or every start would
 * rewrite the host's row twice and all starts would queue behind it. */
struct value *host_allowed_operations(const struct record *host, bool live)
{
	const char *list[10] = { NULL };
	bool leaving = host_does(host, "reboot") || host_does(host, "shutdown");
	bool enabled = record_bool(host, F_host_enabled);
	size_t n = 0;

	if (!live) {
		list[n++] = "power_on";
		return strings(list);
	}
	if (!leaving && !host_is_evacuating(host)) {
		list[n++] = "provision";
		list[n++] = "vm_resume";
		list[n++] = "vm_migrate";
		list[n++] = "evacuate";
		if (enabled)
			list[n++] = "vm_start";
	}
	if (!leaving && !enabled) {
		list[n++] = "reboot";
		list[n++] = "shutdown";
		list[n++] = "enable";
	}
	return strings(list);
}
