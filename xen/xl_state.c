#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xl.h"

struct xl_vm *xl_find(struct xl *x, const char *vm)
{
	return map_getz(&x->by_vm, vm);
}

struct xl_vm *xl_get(struct xl *x, const char *vm)
{
	struct xl_vm *v = xl_find(x, vm);

	if (v)
		return v;
	v = xcalloc(1, sizeof(*v));
	snprintf(v->vm, sizeof(v->vm), "%s", vm);
	list_push(&x->vms, &v->link);
	xassert(!map_put(&x->by_vm, v->vm, strlen(v->vm), v));
	return v;
}

static void vm_free(struct xl *x, struct xl_vm *v)
{
	map_del(&x->by_vm, v->vm, strlen(v->vm));
	list_remove(&v->link);
	free(v);
}

void xl_tidy(struct xl *x, struct xl_vm *v)
{
	if (v->phase == XL_HOME && !v->activated && !v->busy && !v->alive)
		vm_free(x, v);
}

int xl_set_phase(struct xl *x, struct xl_vm *v, enum xl_phase phase)
{
	enum xl_phase before = v->phase;
	int r;

	if (phase == before)
		return 0;
	v->phase = phase;
	r = xl_state_save(x);
	if (r < 0)
		v->phase = before;
	return r;
}

/* ---- fences ---- */

static bool fence_kept(void *data, const char *vm)
{
	return xl_find(data, vm);
}

static int fence_raise_locked(struct xl *x, const char *vm, int64_t fence)
{
	int64_t before = fences_get(&x->fences, vm);
	int r;

	if (fence < before)
		return XEN_FAILED;
	if (fence == before)
		return 0;
	fences_raise(&x->fences, vm, fence);
	r = xl_state_save(x);
	if (r < 0)
		fences_set(&x->fences, vm, before);
	return r;
}

int xl_fence_raise(struct xen *xen, const char *vm, int64_t fence,
		   int64_t *ret_highest)
{
	struct xl *x = xl_of(xen);
	int r;

	pthread_mutex_lock(&x->lock);
	r = fence_raise_locked(x, vm, fence);
	*ret_highest = fences_get(&x->fences, vm);
	pthread_mutex_unlock(&x->lock);
	return r;
}

/* ---- the file ---- */

static struct json_object *vms_json(struct xl *x)
{
	struct json_object *a = json_object_new_array();

	xassert(a);
	list_for_each(l, &x->vms) {
		struct xl_vm *v = list_entry(l, struct xl_vm, link);
		struct json_object *o;

		if (v->phase == XL_HOME && !v->activated)
			continue;
		o = json_object_new_object();
		xassert(o);
		json_add_str(o, "vm", v->vm);
		json_add_int(o, "phase", v->phase);
		json_add_int(o, "was_paused", v->was_paused);
		json_add_int(o, "activated", v->activated);
		json_add_str(o, "token", v->token);
		xassert(!json_object_array_add(a, o));
	}
	return a;
}

int xl_state_save(struct xl *x)
{
	_cleanup_(json_putp) struct json_object *o = json_object_new_object();
	_cleanup_(freep) char *path = xasprintf("%s/xen.json", x->dir);
	const char *text;
	int r;

	xassert(o);
	json_add_int(o, "format", 1);
	json_add_str(o, "boot_id", x->boot_id);
	json_object_object_add(o, "vms", vms_json(x));
	json_object_object_add(o, "fences", fences_json(&x->fences));
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY);
	xassert(text);
	r = file_replace(path, text, strlen(text));
	if (r < 0)
		log_error("cannot write %s: %s", path, strerror(-r));
	if (r > 0)
		log_warn("cannot make sure of %s", path);
	return MIN(r, 0);
}

static bool load_vm(void *data, struct json_object *o)
{
	char vm[UUID_LEN + 1], uuid[UUID_LEN + 1];
	char token[XEN_TOKEN_LEN + 1];
	int64_t phase, was_paused, activated;
	struct xl_vm *v;

	if (!json_object_is_type(o, json_type_object) ||
	    !json_str(o, "vm", vm, sizeof(vm)) || !domain_uuid(vm, uuid) ||
	    !json_int(o, "phase", XL_HOME, XL_ARRIVED, &phase) ||
	    !json_int(o, "was_paused", 0, 1, &was_paused) ||
	    !json_int(o, "activated", 0, 1, &activated) ||
	    !json_str(o, "token", token, sizeof(token)))
		return false;
	v = xl_get(data, uuid);
	v->phase = (enum xl_phase)phase;
	v->was_paused = was_paused;
	v->activated = activated;
	memcpy(v->token, token, sizeof(token));
	return true;
}

static int load(struct xl *x, const char *p, size_t n)
{
	_cleanup_(json_putp) struct json_object *o = json_parse(p, n);
	char boot_id[UUID_LEN + 1];
	int64_t format;

	if (!o || !json_int(o, "format", 1, 1, &format) ||
	    !json_str(o, "boot_id", boot_id, sizeof(boot_id)) ||
	    !json_each(o, "fences", FENCES_MAX + XL_MAX_DOMAINS, fences_load,
		       &x->fences))
		return -EBADMSG;
	/* Dom0's kernel and the hypervisor start together: of an earlier boot
	 * there are no domains left. */
	if (strcmp(boot_id, x->boot_id))
		return 0;
	return json_each(o, "vms", XL_MAX_DOMAINS, load_vm, x) ? 0 : -EBADMSG;
}

static int state_load(struct xl *x)
{
	_cleanup_(freep) char *path = xasprintf("%s/xen.json", x->dir);
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r = file_read(path, JSON_MAX_BYTES, &b);

	if (r == -ENOENT)
		return xl_state_save(x);
	if (r == 0)
		r = load(x, buf_cstr(&b), b.len);
	if (r < 0)
		log_error("%s: %s; mend it, or move it away, which forgets "
			  "what was under way", path, strerror(-r));
	return r;
}

int xl_state_open(struct xl *x)
{
	_cleanup_(freep) char *path = xasprintf("%s/lock", x->dir);

	list_init(&x->vms);
	map_init(&x->by_vm);
	fences_init(&x->fences);
	x->fences.kept = fence_kept;
	x->fences.data = x;
	file_kernel_boot(x->boot_id, sizeof(x->boot_id));
	x->lock_fd =
		open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (x->lock_fd < 0) {
		log_error("cannot open %s: %s", path, strerror(errno));
		return -errno;
	}
	if (flock(x->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		log_error("%s is held: another executor uses this folder",
			  path);
		return -EBUSY;
	}
	return state_load(x);
}

void xl_state_close(struct xl *x)
{
	list_for_each_safe(l, &x->vms)
		vm_free(x, list_entry(l, struct xl_vm, link));
	map_deinit(&x->by_vm);
	fences_deinit(&x->fences);
	if (x->lock_fd >= 0)
		close(x->lock_fd);
}
