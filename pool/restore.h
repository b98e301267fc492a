/* Making a backup's state fit to begin a pool of one with. Works on a store that
 * nobody else uses; no daemon runs.
 */
#ifndef POOL_RESTORE_H
#define POOL_RESTORE_H

#include "raftdb/store.h"

struct restore_host {
	const char *uuid; /* of a host that the backup knows */
	const char *raft_id, *peer_address, *fingerprint, *certificate;
};

/* What the backup says of a host, as to be shown; borrowed, NULL if it has no
 * such host. */
const char *restore_host_address(const struct store *s, const char *uuid);
const char *restore_peer_address(const struct store *s, const char *uuid);
const char *restore_pool_uuid(const struct store *s);
/* "uuid  name" of each host, a line each. */
void restore_list_hosts(const struct store *s, struct buf *b);

/* Ends what was under way (sessions, tasks, jobs), makes the host the only
 * member of the pool, and its master. Rows of other hosts and their VMs stay: a
 * host takes them up again when it joins. 0, or -EINVAL and a reason. */
int restore_prepare(struct store *s, const struct restore_host *h, char *why,
		    size_t why_size);

#endif
