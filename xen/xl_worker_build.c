#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "xen/xl_config.h"
#include "xen/xl_image.h"
#include "xen/xl_worker.h"

struct building {
	struct xl_worker *w;
	struct domain_config *cfg;
	libxl_domain_config xl;
	uint64_t needed_kib;
};

static int fail_memory(struct xl_worker *w, uint64_t needed_kib,
		       uint64_t free_kib)
{
	char needed[24], available[24];

	snprintf(needed, sizeof(needed), "%" PRIu64, needed_kib << 10);
	snprintf(available, sizeof(available), "%" PRIu64, free_kib << 10);
	return xl_fail(w, "HOST_NOT_ENOUGH_FREE_MEMORY", needed, available);
}

static int make_vnc_dir(void)
{
	if (mkdir(XL_VNC_DIR, 0700) == 0)
		return 0;
	return errno == EEXIST ? 0 : -errno;
}

/* Of what the device model needs libxl would miss some when the memory of the
 * guest is filled already. */
static int check_model(struct xl_worker *w)
{
	bool saved = w->n_fds > 0 || !strcmp(w->op, "receive");
	int r = make_vnc_dir();

	if (r < 0)
		return xl_fail(w, "INTERNAL_ERROR", XL_VNC_DIR, strerror(-r));
	if (xl_flag(w, "dm_root"))
		return 0;
	if (!getpwnam(XL_DM_USER))
		return xl_fail(w, "INTERNAL_ERROR",
			       "no user " XL_DM_USER " on this host, as whom "
			       "HVM guests' QEMU would run (man "
			       "xenpool-executor, --device-model)");
	return saved ? xl_fail_unmovable(w) : 0;
}

static int read_config(struct building *b)
{
	char reason[160];
	struct xl_worker *w = b->w;

	b->cfg = domain_config_parse(value_get(w->request, "config"), reason,
				     sizeof(reason));
	if (!b->cfg || !xl_config_make(b->cfg, xl_flag(w, "dm_root"), &b->xl,
				       reason, sizeof(reason)))
		return xl_fail(w, "INVALID_VALUE", "config", reason);
	return b->cfg->type == DOMAIN_HVM ? check_model(w) : 0;
}

/* 0, also when it cannot be known: the build itself will find out. */
static int check_memory(struct building *b)
{
	struct xl_worker *w = b->w;
	libxl_domain_config copy;
	uint64_t free_kib;
	int rc;

	/* It fills in defaults, which would then be checked as ours. */
	libxl_domain_config_init(&copy);
	libxl_domain_config_copy(w->ctx, &copy, &b->xl);
	rc = libxl_domain_need_memory(w->ctx, &copy, INVALID_DOMID,
				      &b->needed_kib);
	libxl_domain_config_dispose(&copy);
	if (rc || libxl_get_free_memory(w->ctx, &free_kib))
		return 0;
	if (b->needed_kib > free_kib)
		return fail_memory(w, b->needed_kib, free_kib);
	return 0;
}

static int create(struct building *b, uint32_t *ret_domid)
{
	struct xl_worker *w = b->w;
	int rc;

	if (w->n_fds == 0) {
		rc = libxl_domain_create_new(w->ctx, &b->xl, ret_domid, NULL,
					     NULL);
	} else if (xl_image_check(w->fds[0], w->vm) < 0) {
		return xl_fail(w, "INTERNAL_ERROR", "no image of this guest");
	} else {
		libxl_domain_restore_params p;

		libxl_domain_restore_params_init(&p);
		p.stream_version = 2;
		rc = libxl_domain_create_restore(w->ctx, &b->xl, ret_domid,
						 w->fds[0], -1, &p, NULL,
						 NULL);
	}
	if (rc == 0)
		return 0;
	/* Somebody else may have taken it meanwhile. */
	if (check_memory(b) != 0)
		return XEN_FAILED;
	return xl_fail_libxl(w, "build the domain", rc);
}

static int build(struct building *b)
{
	struct xl_worker *w = b->w;
	uint32_t domid = INVALID_DOMID;
	int rc = check_memory(b);

	if (rc == 0)
		rc = create(b, &domid);
	if (rc != 0) {
		if (xl_look(w, &domid) != XL_NONE)
			xl_destroy(w, domid);
		return rc;
	}
	if (!xl_flag(w, "paused")) {
		rc = libxl_domain_unpause(w->ctx, domid, NULL);
		if (rc) {
			libxl_domain_destroy(w->ctx, domid, NULL);
			return xl_fail_libxl(w, "let the domain run", rc);
		}
	}
	xl_result_domid(w, domid);
	return 0;
}

int xl_check_build(struct xl_worker *w)
{
	struct building b = { .w = w };

	return read_config(&b) ? XEN_FAILED : check_memory(&b);
}

/* {config, paused, discard: whatever is there is cleared away}, and as its fd
 * perhaps a saved guest's stream. */
int xl_op_start(struct xl_worker *w)
{
	struct building b = { .w = w };
	uint32_t domid = INVALID_DOMID;
	enum xl_look look = xl_look(w, &domid);

	if (read_config(&b))
		return XEN_FAILED;
	if ((look == XL_RUNNING || look == XL_PAUSED) &&
	    !xl_flag(w, "discard")) {
		xl_result_domid(w, domid);
		return 0;
	}
	if (look != XL_NONE && xl_destroy(w, domid))
		return XEN_FAILED;
	return build(&b);
}
