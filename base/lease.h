/* Something that one thread holds until it is over, and that another one, which
 * gave it out, counts. Each side has one reference; no lock, no call back.
 */
#ifndef BASE_LEASE_H
#define BASE_LEASE_H

#include "base/util.h"

struct lease;

/* For both sides. */
struct lease *lease_new(void);
/* One side has done with it; NULL is fine. */
void lease_release(struct lease *l);
/* Has the other side still got it? */
bool lease_is_held(const struct lease *l);

#endif
