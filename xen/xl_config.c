#include "xen/xl_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is being made, and its first complaint. */
struct making {
	const struct domain_config *c;
	bool dm_root;
	libxl_domain_config *ret;
	const char *key; /* of platform, while its setter runs */
	char *reason;
	size_t size;
	bool failed;
};

static void refuse(struct making *m, const char *member, const char *value,
		   const char *why)
{
	if (!m->failed)
		snprintf(m->reason, m->size, "%s: \"%.40s\" %s", member, value,
			 why);
	m->failed = true;
}

/* ---- platform keys ---- */

static void refuse_key(struct making *m, const char *value, const char *why)
{
	char member[96];

	snprintf(member, sizeof(member), "platform:%s", m->key);
	refuse(m, member, value, why);
}

static bool parse_bool(struct making *m, const char *v, bool *ret)
{
	static const char *const yes[] = { "true", "1", "yes", "on" };
	static const char *const no[] = { "false", "0", "no", "off", "" };

	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		if (!strcmp(v, yes[i]))
			return *ret = true, true;
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (!strcmp(v, no[i]))
			return *ret = false, true;
	refuse_key(m, v, "is not true or false");
	return false;
}

static bool parse_number(struct making *m, const char *v, int64_t min,
			 int64_t max, int64_t *ret)
{
	if (int_parse(v, strlen(v), ret) && *ret >= min && *ret <= max)
		return true;
	refuse_key(m, v, "is not a number that it can be");
	return false;
}

static void set_bool(struct making *m, const char *v, libxl_defbool *field)
{
	bool b;

	if (parse_bool(m, v, &b))
		libxl_defbool_set(field, b);
}

/* Setters of keys that are a defbool of b_info.u.hvm or of b_info. */
#define HVM_BOOL(name, field)                                            \
	static void set_##name(struct making *m, const char *v)          \
	{                                                                \
		set_bool(m, v, &m->ret->b_info.field);                   \
	}
HVM_BOOL(acpi, acpi)
HVM_BOOL(apic, apic)
HVM_BOOL(nested, nested_hvm)
HVM_BOOL(pae, u.hvm.pae)
HVM_BOOL(nx, u.hvm.nx)
HVM_BOOL(hpet, u.hvm.hpet)
HVM_BOOL(viridian, u.hvm.viridian)
HVM_BOOL(usb, u.hvm.usb)
HVM_BOOL(acpi_s3, u.hvm.acpi_s3)
HVM_BOOL(acpi_s4, u.hvm.acpi_s4)
HVM_BOOL(laptop_slate, u.hvm.acpi_laptop_slate)

static void set_usb_tablet(struct making *m, const char *v)
{
	bool b;

	if (parse_bool(m, v, &b) && b)
		m->ret->b_info.u.hvm.usbdevice = xstrdup("tablet");
}

static void set_vga(struct making *m, const char *v)
{
	static const struct {
		const char *name;
		libxl_vga_interface_type kind;
	} kinds[] = {
		{ "std", LIBXL_VGA_INTERFACE_TYPE_STD },
		{ "cirrus", LIBXL_VGA_INTERFACE_TYPE_CIRRUS },
		{ "none", LIBXL_VGA_INTERFACE_TYPE_NONE },
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (!strcmp(v, kinds[i].name)) {
			m->ret->b_info.u.hvm.vga.kind = kinds[i].kind;
			return;
		}
	refuse_key(m, v, "is not std, cirrus or none");
}

static void set_videoram(struct making *m, const char *v)
{
	int64_t mib;

	if (parse_number(m, v, 4, 256, &mib))
		m->ret->b_info.video_memkb = (uint64_t)mib << 10;
}

static void set_mmio_size(struct making *m, const char *v)
{
	int64_t mib;

	if (parse_number(m, v, 256, 3840, &mib))
		m->ret->b_info.u.hvm.mmio_hole_memkb = (uint64_t)mib << 10;
}

static void set_timeoffset(struct making *m, const char *v)
{
	int64_t s, max = 100ll * 366 * 86400;

	if (parse_number(m, v, -max, max, &s)) {
		free(m->ret->b_info.u.hvm.timeoffset);
		m->ret->b_info.u.hvm.timeoffset = xstrdup(v);
	}
}

static void set_tsc_mode(struct making *m, const char *v)
{
	int64_t i;

	if (parse_number(m, v, 0, 2, &i))
		m->ret->b_info.tsc_mode = (libxl_tsc_mode)i;
}

/* A device model would open what this names: a file, a socket, a program. */
static void set_serial(struct making *m, const char *v)
{
	if (!strcmp(v, "pty"))
		m->ret->b_info.u.hvm.serial = xstrdup(v);
	else if (strcmp(v, "none") && *v)
		refuse_key(m, v, "is not pty or none");
}

static void only_none(struct making *m, const char *v)
{
	if (strcmp(v, "none") && *v)
		refuse_key(m, v, "is not none");
}

/* A profile's name, never a program: libxl's own one is run. */
static void only_profile(struct making *m, const char *v)
{
	static const char *const known[] = {
		"", "qemu-upstream", "qemu-upstream-compat",
		"qemu-upstream-uefi", "qemu-trad",
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strcmp(v, known[i]))
			return;
	refuse_key(m, v, "is not a known device model profile");
}

static void set_firmware_uuid(struct making *m, const char *v)
{
	char uuid[UUID_LEN + 1];

	if (!domain_uuid(v, uuid))
		refuse_key(m, v, "is not a uuid");
	else
		libxl_uuid_from_string(
			(libxl_uuid *)m->ret->b_info.u.hvm.ms_vm_genid.bytes,
			uuid);
}

enum { ANY = -1 };

static const struct key {
	const char *name;
	int type; /* of the domain, or ANY */
	void (*set)(struct making *m, const char *value);
} keys[] = {
	{ "acpi", DOMAIN_HVM, set_acpi },
	{ "acpi_laptop_slate", DOMAIN_HVM, set_laptop_slate },
	{ "acpi_s3", DOMAIN_HVM, set_acpi_s3 },
	{ "acpi_s4", DOMAIN_HVM, set_acpi_s4 },
	{ "apic", DOMAIN_HVM, set_apic },
	{ "device-model", ANY, only_profile },
	{ "exp-nested-hvm", DOMAIN_HVM, set_nested },
	{ "generation-id", DOMAIN_HVM, set_firmware_uuid },
	{ "hpet", DOMAIN_HVM, set_hpet },
	{ "hvm_serial", DOMAIN_HVM, set_serial },
	{ "mmio_size_mib", DOMAIN_HVM, set_mmio_size },
	{ "nested-virt", DOMAIN_HVM, set_nested },
	{ "nx", DOMAIN_HVM, set_nx },
	{ "pae", DOMAIN_HVM, set_pae },
	{ "parallel", ANY, only_none },
	{ "timeoffset", DOMAIN_HVM, set_timeoffset },
	{ "tsc_mode", ANY, set_tsc_mode },
	{ "usb", DOMAIN_HVM, set_usb },
	{ "usb_tablet", DOMAIN_HVM, set_usb_tablet },
	{ "vga", DOMAIN_HVM, set_vga },
	{ "videoram", DOMAIN_HVM, set_videoram },
	{ "viridian", DOMAIN_HVM, set_viridian },
};

static void make_platform(struct making *m)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const struct value *v = value_get(m->c->platform, keys[i].name);

		if (!v || (keys[i].type != ANY &&
			   keys[i].type != (int)m->c->type))
			continue;
		m->key = keys[i].name;
		keys[i].set(m, value_str(v));
	}
}

/* ---- the rest of the machine ---- */

static const libxl_action_on_shutdown actions[] = {
	[DOMAIN_DESTROY] = LIBXL_ACTION_ON_SHUTDOWN_DESTROY,
	[DOMAIN_RESTART] = LIBXL_ACTION_ON_SHUTDOWN_RESTART,
	[DOMAIN_PRESERVE] = LIBXL_ACTION_ON_SHUTDOWN_PRESERVE,
	[DOMAIN_RENAME_RESTART] = LIBXL_ACTION_ON_SHUTDOWN_RESTART_RENAME,
	[DOMAIN_COREDUMP_DESTROY] = LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_DESTROY,
	[DOMAIN_COREDUMP_RESTART] = LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_RESTART,
};

/* xenstore's own rule for paths, and nothing outside the guest's own part. */
static bool guest_key_valid(const char *k)
{
	if (strncmp(k, "vm-data/", 8) && strncmp(k, "FIST/", 5))
		return false;
	return strlen(k) < 256 && k[strlen(k) - 1] != '/' &&
	       !strstr(k, "//") &&
	       strspn(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789-/_@") == strlen(k);
}

static void make_xenstore(struct making *m)
{
	const struct value *map = m->c->xenstore;
	libxl_key_value_list l = xcalloc(2 * (size_t)map->n + 1, sizeof(*l));

	for (uint32_t i = 0; i < map->n; i++) {
		const char *key = value_str(map->items[2 * i]);

		if (!guest_key_valid(key))
			refuse(m, "xenstore", key, "cannot be a guest's key");
		l[2 * i] = xstrdup(key);
		l[2 * i + 1] = xstrdup(value_str(map->items[2 * i + 1]));
	}
	m->ret->c_info.xsdata = l;
}

void xl_config_vcpus(libxl_bitmap *ret, uint32_t n, uint32_t max)
{
	ret->size = (max + 7) / 8;
	ret->map = xcalloc(1, ret->size);
	for (uint32_t i = 0; i < n; i++)
		ret->map[i / 8] |= (uint8_t)(1u << (i % 8));
}

static void make_vcpus(struct making *m)
{
	m->ret->b_info.max_vcpus = (int)m->c->vcpus_max;
	xl_config_vcpus(&m->ret->b_info.avail_vcpus, m->c->vcpus,
			m->c->vcpus_max);
}

static char *given(const char *s)
{
	return *s ? xstrdup(s) : NULL;
}

static void make_boot(struct making *m)
{
	libxl_domain_build_info *b = &m->ret->b_info;
	const struct domain_config *c = m->c;

	if (c->type == DOMAIN_HVM)
		return;
	b->kernel = given(c->kernel);
	b->ramdisk = given(c->ramdisk);
	b->cmdline = given(c->args);
	/* By name: libxl finds it among its own programs. */
	if (!strcmp(c->bootloader, "pygrub") && !b->kernel)
		b->bootloader = xstrdup("pygrub");
	else if (*c->bootloader && strcmp(c->bootloader, "pygrub"))
		refuse(m, "bootloader", c->bootloader, "is not pygrub");
	if (!b->kernel && !b->bootloader)
		refuse(m, "kernel", "", "is missing, and no bootloader given");
}

static void make_hvm(struct making *m)
{
	const char *order = value_get_str(m->c->hvm_boot, "order");
	const char *firmware = value_get_str(m->c->hvm_boot, "firmware");
	libxl_domain_build_info *b = &m->ret->b_info;

	if (strspn(order, "acdn") != strlen(order) || strlen(order) > 4)
		refuse(m, "hvm_boot:order", order, "is not of a, c, d, n");
	else
		b->u.hvm.boot = xstrdup(*order ? order : "cd");
	if (!strcmp(firmware, "uefi"))
		b->u.hvm.bios = LIBXL_BIOS_TYPE_OVMF;
	else if (!*firmware || !strcmp(firmware, "bios"))
		b->u.hvm.bios = LIBXL_BIOS_TYPE_SEABIOS;
	else
		refuse(m, "hvm_boot:firmware", firmware,
		       "is not bios or uefi");
	b->device_model_version = LIBXL_DEVICE_MODEL_VERSION_QEMU_XEN;
	/* Its own user, an empty root folder, no privileges, and the hypervisor
	 * for this one domain only. */
	libxl_defbool_set(&b->dm_restrict, !m->dm_root);
	/* No port: whoever is on this host, and another guest's QEMU first of
	 * all, could connect to it. */
	libxl_defbool_set(&b->u.hvm.vnc.enable, true);
	libxl_defbool_set(&b->u.hvm.vnc.findunused, false);
	b->u.hvm.vnc.listen = xasprintf("unix:" XL_VNC_DIR "/%s", m->c->uuid);
	libxl_defbool_set(&b->u.hvm.sdl.enable, false);
	libxl_defbool_set(&b->u.hvm.spice.enable, false);
}

/* No more than was promised, in whole MiB: libxl 4.17 does not build a PVH guest
 * of any other size ("can't allocate low memory"), however much is free. */
static uint64_t whole_memkb(uint64_t bytes)
{
	return bytes >> 20 << 10;
}

static void make_general(struct making *m)
{
	static const libxl_domain_type types[] = {
		[DOMAIN_HVM] = LIBXL_DOMAIN_TYPE_HVM,
		[DOMAIN_PV] = LIBXL_DOMAIN_TYPE_PV,
		[DOMAIN_PVH] = LIBXL_DOMAIN_TYPE_PVH,
	};
	libxl_domain_config *r = m->ret;
	const struct domain_config *c = m->c;

	r->c_info.type = types[c->type];
	r->c_info.name = xstrdup(c->uuid);
	if (libxl_uuid_from_string(&r->c_info.uuid, c->uuid))
		refuse(m, "uuid", c->uuid, "is not a uuid");
	libxl_defbool_set(&r->c_info.run_hotplug_scripts, true);
	libxl_domain_build_info_init_type(&r->b_info, types[c->type]);
	r->b_info.max_memkb = whole_memkb(c->memory_static_max);
	r->b_info.target_memkb = whole_memkb(c->memory_target);
	/* Of two that are built at once, the second is told that there is no
	 * memory left, before either has filled it. */
	libxl_defbool_set(&r->b_info.claim_mode, true);
	r->on_poweroff = actions[c->on_shutdown];
	r->on_reboot = actions[c->on_reboot];
	r->on_crash = r->on_watchdog = actions[c->on_crash];
}

/* ---- devices ---- */

void xl_config_vdev(enum domain_type type, uint32_t number, char out[16])
{
	if (type == DOMAIN_HVM && number < 4)
		snprintf(out, 16, "hd%c", (char)('a' + number));
	else if (number < 26)
		snprintf(out, 16, "xvd%c", (char)('a' + number));
	else
		snprintf(out, 16, "xvd%c%c", (char)('a' + number / 26 - 1),
			 (char)('a' + number % 26));
}

void xl_config_disk(enum domain_type type, const struct domain_disk *d,
		    libxl_device_disk *ret)
{
	static const libxl_disk_format formats[] = {
		[DISK_RAW] = LIBXL_DISK_FORMAT_RAW,
		[DISK_QCOW2] = LIBXL_DISK_FORMAT_QCOW2,
		[DISK_VHD] = LIBXL_DISK_FORMAT_VHD,
	};
	char vdev[16];

	libxl_device_disk_init(ret);
	xl_config_vdev(type, d->number, vdev);
	ret->vdev = xstrdup(vdev);
	ret->pdev_path = given(d->path);
	ret->format = *d->path ? formats[d->format] : LIBXL_DISK_FORMAT_EMPTY;
	ret->readwrite = !d->readonly;
	ret->is_cdrom = d->cdrom;
	ret->removable = d->cdrom;
	/* QEMU is given the loop device that the script makes, not the file: it
	 * may write no file beyond 256 KiB. */
	if (type == DOMAIN_HVM && !d->cdrom && d->format == DISK_RAW)
		ret->script = xstrdup("block");
}

const char *xl_config_disk_problem(const struct domain_disk *d)
{
	if (!d->cdrom && d->format != DISK_RAW)
		return "is not raw, and QEMU without root's rights cannot "
		       "write it";
	return NULL;
}

void xl_config_nic(enum domain_type type, const struct domain_vif *v,
		   libxl_device_nic *ret)
{
	uint8_t *mac;

	libxl_device_nic_init(ret);
	mac = ret->mac;
	ret->devid = (libxl_devid)v->number;
	for (size_t i = 0; i < 6; i++)
		hex_decode(v->mac + 3 * i, 2, &mac[i]);
	ret->bridge = xstrdup(v->bridge);
	ret->mtu = (int)v->mtu;
	/* A vif without an emulated twin, unless the machine is emulated. */
	ret->nictype = type == DOMAIN_HVM ? LIBXL_NIC_TYPE_VIF_IOEMU
					     : LIBXL_NIC_TYPE_VIF;
}

/* What libxl or QEMU would find out half-way, or not at all. */
static void check_disks(struct making *m)
{
	for (size_t i = 0; i < m->c->n_disks; i++) {
		const struct domain_disk *d = &m->c->disks[i];
		const char *why = NULL;

		if (!m->dm_root)
			why = xl_config_disk_problem(d);
		if (d->readonly && !d->cdrom && d->number < 4)
			why = "is read-only, and an emulated disk cannot be";
		if (why)
			refuse(m, "disks", d->path, why);
	}
}

static void make_devices(struct making *m)
{
	const struct domain_config *c = m->c;

	if (c->type == DOMAIN_HVM)
		check_disks(m);
	m->ret->disks = xcalloc(c->n_disks + 1, sizeof(*m->ret->disks));
	for (size_t i = 0; i < c->n_disks; i++) {
		/* What libxl cannot do, it would find out half-way. */
		if (c->disks[i].cdrom && c->type != DOMAIN_HVM &&
		    !*c->disks[i].path)
			continue;
		xl_config_disk(c->type, &c->disks[i],
			       &m->ret->disks[m->ret->num_disks++]);
	}
	m->ret->nics = xcalloc(c->n_vifs + 1, sizeof(*m->ret->nics));
	for (size_t i = 0; i < c->n_vifs; i++)
		xl_config_nic(c->type, &c->vifs[i],
			      &m->ret->nics[m->ret->num_nics++]);
}

bool xl_config_make(const struct domain_config *c, bool dm_root,
		    libxl_domain_config *ret, char *reason, size_t reason_size)
{
	struct making m = { .c = c, .dm_root = dm_root, .ret = ret,
			    .reason = reason, .size = reason_size };

	libxl_domain_config_init(ret);
	make_general(&m);
	make_vcpus(&m);
	make_boot(&m);
	if (c->type == DOMAIN_HVM)
		make_hvm(&m);
	make_platform(&m);
	make_xenstore(&m);
	make_devices(&m);
	return !m.failed;
}
