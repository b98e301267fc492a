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

/* A look at least so often: the truth, whatever notice may have got lost. */
#define LOOK_EVERY_MS 2000

struct watch {
	int socket;
	libxl_ctx *ctx;
	struct xs_handle *xs;
	uint64_t asked;
	struct xen_host fixed; /* what does not change */
};

static void copy_text(char *out, size_t size, const char *s, size_t n)
{
	snprintf(out, size, "%.*s", (int)MIN(n, size - 1), s);
	if (!text_valid(out, strlen(out)))
		*out = '\0';
}

/* The value of "key : value" in /proc/cpuinfo. */
static void cpu_fact(const char *text, const char *key, char *out, size_t size)
{
	const char *p = strstr(text, key), *end;

	p = p ? strchr(p, ':') : NULL;
	if (!p)
		return;
	p += strspn(p, ": \t");
	end = p + strcspn(p, "\n");
	copy_text(out, size, p, (size_t)(end - p));
}

static void learn_fixed(struct watch *w)
{
	const libxl_version_info *v = libxl_get_version_info(w->ctx);
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct xen_host *h = &w->fixed;

	file_kernel_boot(h->boot_id, sizeof(h->boot_id));
	if (v)
		snprintf(h->xen_version, sizeof(h->xen_version), "%d.%d%s",
			 v->xen_version_major, v->xen_version_minor,
			 v->xen_version_extra);
	if (file_read("/proc/cpuinfo", 4 << 20, &b) == 0) {
		cpu_fact(buf_cstr(&b), "model name", h->cpu_model,
			 sizeof(h->cpu_model));
		cpu_fact(buf_cstr(&b), "vendor_id", h->cpu_vendor,
			 sizeof(h->cpu_vendor));
	}
}

static int look_host(struct watch *w, struct xen_host *ret)
{
	const libxl_version_info *v = libxl_get_version_info(w->ctx);
	libxl_physinfo info;
	uint64_t page = v ? (uint64_t)v->pagesize : 4096;

	libxl_physinfo_init(&info);
	if (libxl_get_physinfo(w->ctx, &info))
		return -EIO;
	*ret = w->fixed;
	ret->memory_total = info.total_pages * page;
	ret->memory_free = (info.free_pages + info.scrub_pages) * page;
	ret->cpu_count = info.nr_cpus;
	ret->cpu_mhz = info.cpu_khz / 1000;
	libxl_physinfo_dispose(&info);
	return 0;
}

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
	if (look_host(w, &v->host) < 0)
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
	learn_fixed(w);
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
