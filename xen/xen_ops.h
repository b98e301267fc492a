/* The hypervisor behind the executor. All operations are synchronous, are
 * called from worker threads (several at once, but never two of one VM), and
 * are idempotent: what is done already answers as if it had just been done.
 *
 * Results: 0; XEN_FAILED when the API failure is in call->error; a negative
 * errno when the environment failed (the executor makes an INTERNAL_ERROR of
 * it). An operation that fails leaves the VM as it was, unless it says so.
 *
 * A domain is unpaused on at most one host: migrate_send pauses before the last
 * of the state leaves, and from then on only migrate_abort unpauses the
 * source's copy, and only migrate_activate the destination's.
 */
#ifndef XEN_XEN_OPS_H
#define XEN_XEN_OPS_H

#include <stdatomic.h>

#include "base/text.h"
#include "schema/call.h"
#include "xen/domain_config.h"

#define XEN_FAILED 1

struct xen; /* an open backend, its own type inside */

enum xen_domain_state { XEN_RUNNING, XEN_PAUSED, XEN_SHUTDOWN };
enum xen_event_kind {
	XEN_EV_SHUTDOWN,
	XEN_EV_REBOOT,
	XEN_EV_CRASH,
	XEN_EV_GONE,
};

/* What a guest did by itself; never the outcome of an operation. */
struct xen_event {
	char vm[UUID_LEN + 1];
	uint32_t domid;
	enum xen_event_kind kind;
};

struct xen_options {
	const char *state_dir;       /* exists; the backend's own */
	const char *host_uuid;       /* "" when not told */
	const char *migrate_address; /* numeric; where migrations arrive */
	/* xen: this host's certificate and key (PEM), and the daemon's list of
	 * members, for migrations; "" when not told */
	const char *cert, *key, *trust;
	bool dm_root;                /* xen: device models run as root */
	uint64_t memory_bytes;       /* sim */
	uint32_t cpus;               /* sim */
	bool reboot;                 /* sim: the host has just been restarted */
	/* Any thread; must not call back into the backend. */
	void (*event)(void *data, const struct xen_event *ev);
	/* What a guest tells of itself (see guest_scan.h); takes metrics. */
	void (*guest)(void *data, const char *vm, uint32_t domid,
		      struct value *metrics);
	void *event_data;
};

/* One operation's surroundings. Strings and fds are borrowed. */
struct xen_call {
	const char *vm; /* uuid, lower case */
	int64_t fence;
	atomic_bool aborted;
	int abort_fd; /* readable once aborted: to poll(2) on while waiting */
	/* 0..1; cheap, may be called often. */
	void (*progress)(struct xen_call *c, double fraction);
	void *worker;        /* from worker_new, NULL if there is none */
	struct value *error; /* set by xen_fail(), owned by the caller */
};

struct xen_domain {
	char vm[UUID_LEN + 1];
	uint32_t domid;
	enum xen_domain_state state;
	enum xen_event_kind reason; /* when XEN_SHUTDOWN */
	int64_t fence;              /* highest seen for this VM */
	uint64_t memory_kib;
	uint32_t vcpus;
	bool incoming;
	int64_t guest_ticks; /* -1: not known */
};

struct xen_host {
	char boot_id[UUID_LEN + 1];
	uint64_t memory_total, memory_free; /* bytes */
	uint32_t cpu_count, cpu_mhz;
	char cpu_model[64], cpu_vendor[32], xen_version[32];
	/* From here on 0 or "" when not known. */
	int64_t boot_time; /* Unix seconds */
	uint32_t cpu_sockets, cpu_nodes;
	uint32_t cpu_cores_per_socket, cpu_threads_per_core;
	uint32_t cpu_family, cpu_model_number, cpu_stepping;
	char cpu_flags[2048];    /* words */
	char cpu_features[80];   /* hexadecimal words, joined by - */
	char xen_capabilities[256], scheduler[16], kernel[64];
	uint64_t dom0_memory;    /* bytes */
	uint32_t dom0_vcpus;
};

/* How a console talks. */
enum xen_console_kind {
	XEN_CONSOLE_TEXT, /* what a guest writes on its terminal */
	XEN_CONSOLE_RFB,  /* a device model's own VNC server */
};

struct xen_console {
	enum xen_console_kind kind;
	uint32_t domid; /* 0: the host's */
	char title[64];
	int fd;         /* the opener's: a terminal or a connected socket */
};

/* Where a migration shall go: made by migrate_receive for migrate_send. */
#define XEN_TOKEN_LEN 64
struct xen_ticket {
	char address[64];
	uint16_t port;
	char token[XEN_TOKEN_LEN + 1];
	bool live; /* for migrate_send: the guest runs while it is copied */
};

struct xen_ops {
	const char *name;
	/* Negative errno, and a log line with what to do. */
	int (*open)(const struct xen_options *o, struct xen **ret);
	/* No operation is under way. Domains live on. */
	void (*close)(struct xen *x);
	/* Per worker thread, on that thread; NULL if not needed. */
	int (*worker_new)(struct xen *x, void **ret);
	void (*worker_free)(struct xen *x, void *worker);

	/* Remembers the highest fence of a VM over restarts. XEN_FAILED without
	 * an error set, and ret_highest, when this one is lower. */
	int (*fence_raise)(struct xen *x, const char *vm, int64_t fence,
			   int64_t *ret_highest);

	int (*start)(struct xen *x, struct xen_call *c,
		     const struct domain_config *cfg, bool paused,
		     uint32_t *ret_domid);
	int (*pause)(struct xen *x, struct xen_call *c);
	int (*unpause)(struct xen *x, struct xen_call *c);
	/* Asks the guest; the domain is gone at the end. */
	int (*clean_shutdown)(struct xen *x, struct xen_call *c,
			      int64_t timeout_ms);
	int (*hard_shutdown)(struct xen *x, struct xen_call *c);
	/* A failure to build leaves the VM halted. Without a domain: start. */
	int (*clean_reboot)(struct xen *x, struct xen_call *c,
			    int64_t timeout_ms, const struct domain_config *cfg,
			    uint32_t *ret_domid);
	int (*hard_reboot)(struct xen *x, struct xen_call *c,
			   const struct domain_config *cfg,
			   uint32_t *ret_domid);
	/* Makes these nodes (a map of paths below the domain's directory to
	 * texts) all that is there under vm-data/ and FIST/. */
	int (*set_xenstore)(struct xen *x, struct xen_call *c,
			    const struct value *nodes);
	/* Of a domain that runs or is paused. Besides VM_BAD_POWER_STATE:
	 * DEVICE_DETACH_TIMEOUT [VBD or VIF, number] when the guest does not
	 * let go, HOST_NOT_ENOUGH_FREE_MEMORY. */
	int (*change)(struct xen *x, struct xen_call *c,
		      const struct domain_change *change);
	/* image: absolute path; replaced whole, or not at all. */
	int (*suspend)(struct xen *x, struct xen_call *c, const char *image,
		       int64_t timeout_ms);
	/* Removes the image when the domain stands. */
	int (*resume)(struct xen *x, struct xen_call *c, const char *image,
		      const struct domain_config *cfg, bool paused,
		      uint32_t *ret_domid);

	/* Removes the image of a guest that is not wanted any more, and what an
	 * attempt to write one left. None there: 0. */
	int (*drop_image)(struct xen *x, struct xen_call *c, const char *image);

	int (*migrate_receive)(struct xen *x, struct xen_call *c,
			       const struct domain_config *cfg,
			       uint32_t *ret_domid, struct xen_ticket *ret);
	int (*migrate_send)(struct xen *x, struct xen_call *c,
			    const struct xen_ticket *to);
	int (*migrate_activate)(struct xen *x, struct xen_call *c,
				uint32_t *ret_domid);
	/* Fails for a copy that was activated here: were its end reported, the
	 * source's copy would be let run beside it. */
	int (*migrate_abort)(struct xen *x, struct xen_call *c);
	int (*migrate_finish)(struct xen *x, struct xen_call *c);

	/* Opens the console of a VM's domain, vm "": of the host. When it is the
	 * text of domain `served` (-1: none) nothing is opened, the caller has
	 * it already: fd is -1. -ENOENT: there is no such domain. May be NULL:
	 * no consoles. One thread at a time. */
	int (*console)(struct xen *x, const char *vm, int64_t served,
		       struct xen_console *ret);

	/* All domains but dom0; ret is the caller's to free(). */
	int (*list)(struct xen *x, struct xen_domain **ret, size_t *ret_n);
	int (*host)(struct xen *x, struct xen_host *ret);
};

/* Takes error ([CODE, params...]); of several failures the first stays.
 * Always XEN_FAILED. */
int xen_fail_value(struct xen_call *c, struct value *error);
#define xen_fail(c, ...) xen_fail_value(c, api_error(__VA_ARGS__, NULL))
static inline bool xen_aborted(struct xen_call *c)
{
	return atomic_load(&c->aborted);
}
/* [TASK_CANCELLED, ""]: the executor fills in the job's id. */
int xen_fail_aborted(struct xen_call *c);

extern const struct xen_ops xen_sim_ops;
extern const struct xen_ops xen_xl_ops;

#endif
