/* rpc/xmlrpc.c: what is read, what is refused and how, and what is written, to
 * the byte. */
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
#include "rpc/xmlrpc.h"
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
	return xmlrpc_parse(body, n, &limits, &req, &err);
}

static enum rpc_parse_result parse(const char *body)
{
	return parse_n(body, strlen(body));
}

static enum rpc_parse_result parse_value(const char *value)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_printf(&b, "<?xml version='1.0'?>\n<methodCall>\n"
		   "<methodName>VM.x</methodName>\n<params><param>\n%s\n"
		   "</param></params></methodCall>\n", value);
	return parse_n(b.data, b.len);
}

static int teardown(void **state)
{
	parse("");
	return 0;
}

/* The parameter, as JSON: it shows kinds and structure. */
static void expect(const char *value, const char *json)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	if (parse_value(value) != RPC_PARSE_OK)
		print_message("%s: %s\n", value, err.reason);
	assert_string_equal(req.method, "VM.x");
	assert_int_equal(req.params->n, 1);
	jsonrpc_write_value(&b, req.params->items[0]);
	assert_string_equal(buf_cstr(&b), json);
}

static void test_scalars(void **state)
{
	expect("<value>a b</value>", "\"a b\"");
	expect("<value/>", "\"\"");
	expect("<value>  </value>", "\"  \"");
	expect("<value><string/></value>", "\"\"");
	expect("<value><string> a\n</string></value>", "\" a\\n\"");
	expect("<value> <string>a</string>\n</value>", "\"a\"");
	expect("<value>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;</value>",
	       "\"<&>\\\"'AB\"");
	expect("<value><![CDATA[<x>&]]></value>", "\"<x>&\"");
	expect("<value>a<!-- c -->b<?pi?>c</value>", "\"abc\"");
	expect("<value>\xc3\xa9\xf0\x9f\x98\x80</value>",
	       "\"\xc3\xa9\xf0\x9f\x98\x80\"");
	expect("<value><int> 5 </int></value>", "5");
	expect("<value><i4>-5</i4></value>", "-5");
	expect("<value><i8>9007199254740993</i8></value>", "9007199254740993");
	expect("<value><int>x</int></value>", "\"x\"");
	expect("<value><int>99999999999999999999</int></value>",
	       "\"99999999999999999999\"");
	expect("<value><double>1.5</double></value>", "1.5");
	expect("<value><double>2</double></value>", "2.0");
	expect("<value><boolean>1</boolean></value>", "true");
	expect("<value><boolean>0</boolean></value>", "false");
	expect("<value><boolean>true</boolean></value>", "false");
	expect("<value><dateTime.iso8601>20180102T14:05:54Z</dateTime.iso8601>"
	       "</value>", "\"20180102T14:05:54Z\"");
	expect("<value><dateTime.iso8601>2018-01-02T14:05:54+01:00"
	       "</dateTime.iso8601></value>", "\"20180102T13:05:54Z\"");
	expect("<value><nil/></value>", "null");
	assert_int_equal(parse_value("<value><dateTime.iso8601>20180102T"
				     "14:05:54</dateTime.iso8601></value>"),
			 RPC_PARSE_OK);
	assert_int_equal(req.params->items[0]->kind, VALUE_DATETIME);
}

static void test_containers(void **state)
{
	expect("<value><array><data/></array></value>", "[]");
	expect("<value><array> <data> <value>a</value>\n"
	       "<value><int>1</int></value></data></array></value>",
	       "[\"a\",1]");
	expect("<value><struct/></value>", "{}");
	expect("<value><struct><member><name>b&amp;</name><value>1</value>"
	       "</member> <member><name/><value><struct/></value></member>"
	       "</struct></value>", "{\"b&\":\"1\",\"\":{}}");
	assert_int_equal(parse("<methodCall><methodName>a.b</methodName>"
			       "</methodCall>"), RPC_PARSE_OK);
	assert_int_equal(req.params->n, 0);
	assert_int_equal(parse("<methodCall><methodName>a.b</methodName>"
			       "<params/></methodCall>"), RPC_PARSE_OK);
	assert_int_equal(req.params->n, 0);
}

static const char *const malformed[] = {
	"",
	"x",
	"<methodCall>",
	"<methodCall/>",
	"<methodResponse/>",
	"<methodCall><params/></methodCall>",
	"<methodCall><methodName>a</methodName></methodCall>x",
	"<methodCall><methodName>a</methodName></methodCall><a/>",
	"<methodCall>x<methodName>a</methodName></methodCall>",
	"<methodCall><methodName>a</methodName><methodName>a</methodName>"
	"</methodCall>",
	"<methodCall><params/><methodName>a</methodName></methodCall>",
	"<methodCall><methodName>a</methodName><params/><params/></methodCall>",
	"<methodCall><methodName><b/></methodName></methodCall>",
};

static const char *const malformed_values[] = {
	"",
	"<value>",
	"<value>a</value><value>b</value>",
	"<value>a<int>1</int></value>",
	"<value><int>1</int>a</value>",
	"<value><int>1</int><int>1</int></value>",
	"<value><base64>aa</base64></value>",
	"<value><array/></value>",
	"<value><array><value>a</value></array></value>",
	"<value><array><data/><data/></array></value>",
	"<value><array><data>x</data></array></value>",
	"<value><struct><member/></struct></value>",
	"<value><struct><member><name>a</name></member></struct></value>",
	"<value><struct><member><value>a</value></member></struct></value>",
	"<value><struct><member><value>a</value><name>a</name></member>"
	"</struct></value>",
	"<value><struct><member><name>a</name><value/><value/></member>"
	"</struct></value>",
	"<value><nil>x</nil></value>",
	"<value>&undefined;</value>",
	"<value>a & b</value>",
	"<value><string></value></string>",
};

static void test_malformed(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
		if (parse(malformed[i]) != RPC_PARSE_MALFORMED)
			print_message("accepted: %s\n", malformed[i]);
		assert_int_equal(parse(malformed[i]), RPC_PARSE_MALFORMED);
		assert_true(err.reason[0] != '\0');
	}
	for (size_t i = 0; i < ARRAY_LEN(malformed_values); i++) {
		if (parse_value(malformed_values[i]) != RPC_PARSE_MALFORMED)
			print_message("accepted: %s\n", malformed_values[i]);
		assert_int_equal(parse_value(malformed_values[i]),
				 RPC_PARSE_MALFORMED);
		assert_null(req.method);
	}
}

static void test_no_dtd(void **state)
{
	assert_int_equal(parse("<!DOCTYPE methodCall><methodCall><methodName>a"
			       "</methodName></methodCall>"),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a "
			       "'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>"
			       "<methodCall><methodName>&b;</methodName>"
			       "</methodCall>"), RPC_PARSE_MALFORMED);
	assert_non_null(strstr(err.reason, "document type"));
	assert_int_equal(parse("<!DOCTYPE x SYSTEM 'file:///etc/passwd'>"
			       "<methodCall/>"), RPC_PARSE_MALFORMED);
	assert_int_equal(parse("<!DOCTYPE x [<!ENTITY % p SYSTEM 'file:///x'> "
			       "%p;]><methodCall/>"), RPC_PARSE_MALFORMED);
}

static void expect_bad_text(enum rpc_parse_result r, const char *dump)
{
	assert_int_equal(r, RPC_PARSE_BAD_TEXT);
	assert_int_equal(err.error->n, 3);
	assert_string_equal(value_str(err.error->items[0]), "INVALID_VALUE");
	assert_string_equal(value_str(err.error->items[1]),
			    "Invalid UTF-8 string in parameter");
	if (!strstr(value_str(err.error->items[2]), dump))
		print_message("dump: %s\n", value_str(err.error->items[2]));
	assert_non_null(strstr(value_str(err.error->items[2]), dump));
	assert_true(err.error->items[2]->n < 300);
}

static void test_bad_text(void **state)
{
	static const char nul[] = "<methodCall><methodName>a</methodName>"
		"<params><param><value>x\0y</value></param></params>"
		"</methodCall>";

	expect_bad_text(parse_value("<value>ab\xff</value>"), "ab\\xff");
	expect_bad_text(parse_value("<value>\xc0\x80</value>"), "\\xc0\\x80");
	expect_bad_text(parse_value("<value>\xed\xa0\x80</value>"), "\\xed");
	expect_bad_text(parse_value("<value>\xef\xbf\xbe</value>"),
			"\\xef\\xbf\\xbe");
	expect_bad_text(parse_value("<value>a\x01z</value>"), "a\\x01");
	expect_bad_text(parse_value("<value>\xe2\x82</value>"), "\\xe2");
	expect_bad_text(parse_n(nul, sizeof(nul) - 1), "x\\x00");
	expect_bad_text(parse_value("<value>a&#xFFFE;</value>"), "");
	expect_bad_text(parse_value("<value>&#0;</value>"), "");
	expect_bad_text(parse_value("<value>&#x1;</value>"), "");
	expect_bad_text(parse_value("<value>&#xD800;</value>"), "");
	expect_bad_text(parse_value("<value><struct><member><name>\xff</name>"
				    "<value/></member></struct></value>"), "");
	expect_bad_text(parse_value("<value><array><data><value>&#x2;</value>"
				    "</data></array></value>"), "");
	expect_bad_text(parse("<methodCall><methodName>\xff</methodName>"
			      "</methodCall>"), "\\xff");
}

static void test_other_encoding(void **state)
{
	assert_int_equal(parse("<?xml version='1.0' encoding='ISO-8859-1'?>"
			       "<methodCall><methodName>a\xe9</methodName>"
			       "</methodCall>"), RPC_PARSE_OK);
	assert_string_equal(req.method, "a\xc3\xa9");
	assert_int_equal(parse("<?xml version='1.0' encoding='klingon'?>"
			       "<methodCall><methodName>a\xe9</methodName>"
			       "</methodCall>"), RPC_PARSE_MALFORMED);
	expect_bad_text(parse("<?xml version='1.0' encoding='UTF-8'?>"
			      "<methodCall><methodName>a\xe9</methodName>"
			      "</methodCall>"), "a\\xe9");
}

/* depth arrays (or structs), one in the other */
static enum rpc_parse_result parse_nested(const char *open, const char *close,
					  unsigned depth)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	for (unsigned i = 0; i < depth; i++)
		buf_printf(&b, "<value>%s", open);
	for (unsigned i = 0; i < depth; i++)
		buf_printf(&b, "%s</value>", close);
	return parse_value(buf_cstr(&b));
}

static void test_depth(void **state)
{
	static const char open[] = "<struct><member><name>a</name>";
	static const char close[] = "</member></struct>";

	assert_int_equal(parse_nested("<array><data>", "</data></array>", 32),
			 RPC_PARSE_OK);
	assert_int_equal(parse_nested("<array><data>", "</data></array>", 33),
			 RPC_PARSE_MALFORMED);
	assert_int_equal(parse_nested("<array><data>", "</data></array>",
				      50000), RPC_PARSE_MALFORMED);
	/* The innermost struct's member lacks its value: one level more. */
	assert_int_equal(parse_nested(open, close, 33), RPC_PARSE_MALFORMED);
	assert_non_null(strstr(err.reason, "deeper"));
	assert_int_equal(parse_nested("<x>", "</x>", 50000),
			 RPC_PARSE_MALFORMED);
}

static void test_too_many(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_puts(&b, "<value><array><data>");
	for (int i = 0; i < RPC_MAX_VALUES + 1; i++)
		buf_puts(&b, "<value/>");
	buf_puts(&b, "</data></array></value>");
	assert_int_equal(parse_value(buf_cstr(&b)), RPC_PARSE_MALFORMED);
	assert_non_null(strstr(err.reason, "values"));
}

/* Writing. */

static void expect_written(struct value *v, const char *xml)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	xmlrpc_write_value(&b, v);
	assert_string_equal(buf_cstr(&b), xml);
	value_unref(v);
}

static void test_write_scalars(void **state)
{
	expect_written(value_stringz("a<b>&\"'"),
		       "<value>a&lt;b&gt;&amp;&quot;'</value>");
	expect_written(value_stringz("\x01\t\n\r\x1f\x7f\xc3\xa9"),
		       "<value>\t\n\r\x7f\xc3\xa9</value>");
	expect_written(value_string("", 0), "<value></value>");
	expect_written(value_void(), "<value></value>");
	expect_written(value_int(123), "<value>123</value>");
	expect_written(value_int(INT64_MIN),
		       "<value>-9223372036854775808</value>");
	expect_written(value_count(7), "<value><i4>7</i4></value>");
	expect_written(value_bool(true),
		       "<value><boolean>1</boolean></value>");
	expect_written(value_bool(false),
		       "<value><boolean>0</boolean></value>");
	expect_written(value_datetime(1514901954),
		       "<value><dateTime.iso8601>20180102T14:05:54Z"
		       "</dateTime.iso8601></value>");
	expect_written(value_nil(), "<value><nil/></value>");
}

static void test_write_floats(void **state)
{
	static const struct {
		double d;
		const char *text;
	} cases[] = {
		{ 0, "0" }, { 1, "1" }, { 0.5, "0.5" }, { 0.1, "0.1" },
		{ 1e20, "1e+20" }, { NAN, "nan" }, { INFINITY, "inf" },
		{ -INFINITY, "-inf" },
	};
	char xml[80];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(xml, sizeof(xml), "<value><double>%s</double></value>",
			 cases[i].text);
		expect_written(value_float(cases[i].d), xml);
	}
}

static void test_write_containers(void **state)
{
	expect_written(value_set_empty(),
		       "<value><array><data></data></array></value>");
	expect_written(value_set_of("a", "b", NULL),
		       "<value><array><data><value>a</value><value>b</value>"
		       "</data></array></value>");
	expect_written(value_map_of("b", value_int(1), "a<", value_int(2),
				    NULL),
		       "<value><struct>"
		       "<member><name>a&lt;</name><value>2</value></member>"
		       "<member><name>b</name><value>1</value></member>"
		       "</struct></value>");
	expect_written(value_struct_of("z", value_void(), NULL),
		       "<value><struct><member><name>z</name><value></value>"
		       "</member></struct></value>");
}

static void test_write_record(void **state)
{
	const struct class_def *cls = &schema_classes[CLASS_pool];
	struct record *r = record_new(cls, value_stringz("OpaqueRef:1"));
	_cleanup_(value_unrefp) struct value *v = NULL;
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	const char *xml;

	for (unsigned i = 0; i < cls->n_fields; i++)
		record_set(r, i, schema_field_default(cls, i));
	record_set(r, F_pool_name_label, value_stringz("a&b"));
	v = value_record(r);
	record_unref(r);
	xmlrpc_write_value(&b, v);
	xml = buf_cstr(&b);
	assert_memory_equal(xml, "<value><struct><member><name>uuid</name>"
				 "<value></value></member>", 64);
	assert_non_null(strstr(xml, "<name>name_label</name>"
				    "<value>a&amp;b</value>"));
	assert_non_null(strstr(xml, "<name>wlb_enabled</name>"));
	/* wlb_password is internal. */
	assert_null(strstr(xml, "wlb_password"));
	assert_null(strchr(xml, '\n'));
}

static void test_write_reply(void **state)
{
	_cleanup_(value_unrefp) struct value *v = value_stringz("x");
	_cleanup_(value_unrefp) struct value *e =
		value_set_of("CODE", "p", NULL);
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	xmlrpc_write_reply(&b, v, NULL, false);
	assert_string_equal(buf_cstr(&b),
		"<?xml version=\"1.0\"?><methodResponse><params><param><value>"
		"<struct><member><name>Status</name><value>Success</value>"
		"</member><member><name>Value</name><value>x</value></member>"
		"</struct></value></param></params></methodResponse>");
	b.len = 0;
	xmlrpc_write_reply(&b, NULL, e, true);
	assert_string_equal(buf_cstr(&b),
		"<?xml version=\"1.0\"?><methodResponse><params><param><value>"
		"<struct><member><name>Status</name><value>Failure</value>"
		"</member><member><name>ErrorDescription</name><value><array>"
		"<data><value>CODE</value><value>p</value></data></array>"
		"</value></member></struct></value></param></params>"
		"</methodResponse>");
	b.len = 0;
	xmlrpc_write_reply(&b, e, NULL, true);
	assert_string_equal(buf_cstr(&b),
		"<?xml version=\"1.0\"?><methodResponse><params><param><value>"
		"<array><data><value>CODE</value><value>p</value></data>"
		"</array></value></param></params></methodResponse>");
}

/* Random damage to a good request: never a crash, and always an answer. */
static void test_random(void **state)
{
	static const char seed[] = "<?xml version=\"1.0\"?><methodCall>"
		"<methodName>VM.x</methodName><params><param><value><struct>"
		"<member><name>a</name><value><int>1</int></value></member>"
		"<member><name>b</name><value><array><data><value>&#65;&amp;"
		"</value></data></array></value></member></struct></value>"
		"</param></params></methodCall>";
	static const char alphabet[] = "<>/&;#[]!?\"' =x1A\xff\xc3\x00DOCTYPE";
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
			n = (x >> 20) % n + 1;
		if (parse_n(body, n) == RPC_PARSE_OK)
			assert_non_null(req.method);
		else
			assert_true(err.error || err.reason[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_scalars, teardown),
		cmocka_unit_test_teardown(test_containers, teardown),
		cmocka_unit_test_teardown(test_malformed, teardown),
		cmocka_unit_test_teardown(test_no_dtd, teardown),
		cmocka_unit_test_teardown(test_bad_text, teardown),
		cmocka_unit_test_teardown(test_other_encoding, teardown),
		cmocka_unit_test_teardown(test_depth, teardown),
		cmocka_unit_test_teardown(test_too_many, teardown),
		cmocka_unit_test(test_write_scalars),
		cmocka_unit_test(test_write_floats),
		cmocka_unit_test(test_write_containers),
		cmocka_unit_test(test_write_record),
		cmocka_unit_test(test_write_reply),
		cmocka_unit_test_teardown(test_random, teardown),
	};

	xmlrpc_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
