#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "schema/gen/schema_ids.h"
#include "schema/record.h"
#include "schema/schema.h"

/* Names. */

static void test_methods_found(void **state)
{
	assert_int_equal(schema_n_methods, M_COUNT);
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const char *name = schema_methods[i].name;

		assert_ptr_equal(schema_method(name, strlen(name)),
				 &schema_methods[i]);
		if (i > 0)
			assert_true(strcmp(schema_methods[i - 1].name, name) <
				    0);
	}
	assert_string_equal(schema_methods[M_VM_start].name, "VM.start");
}

static void test_methods_missed(void **state)
{
	static const char *const names[] = {
		"", "VM", "VM.", "VM.start ", "VM.star", "VM.startt",
		"vm.start", "VM_start", "job.get_record", "job.get_all",
		"system.listMethods", "VM.get_record_internal",
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_null(schema_method(names[i], strlen(names[i])));
	/* Only the first n bytes count. */
	assert_non_null(schema_method("VM.start_on", 8));
	assert_null(schema_method("VM.start\0", 9));
}

static void test_classes_found(void **state)
{
	char name[64];

	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];
		size_t n = strlen(c->name);

		assert_int_equal(c->id, i);
		assert_ptr_equal(schema_class(c->name, n), c);
		assert_ptr_equal(schema_class_nocase(c->event_name, n), c);
		for (size_t j = 0; j <= n; j++)
			name[j] = c->name[j] >= 'a' && c->name[j] <= 'z' ?
				(char)(c->name[j] - 32) : c->name[j];
		assert_ptr_equal(schema_class_nocase(name, n), c);
	}
	assert_ptr_equal(schema_class("VM", 2), &schema_classes[CLASS_VM]);
	assert_null(schema_class("vm", 2));
	assert_non_null(schema_class_nocase("vm", 2));
	assert_null(schema_class("VMs", 3));
	assert_null(schema_class_nocase("", 0));
}

static void test_private_classes(void **state)
{
	static const int ids[] = {
		CLASS_job, CLASS_member, CLASS_credential
	};
	bool seen = false;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		bool private = schema_classes[i].flags & CLASS_PRIVATE;

		assert_true(private || !seen); /* they are the last */
		seen = private;
	}
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		assert_true(schema_classes[ids[i]].flags & CLASS_PRIVATE);
		assert_true(schema_classes[ids[i]].flags & CLASS_STORED);
		assert_int_equal(schema_classes[ids[i]].f_uuid, 0);
	}
	/* Their messages are for other members only: never a generated one. */
	for (unsigned i = 0; i < schema_n_methods; i++)
		if (schema_classes[schema_methods[i].cls].flags & CLASS_PRIVATE)
			assert_int_equal(schema_methods[i].kind, METHOD_CUSTOM);
	assert_true(schema_classes[CLASS_message].flags & CLASS_STORED);
	assert_false(schema_classes[CLASS_event].flags & CLASS_STORED);
}

static void test_fields_found(void **state)
{
	const struct class_def *vm = &schema_classes[CLASS_VM];

	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (int j = 0; j < c->n_fields; j++) {
			const struct field_def *f = &c->fields[j];

			assert_int_equal(schema_field(c, f->name,
						      strlen(f->name)), j);
			assert_int_equal(schema_field(c, f->db_name,
						      strlen(f->db_name)), j);
		}
	}
	assert_int_equal(schema_field(vm, "name_label", 10), F_VM_name_label);
	assert_int_equal(schema_field(vm, "name__label", 11),
			 F_VM_name_label);
	assert_int_equal(schema_field(vm, "memory_static_max", 17),
			 F_VM_memory_static_max);
	assert_int_equal(schema_field(vm, "nested_virt", 11), -1);
	assert_int_equal(schema_field(vm, "", 0), -1);
	assert_int_equal(schema_field(&schema_classes[CLASS_auth], "uuid", 4),
			 -1);
}

static void test_relations_agree(void **state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (int j = 0; j < c->n_fields; j++) {
			const struct field_def *f = &c->fields[j], *o;

			if (f->relation == RELATION_NONE)
				continue;
			o = &schema_classes[f->other_class]
				.fields[f->other_field];
			assert_int_equal(o->other_class, c->id);
			assert_int_equal(o->other_field, j);
			assert_int_equal(f->relation == RELATION_ONE,
					 o->relation == RELATION_MANY);
			assert_int_equal(f->type->kind == TYPE_REF,
					 f->relation == RELATION_ONE);
			n++;
		}
	}
	assert_int_equal(n, 2 * 62);
}

static void test_errors_and_alerts(void **state)
{
	for (unsigned i = 0; i < schema_n_errors; i++)
		assert_ptr_equal(schema_error(schema_errors[i].code),
				 &schema_errors[i]);
	for (unsigned i = 0; i < schema_n_alerts; i++)
		assert_ptr_equal(schema_alert(schema_alerts[i].name),
				 &schema_alerts[i]);
	assert_string_equal(schema_error("HANDLE_INVALID")->params[0],
			    "class");
	assert_null(schema_error("NO_SUCH_ERROR"));
	assert_null(schema_error(""));
	assert_int_equal(schema_alert("ALARM")->priority, 1);
	assert_null(schema_alert("ALARMS"));
}

static void test_roles(void **state)
{
	const struct role_set_def *set = schema_role_sets;

	assert_int_equal(set[ROLES_LOCAL_ROOT].role_bits, 0);
	assert_int_equal(set[ROLES_POOL_ADMIN].role_bits, 1);
	assert_int_equal(set[ROLES_READ_ONLY].role_bits,
			 (1u << ROLE_COUNT) - 1);
	assert_false(set[ROLES_VM_OPERATOR].role_bits &
		     1u << ROLE_CLIENT_CERT);
	assert_true(set[ROLES_VM_OPERATOR_CLIENT_CERT].role_bits &
		    1u << ROLE_CLIENT_CERT);
	assert_string_equal(schema_roles[ROLE_POOL_ADMIN].name, "pool-admin");
}

/* The first guarded key that fits wins, so their order counts. */
static void test_map_keys(void **state)
{
	const struct method_def *m = &schema_methods[M_VM_add_to_other_config];

	assert_int_equal(m->kind, METHOD_CUSTOM);
	assert_int_equal(m->n_map_keys, 4);
	assert_string_equal(m->map_keys[0].key, "hvm_serial");
	assert_int_equal(m->map_keys[0].roles, ROLES_POOL_ADMIN);
	m = &schema_methods[M_host_remove_from_other_config];
	assert_int_equal(m->kind, METHOD_REMOVE_FROM);
	assert_int_equal(m->n_map_keys, 2);
	assert_string_equal(m->map_keys[1].key, "XenCenter.CustomFields.*");
}

static void test_method_rows(void **state)
{
	const struct method_def *m = &schema_methods[M_VM_start];

	assert_int_equal(m->cls, CLASS_VM);
	assert_int_equal(m->field, -1);
	assert_int_equal(m->n_params, 3);
	assert_int_equal(m->n_required, 3);
	assert_int_equal(m->flags, METHOD_ASYNC | METHOD_SESSION);
	m = &schema_methods[M_session_login_with_password];
	assert_int_equal(m->flags, METHOD_SECRET | METHOD_LOCAL);
	assert_int_equal(m->n_required, 2);
	assert_int_equal(m->n_params, 4);
	m = &schema_methods[M_VM_get_name_label];
	assert_int_equal(m->field, F_VM_name_label);
	assert_int_equal(m->kind, METHOD_GET);
}

static void test_every_row_is_whole(void **state)
{
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];

		assert_true(m->doc[0] && m->since[0] && m->state[0]);
		assert_int_equal(!!(m->flags & METHOD_REMOVED),
				 strcmp(m->state, "removed") == 0);
		for (unsigned j = 0; j < m->n_params; j++)
			assert_int_equal(j >= m->n_required,
					 m->params[j].default_json != NULL);
		for (unsigned j = 0; m->errors[j]; j++)
			assert_non_null(schema_error(m->errors[j]));
	}
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		assert_true(c->doc[0]);
		for (unsigned j = 0; j < c->n_fields; j++)
			assert_true(c->fields[j].doc[0]);
	}
}

/* Defaults. */

static struct value *vm_default(unsigned field)
{
	return schema_field_default(&schema_classes[CLASS_VM], field);
}

static void test_defaults_fit(void **state)
{
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (unsigned j = 0; j < c->n_fields; j++) {
			struct value *v = schema_field_default(c, j);

			assert_true(schema_fits(c->fields[j].type, v));
			value_unref(v);
		}
	}
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];

		for (unsigned j = 0; j < m->n_params; j++) {
			struct value *v = schema_param_default(m, j);

			assert_true(schema_fits(m->params[j].type, v));
			value_unref(v);
		}
	}
}

static void test_default_values(void **state)
{
	const struct method_def *m = &schema_methods[M_host_create];
	struct value *v = vm_default(F_VM_power_state), *again;

	assert_true(value_is_str(v, "Halted"));
	again = vm_default(F_VM_power_state);
	assert_ptr_equal(v, again);
	value_unref(again);
	value_unref(v);
	v = vm_default(F_VM_HVM_shadow_multiplier);
	assert_true(v->kind == VALUE_FLOAT && v->d == 1.0);
	value_unref(v);
	v = vm_default(F_VM_suspend_VDI);
	assert_true(value_is_null_ref(v));
	value_unref(v);
	v = vm_default(F_VM_tags);
	assert_true(v->kind == VALUE_SET && v->n == 0);
	value_unref(v);
	v = vm_default(F_VM_snapshot_time);
	assert_true(v->kind == VALUE_DATETIME && v->i == 0);
	value_unref(v);
	for (unsigned i = 0; i < m->n_params; i++) {
		if (strcmp(m->params[i].name, "license_server") != 0)
			continue;
		v = schema_param_default(m, i);
		assert_int_equal(v->kind, VALUE_MAP);
		assert_string_equal(value_get_str(v, "address"), "localhost");
		assert_string_equal(value_get_str(v, "port"), "27000");
		value_unref(v);
	}
}

static void *read_defaults(void *data)
{
	struct value **out = data;
	const struct class_def *c = &schema_classes[CLASS_host];

	for (unsigned i = 0; i < c->n_fields; i++)
		out[i] = schema_field_default(c, i);
	return NULL;
}

static void test_defaults_in_threads(void **state)
{
	struct value *got[4][128];
	unsigned n = schema_classes[CLASS_host].n_fields;
	pthread_t threads[4];

	assert_true(n <= ARRAY_LEN(got[0]));
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
						read_defaults, got[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned j = 0; j < n; j++)
		for (int i = 0; i < 4; i++) {
			assert_ptr_equal(got[i][j], got[0][j]);
			value_unref(got[i][j]);
		}
}

/* Coercion: the type is that of a field which has it. */

static const struct type *type_of(const struct class_def *c, unsigned field)
{
	return c->fields[field].type;
}

static const struct type *vm_type(unsigned field)
{
	return type_of(&schema_classes[CLASS_VM], field);
}

/* Takes v and want; want NULL: must be refused with that reason. */
static void expect(const struct type *t, struct value *v, struct value *want,
		   const char *reason)
{
	char why[256] = "";
	struct value *got = schema_coerce(t, v, why, sizeof(why));

	if (!want) {
		assert_null(got);
		assert_string_equal(why, reason);
	} else {
		assert_non_null(got);
		assert_true(value_equal(got, want));
		assert_true(schema_fits(t, got));
	}
	value_unref(got);
	value_unref(want);
	value_unref(v);
}

static void test_coerce_int(void **state)
{
	const struct type *t = vm_type(F_VM_VCPUs_max);

	expect(t, value_int(7), value_int(7), NULL);
	expect(t, value_count(7), value_int(7), NULL);
	expect(t, value_stringz("-12"), value_int(-12), NULL);
	expect(t, value_stringz("0x10"), value_int(16), NULL);
	expect(t, value_stringz("9223372036854775807"), value_int(INT64_MAX),
	       NULL);
	expect(t, value_stringz("9223372036854775808"), NULL,
	       "Expected int, got string \"9223372036854775808\"");
	expect(t, value_stringz("abc"), NULL,
	       "Expected int, got string \"abc\"");
	expect(t, value_stringz(""), NULL, "Expected int, got string \"\"");
	expect(t, value_float(1.5), NULL, "Expected int, got float 1.5");
	expect(t, value_bool(true), NULL, "Expected int, got bool true");
	expect(t, value_nil(), NULL, "Expected int, got nil");
}

static void test_coerce_float_bool(void **state)
{
	const struct type *t = vm_type(F_VM_HVM_shadow_multiplier);

	expect(t, value_float(1.5), value_float(1.5), NULL);
	expect(t, value_int(2), value_float(2), NULL);
	expect(t, value_stringz("1e3"), value_float(1000), NULL);
	expect(t, value_stringz("one"), NULL,
	       "Expected float, got string \"one\"");
	t = vm_type(F_VM_is_a_template);
	expect(t, value_bool(true), value_bool(true), NULL);
	expect(t, value_int(1), NULL, "Expected bool, got int 1");
	expect(t, value_stringz("true"), NULL,
	       "Expected bool, got string \"true\"");
}

static void test_coerce_string_enum_ref(void **state)
{
	const struct type *t = vm_type(F_VM_name_label);

	expect(t, value_stringz("x"), value_stringz("x"), NULL);
	expect(t, value_int(3), NULL, "Expected string, got int 3");
	expect(t, value_nil(), NULL, "Expected string, got nil");
	t = vm_type(F_VM_power_state);
	expect(t, value_stringz("Running"), value_stringz("Running"), NULL);
	expect(t, value_stringz("running"), NULL,
	       "Expected enum vm_power_state, got string \"running\"");
	t = vm_type(F_VM_resident_on);
	expect(t, value_stringz("anything"), value_stringz("anything"), NULL);
	expect(t, value_set_empty(), NULL,
	       "Expected host ref, got an array of 0");
}

static void test_coerce_datetime(void **state)
{
	const struct type *t = vm_type(F_VM_snapshot_time);

	expect(t, value_datetime(5), value_datetime(5), NULL);
	expect(t, value_stringz("19700101T00:00:07Z"), value_datetime(7),
	       NULL);
	expect(t, value_stringz("1970-01-01T01:00:07+01:00"),
	       value_datetime(7), NULL);
	expect(t, value_int(7), NULL, "Expected datetime, got int 7");
	expect(t, value_stringz("tomorrow"), NULL,
	       "Expected datetime, got string \"tomorrow\"");
}

static void test_coerce_sets(void **state)
{
	const struct type *t = vm_type(F_VM_tags);
	struct value *v = value_set_new(2);

	expect(t, value_set_empty(), value_set_empty(), NULL);
	expect(t, value_set_of("b", "a", "b", NULL),
	       value_set_of("b", "a", "b", NULL), NULL);
	v->items[0] = value_stringz("a");
	v->items[1] = value_int(1);
	expect(t, v, NULL, "Expected string, got int 1");
	expect(t, value_stringz("a"), NULL,
	       "Expected string set, got string \"a\"");
	expect(t, value_struct_new(0), NULL,
	       "Expected string set, got a struct");
}

static struct value *map_of(const char *key, const char *item)
{
	return value_map_of(key, value_stringz(item), NULL);
}

static void test_coerce_maps(void **state)
{
	const struct type *t = vm_type(F_VM_other_config);
	struct value *one = value_int(1);

	expect(t, value_struct_of("k", value_stringz("v"), "a",
				  value_stringz("w"), NULL),
	       value_map_of("a", value_stringz("w"), "k",
			    value_stringz("v"), NULL), NULL);
	expect(t, map_of("a", "w"), map_of("a", "w"), NULL);
	expect(t, value_struct_new(0), value_map_empty(), NULL);
	expect(t, value_struct_of("k", value_ref(one), NULL), NULL,
	       "Expected string, got int 1");
	expect(t, value_set_empty(), NULL,
	       "Expected (string -> string) map, got an array of 0");
	t = vm_type(F_VM_blocked_operations);
	expect(t, value_struct_of("start", value_stringz("no"), NULL),
	       map_of("start", "no"), NULL);
	expect(t, value_struct_of("stop", value_stringz("no"), NULL), NULL,
	       "Expected enum vm_operations, got string \"stop\"");
	value_unref(one);
}

static void test_coerce_int_keys(void **state)
{
	const struct class_def *c = &schema_classes[CLASS_VM_metrics];
	const struct type *t = type_of(c, F_VM_metrics_VCPUs_CPU);
	struct value *v, *want;
	char reason[128];

	assert_string_equal(t->text, "(int -> int) map");
	v = value_struct_of("0x0a", value_stringz("1"), "-3", value_int(2),
			    NULL);
	want = schema_coerce(t, v, reason, sizeof(reason));
	value_unref(v);
	assert_non_null(want);
	assert_true(schema_fits(t, want));
	assert_int_equal(value_get_int(want, "10", 0), 1);
	assert_int_equal(value_get_int(want, "-3", 0), 2);
	value_unref(want);
	expect(t, value_struct_of("x", value_int(1), NULL), NULL,
	       "Expected int, got string \"x\"");
}

static void test_coerce_records(void **state)
{
	const struct method_def *m = &schema_methods[M_VM_create];
	const struct type *t = m->params[0].type;
	struct value *v;

	assert_int_equal(t->kind, TYPE_RECORD);
	v = value_struct_of("memory_static_max", value_stringz("8"),
			    "no_such_field", value_int(1),
			    "name__label", value_stringz("database name"),
			    "domid", value_stringz("broken but not settable"),
			    "name_label", value_stringz("vm"), NULL);
	expect(t, v, value_struct_of("memory_static_max", value_int(8),
				     "name_label", value_stringz("vm"), NULL),
	       NULL);
	expect(t, value_struct_of("name_label", value_int(8), NULL), NULL,
	       "name_label: Expected string, got int 8");
	expect(t, value_stringz("x"), NULL,
	       "Expected VM record, got string \"x\"");
}

static void test_coerce_option_void(void **state)
{
	const struct type *t = type_of(&schema_classes[CLASS_sr_stat],
				       F_sr_stat_uuid);
	struct value *set = value_set_of("a", NULL);

	assert_int_equal(t->kind, TYPE_OPTION);
	expect(t, value_nil(), value_nil(), NULL);
	expect(t, value_set_empty(), value_nil(), NULL);
	expect(t, set, value_stringz("a"), NULL);
	expect(t, value_stringz("a"), value_stringz("a"), NULL);
	expect(t, value_int(1), NULL, "Expected string, got int 1");
	t = schema_methods[M_VM_start].result;
	expect(t, value_nil(), value_void(), NULL);
	expect(t, value_stringz(""), value_void(), NULL);
	expect(t, value_stringz("x"), NULL,
	       "Expected void, got string \"x\"");
}

/* What a reason shows is short and ends between two characters. */
static void test_reason_is_short(void **state)
{
	const struct type *t = vm_type(F_VM_VCPUs_max);
	char text[200], why[256], want[128];
	struct value *v;

	memset(text, 'a', sizeof(text));
	v = value_string(text, sizeof(text));
	assert_null(schema_coerce(t, v, why, sizeof(why)));
	snprintf(want, sizeof(want), "Expected int, got string \"%.60s...\"",
		 text);
	assert_string_equal(why, want);
	assert_null(schema_coerce(t, v, why, 10));
	assert_string_equal(why, "Expected ");
	assert_null(schema_coerce(t, v, NULL, 0));
	value_unref(v);

	memcpy(text + 59, "\xc3\xa9", 2);
	v = value_string(text, sizeof(text));
	assert_null(schema_coerce(t, v, why, sizeof(why)));
	snprintf(want, sizeof(want), "Expected int, got string \"%.59s...\"",
		 text);
	assert_string_equal(why, want);
	/* Cut in the middle of the character by the caller's buffer. */
	memcpy(text, "\xc3\xa9", 3);
	value_unref(v);
	v = value_stringz(text);
	assert_null(schema_coerce(t, v, why, sizeof("Expected int, got "
						    "string \"") + 1));
	assert_string_equal(why, "Expected int, got string \"");
	value_unref(v);
}

/* Fitting. */

static void check_fits(const struct type *t, struct value *v, bool want)
{
	assert_int_equal(schema_fits(t, v), want);
	value_unref(v);
}

static void test_fits(void **state)
{
	check_fits(vm_type(F_VM_VCPUs_max), value_int(1), true);
	check_fits(vm_type(F_VM_VCPUs_max), value_stringz("1"), false);
	check_fits(vm_type(F_VM_VCPUs_max), value_count(1), false);
	check_fits(vm_type(F_VM_power_state), value_stringz("Halted"), true);
	check_fits(vm_type(F_VM_power_state), value_stringz("Odd"), false);
	check_fits(vm_type(F_VM_snapshot_time), value_datetime(1), true);
	check_fits(vm_type(F_VM_snapshot_time), value_int(1), false);
	check_fits(vm_type(F_VM_tags), value_set_of("a", NULL), true);
	check_fits(vm_type(F_VM_tags), value_map_empty(), false);
	check_fits(vm_type(F_VM_other_config), map_of("a", "b"), true);
	check_fits(vm_type(F_VM_other_config), value_struct_new(0), false);
	check_fits(vm_type(F_VM_blocked_operations), map_of("stop", "b"),
		   false);
}

static void test_fits_records(void **state)
{
	const struct class_def *c = &schema_classes[CLASS_VLAN];
	const struct type *vlan = schema_methods[M_VLAN_get_record].result;
	const struct type *vm = schema_methods[M_VM_get_record].result;
	struct record *r = record_new(c, value_null_ref());
	struct value *v;

	for (unsigned i = 0; i < c->n_fields; i++)
		record_set(r, i, schema_field_default(c, i));
	v = value_record(r);
	record_unref(r);
	assert_true(schema_fits(vlan, v));
	assert_false(schema_fits(vm, v));
	value_unref(v);
	check_fits(vlan, value_struct_of("tag", value_int(1), NULL), true);
	check_fits(vlan, value_struct_of("tag", value_stringz("1"), NULL),
		   false);
	check_fits(vlan, value_struct_of("tags", value_int(1), NULL), false);
}

static void test_empty(void **state)
{
	struct value *v = schema_empty(vm_type(F_VM_power_state));

	assert_true(value_is_str(v, "Halted"));
	value_unref(v);
	v = schema_empty(vm_type(F_VM_resident_on));
	assert_true(value_is_str(v, "OpaqueRef:NULL"));
	value_unref(v);
	assert_true(enum_has(ENUM_vm_power_state, "Paused"));
	assert_false(enum_has(ENUM_vm_power_state, "paused"));
	assert_false(enum_has(ENUM_vm_power_state, ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_methods_found),
		cmocka_unit_test(test_methods_missed),
		cmocka_unit_test(test_classes_found),
		cmocka_unit_test(test_private_classes),
		cmocka_unit_test(test_fields_found),
		cmocka_unit_test(test_relations_agree),
		cmocka_unit_test(test_errors_and_alerts),
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_map_keys),
		cmocka_unit_test(test_method_rows),
		cmocka_unit_test(test_every_row_is_whole),
		cmocka_unit_test(test_defaults_in_threads),
		cmocka_unit_test(test_defaults_fit),
		cmocka_unit_test(test_default_values),
		cmocka_unit_test(test_coerce_int),
		cmocka_unit_test(test_coerce_float_bool),
		cmocka_unit_test(test_coerce_string_enum_ref),
		cmocka_unit_test(test_coerce_datetime),
		cmocka_unit_test(test_coerce_sets),
		cmocka_unit_test(test_coerce_maps),
		cmocka_unit_test(test_coerce_int_keys),
		cmocka_unit_test(test_coerce_records),
		cmocka_unit_test(test_coerce_option_void),
		cmocka_unit_test(test_reason_is_short),
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_fits_records),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
