/* Role and permission objects. They follow from the schema alone: the seven
 * roles, and as a leaf role each permission (every method, guarded map key and
 * HTTP handler). uuid = MD5 of the name in its original case, so that they are
 * the same in every pool. Made at first use; core thread only.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "pool/core.h"

struct permission_def {
	const char *name;
	uint8_t roles; /* role set */
};

static const struct permission_def http_permissions[] = {
	{ "http/get_services", ROLES_READ_ONLY },
	{ "http/post_services", ROLES_POOL_ADMIN },
	{ "http/put_services", ROLES_POOL_ADMIN },
	{ "http/post_remote_db_access", ROLES_POOL_ADMIN },
	{ "http/post_remote_db_access_v2", ROLES_POOL_ADMIN },
	{ "http/get_services_xenops", ROLES_VM_POWER_ADMIN },
	{ "http/post_services_xenops", ROLES_VM_POWER_ADMIN_CLIENT_CERT },
	{ "http/put_services_xenops", ROLES_VM_POWER_ADMIN_CLIENT_CERT },
	{ "http/get_services_sm", ROLES_VM_POWER_ADMIN },
	{ "http/post_services_sm", ROLES_VM_POWER_ADMIN },
	{ "http/put_services_sm", ROLES_VM_POWER_ADMIN },
	{ "http/put_import", ROLES_VM_ADMIN },
	{ "http/put_import_metadata", ROLES_VM_ADMIN },
	{ "http/put_import_raw_vdi", ROLES_VM_ADMIN },
	{ "http/get_export", ROLES_VM_ADMIN },
	{ "http/get_export_metadata", ROLES_VM_ADMIN },
	{ "http/get_export_raw_vdi", ROLES_VM_ADMIN },
	{ "http/connect_console", ROLES_VM_OPERATOR },
	{ "http/connect_console/host_console",
	  ROLES_POOL_ADMIN },
	{ "http/connect_console_ws", ROLES_VM_OPERATOR },
	{ "http/connect_console_ws/host_console_ws",
	  ROLES_POOL_ADMIN },
	{ "http/get_root", ROLES_READ_ONLY },
	{ "http/post_cli", ROLES_READ_ONLY },
	{ "http/get_host_backup", ROLES_POOL_ADMIN },
	{ "http/put_host_restore", ROLES_POOL_ADMIN },
	{ "http/get_host_logs_download", ROLES_POOL_OPERATOR },
	{ "http/put_pool_patch_upload", ROLES_POOL_OPERATOR },
	{ "http/get_vncsnapshot", ROLES_VM_OPERATOR },
	{ "http/get_vncsnapshot/host_console",
	  ROLES_POOL_ADMIN },
	{ "http/get_pool_xml_db_sync", ROLES_POOL_ADMIN },
	{ "http/put_pool_xml_db_sync", ROLES_POOL_ADMIN },
	{ "http/get_config_sync", ROLES_POOL_ADMIN },
	{ "http/get_system_status", ROLES_POOL_OPERATOR },
	{ "http/vm_rrd", ROLES_READ_ONLY },
	{ "http/get_vm_rrds", ROLES_READ_ONLY },
	{ "http/host_rrd", ROLES_READ_ONLY },
	{ "http/get_host_rrds", ROLES_READ_ONLY },
	{ "http/sr_rrd", ROLES_READ_ONLY },
	{ "http/rrd_updates", ROLES_READ_ONLY },
	{ "http/rrd", ROLES_POOL_ADMIN },
	{ "http/get_blob", ROLES_READ_ONLY },
	{ "http/put_blob", ROLES_VM_POWER_ADMIN },
	{ "http/put_messages", ROLES_VM_POWER_ADMIN },
	{ "http/connect_remotecmd", ROLES_POOL_ADMIN },
	{ "http/get_wlb_report", ROLES_READ_ONLY },
	{ "http/get_wlb_diagnostics", ROLES_READ_ONLY },
	{ "http/get_audit_log", ROLES_READ_ONLY },
	{ "http/post_root", ROLES_READ_ONLY },
	{ "http/post_RPC2", ROLES_READ_ONLY },
	{ "http/post_json", ROLES_READ_ONLY },
	{ "http/post_root_options", ROLES_READ_ONLY },
	{ "http/post_json_options", ROLES_READ_ONLY },
	{ "http/post_jsonrpc", ROLES_READ_ONLY },
	{ "http/post_jsonrpc_options", ROLES_READ_ONLY },
	{ "http/get_pool_update_download", ROLES_READ_ONLY },
	{ "http/get_repository", ROLES_LOCAL_ROOT },
	{ "http/get_enabled_repository", ROLES_POOL_OPERATOR_CLIENT_CERT },
	{ "http/get_host_updates", ROLES_POOL_OPERATOR_CLIENT_CERT },
	{ "http/get_updates", ROLES_POOL_OPERATOR_CLIENT_CERT },
	{ "http/put_bundle", ROLES_POOL_OPERATOR },
	/* Tasks of other users. */
	{ "task.destroy/any", ROLES_POOL_OPERATOR },
};

static const char *const role_docs[] = {
	"Everything, down to the hosts' own settings",
	"Hosts, storage, networks and the pool; nothing of users and roles",
	"Virtual machines, with placement, migration and memory",
	"Virtual machines and their devices, but not where they run",
	"Starting, stopping and using virtual machines that exist",
	"Clients that show a trusted certificate",
	"Looking, without changing anything",
};

struct role_entry {
	struct record *row;
	unsigned bits; /* of a permission: the roles that hold it */
};

static struct role_entry *entries;
static size_t n_entries, cap_entries;
static struct map by_ref, by_uuid, by_name;

/* ---- making them ---- */

static void md5_uuid(const char *name, char out[UUID_LEN + 1])
{
	unsigned char digest[16];
	unsigned n = sizeof digest;

	xassert(EVP_Digest(name, strlen(name), digest, &n, EVP_md5(), NULL));
	xassert(n == sizeof digest);
	uuid_format(digest, out);
}

static void add_entry(const char *name, const char *uuid, const char *doc,
		      bool internal, unsigned bits)
{
	struct value *ref = value_printf("%s%s", REF_PREFIX, uuid);
	struct record *r = record_new(&schema_classes[CLASS_role], ref);
	struct value *label;
	_cleanup_(freep) char *lower = xstrdup(name);

	for (char *c = lower; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	label = value_stringz(lower);
	record_set(r, F_role_uuid, value_stringz(uuid));
	record_set(r, F_role_name_label, label);
	record_set(r, F_role_name_description, value_stringz(doc));
	record_set(r, F_role_subroles, value_set_empty());
	record_set(r, F_role_is_internal, value_bool(internal));
	if (n_entries == cap_entries) {
		cap_entries = cap_entries ? 2 * cap_entries : 4096;
		entries = xrealloc(entries, cap_entries * sizeof *entries);
	}
	map_put(&by_ref, r->ref->s, r->ref->n, r);
	map_put(&by_uuid, r->fields[F_role_uuid]->s, UUID_LEN, r);
	map_put(&by_name, label->s, label->n, (void *)(n_entries + 1));
	entries[n_entries++] = (struct role_entry){ r, bits };
}

static void add_permission(const char *name, unsigned role_set)
{
	char uuid[UUID_LEN + 1];

	md5_uuid(name, uuid);
	add_entry(name, uuid, "A basic permission", true,
		  schema_role_sets[role_set].role_bits);
}

static void add_keys(const struct method_def *m, const struct field_def *f)
{
	for (unsigned i = 0; i < f->n_map_keys; i++) {
		_cleanup_(freep) char *name = xasprintf("%s/key:%s", m->name,
							f->map_keys[i].key);

		add_permission(name, f->map_keys[i].roles);
	}
}

static void add_method(const struct method_def *m)
{
	const struct field_def *f = rbac_keyed_field(m);

	add_permission(m->name, m->roles);
	if (f)
		add_keys(m, f);
}

/* The permissions that a role holds become its subroles. */
static void fill_role(unsigned role)
{
	struct value *set;
	size_t n = 0;

	for (size_t i = schema_n_roles; i < n_entries; i++)
		n += entries[i].bits >> role & 1;
	set = value_set_new(n);
	n = 0;
	for (size_t i = schema_n_roles; i < n_entries; i++)
		if (entries[i].bits >> role & 1)
			set->items[n++] = value_ref(entries[i].row->ref);
	record_set(entries[role].row, F_role_subroles, set);
}

static void make_all(void)
{
	if (entries)
		return;
	map_init(&by_ref);
	map_init(&by_uuid);
	map_init(&by_name);
	xassert(ARRAY_LEN(role_docs) == schema_n_roles);
	for (unsigned i = 0; i < schema_n_roles; i++)
		add_entry(schema_roles[i].name, schema_roles[i].uuid,
			  role_docs[i], schema_roles[i].internal, 1u << i);
	for (unsigned i = 0; i < schema_n_methods; i++)
		if (!(schema_classes[schema_methods[i].cls].flags &
		      CLASS_PRIVATE))
			add_method(&schema_methods[i]);
	for (size_t i = 0; i < ARRAY_LEN(http_permissions); i++)
		add_permission(http_permissions[i].name,
			       http_permissions[i].roles);
	for (unsigned i = 0; i < schema_n_roles; i++)
		fill_role(i);
}

/* ---- finding them ---- */

size_t role_count(void)
{
	make_all();
	return n_entries;
}

struct record *role_at(size_t i)
{
	make_all();
	return entries[i].row;
}

struct record *role_by_ref(const char *ref)
{
	make_all();
	return map_getz(&by_ref, ref);
}

struct record *role_by_uuid(const char *uuid)
{
	make_all();
	return map_getz(&by_uuid, uuid);
}

static struct role_entry *entry_by_name(const char *name)
{
	size_t i;

	make_all();
	i = (size_t)map_getz(&by_name, name);
	return i ? &entries[i - 1] : NULL;
}

struct record *role_by_name(const char *name)
{
	struct role_entry *e = entry_by_name(name);

	return e ? e->row : NULL;
}

struct value *role_names_with(const char *permission)
{
	struct role_entry *e = entry_by_name(permission);
	unsigned bits = e ? e->bits : 0;
	struct value *set = value_set_new((size_t)__builtin_popcount(bits));
	size_t n = 0;

	for (unsigned i = 0; i < schema_n_roles; i++)
		if (bits >> i & 1)
			set->items[n++] = value_stringz(schema_roles[i].name);
	return set;
}

/* ---- calls ---- */

/* Leaf roles below r: the permissions of a role, a permission itself. */
static struct value *leaves_of(struct record *r, bool names)
{
	const struct value *sub = r->fields[F_role_subroles];
	struct value *set = value_set_new(MAX(sub->n, 1));

	set->items[0] = value_ref(names ? r->fields[F_role_name_label] : r->ref);
	if (sub->n > 0)
		value_unref(set->items[0]);
	for (unsigned i = 0; i < sub->n; i++) {
		struct record *leaf = role_by_ref(value_str(sub->items[i]));

		set->items[i] = value_ref(names ?
			leaf->fields[F_role_name_label] : leaf->ref);
	}
	return set;
}

static void role_get_permissions(struct req *r)
{
	struct record *role = req_arg_record(r, 0, CLASS_role);

	if (role)
		req_reply(r, leaves_of(role, false));
}

static void role_get_permissions_name_label(struct req *r)
{
	struct record *role = req_arg_record(r, 0, CLASS_role);

	if (role)
		req_reply(r, leaves_of(role, true));
}

static struct value *roles_with(const char *permission)
{
	struct value *set = role_names_with(permission);

	for (unsigned i = 0; i < set->n; i++) {
		struct record *row = role_by_name(value_str(set->items[i]));

		value_unref(set->items[i]);
		set->items[i] = value_ref(row->ref);
	}
	return set;
}

static void role_get_by_permission(struct req *r)
{
	struct record *role = req_arg_record(r, 0, CLASS_role);

	if (role)
		req_reply(r, roles_with(record_str(role, F_role_name_label)));
}

static void role_get_by_permission_name_label(struct req *r)
{
	req_reply(r, roles_with(req_arg_str(r, 0)));
}

static void subject_add_to_roles(struct req *r)
{
	struct record *subject = req_arg_record(r, 0, CLASS_subject);
	struct txn *t;

	if (!subject)
		return;
	if (!role_by_ref(req_arg_str(r, 1))) {
		req_fail(r, "ROLE_NOT_FOUND", NULL);
		return;
	}
	if (value_set_has(subject->fields[F_subject_roles], req_arg(r, 1))) {
		req_fail(r, "ROLE_ALREADY_EXISTS", NULL);
		return;
	}
	t = req_txn(r);
	txn_set_add(t, subject->cls, value_str(subject->ref), F_subject_roles,
		    value_ref(req_arg(r, 1)));
	req_commit(r, t, NULL);
}

static void subject_remove_from_roles(struct req *r)
{
	struct record *subject = req_arg_record(r, 0, CLASS_subject);
	struct txn *t;

	if (!subject)
		return;
	if (!value_set_has(subject->fields[F_subject_roles], req_arg(r, 1))) {
		req_fail(r, "ROLE_NOT_FOUND", NULL);
		return;
	}
	t = req_txn(r);
	txn_set_remove(t, subject->cls, value_str(subject->ref),
		       F_subject_roles, value_ref(req_arg(r, 1)));
	req_commit(r, t, NULL);
}

static void subject_get_permissions_name_label(struct req *r)
{
	struct record *subject = req_arg_record(r, 0, CLASS_subject);
	const struct value *roles;
	unsigned bits = 0;
	size_t n = 0;
	struct value *set;

	if (!subject)
		return;
	roles = subject->fields[F_subject_roles];
	for (unsigned i = 0; i < schema_n_roles; i++)
		if (value_set_has(roles, role_at(i)->ref))
			bits |= 1u << i;
	for (size_t i = schema_n_roles; i < n_entries; i++)
		n += (entries[i].bits & bits) != 0;
	set = value_set_new(n);
	n = 0;
	for (size_t i = schema_n_roles; i < n_entries; i++)
		if (entries[i].bits & bits)
			set->items[n++] = value_ref(
				entries[i].row->fields[F_role_name_label]);
	req_reply(r, set);
}

const struct handler_def role_handlers[] = {
	{ M_role_get_permissions, role_get_permissions },
	{ M_role_get_permissions_name_label, role_get_permissions_name_label },
	{ M_role_get_by_permission, role_get_by_permission },
	{ M_role_get_by_permission_name_label,
	  role_get_by_permission_name_label },
	{ M_subject_add_to_roles, subject_add_to_roles },
	{ M_subject_remove_from_roles, subject_remove_from_roles },
	{ M_subject_get_permissions_name_label,
	  subject_get_permissions_name_label },
	{ -1, NULL },
};
