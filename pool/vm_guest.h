/* What this host keeps of each guest here: what it has told of itself, and what
 * it was told. Nothing of it must outlive the daemon: the executor tells all
 * guests' metrics again, and what a guest was told is told again.
 *
 * A guest may say something new at any time; the replicated row follows at most
 * every GUEST_WRITE_MS, and this host writes for at most GUEST_WRITES_A_SECOND
 * guests.
 */
#ifndef POOL_VM_GUEST_H
#define POOL_VM_GUEST_H

#include "pool/vm.h"

#define GUEST_WRITE_MS 5000
#define GUEST_WRITES_A_SECOND 8

struct guest {
	char uuid[UUID_LEN + 1];
	unsigned misses; /* `state`s in a row without its domain */

	struct value *metrics; /* as told last, NULL: nothing yet */
	int64_t domid;         /* of the domain that told it */
	bool is_dirty;         /* the rows may differ */
	bool is_writing;
	int64_t write_at_ms;   /* not before (env_mono_ms()) */

	struct value *xenstore; /* what its domain has, NULL: not known */
	struct value *sent;     /* ... will have after the job under way */
	bool data_dirty;
	char job_id[80];

	/* As the domain's last state has it; two of them give the usage. */
	int64_t ticks, ticks_at_ms, ticks_domid, memory;
	double cpu_usage; /* 0..1 of its virtual CPUs; NAN: not known */
	bool has_ticks;
};

struct guest_state {
	struct map by_uuid;
	struct pool_timer timer;
	int64_t metrics_at_ms; /* VM_metrics are not written before */
	int64_t asked_at_ms;   /* for a state, to write data by */
	uint64_t next_job;
};

/* ---- vm_guest.c ---- */
/* The VM if its domain is here by the store, else NULL. */
struct record *guest_vm(const struct pool *p, const char *uuid);
struct guest *guest_for(struct pool *p, const char *uuid);
/* Looks again soon. */
void guest_wake(struct pool *p, int64_t after_ms);

/* ---- vm_guest_data.c ---- */
/* Brings the nodes of the domain in step with VM.xenstore_data. */
void guest_sync_data(struct pool *p, struct guest *g);
void guest_data_done(struct pool *p, const struct value *done);

/* ---- vm_sources.c ---- */
void vm_sources_take(struct guest *g, const struct value *domain);

/* ---- vm_metrics.c ---- */
/* VM_metrics of all domains here, from a `state`. */
void vm_metrics_refresh(struct pool *p, const struct value *state);

#endif
