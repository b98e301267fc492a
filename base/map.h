/* Hash map from byte strings to pointers. Keys are borrowed: they must live as
 * long as the entry (usually they are part of the value). Expected O(1). */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/util.h"

struct map_slot {
	const char *key; /* NULL: free, MAP_TOMB: removed */
	uint32_t key_len;
	uint32_t hash;
	void *value;
};

struct map {
	struct map_slot *slots;
	size_t cap; /* power of two or 0 */
	size_t count; /* live entries */
	size_t used; /* live entries and tombs */
};

void map_init(struct map *m);
void map_deinit(struct map *m); /* does not touch the values */
/* Makes room at once for so many entries in all: before filling a large map. */
void map_reserve(struct map *m, size_t count);
void *map_get(const struct map *m, const char *key, size_t len);
void *map_getz(const struct map *m, const char *key);
/* Returns the value replaced, NULL if the key is new; takes the new key pointer
 * in either case. */
void *map_put(struct map *m, const char *key, size_t len, void *value);
/* Returns the value removed, NULL if there was none. */
void *map_del(struct map *m, const char *key, size_t len);

/* for (size_t i = 0; (v = map_next(m, &i)); ) ... ; no inserts meanwhile. */
void *map_next(const struct map *m, size_t *i);

/* 64-bit hash of a byte string, the same on every machine (XXH3). */
uint64_t hash64(const void *p, size_t n);

struct hash128 {
	uint64_t lo, hi;
};
struct hash128 hash128(const void *p, size_t n);

#endif
