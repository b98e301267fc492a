/* What a VM shall look like as a domain: parsed and checked once from a job's
 * `config`, so that a backend never sees a raw message. */
#ifndef XEN_DOMAIN_CONFIG_H
#define XEN_DOMAIN_CONFIG_H

#include "base/text.h"
#include "schema/value.h"

enum domain_type { DOMAIN_HVM, DOMAIN_PV, DOMAIN_PVH };

enum domain_action {
	DOMAIN_DESTROY,
	DOMAIN_RESTART,
	DOMAIN_PRESERVE,
	DOMAIN_RENAME_RESTART,
	DOMAIN_COREDUMP_DESTROY,
	DOMAIN_COREDUMP_RESTART,
};

#define DOMAIN_MAX_NAME 4096
#define DOMAIN_MAX_PATH 1024
#define DOMAIN_MAX_ARGS 4096
#define DOMAIN_MAX_VCPUS 512
#define DOMAIN_MIN_MEMORY (1ull << 20)
#define DOMAIN_MAX_MEMORY (64ull << 40)
#define DOMAIN_MAX_KEYS 512
#define DOMAIN_MAX_KEY 1024
#define DOMAIN_MAX_ITEM 16384
#define DOMAIN_MAX_DISKS 255
#define DOMAIN_MAX_VIFS 255
#define DOMAIN_MAX_BRIDGE 15 /* a network interface's name */

enum disk_format { DISK_RAW, DISK_QCOW2, DISK_VHD };

struct domain_disk {
	uint32_t number; /* 0 is xvda; its place in the guest */
	char *path;      /* plain absolute; "": an empty drive */
	enum disk_format format;
	bool readonly, cdrom;
};

struct domain_vif {
	uint32_t number;
	char mac[18]; /* aa:bb:cc:dd:ee:ff, lower case */
	char bridge[DOMAIN_MAX_BRIDGE + 1];
	uint32_t mtu; /* 0: the bridge's */
};

struct domain_config {
	char uuid[UUID_LEN + 1]; /* lower case */
	char *name;
	enum domain_type type;
	uint64_t memory_static_max, memory_target; /* bytes; target <= max */
	uint32_t vcpus, vcpus_max;                 /* 1 <= vcpus <= max */
	char *kernel, *ramdisk, *args, *bootloader; /* "" when not given */
	enum domain_action on_shutdown, on_reboot, on_crash;
	/* Maps of string to string, never NULL. */
	struct value *xenstore, *platform, *other_config, *hvm_boot;
	struct domain_disk *disks;
	struct domain_vif *vifs;
	size_t n_disks, n_vifs;
	struct value *source; /* what this was parsed from */
};

/* NULL, and in reason what is wrong with which member ("vcpus: 0 is not in
 * 1..512"). Unknown members are ignored. The result is the caller's. */
struct domain_config *domain_config_parse(const struct value *v, char *reason,
					  size_t reason_size);
void domain_config_free(struct domain_config *c);
void domain_config_freep(struct domain_config **c);

/* One of `disks` or `vifs`; false and a reason as above. A disk's path is the
 * caller's to free. */
bool domain_disk_parse(const struct value *v, struct domain_disk *ret,
		       char *reason, size_t reason_size);
bool domain_vif_parse(const struct value *v, struct domain_vif *ret,
		      char *reason, size_t reason_size);

/* What changes of a domain that lives. */
enum domain_change_kind {
	CHANGE_PLUG_DISK,
	CHANGE_UNPLUG_DISK,
	CHANGE_MEDIUM, /* of a drive; the path "": none */
	CHANGE_PLUG_VIF,
	CHANGE_UNPLUG_VIF,
	CHANGE_MEMORY,
	CHANGE_VCPUS,
};

struct domain_change {
	enum domain_change_kind kind;
	const char *name; /* of the kind, in messages; static */
	struct domain_disk disk;
	struct domain_vif vif;
	/* The device that is unplugged; bytes; virtual CPUs that are up. */
	uint64_t number;
	bool force; /* unplugged also when the guest does not let go */
	const struct value *source; /* what this was parsed from, borrowed */
};

/* One of the kinds, as the job's params name it; false and a reason as above.
 * Freed also then. */
bool domain_change_parse(const struct value *v, struct domain_change *ret,
			 char *reason, size_t reason_size);
void domain_change_deinit(struct domain_change *c);

/* Absolute, and without //, . and .. */
bool domain_path_plain(const char *path);
/* Lower-cases a valid uuid; false when it is none. */
bool domain_uuid(const char *s, char out[UUID_LEN + 1]);

#endif
