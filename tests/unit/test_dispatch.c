/* rpc/dispatch.c: names, counts and types of parameters against the schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the four */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "rpc/dispatch.h"
#include "rpc/jsonrpc.h"

static struct call *call;

static int teardown(void **state)
{
	call_free(call);
	call = NULL;
	return 0;
}

/* params: JSON, without the brackets. True: for the pool. */
static bool dispatch(const char *method, const char *params)
{
	const struct rpc_limits limits = { .depth = 32 };
	struct rpc_parse_error err = { .error = NULL };
	_cleanup_(rpc_request_deinit) struct rpc_request r = RPC_REQUEST_INIT;
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	teardown(NULL);
	call = call_new();
	buf_printf(&b, "{\"id\":1,\"method\":\"%s\",\"params\":[%s]}", method,
		   params);
	assert_int_equal(jsonrpc_parse(b.data, b.len, &limits, &r, &err),
			 RPC_PARSE_OK);
	return dispatch_request(&r, call);
}

static void expect_json(const struct value *v, const char *json)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	assert_non_null(v);
	jsonrpc_write_value(&b, v);
	assert_string_equal(buf_cstr(&b), json);
}

static void expect_error(const char *method, const char *params,
			 const char *json)
{
	assert_false(dispatch(method, params));
	assert_null(call->result);
	expect_json(call->error, json);
}

static void test_names(void **state)
{
	assert_true(dispatch("VM.get_name_label", "\"s\",\"r\""));
	assert_string_equal(call->method->name, "VM.get_name_label");
	assert_string_equal(call->name, "VM.get_name_label");
	assert_string_equal(value_str(call->session), "s");
	assert_int_equal(call->n_args, 1);
	assert_string_equal(value_str(call->args[0]), "r");
	assert_int_equal(call->mode, CALL_SYNC);

	assert_true(dispatch("VM_get_name_label", "\"s\",\"r\""));
	assert_string_equal(call->method->name, "VM.get_name_label");
	assert_true(dispatch("VM_metrics_get_record", "\"s\",\"r\""));
	assert_string_equal(call->method->name, "VM_metrics.get_record");
	assert_true(dispatch("VM_guest_metrics_get_by_uuid", "\"s\",\"r\""));
	assert_string_equal(call->method->name,
			    "VM_guest_metrics.get_by_uuid");
}

static void test_async(void **state)
{
	assert_true(dispatch("Async.VM.clean_shutdown", "\"s\",\"r\""));
	assert_int_equal(call->mode, CALL_ASYNC);
	assert_string_equal(call->name, "VM.clean_shutdown");
	assert_true(dispatch("InternalAsync.VM.clean_shutdown",
			     "\"s\",\"r\""));
	assert_int_equal(call->mode, CALL_INTERNAL_ASYNC);
	expect_error("Async.VM.get_record", "\"s\",\"r\"",
		     "[\"Fault\",\"No async mode for this operation (rpc: "
		     "VM.get_record)\"]");
	/* No alias behind a prefix: an unknown method. */
	assert_true(dispatch("Async.VM_clean_shutdown", "\"s\",\"r\""));
	assert_null(call->method);
	expect_error("Async.system.listMethods", "",
		     "[\"MESSAGE_METHOD_UNKNOWN\",\"system.listMethods\"]");
}

static void test_unknown(void **state)
{
	expect_error("logout", "", "[\"MESSAGE_METHOD_UNKNOWN\",\"logout\"]");
	expect_error("", "", "[\"MESSAGE_METHOD_UNKNOWN\",\"\"]");
	expect_error("system.isAlive", "",
		     "[\"MESSAGE_METHOD_UNKNOWN\",\"system.isAlive\"]");
	assert_true(dispatch("VM.dance", "\"s\",1,2"));
	assert_null(call->method);
	assert_string_equal(call->name, "VM.dance");
	assert_string_equal(value_str(call->session), "s");
	assert_int_equal(call->n_args, 2);
	assert_false(dispatch("VM.dance", "5"));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
	/* Far more arguments than a call holds. */
	assert_true(dispatch("x", "\"s\",0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
			     "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"));
	assert_int_equal(call->n_args, CALL_MAX_ARGS);
	/* A private class is as good as none. */
	assert_true(dispatch("job.get_record", "\"s\",\"r\""));
	assert_null(call->method);
}

static void test_counts(void **state)
{
	expect_error("VM.start", "\"s\"",
		     "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\",\"VM.start\","
		     "\"3\",\"0\"]");
	expect_error("VM_start", "\"s\",\"r\",false,false,false",
		     "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\",\"VM.start\","
		     "\"3\",\"4\"]");
	expect_error("VM.get_all", "",
		     "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\",\"VM.get_all\","
		     "\"0\",\"-1\"]");
	expect_error("session.login_with_password", "\"u\"",
		     "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\","
		     "\"session.login_with_password\",\"2\",\"1\"]");
	assert_true(dispatch("session.login_with_password", "\"u\",\"p\""));
	assert_null(call->session);
	assert_int_equal(call->n_args, 4);
	assert_int_equal(call->args[2]->kind, VALUE_STRING);
	assert_int_equal(call->args[3]->kind, VALUE_STRING);
	/* Surplus ones behind optional ones are ignored. */
	assert_true(dispatch("session.login_with_password",
			     "\"u\",\"p\",\"v\",\"o\",\"x\",\"y\""));
	assert_int_equal(call->n_args, 4);
	assert_string_equal(value_str(call->args[3]), "o");
}

static void test_types(void **state)
{
	assert_true(dispatch("VM.set_memory_dynamic_max", "\"s\",\"r\",\"5\""));
	assert_int_equal(call->args[1]->kind, VALUE_INT);
	assert_int_equal(call->args[1]->i, 5);
	assert_false(dispatch("VM.set_memory_dynamic_max",
			      "\"s\",\"r\",\"x\""));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
	assert_non_null(strstr(value_str(call->error->items[1]), "value"));
	assert_false(dispatch("VM.set_is_a_template", "\"s\",\"r\",\"true\""));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
	assert_true(dispatch("VM.set_other_config",
			     "\"s\",\"r\",{\"b\":\"1\",\"a\":\"2\"}"));
	assert_int_equal(call->args[1]->kind, VALUE_MAP);
	expect_json(call->args[1], "{\"a\":\"2\",\"b\":\"1\"}");
	assert_false(dispatch("VM.get_record", "1,\"r\""));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
	assert_false(dispatch("VM.get_record", "\"s\",null"));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
}

static void test_enums(void **state)
{
	assert_true(dispatch("VM.set_actions_after_shutdown",
			     "\"s\",\"r\",\"destroy\""));
	expect_error("VM.set_actions_after_shutdown",
		     "\"s\",\"r\",\"explode\"",
		     "[\"INVALID_VALUE\",\"value\",\"explode\"]");
	/* The member of a struct is named. */
	expect_error("VM.create",
		     "\"s\",{\"actions_after_reboot\":\"explode\"}",
		     "[\"INVALID_VALUE\",\"actions_after_reboot\","
		     "\"explode\"]");
	/* A wrong type is not a wrong member. */
	assert_false(dispatch("VM.set_actions_after_shutdown",
			      "\"s\",\"r\",5"));
	assert_string_equal(value_str(call->error->items[0]),
			    "INTERNAL_ERROR");
}

static void test_constructor(void **state)
{
	assert_true(dispatch("VM.create",
			     "\"s\",{\"name_label\":\"a\",\"nonsense\":[1],"
			     "\"memory_static_max\":\"7\"}"));
	assert_int_equal(call->args[0]->kind, VALUE_STRUCT);
	assert_int_equal(call->args[0]->n, 2);
	assert_int_equal(value_get_int(call->args[0], "memory_static_max", 0),
			 7);
	assert_null(value_get(call->args[0], "nonsense"));
	assert_null(value_get(call->args[0], "uuid"));
}

static void test_system(void **state)
{
	const struct value *v;
	size_t secret = 0;

	assert_false(dispatch("system.listMethods", "1,2,3"));
	v = call->result;
	assert_int_equal(v->n, 2258);
	for (uint32_t i = 0; i < v->n; i++)
		secret += strncmp(v->items[i]->s, "job.", 4) == 0 ||
			  strncmp(v->items[i]->s, "Async.", 6) == 0;
	assert_int_equal(secret, 0);
	assert_true(dispatch_is_bare("system.listMethods"));
	assert_false(dispatch_is_bare("system.isAlive:x"));

	assert_false(dispatch("system.isAlive:x", "[1,\"a\"],5"));
	expect_json(call->result, "[1,\"a\"]");
	expect_error("system.isAlive:x", "",
		     "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\","
		     "\"system.isAlive:x\",\"1\",\"0\"]");
}

/* Every public method takes its own defaults, by name and by alias. */
static void test_every_method(void **state)
{
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];
		_cleanup_(rpc_request_deinit) struct rpc_request r = {
			.method = xstrdup(m->name),
		};
		unsigned first = !!(m->flags & METHOD_SESSION);

		if (schema_classes[m->cls].flags & CLASS_PRIVATE ||
		    m->n_params > CALL_MAX_ARGS)
			continue;
		r.params = value_set_new(first + m->n_params);
		if (first)
			r.params->items[0] = value_stringz("s");
		for (unsigned k = 0; k < m->n_params; k++)
			r.params->items[first + k] =
				schema_empty(m->params[k].type);
		*strchr(r.method, '.') = '_';
		teardown(NULL);
		call = call_new();
		if (!dispatch_request(&r, call))
			print_message("%s\n", m->name);
		assert_ptr_equal(call->method, m);
		assert_null(call->error);
		assert_int_equal(call->n_args, m->n_params);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_names, teardown),
		cmocka_unit_test_teardown(test_async, teardown),
		cmocka_unit_test_teardown(test_unknown, teardown),
		cmocka_unit_test_teardown(test_counts, teardown),
		cmocka_unit_test_teardown(test_types, teardown),
		cmocka_unit_test_teardown(test_enums, teardown),
		cmocka_unit_test_teardown(test_constructor, teardown),
		cmocka_unit_test_teardown(test_system, teardown),
		cmocka_unit_test_teardown(test_every_method, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
