/* Every generated method of every class, called over a row that has a value in
 * each field; and the errors that each kind of method gives. */
#include "pool/event.h"
#include "tests/unit/pool_calls.h"

const struct handler_def *const pool_handlers[] = {
	session_handlers, role_handlers, task_handlers, event_handlers,
	message_handlers, NULL,
};
const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module, &event_module, NULL,
};

#define DEAD "OpaqueRef:dead"

/* ---- values of every type; n tells them apart ---- */

static struct value *typed_value(const struct type *t, unsigned n)
{
	struct value *v, *pairs[2];

	switch (t->kind) {
	case TYPE_STRING:
		return value_printf("te'xt \"%u\" \\", n);
	case TYPE_INT:
		return value_int(n);
	case TYPE_FLOAT:
		return value_float(n + 0.25);
	case TYPE_BOOL:
		return value_bool(n & 1);
	case TYPE_DATETIME:
		return value_datetime(1600000000 + n);
	case TYPE_ENUM:
		return S(schema_enums[t->id].values[n % schema_enums[t->id].n_values]);
	case TYPE_REF:
		return value_null_ref();
	case TYPE_SET:
		v = value_set_new(1);
		v->items[0] = typed_value(t->item, n);
		return v;
	case TYPE_MAP:
		pairs[0] = t->key->kind == TYPE_INT ? value_printf("%u", n) :
						      typed_value(t->key, n);
		pairs[1] = typed_value(t->item, n);
		return value_map_from(pairs, 1);
	default:
		fail_msg("no field is of type %s", t->text);
		return NULL;
	}
}

static bool is_stored_public(const struct class_def *c)
{
	return c->flags & CLASS_STORED && !(c->flags & CLASS_PRIVATE);
}

static void full_row(const struct class_def *c, char ref[REF_LEN + 1])
{
	struct txn *t = txn_new("test");

	row_create(t, c->id, NULL, ref);
	for (unsigned f = 0; f < c->n_fields; f++) {
		const struct field_def *d = &c->fields[f];

		if ((int)f == c->f_uuid || d->relation != RELATION_NONE)
			continue;
		txn_set(t, c, ref, f, typed_value(d->type, f + 1));
	}
	assert_int_equal(apply(t).status, TXN_OK);
}

/* ---- one check for each kind of method ---- */

struct subject {
	const struct method_def *m;
	const struct class_def *c;
	const struct field_def *f; /* NULL if the method has none */
	const char *ref;
};

static struct record *row_of(const struct subject *s)
{
	return row_get(w.store, s->c->id, s->ref);
}

static void check_dead(const struct subject *s, struct value *arg1,
		       struct value *arg2)
{
	struct reply r;

	if (arg2)
		call(&r, w.session, s->m->name, S(DEAD), arg1, arg2, NULL);
	else if (arg1)
		call(&r, w.session, s->m->name, S(DEAD), arg1, NULL);
	else
		call(&r, w.session, s->m->name, S(DEAD), NULL);
	expect_error(&r, "HANDLE_INVALID", s->c->name, DEAD, NULL);
}

static void check_get(const struct subject *s)
{
	_value_ v = result_of(s->m->name, S(s->ref), NULL);

	assert_true(schema_fits(s->m->result, v));
	assert_true(value_equal(v, row_of(s)->fields[s->m->field]));
	check_dead(s, NULL, NULL);
}

static void check_set(const struct subject *s)
{
	_value_ v = typed_value(s->f->type, 77);

	value_unref(result_of(s->m->name, S(s->ref), value_ref(v), NULL));
	assert_true(value_equal(v, row_of(s)->fields[s->m->field]));
	check_dead(s, value_ref(v), NULL);
}

static void check_add(const struct subject *s)
{
	_value_ v = typed_value(s->f->type->item, 78);

	value_unref(result_of(s->m->name, S(s->ref), value_ref(v), NULL));
	assert_true(value_set_has(row_of(s)->fields[s->m->field], v));
	check_dead(s, value_ref(v), NULL);
}

static void check_remove(const struct subject *s)
{
	struct value *set = row_of(s)->fields[s->m->field];
	_value_ v = set->n ? value_ref(set->items[0]) :
			     typed_value(s->f->type->item, 1);

	value_unref(result_of(s->m->name, S(s->ref), value_ref(v), NULL));
	assert_false(value_set_has(row_of(s)->fields[s->m->field], v));
	check_dead(s, value_ref(v), NULL);
}

static void check_add_to(const struct subject *s)
{
	_value_ key = typed_value(s->f->type->key, 79);
	_value_ v = typed_value(s->f->type->item, 79);
	_cleanup_(buf_deinit) struct buf text = BUF_INIT;
	struct reply r;

	value_to_text(&text, key);
	value_unref(result_of(s->m->name, S(s->ref), value_ref(key),
			      value_ref(v), NULL));
	assert_true(value_equal(v, value_get(row_of(s)->fields[s->m->field],
					     buf_cstr(&text))));
	call(&r, w.session, s->m->name, S(s->ref), value_ref(key), value_ref(v),
	     NULL);
	expect_error(&r, "MAP_DUPLICATE_KEY", s->c->name, s->f->db_name,
		      s->ref, buf_cstr(&text), NULL);
	if (s->f->type->key->kind == TYPE_STRING) {
		call(&r, w.session, s->m->name, S(s->ref), S(""), value_ref(v),
		     NULL);
		expect_error(&r, "INTERNAL_ERROR", NULL);
	}
	check_dead(s, value_ref(key), value_ref(v));
}

static void check_remove_from(const struct subject *s)
{
	struct value *map = row_of(s)->fields[s->m->field];
	_value_ key = map->n ? value_ref(map->items[0]) : S("none");
	unsigned before = map->n;

	if (s->f->type->key->kind == TYPE_INT && !map->n)
		return;
	value_unref(result_of(s->m->name, S(s->ref), value_ref(key), NULL));
	assert_int_equal(row_of(s)->fields[s->m->field]->n,
			 before ? before - 1 : 0);
	/* An absent key is no error. */
	value_unref(result_of(s->m->name, S(s->ref), value_ref(key), NULL));
	check_dead(s, value_ref(key), NULL);
}

static void check_get_record(const struct subject *s)
{
	_value_ v = result_of(s->m->name, S(s->ref), NULL);

	assert_int_equal(v->kind, VALUE_RECORD);
	assert_ptr_equal(v->record, row_of(s));
	check_dead(s, NULL, NULL);
}

static void check_get_by_uuid(const struct subject *s)
{
	const char *uuid = record_str(row_of(s), (unsigned)s->c->f_uuid);
	_value_ v = result_of(s->m->name, S(uuid), NULL);
	struct reply r;

	assert_string_equal(value_str(v), s->ref);
	call(&r, w.session, s->m->name, S("nobody"), NULL);
	expect_error(&r, "UUID_INVALID", s->c->name, "nobody", NULL);
}

static void check_get_by_name_label(const struct subject *s)
{
	const char *name = record_str(row_of(s), (unsigned)s->c->f_name_label);
	_value_ ref = S(s->ref);
	_value_ v = result_of(s->m->name, S(name), NULL);
	_value_ none = result_of(s->m->name, S("no such name"), NULL);

	assert_true(value_set_has(v, ref));
	assert_int_equal(none->n, 0);
}

static void check_get_all(const struct subject *s)
{
	_value_ ref = S(s->ref);
	_value_ v = result_of(s->m->name, NULL);

	assert_true(schema_fits(s->m->result, v));
	assert_true(value_set_has(v, ref));
	assert_int_equal(v->n, rows_count(w.store, s->c->id));
}

static void check_get_all_records(const struct subject *s)
{
	_value_ v = result_of(s->m->name, NULL);
	const struct value *record = value_get(v, s->ref);

	assert_int_equal(v->kind, VALUE_MAP);
	assert_int_equal(v->n, rows_count(w.store, s->c->id));
	assert_non_null(record);
	assert_ptr_equal(record->record, row_of(s));
}

/* field = "its text" for each field must find the row. */
static void check_where(const struct subject *s)
{
	bool records = s->m->kind == METHOD_GET_ALL_RECORDS_WHERE;
	_value_ ref = S(s->ref);
	struct reply r;

	for (unsigned f = 0; f < s->c->n_fields; f++) {
		_cleanup_(buf_deinit) struct buf expr = BUF_INIT, text = BUF_INIT;
		_value_ v = NULL;

		if (s->c->fields[f].flags & FIELD_INTERNAL)
			continue;
		value_to_text(&text, row_of(s)->fields[f]);
		if (text.len > 32768) /* a role's permissions: over the limit */
			continue;
		buf_printf(&expr, "field \"%s\" = \"", s->c->fields[f].db_name);
		for (size_t i = 0; i < text.len; i++) {
			if (text.data[i] == '"' || text.data[i] == '\\')
				buf_putc(&expr, '\\');
			buf_putc(&expr, text.data[i]);
		}
		buf_putc(&expr, '"');
		v = result_of(s->m->name, S(buf_cstr(&expr)), NULL);
		if (records)
			assert_non_null(value_get(v, s->ref));
		else
			assert_true(value_set_has(v, ref));
	}
	call(&r, w.session, s->m->name, S("field \"no_such\" = \"\""), NULL);
	expect_error(&r, "INVALID_VALUE", "field \"no_such\" = \"\"", NULL);
}

static bool is_argument(const struct field_def *f)
{
	return f->qualifier != FIELD_RUNTIME && !(f->flags & FIELD_INTERNAL) &&
	       f->relation != RELATION_MANY;
}

static void check_create(const struct subject *s)
{
	struct value *args = value_struct_new(s->c->n_fields);
	bool required = false;
	unsigned n = 0;
	struct record *row;
	_value_ given = NULL, *made = NULL;
	struct reply r;

	for (unsigned f = 0; f < s->c->n_fields; f++) {
		const struct field_def *d = &s->c->fields[f];

		if (!is_argument(d))
			continue;
		required = required || !(d->flags & FIELD_DEFAULT);
		args->items[2 * n] = S(d->name);
		args->items[2 * n + 1] = typed_value(d->type, f + 3);
		n++;
	}
	args->n = n;
	given = value_ref(args);
	made = result_of(s->m->name, args, NULL);
	row = store_get_class(w.store, s->c->id, value_str(made));
	assert_non_null(row);
	for (unsigned i = 0; i < given->n; i++) {
		const struct value *name = given->items[2 * i];

		assert_true(value_equal(given->items[2 * i + 1], row->fields[
			schema_field(s->c, name->s, name->n)]));
	}
	assert_true(uuid_valid(record_str(row, (unsigned)s->c->f_uuid),
			       UUID_LEN));
	call(&r, w.session, s->m->name, value_struct_new(0), NULL);
	if (required) {
		assert_non_null(strstr(value_str(r.error->items[1]),
				       "Dispatcher_FieldNotFound"));
		expect_error(&r, "INTERNAL_ERROR", NULL);
	}
	reply_clear(&r);
}

static void check_destroy(const struct subject *s)
{
	char ref[REF_LEN + 1];

	full_row(s->c, ref);
	value_unref(result_of(s->m->name, S(ref), NULL));
	assert_null(store_get(w.store, ref));
	check_dead(s, NULL, NULL);
}

static void (*const checks[METHOD_KIND_MAX])(const struct subject *) = {
	[METHOD_GET] = check_get,
	[METHOD_SET] = check_set,
	[METHOD_ADD] = check_add,
	[METHOD_REMOVE] = check_remove,
	[METHOD_ADD_TO] = check_add_to,
	[METHOD_REMOVE_FROM] = check_remove_from,
	[METHOD_GET_RECORD] = check_get_record,
	[METHOD_GET_BY_UUID] = check_get_by_uuid,
	[METHOD_GET_BY_NAME_LABEL] = check_get_by_name_label,
	[METHOD_GET_ALL] = check_get_all,
	[METHOD_GET_ALL_WHERE] = check_where,
	[METHOD_GET_ALL_RECORDS] = check_get_all_records,
	[METHOD_GET_ALL_RECORDS_WHERE] = check_where,
	[METHOD_CREATE] = check_create,
	[METHOD_DESTROY] = check_destroy,
};

static void check_removed(const struct method_def *m)
{
	struct call *c = call_new();
	struct reply r = { 0 };

	c->name = xstrdup(m->name);
	c->method = m;
	c->session = S(w.session);
	c->done = reply_done;
	c->owner = &r;
	pool_call(w.pool, c);
	world_run();
	expect_error(&r, "MESSAGE_REMOVED", NULL);
}

static void test_every_generated_method(void **state)
{
	static char refs[EVENT_CLASSES][REF_LEN + 1];
	unsigned called = 0;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		if (c->id == CLASS_role)
			strcpy(refs[i], value_str(role_at(0)->ref));
		else if (is_stored_public(c))
			full_row(c, refs[i]);
	}
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];
		struct subject s = { m, &schema_classes[m->cls], NULL,
				     refs[m->cls] };

		if (m->kind == METHOD_CUSTOM)
			continue;
		called++;
		if (m->flags & METHOD_REMOVED) {
			check_removed(m);
			continue;
		}
		s.f = m->field >= 0 ? &s.c->fields[m->field] : NULL;
		checks[m->kind](&s);
	}
	assert_int_equal(called, 1580);
	assert_int_equal(req_count(w.pool), 0);
}

/* ---- relations ---- */

static struct value *vbd_args(const char *vm, const char *vdi)
{
	return value_struct_of(
		"VM", S(vm), "VDI", S(vdi), "userdevice", S("0"), "bootable",
		value_bool(true), "mode", S("RW"), "type", S("Disk"), "empty",
		value_bool(false), "other_config", value_map_empty(),
		"qos_algorithm_type", S(""), "qos_algorithm_params",
		value_map_empty(), NULL);
}

static void test_relations(void **state)
{
	char vm[REF_LEN + 1], vdi[REF_LEN + 1];
	_value_ vbd = NULL, *vbds = NULL;
	struct reply r;

	full_row(&schema_classes[CLASS_VM], vm);
	full_row(&schema_classes[CLASS_VDI], vdi);
	call(&r, w.session, "VBD.create", vbd_args(DEAD, vdi), NULL);
	expect_error(&r, "HANDLE_INVALID", "VM", DEAD, NULL);
	vbd = result_of("VBD.create", vbd_args(vm, vdi), NULL);
	vbds = result_of("VM.get_VBDs", S(vm), NULL);
	assert_int_equal(vbds->n, 1);
	assert_true(value_equal(vbds->items[0], vbd));
	call(&r, w.session, "VDI.destroy", S(vdi), NULL);
	expect_error(&r, "VDI_IN_USE", vdi, "destroy", NULL);
	value_unref(result_of("VBD.destroy", value_ref(vbd), NULL));
	value_unref(result_of("VDI.destroy", S(vdi), NULL));
	assert_int_equal(field_of(vm, F_VM_VBDs)->n, 0);
}

/* Somebody begins to use it between the check and the effect. */
static void test_destroy_races_with_use(void **state)
{
	char vm[REF_LEN + 1], vdi[REF_LEN + 1], vbd[REF_LEN + 1];
	struct txn *t;
	struct reply r;

	full_row(&schema_classes[CLASS_VM], vm);
	full_row(&schema_classes[CLASS_VDI], vdi);
	w.hold = true;
	call_begin(&r, w.session, "VDI.destroy", S(vdi), NULL);
	w.hold = false;
	t = txn_new("test");
	row_create(t, CLASS_VBD, NULL, vbd);
	txn_set(t, &schema_classes[CLASS_VBD], vbd, F_VBD_VDI, S(vdi));
	assert_int_equal(apply(t).status, TXN_OK);
	world_run();
	expect_error(&r, "VDI_IN_USE", vdi, NULL);
}

/* Tried on a store in which the other side of a relation still is. */
static void test_create_races_with_destroy(void **state)
{
	char vm[REF_LEN + 1], vdi[REF_LEN + 1];
	struct txn *t = txn_new("test");
	struct reply r;

	full_row(&schema_classes[CLASS_VM], vm);
	full_row(&schema_classes[CLASS_VDI], vdi);
	w.hold = true;
	call_begin(&r, w.session, "VBD.create", vbd_args(vm, vdi), NULL);
	w.hold = false;
	txn_destroy(t, vdi);
	assert_int_equal(apply(t).status, TXN_OK);
	world_run();
	expect_error(&r, "HANDLE_INVALID", "VDI", vdi, NULL);
}

/* ---- messages ---- */

static void test_messages(void **state)
{
	const char *uuid = w.pool->cfg.host_uuid;
	_value_ a = result_of("message.create", S("A"), value_int(1), S("Host"),
			      S(uuid), S("<x>"), NULL);
	_value_ b = NULL, *since = NULL, *mine = NULL, *where = NULL;
	_value_ found = NULL, *all = NULL;
	int64_t first = w.wall_ms / 1000;
	struct reply r;

	world_advance(10000);
	b = result_of("message.create", S("B"), value_int(5), S("Host"),
		      S(uuid), S(""), NULL);
	call(&r, w.session, "message.create", S("C"), value_int(1), S("VM"),
	     S(uuid), S(""), NULL);
	expect_error(&r, "UUID_INVALID", "VM", uuid, NULL);
	since = result_of("message.get_since", value_datetime(first), NULL);
	assert_int_equal(since->n, 1);
	assert_non_null(value_get(since, value_str(b)));
	mine = result_of("message.get", S("Host"), S(uuid), value_datetime(0),
			 NULL);
	assert_int_equal(mine->n, 2);
	where = result_of("message.get_all_records_where",
			  S("field \"name\" = \"A\""), NULL);
	assert_int_equal(where->n, 1);
	found = result_of("message.get_by_uuid",
			  value_ref(field_of(value_str(a), F_message_uuid)),
			  NULL);
	assert_true(value_equal(found, a));
	call(&r, w.session, "message.destroy_many",
	     value_set_of(value_str(a), DEAD, NULL), NULL);
	expect_error(&r, "HANDLE_INVALID", "message", DEAD, NULL);
	call(&r, w.session, "message.destroy_all",
	     value_map_of("after", S("yesterday"), NULL), NULL);
	expect_error(&r, "INVALID_VALUE", "after", "yesterday", NULL);
	value_unref(result_of("message.destroy_all",
			      value_map_of("priority", S("1"), NULL), NULL));
	all = result_of("message.get_all", NULL);
	assert_int_equal(all->n, 1);
	assert_true(value_equal(all->items[0], b));
	value_unref(result_of("message.destroy_many",
			      value_set_of(value_str(b), value_str(b), NULL),
			      NULL));
	assert_int_equal(store_count(w.store, CLASS_message), 0);
}

static void test_messages_are_limited(void **state)
{
	for (unsigned i = 0; i < 10100; i += 100) {
		struct txn *t = txn_new("test");

		for (unsigned k = 0; k < 100; k++)
			message_create(t, "M", 5, "Host", "", "");
		assert_int_equal(apply(t).status, TXN_OK);
	}
	world_advance(31000);
	assert_int_equal(store_count(w.store, CLASS_message), 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(test_every_generated_method),
		world_test(test_relations),
		world_test(test_destroy_races_with_use),
		world_test(test_create_races_with_destroy),
		world_test(test_messages),
		world_test(test_messages_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
