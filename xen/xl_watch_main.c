/* The watcher process: sees what domains there are and tells the executor. */
#include <errno.h>
#include <libxl.h>
#include <libxl_utils.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/xl.h"
#include "xen/xl_facts.h"

/* A look at least so often: the truth, whatever notice may have got lost. */
#define LOOK_EVERY_MS 2000

struct watch {
	int socket;
	libxl_ctx *ctx;
	struct xs_handle *xs;
	uint64_t asked;
	struct xen_host fixed; /* what does not change */
};

static void describe(const libxl_dominfo *d, struct xl_seen *ret)
{
	static const enum xen_event_kind kinds[] = {
		[LIBXL_SHUTDOWN_REASON_POWEROFF] = XEN_EV_SHUTDOWN,
		[LIBXL_SHUTDOWN_REASON_REBOOT] = XEN_EV_REBOOT,
		[LIBXL_SHUTDOWN_REASON_CRASH] = XEN_EV_CRASH,
		[LIBXL_SHUTDOWN_REASON_WATCHDOG] = XEN_EV_CRASH,
		[LIBXL_SHUTDOWN_REASON_SOFT_RESET] = XEN_EV_REBOOT,
	};
	unsigned reason = (unsigned)d->shutdown_reason;

	uuid_format(d->uuid.uuid, ret->vm);
	ret->domid = d->domid;
	ret->state = d->paused ? XEN_PAUSED : XEN_RUNNING;
	/* A guest that was stopped for its state to be taken has not ended. */
	if (d->shutdown && reason == LIBXL_SHUTDOWN_REASON_SUSPEND)
		ret->state = XEN_PAUSED;
	else if (d->shutdown)
		ret->state = XEN_SHUTDOWN;
	ret->reason = d->shutdown && reason < ARRAY_LEN(kinds) ? kinds[reason]
							       : XEN_EV_CRASH;
	ret->memory_kib = d->current_memkb;
	ret->vcpus = d->vcpu_online;
	ret->cpu_ms = (int64_t)(d->cpu_time / 1000000);
}

/* The caller's; NULL when Xen does not tell. */
static struct xl_view *look(struct watch *w)
{
	int64_t at = env_mono_ms();
	int n = 0;
	libxl_dominfo *all = libxl_list_domain(w->ctx, &n);
	struct xl_view *v;

	if (!all)
		return NULL;
	v = xcalloc(1, sizeof(*v) + (size_t)n * sizeof(v->seen[0]));
	v->answers = w->asked;
	v->at_ms = at;
	for (int i = 0; i < n && v->n < XL_MAX_DOMAINS; i++)
		if (all[i].domid != 0 && !all[i].dying)
			describe(&all[i], &v->seen[v->n++]);
	libxl_dominfo_list_free(all, n);
	v->host = w->fixed;
	if (xl_facts_now(w->ctx, &v->host) < 0)
		free(TAKE_PTR(v));
	return v;
}

static int tell(struct watch *w)
{
	_cleanup_(freep) struct xl_view *v = look(w);

	if (!v)
		return -EIO;
	if (send(w->socket, v, sizeof(*v) + v->n * sizeof(v->seen[0]),
		 MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

static int take_questions(struct watch *w)
{
	uint64_t asked;
	ssize_t n;

	while ((n = recv(w->socket, &asked, sizeof(asked), MSG_DONTWAIT)) > 0)
		if (n == sizeof(asked))
			w->asked = MAX(w->asked, asked);
	return n == 0 ? -EPIPE : 0;
}

static void take_notices(struct watch *w)
{
	char **notice;

	while ((notice = xs_check_watch(w->xs)))
		free(notice);
}

static int turn(struct watch *w)
{
	struct pollfd f[2] = { { .fd = w->socket, .events = POLLIN },
			       { .fd = xs_fileno(w->xs), .events = POLLIN } };

	if (poll(f, 2, LOOK_EVERY_MS) < 0)
		return errno == EINTR ? 0 : -errno;
	if (f[1].revents & ~POLLIN)
		return -EIO;
	if (f[1].revents)
		take_notices(w);
	if (f[0].revents && take_questions(w) < 0)
		return -EPIPE;
	return tell(w);
}

static int watch_open(struct watch *w)
{
	xentoollog_logger *log = (xentoollog_logger *)
		xtl_createlogger_stdiostream(stderr, XTL_ERROR, 0);

	if (libxl_ctx_alloc(&w->ctx, LIBXL_VERSION, 0, log))
		return -ENXIO;
	w->xs = xs_open(0);
	if (!w->xs || !xs_watch(w->xs, "@releaseDomain", "end") ||
	    !xs_watch(w->xs, "@introduceDomain", "begin"))
		return -ENXIO;
	xl_facts_fixed(w->ctx, &w->fixed);
	return 0;
}

int xl_watch_main(int socket)
{
	struct watch w = { .socket = socket };
	int r = watch_open(&w);

	while (r == 0)
		r = turn(&w);
	if (r != -EPIPE)
		log_error("cannot watch Xen: %s", strerror(-r));
	return 1;
}
