/* The reader of guests' nodes in xenstore: a process of its own that holds one
 * connection to xenstored and nothing else of the host's. What guests wrote is
 * touched by no other process of ours before it went through guest_scan.
 *
 * It finds the guests by itself (xenstored tells of new and gone domains), has
 * watches on the folders that a scan reads, and gives each guest the attention
 * that guest_pace allows: when a guest writes more than that, its watches are
 * taken down, so that xenstored has nothing to tell of it. When the process
 * grows beyond its limit all the same (libxenstore keeps what it could not hand
 * over), it dies, and is begun again by the executor.
 */
#ifndef XEN_XS_WATCH_H
#define XEN_XS_WATCH_H

#include "base/util.h"

/* Serves until the socket's other side is closed: packets {type=guest, vm,
 * domid, metrics}. Once connected it goes into the sandbox: with root as its root
 * folder, as that user (see sandbox.h). Exit status. */
int xs_watch_main(int socket, const char *root, const char *user);

#endif
