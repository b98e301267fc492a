/* The privileged process of a host: jobs in from the daemon, results out.
 *
 * Main thread: a poll(2) loop over the listening socket, one daemon's
 * connection, signals and a wake-up. Nothing is queued for the daemon but what
 * can be made again: a packet is made when the socket takes it, so a slow or
 * absent daemon costs no memory beyond the results that are kept.
 */
#ifndef XEN_EXECUTOR_H
#define XEN_EXECUTOR_H

#include "xen/verbs.h"

struct executor_options {
	const char *socket_path;
	const char *socket_owner; /* user name or number, NULL: ours */
	const char *state_dir;    /* made when missing */
	const char *host_uuid;    /* "": any daemon's */
	const char *migrate_address;
	const char *cert, *key, *trust; /* "": no migrations on real Xen */
	bool dm_root; /* real Xen's device models run as root */
	const struct xen_ops *ops;
	uint64_t memory_mib;
	uint32_t cpus;
	unsigned workers;
	const char *vncterm;      /* path of xenpool-vncterm */
	const char *console_user; /* whom it becomes, when we are root */
	struct allowed allowed;
	bool reboot; /* sim */
};

/* Until SIGTERM or SIGINT: 0. Negative errno after a log line when it cannot
 * begin. */
int executor_run(const struct executor_options *o);

#endif
