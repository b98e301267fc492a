/* The server's side of RFC 6455: single frames, then the same bytes cut in every
 * way, then bytes that nobody meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/websocket.h"

static const uint8_t mask[4] = { 0x37, 0xfa, 0x21, 0x3d };

/* A client's frame; form: bytes of length, 0 for the shortest. */
static void put_frame(struct buf *b, unsigned first, const char *p, size_t n,
		      unsigned form)
{
	if (form == 0)
		form = n < 126 ? 1 : n < 65536 ? 2 : 8;
	buf_putc(b, (char)first);
	buf_putc(b, (char)(0x80 | (form == 1 ? n : form == 2 ? 126 : 127)));
	for (unsigned i = form; form > 1 && i-- > 0;)
		buf_putc(b, (char)((uint64_t)n >> (8 * i)));
	buf_append(b, mask, 4);
	for (size_t i = 0; i < n; i++)
		buf_putc(b, (char)(p[i] ^ mask[i % 4]));
}

struct side {
	struct ws ws;
	struct buf data, replies;
	enum ws_result result;
};

static void side_deinit(struct side *s)
{
	buf_deinit(&s->data);
	buf_deinit(&s->replies);
}

/* In pieces of `step` bytes. */
static void take(struct side *s, const struct buf *b, size_t step)
{
	for (size_t i = 0; i < b->len; i += step) {
		size_t n = MIN(step, b->len - i);

		s->result = ws_take(&s->ws, b->data + i, n, &s->data,
				    &s->replies);
	}
}

static void expect(const struct buf *b, const char *p, size_t n)
{
	assert_int_equal(b->len, n);
	if (n > 0)
		assert_memory_equal(b->data, p, n);
}

/* The example of RFC 6455, 1.3. */
static void test_accept(void **state)
{
	static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
	char out[WS_ACCEPT_LEN + 1];

	assert_true(ws_accept(key, strlen(key), out));
	assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	assert_false(ws_accept(key, strlen(key) - 1, out));
	assert_false(ws_accept("", 0, out));
	assert_false(ws_accept("dGhlIHNhbXBsZSBub25jZQAA", 24, out));
	assert_false(ws_accept("????IHNhbXBsZSBub25jZQ==", 24, out));
}

/* Data of all lengths' forms, in fragments with a ping between them, a pong that
 * nobody asked for, an empty frame, a close. */
static void test_conversation(void **state)
{
	static char big[70000];
	struct buf in = BUF_INIT, wanted = BUF_INIT;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7);
	put_frame(&in, 0x82, "hello ", 6, 0);
	put_frame(&in, 0x02, big, 200, 0);
	put_frame(&in, 0x89, "are you there", 13, 0);
	put_frame(&in, 0x00, "", 0, 0);
	put_frame(&in, 0x8a, "yes", 3, 0);
	put_frame(&in, 0x80, big, sizeof(big), 0);
	put_frame(&in, 0x82, "", 0, 0);
	put_frame(&in, 0x88, "\x03\xe8" "bye", 5, 0);
	put_frame(&in, 0x82, "too late", 8, 0);
	buf_append(&wanted, "hello ", 6);
	buf_append(&wanted, big, 200);
	buf_append(&wanted, big, sizeof(big));
	for (size_t step = 1; step <= in.len; step = step * 2 + 1) {
		_cleanup_(side_deinit) struct side s = { .result = WS_OPEN };

		take(&s, &in, step);
		assert_int_equal(s.result, WS_CLOSED);
		expect(&s.data, wanted.data, wanted.len);
		expect(&s.replies, "\x8a\x0d" "are you there\x88\x02\x03\xe8",
		       19);
	}
	buf_deinit(&in);
	buf_deinit(&wanted);
}

static void test_out(void **state)
{
	static char big[65536];
	struct buf b = BUF_INIT;

	ws_put_data(&b, "abc", 3);
	expect(&b, "\x82\x03" "abc", 5);
	b.len = 0;
	ws_put_data(&b, big, 126);
	assert_memory_equal(b.data, "\x82\x7e\x00\x7e", 4);
	assert_int_equal(b.len, 130);
	b.len = 0;
	ws_put_data(&b, big, 65536);
	assert_memory_equal(b.data, "\x82\x7f\0\0\0\0\0\1\0\0", 10);
	assert_int_equal(b.len, 65546);
	buf_deinit(&b);
}

static const struct {
	const char *what;
	const char *bytes;
	size_t n;
	unsigned code;
} wrong[] = {
	{ "not masked", "\x82\x01", 2, 1002 },
	{ "an extension", "\xc2\x80", 2, 1002 },
	{ "text", "\x81\x80", 2, 1003 },
	{ "an unknown kind of data", "\x83\x80", 2, 1002 },
	{ "an unknown kind of control", "\x8b\x80", 2, 1002 },
	{ "a fragment of nothing", "\x80\x80", 2, 1002 },
	{ "data amid fragments", "\x02\x80" "mask\x82\x80", 8, 1002 },
	{ "a ping in fragments", "\x09\x80", 2, 1002 },
	{ "a long ping", "\x89\xfe", 2, 1002 },
	{ "a length too long-winded", "\x82\xfe\x00\x7d" "mask", 8, 1002 },
	{ "a length too long-winded", "\x82\xff\0\0\0\0\0\0\xff\xff" "mask",
	  14, 1002 },
	{ "a length without end", "\x82\xff\x80\0\0\0\0\0\0\0" "mask", 14,
	  1002 },
	{ "half a code", "\x88\x81\0\0\0\0\x03", 7, 1002 },
	{ "a code that is none", "\x88\x82\0\0\0\0\x03\xee", 8, 1002 },
	{ "a good-bye", "\x88\x80\0\0\0\0", 6, 1000 },
	{ "a good-bye of its own", "\x88\x82\0\0\0\0\x0f\xa0", 8, 4000 },
};

static void test_wrong(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		_cleanup_(side_deinit) struct side s = { .result = WS_OPEN };
		struct buf in = { (char *)wrong[i].bytes, wrong[i].n, 0 };
		char close[4] = { (char)0x88, 2, (char)(wrong[i].code >> 8),
				  (char)wrong[i].code };

		take(&s, &in, 1);
		if (s.result != WS_CLOSED)
			print_message("%s\n", wrong[i].what);
		assert_int_equal(s.result, WS_CLOSED);
		expect(&s.replies, close, 4);
		expect(&s.data, "", 0);
	}
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* What comes out never exceeds what came in, and cutting changes nothing. */
static void test_random(void **state)
{
	uint64_t x = 88172645463325252u;

	for (int round = 0; round < 20000; round++) {
		_cleanup_(side_deinit) struct side a = { .result = WS_OPEN };
		_cleanup_(side_deinit) struct side b = { .result = WS_OPEN };
		struct buf in = BUF_INIT;
		int frames = (int)(next_random(&x) % 6);
		char text[300];

		for (int i = 0; i < frames; i++) {
			static const uint8_t firsts[] = { 0x82, 0x02, 0x00,
							  0x80, 0x89, 0x8a };
			size_t n = next_random(&x) % 300;

			for (size_t k = 0; k < n; k++)
				text[k] = (char)next_random(&x);
			put_frame(&in, firsts[next_random(&x) % 6], text, n,
				  0);
		}
		for (size_t i = next_random(&x) % 4; in.len > 0 && i-- > 0;)
			in.data[next_random(&x) % in.len] =
				(char)next_random(&x);
		take(&a, &in, MAX(in.len, (size_t)1));
		take(&b, &in, 1 + next_random(&x) % 7);
		assert_int_equal(a.result, b.result);
		expect(&b.data, a.data.data, a.data.len);
		expect(&b.replies, a.replies.data, a.replies.len);
		assert_true(a.data.len + a.replies.len <= in.len + 4);
		buf_deinit(&in);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_conversation),
		cmocka_unit_test(test_out),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
