/* Open addressing with linear probing. At most three quarters of the slots are
 * in use (live or tombs), so every probe meets a free slot. A rebuild leaves at
 * most half in use, which pays for it by the inserts until the next.
 */
#include "base/map.h"

#include <string.h>
#include <xxhash.h>

#define MAP_MIN_CAP 8

static const char tomb_mark;
#define MAP_TOMB (&tomb_mark)

static bool slot_live(const struct map_slot *s)
{
	return s->key && s->key != MAP_TOMB;
}

void map_init(struct map *m)
{
	*m = (struct map){ 0 };
}

void map_deinit(struct map *m)
{
	free(m->slots);
	map_init(m);
}

static struct map_slot *find(const struct map *m, const char *key, size_t len,
			     uint32_t hash)
{
	size_t mask = m->cap - 1;

	if (m->count == 0)
		return NULL;
	for (size_t i = hash & mask; m->slots[i].key; i = (i + 1) & mask) {
		struct map_slot *s = &m->slots[i];

		if (s->key != MAP_TOMB && s->hash == hash &&
		    s->key_len == len && memcmp(s->key, key, len) == 0)
			return s;
	}
	return NULL;
}

static size_t first_unused(const struct map_slot *slots, size_t cap,
			   uint32_t hash)
{
	size_t i = hash & (cap - 1);

	while (slot_live(&slots[i]))
		i = (i + 1) & (cap - 1);
	return i;
}

/* With room for count entries and as many more. */
static void rebuild(struct map *m, size_t count)
{
	struct map_slot *slots;
	size_t cap = MAP_MIN_CAP;

	while (count * 2 > cap)
		cap *= 2;
	slots = xcalloc(cap, sizeof(*slots));
	for (size_t i = 0; i < m->cap; i++) {
		const struct map_slot *s = &m->slots[i];

		if (slot_live(s))
			slots[first_unused(slots, cap, s->hash)] = *s;
	}
	free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->used = m->count;
}

void map_reserve(struct map *m, size_t count)
{
	if (count * 4 > m->cap * 3)
		rebuild(m, MAX(count, m->count + 1));
}

void *map_get(const struct map *m, const char *key, size_t len)
{
	struct map_slot *s = find(m, key, len, (uint32_t)hash64(key, len));

	return s ? s->value : NULL;
}

void *map_getz(const struct map *m, const char *key)
{
	return map_get(m, key, strlen(key));
}

void *map_put(struct map *m, const char *key, size_t len, void *value)
{
	uint32_t hash = (uint32_t)hash64(key, len);
	struct map_slot *s = find(m, key, len, hash);
	void *old = NULL;

	xassert(key && value && len <= UINT32_MAX);
	if (s) {
		old = s->value;
	} else {
		if ((m->used + 1) * 4 > m->cap * 3)
			rebuild(m, m->count + 1);
		s = &m->slots[first_unused(m->slots, m->cap, hash)];
		m->used += s->key != MAP_TOMB;
		m->count++;
	}
	*s = (struct map_slot){ key, (uint32_t)len, hash, value };
	return old;
}

/* A tomb is needed only while something behind it may have been pushed on by
 * it; before a free slot there is nothing. */
static void bury(struct map *m, size_t i)
{
	size_t mask = m->cap - 1;

	m->slots[i] = (struct map_slot){ .key = MAP_TOMB };
	if (m->slots[(i + 1) & mask].key)
		return;
	while (m->slots[i].key == MAP_TOMB) {
		m->slots[i].key = NULL;
		m->used--;
		i = (i - 1) & mask;
	}
}

void *map_del(struct map *m, const char *key, size_t len)
{
	struct map_slot *s = find(m, key, len, (uint32_t)hash64(key, len));
	void *old;

	if (!s)
		return NULL;
	old = s->value;
	m->count--;
	bury(m, (size_t)(s - m->slots));
	return old;
}

void *map_next(const struct map *m, size_t *i)
{
	while (*i < m->cap) {
		const struct map_slot *s = &m->slots[(*i)++];

		if (slot_live(s))
			return s->value;
	}
	return NULL;
}

uint64_t hash64(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

struct hash128 hash128(const void *p, size_t n)
{
	XXH128_hash_t h = XXH3_128bits(p, n);

	return (struct hash128){ h.low64, h.high64 };
}
