#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xl_image.h"
#include "xen/xl_pump.h"
#include "xen/xl_worker.h"

/* A guest that was stopped for its state to be taken, and whose state nobody
 * needs after all, goes on. */
int xl_let_go_on(struct xl_worker *w)
{
	uint32_t domid;
	int rc;

	if (xl_look(w, &domid) != XL_SUSPENDED)
		return 0;
	rc = libxl_domain_resume(w->ctx, domid, 1, NULL);
	return rc ? xl_fail_libxl(w, "let the guest go on", rc) : 0;
}

int xl_op_go_on(struct xl_worker *w)
{
	return xl_let_go_on(w);
}

static int fail_image(struct xl_worker *w, int r)
{
	const char *path = value_get_str(w->request, "image");

	log_warn("image %s: %s", path, strerror(-r));
	return xl_fail(w, "SUSPEND_IMAGE_NOT_ACCESSIBLE", path);
}

static int write_whole(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t k = write(fd, p, n);

		if (k < 0)
			return -errno;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int write_head(struct xl_worker *w, uint32_t domid)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	_cleanup_(freep) char *json = NULL;
	libxl_domain_config cfg;
	int rc;

	libxl_domain_config_init(&cfg);
	rc = libxl_retrieve_domain_configuration(w->ctx, domid, &cfg, NULL);
	if (rc == 0)
		json = libxl_domain_config_to_json(w->ctx, &cfg);
	libxl_domain_config_dispose(&cfg);
	if (!json)
		return xl_fail_libxl(w, "tell the domain's configuration", rc);
	rc = xl_image_head(&b, w->vm, json);
	if (rc == 0)
		rc = write_whole(w->fds[0], b.data, b.len);
	return rc < 0 ? fail_image(w, rc) : 0;
}

static int fail_save(struct xl_worker *w, int rc, int pumped)
{
	if (pumped < 0)
		return fail_image(w, pumped);
	if (rc == ERROR_GUEST_TIMEDOUT)
		return xl_fail(w, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", w->vm);
	return xl_fail_libxl(w, "save the guest", rc);
}

static int write_guest(struct xl_worker *w, uint32_t domid)
{
	struct xl_pump pump;
	int rc = xl_pump_start(&pump, false, xl_pump_to_file, &w->fds[0]);
	int pumped;

	if (rc < 0)
		return fail_image(w, rc);
	rc = libxl_domain_suspend(w->ctx, domid, pump.fd, 0, NULL);
	pumped = xl_pump_end(&pump);
	if (rc == 0 && pumped == 0 && fsync(w->fds[0]) < 0)
		pumped = -errno;
	if (rc || pumped < 0)
		return fail_save(w, rc, pumped);
	log_info("VM %s: %llu bytes saved", w->vm,
		 (unsigned long long)pump.bytes);
	return 0;
}

/* {image: its name, for errors} and the file, empty: at the end the guest is in
 * it, on disk, and its domain is stopped. After a failure it runs on. */
int xl_op_suspend(struct xl_worker *w)
{
	uint32_t domid;
	enum xl_look look = xl_look(w, &domid);
	int rc;

	if (look != XL_RUNNING || w->n_fds != 1)
		return xl_fail_state(w, "running", look);
	rc = xl_check_movable(w, domid);
	if (rc == 0)
		rc = write_head(w, domid);
	if (rc == 0)
		rc = write_guest(w, domid);
	if (rc != 0)
		xl_let_go_on(w);
	return rc;
}
