/* Looks at the hypervisor from a thread of its own: it may take long to answer,
 * and the executor's main thread has jobs to take and results to send meanwhile.
 *
 * What was seen may be old by the time that it is there. The asker passes a stamp
 * with the question, gets it back with the answer, and asks again when the answer
 * is too old for it. */
#ifndef XEN_LOOKER_H
#define XEN_LOOKER_H

#include "xen/xen_ops.h"

struct looker;

struct look {
	int error; /* negative errno: nothing below is set */
	uint64_t stamp;
	struct xen_domain *domains; /* the taker's to free() */
	size_t n;
	struct xen_host host;
};

/* wake: from the looker's thread, when there is something to take. */
int looker_start(const struct xen_ops *ops, struct xen *xen,
		 void (*wake)(void *data), void *data, struct looker **ret);
/* Waits for the look that is under way. */
void looker_stop(struct looker *l);
/* Begins a look unless one is under way or waits to be taken. */
void looker_ask(struct looker *l, uint64_t stamp);
/* False: none there. */
bool looker_take(struct looker *l, struct look *ret);

#endif
