/* The highest fence seen of every VM: in memory, and as JSON in the file of its
 * owner. Fences of VMs that are not `kept` are bounded in number; the least
 * recently raised go first. Not locked here. */
#ifndef XEN_FENCES_H
#define XEN_FENCES_H

#include "base/list.h"
#include "base/map.h"
#include "base/text.h"

#define FENCES_MAX 4096

struct fence {
	char vm[UUID_LEN + 1];
	int64_t fence;
	struct list link; /* least recently raised first */
};

struct fences {
	struct map by_vm; /* struct fence */
	struct list lru;
	/* May be NULL: none is. */
	bool (*kept)(void *data, const char *vm);
	void *data;
};

struct json_object;

void fences_init(struct fences *f);
void fences_deinit(struct fences *f);
int64_t fences_get(const struct fences *f, const char *vm); /* 0: none yet */
void fences_set(struct fences *f, const char *vm, int64_t fence);
/* Sets, and forgets what is beyond the bound. */
void fences_raise(struct fences *f, const char *vm, int64_t fence);
struct json_object *fences_json(const struct fences *f);
/* One element of what fences_json() gave; false when malformed. */
bool fences_load(void *fences, struct json_object *o);

#endif
