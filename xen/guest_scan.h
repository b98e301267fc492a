/* What a guest tells of itself, read from its directory in xenstore: a pure
 * machine that names the next node to look at, is given what is there, and
 * makes guest metrics of it. No I/O, clock or global state.
 *
 * The guest owns these nodes and may write anything, as often and as much as
 * xenstored lets it. Whatever is there, a scan
 *   looks at no more than GUEST_MAX_STEPS nodes,
 *   keeps no more than GUEST_MAX_FACTS strings and GUEST_MAX_BYTES bytes,
 *   and gives only text that text_valid() takes, addresses that parse, and
 *   numbers that are numbers.
 * What does not fit is left out; the rest counts all the same.
 *
 * Nodes (relative to /local/domain/<domid>) and fields are those that agents
 * for XenServer write and that the class VM_guest_metrics speaks of:
 *   attr/PVAddons/{Major,Minor,Micro,Build}Version     PV_drivers_version
 *   data/os_{name,uname,distro,majorver,minorver}      os_version
 *   data/{host_name,domain}                            netbios_name
 *   data/meminfo_{total,free}                          memory (KiB)
 *   attr/vif/N/ipv4/I, attr/vif/N/ipv6/I, attr/ethN/ip,
 *   attr/ethN/ipv6/I/addr                              networks
 *   control/NAME, data/cant_suspend_reason             other
 *   feature/hotplug/{vbd,vif}                          can_use_hotplug_*
 *   device/{vbd,vif}/N/state                           PV_drivers_detected
 */
#ifndef XEN_GUEST_SCAN_H
#define XEN_GUEST_SCAN_H

#include "schema/value.h"

#define GUEST_MAX_STEPS 256
#define GUEST_MAX_FACTS 160
#define GUEST_MAX_BYTES 8192
#define GUEST_MAX_VALUE 512 /* bytes of one value; longer ones are left out */
#define GUEST_MAX_NAME 64   /* ... of one node's name */
#define GUEST_MAX_PATH 160

enum guest_ask { GUEST_DONE, GUEST_READ, GUEST_LIST };

struct guest_scan;

struct guest_scan *guest_scan_new(void);
void guest_scan_free(struct guest_scan *s);

/* Forgets the scan before. */
void guest_scan_begin(struct guest_scan *s);
/* What to look at next; *ret_path is borrowed until the answer. Each question
 * but GUEST_DONE wants one answer of its kind. */
enum guest_ask guest_scan_next(struct guest_scan *s, const char **ret_path);
/* p NULL: there is no such node. Need not end with a NUL; borrowed. */
void guest_scan_read(struct guest_scan *s, const char *p, size_t n);
void guest_scan_list(struct guest_scan *s, const char *const *names, size_t n);
/* The metrics as the message `guest` carries them (see protocol.h), owned by
 * the caller; NULL when the guest has told nothing. */
struct value *guest_scan_end(struct guest_scan *s);

#endif
