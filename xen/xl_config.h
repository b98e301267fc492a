/* From a VM's configuration to libxl's: pure, no Xen needed.
 *
 * libxl runs as root and takes paths, program names and devices of the host in
 * many of its fields. Nothing of a VM gets there but by the tables in
 * xl_config.c: platform keys that are not in them never reach the domain, and a
 * value that would open a file or run a program is refused.
 */
#ifndef XEN_XL_CONFIG_H
#define XEN_XL_CONFIG_H

#include <libxl.h>

#include "xen/domain_config.h"

/* Whom libxl counts from: QEMU of domain N runs as this user's number plus N. */
#define XL_DM_USER "xen-qemuuser-range-base"
/* Where QEMU's VNC servers are, each a socket that is named by the VM's uuid. */
#define XL_VNC_DIR "/run/xen/xenpool-vnc"

/* The domain's name is the VM's uuid: libxl's names are unique and end up in
 * command lines, a VM's label is and should neither. Its QEMU, if it has one,
 * has no rights unless dm_root. False, and in reason which member is why; ret is
 * the caller's to dispose in either case. */
bool xl_config_make(const struct domain_config *c, bool dm_root,
		    libxl_domain_config *ret, char *reason,
		    size_t reason_size);
/* Can a machine with a QEMU without rights have this disk? NULL, or why not. */
const char *xl_config_disk_problem(const struct domain_disk *d);
/* One device; ret is initialised here and the caller's to dispose. */
void xl_config_disk(enum domain_type type, const struct domain_disk *d,
		    libxl_device_disk *ret);
void xl_config_nic(enum domain_type type, const struct domain_vif *v,
		   libxl_device_nic *ret);
/* The first n of max; the map is the caller's to dispose. */
void xl_config_vcpus(libxl_bitmap *ret, uint32_t n, uint32_t max);
/* "xvda"; a machine with emulated disks knows the first four as hda.. */
void xl_config_vdev(enum domain_type type, uint32_t number, char out[16]);

#endif
