/* Changes of a domain that lives: devices, memory, virtual CPUs. What is as
 * wanted already is left as it is. */
#include <inttypes.h>
#include <libxl_utils.h>
#include <stdio.h>

#include "base/log.h"
#include "xen/xl_config.h"
#include "xen/xl_worker.h"

struct changing {
	struct xl_worker *w;
	struct domain_change c;
	uint32_t domid;
	enum domain_type type;
};

static const enum domain_type types[] = {
	[LIBXL_DOMAIN_TYPE_HVM] = DOMAIN_HVM,
	[LIBXL_DOMAIN_TYPE_PV] = DOMAIN_PV,
	[LIBXL_DOMAIN_TYPE_PVH] = DOMAIN_PVH,
};

static int failed(struct changing *g, const char *what, int rc)
{
	return rc ? xl_fail_libxl(g->w, what, rc) : 0;
}

static int fail_detach(struct changing *g, const char *class, int rc)
{
	char number[24];

	if (rc != ERROR_TIMEDOUT && rc != ERROR_GUEST_TIMEDOUT)
		return failed(g, "take the device away", rc);
	snprintf(number, sizeof(number), "%" PRIu64, g->c.number);
	return xl_fail(g->w, "DEVICE_DETACH_TIMEOUT", class, number);
}

/* ---- disks ---- */

static bool find_disk(struct changing *g, uint32_t number,
		      libxl_device_disk *ret)
{
	char vdev[16];

	xl_config_vdev(g->type, number, vdev);
	libxl_device_disk_init(ret);
	if (libxl_vdev_to_device_disk(g->w->ctx, g->domid, vdev, ret) == 0)
		return true;
	libxl_device_disk_dispose(ret);
	return false;
}

static int plug_disk(struct changing *g)
{
	const char *why = xl_config_disk_problem(&g->c.disk);
	libxl_device_disk disk;
	int rc;

	/* There are no empty drives but emulated ones. */
	if (!*g->c.disk.path && g->type != DOMAIN_HVM)
		return 0;
	if (find_disk(g, g->c.disk.number, &disk)) {
		libxl_device_disk_dispose(&disk);
		return 0;
	}
	if (why && xl_is_restricted(g->w, g->domid))
		return xl_fail(g->w, "INVALID_VALUE", "disk", why);
	xl_config_disk(g->type, &g->c.disk, &disk);
	rc = libxl_device_disk_add(g->w->ctx, g->domid, &disk, NULL);
	libxl_device_disk_dispose(&disk);
	return failed(g, "attach the disk", rc);
}

static int unplug_disk(struct changing *g)
{
	libxl_device_disk disk;
	int rc;

	if (!find_disk(g, (uint32_t)g->c.number, &disk))
		return 0;
	rc = g->c.force ? libxl_device_disk_destroy(g->w->ctx, g->domid, &disk,
						    NULL)
			: libxl_device_disk_safe_remove(g->w->ctx, g->domid,
							&disk, NULL);
	libxl_device_disk_dispose(&disk);
	return fail_detach(g, "VBD", rc);
}

/* A guest whose drives are not emulated gets and loses the disk as a whole. */
static int set_medium(struct changing *g)
{
	libxl_device_disk disk;
	int rc;

	g->c.number = g->c.disk.number;
	if (g->type != DOMAIN_HVM)
		return *g->c.disk.path ? plug_disk(g) : unplug_disk(g);
	xl_config_disk(g->type, &g->c.disk, &disk);
	rc = libxl_cdrom_insert(g->w->ctx, g->domid, &disk, NULL);
	libxl_device_disk_dispose(&disk);
	return failed(g, "change the medium", rc);
}

/* ---- cards ---- */

static bool find_nic(struct changing *g, uint32_t number,
		     libxl_device_nic *ret)
{
	libxl_device_nic_init(ret);
	if (libxl_devid_to_device_nic(g->w->ctx, g->domid, (int)number,
				      ret) == 0)
		return true;
	libxl_device_nic_dispose(ret);
	return false;
}

static int plug_vif(struct changing *g)
{
	libxl_device_nic nic;
	int rc;

	if (find_nic(g, g->c.vif.number, &nic)) {
		libxl_device_nic_dispose(&nic);
		return 0;
	}
	xl_config_nic(g->type, &g->c.vif, &nic);
	rc = libxl_device_nic_add(g->w->ctx, g->domid, &nic, NULL);
	libxl_device_nic_dispose(&nic);
	return failed(g, "attach the network card", rc);
}

/* libxl does not say when it used force: it does after ten seconds. */
static int unplug_vif(struct changing *g)
{
	libxl_device_nic nic;
	int rc;

	if (!find_nic(g, (uint32_t)g->c.number, &nic))
		return 0;
	rc = g->c.force ? libxl_device_nic_destroy(g->w->ctx, g->domid, &nic,
						   NULL)
			: libxl_device_nic_remove(g->w->ctx, g->domid, &nic,
						  NULL);
	libxl_device_nic_dispose(&nic);
	return fail_detach(g, "VIF", rc);
}

/* ---- sizes ---- */

/* The guest's balloon is told; it gives and takes when it likes, and never has
 * more. */
static int set_memory(struct changing *g)
{
	int64_t whole_memkb = (int64_t)(g->c.number >> 20 << 10);

	return failed(g, "change the guest's memory",
		      libxl_set_memory_target(g->w->ctx, g->domid, whole_memkb,
					      0, 1));
}

static int set_vcpus(struct changing *g)
{
	libxl_bitmap map;
	libxl_dominfo info;
	uint32_t max;
	int rc;

	libxl_dominfo_init(&info);
	rc = libxl_domain_info(g->w->ctx, &info, g->domid);
	max = rc ? 0 : info.vcpu_max_id + 1;
	libxl_dominfo_dispose(&info);
	if (rc)
		return failed(g, "tell the domain's CPUs", rc);
	if (g->c.number > max)
		return xl_fail(g->w, "INVALID_VALUE", "vcpus",
			       "more than the domain can have");
	xl_config_vcpus(&map, (uint32_t)g->c.number, max);
	rc = libxl_set_vcpuonline(g->w->ctx, g->domid, &map, NULL);
	libxl_bitmap_dispose(&map);
	return failed(g, "change the number of CPUs", rc);
}

/* ---- the operation ---- */

static int change(struct changing *g)
{
	static int (*const kinds[])(struct changing *g) = {
		[CHANGE_PLUG_DISK] = plug_disk,
		[CHANGE_UNPLUG_DISK] = unplug_disk,
		[CHANGE_MEDIUM] = set_medium,
		[CHANGE_PLUG_VIF] = plug_vif,
		[CHANGE_UNPLUG_VIF] = unplug_vif,
		[CHANGE_MEMORY] = set_memory,
		[CHANGE_VCPUS] = set_vcpus,
	};
	enum xl_look look = xl_look(g->w, &g->domid);
	libxl_domain_type type;

	if (look != XL_RUNNING && look != XL_PAUSED)
		return xl_fail_state(g->w, "running", look);
	type = xl_type_of(g->w, g->domid);
	if (type == LIBXL_DOMAIN_TYPE_INVALID)
		return xl_fail_libxl(g->w, "tell the domain's type",
				     ERROR_FAIL);
	g->type = types[type];
	return kinds[g->c.kind](g);
}

/* {change: the job's params} */
int xl_op_change(struct xl_worker *w)
{
	struct changing g = { .w = w, .domid = INVALID_DOMID };
	char reason[160];
	int rc;

	if (domain_change_parse(value_get(w->request, "change"), &g.c, reason,
				sizeof(reason)))
		rc = change(&g);
	else
		rc = xl_fail(w, "INVALID_VALUE", "change", reason);
	domain_change_deinit(&g.c);
	return rc;
}
