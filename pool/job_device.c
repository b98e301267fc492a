/* A VM's drives and cards as the executor's configuration has them. */
#include <ctype.h>
#include <string.h>

#include "pool/job.h"
#include "pool/storage.h"

/* ---- disks ---- */

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

/* Never by what is in it: that is the guest's to write. */
static const char *format_of(const char *name)
{
	return ends_in(name, ".qcow2") ? "qcow2" :
	       ends_in(name, ".vhd") ? "vhd" : "raw";
}

/* The folder of the SR on this host, "" when it is not plugged there. */
static const char *folder_of(const struct store *s, const struct record *sr,
			     const struct record *host)
{
	const struct value *pbds = sr->fields[F_SR_PBDs];

	for (uint32_t i = 0; host && i < pbds->n; i++) {
		const struct record *pbd = store_get_class(
			s, CLASS_PBD, value_str(pbds->items[i]));

		if (pbd && record_bool(pbd, F_PBD_currently_attached) &&
		    value_equal(pbd->fields[F_PBD_host], host->ref))
			return value_get_str(pbd->fields[F_PBD_device_config],
					     "location");
	}
	return "";
}

static struct value *disk_of(const struct record *vbd, const char *folder,
			     const char *name)
{
	_cleanup_(freep) char *path = *folder ?
		xasprintf("%s/%s", folder, name) : xstrdup("");
	bool cd = value_is_str(vbd->fields[F_VBD_type], "CD");
	bool rw = value_is_str(vbd->fields[F_VBD_mode], "RW");

	return value_struct_of(
		"number",
		value_int(vbd_number(record_str(vbd, F_VBD_userdevice))),
		"path", value_stringz(path),
		"format", value_stringz(format_of(name)),
		"readonly", value_bool(!rw), "cdrom", value_bool(cd), NULL);
}

struct value *job_disk(const struct store *s, const struct record *vbd,
		       const char *vdi_ref, const struct record *host)
{
	const struct record *vdi = store_get_class(s, CLASS_VDI, vdi_ref);
	const struct record *sr = vdi ? store_get_class(
		s, CLASS_SR, record_str(vdi, F_VDI_SR)) : NULL;

	if (value_is_str(vbd->fields[F_VBD_type], "Floppy") ||
	    vbd_number(record_str(vbd, F_VBD_userdevice)) < 0)
		return NULL;
	if (sr && value_is_str(sr->fields[F_SR_type], SR_FILES))
		return disk_of(vbd, folder_of(s, sr, host),
			       record_str(vdi, F_VDI_location));
	return value_is_str(vbd->fields[F_VBD_type], "CD") ?
		disk_of(vbd, "", "") : NULL;
}

/* ---- cards ---- */

/* What a client said when it made the card is not asked, as in the reference. */
int64_t vif_mtu(const struct store *s, const struct record *vif)
{
	const struct record *network = store_get_class(
		s, CLASS_network, record_str(vif, F_VIF_network));
	const struct value *v = value_get(vif->fields[F_VIF_other_config],
					  "mtu");
	int64_t mtu;

	if (!v || !int_parse(v->s, v->n, &mtu))
		mtu = network ? record_int(network, F_network_MTU) : 0;
	return mtu >= 68 && mtu <= 65521 ? mtu : 1500;
}

struct value *job_vif(const struct store *s, const struct record *vif)
{
	const struct record *network = store_get_class(
		s, CLASS_network, record_str(vif, F_VIF_network));
	int64_t number;

	if (!network || !int_parse(record_str(vif, F_VIF_device),
				   strlen(record_str(vif, F_VIF_device)),
				   &number))
		return NULL;
	return value_struct_of(
		"number", value_int(number),
		"mac", value_ref(vif->fields[F_VIF_MAC]),
		"bridge", value_ref(network->fields[F_network_bridge]),
		"mtu", value_int(vif_mtu(s, vif)), NULL);
}

/* ---- all of a domain ---- */

/* By their numbers: what the domain is given. */
struct devices {
	struct value *at[VM_MAX_DEVICE + 1]; /* owned */
	bool first[VM_MAX_DEVICE + 1];
};

static void put(struct devices *d, struct value *takes_device, bool first)
{
	int64_t n = takes_device ? value_get_int(takes_device, "number", -1) :
				   -1;

	if (n < 0 || n > VM_MAX_DEVICE || d->at[n]) {
		value_unref(takes_device);
		return;
	}
	d->at[n] = takes_device;
	d->first[n] = first;
}

/* Those that come first, then the others, each by number. */
static struct value *take_list(struct devices *d)
{
	struct value *set = value_set_new(VM_MAX_DEVICE + 1);

	set->n = 0;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i <= VM_MAX_DEVICE; i++)
			if (d->at[i] && d->first[i] == !pass)
				set->items[set->n++] = TAKE_PTR(d->at[i]);
	return set;
}

/* A bootloader looks at the first. */
struct value *job_vm_disks(const struct store *s, const struct record *vm,
			   const struct record *host)
{
	const struct value *set = vm->fields[F_VM_VBDs];
	struct devices d = { 0 };

	for (uint32_t i = 0; i < set->n; i++) {
		const struct record *vbd = store_get_class(
			s, CLASS_VBD, value_str(set->items[i]));

		if (vbd && vm_device_is_wanted(vm, vbd,
					       F_VBD_currently_attached))
			put(&d, job_disk(s, vbd, record_str(vbd, F_VBD_VDI),
					 host),
			    record_bool(vbd, F_VBD_bootable));
	}
	return take_list(&d);
}

struct value *job_vm_vifs(const struct store *s, const struct record *vm)
{
	const struct value *set = vm->fields[F_VM_VIFs];
	struct devices d = { 0 };

	for (uint32_t i = 0; i < set->n; i++) {
		const struct record *vif = store_get_class(
			s, CLASS_VIF, value_str(set->items[i]));

		if (vif && vm_device_is_wanted(vm, vif,
					       F_VIF_currently_attached))
			put(&d, job_vif(s, vif), true);
	}
	return take_list(&d);
}
