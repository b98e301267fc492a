/* What a host is, as its own kernel tells: pure readers of /proc's texts, and
 * one that reads them. Fields that the text does not tell stay as they are. */
#ifndef XEN_HOST_FACTS_H
#define XEN_HOST_FACTS_H

#include "xen/xen_ops.h"

/* /proc/cpuinfo: the first processor's model, vendor, family, model number,
 * stepping, flags and MHz. */
void host_facts_cpuinfo(struct xen_host *h, const char *text);
/* /proc/stat: Unix seconds of the boot, 0 when it does not tell. */
int64_t host_facts_boot_time(const char *text);
/* Both from this machine, and the kernel's release and boot id. */
void host_facts_learn(struct xen_host *h);

#endif
