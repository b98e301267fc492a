/* What the guests of this host have told last, on its way to the daemon: only
 * the newest of each guest is kept, the same as before is no news, and a guest
 * that tells something else all the time is passed on every GUESTS_GAP_MS.
 */
#ifndef XEN_GUESTS_H
#define XEN_GUESTS_H

#include "xen/xen_ops.h"

#define GUESTS_MAX 4096
#define GUESTS_GAP_MS 2000

struct guests;

/* wake: there is news; any thread. */
struct guests *guests_new(void (*wake)(void *data), void *data);
void guests_free(struct guests *g);

/* Any thread. Takes metrics. */
void guests_report(struct guests *g, const char *vm, uint32_t domid,
		   struct value *metrics);

/* The rest from one thread. */
/* A daemon that knows nothing is here: all is news to it. */
void guests_again(struct guests *g);
/* The domains that there are; what others told is forgotten. */
void guests_keep(struct guests *g, const struct xen_domain *list, size_t n);
/* A message `guest` to be sent now, the caller's reference; or NULL. */
struct value *guests_next(struct guests *g);
/* That one is on its way. */
void guests_told(struct guests *g, const struct value *msg);
/* env_mono_ms() of the next one; INT64_MAX: none. */
int64_t guests_next_at(struct guests *g);

#endif
