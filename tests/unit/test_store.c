/* The store, behaviour by behaviour. Random workloads are in
 * test_store_random.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/store_help.h"

static int start(void **state)
{
	world_start(7);
	*state = store_new();
	return 0;
}

static int stop(void **state)
{
	store_free(*state);
	return 0;
}

static void assert_result(struct txn_result r, enum txn_status status,
			  uint32_t item, uint64_t generation)
{
	assert_int_equal(r.status, status);
	assert_int_equal(r.item, item);
	assert_int_equal(r.generation, generation);
}

/* Objects. */

static void test_create(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");
	struct record *r;

	put_new(t, CLS(VM), "vm");
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("web"));
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	r = store_get(s, "vm");
	assert_string_equal(record_str(r, F_VM_name_label), "web");
	assert_string_equal(record_str(r, F_VM_power_state), "Halted");
	assert_int_equal(r->created, 1);
	assert_int_equal(r->modified, 1);
	assert_ptr_equal(store_get_class(s, CLASS_VM, "vm"), r);
	assert_null(store_get_class(s, CLASS_VBD, "vm"));
	assert_ptr_equal(store_by_uuid(s, CLASS_VM, "u-vm"), r);
	assert_null(store_by_uuid(s, CLASS_VBD, "u-vm"));
	assert_null(store_get(s, "other"));
	assert_int_equal(store_count(s, CLASS_VM), 1);
	for (unsigned i = 0; i < r->cls->n_fields; i++)
		assert_true(schema_fits(r->cls->fields[i].type, r->fields[i]));
}

static void test_every_class_can_be_stored(void **state)
{
	struct store *s = *state;
	enum txn_status expected;
	struct txn *t;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		t = txn_new("test");
		txn_create(t, c, c->name);
		if (c->f_uuid >= 0)
			txn_set(t, c, c->name, (unsigned)c->f_uuid,
				value_stringz(c->name));
		expected = c->flags & CLASS_STORED ? TXN_OK : TXN_INVALID;
		assert_int_equal(apply_free(s, t).status, expected);
	}
}

static void test_create_wants_new_ref_and_uuid(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	t = txn_new("same ref, another class");
	put_new(t, CLS(VBD), "vbd");
	put_new(t, CLS(VBD), "vm");
	assert_result(apply_free(s, t), TXN_NOT_UNIQUE, 2, 1);
	t = txn_new("same uuid, another class");
	put_new(t, CLS(VBD), "vbd");
	txn_create(t, CLS(VDI), "vdi");
	txn_set(t, CLS(VDI), "vdi", F_VDI_uuid, value_stringz("u-vm"));
	assert_result(apply_free(s, t), TXN_NOT_UNIQUE, 2, 1);
	t = txn_new("same uuid twice in it");
	put_new(t, CLS(VBD), "a");
	txn_create(t, CLS(VBD), "b");
	txn_set(t, CLS(VBD), "b", F_VBD_uuid, value_stringz("u-a"));
	assert_result(apply_free(s, t), TXN_NOT_UNIQUE, 2, 1);
	t = txn_new("no uuid");
	txn_create(t, CLS(VM), "other");
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("null");
	put_new(t, CLS(VM), REF_NULL);
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("empty");
	put_new(t, CLS(VM), "");
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	assert_int_equal(store_count(s, CLASS_VBD), 0);
}

static void test_uuid_may_move(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "a");
	apply_new(s, CLS(VM), "b");
	t = txn_new("exchange");
	txn_set(t, CLS(VM), "a", F_VM_uuid, value_stringz("u-b"));
	txn_set(t, CLS(VM), "b", F_VM_uuid, value_stringz("u-a"));
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_string_equal(value_str(store_by_uuid(s, CLASS_VM, "u-a")->ref),
			    "b");
	assert_string_equal(value_str(store_by_uuid(s, CLASS_VM, "u-b")->ref),
			    "a");
	t = txn_new("inherit");
	txn_create(t, CLS(VM), "c");
	txn_set(t, CLS(VM), "c", F_VM_uuid, value_stringz("u-a"));
	txn_destroy(t, "b");
	assert_result(apply_free(s, t), TXN_OK, 0, 4);
	assert_string_equal(value_str(store_by_uuid(s, CLASS_VM, "u-a")->ref),
			    "c");
	t = txn_new("taken");
	txn_touch(t, "a");
	txn_set(t, CLS(VM), "a", F_VM_uuid, value_stringz("u-a"));
	assert_result(apply_free(s, t), TXN_NOT_UNIQUE, 1, 4);
	assert_result(apply_set(s, CLS(VM), "a", F_VM_uuid, value_stringz("")),
		      TXN_INVALID, 0, 4);
	/* There and back: the index must not keep what went away between. */
	t = txn_new("there and back");
	txn_set(t, CLS(VM), "a", F_VM_uuid, value_stringz("x"));
	txn_set(t, CLS(VM), "a", F_VM_uuid, value_stringz("u-b"));
	txn_set(t, CLS(VM), "a", F_VM_name_label, value_stringz("named"));
	assert_result(apply_free(s, t), TXN_OK, 0, 5);
	assert_non_null(store_by_uuid(s, CLASS_VM, "u-b"));
	assert_null(store_by_uuid(s, CLASS_VM, "x"));
}

static void test_destroy(void **state)
{
	struct store *s = *state;
	const struct tombstone *tomb;
	struct txn *t;

	apply_new(s, CLS(VM), "a");
	apply_new(s, CLS(VM), "b");
	t = txn_new("test");
	txn_destroy(t, "a");
	txn_destroy(t, "b");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_null(store_get(s, "a"));
	assert_null(store_by_uuid(s, CLASS_VM, "u-a"));
	assert_int_equal(store_count(s, CLASS_VM), 0);
	tomb = store_last_tombstone(s, CLASS_VM);
	assert_string_equal(value_str(tomb->ref), "b");
	assert_int_equal(tomb->created, 2);
	assert_int_equal(tomb->deleted, 3);
	tomb = store_prev_tombstone(s, tomb);
	assert_string_equal(value_str(tomb->ref), "a");
	assert_int_equal(tomb->created, 1);
	assert_null(store_prev_tombstone(s, tomb));
	assert_null(store_last_tombstone(s, CLASS_VBD));
	t = txn_new("gone");
	txn_destroy(t, "a");
	assert_result(apply_free(s, t), TXN_NO_OBJECT, 0, 3);
	t = txn_new("gone by itself");
	put_new(t, CLS(VM), "c");
	txn_destroy(t, "c");
	txn_set(t, CLS(VM), "c", F_VM_name_label, value_stringz("x"));
	assert_result(apply_free(s, t), TXN_NO_OBJECT, 3, 3);
}

static void test_coming_and_going_is_nothing(void **state)
{
	struct store *s = *state;
	struct hash128 before;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	before = store_digest(s);
	t = txn_new("test");
	put_new(t, CLS(VBD), "vbd");
	txn_set(t, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	txn_destroy(t, "vbd");
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	assert_true(hash128_equal(before, store_digest(s)));
	assert_null(store_last_tombstone(s, CLASS_VBD));
	t = txn_new("not twice");
	txn_destroy(t, "vm");
	put_new(t, CLS(VM), "vm");
	assert_result(apply_free(s, t), TXN_NOT_UNIQUE, 1, 1);
}

/* Fields. */

static void test_set(void **state)
{
	struct store *s = *state;
	struct record *old;

	apply_new(s, CLS(VM), "vm");
	old = record_ref(store_get(s, "vm"));
	assert_result(apply_set(s, CLS(VM), "vm", F_VM_user_version,
				value_int(5)), TXN_OK, 0, 2);
	assert_int_equal(record_int(store_get(s, "vm"), F_VM_user_version), 5);
	assert_int_equal(store_get(s, "vm")->modified, 2);
	assert_int_equal(store_get(s, "vm")->created, 1);
	/* Who held the old version still has it. */
	assert_int_equal(record_int(old, F_VM_user_version), 0);
	assert_int_equal(old->modified, 1);
	record_unref(old);
}

static void test_unchanged_is_nothing(void **state)
{
	struct store *s = *state;
	struct hash128 before;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	apply_set(s, CLS(VM), "vm", F_VM_name_label, value_stringz("web"));
	before = store_digest(s);
	assert_result(apply_set(s, CLS(VM), "vm", F_VM_name_label,
				value_stringz("web")), TXN_OK, 0, 2);
	t = txn_new("there and back");
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("x"));
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("web"));
	txn_map_remove(t, CLS(VM), "vm", F_VM_other_config, "none");
	txn_set_remove(t, CLS(VM), "vm", F_VM_tags, value_stringz("none"));
	assert_result(apply_free(s, t), TXN_OK, 0, 2);
	assert_result(apply_free(s, txn_new("empty")), TXN_OK, 0, 2);
	assert_true(hash128_equal(before, store_digest(s)));
}

static void test_maps(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	t = txn_new("test");
	txn_map_add(t, CLS(VM), "vm", F_VM_other_config, "k",
		    value_stringz("1"));
	txn_map_put(t, CLS(VM), "vm", F_VM_other_config, "a",
		    value_stringz("2"));
	assert_result(apply_free(s, t), TXN_OK, 0, 2);
	assert_field(s, "vm", F_VM_other_config, "(('a' '2') ('k' '1'))");
	t = txn_new("same value");
	txn_map_put(t, CLS(VM), "vm", F_VM_other_config, "b",
		    value_stringz("3"));
	txn_map_add(t, CLS(VM), "vm", F_VM_other_config, "k",
		    value_stringz("1"));
	assert_result(apply_free(s, t), TXN_DUPLICATE_KEY, 1, 2);
	assert_field(s, "vm", F_VM_other_config, "(('a' '2') ('k' '1'))");
	t = txn_new("test");
	txn_map_put(t, CLS(VM), "vm", F_VM_other_config, "k",
		    value_stringz("9"));
	txn_map_remove(t, CLS(VM), "vm", F_VM_other_config, "a");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_field(s, "vm", F_VM_other_config, "(('k' '9'))");
}

static void test_sets(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	t = txn_new("test");
	txn_set_add(t, CLS(VM), "vm", F_VM_tags, value_stringz("z"));
	txn_set_add(t, CLS(VM), "vm", F_VM_tags, value_stringz("a"));
	txn_set_add(t, CLS(VM), "vm", F_VM_tags, value_stringz("z"));
	assert_result(apply_free(s, t), TXN_OK, 0, 2);
	assert_field(s, "vm", F_VM_tags, "('z' 'a')");
	t = txn_new("test");
	txn_set_remove(t, CLS(VM), "vm", F_VM_tags, value_stringz("z"));
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_field(s, "vm", F_VM_tags, "('a')");
}

static void test_types_are_checked(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	assert_result(apply_set(s, CLS(VM), "vm", F_VM_name_label,
				value_int(1)), TXN_INVALID, 0, 1);
	assert_result(apply_set(s, CLS(VM), "vm", F_VM_power_state,
				value_stringz("Melting")), TXN_INVALID, 0, 1);
	t = txn_new("map of a string");
	txn_map_put(t, CLS(VM), "vm", F_VM_name_label, "k", value_stringz("v"));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("map item");
	txn_map_put(t, CLS(VM), "vm", F_VM_other_config, "k", value_int(1));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("map key");
	txn_map_put(t, CLS(VM), "vm", F_VM_blocked_operations, "no operation",
		    value_stringz(""));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("set of a map");
	txn_set_add(t, CLS(VM), "vm", F_VM_other_config, value_stringz("v"));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("set member");
	txn_set_add(t, CLS(VM), "vm", F_VM_tags, value_bool(true));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("remove from a string");
	txn_map_remove(t, CLS(VM), "vm", F_VM_name_label, "k");
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("of another class");
	txn_set(t, CLS(VBD), "vm", F_VBD_device, value_stringz("x"));
	assert_result(apply_free(s, t), TXN_NO_OBJECT, 0, 1);
}

static void test_unknown_class_and_field(void **state)
{
	static const struct field_def fields[] = { { .name = "future" } };
	const struct class_def unknown = { .name = "hologram", .fields = fields,
					   .n_fields = 1 };
	const struct class_def newer = { .name = "VM", .fields = fields,
					 .n_fields = 1 };
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	t = txn_new("class");
	txn_create(t, &unknown, "x");
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	t = txn_new("guard class");
	txn_guard_exists(t, &unknown, "vm");
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
	assert_result(apply_set(s, &newer, "vm", 0, value_int(1)), TXN_INVALID,
		      0, 1);
}

/* Guards and atomicity. */

static void test_guards(void **state)
{
	struct store *s = *state;
	struct record *old;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	old = record_ref(store_get(s, "vm"));
	t = txn_new("all hold");
	txn_guard_exists(t, CLS(VM), "vm");
	txn_guard_exists(t, NULL, "vm");
	txn_guard_absent(t, "other");
	txn_guard_version(t, old);
	txn_guard_field(t, old, F_VM_name_label);
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("x"));
	assert_result(apply_free(s, t), TXN_OK, 0, 2);

	t = txn_new("exists");
	txn_guard_exists(t, CLS(VBD), "vm");
	assert_result(apply_free(s, t), TXN_CONFLICT, 0, 2);
	t = txn_new("exists");
	txn_guard_exists(t, NULL, "other");
	assert_result(apply_free(s, t), TXN_CONFLICT, 0, 2);
	t = txn_new("absent");
	txn_guard_absent(t, "other");
	txn_guard_absent(t, "vm");
	assert_result(apply_free(s, t), TXN_CONFLICT, 1, 2);
	t = txn_new("version");
	txn_guard_version(t, old);
	assert_result(apply_free(s, t), TXN_CONFLICT, 0, 2);
	t = txn_new("field");
	txn_guard_field(t, old, F_VM_power_state);
	txn_guard_field(t, old, F_VM_name_label);
	txn_touch(t, "vm");
	assert_result(apply_free(s, t), TXN_CONFLICT, 1, 2);
	t = txn_new("destroy");
	txn_destroy(t, "vm");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	t = txn_new("field of nothing");
	txn_guard_field(t, old, F_VM_power_state);
	assert_result(apply_free(s, t), TXN_CONFLICT, 0, 3);
	t = txn_new("version of nothing");
	txn_guard_version(t, old);
	assert_result(apply_free(s, t), TXN_CONFLICT, 0, 3);
	record_unref(old);
}

static void forbid_observer(void *data, const struct txn *t,
			    uint64_t generation, const struct change *changes,
			    size_t n)
{
	fail();
}

static void test_failure_in_the_middle(void **state)
{
	struct store *s = *state;
	struct hash128 before;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	apply_new(s, CLS(VBD), "vbd");
	apply_new(s, CLS(PCI), "pci");
	before = store_digest(s);
	store_set_observer(s, forbid_observer, NULL);
	t = txn_new("test");
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("x"));
	txn_set(t, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	txn_set_add(t, CLS(VM), "vm", F_VM_attached_PCIs,
		    value_stringz("pci"));
	put_new(t, CLS(VDI), "vdi");
	txn_destroy(t, "vbd");
	txn_touch(t, "vm");
	txn_touch(t, "nothing");
	txn_set(t, CLS(VM), "vm", F_VM_name_label, value_stringz("y"));
	assert_result(apply_free(s, t), TXN_NO_OBJECT, 7, 3);
	assert_true(hash128_equal(before, store_digest(s)));
	assert_string_equal(record_str(store_get(s, "vm"), F_VM_name_label),
			    "");
	assert_non_null(store_get(s, "vbd"));
	assert_null(store_get(s, "vdi"));
	assert_field(s, "pci", F_PCI_attached_VMs, "()");
	assert_int_equal(store_generation(s), 3);
	assert_true(store_relations_agree(s));
}

/* Relations. */

static void test_one_to_many(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm1");
	apply_new(s, CLS(VM), "vm2");
	t = txn_new("test");
	put_new(t, CLS(VBD), "vbd-b");
	put_new(t, CLS(VBD), "vbd-a");
	txn_set(t, CLS(VBD), "vbd-b", F_VBD_VM, value_stringz("vm1"));
	txn_set(t, CLS(VBD), "vbd-a", F_VBD_VM, value_stringz("vm1"));
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_field(s, "vm1", F_VM_VBDs, "('vbd-a' 'vbd-b')");
	assert_int_equal(store_get(s, "vm1")->modified, 3);
	assert_int_equal(store_get(s, "vm2")->modified, 2);
	apply_set(s, CLS(VBD), "vbd-a", F_VBD_VM, value_stringz("vm2"));
	assert_field(s, "vm1", F_VM_VBDs, "('vbd-b')");
	assert_field(s, "vm2", F_VM_VBDs, "('vbd-a')");
	assert_int_equal(store_get(s, "vm1")->modified, 4);
	assert_int_equal(store_get(s, "vm2")->modified, 4);
	t = txn_new("test");
	txn_destroy(t, "vbd-a");
	assert_result(apply_free(s, t), TXN_OK, 0, 5);
	assert_field(s, "vm2", F_VM_VBDs, "()");
	assert_int_equal(store_get(s, "vm2")->modified, 5);
	apply_set(s, CLS(VBD), "vbd-b", F_VBD_VM, value_null_ref());
	assert_field(s, "vm1", F_VM_VBDs, "()");
	assert_true(store_relations_agree(s));
}

static void test_derived_is_not_written(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	assert_result(apply_set(s, CLS(VM), "vm", F_VM_VBDs,
				value_set_of("x", NULL)), TXN_INVALID, 0, 1);
	t = txn_new("test");
	txn_set_add(t, CLS(VM), "vm", F_VM_VBDs, value_stringz("x"));
	assert_result(apply_free(s, t), TXN_INVALID, 0, 1);
}

static void test_target_comes_late_and_goes(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");

	put_new(t, CLS(VBD), "vbd1");
	put_new(t, CLS(VBD), "vbd2");
	put_new(t, CLS(VBD), "vbd3");
	txn_set(t, CLS(VBD), "vbd1", F_VBD_VM, value_stringz("vm"));
	txn_set(t, CLS(VBD), "vbd2", F_VBD_VM, value_stringz("vm"));
	/* Not what this field may point to: leaves no trace. */
	txn_set(t, CLS(VBD), "vbd3", F_VBD_VDI, value_stringz("vm"));
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	t = txn_new("one leaves, one joins as it comes");
	txn_set(t, CLS(VBD), "vbd2", F_VBD_VM, value_null_ref());
	put_new(t, CLS(VM), "vm");
	put_new(t, CLS(VBD), "vbd4");
	txn_set(t, CLS(VBD), "vbd4", F_VBD_VM, value_stringz("vm"));
	assert_result(apply_free(s, t), TXN_OK, 0, 2);
	assert_field(s, "vm", F_VM_VBDs, "('vbd1' 'vbd4')");
	t = txn_new("test");
	txn_destroy(t, "vm");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_field(s, "vbd1", F_VBD_VM, "vm");
	assert_int_equal(store_get(s, "vbd1")->modified, 1);
	apply_new(s, CLS(VM), "vm");
	assert_field(s, "vm", F_VM_VBDs, "('vbd1' 'vbd4')");
	assert_true(store_relations_agree(s));
}

static void test_self_relation(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");

	put_new(t, CLS(VM), "base");
	put_new(t, CLS(VM), "snap");
	txn_set(t, CLS(VM), "snap", F_VM_snapshot_of, value_stringz("base"));
	txn_set(t, CLS(VM), "base", F_VM_snapshot_of, value_stringz("base"));
	txn_set(t, CLS(VM), "base", F_VM_parent, value_stringz("snap"));
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	assert_field(s, "base", F_VM_snapshots, "('base' 'snap')");
	assert_field(s, "snap", F_VM_children, "('base')");
	assert_field(s, "base", F_VM_children, "()");
	apply_set(s, CLS(VM), "base", F_VM_snapshot_of, value_stringz(""));
	assert_field(s, "base", F_VM_snapshots, "('snap')");
	t = txn_new("test");
	txn_destroy(t, "base");
	txn_destroy(t, "snap");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_int_equal(s->targets.count, 0);
}

static void test_many_to_many(void **state)
{
	struct store *s = *state;
	struct txn *t;

	apply_new(s, CLS(host), "h1");
	apply_new(s, CLS(host), "h2");
	apply_new(s, CLS(pool_update), "u1");
	apply_set(s, CLS(host), "h1", F_host_updates,
		  value_set_of("u1", "u1", "gone", NULL));
	assert_field(s, "h1", F_host_updates, "('u1' 'gone')");
	assert_field(s, "u1", F_pool_update_hosts, "('h1')");
	assert_int_equal(store_get(s, "u1")->modified, 4);
	t = txn_new("other side");
	txn_set_add(t, CLS(pool_update), "u1", F_pool_update_hosts,
		    value_stringz("h2"));
	txn_set_remove(t, CLS(pool_update), "u1", F_pool_update_hosts,
		       value_stringz("h1"));
	assert_result(apply_free(s, t), TXN_OK, 0, 5);
	assert_field(s, "h1", F_host_updates, "('gone')");
	assert_field(s, "h2", F_host_updates, "('u1')");
	apply_new(s, CLS(pool_update), "gone");
	assert_field(s, "gone", F_pool_update_hosts, "('h1')");
	t = txn_new("a side that goes");
	txn_destroy(t, "u1");
	assert_result(apply_free(s, t), TXN_OK, 0, 7);
	assert_field(s, "h2", F_host_updates, "()");
	assert_int_equal(store_get(s, "h2")->modified, 7);
	assert_true(store_relations_agree(s));
}

static void test_many_to_many_in_one_txn(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");

	put_new(t, CLS(host), "h");
	txn_set(t, CLS(host), "h", F_host_updates,
		value_set_of("u1", "u2", "u3", NULL));
	txn_set_remove(t, CLS(host), "h", F_host_updates, value_stringz("u2"));
	put_new(t, CLS(pool_update), "u1");
	put_new(t, CLS(pool_update), "u2");
	put_new(t, CLS(pool_update), "u3");
	txn_set(t, CLS(pool_update), "u3", F_pool_update_hosts,
		value_set_empty());
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	assert_field(s, "h", F_host_updates, "('u1')");
	assert_field(s, "u1", F_pool_update_hosts, "('h')");
	assert_field(s, "u2", F_pool_update_hosts, "()");
	assert_field(s, "u3", F_pool_update_hosts, "()");
	assert_true(store_relations_agree(s));
}

static void test_directed_set_is_plain(void **state)
{
	struct store *s = *state;

	apply_new(s, CLS(role), "admin");
	apply_new(s, CLS(role), "reader");
	apply_set(s, CLS(role), "admin", F_role_subroles,
		  value_set_of("reader", NULL));
	assert_field(s, "reader", F_role_subroles, "()");
}

static void test_is_referenced(void **state)
{
	struct store *s = *state;

	apply_new(s, CLS(VM), "vm");
	apply_new(s, CLS(VBD), "vbd");
	assert_false(store_is_referenced(s, "vm"));
	apply_set(s, CLS(VM), "vm", F_VM_snapshot_of, value_stringz("vm"));
	assert_false(store_is_referenced(s, "vm"));
	apply_set(s, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	assert_true(store_is_referenced(s, "vm"));
	assert_false(store_is_referenced(s, "vbd"));
	apply_set(s, CLS(VBD), "vbd", F_VBD_VM, value_null_ref());
	assert_false(store_is_referenced(s, "vm"));
}

/* Indexes and orders. */

static void assert_names(const struct store *s, int cls, const char *name,
			 const char *expected)
{
	_value_ refs = store_by_name(s, cls, name);

	assert_text(refs, expected);
}

static void test_names(void **state)
{
	struct store *s = *state;

	apply_new(s, CLS(VM), "b");
	apply_new(s, CLS(VM), "a");
	apply_new(s, CLS(VM), "c");
	apply_new(s, CLS(VDI), "vdi");
	apply_set(s, CLS(VM), "c", F_VM_name_label, value_stringz("web"));
	assert_names(s, CLASS_VM, "", "('a' 'b')");
	assert_names(s, CLASS_VM, "web", "('c')");
	assert_names(s, CLASS_VM, "Web", "()");
	assert_names(s, CLASS_VDI, "", "('vdi')");
}

static void assert_order(const struct store *s, const char *expected)
{
	struct record *last = NULL;
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	const char *text;

	for (struct record *r = store_first(s, CLASS_VM); r;
	     r = store_next(s, r)) {
		buf_puts(&b, value_str(r->ref));
		last = r;
	}
	text = buf_cstr(&b);
	assert_string_equal(text, expected);
	assert_ptr_equal(store_last(s, CLASS_VM), last);
	for (size_t i = b.len; i > 0; last = store_prev(s, last))
		assert_int_equal(value_str(last->ref)[0], text[--i]);
	assert_null(last);
}

static void test_order_of_changes(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");

	assert_order(s, "");
	put_new(t, CLS(VM), "a");
	put_new(t, CLS(VM), "b");
	put_new(t, CLS(VM), "c");
	apply_free(s, t);
	assert_order(s, "abc");
	apply_set(s, CLS(VM), "a", F_VM_name_label, value_stringz("x"));
	assert_order(s, "bca");
	apply_set(s, CLS(VM), "b", F_VM_name_label, value_stringz(""));
	assert_order(s, "bca");
	apply_new(s, CLS(VBD), "vbd");
	apply_set(s, CLS(VBD), "vbd", F_VBD_VM, value_stringz("c"));
	assert_order(s, "bac");
	t = txn_new("test");
	txn_touch(t, "b");
	txn_destroy(t, "a");
	apply_free(s, t);
	assert_order(s, "cb");
}

static void test_touch(void **state)
{
	struct store *s = *state;
	struct hash128 before;
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	before = store_digest(s);
	t = txn_new("test");
	txn_touch(t, "vm");
	txn_touch(t, "vm");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_int_equal(store_get(s, "vm")->modified, 3);
	assert_int_equal(store_get(s, "vm")->created, 1);
	assert_int_equal(store_generation(s), 3);
	assert_false(hash128_equal(before, store_digest(s)));
	t = txn_new("with a change");
	txn_touch(t, "vm");
	put_new(t, CLS(VBD), "vbd");
	assert_result(apply_free(s, t), TXN_OK, 0, 5);
	assert_int_equal(store_get(s, "vbd")->created, 5);
	t = txn_new("touched and destroyed");
	txn_touch(t, "vm");
	txn_destroy(t, "vm");
	assert_result(apply_free(s, t), TXN_OK, 0, 7);
}

static void test_tombstone_horizon(void **state)
{
	struct store *s = *state;
	struct txn *t;
	char ref[32];

	apply_new(s, CLS(VM), "vm");
	t = txn_new("test");
	txn_destroy(t, "vm");
	apply_free(s, t);
	assert_int_equal(store_tombstone_horizon(s), 0);
	for (unsigned i = 0; i < STORE_TOMBSTONES; i++) {
		t = txn_new("test");
		snprintf(ref, sizeof(ref), "s%u", i);
		put_new(t, CLS(secret), ref);
		store_apply(s, t);
		txn_free(t);
		t = txn_new("test");
		txn_destroy(t, ref);
		store_apply(s, t);
		txn_free(t);
	}
	assert_int_equal(s->n_tombstones, STORE_TOMBSTONES);
	assert_int_equal(store_tombstone_horizon(s), 2);
	assert_null(store_last_tombstone(s, CLASS_VM));
	assert_string_equal(value_str(store_last_tombstone(s, CLASS_secret)
					      ->ref), ref);
}

/* Retries. */

static void test_retry(void **state)
{
	struct store *s = *state;
	_txn_ t = txn_new("test");
	_txn_ refused = txn_new("test");
	struct txn_result r, seen;

	assert_false(store_txn_seen(s, t->id, &seen));
	put_new(t, CLS(VM), "vm");
	r = store_apply(s, t);
	assert_result(r, TXN_OK, 0, 1);
	apply_set(s, CLS(VM), "vm", F_VM_name_label, value_stringz("x"));
	assert_result(store_apply(s, t), TXN_OK, 0, 1);
	assert_true(store_txn_seen(s, t->id, &seen));
	assert_result(seen, TXN_OK, 0, 1);
	assert_int_equal(store_generation(s), 2);
	/* A refusal is the outcome too: the guard would hold by now. */
	txn_guard_exists(refused, NULL, "late");
	assert_result(store_apply(s, refused), TXN_CONFLICT, 0, 2);
	apply_new(s, CLS(VM), "late");
	assert_result(store_apply(s, refused), TXN_CONFLICT, 0, 2);
}

static void test_remembered_ids_are_bounded(void **state)
{
	struct store *s = *state;
	_txn_ first = txn_new("test");
	_txn_ second = txn_new("test");

	store_apply(s, first);
	store_apply(s, second);
	for (unsigned i = 0; i < STORE_REMEMBERED_IDS - 1; i++)
		apply_free(s, txn_new("test"));
	assert_false(store_txn_seen(s, first->id, NULL));
	assert_true(store_txn_seen(s, second->id, NULL));
	assert_int_equal(s->seen_by_id.count, STORE_REMEMBERED_IDS);
}

static void test_remembered_ids_survive_a_load(void **state)
{
	struct store *s = *state, *copy = store_new();
	_txn_ oldest = NULL;
	struct store_view *v;

	for (unsigned i = 0; i < STORE_REMEMBERED_IDS + 9; i++) {
		struct txn *t = txn_new("test");

		store_apply(s, t);
		if (i == 9)
			oldest = TAKE_PTR(t);
		txn_free(t);
	}
	v = store_view_new(s);
	assert_true(store_load(copy, v));
	store_view_free(v);
	assert_true(store_txn_seen(copy, oldest->id, NULL));
	apply_free(copy, txn_new("test"));
	assert_false(store_txn_seen(copy, oldest->id, NULL));
	assert_int_equal(copy->n_seen, STORE_REMEMBERED_IDS);
	store_free(copy);
}

/* Loading what no transaction could have made, with a digest that is right. */

static struct record *copy_with(const struct store *s, const char *ref,
				unsigned field, struct value *v)
{
	struct record *r = record_copy(store_get(s, ref));

	record_set(r, field, v);
	return r;
}

static void assert_not_loaded(struct store *s, const char *ref, unsigned field,
			      struct value *v)
{
	struct store *copy = store_new();
	struct store_view *good = store_view_new(s), *bad;

	assert_true(store_load(copy, good));
	store_replace(copy, map_getz(&copy->rows, ref),
		      copy_with(s, ref, field, v));
	bad = store_view_new(copy);
	assert_false(store_load(copy, bad));
	assert_int_equal(copy->rows.count, 0);
	assert_true(store_load(copy, good));
	store_view_free(good);
	store_view_free(bad);
	store_free(copy);
}

static void test_load_checks_relations_and_types(void **state)
{
	struct store *s = *state;
	struct txn *t = txn_new("test");

	put_new(t, CLS(VM), "vm");
	put_new(t, CLS(VBD), "vbd");
	put_new(t, CLS(host), "host");
	put_new(t, CLS(pool_update), "update");
	txn_set(t, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	txn_set_add(t, CLS(host), "host", F_host_updates,
		    value_stringz("update"));
	assert_result(apply_free(s, t), TXN_OK, 0, 1);
	assert_not_loaded(s, "vm", F_VM_VBDs, value_set_empty());
	assert_not_loaded(s, "vm", F_VM_VBDs, value_set_of("vbd", "x", NULL));
	assert_not_loaded(s, "vm", F_VM_VBDs, value_set_of("x", NULL));
	assert_not_loaded(s, "vbd", F_VBD_VM, value_null_ref());
	assert_not_loaded(s, "host", F_host_updates, value_set_empty());
	assert_not_loaded(s, "update", F_pool_update_hosts, value_set_empty());
	assert_not_loaded(s, "vm", F_VM_name_label, value_int(1));
	assert_not_loaded(s, "vm", F_VM_power_state, value_stringz("Odd"));
	assert_not_loaded(s, "vm", F_VM_uuid, value_stringz(""));
}

/* Observing. */

struct observed {
	size_t n;
	enum change_kind kinds[8];
	char refs[8][16];
	bool before[8], after[8];
	uint64_t generation;
};

static void observe(void *data, const struct txn *t, uint64_t generation,
		    const struct change *changes, size_t n)
{
	struct observed *o = data;

	assert_true(n <= 8);
	o->n = n;
	o->generation = generation;
	for (size_t i = 0; i < n; i++) {
		const struct change *c = &changes[i];
		const struct record *any = c->before ? c->before : c->after;

		assert_ptr_equal(any->cls, c->cls);
		o->kinds[i] = c->kind;
		o->before[i] = c->before;
		o->after[i] = c->after;
		snprintf(o->refs[i], sizeof(o->refs[i]), "%s",
			 value_str(any->ref));
	}
}

static void test_observer(void **state)
{
	struct store *s = *state;
	struct observed o = { 0 };
	struct txn *t;

	apply_new(s, CLS(VM), "vm");
	apply_new(s, CLS(VBD), "old");
	store_set_observer(s, observe, &o);
	t = txn_new("test");
	put_new(t, CLS(VBD), "vbd");
	txn_set(t, CLS(VBD), "vbd", F_VBD_VM, value_stringz("vm"));
	txn_destroy(t, "old");
	assert_result(apply_free(s, t), TXN_OK, 0, 3);
	assert_int_equal(o.n, 3);
	assert_int_equal(o.generation, 3);
	assert_string_equal(o.refs[0], "vbd");
	assert_int_equal(o.kinds[0], CHANGE_ADD);
	assert_true(!o.before[0] && o.after[0]);
	assert_string_equal(o.refs[1], "old");
	assert_int_equal(o.kinds[1], CHANGE_DEL);
	assert_true(o.before[1] && !o.after[1]);
	assert_string_equal(o.refs[2], "vm");
	assert_int_equal(o.kinds[2], CHANGE_MOD);
	assert_true(o.before[2] && o.after[2]);
	store_set_observer(s, forbid_observer, NULL);
	apply_set(s, CLS(VM), "vm", F_VM_name_label, value_stringz(""));
}

/* The digest. */

static void test_digest_forgets_history(void **state)
{
	struct store *a = *state, *b = store_new();
	struct txn *t = txn_new("test");

	put_new(t, CLS(VM), "x");
	put_new(t, CLS(VM), "y");
	apply_free(a, t);
	t = txn_new("test");
	put_new(t, CLS(VM), "y");
	put_new(t, CLS(VM), "x");
	apply_free(b, t);
	assert_digest(a, b);
	apply_set(a, CLS(VM), "x", F_VM_user_version, value_int(1));
	apply_set(b, CLS(VM), "x", F_VM_user_version, value_int(2));
	assert_false(hash128_equal(store_digest(a), store_digest(b)));
	store_free(b);
}

static void test_digest_sum_carries(void **state)
{
	struct hash128 sum = { UINT64_MAX, 5 };

	hash128_add(&sum, (struct hash128){ 2, 1 });
	assert_true(hash128_equal(sum, (struct hash128){ 1, 7 }));
	hash128_sub(&sum, (struct hash128){ 2, 1 });
	assert_true(hash128_equal(sum, (struct hash128){ UINT64_MAX, 5 }));
	sum = (struct hash128){ 0, 0 };
	hash128_sub(&sum, (struct hash128){ 1, 0 });
	assert_true(hash128_equal(sum, (struct hash128){ UINT64_MAX,
							 UINT64_MAX }));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_create),
		TEST(test_every_class_can_be_stored),
		TEST(test_create_wants_new_ref_and_uuid),
		TEST(test_uuid_may_move),
		TEST(test_destroy),
		TEST(test_coming_and_going_is_nothing),
		TEST(test_set),
		TEST(test_unchanged_is_nothing),
		TEST(test_maps),
		TEST(test_sets),
		TEST(test_types_are_checked),
		TEST(test_unknown_class_and_field),
		TEST(test_guards),
		TEST(test_failure_in_the_middle),
		TEST(test_one_to_many),
		TEST(test_derived_is_not_written),
		TEST(test_target_comes_late_and_goes),
		TEST(test_self_relation),
		TEST(test_many_to_many),
		TEST(test_many_to_many_in_one_txn),
		TEST(test_directed_set_is_plain),
		TEST(test_is_referenced),
		TEST(test_names),
		TEST(test_order_of_changes),
		TEST(test_touch),
		TEST(test_tombstone_horizon),
		TEST(test_retry),
		TEST(test_remembered_ids_are_bounded),
		TEST(test_remembered_ids_survive_a_load),
		TEST(test_load_checks_relations_and_types),
		TEST(test_observer),
		TEST(test_digest_forgets_history),
		TEST(test_digest_sum_carries),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
