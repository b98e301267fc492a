#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/xl_worker.h"

#define LOOK_EVERY_MS 100

int xl_op_destroy(struct xl_worker *w)
{
	uint32_t domid;

	return xl_look(w, &domid) == XL_NONE ? 0 : xl_destroy(w, domid);
}

int xl_op_look(struct xl_worker *w)
{
	uint32_t domid;
	enum xl_look look = xl_look(w, &domid);

	if (look != XL_RUNNING && look != XL_PAUSED)
		return xl_fail_state(w, "paused", look);
	xl_result_domid(w, domid);
	return 0;
}

int xl_op_pause(struct xl_worker *w)
{
	uint32_t domid;
	enum xl_look look = xl_look(w, &domid);
	int rc;

	if (look == XL_PAUSED)
		return 0;
	if (look != XL_RUNNING)
		return xl_fail_state(w, "running", look);
	rc = libxl_domain_pause(w->ctx, domid, NULL);
	return rc ? xl_fail_libxl(w, "pause the domain", rc) : 0;
}

int xl_op_unpause(struct xl_worker *w)
{
	uint32_t domid;
	enum xl_look look = xl_look(w, &domid);
	int rc;

	if (look == XL_RUNNING) {
		xl_result_domid(w, domid);
		return 0;
	}
	if (look == XL_SUSPENDED)
		return xl_let_go_on(w);
	if (look != XL_PAUSED)
		return xl_fail_state(w, "paused", look);
	rc = libxl_domain_unpause(w->ctx, domid, NULL);
	if (rc)
		return xl_fail_libxl(w, "let the domain run", rc);
	xl_result_domid(w, domid);
	return 0;
}

/* ---- asking the guest ---- */

/* libxl waits until the guest has taken the wish out of its mailbox, or takes it
 * back. */
static int ask(struct xl_worker *w, uint32_t domid)
{
	bool reboot = xl_flag(w, "reboot");
	int rc = reboot ? libxl_domain_reboot(w->ctx, domid, NULL)
			: libxl_domain_shutdown(w->ctx, domid, NULL);

	/* A guest without drivers has a power button at least. */
	if (rc == ERROR_NOPARAVIRT)
		rc = libxl_send_trigger(w->ctx, domid,
					reboot ? LIBXL_TRIGGER_RESET
					       : LIBXL_TRIGGER_POWER,
					0, NULL);
	if (rc == ERROR_TIMEDOUT || rc == ERROR_GUEST_TIMEDOUT)
		return xl_fail(w, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", w->vm);
	return rc ? xl_fail_libxl(w, "ask the guest to shut down", rc) : 0;
}

static int fail_timeout(struct xl_worker *w, int64_t timeout_ms)
{
	char seconds[24];

	snprintf(seconds, sizeof(seconds), "%" PRId64, timeout_ms / 1000);
	return xl_fail(w, "VM_SHUTDOWN_TIMEOUT", w->vm, seconds);
}

static bool has_ended(struct xl_worker *w, uint32_t domid)
{
	uint32_t now = INVALID_DOMID;
	enum xl_look look = xl_look(w, &now);

	return look == XL_NONE || look == XL_ENDED || now != domid;
}

static int await_end(struct xl_worker *w, uint32_t domid, int64_t until)
{
	while (!has_ended(w, domid)) {
		if (env_mono_ms() >= until)
			return fail_timeout(w, xl_number(w, "timeout_ms"));
		poll(NULL, 0, LOOK_EVERY_MS);
	}
	return 0;
}

/* {timeout_ms, reboot}: the domain has ended, and is gone, at the end. */
int xl_op_shutdown(struct xl_worker *w)
{
	uint32_t domid;
	enum xl_look look = xl_look(w, &domid);
	int64_t until = env_mono_ms() + xl_number(w, "timeout_ms");
	int rc = 0;

	if (look == XL_NONE)
		return 0;
	if (look != XL_ENDED && look != XL_RUNNING)
		return xl_fail_state(w, "running", look);
	if (look == XL_RUNNING)
		rc = ask(w, domid);
	if (rc == 0 && look == XL_RUNNING)
		rc = await_end(w, domid, until);
	return rc ? rc : xl_op_destroy(w);
}
