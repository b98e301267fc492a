/* What a call of the API was answered, and what it ought to have been. Included
 * after cmocka.h. */
#ifndef TESTS_UNIT_REPLY_H
#define TESTS_UNIT_REPLY_H

#include "schema/value.h"

struct reply {
	struct value *result, *error;
};

static inline void reply_clear(struct reply *reply)
{
	value_unref(TAKE_PTR(reply->result));
	value_unref(TAKE_PTR(reply->error));
}

static inline void show_error(const char *what, const struct value *error)
{
	fail_msg("%s: %s %s %s", what, value_str(error->items[0]),
		 error->n > 1 ? value_str(error->items[1]) : "",
		 error->n > 2 ? value_str(error->items[2]) : "");
}

/* It failed with this code and these parameters, up to a NULL; more of them are
 * no mistake. Clears it. */
static inline void expect_error(struct reply *reply, const char *code, ...)
{
	const char *text = code;
	unsigned n = 0;
	va_list ap;

	assert_null(reply->result);
	assert_non_null(reply->error);
	va_start(ap, code);
	for (; text; text = va_arg(ap, const char *)) {
		if (n >= reply->error->n)
			show_error("too few parameters", reply->error);
		assert_string_equal(value_str(reply->error->items[n++]), text);
	}
	va_end(ap);
	reply_clear(reply);
}

#endif
