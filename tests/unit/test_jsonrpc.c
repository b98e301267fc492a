/* rpc/jsonrpc.c: requests of both versions, what is refused and how, and
 * replies to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the four */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "rpc/jsonrpc.h"
#include "schema/gen/schema_ids.h"
#include "schema/record.h"

static const struct rpc_limits limits = { .depth = 32 };
static struct rpc_request req;
static struct rpc_parse_error err;

static enum rpc_parse_result parse_n(const char *body, size_t n)
{
	rpc_request_deinit(&req);
	value_unref(err.error);
	err = (struct rpc_parse_error){ .error = NULL };
	return jsonrpc_parse(body, n, &limits, &req, &err);
}

static enum rpc_parse_result parse(const char *body)
{
	return parse_n(body, strlen(body));
}

static enum rpc_parse_result parse_param(const char *json)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_printf(&b, "{\"method\":\"VM.x\",\"params\":[%s],\"id\":1}", json);
	return parse_n(b.data, b.len);
}

static int teardown(void **state)
{
	parse("");
	return 0;
}

static void test_version_1(void **state)
{
	assert_int_equal(parse(" {\"id\": 7, \"method\":\"a.b\","
			       "\"params\":[1,\"x\"]}\r\n\t "), RPC_PARSE_OK);
	assert_int_equal(req.encoding, RPC_JSON_V1);
	assert_string_equal(req.method, "a.b");
	assert_int_equal(req.id->i, 7);
	assert_int_equal(req.params->n, 2);
	assert_int_equal(parse("{\"id\":1,\"method\":\"a\"}"),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse("{\"id\":1,\"method\":\"a\",\"params\":null}"),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse("{\"id\":1,\"method\":\"a\",\"params\":{}}"),
			 RPC_PARSE_MALFORMED);
}

static void test_version_2(void **state)
{
#define V2 "{\"jsonrpc\":\"2.0\",\"method\":\"a.b\""
	assert_int_equal(parse(V2 ",\"id\":\"x\"}"), RPC_PARSE_OK);
	assert_int_equal(req.encoding, RPC_JSON_V2);
	assert_string_equal(value_str(req.id), "x");
	assert_int_equal(req.params->n, 0);
	assert_int_equal(parse(V2 ",\"id\":0,\"params\":null}"), RPC_PARSE_OK);
	assert_int_equal(req.params->n, 0);
	assert_int_equal(parse(V2 ",\"id\":0,\"params\":[[]]}"), RPC_PARSE_OK);
	assert_int_equal(req.params->n, 1);
	assert_int_equal(parse(V2 ",\"id\":0,\"params\":{\"a\":1}}"),
			 RPC_PARSE_OK);
	assert_int_equal(req.params->n, 1);
	assert_int_equal(value_get_int(req.params->items[0], "a", 0), 1);
	assert_int_equal(parse(V2 ",\"id\":0,\"params\":3}"),
			 RPC_PARSE_MALFORMED);
}

static const char *const malformed[] = {
	"", " ", "null", "1", "\"x\"", "[]", "{}", "{", "}",
	"[{\"id\":1,\"method\":\"a\",\"params\":[]}]",
	"{\"id\":1,\"method\":\"a\",\"params\":[]} x",
	"{\"id\":1,\"method\":\"a\",\"params\":[]}{}",
	"{\"id\":1,\"method\":\"a\",\"params\":[],}",
	"{\"id\":1,\"method\":\"a\",\"params\":[1,]}",
	"{\"id\":1,\"method\":\"a\",\"params\":['x']}",
	"{'id':1,\"method\":\"a\",\"params\":[]}",
	"{\"id\":1,\"method\":\"a\",\"params\":[]/**/}",
	"{\"id\":1,\"method\":\"a\",\"params\":[\"\\x\"]}",
	"{\"id\":1,\"method\":\"a\",\"params\":[\"\\u12\"]}",
	"{\"id\":1,\"method\":\"a\",\"params\":[nul]}",
	"{\"id\":1,\"method\":\"a\",\"params\":[\xff]}",
	"{\"id\":null,\"method\":\"a\",\"params\":[]}",
	"{\"id\":1.5,\"method\":\"a\",\"params\":[]}",
	"{\"id\":[],\"method\":\"a\",\"params\":[]}",
	"{\"id\":\"\xff\",\"method\":\"a\",\"params\":[]}",
	"{\"method\":\"a\",\"params\":[]}",
	"{\"id\":1,\"params\":[]}",
	"{\"id\":1,\"method\":1,\"params\":[]}",
	"{\"id\":1,\"method\":\"a\",\"params\":[],\"jsonrpc\":\"1.0\"}",
	"{\"id\":1,\"method\":\"a\",\"params\":[],\"jsonrpc\":2.0}",
	"{\"id\":1,\"method\":\"a\",\"params\":[],\"jsonrpc\":null}",
};

static void test_malformed(void **state)
{
	static const char nul[] = "{\"id\":1,\"method\":\"a\",\"params\":[]}\0";

	for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
		if (parse(malformed[i]) != RPC_PARSE_MALFORMED)
			print_message("accepted: %s\n", malformed[i]);
		assert_int_equal(parse(malformed[i]), RPC_PARSE_MALFORMED);
		assert_true(err.reason[0] != '\0');
		assert_null(req.id);
	}
	assert_int_equal(parse_n(nul, sizeof(nul)), RPC_PARSE_MALFORMED);
}

static void test_values(void **state)
{
	static const char *const same[] = {
		"1", "-1", "9007199254740993", "-9223372036854775808",
		"9223372036854775807", "1.5", "true", "false", "null", "\"\"",
		"\"a\\\"\\\\\\n\"", "[]", "[1,[\"a\"]]", "{}",
		"{\"b\":1,\"a\":{\"c\":[]}}", "NaN", "Infinity", "-Infinity",
		"\"\xf0\x9f\x98\x80\"",
	};

	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		_cleanup_(buf_deinit) struct buf b = BUF_INIT;

		if (parse_param(same[i]) != RPC_PARSE_OK)
			print_message("%s: %s\n", same[i], err.reason);
		assert_int_equal(req.params->n, 1);
		jsonrpc_write_value(&b, req.params->items[0]);
		assert_string_equal(buf_cstr(&b), same[i]);
	}
	assert_int_equal(parse_param("\"\\u00e9\\ud83d\\ude00\\/\""),
			 RPC_PARSE_OK);
	assert_string_equal(value_str(req.params->items[0]),
			    "\xc3\xa9\xf0\x9f\x98\x80/");
	/* Wider than any int: no int parameter takes it. */
	assert_int_equal(parse_param("18446744073709551615"), RPC_PARSE_OK);
	assert_int_equal(req.params->items[0]->kind, VALUE_FLOAT);
}

static const char *const bad_texts[] = {
	"\"\\u0000\"",
	"\"a\\u0000b\"",
	"\"\\\\\\u0000\"",
	"\"\\ufffe\"",
	"\"\\uFFFF\"",
	"\"\\ud800\"",
	"\"\\ud800x\"",
	"\"\\udc00\"",
	"\"\\ud800\\u0041\"",
	"\"\\u0001\"",
	"\"\xff\"",
	"\"\xed\xa0\x80\"",
	"\"\xc0\xaf\"",
	"{\"\\u0000\":1}",
	"{\"a\\u0000b\":1}",
	"{\"\xff\":1}",
	"[[{\"a\":\"\\ufffe\"}]]",
};

static void test_bad_text(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(bad_texts); i++) {
		if (parse_param(bad_texts[i]) != RPC_PARSE_BAD_TEXT)
			print_message("%s: %s\n", bad_texts[i], err.reason);
		assert_int_equal(parse_param(bad_texts[i]),
				 RPC_PARSE_BAD_TEXT);
		assert_string_equal(value_str(err.error->items[0]),
				    "INVALID_VALUE");
		assert_string_equal(value_str(err.error->items[1]),
				    "Invalid UTF-8 string in parameter");
		/* The failure goes out in the form that was asked for. */
		assert_int_equal(req.id->i, 1);
	}
	assert_int_equal(parse(V2 ",\"id\":\"i\",\"params\":[\"\xff\"]}"),
			 RPC_PARSE_BAD_TEXT);
	assert_int_equal(req.encoding, RPC_JSON_V2);
	assert_string_equal(value_str(req.id), "i");
	assert_int_equal(parse("{\"method\":\"\\u0000\",\"params\":[],"
			       "\"id\":1}"), RPC_PARSE_BAD_TEXT);
	/* Not escapes: the backslash is itself escaped. */
	assert_int_equal(parse_param("\"\\\\u0000\""), RPC_PARSE_OK);
	assert_string_equal(value_str(req.params->items[0]), "\\u0000");
}

static enum rpc_parse_result parse_nested(char open, const char *middle,
					  char close, unsigned depth)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	for (unsigned i = 0; i < depth; i++) {
		buf_putc(&b, open);
		if (i + 1 < depth)
			buf_puts(&b, middle);
	}
	for (unsigned i = 0; i < depth; i++)
		buf_putc(&b, close);
	return parse_param(buf_cstr(&b));
}

static void test_depth(void **state)
{
	assert_int_equal(parse_nested('[', "", ']', 32), RPC_PARSE_OK);
	assert_int_equal(parse_nested('[', "", ']', 33), RPC_PARSE_MALFORMED);
	assert_int_equal(parse_nested('[', "", ']', 30000),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse_nested('{', "\"a\":", '}', 32), RPC_PARSE_OK);
	assert_int_equal(parse_nested('{', "\"a\":", '}', 33),
			 RPC_PARSE_MALFORMED);
}

/* n times text, with commas */
static enum rpc_parse_result parse_many(const char *text, unsigned n)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	for (unsigned i = 0; i < n; i++)
		buf_printf(&b, "%s%s", i > 0 ? "," : "", text);
	return parse_param(buf_cstr(&b));
}

static void test_too_many(void **state)
{
	assert_int_equal(parse_many("[]", RPC_MAX_CONTAINERS - 2),
			 RPC_PARSE_OK);
	assert_int_equal(parse_many("[]", RPC_MAX_CONTAINERS),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse_many("{}", RPC_MAX_CONTAINERS),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse_many("0", RPC_MAX_VALUES + 2),
			 RPC_PARSE_MALFORMED);
	/* Brackets in strings do not count. */
	assert_int_equal(parse_many("\"[[{{,\\\"\"", 20000), RPC_PARSE_OK);
}

/* Writing. */

static void expect_written(struct value *v, const char *json)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	jsonrpc_write_value(&b, v);
	assert_string_equal(buf_cstr(&b), json);
	value_unref(v);
}

static void test_write(void **state)
{
	expect_written(value_stringz("a\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9"),
		       "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9"
		       "\"");
	expect_written(value_void(), "\"\"");
	expect_written(value_int(INT64_MIN), "-9223372036854775808");
	expect_written(value_count(7), "7");
	expect_written(value_bool(true), "true");
	expect_written(value_datetime(1514901954), "\"20180102T14:05:54Z\"");
	expect_written(value_float(0), "0.0");
	expect_written(value_float(1), "1.0");
	expect_written(value_float(-2.5), "-2.5");
	expect_written(value_float(0.1), "0.1");
	expect_written(value_float(1e20), "1e+20");
	expect_written(value_float(NAN), "NaN");
	expect_written(value_float(INFINITY), "Infinity");
	expect_written(value_float(-INFINITY), "-Infinity");
	expect_written(value_set_empty(), "[]");
	expect_written(value_set_of("a", "b", NULL), "[\"a\",\"b\"]");
	expect_written(value_map_empty(), "{}");
	expect_written(value_map_of("b", value_int(1), "a\"", value_nil(),
				    NULL), "{\"a\\\"\":null,\"b\":1}");
}

static void test_write_record(void **state)
{
	const struct class_def *cls = &schema_classes[CLASS_pool];
	struct record *r = record_new(cls, value_stringz("OpaqueRef:1"));
	_cleanup_(value_unrefp) struct value *v = NULL;
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	for (unsigned i = 0; i < cls->n_fields; i++)
		record_set(r, i, schema_field_default(cls, i));
	v = value_record(r);
	record_unref(r);
	jsonrpc_write_value(&b, v);
	assert_memory_equal(buf_cstr(&b), "{\"uuid\":\"\",\"name_label\":\"\"",
			    26);
	assert_null(strstr(buf_cstr(&b), "wlb_password"));
	/* What is written can be read. */
	assert_int_equal(parse_param(buf_cstr(&b)), RPC_PARSE_OK);
	assert_string_equal(value_get_str(req.params->items[0], "master"),
			    "OpaqueRef:NULL");
}

static void expect_reply(enum rpc_encoding version, struct value *id,
			 struct value *result, struct value *error,
			 const char *json)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	jsonrpc_write_reply(&b, version, id, result, error);
	assert_string_equal(buf_cstr(&b), json);
	value_unref(id);
	value_unref(result);
	value_unref(error);
}

static void test_write_reply(void **state)
{
	expect_reply(RPC_JSON_V1, value_int(3), value_stringz("x"), NULL,
		     "{\"result\":\"x\",\"error\":null,\"id\":3}");
	expect_reply(RPC_JSON_V1, value_stringz("i"), NULL,
		     value_set_of("CODE", "p", NULL),
		     "{\"result\":null,\"error\":[\"CODE\",\"p\"],"
		     "\"id\":\"i\"}");
	expect_reply(RPC_JSON_V2, value_int(3), value_void(), NULL,
		     "{\"jsonrpc\":\"2.0\",\"result\":\"\",\"id\":3}");
	expect_reply(RPC_JSON_V2, NULL, NULL, value_set_of("CODE", NULL),
		     "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,"
		     "\"message\":\"CODE\",\"data\":[]},\"id\":0}");
	expect_reply(RPC_JSON_V2, value_int(3), NULL,
		     value_set_of("CODE", "p", "q", NULL),
		     "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,"
		     "\"message\":\"CODE\",\"data\":[\"p\",\"q\"]},\"id\":3}");
}

/* The client's side. */

static void test_client(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct value *params[] = { value_stringz("s\""), value_int(5) };

	jsonrpc_write_call(&b, "pool.hello", params, 2);
	assert_string_equal(buf_cstr(&b),
			    "{\"jsonrpc\":\"2.0\",\"method\":\"pool.hello\","
			    "\"params\":[\"s\\\"\",5],\"id\":0}");
	assert_int_equal(parse(buf_cstr(&b)), RPC_PARSE_OK);
	value_unref(params[0]);
	value_unref(params[1]);
}

static bool parse_reply(const char *json, struct value **r, struct value **e)
{
	*r = *e = NULL;
	return jsonrpc_parse_reply(json, strlen(json), r, e);
}

static void test_client_reply(void **state)
{
	struct value *r, *e;

	assert_true(parse_reply("{\"jsonrpc\":\"2.0\",\"result\":{\"a\":[1]},"
				"\"id\":0}", &r, &e));
	assert_null(e);
	assert_int_equal(value_get(r, "a")->n, 1);
	value_unref(r);
	assert_true(parse_reply("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,"
				"\"message\":\"HOST_IS_SLAVE\",\"data\":"
				"[\"10.0.0.1\",2,null]},\"id\":0}", &r, &e));
	assert_null(r);
	assert_int_equal(e->n, 4);
	assert_string_equal(value_str(e->items[0]), "HOST_IS_SLAVE");
	assert_string_equal(value_str(e->items[2]), "2");
	assert_string_equal(value_str(e->items[3]), "");
	value_unref(e);
	assert_false(parse_reply("", &r, &e));
	assert_false(parse_reply("[]", &r, &e));
	assert_false(parse_reply("null", &r, &e));
	assert_false(parse_reply("{\"id\":0}", &r, &e));
	assert_false(parse_reply("{\"error\":{\"code\":1},\"id\":0}", &r, &e));
	assert_false(parse_reply("{\"result\":\"\xff\"}", &r, &e));
	assert_false(parse_reply("{\"result\":1} x", &r, &e));
}

static void test_random(void **state)
{
	static const char seed[] = "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\","
		"\"params\":[\"a\\u0041\\ud83d\\ude00\",-1.5e3,{\"b\":[true,"
		"null]}],\"id\":\"x\"}";
	static const char alphabet[] = "{}[],:\"'\\ud8/*0-+.eE\xff\xc3\x00nN";
	uint64_t x = 88172645463325252;
	char body[sizeof(seed)];
	clock_t end = clock() + 2 * CLOCKS_PER_SEC;

	while (clock() < end) {
		size_t n = sizeof(seed) - 1;

		memcpy(body, seed, n);
		for (int i = 0; i < 3; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			body[x % n] = alphabet[(x >> 40) %
					       (sizeof(alphabet) - 1)];
		}
		if (x >> 62 == 0)
			n = (x >> 20) % n;
		if (parse_n(body, n) == RPC_PARSE_OK)
			assert_non_null(req.method);
		else
			assert_true(err.error || err.reason[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_version_1, teardown),
		cmocka_unit_test_teardown(test_version_2, teardown),
		cmocka_unit_test_teardown(test_malformed, teardown),
		cmocka_unit_test_teardown(test_values, teardown),
		cmocka_unit_test_teardown(test_bad_text, teardown),
		cmocka_unit_test_teardown(test_depth, teardown),
		cmocka_unit_test_teardown(test_too_many, teardown),
		cmocka_unit_test(test_write),
		cmocka_unit_test_teardown(test_write_record, teardown),
		cmocka_unit_test(test_write_reply),
		cmocka_unit_test_teardown(test_client, teardown),
		cmocka_unit_test(test_client_reply),
		cmocka_unit_test_teardown(test_random, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
