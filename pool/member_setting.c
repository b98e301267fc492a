/* The settings of membership: keys of pool.other_config. */
#include <string.h>

#include "pool/core.h"

static const struct setting {
	const char *key, *wants;
	int64_t min, max, def; /* def 0: --host-dead-after */
} settings[] = {
	[MEMBER_VOTERS] = { "xenpool-voters", "3 or 5", 3, 5, 5 },
	[MEMBER_REPLACE_AFTER] = { "xenpool-voter-replace-after",
				   "seconds, 2 to 604800", 2, 604800, 0 },
};

static bool is_good(const struct setting *s, const struct value *v,
		    int64_t *ret)
{
	return int_parse(v->s, v->n, ret) && *ret >= s->min && *ret <= s->max &&
	       !(s == &settings[MEMBER_VOTERS] && *ret == 4);
}

struct value *member_setting_error(const char *key, const struct value *v)
{
	int64_t n;

	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];

		if (strcmp(key, s->key) == 0 && !is_good(s, v, &n))
			return api_error("INVALID_VALUE", key, value_str(v),
					 s->wants, NULL);
	}
	return NULL;
}

bool pool_setting(const struct pool *p, size_t i, struct pool_setting *ret)
{
	struct record *pool = pool_row(p);
	const struct setting *s = &settings[i];
	const struct value *v;
	int64_t n;

	if (i >= ARRAY_LEN(settings))
		return false;
	ret->key = s->key;
	ret->def = s->def ? s->def : p->cfg.host_dead_after_ms / 1000;
	v = pool ? value_get(pool->fields[F_pool_other_config], s->key) : NULL;
	ret->value = v && is_good(s, v, &n) ? n : ret->def;
	return true;
}

int64_t member_setting(const struct pool *p, enum member_setting which)
{
	struct pool_setting s;

	pool_setting(p, which, &s);
	return s.value;
}
