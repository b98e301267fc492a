/* The real Xen behind the executor: internal to xen/xl*.c.
 *
 * libxl is used by processes of their own and never by the executor itself:
 * it may exit, abort, wait for ever, or be left half-way by a helper that was
 * killed, and each of that shall cost one operation.
 *
 *   executor (this struct)         no libxl call, only supervision
 *     |- xl-worker start VM        one operation each: request in, result out,
 *     |- xl-worker shutdown VM     killed with all its helpers when it takes
 *     |  ...                       too long or its job is aborted
 *     `- xl-worker watch           tells what domains there are, whenever one
 *                                  comes or ends, and when asked; begun again
 *                                  when it ends
 *     `- xl-worker guests          reads what guests wrote (xs_watch.h)
 *
 * What Xen itself does not remember is in the state folder's xen.json, replaced
 * whole (tmp, fsync, rename): fences, and of a VM in a delicate state the
 * *phase*. A VM that only runs has no entry: Xen's list of domains is the
 * truth. Phases end with the machine's boot, fences do not.
 *
 * Locking: `lock` guards everything below it and is never held while waiting,
 * save for the disk and for the condition.
 */
#ifndef XEN_XL_H
#define XEN_XL_H

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "schema/call.h"
#include "xen/fences.h"
#include "xen/files.h"
#include "xen/xen_ops.h"
#include "xen/xl_process.h"

#define XL_MAX_DOMAINS 4096

enum xl_phase {
	XL_HOME,
	XL_BUILDING, /* half a domain may be there: discarded unless it runs */
	XL_SAVING,   /* the guest is being stopped and written to a file */
	XL_SAVED,    /* its image is whole and in its place */
	XL_SENDING,  /* from here on only a migration's verbs move it; source: the guest is stopped, its last state may be out */
	XL_SENT,     /* source: the destination has acknowledged all */
	XL_EXPECTED, /* destination: waiting for the guest, or receiving it */
	XL_ARRIVED,  /* destination: whole, waiting for its activation */
};

/* What the watcher saw of one domain. */
struct xl_seen {
	char vm[UUID_LEN + 1];
	uint32_t domid;
	enum xen_domain_state state;
	enum xen_event_kind reason;
	uint64_t memory_kib;
	uint32_t vcpus;
	int64_t cpu_ms;
};

/* One packet of the watcher: this, and n times struct xl_seen. */
struct xl_view {
	uint64_t answers; /* the highest question that was there before */
	int64_t at_ms;    /* monotonic, when it began to look */
	struct xen_host host;
	uint32_t n;
	struct xl_seen seen[];
};

struct xl_vm {
	char vm[UUID_LEN + 1];
	/* Saved. */
	enum xl_phase phase;
	bool was_paused; /* before the migration began */
	bool activated;  /* came here by a migration, and was let run */
	char token[XEN_TOKEN_LEN + 1];
	/* Of this process: an operation is under way, or ended then. */
	bool busy;
	int64_t ended_ms;
	bool alive; /* seen so: its end is news */
	uint32_t domid;
	struct list link;
};

struct xl {
	char *dir;
	int lock_fd;
	char host_uuid[UUID_LEN + 1];
	char migrate_address[64];
	char *cert, *key, *trust; /* "" when there are none */
	bool dm_root;
	void (*event)(void *data, const struct xen_event *ev);
	void (*guest)(void *data, const char *vm, uint32_t domid,
		      struct value *metrics);
	void *event_data;

	pthread_mutex_t lock;
	char boot_id[UUID_LEN + 1];
	struct map by_vm; /* struct xl_vm */
	struct list vms;
	struct fences fences;
	struct list receives; /* struct xl_receive, of xl_migrate.c */

	/* The watcher. */
	pthread_t watch_thread;
	bool watching, stop;
	int stop_fd;
	pthread_cond_t viewed;
	struct xl_process watcher;
	uint64_t asked;
	struct xl_view *view; /* NULL before the first */
	bool blind;           /* the first watcher ended without a view */

	/* The reader of guests' nodes; not locked. */
	struct {
		pthread_t thread;
		bool started;
		int stop_fd;
		struct xl_process process;
	} guests;
};

static inline struct xl *xl_of(struct xen *x)
{
	return (struct xl *)x;
}

/* ---- xl_state.c; all locked, but for open and fence_raise ---- */
int xl_state_open(struct xl *x);
void xl_state_close(struct xl *x);
int xl_state_save(struct xl *x);
struct xl_vm *xl_find(struct xl *x, const char *vm); /* NULL: nothing special */
struct xl_vm *xl_get(struct xl *x, const char *vm);  /* made when missing */
/* Forgets an entry that says nothing. */
void xl_tidy(struct xl *x, struct xl_vm *v);
/* Sets and saves; as it was when the disk refuses. */
int xl_set_phase(struct xl *x, struct xl_vm *v, enum xl_phase phase);
int xl_fence_raise(struct xen *x, const char *vm, int64_t fence,
		   int64_t *ret_highest); /* takes the lock itself */

/* ---- xl.c: around operations ---- */
/* What happens to the domain from here on is ours; XEN_FAILED while a migration
 * has it. ret is valid until xl_op_end(). */
int xl_op_begin(struct xl *x, struct xen_call *c, struct xl_vm **ret);
void xl_op_end(struct xl *x, struct xl_vm *v);
/* Its domain is there no more. */
int xl_op_gone(struct xl *x, struct xl_vm *v);
int xl_phase_set(struct xl *x, struct xl_vm *v, enum xl_phase phase);
int xl_set_activated(struct xl *x, struct xl_vm *v, bool activated);
/* A fresh look; true also when Xen does not answer: nobody shall build on it. */
bool xl_has_domain(struct xl *x, const char *vm);
uint64_t xl_memory_of(struct xl *x, const char *vm); /* KiB, 0: not known */

struct xl_build {
	const struct domain_config *cfg;
	bool paused, discard;
	int fd; /* a saved guest's image, or -1 */
};
int xl_build_run(struct xl *x, struct xen_call *c, struct xl_vm *v,
		 struct xl_build *b, uint32_t *ret_domid);

/* ---- xl_save.c ---- */
int xl_suspend(struct xen *x, struct xen_call *c, const char *image,
	       int64_t timeout_ms);
int xl_drop_image(struct xen *x, struct xen_call *c, const char *image);
int xl_resume(struct xen *x, struct xen_call *c, const char *image,
	      const struct domain_config *cfg, bool paused,
	      uint32_t *ret_domid);
/* Lets a guest go on that was stopped for its state to be taken. */
int xl_go_on(struct xen_call *c);

/* ---- xl_migrate.c: as in struct xen_ops ---- */
int xl_migrate_receive(struct xen *xen, struct xen_call *c,
		       const struct domain_config *cfg, uint32_t *ret_domid,
		       struct xen_ticket *ret);
int xl_migrate_send(struct xen *xen, struct xen_call *c,
		    const struct xen_ticket *to);
int xl_migrate_activate(struct xen *xen, struct xen_call *c,
			uint32_t *ret_domid);
int xl_migrate_abort(struct xen *xen, struct xen_call *c);
int xl_migrate_finish(struct xen *xen, struct xen_call *c);
void xl_migrate_close(struct xl *x);
/* ---- xl_console.c ---- */
int xl_console_open(struct xen *x, const char *vm, int64_t served,
		    struct xen_console *ret);

/* ---- xl_watch.c ---- */
/* Waits for the first view: -ENXIO when Xen cannot be asked. */
int xl_watch_start(struct xl *x);
void xl_watch_stop(struct xl *x);
/* Locked: waits for a view that began after this call; -ETIMEDOUT. */
int xl_watch_look(struct xl *x);
/* The child's side. */
int xl_watch_main(int fd);

/* ---- xl_guests.c ---- */
int xl_guests_start(struct xl *x);
void xl_guests_stop(struct xl *x);

#endif
