/* Domains of a host that are no VM's there: somebody made them behind the
 * pool's back, or a restored backup does not know their VMs yet. Nothing here
 * touches them; the pool is told.
 *
 * They stand in other_config of the host's row:
 *   foreign_domain:<uuid>  "domid 7 since 20260505T12:00:00Z" (seen first)
 *   foreign_domains        how many there are, also those without a key
 * and each that gets a key is named by a message FOREIGN_DOMAIN on the host. At
 * most FOREIGN_MAX have keys, and the row changes every FOREIGN_EVERY_MS at
 * most, however many come and go.
 */
#ifndef POOL_FOREIGN_H
#define POOL_FOREIGN_H

#include "pool/core.h"

#define FOREIGN_MAX 16
#define FOREIGN_EVERY_MS 10000

struct foreign {
	const char *uuid; /* borrowed from the row */
	int64_t domid;
	char since[DATE_LEN + 1];
};

/* domains: those of an executor's `state` that are foreign, as a set of its
 * structs. True when this host's row does not say so and may be changed now;
 * act changes it. */
bool foreign_note(struct pool *p, const struct value *domains, bool act);
/* The n-th of a host's, in no order that means something; false: no more. */
bool foreign_at(const struct record *host, unsigned n, struct foreign *ret);
/* How many there are on the host, which may be more than have keys. */
int64_t foreign_count(const struct record *host);

#endif
