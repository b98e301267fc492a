#include "xen/fences.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "xen/domain_config.h"
#include "xen/files.h"

void fences_init(struct fences *f)
{
	map_init(&f->by_vm);
	list_init(&f->lru);
}

static void forget(struct fences *f, struct fence *one)
{
	map_del(&f->by_vm, one->vm, strlen(one->vm));
	list_remove(&one->link);
	free(one);
}

void fences_deinit(struct fences *f)
{
	if (!f->lru.next)
		return;
	list_for_each_safe(l, &f->lru)
		forget(f, list_entry(l, struct fence, link));
	map_deinit(&f->by_vm);
}

static bool is_kept(const struct fences *f, const char *vm)
{
	return f->kept && f->kept(f->data, vm);
}

static void trim(struct fences *f)
{
	if (f->by_vm.count <= FENCES_MAX)
		return;
	list_for_each_safe(l, &f->lru) {
		struct fence *one = list_entry(l, struct fence, link);

		if (f->by_vm.count <= FENCES_MAX)
			return;
		if (!is_kept(f, one->vm))
			forget(f, one);
	}
}

void fences_set(struct fences *f, const char *vm, int64_t fence)
{
	struct fence *one = map_getz(&f->by_vm, vm);

	if (!one) {
		one = xcalloc(1, sizeof(*one));
		snprintf(one->vm, sizeof(one->vm), "%s", vm);
		list_init(&one->link);
		map_put(&f->by_vm, one->vm, strlen(one->vm), one);
	}
	one->fence = fence;
	list_remove(&one->link);
	list_push(&f->lru, &one->link);
}

void fences_raise(struct fences *f, const char *vm, int64_t fence)
{
	fences_set(f, vm, fence);
	trim(f);
}

int64_t fences_get(const struct fences *f, const char *vm)
{
	struct fence *one = map_getz(&f->by_vm, vm);

	return one ? one->fence : 0;
}

struct json_object *fences_json(const struct fences *f)
{
	struct json_object *a = json_object_new_array();

	xassert(a);
	list_for_each(l, &f->lru) {
		struct fence *one = list_entry(l, struct fence, link);
		struct json_object *o = json_object_new_object();

		xassert(o);
		json_add_str(o, "vm", one->vm);
		json_add_int(o, "fence", one->fence);
		xassert(!json_object_array_add(a, o));
	}
	return a;
}

bool fences_load(void *fences, struct json_object *o)
{
	char vm[UUID_LEN + 1], uuid[UUID_LEN + 1];
	int64_t fence;

	if (!json_object_is_type(o, json_type_object) ||
	    !json_str(o, "vm", vm, sizeof(vm)) || !domain_uuid(vm, uuid) ||
	    !json_int(o, "fence", 0, INT64_MAX, &fence))
		return false;
	fences_set(fences, uuid, fence);
	return true;
}
