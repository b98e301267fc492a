/* Suspend to a file, and resume from it.
 *
 *   phase SAVING, saved to disk; the guest is stopped and written to IMAGE.tmp
 *   IMAGE.tmp is renamed to IMAGE; phase SAVED
 *   the domain is destroyed; phase HOME
 *
 * Killed before SAVED the guest goes on where it was, for the next attempt or
 * by an unpause; killed after it the next attempt only destroys the domain. So
 * an older image never passes for the guest's present state. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xl.h"
#include "xen/xl_image.h"

#define GO_ON_MS 60000
#define DESTROY_MS 180000
#define SAVE_MS 600000
#define SAVE_KIB_PER_MS 10 /* 10 MiB/s */

static int fail_image(struct xen_call *c, const char *image, int r)
{
	log_warn("image %s of %s: %s", image, c->vm, strerror(-r));
	return xen_fail(c, "SUSPEND_IMAGE_NOT_ACCESSIBLE", image);
}

/* ---- the file ---- */

/* We are more powerful than who names the path: only what is an image of this
 * very VM may be replaced. */
static int tmp_open(const char *image, const char *tmp, const char *vm)
{
	int r = xl_image_open(image, vm, NULL);
	int fd;

	if (r < 0 && r != -ENOENT)
		return r;
	unlink(tmp); /* left behind by a process that was killed */
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		  0600);
	return fd < 0 ? -errno : fd;
}

static int tmp_keep(const char *tmp, const char *image)
{
	if (rename(tmp, image) < 0)
		return -errno;
	return file_sync_folder(image);
}

/* ---- suspend ---- */

static int64_t save_patience(struct xl *x, const char *vm)
{
	return SAVE_MS + (int64_t)(xl_memory_of(x, vm) / SAVE_KIB_PER_MS);
}

int xl_go_on(struct xen_call *c)
{
	struct xen_call own = { .vm = c->vm, .abort_fd = -1,
				.progress = c->progress };
	int r = xl_run(&own, "go_on", value_struct_new(0), NULL, 0, GO_ON_MS,
		       NULL);

	if (r != 0)
		log_error("VM %s: its guest was stopped and cannot go on",
			  c->vm);
	value_unref(own.error);
	return r;
}

static int save_to(struct xl *x, struct xen_call *c, struct xl_vm *v,
		   const char *image, const char *tmp, int fd)
{
	int r = xl_run(c, "suspend",
		       value_struct_of("image", value_stringz(image), NULL),
		       &fd, 1, save_patience(x, c->vm), NULL);

	if (r == 0) {
		r = tmp_keep(tmp, image);
		r = r < 0 ? fail_image(c, image, r)
			  : xl_phase_set(x, v, XL_SAVED);
	}
	if (r != 0 && xl_go_on(c) == 0)
		xl_phase_set(x, v, XL_HOME);
	return r;
}

static int save(struct xl *x, struct xen_call *c, struct xl_vm *v,
		const char *image)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", image);
	int fd = tmp_open(image, tmp, c->vm), r;

	if (fd < 0)
		return fail_image(c, image, fd);
	/* Of an attempt that was killed. */
	if (v->phase == XL_SAVING)
		xl_go_on(c);
	r = xl_phase_set(x, v, XL_SAVING);
	if (r == 0)
		r = save_to(x, c, v, image, tmp, fd);
	close(fd);
	if (r != 0)
		unlink(tmp);
	return r;
}

int xl_suspend(struct xen *xen, struct xen_call *c, const char *image,
	       int64_t timeout_ms)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v);

	if (r != 0)
		return r;
	if (v->phase != XL_SAVED && (xl_has_domain(x, c->vm) ||
				     xl_image_open(image, c->vm, NULL) < 0))
		r = save(x, c, v, image);
	if (r == 0)
		r = xl_run(c, "destroy", value_struct_new(0), NULL, 0,
			   DESTROY_MS, NULL);
	if (r == 0)
		r = xl_op_gone(x, v);
	xl_op_end(x, v);
	return r;
}

/* ---- resume ---- */

/* Without its image a guest is never built, for that would boot it anew; but it
 * may have been resumed already. */
static int resumed_already(struct xen_call *c, const char *image, int opened,
			   uint32_t *ret_domid)
{
	_cleanup_(value_unrefp) struct value *result = NULL;
	int r = xl_run(c, "look", value_struct_new(0), NULL, 0, GO_ON_MS,
		       &result);

	if (r == 0) {
		*ret_domid = (uint32_t)value_get_int(result, "domid", 0);
		return 0;
	}
	value_unref(TAKE_PTR(c->error));
	return fail_image(c, image, opened);
}

int xl_resume(struct xen *xen, struct xen_call *c, const char *image,
	      const struct domain_config *cfg, bool paused,
	      uint32_t *ret_domid)
{
	struct xl_build b = { .cfg = cfg, .paused = paused, .fd = -1 };
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int r = xl_op_begin(x, c, &v), opened;

	if (r != 0)
		return r;
	opened = xl_image_open(image, c->vm, &b.fd);
	if (opened < 0)
		r = resumed_already(c, image, opened, ret_domid);
	else
		r = xl_build_run(x, c, v, &b, ret_domid);
	if (r == 0 && opened == 0 && unlink(image) < 0)
		log_warn("cannot remove the image %s: %s", image,
			 strerror(errno));
	if (opened == 0)
		close(b.fd);
	xl_op_end(x, v);
	return r;
}

/* ---- an image that nobody will resume ---- */

/* Only what is an image of this very VM, whatever the path says. What an attempt
 * left is shorter than that: its name is all there is to go by. */
int xl_drop_image(struct xen *xen, struct xen_call *c, const char *image)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", image);
	int r = xl_image_open(image, c->vm, NULL);

	if (r < 0 && r != -ENOENT)
		return fail_image(c, image, r);
	r = r == 0 && unlink(image) < 0 ? -errno : 0;
	if (r == 0 && unlink(tmp) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? fail_image(c, image, r) : 0;
}
