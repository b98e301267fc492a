#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim.h"

#define IMAGE_FORMAT "xenpool simulated guest 1"

struct json_object *sim_guest_json(const struct sim_domain *d)
{
	struct json_object *o = json_object_new_object();

	xassert(o);
	json_add_str(o, "format", IMAGE_FORMAT);
	json_add_str(o, "vm", d->vm);
	json_add_int(o, "memory", (int64_t)d->memory);
	json_add_int(o, "vcpus", d->vcpus);
	json_add_int(o, "ticks", sim_ticks(d));
	json_add_int(o, "was_paused", d->was_paused);
	return o;
}

bool sim_guest_parse(const char *p, size_t n, struct sim_guest *ret)
{
	_cleanup_(json_putp) struct json_object *o = json_parse(p, n);
	char format[64], vm[UUID_LEN + 1];
	int64_t memory, vcpus, paused;

	if (!o || !json_str(o, "format", format, sizeof(format)) ||
	    strcmp(format, IMAGE_FORMAT) ||
	    !json_str(o, "vm", vm, sizeof(vm)) ||
	    !domain_uuid(vm, ret->vm) ||
	    !json_int(o, "memory", DOMAIN_MIN_MEMORY,
			  (int64_t)DOMAIN_MAX_MEMORY, &memory) ||
	    !json_int(o, "vcpus", 1, DOMAIN_MAX_VCPUS, &vcpus) ||
	    !json_int(o, "ticks", 0, INT64_MAX / 2, &ret->ticks) ||
	    !json_int(o, "was_paused", 0, 1, &paused))
		return false;
	ret->memory = (uint64_t)memory;
	ret->vcpus = (uint32_t)vcpus;
	ret->was_paused = paused;
	return true;
}

/* We may be more powerful than who names the path: only what is an image of
 * this very VM may be replaced. */
int sim_image_write(const char *path, const struct sim_domain *d)
{
	_cleanup_(json_putp) struct json_object *o = sim_guest_json(d);
	const char *text = json_object_to_json_string(o);
	struct sim_guest old;
	int r = sim_image_read(path, d->vm, &old);

	if (r < 0 && r != -ENOENT)
		return r;
	xassert(text);
	r = file_replace(path, text, strlen(text));
	return r > 0 ? -EIO : r;
}

int sim_image_read(const char *path, const char *vm, struct sim_guest *ret)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r = file_read(path, SIM_MAX_IMAGE_BYTES, &b);

	if (r < 0)
		return r;
	if (!sim_guest_parse(buf_cstr(&b), b.len, ret))
		return -EBADMSG;
	return strcmp(ret->vm, vm) ? -ESTALE : 0;
}

int sim_image_remove(const char *path, const char *vm)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", path);
	struct sim_guest old;
	int r = sim_image_read(path, vm, &old);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && unlink(path) < 0)
		return -errno;
	/* What an attempt that was killed has left. */
	return unlink(tmp) < 0 && errno != ENOENT ? -errno : 0;
}
