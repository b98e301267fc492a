#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "tools/bench_grpc.h"

/* What etcd answers: bytes as they were seen on the wire, stream 1. */
#define SETTINGS "\0\0\6\4\0\0\0\0\0" "\0\5\0\0\x40\0"
#define PING "\0\0\x8\6\0\0\0\0\0" "12345678"
#define HEADERS "\0\0\2\1\4\0\0\0\1" "\x88\xbe"
#define MESSAGE "\0\0\7\0\0\0\0\0\1" "\0\0\0\0\2" "hi"
#define TRAILERS "\0\0\2\1\5\0\0\0\1" "\xbf\xbe"
#define RESET "\0\0\4\3\0\0\0\0\1" "\0\0\0\2"
#define GOAWAY "\0\0\x8\7\0\0\0\0\0" "\0\0\0\0\0\0\0\0"
#define BYTES(text) text, sizeof(text) - 1

struct talk {
	struct grpc g;
	struct buf out, in;
};

static void begin(struct talk *t)
{
	struct buf message = BUF_INIT;

	memset(t, 0, sizeof *t);
	grpc_put_bytes(&message, 1, "k");
	grpc_put_true(&message, 7);
	assert_int_equal(message.len, 5);
	assert_memory_equal(message.data, "\x0a\1k\x38\1", 5);
	grpc_put_call(&t->g, &t->out, "host", "/a.B/C", &message);
	buf_deinit(&message);
}

static void end(struct talk *t)
{
	grpc_deinit(&t->g);
	buf_deinit(&t->out);
	buf_deinit(&t->in);
}

/* Bytes come one by one; what the last one brought. */
static int hear(struct talk *t, const char *p, size_t n, bool *ret_ok)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(r, 0);
		buf_putc(&t->in, p[i]);
		r = grpc_read(&t->g, &t->in, ret_ok);
	}
	return r;
}

static void test_call(void **state)
{
	struct buf nothing = BUF_INIT;
	struct talk t;
	size_t first;
	bool ok;

	begin(&t);
	assert_memory_equal(t.out.data, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	assert_int_equal(hear(&t, BYTES(SETTINGS PING HEADERS MESSAGE), &ok), 0);
	assert_int_equal(hear(&t, BYTES(TRAILERS), &ok), 1);
	assert_true(ok);
	assert_int_equal(t.in.len, 0);
	/* The next call brings the answers to SETTINGS and PING, no preface,
	 * and is the next stream of a client. */
	first = t.out.len;
	grpc_put_call(&t.g, &t.out, "host", "/a.B/C", &nothing);
	assert_memory_equal(t.out.data + first, "\0\0\0\4\1\0\0\0\0", 9);
	assert_memory_equal(t.out.data + first + 9,
			    "\0\0\x8\6\1\0\0\0\0" "12345678", 17);
	assert_memory_equal(t.out.data + first + 26,
			    "\0\0\xd\1\4\0\0\0\3" "\x83\x86\4\6/a.B/C\xc0\xbf\xbe",
			    22);
	assert_memory_equal(t.out.data + first + 48,
			    "\0\0\5\0\1\0\0\0\3" "\0\0\0\0\0", 14);
	/* What is left of the call before is not the answer to this one. */
	assert_int_equal(hear(&t, BYTES(TRAILERS), &ok), 0);
	end(&t);
}

static void test_failures(void **state)
{
	struct talk t;
	bool ok;

	begin(&t);
	assert_int_equal(hear(&t, BYTES(SETTINGS TRAILERS), &ok), 1);
	assert_false(ok);
	end(&t);
	begin(&t);
	assert_int_equal(hear(&t, BYTES(HEADERS RESET), &ok), 1);
	assert_false(ok);
	end(&t);
	begin(&t);
	assert_int_equal(hear(&t, BYTES(GOAWAY), &ok), -1);
	end(&t);
	begin(&t);
	assert_int_equal(hear(&t, BYTES("\xff\xff\xff\0\0\0\0\0\1"), &ok), -1);
	end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
