/* The simulated Xen: domains that hold memory, tick, answer shutdown and
 * migrate over TCP. Internal to xen/sim*.c.
 *
 * Files in the state folder:
 *   state.json  everything below `struct sim` that a real hypervisor would go
 *               on knowing while its toolstack is dead; replaced whole (tmp,
 *               fsync, rename) before an operation answers
 *   lock        held while a simulation is open
 * The simulated hypervisor "restarts" (its domains are gone, its boot id is
 * new, fences stay) when the machine itself has been restarted, or when asked.
 *
 * Locking: `lock` guards everything; it is never held while waiting, save for
 * the disk. The executor runs one operation of a VM at a time, so an operation
 * may drop the lock and find its domain again; only the guest itself (the
 * simulation's thread) and an arriving migration change it meanwhile.
 */
#ifndef XEN_SIM_H
#define XEN_SIM_H

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "schema/call.h"
#include "xen/fences.h"
#include "xen/files.h"
#include "xen/guest_pace.h"
#include "xen/xen_ops.h"

#define SIM_MAX_DOMAINS 1000
#define SIM_MAX_DOMID 32751
#define SIM_MAX_IMAGE_BYTES 65536
#define SIM_MAX_CONNECTIONS 32
#define SIM_MAX_DELAY_MS 600000
#define SIM_SLOTS 256

enum sim_state {
	SIM_BUILDING, /* holds memory; neither seen nor saved */
	SIM_RUNNING,
	SIM_PAUSED,
	SIM_SHUTDOWN, /* the guest ended by itself; see reason */
};

enum sim_migration {
	SIM_HOME,
	SIM_SENDING,  /* source: paused, the last of the state may be out */
	SIM_SENT,     /* source: the destination has acknowledged all */
	SIM_EXPECTED, /* destination: memory held, nothing arrived yet */
	SIM_ARRIVED,  /* destination: whole, waiting for its activation */
};

enum sim_guest_kind { SIM_GUEST_AGENT, SIM_GUEST_SILENT, SIM_GUEST_FLOOD };

/* What other_config asks of the guest ("sim:..." keys, see protocol.h). */
struct sim_script {
	uint32_t start_ms, shutdown_ms, migrate_ms;
	uint32_t list_ms; /* that a look at the domains takes */
	char fail[32]; /* verb, "" for none */
	bool ignore_shutdown;
	enum xen_event_kind event; /* event_ms > 0: after that much running */
	uint32_t event_ms;
	enum sim_guest_kind guest; /* what its agent is like */
};

struct sim_domain {
	char vm[UUID_LEN + 1];
	char name[256]; /* cut */
	uint32_t domid;
	enum sim_state state;
	enum xen_event_kind reason;
	enum sim_migration migration;
	bool was_paused; /* before the migration began */
	bool activated;  /* came here by a migration, and was let run */
	uint64_t memory; /* bytes */
	uint32_t vcpus;
	/* Milliseconds that the guest has run: ticks, and while it runs also
	 * what passed since since_ms (boot-time clock). */
	int64_t ticks, since_ms;
	uint8_t disks[SIM_SLOTS / 8], vifs[SIM_SLOTS / 8]; /* by number */
	struct sim_script script;
	struct value *xenstore; /* what the pool tells it; not saved */
	struct guest_pace pace; /* once it was heard */
	bool heard;
	/* Of the migration: what was presented or is expected, "" for none.
	 * attempt tells one expectation from the next (not saved). */
	char token[XEN_TOKEN_LEN + 1];
	uint64_t attempt;
	struct list link;
};

struct sim_net;      /* sim_net.c */
struct sim_consoles; /* sim_console.c */

struct sim {
	char *dir;
	int lock_fd;
	char host_uuid[UUID_LEN + 1];
	char migrate_address[64];
	uint64_t memory;
	uint32_t cpus;
	int64_t boot_time; /* Unix s: of the boot if that was ours, else near */
	void (*event)(void *data, const struct xen_event *ev);
	void (*guest)(void *data, const char *vm, uint32_t domid,
		      struct value *metrics);
	void *event_data;
	struct guest_scan *scan; /* the thread's own */

	pthread_mutex_t lock;
	char boot_id[UUID_LEN + 1];
	uint32_t next_domid;
	uint64_t next_attempt;
	struct map by_vm; /* struct sim_domain */
	struct list domains;
	struct fences fences;

	struct sim_net *net;
	struct sim_consoles *consoles;
};

static inline struct sim *sim_of(struct xen *x)
{
	return (struct sim *)x;
}

/* ---- sim_state.c: the file, and the domains in memory; all locked ---- */
/* -EBUSY another simulation has the folder, -EBADMSG the file is damaged. */
int sim_state_open(struct sim *s, bool reboot);
void sim_state_close(struct sim *s);
int sim_state_save(struct sim *s);
struct sim_domain *sim_find(struct sim *s, const char *vm); /* any state */
/* Adds an empty domain in SIM_BUILDING with a free domid; -ENOSPC. */
int sim_domain_add(struct sim *s, const char *vm, struct sim_domain **ret);
void sim_domain_remove(struct sim *s, struct sim_domain *d);
/* Removes and saves; it stays when the disk refuses. */
int sim_domain_destroy(struct sim *s, struct sim_domain *d);
uint64_t sim_memory_free(struct sim *s);
int sim_fence_raise(struct xen *x, const char *vm, int64_t fence,
		    int64_t *ret_highest); /* takes the lock itself */
/* Boot-time clock: goes on while we are dead. */
int64_t sim_now(void);
int64_t sim_ticks(const struct sim_domain *d);
void sim_set_state(struct sim_domain *d, enum sim_state state);

/* ---- sim_files.c: suspend images ---- */
/* What travels of a guest, in an image or over the wire. */
struct sim_guest {
	char vm[UUID_LEN + 1];
	uint64_t memory;
	uint32_t vcpus;
	int64_t ticks;
	bool was_paused;
};
struct json_object *sim_guest_json(const struct sim_domain *d);
/* False: malformed or out of limits. */
bool sim_guest_parse(const char *p, size_t n, struct sim_guest *ret);

int sim_image_write(const char *path, const struct sim_domain *d);
/* -EBADMSG not an image, -ESTALE another VM's, or what open(2) says. */
int sim_image_read(const char *path, const char *vm, struct sim_guest *ret);
/* The same errors; 0 also when there is none. */
int sim_image_remove(const char *path, const char *vm);

/* ---- sim_ops.c ---- */
/* Reads the sim: keys; false after xen_fail(). */
bool sim_script_parse(struct xen_call *c, const struct domain_config *cfg,
		      struct sim_script *ret);
/* Sleeps, reporting progress from..to; XEN_FAILED when aborted. */
int sim_wait(struct xen_call *c, int64_t ms, double from, double to);
/* XEN_FAILED when the script wants this verb to fail. */
int sim_scripted(struct xen_call *c, const struct sim_script *script,
		 const char *verb);
int sim_fail_state(struct xen_call *c, const char *expected,
		   const struct sim_domain *d);
/* Memory and domid for a new domain of this config, in SIM_BUILDING. */
int sim_domain_reserve(struct sim *s, struct xen_call *c,
		       const struct domain_config *cfg,
		       const struct sim_script *script,
		       struct sim_domain **ret);

/* ---- sim_net.c: the simulation's thread: guests' events, arrivals ---- */
int sim_net_open(struct sim *s);
void sim_net_close(struct sim *s);
/* Something that the thread waits for has changed. */
void sim_net_wake(struct sim *s);
/* Port where arrivals are taken (opens it when needed), locked. */
int sim_net_listen(struct sim *s, uint16_t *ret_port);

/* ---- sim_console.c: what guests and the host show, and the thread that plays
 * them ---- */
int sim_console_start(struct sim *s);
void sim_console_stop(struct sim *s);
int sim_console_open(struct xen *x, const char *vm, int64_t served,
		     struct xen_console *ret);

/* ---- sim_guest.c: what guests tell ---- */
bool sim_guest_mode(struct xen_call *c, const char *word,
		    enum sim_guest_kind *ret);
void sim_guest_tick(struct sim *s);     /* the thread's */
int64_t sim_guest_wait(struct sim *s);  /* ms until then; locked */
int sim_set_xenstore(struct xen *x, struct xen_call *c,
		     const struct value *nodes_wanted);

/* ---- sim_change.c ---- */
void sim_slot_set(uint8_t *slots, uint32_t number, bool used);
void sim_slots_add(struct json_object *o, const char *key,
		   const uint8_t *slots);
/* False: not a set of numbers. */
bool sim_slots_load(struct json_object *o, const char *key, uint8_t *slots);
int sim_change(struct xen *x, struct xen_call *c,
	       const struct domain_change *change);

/* ---- sim_migrate.c: what the thread asks of it ---- */
/* Uses up the token; false: nobody expects it. */
bool sim_migrate_claim(struct sim *s, const char *token, size_t n,
		       char ret_vm[UUID_LEN + 1], uint64_t *ret_attempt);
/* NULL, or why the guest cannot be taken. */
const char *sim_migrate_arrive(struct sim *s, const char *vm, uint64_t attempt,
			       const char *p, size_t n);
/* The operations. */
int sim_migrate_receive(struct xen *x, struct xen_call *c,
			const struct domain_config *cfg, uint32_t *ret_domid,
			struct xen_ticket *ret);
int sim_migrate_send(struct xen *x, struct xen_call *c,
		     const struct xen_ticket *to);
int sim_migrate_activate(struct xen *x, struct xen_call *c,
			 uint32_t *ret_domid);
int sim_migrate_abort(struct xen *x, struct xen_call *c);
int sim_migrate_finish(struct xen *x, struct xen_call *c);

#endif
