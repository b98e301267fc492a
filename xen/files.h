/* Small files of state: JSON read with suspicion, files replaced whole. */
#ifndef XEN_FILES_H
#define XEN_FILES_H

#include "base/buf.h"

#define JSON_MAX_BYTES (8u << 20)

struct json_object;
/* NULL: not one JSON object of at most JSON_MAX_BYTES. */
struct json_object *json_parse(const char *p, size_t n);
void json_putp(struct json_object **o);
/* Absent or of another type: false. Strings are copied whole or refused. */
bool json_str(struct json_object *o, const char *key, char *out, size_t size);
bool json_int(struct json_object *o, const char *key, int64_t min, int64_t max,
	      int64_t *ret);
void json_add_str(struct json_object *o, const char *key, const char *s);
void json_add_int(struct json_object *o, const char *key, int64_t i);
/* Hands every element of the array `key` to load(); false when there is no such
 * array, it has more than max elements, or one is refused. */
bool json_each(struct json_object *o, const char *key, size_t max,
	       bool (*load)(void *data, struct json_object *o), void *data);

/* 0 or negative errno; -E2BIG, -EINVAL (not a regular file). */
int file_read(const char *path, size_t max, struct buf *ret);
/* Also 1: replaced, but a power failure may bring the old one back. */
int file_replace(const char *path, const char *text, size_t n);
/* Makes a rename in path's folder last. Negative errno. */
int file_sync_folder(const char *path);
/* The running kernel's boot, "unknown" where there is no telling. */
void file_kernel_boot(char *out, size_t size);

#endif
