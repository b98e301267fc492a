#include "base/lease.h"

#include <stdatomic.h>

struct lease {
	atomic_uint sides;
};

struct lease *lease_new(void)
{
	struct lease *l = xmalloc(sizeof(*l));

	atomic_init(&l->sides, 2);
	return l;
}

void lease_release(struct lease *l)
{
	if (l && atomic_fetch_sub(&l->sides, 1) == 1)
		free(l);
}

bool lease_is_held(const struct lease *l)
{
	return atomic_load(&l->sides) == 2;
}
