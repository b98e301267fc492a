/* Keys of maps that need a role of their own, by every way in: one by one, with
 * the map as a whole, and in the record that an object is made from. */
#include "tests/unit/vm_world.h"

#include "schema/schema.h"

static char root[REF_LEN + 1], session[REF_LEN + 1], vm[REF_LEN + 1];

/* Further calls are those of a user with this role. */
static void be(const char *role)
{
	const struct class_def *c = class_of(CLASS_session);
	struct txn *t = txn_new("test");
	struct value *names = ok("role.get_permissions_name_label",
				 value_ref(role_by_name(role)->ref));

	row_create(t, CLASS_session, NULL, session);
	txn_set(t, c, session, F_session_rbac_permissions, names);
	txn_set(t, c, session, F_session_auth_user_sid, S("S-1-5-bob"));
	txn_set(t, c, session, F_session_last_active,
		value_datetime(w.wall_ms / 1000));
	assert_int_equal(store_apply(w.store, t).status, TXN_OK);
	txn_free(t);
	strcpy(root, w.session);
	strcpy(w.session, session);
}

static void be_root(void)
{
	strcpy(w.session, root);
}

static void denied(const char *permission, struct reply *r)
{
	assert_null(r->result);
	assert_non_null(r->error);
	assert_string_equal(value_str(r->error->items[0]),
			    "RBAC_PERMISSION_DENIED");
	assert_string_equal(value_str(r->error->items[1]), permission);
	reply_clear(r);
}

#define is_denied(permission, ...)                           \
	do {                                                 \
		struct reply r_;                             \
		call_at(&w.h[0], &r_, __VA_ARGS__, NULL);    \
		denied(permission, &r_);                     \
	} while (0)

/* ---- what only an administrator of the pool may write ---- */

static const struct {
	const char *field, *key, *guard;
} dangerous[] = {
	{ "platform", "hvm_serial", "hvm_serial" },
	{ "platform", "HVM_Serial", "hvm_serial" },
	{ "other_config", "hvm_serial", "hvm_serial" },
	{ "other_config", "pci", "pci" },
};

static char call_name[64], permission[128];

static const char *call_of(const char *verb, const char *field)
{
	snprintf(call_name, sizeof call_name, "VM.%s%s", verb, field);
	return call_name;
}

static const char *guard_of(const char *verb, const char *field,
			    const char *key)
{
	snprintf(permission, sizeof permission, "vm.%s%s/key:%s", verb, field,
		 key);
	return permission;
}

static struct value *now_of(const char *field)
{
	int f = schema_field(class_of(CLASS_VM), field, strlen(field));

	return value_ref(field_of(vm, (unsigned)f));
}

/* The map as it is, with one key of another value; NULL: without it. */
static struct value *with_key(const char *field, const char *key,
			      const char *value)
{
	_cleanup_(value_unrefp) struct value *now = now_of(field);
	_cleanup_(value_unrefp) struct value *k = S(key);
	_cleanup_(value_unrefp) struct value *v = value ? S(value) : NULL;

	return value ? value_map_with(now, k, v) :
		       value_map_without(now, key, strlen(key));
}

static void check_value(const char *field, const char *key, const char *want)
{
	_cleanup_(value_unrefp) struct value *now = now_of(field);
	const struct value *v = value_get(now, key);

	assert_true(want ? v && value_is_str(v, want) : !v);
}

/* By a user without the role, where the key is and where it is not. */
static void check_dangerous(const char *field, const char *key,
			    const char *guard)
{
	is_denied(guard_of("add_to_", field, guard), call_of("add_to_", field),
		  S(vm), S(key), S("file:/etc/shadow"));
	is_denied(guard_of("add_to_", field, guard), call_of("set_", field),
		  S(vm), with_key(field, key, "file:/etc/shadow"));
	check_value(field, key, NULL);
	be_root();
	do_ok(call_of("add_to_", field), S(vm), S(key), S("pty"));
	be("vm-power-admin");
	is_denied(guard_of("remove_from_", field, guard),
		  call_of("remove_from_", field), S(vm), S(key));
	is_denied(guard_of("add_to_", field, guard), call_of("set_", field),
		  S(vm), with_key(field, key, NULL));
	is_denied(guard_of("add_to_", field, guard), call_of("set_", field),
		  S(vm), with_key(field, key, "tcp:0.0.0.0:1"));
	do_ok(call_of("set_", field), S(vm), with_key(field, "nx", "true"));
	check_value(field, key, "pty");
	check_value(field, "nx", "true");
}

static void test_dangerous_keys(void **state)
{
	make_vm(vm, "one");
	for (size_t i = 0; i < ARRAY_LEN(dangerous); i++) {
		be("vm-power-admin");
		check_dangerous(dangerous[i].field, dangerous[i].key,
				dangerous[i].guard);
		be_root();
		do_ok(call_of("remove_from_", dangerous[i].field), S(vm),
		      S(dangerous[i].key));
		do_ok(call_of("remove_from_", dangerous[i].field), S(vm),
		      S("nx"));
	}
}

static struct value *new_vm(const char *field, const char *key)
{
	return value_struct_of("name_label", S("made"), field,
			       value_map_of(key, S("x"), NULL), NULL);
}

static void test_in_records(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(dangerous); i++) {
		const char *field = dangerous[i].field, *key = dangerous[i].key;

		be("vm-power-admin");
		is_denied(guard_of("add_to_", field, dangerous[i].guard),
			  "VM.create", new_vm(field, key));
		is_denied(guard_of("add_to_", field, dangerous[i].guard),
			  "Async.VM.create", new_vm(field, key));
		assert_null(find_by_name(CLASS_VM, "made"));
		do_ok("VM.create", new_vm(field, "acpi"));
		be_root();
		be("pool-admin");
		do_ok("VM.create", new_vm(field, key));
		be_root();
		do_ok("VM.destroy",
		      value_ref(find_by_name(CLASS_VM, "made")->ref));
		do_ok("VM.destroy",
		      value_ref(find_by_name(CLASS_VM, "made")->ref));
	}
}

/* What an administrator has given a VM, its copies have too. */
static void test_copies_keep_them(void **state)
{
	struct value *copy;

	make_vm(vm, "one");
	do_ok("VM.add_to_platform", S(vm), S("hvm_serial"), S("pty"));
	be("vm-admin");
	copy = ok("VM.clone", S(vm), S("two"));
	assert_string_equal(value_get_str(field_of(value_str(copy),
						   F_VM_platform),
					  "hvm_serial"), "pty");
	is_denied("vm.remove_from_platform/key:hvm_serial",
		  "VM.remove_from_platform", value_ref(copy), S("hvm_serial"));
	value_unref(copy);
}

/* ---- the same for whatever the schema guards ---- */

static const struct method_def *method_of(const struct class_def *c,
					  const char *verb,
					  const struct field_def *f)
{
	_cleanup_(freep) char *name = xasprintf("%s.%s%s", c->name, verb,
						f->name);

	return schema_method(name, strlen(name));
}

/* A session with all permissions but those of guarded keys. */
static void be_keyless(void)
{
	const struct class_def *c = class_of(CLASS_session);
	struct value *all = ok("role.get_permissions_name_label",
			       value_ref(role_by_name("pool-admin")->ref));
	struct value *some = value_set_new(all->n);
	struct txn *t = txn_new("test");

	some->n = 0;
	for (uint32_t i = 0; i < all->n; i++)
		if (!strstr(value_str(all->items[i]), "/key:"))
			some->items[some->n++] = value_ref(all->items[i]);
	value_unref(all);
	be("pool-admin");
	txn_set(t, c, session, F_session_rbac_permissions, some);
	assert_int_equal(store_apply(w.store, t).status, TXN_OK);
	txn_free(t);
}

static void check_set(const struct class_def *c, const struct method_def *set,
		      const struct map_key_role *key)
{
	struct record *first = store_first(w.store, c->id);
	_cleanup_(freep) char *k = xstrdup(key->key);
	struct reply r;

	if (k[strlen(k) - 1] == '*')
		k[strlen(k) - 1] = 'x';
	assert_non_null(first);
	call_at(&w.h[0], &r, set->name, value_ref(first->ref),
		value_map_of(k, S("v"), NULL), NULL);
	assert_non_null(r.error);
	assert_string_equal(value_str(r.error->items[0]),
			    "RBAC_PERMISSION_DENIED");
	assert_non_null(strstr(value_str(r.error->items[1]), "/key:"));
	reply_clear(&r);
}

static void test_every_setter(void **state)
{
	unsigned n = 0;

	do_ok("VDI.create",
	      value_struct_of("SR", value_ref(field_of(
		      value_str(store_first(w.store, CLASS_pool)->ref),
		      F_pool_default_SR)), "virtual_size", I(1 << 20),
		      "type", S("user"), "sharable", B(false), "read_only",
		      B(false), "other_config", value_map_empty(), NULL));
	do_ok("task.create", S("t"), S(""));
	be_keyless();
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (unsigned f = 0; f < c->n_fields; f++) {
			const struct field_def *def = &c->fields[f];
			const struct method_def *set = method_of(c, "set_", def);

			for (unsigned k = 0; set && k < def->n_map_keys; k++) {
				check_set(c, set, &def->map_keys[k]);
				n++;
			}
		}
	}
	assert_int_equal(n, 20);
}

/* Calls that take such a map as a parameter of its own ask for a role that has
 * all its keys anyhow. */
static void test_parameters(void **state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];
		const struct class_def *c = &schema_classes[m->cls];

		for (unsigned k = 0; k < m->n_params; k++) {
			const char *name = m->params[k].name;
			int f = schema_field(c, name, strlen(name));
			const struct field_def *def = f < 0 ? NULL :
				&c->fields[f];

			if (!def || m->params[k].type->kind != TYPE_MAP)
				continue;
			for (unsigned j = 0; j < def->n_map_keys; j++, n++) {
				unsigned roles = schema_role_sets[m->roles]
							 .role_bits;
				unsigned may = schema_role_sets[
					def->map_keys[j].roles].role_bits;

				assert_int_equal(roles & ~may, 0);
			}
		}
	}
	assert_true(n > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		one_test(test_dangerous_keys),
		one_test(test_in_records),
		one_test(test_copies_keep_them),
		one_test(test_every_setter),
		one_test(test_parameters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
