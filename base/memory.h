/* How much memory there is for us. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include "base/util.h"

/* Bytes that this process can get without swapping, as the kernel estimates
 * them (MemAvailable), or what its cgroup (v2) leaves it, if that is less.
 * UINT64_MAX when neither is known. Reads /proc: not for hot paths. */
uint64_t memory_available(void);

#endif
