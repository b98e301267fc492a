/* What libxl tells of the host. In the watcher process only. */
#ifndef XEN_XL_FACTS_H
#define XEN_XL_FACTS_H

#include <libxl.h>

#include "xen/xen_ops.h"

/* What does not change until the next boot. */
void xl_facts_fixed(libxl_ctx *ctx, struct xen_host *ret);
/* What does, on top of that: memory, processors, dom0. -EIO. */
int xl_facts_now(libxl_ctx *ctx, struct xen_host *h);

#endif
