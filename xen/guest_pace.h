/* How much attention one guest gets: a token bucket, and when to look at it.
 * Pure; times are monotonic ms that the caller gives.
 *
 * Everything that is done because of a guest costs tokens of that guest's own
 * bucket: one for an event of a watch, one for a node read or listed, 20 for a
 * transaction. When it is empty the guest is not listened to any more (its
 * watches are taken down, so that its writes reach nobody) until there is
 * enough for a whole scan again.
 */
#ifndef XEN_GUEST_PACE_H
#define XEN_GUEST_PACE_H

#include "base/util.h"
#include "xen/guest_scan.h"

#define GUEST_TOKENS_MAX 600
#define GUEST_TOKENS_PER_S 64
#define GUEST_COST_TRANSACTION 20
/* A booting guest writes its nodes one by one: they are waited for. */
#define GUEST_GATHER_MS 250

struct guest_pace {
	int64_t tokens; /* thousandths; below 0 after a transaction */
	int64_t at_ms;
	bool dirty;     /* there may be something new, at due_ms */
	int64_t due_ms;
	bool deaf;      /* its watches must be down */
};

/* A new guest is looked at once. */
void guest_pace_init(struct guest_pace *p, int64_t now);
void guest_pace_spend(struct guest_pace *p, int64_t now, unsigned tokens);
/* A watch has fired. */
void guest_pace_event(struct guest_pace *p, int64_t now);
/* It may be scanned now: clears dirty; watches must be up before the scan
 * begins (deaf is cleared too). What the scan does is spent step by step. */
bool guest_pace_due(struct guest_pace *p, int64_t now);
/* Ms until guest_pace_due() may be true; INT64_MAX: not without an event. */
int64_t guest_pace_wait(const struct guest_pace *p, int64_t now);

#endif
