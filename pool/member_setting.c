/* The settings of membership: keys of pool.other_config. */
#include <string.h>

#include "pool/core.h"

static const struct setting {
	const char *key, *wants;
	int64_t min, max;
} settings[] = {
	{ MEMBER_VOTERS_KEY, "3 or 5", 3, 5 },
	{ MEMBER_REPLACE_KEY, "seconds, 2 to 604800", 2, 604800 },
};

struct value *member_setting_error(const char *key, const struct value *v)
{
	int64_t n;

	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];

		if (strcmp(key, s->key) != 0 ||
		    (int_parse(v->s, v->n, &n) && n >= s->min && n <= s->max &&
		     !(i == 0 && n == 4)))
			continue;
		return api_error("INVALID_VALUE", key, value_str(v), s->wants,
				 NULL);
	}
	return NULL;
}

static int64_t number_of(const struct value *v)
{
	int64_t n = 0;

	int_parse(v->s, v->n, &n);
	return n;
}

int64_t member_setting(const struct record *pool, const char *key, int64_t def)
{
	const struct value *v = pool ? value_get(
		pool->fields[F_pool_other_config], key) : NULL;
	struct value *error = v ? member_setting_error(key, v) : NULL;

	value_unref(error);
	return v && !error ? number_of(v) : def;
}
