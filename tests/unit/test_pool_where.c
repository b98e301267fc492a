/* The small languages and tools of the pool's core: filter expressions, the
 * text of results, timers. */
#include "tests/unit/pool_calls.h"

const struct handler_def *const pool_handlers[] = { session_handlers, NULL };
const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module, &event_module, NULL,
};

/* ---- filters, over the host's row ---- */

/* 1, 0, or -1: the expression is refused. */
static int matches(const char *expr)
{
	_cleanup_(where_freep) struct where *f = NULL;
	char reason[128];

	f = where_parse(&schema_classes[CLASS_host], expr, strlen(expr), reason,
			sizeof reason);
	if (f)
		return where_match(f, store_get(w.store, w.host));
	assert_true(strlen(reason) > 0);
	return -1;
}

static void host_set(unsigned field, struct value *v)
{
	struct txn *t = txn_new("test");

	txn_set(t, &schema_classes[CLASS_host], w.host, field, v);
	assert_int_equal(apply(t).status, TXN_OK);
}

static void test_filters(void **state)
{
	static const struct {
		const char *expr;
		int expected;
	} cases[] = {
		{ "true", 1 },
		{ "false", 0 },
		{ "not true", 0 },
		{ "not not true", 1 },
		{ "field \"name__label\" = \"it's\"", 1 },
		{ "field \"name_label\" = \"it's\"", 1 },
		{ "field\"name__label\"=\"it's\"", 1 },
		{ "\"it's\" = field \"name__label\"", 1 },
		{ "field \"name__label\" = \"It's\"", 0 },
		{ "field \"name__label\" = 'it\\'s'", 1 },
		{ "\"a\" = \"a\"", 1 },
		{ "field \"enabled\" = \"true\"", 1 },
		{ "field \"API_version__major\" = \"2\"", 1 },
		{ "field \"other_config\" = \"(('k' 'v'))\"", 1 },
		{ "field \"tags\" = \"('a' 'b')\"", 1 },
		/* not before and before or */
		{ "true or true and false", 1 },
		{ "(true or true) and false", 0 },
		{ "not false and false", 0 },
		{ "not (false and false)", 1 },
		{ "false or false or true", 1 },
		{ "true and (false or not (true and false))", 1 },
		{ "(field \"name__label\" = \"it's\") and "
		  "(field \"enabled\" = \"true\")", 1 },
		{ " ( true ) ", 1 },
		{ "", -1 },
		{ "tru", -1 },
		{ "truefalse", -1 },
		{ "true true", -1 },
		{ "true and", -1 },
		{ "and true", -1 },
		{ "(true", -1 },
		{ "true)", -1 },
		{ "field \"name__label\"", -1 },
		{ "field \"name__label\" =", -1 },
		{ "field \"name__label\" \"x\"", -1 },
		{ "field \"name__label\" = \"x", -1 },
		{ "field \"nothing\" = \"x\"", -1 },
		{ "field = \"x\"", -1 },
		{ "field \"name__label\" == \"x\"", -1 },
	};

	host_set(F_host_name_label, S("it's"));
	host_set(F_host_enabled, value_bool(true));
	host_set(F_host_API_version_major, value_int(2));
	host_set(F_host_tags, value_set_of("a", "b", NULL));
	host_set(F_host_other_config, value_map_of("k", S("v"), NULL));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (matches(cases[i].expr) != cases[i].expected)
			fail_msg("%s", cases[i].expr);
}

static void test_filter_limits(void **state)
{
	_cleanup_(buf_deinit) struct buf deep = BUF_INIT, nots = BUF_INIT;
	_cleanup_(buf_deinit) struct buf wide = BUF_INIT, wider = BUF_INIT;

	for (int i = 0; i < 100000; i++)
		buf_puts(&deep, "(");
	assert_int_equal(matches(buf_cstr(&deep)), -1);
	for (int i = 0; i < 65; i++)
		buf_puts(&nots, "not ");
	buf_puts(&nots, "true");
	assert_int_equal(matches(buf_cstr(&nots)), -1);
	for (int i = 0; i < 500; i++)
		buf_puts(&wide, "true and ");
	buf_puts(&wide, "true");
	assert_int_equal(matches(buf_cstr(&wide)), 1);
	for (int i = 0; i < 600; i++)
		buf_puts(&wider, "'a' = 'a' and ");
	buf_puts(&wider, "true");
	assert_int_equal(matches(buf_cstr(&wider)), -1);
}

/* Whatever is cut off or changed: an answer, no crash. */
static void test_filter_noise(void **state)
{
	static const char seed[] = "not (field \"name__label\" = 'a\\'b' and "
				   "(true or \"x\" = field \"uuid\"))";
	char text[sizeof seed];

	for (size_t n = 0; n < sizeof seed; n++) {
		memcpy(text, seed, n);
		text[n] = '\0';
		matches(text);
		for (size_t k = 0; k < n; k += 3) {
			uint8_t byte;

			env_random(&byte, 1);
			memcpy(text, seed, n);
			text[k] = (char)(byte ? byte : ' ');
			matches(text);
		}
	}
}

/* ---- result text ---- */

static const struct type type_string = { .kind = TYPE_STRING };
static const struct type type_int = { .kind = TYPE_INT };
static const struct type type_float = { .kind = TYPE_FLOAT };
static const struct type type_bool = { .kind = TYPE_BOOL };
static const struct type type_date = { .kind = TYPE_DATETIME };
static const struct type type_void = { .kind = TYPE_VOID };
static const struct type type_set = { .kind = TYPE_SET, .item = &type_string };
static const struct type type_map = { .kind = TYPE_MAP, .key = &type_string,
				      .item = &type_set };

static void test_result_text(void **state)
{
	struct value *pairs[] = { S("k<"), value_set_of("x", "", NULL) };
	const struct {
		const struct type *type;
		struct value *v;
		const char *text;
	} cases[] = {
		{ &type_void, value_void(), "<value></value>" },
		{ &type_string, S("OpaqueRef:a"), "<value>OpaqueRef:a</value>" },
		{ &type_string, S("a<b>&\"'"),
		  "<value>a&lt;b&gt;&amp;&quot;'</value>" },
		{ &type_string, S(""), "<value></value>" },
		{ &type_int, value_int(-5), "<value>-5</value>" },
		{ &type_bool, value_bool(true),
		  "<value><boolean>1</boolean></value>" },
		{ &type_float, value_float(0.5),
		  "<value><double>0.5</double></value>" },
		{ &type_date, value_datetime(0),
		  "<value><dateTime.iso8601>19700101T00:00:00Z"
		  "</dateTime.iso8601></value>" },
		{ &type_set, value_set_of("a", "b", NULL),
		  "<value><array><data><value>a</value><value>b</value></data>"
		  "</array></value>" },
		{ &type_map, value_map_from(pairs, 1),
		  "<value><struct><member><name>k&lt;</name><value><array><data>"
		  "<value>x</value><value></value></data></array></value>"
		  "</member></struct></value>" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		_value_ text = task_result_text(cases[i].v);
		_value_ back = task_result_value(cases[i].type, text);

		assert_string_equal(value_str(text), cases[i].text);
		assert_non_null(back);
		assert_true(value_equal(back, cases[i].v));
		value_unref(cases[i].v);
	}
}

static void test_bad_result_text(void **state)
{
	static const char *const bad[] = {
		"", "x", "<value>", "<value>a", "<value>a</value>b",
		"<value><array><data></value>", "<value><boolean>1</value>",
		"<value><struct><member></struct></value>", "<value>a<b></value>",
	};
	struct buf deep = BUF_INIT;
	_value_ text = NULL;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		_value_ v = S(bad[i]);

		assert_null(task_result_value(&type_string, v));
	}
	for (int i = 0; i < 10000; i++)
		buf_puts(&deep, "<value><array><data>");
	text = value_string(deep.data, deep.len);
	assert_null(task_result_value(&type_set, text));
	buf_deinit(&deep);
}

/* ---- timers ---- */

static char fired[64];

static void on_timer(struct pool *p, void *data)
{
	strncat(fired, data, 1);
}

static void test_timers(void **state)
{
	struct pool_timer a, b, c, d;

	fired[0] = '\0';
	pool_timer_init(&a, on_timer, (void *)"a");
	pool_timer_init(&b, on_timer, (void *)"b");
	pool_timer_init(&c, on_timer, (void *)"c");
	pool_timer_init(&d, on_timer, (void *)"d");
	pool_timer_arm(w.pool, &a, 300);
	pool_timer_arm(w.pool, &b, 100);
	pool_timer_arm(w.pool, &c, 200);
	pool_timer_arm(w.pool, &d, 100);
	assert_int_equal(w.wake_ms, w.mono_ms + 100);
	pool_timer_arm(w.pool, &b, 50); /* anew */
	assert_int_equal(w.wake_ms, w.mono_ms + 50);
	pool_timer_cancel(w.pool, &c);
	pool_timer_cancel(w.pool, &c);
	world_advance(49);
	assert_string_equal(fired, "");
	world_advance(1);
	assert_string_equal(fired, "b");
	world_advance(1000);
	assert_string_equal(fired, "bda");
}

static struct pool_timer many[500];
static int64_t last_ms;

static void on_many(struct pool *p, void *data)
{
	struct pool_timer *t = data;

	assert_true(t->at_ms >= last_ms);
	last_ms = t->at_ms;
	strcpy(fired, "x");
}

static void test_many_timers(void **state)
{
	last_ms = 0;
	for (size_t i = 0; i < ARRAY_LEN(many); i++) {
		uint8_t at[2];

		env_random(at, sizeof at);
		pool_timer_init(&many[i], on_many, &many[i]);
		pool_timer_arm(w.pool, &many[i], at[0] * 4 + at[1] % 4);
	}
	for (size_t i = 0; i < ARRAY_LEN(many); i += 3)
		pool_timer_cancel(w.pool, &many[i]);
	world_advance(1100);
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		assert_true(many[i].heap_index == SIZE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(test_filters),
		world_test(test_filter_limits),
		world_test(test_filter_noise),
		world_test(test_result_text),
		world_test(test_bad_result_text),
		world_test(test_timers),
		world_test(test_many_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
