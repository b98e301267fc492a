/* Which of a viewer's bytes are a hand's: whole sessions, in one piece and cut
 * after each byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/rfb_watch.h"

#define V33 "RFB 003.003\n\1"   /* version, init */
#define V38 "RFB 003.008\n\1\1" /* and the choice of no security */
#define FORMAT "\0...\x20\x18\0\1\0\xff\0\xff\0\xff\x10\x08\0..."
#define ENCODINGS "\2.\0\3\0\0\0\0\0\0\0\1\xff\xff\xff\x21"
#define UPDATE "\3\1\0\0\0\0\2\x80\1\xb0"
#define QUIET FORMAT ENCODINGS UPDATE UPDATE
#define KEY "\4\1..\0\0\0a"
#define POINTER "\5\0\0\1\0\1"
#define CUT "\6...\0\0\0\4\4\4\4\4"
#define EMPTY_CUT "\6...\0\0\0\0"

#define TEXT(s) s, sizeof(s) - 1

/* How often it was said, byte by byte; the whole must agree. */
static unsigned hands(const char *p, size_t n)
{
	struct rfb_watch whole = { 0 }, parts = { 0 };
	unsigned found = 0;

	for (size_t i = 0; i < n; i++)
		found += rfb_watch(&parts, p + i, 1);
	assert_int_equal(rfb_watch(&whole, p, n), found > 0);
	assert_int_equal(whole.step, parts.step);
	assert_int_equal(whole.skip, parts.skip);
	return found;
}

static void test_quiet(void **state)
{
	assert_int_equal(hands(TEXT(V33 QUIET)), 0);
	assert_int_equal(hands(TEXT(V38 QUIET)), 0);
	/* What looks like a key is in a message's middle. */
	assert_int_equal(hands(TEXT(V38 "\2.\0\1" "\4\4\4\4" UPDATE)), 0);
}

static void test_hands(void **state)
{
	assert_int_equal(hands(TEXT(V33 QUIET KEY UPDATE KEY)), 2);
	assert_int_equal(hands(TEXT(V38 QUIET POINTER)), 1);
	assert_int_equal(hands(TEXT(V38 CUT UPDATE EMPTY_CUT UPDATE KEY)), 3);
	/* A cut text's length is no reason to wait for anything. */
	assert_int_equal(hands(TEXT(V38 "\6...\xff\xff\xff\xff" "ab")), 1);
}

/* From then on everything counts: nobody is sent away by mistake. */
static void test_unknown(void **state)
{
	assert_int_equal(hands(TEXT(V38 "\x7f" UPDATE)), 1 + 10);
	assert_int_equal(hands(TEXT("RFB 003.008\n\2" UPDATE)), 1 + 10);
	assert_int_equal(hands(TEXT(V38 "\1" "x")), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_hands),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
