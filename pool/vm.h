/* What the files about VMs, jobs, hosts and members share. Internal to pool/.
 *
 * The replicated rows say what is wanted: a handler writes a job row, the host
 * named in it sees the row, has its executor do the step's verb, and ends the
 * step by one transaction. Nothing but a job row makes a domain come, go or
 * move (exceptions, all of them in vm_reconcile.c: a copy of a domain that the
 * store says lives elsewhere is destroyed).
 */
#ifndef POOL_VM_H
#define POOL_VM_H

#include "pool/req.h"

#define MIB (1024LL * 1024)

static inline const struct class_def *class_of(int cls)
{
	return &schema_classes[cls];
}

/* ---- vm_draft.c: a row on its way into a transaction ---- */
struct draft {
	struct txn *t;       /* borrowed */
	struct record *base; /* borrowed; NULL: the draft creates the row */
	struct record *now;  /* owned; reads see what has been set */
};

/* The transaction will hold only if base is still the row's newest version. */
void draft_edit(struct draft *d, struct txn *t, struct record *base);
/* uuid NULL: a new one. */
void draft_create(struct draft *d, struct txn *t, int cls, const char *uuid);
const char *draft_ref(const struct draft *d); /* borrowed while d is open */
void draft_set(struct draft *d, unsigned field, struct value *takes_v);
void draft_str(struct draft *d, unsigned field, const char *s);
void draft_int(struct draft *d, unsigned field, int64_t i);
void draft_bool(struct draft *d, unsigned field, bool b);
void draft_date(struct draft *d, unsigned field, int64_t unix_seconds);
/* Copies a field of another row of the same type of field. */
void draft_copy(struct draft *d, unsigned field, const struct value *v);
void draft_null(struct draft *d, unsigned field); /* OpaqueRef:NULL */
void draft_map_put(struct draft *d, unsigned field, const char *key,
		   struct value *takes_v);
void draft_map_remove(struct draft *d, unsigned field, const char *key);
/* Writes what differs and closes the draft. */
void draft_write(struct draft *d);
/* The same for a VM: devices and allowed_operations are brought in step. */
void draft_write_vm(struct draft *d, const struct store *s);
/* ... and for a host (allowed_operations). live as host_metrics will say. */
void draft_write_host(struct draft *d, bool live);
/* Drops what draft_create() or draft_edit() began (for error paths). */
void draft_drop(struct draft *d);

/* ---- vm_ops.c: which operation is allowed when ---- */
bool vm_is_live(const struct record *vm); /* Running or Paused */
/* NULL if op may begin now, else the error. strict: also what a caller may
 * override by force. */
struct value *vm_op_error(const struct store *s, const struct record *vm,
			  const char *op, bool strict);
bool error_is(const struct value *error, const char *code);
struct value *vm_allowed_operations(const struct store *s,
				    const struct record *vm);
/* VM_BAD_POWER_STATE with this text of expected states. */
struct value *vm_bad_power_state(const struct record *vm, const char *expected);
const char *vm_state_lower(const struct record *vm);
struct value *vbd_allowed_operations(const struct record *vm,
				     const struct record *vbd);
struct value *vif_allowed_operations(const struct record *vm,
				     const struct record *vif);
struct value *host_allowed_operations(const struct record *host, bool live);
/* Checks op and, on an error, ends the request (waits when the VM is busy).
 * False: the request has ended. */
bool vm_check_op(struct req *r, const struct record *vm, const char *op,
		 bool strict);

/* ---- placement.c ---- */
/* hvm, pv, pvh or pv_in_pvh, also when domain_type is unspecified. */
const char *vm_boot_type(const struct record *vm);
int64_t vm_memory_overhead(const struct record *vm); /* bytes */
/* dynamic_min + overhead */
int64_t vm_memory_need(const struct record *vm);
/* Unreserved bytes; except_vm (a ref, may be NULL) is not counted. */
int64_t host_free_memory(const struct store *s, const struct record *host,
			 const char *except_vm);
enum {
	BOOT_IGNORE_MEMORY = 1,
	BOOT_MIGRATE = 2, /* it comes with the memory that it has */
};
struct value *vm_boot_error(const struct pool *p, const struct record *vm,
			    const struct record *host, unsigned flags);
/* Borrowed, or NULL and the error. */
struct record *vm_choose_host(const struct pool *p, const struct record *vm,
			      unsigned flags, struct value **ret_error);
/* Bytes that a domain of vm gets on host. */
int64_t vm_memory_target(const struct store *s, const struct record *vm,
			 const struct record *host);
bool host_counts_live(const struct pool *p, const struct record *host);
bool host_is_evacuating(const struct record *host);

/* ---- vm_create.c, vm_device.c ---- */
void vm_destroy_devices(const struct store *s, struct txn *t,
			const struct record *vm);
/* Destroys the row that ref names, if there is one. */
void row_destroy(const struct store *s, struct txn *t, const char *ref);
void vif_default_mac(const char *mac_seed, unsigned device, char out[18]);
/* "0" or "hda" as the guest sees it: "xvda"; "" when it is no device. */
void vbd_device_name(const char *userdevice, char out[16]);

/* ---- vm_state.c: what a change of state means for a VM's rows ---- */
/* vm must be a draft; each leaves power_state and all that follows set. */
void vm_becomes_live(const struct pool *p, struct draft *vm,
		     const struct record *host, int64_t domid, bool paused,
		     bool fresh_boot);
void vm_moves_to(const struct pool *p, struct draft *vm,
		 const struct record *host, int64_t domid);
void vm_becomes_halted(const struct pool *p, struct draft *vm);
void vm_becomes_suspended(const struct pool *p, struct draft *vm);
void vm_drop_consoles(const struct store *s, struct txn *t,
		      const struct record *vm);
/* A suspend image's VDI comes and goes; its file is the executor's. */
void vm_add_image(struct draft *vm, const char *sr_ref,
		  const struct record *host, const char *path);
/* The first: its file is gone with the image's resume. */
void vm_drop_image(const struct pool *p, struct draft *vm);
void vm_discard_image(const struct pool *p, struct draft *vm);
/* host.other_config key with the HTTPS port when it is not 443. */
#define HOST_PORT_KEY "https_port"
char *console_location(const struct pool *p, const struct record *host,
		       const char *console_uuid);

/* ---- job.c, job_step.c, job_end.c ---- */
/* One job in the making, for a VM operation. */
struct job_spec {
	const char *kind, *step;
	const struct record *host;        /* who acts first */
	const struct record *source;      /* NULL: host */
	const struct record *destination; /* may be NULL */
	const char *task;                 /* "" for none */
	const char *author;
	int64_t deadline;                 /* Unix s; 0: none */
};
/* Adds the job's row to t. The draft of the VM must be part of the same
 * transaction (its guard makes fences rise); vm is NULL in a host's own job.
 * params: taken, a map, or NULL. ret_ref may be NULL. */
void job_create(const struct pool *p, struct txn *t, const struct record *vm,
		const struct job_spec *spec, struct value *params,
		char ret_ref[REF_LEN + 1]);
/* The job's key in current_operations. */
const char *job_mark(const struct record *job);
/* The oldest job of the VM, or NULL. */
struct record *job_of_vm(const struct store *s, const char *vm_ref);
/* Asks all other jobs of the VM to end early. */
void job_cancel_all(const struct store *s, struct txn *t, const char *vm_ref);
/* Removes all jobs of the VM, failing their tasks with error (borrowed), and
 * takes their marks off the VM (a draft) and the hosts. */
void job_drop_all(const struct pool *p, struct draft *vm,
		  const struct value *error);
void job_cancel_requested(struct pool *p, const char *task_ref);
extern const struct pool_module job_module;
extern const struct handler_def job_handlers[];

/* ---- job_leader.c ---- */
/* On the serving leader, each second: jobs whose host is dead. */
void job_leader_tick(struct pool *p);

/* ---- vm_reconcile.c ---- */
void vm_reconcile(struct pool *p, const struct value *state);
void vm_domain_event(struct pool *p, const struct value *msg);

/* ---- vm_guest.c: what guests tell and are told ---- */
extern const struct pool_module guest_module;
/* The executor has got this `config` for a domain of the VM. */
void guest_config_sent(struct pool *p, const char *uuid,
		       const struct value *config);

/* ---- host.c, host_live.c, dbsync.c, member.c ---- */
extern const struct handler_def vm_handlers[]; /* VM.*, VBD.*, VIF.* */
extern const struct handler_def host_handlers[];
extern const struct handler_def member_handlers[];
extern const struct handler_def pool_class_handlers[];
extern const struct pool_module host_module;
extern const struct pool_module member_module;

struct host_state {
	struct pool_timer timer;
	struct value *exec_state; /* last `state` of the executor, or NULL */
	bool state_is_fresh;      /* nothing was done since */
	int64_t serving_since_ms; /* env_mono_ms(); -1: not serving */
	int64_t metrics_at_ms;    /* when host_metrics was written last */
	bool creating;            /* the first transaction is under way */
	bool barrier_pending, sync_pending;
	bool synced;          /* own rows have been refreshed since the start */
	bool hardware_sent;   /* ... the refresh under way has all hardware in it */
	bool hardware_synced; /* ... what the executor told is in them too */
	bool master_pending, reconciling;
	unsigned sync_failures; /* of own rows, one after the other */
	int64_t foreign_due_ms;   /* foreign.h: before it nothing is written */
	bool evacuation_pending; /* a transaction of host.evacuate */
};
/* host.other_config: why the host does not enable itself ("until_reboot",
 * "always"). */
#define HOST_DISABLED_KEY "disabled_by_user"

/* ---- dbsync_rows.c: a host's rows from a description (a map of texts) ---- */
struct dbsync_refs {
	char host[REF_LEN + 1], sr[REF_LEN + 1];
};
/* This host, as it would be told to another pool. Owned by the caller. */
struct value *dbsync_describe_host(const struct pool *p);
struct value *dbsync_software_version(const struct pool *p);
struct value *dbsync_restrictions(bool with_licence);
/* Row, metrics, CPUs, control domain, PIF, local SR with PBD, member. */
void dbsync_add_host(const struct pool *p, struct txn *t,
		     const struct value *description,
		     const struct value *software_version, const char *network,
		     const char *wanted_role, struct dbsync_refs *ret);
void dbsync_add_member(struct txn *t, const struct value *host_ref,
		       const struct value *description,
		       const char *wanted_role);
void dbsync_host_identity(struct draft *host, const struct value *description);
void dbsync_host_hardware(struct draft *host, const struct value *description);
/* there: refs of those that are there, or NULL. False: not all found room. */
bool dbsync_sync_cpus(const struct store *s, struct txn *t,
		      const char *host_ref, const struct value *there,
		      const struct value *description);
int64_t dbsync_dom0_memory(const struct value *description); /* bytes */
void dbsync_dom0_size(struct draft *vm, const struct value *description);

/* ---- dbsync.c ---- */
/* The first transaction of a new pool, on its serving leader. */
void dbsync_create_pool(struct pool *p);
/* Refreshes this host's own rows, after a read barrier that ended with error;
 * cheap when nothing differs. */
void dbsync_refresh_host(struct pool *p, int error);
void dbsync_refresh_metrics(struct pool *p);

/* ---- member.c ---- */
size_t member_voters_wanted(const struct pool *p, size_t members);
struct record *member_of_host(const struct store *s, const char *host_ref);
/* host.c: why the first of its VMs cannot go elsewhere; NULL if all can. */
struct value *host_evacuation_error(struct req *r, const struct record *host);
void host_evacuate(struct req *r); /* job_evacuate.c */
/* host.c: destroys all rows that stand for the host alone. */
void host_drop_rows(const struct store *s, struct txn *t,
		    const struct record *host);
/* The local SR of the host, NULL if it has none with a plugged PBD. */
struct record *host_local_sr(const struct store *s, const struct record *host);
bool host_sees_sr(const struct store *s, const char *host_ref,
		  const char *sr_ref);

#endif
