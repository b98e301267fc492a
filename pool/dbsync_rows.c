/* The rows that stand for one host, made from a description of it: a map of
 * texts, so that it can travel to another pool. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/storage.h"
#include "raftdb/db.h"

struct pair {
	const char *key, *value;
};

static struct value *map_of_pairs(const struct pair *list, size_t n)
{
	struct value **pairs = xcalloc(2 * n + 1, sizeof *pairs);
	struct value *ret;

	for (size_t i = 0; i < n; i++) {
		pairs[2 * i] = value_stringz(list[i].key);
		pairs[2 * i + 1] = value_stringz(list[i].value);
	}
	ret = value_map_from(pairs, n);
	free(pairs);
	return ret;
}

/* ---- what clients look for in host.software_version ---- */

struct value *dbsync_software_version(const struct pool *p)
{
	const struct value *state = p->hosts ? p->hosts->exec_state : NULL;
	const struct value *host = state ? value_get(state, "host") : NULL;
	const char *xen = host ? value_get_str(host, "xen_version") : "";
	const struct pair list[] = {
		{ "product_brand", "xenpool" },
		{ "product_version", "8.4.0" },
		{ "product_version_text", "8.4" },
		{ "product_version_text_short", "8.4" },
		{ "platform_name", "XCP" },
		{ "platform_version", "3.4.0" },
		{ "build_number", p->cfg.version },
		{ "xapi", "26.17" },
		{ "xapi_build", "26.17.0" },
		{ "xen", *xen ? xen : "unknown" },
		{ "backend", host ? value_get_str(host, "backend") : "" },
		{ "hostname", p->cfg.hostname },
		{ "linux", host ? value_get_str(host, "kernel") : "" },
		{ "network_backend", "bridge" },
		{ "xencenter_min", "2.23" },
		{ "xencenter_max", "2.23" },
		{ "db_schema", "5.909" },
		{ "date", "2025-01-01" },
	};

	return map_of_pairs(list, ARRAY_LEN(list));
}

/* ---- licence: everything is there, for ever ---- */

static const char *const restrictions[] = {
	"restrict_vlan", "restrict_qos", "restrict_pool_attached_storage",
	"restrict_netapp", "restrict_equalogic", "restrict_pooling",
	"restrict_marathon", "restrict_email_alerting",
	"restrict_historical_performance", "restrict_wlb", "restrict_rbac",
	"restrict_dmc", "restrict_checkpoint", "restrict_cpu_masking",
	"restrict_connection", "platform_filter", "regular_nag_dialog",
	"restrict_vmpr", "restrict_vmss", "restrict_intellicache",
	"restrict_gpu", "restrict_dr", "restrict_vif_locking",
	"restrict_storage_xen_motion", "restrict_vgpu",
	"restrict_integrated_gpu_passthrough", "restrict_vss",
	"restrict_guest_agent_auto_update",
	"restrict_pci_device_for_auto_update", "restrict_xen_motion",
	"restrict_guest_ip_setting", "restrict_ad", "restrict_nested_virt",
	"restrict_live_patching", "restrict_set_vcpus_number_live",
	"restrict_pvs_proxy", "restrict_igmp_snooping", "restrict_rpu",
	"restrict_pool_size", "restrict_cbt", "restrict_usb_passthrough",
	"restrict_network_sriov", "restrict_corosync",
	"restrict_cluster_address", "restrict_zstd_export",
	"restrict_pool_secret_rotation", "restrict_certificate_verification",
	"restrict_updates", "restrict_internal_repo_access", "restrict_vtpm",
	"restrict_vm_groups", "restrict_vm_start",
	"restrict_vm_appliance_start",
};

struct value *dbsync_restrictions(bool with_licence)
{
	struct pair list[ARRAY_LEN(restrictions) + 5];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(restrictions); i++)
		list[n++] = (struct pair){ restrictions[i], "false" };
	list[n++] = (struct pair){ "enable_xha", "true" };
	if (with_licence) {
		list[n++] = (struct pair){ "expiry", "20991231T23:59:59Z" };
		list[n++] = (struct pair){ "sku_type", "free" };
		list[n++] = (struct pair){ "version", "1" };
	}
	return map_of_pairs(list, n);
}

/* ---- description ---- */

static struct value *number_text(const struct value *host, const char *key)
{
	return value_printf("%lld", host ? (long long)value_get_int(host, key,
								    0) :
					   0LL);
}

/* Texts of all members of the host's processors, under "cpu." and their name. */
static struct value *with_cpu(struct value *takes_map, const struct value *host)
{
	const struct value *cpu = host ? value_get(host, "cpu") : NULL;
	struct value *map = takes_map;

	for (uint32_t i = 0; cpu && i < cpu->n; i++) {
		struct value *item = cpu->items[2 * (size_t)i + 1], *before = map;
		struct value *key = value_printf(
			"cpu.%s", value_str(cpu->items[2 * (size_t)i]));
		struct value *shown = item->kind == VALUE_INT ?
			value_printf("%lld", (long long)item->i) :
			value_ref(item);

		map = value_map_with(before, key, shown);
		value_unref(before);
		value_unref(key);
		value_unref(shown);
	}
	return map;
}

static struct value *text(const struct value *host, const char *key)
{
	return value_stringz(host ? value_get_str(host, key) : "");
}

struct value *dbsync_describe_host(const struct pool *p)
{
	const struct value *state = p->hosts ? p->hosts->exec_state : NULL;
	const struct value *host = state ? value_get(state, "host") : NULL;

	return with_cpu(value_map_of(
		"uuid", value_stringz(p->cfg.host_uuid),
		"raft_id", value_printf("%llu",
					(unsigned long long)db_id_of_uuid(
							p->cfg.host_uuid)),
		"peer_address", value_stringz(p->cfg.peer_address),
		"fingerprint", value_stringz(p->cfg.fingerprint),
		"certificate", value_stringz(p->cfg.certificate),
		"address", value_stringz(p->cfg.address),
		HOST_PORT_KEY, value_printf("%u", p->cfg.https_port),
		"hostname", value_stringz(p->cfg.hostname),
		"version", value_stringz(p->cfg.version),
		"memory_total", number_text(host, "memory_total"),
		"memory_free", number_text(host, "memory_free"),
		"cpu_count", number_text(host, "cpu_count"),
		"cpu_mhz", number_text(host, "cpu_mhz"),
		"cpu_vendor", text(host, "cpu_vendor"),
		"cpu_model", text(host, "cpu_model"),
		"capabilities", text(host, "capabilities"),
		"scheduler", text(host, "scheduler"),
		"dom0_memory", number_text(host, "dom0_memory"),
		"dom0_vcpus", number_text(host, "dom0_vcpus"), NULL), host);
}

static int64_t number(const struct value *d, const char *key)
{
	const char *s = value_get_str(d, key);
	int64_t v;

	return int_parse(s, strlen(s), &v) && v > 0 ? v : 0;
}

/* ---- rows ---- */

/* The words of a text, or the same as the hypervisors of our time if it has
 * none. */
static struct value *capabilities_of(const struct value *d)
{
	const char *s = value_get_str(d, "capabilities");
	struct value *set = value_set_new(strlen(s) / 2 + 1);
	uint32_t n = 0;

	for (size_t len; *(s += strspn(s, " ")); s += len) {
		len = strcspn(s, " ");
		set->items[n++] = value_string(s, len);
	}
	set->n = n;
	if (n > 0)
		return set;
	value_unref(set);
	return value_set_of("xen-3.0-x86_64", "hvm-3.0-x86_64", NULL);
}

/* Hosts of older versions and a host whose executor has not spoken yet do not
 * say it. */
static const char *or_else(const struct value *d, const char *key,
			   const char *otherwise)
{
	const char *s = value_get_str(d, key);

	return *s && strcmp(s, "0") ? s : otherwise;
}

static void host_cpu_info(struct draft *host, const struct value *d)
{
	const char *features = value_get_str(d, "cpu.features");
	const struct pair cpu[] = {
		{ "cpu_count", value_get_str(d, "cpu_count") },
		{ "socket_count", or_else(d, "cpu.sockets", "1") },
		{ "nr_nodes", or_else(d, "cpu.nodes", "1") },
		{ "threads_per_core", or_else(d, "cpu.threads_per_core", "1") },
		{ "vendor", value_get_str(d, "cpu_vendor") },
		{ "speed", value_get_str(d, "cpu_mhz") },
		{ "modelname", value_get_str(d, "cpu_model") },
		{ "family", or_else(d, "cpu.family", "0") },
		{ "model", or_else(d, "cpu.model", "0") },
		{ "stepping", or_else(d, "cpu.stepping", "0") },
		{ "flags", value_get_str(d, "cpu.flags") },
		{ "features", features }, { "features_hvm", features },
		{ "features_pv", features },
	};
	const struct pair layout[] = {
		{ "nr_cpus", value_get_str(d, "cpu_count") },
		{ "nr_nodes", or_else(d, "cpu.nodes", "1") },
		{ "sockets_per_node", or_else(d, "cpu.sockets", "1") },
		{ "cores_per_socket", or_else(d, "cpu.cores_per_socket", "1") },
		{ "threads_per_core", or_else(d, "cpu.threads_per_core", "1") },
	};

	draft_set(host, F_host_cpu_info, map_of_pairs(cpu, ARRAY_LEN(cpu)));
	draft_set(host, F_host_cpu_configuration,
		  map_of_pairs(layout, ARRAY_LEN(layout)));
}

void dbsync_host_hardware(struct draft *host, const struct value *d)
{
	draft_int(host, F_host_memory_overhead, number(d, "memory_total") / 64);
	host_cpu_info(host, d);
	draft_set(host, F_host_capabilities, capabilities_of(d));
	draft_str(host, F_host_sched_policy, or_else(d, "scheduler",
						     "credit2"));
}

void dbsync_host_identity(struct draft *host, const struct value *d)
{
	draft_str(host, F_host_address, value_get_str(d, "address"));
	draft_str(host, F_host_hostname, value_get_str(d, "hostname"));
	draft_map_put(host, F_host_other_config, HOST_PORT_KEY,
		      value_stringz(value_get_str(d, HOST_PORT_KEY)));
	draft_int(host, F_host_API_version_major, 2);
	draft_int(host, F_host_API_version_minor, 23);
	draft_str(host, F_host_API_version_vendor, "XenSource");
	draft_set(host, F_host_license_params, dbsync_restrictions(true));
	draft_str(host, F_host_edition, "free");
	draft_set(host, F_host_editions, value_set_of("free", NULL));
	draft_set(host, F_host_supported_bootloaders,
		  value_set_of("pygrub", "eliloader", NULL));
	draft_bool(host, F_host_tls_verification_enabled, true);
	draft_bool(host, F_host_https_only, true);
	draft_bool(host, F_host_ssl_legacy, false);
}

static void platform_versions(struct draft *host)
{
	struct value *set = value_set_new(3);

	for (int i = 0; i < 3; i++)
		set->items[i] = value_int(i);
	draft_set(host, F_host_virtual_hardware_platform_versions, set);
}

static void add_metrics(struct draft *host, const struct value *d)
{
	struct draft m;

	draft_create(&m, host->t, CLASS_host_metrics, NULL);
	draft_int(&m, F_host_metrics_memory_total, number(d, "memory_total"));
	draft_int(&m, F_host_metrics_memory_free, number(d, "memory_free"));
	draft_bool(&m, F_host_metrics_live, true);
	draft_date(&m, F_host_metrics_last_updated, env_wall_ms() / 1000);
	draft_copy(host, F_host_metrics, m.now->ref);
	draft_write(&m);
}

#define MAX_CPUS 4096

static void cpu_fields(struct draft *c, const struct value *d)
{
	draft_str(c, F_host_cpu_vendor, value_get_str(d, "cpu_vendor"));
	draft_str(c, F_host_cpu_modelname, value_get_str(d, "cpu_model"));
	draft_int(c, F_host_cpu_speed, number(d, "cpu_mhz"));
	draft_int(c, F_host_cpu_family, number(d, "cpu.family"));
	draft_int(c, F_host_cpu_model, number(d, "cpu.model"));
	draft_str(c, F_host_cpu_stepping, or_else(d, "cpu.stepping", "0"));
	draft_str(c, F_host_cpu_flags, value_get_str(d, "cpu.flags"));
	draft_str(c, F_host_cpu_features, value_get_str(d, "cpu.features"));
}

static void add_cpu(struct txn *t, const char *host_ref, int64_t i,
		    const struct value *d)
{
	struct draft c;

	draft_create(&c, t, CLASS_host_cpu, NULL);
	draft_str(&c, F_host_cpu_host, host_ref);
	draft_int(&c, F_host_cpu_number, i);
	cpu_fields(&c, d);
	draft_write(&c);
}

/* A large host's processors are more than one transaction takes. */
static bool has_room(const struct txn *t)
{
	return txn_size(t) < TXN_MAX_BYTES / 2;
}

bool dbsync_sync_cpus(const struct store *s, struct txn *t,
		      const char *host_ref, const struct value *there,
		      const struct value *d)
{
	int64_t n = MIN(number(d, "cpu_count"), MAX_CPUS);
	_cleanup_(freep) bool *has = xcalloc((size_t)n + 1, sizeof *has);

	for (uint32_t i = 0; there && i < there->n && has_room(t); i++) {
		struct record *r = store_get_class(s, CLASS_host_cpu,
						   value_str(there->items[i]));
		int64_t at = r ? record_int(r, F_host_cpu_number) : -1;
		struct draft c;

		if (at < 0 || at >= n || has[at]) {
			row_destroy(s, t, value_str(there->items[i]));
			continue;
		}
		has[at] = true;
		draft_edit(&c, t, r);
		cpu_fields(&c, d);
		draft_write(&c);
	}
	for (int64_t i = 0; i < n && has_room(t); i++)
		if (!has[i])
			add_cpu(t, host_ref, i, d);
	return has_room(t);
}

/* As the hypervisor says, or a guess while it says nothing. */
int64_t dbsync_dom0_memory(const struct value *d)
{
	int64_t total = number(d, "memory_total");
	int64_t told = number(d, "dom0_memory");

	if (told > 0 || total == 0)
		return told;
	return MAX(64 * MIB, MIN(total / 16, 1024 * MIB));
}

void dbsync_dom0_size(struct draft *vm, const struct value *d)
{
	static const unsigned fields[] = {
		F_VM_memory_static_max, F_VM_memory_static_min,
		F_VM_memory_dynamic_max, F_VM_memory_dynamic_min,
		F_VM_memory_target,
	};
	int64_t vcpus = MAX(number(d, "dom0_vcpus"), (int64_t)1);

	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		draft_int(vm, fields[i], dbsync_dom0_memory(d));
	draft_int(vm, F_VM_VCPUs_max, vcpus);
	draft_int(vm, F_VM_VCPUs_at_startup, vcpus);
}

static void dom0_fields(struct draft *vm, struct draft *host,
			const struct value *d)
{
	draft_set(vm, F_VM_name_label,
		  value_printf("Control domain on host: %s",
			       value_get_str(d, "hostname")));
	draft_str(vm, F_VM_name_description,
		  "The domain which manages physical devices and manages other "
		  "domains");
	draft_bool(vm, F_VM_is_control_domain, true);
	draft_str(vm, F_VM_domain_type, "pv");
	draft_str(vm, F_VM_actions_after_shutdown, "destroy");
	draft_str(vm, F_VM_actions_after_reboot, "destroy");
	draft_str(vm, F_VM_actions_after_crash, "destroy");
	draft_copy(vm, F_VM_affinity, host->now->ref);
	draft_str(vm, F_VM_power_state, "Running");
	draft_copy(vm, F_VM_resident_on, host->now->ref);
	draft_int(vm, F_VM_domid, 0);
	dbsync_dom0_size(vm, d);
	draft_int(vm, F_VM_memory_overhead, MIB);
}

static void add_control_domain(const struct pool *p, struct draft *host,
			       const struct value *d)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	_cleanup_(freep) char *location = NULL;
	char uuid[UUID_LEN + 1];
	struct draft vm, m, c;

	draft_create(&vm, host->t, CLASS_VM, NULL);
	dom0_fields(&vm, host, d);
	draft_create(&m, host->t, CLASS_VM_metrics, NULL);
	draft_int(&m, F_VM_metrics_VCPUs_number,
		  record_int(vm.now, F_VM_VCPUs_max));
	draft_int(&m, F_VM_metrics_memory_actual, dbsync_dom0_memory(d));
	draft_set(&m, F_VM_metrics_state, value_set_of("running", NULL));
	draft_str(&m, F_VM_metrics_current_domain_type, "pv");
	draft_date(&m, F_VM_metrics_start_time, env_wall_ms() / 1000);
	draft_copy(&vm, F_VM_metrics, m.now->ref);
	draft_write(&m);
	uuid_new(uuid);
	location = console_location(p, host->now, uuid);
	draft_create(&c, host->t, CLASS_console, uuid);
	draft_str(&c, F_console_protocol, "rfb");
	draft_str(&c, F_console_location, location);
	draft_copy(&c, F_console_VM, vm.now->ref);
	draft_write(&c);
	draft_copy(host, F_host_control_domain, vm.now->ref);
	draft_write_vm(&vm, s);
}

static void add_pif(struct draft *host, const struct value *d,
		    const char *network)
{
	const char *address = value_get_str(d, "address");
	struct draft pif, m;
	char mac[18];

	vif_default_mac(value_get_str(d, "uuid"), 0, mac);
	draft_create(&m, host->t, CLASS_PIF_metrics, NULL);
	draft_bool(&m, F_PIF_metrics_carrier, true);
	draft_create(&pif, host->t, CLASS_PIF, NULL);
	draft_str(&pif, F_PIF_device, "eth0");
	draft_str(&pif, F_PIF_network, network);
	draft_copy(&pif, F_PIF_host, host->now->ref);
	draft_str(&pif, F_PIF_MAC, mac);
	draft_int(&pif, F_PIF_MTU, 1500);
	draft_int(&pif, F_PIF_VLAN, -1);
	draft_bool(&pif, F_PIF_physical, true);
	draft_bool(&pif, F_PIF_management, true);
	draft_str(&pif, F_PIF_ip_configuration_mode, "Static");
	draft_str(&pif, F_PIF_primary_address_type,
		  strchr(address, ':') ? "IPv6" : "IPv4");
	if (strchr(address, ':'))
		draft_set(&pif, F_PIF_IPv6, value_set_of(address, NULL));
	else
		draft_str(&pif, F_PIF_IP, address);
	draft_copy(&pif, F_PIF_metrics, m.now->ref);
	draft_write(&m);
	draft_write(&pif);
}

static void add_local_sr(struct draft *host, const struct value *d,
			 char ret_ref[REF_LEN + 1])
{
	_cleanup_(value_unrefp) struct value *none = value_map_empty();
	struct draft sr;

	draft_create(&sr, host->t, CLASS_SR, NULL);
	draft_str(&sr, F_SR_name_label, "Local storage");
	draft_set(&sr, F_SR_name_description,
		  value_printf("Records of disks on %s",
			       value_get_str(d, "hostname")));
	draft_str(&sr, F_SR_type, "dummy");
	draft_str(&sr, F_SR_content_type, "user");
	draft_bool(&sr, F_SR_shared, false);
	draft_int(&sr, F_SR_physical_size, SR_DRIVER_SIZE);
	draft_map_put(&sr, F_SR_other_config, "i18n-key",
		      value_stringz("local-storage"));
	draft_set(&sr, F_SR_allowed_operations,
		  sr_allowed_operations(sr.now, true));
	strcpy(ret_ref, draft_ref(&sr));
	draft_write(&sr);
	pbd_add(host->t, draft_ref(host), ret_ref, none, true);
}

void dbsync_add_member(struct txn *t, const struct value *host_ref,
		       const struct value *d, const char *wanted_role)
{
	struct draft m;

	draft_create(&m, t, CLASS_member, NULL);
	draft_copy(&m, F_member_host, host_ref);
	draft_str(&m, F_member_raft_id, value_get_str(d, "raft_id"));
	draft_str(&m, F_member_peer_address, value_get_str(d, "peer_address"));
	draft_str(&m, F_member_fingerprint, value_get_str(d, "fingerprint"));
	draft_str(&m, F_member_certificate, value_get_str(d, "certificate"));
	draft_str(&m, F_member_wanted_role, wanted_role);
	draft_write(&m);
}

void dbsync_add_host(const struct pool *p, struct txn *t,
		     const struct value *d, const struct value *software_version,
		     const char *network, const char *wanted_role,
		     struct dbsync_refs *ret)
{
	struct draft host;

	draft_create(&host, t, CLASS_host, value_get_str(d, "uuid"));
	draft_str(&host, F_host_name_label, value_get_str(d, "hostname"));
	draft_copy(&host, F_host_software_version, software_version);
	dbsync_host_identity(&host, d);
	dbsync_host_hardware(&host, d);
	platform_versions(&host);
	add_metrics(&host, d);
	dbsync_sync_cpus(p->hooks.store(p->hooks.data), t, draft_ref(&host),
			 NULL, d);
	add_control_domain(p, &host, d);
	add_pif(&host, d, network);
	add_local_sr(&host, d, ret->sr);
	dbsync_add_member(t, host.now->ref, d, wanted_role);
	strcpy(ret->host, draft_ref(&host));
	draft_write_host(&host, true);
}
