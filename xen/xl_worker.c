#include "xen/xl_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/domain_config.h"
#include "xen/xl.h"
#include "xen/xl_config.h"
#include "xen/xs_watch.h"

/* ---- libxl's log ---- */

static void on_message(struct xentoollog_logger *logger,
		       xentoollog_level level, int errnoval,
		       const char *context, const char *format, va_list ap)
	__attribute__((format(printf, 5, 0)));
static void on_message(struct xentoollog_logger *logger,
		       xentoollog_level level, int errnoval,
		       const char *context, const char *format, va_list ap)
{
	struct xl_worker *w = (struct xl_worker *)logger;
	char text[sizeof(w->complaint)];

	if (level < XTL_WARN)
		return;
	vsnprintf(text, sizeof(text), format, ap);
	if (level == XTL_WARN)
		log_warn("%s: %s", context ? context : "xen", text);
	else
		log_error("%s: %s%s%s", context ? context : "xen", text,
			  errnoval >= 0 ? ": " : "",
			  errnoval >= 0 ? strerror(errnoval) : "");
	if (level >= XTL_ERROR && !*w->complaint &&
	    text_valid(text, strlen(text)))
		memcpy(w->complaint, text, sizeof(text));
}

static void on_step(struct xentoollog_logger *logger, const char *context,
		    const char *doing_what, int percent, unsigned long done,
		    unsigned long total)
{
	struct xl_worker *w = (struct xl_worker *)logger;

	if (total > 0)
		xl_tell_progress(w, (double)done / (double)total);
}

static void on_destroy(struct xentoollog_logger *logger)
{
}

/* ---- failing ---- */

int xl_fail_value(struct xl_worker *w, struct value *error)
{
	if (w->error)
		value_unref(error);
	else
		w->error = error;
	return XEN_FAILED;
}

int xl_fail_libxl(struct xl_worker *w, const char *what, int rc)
{
	_cleanup_(freep) char *text = NULL;
	const char *name = libxl_error_to_string((libxl_error)rc);

	if (rc == ERROR_DOMAIN_NOTFOUND)
		return xl_fail_state(w, "running", XL_NONE);
	text = xasprintf("Xen could not %s: %s (libxl: %s)", what,
			 *w->complaint ? w->complaint : "no reason given",
			 name ? name : "unknown error");
	return xl_fail(w, "INTERNAL_ERROR", text);
}

int xl_fail_state(struct xl_worker *w, const char *expected, enum xl_look is)
{
	static const char *const names[] = {
		[XL_NONE] = "halted", [XL_RUNNING] = "running",
		[XL_PAUSED] = "paused", [XL_SUSPENDED] = "paused",
		[XL_ENDED] = "halted",
	};

	return xl_fail(w, "VM_BAD_POWER_STATE", w->vm, expected, names[is]);
}

/* ---- the request ---- */

bool xl_flag(const struct xl_worker *w, const char *name)
{
	const struct value *v = value_get(w->request, name);

	return v && v->kind == VALUE_BOOL && v->i;
}

int64_t xl_number(const struct xl_worker *w, const char *name)
{
	return value_get_int(w->request, name, 0);
}

void xl_result_domid(struct xl_worker *w, uint32_t domid)
{
	w->result = value_struct_of("domid", value_int(domid), NULL);
}

void xl_tell_progress(struct xl_worker *w, double fraction)
{
	xl_packet_send(w->socket,
		       value_struct_of("type", value_stringz("progress"),
				       "fraction", value_float(fraction),
				       NULL));
}

/* ---- the domain ---- */

static enum xl_look look_of(const libxl_dominfo *d)
{
	if (d->shutdown)
		return d->shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND
			       ? XL_SUSPENDED : XL_ENDED;
	return d->paused ? XL_PAUSED : XL_RUNNING;
}

enum xl_look xl_look(struct xl_worker *w, uint32_t *ret_domid)
{
	enum xl_look look = XL_NONE;
	int n = 0;
	libxl_dominfo *all = libxl_list_domain(w->ctx, &n);

	for (int i = 0; all && i < n; i++) {
		if (all[i].dying ||
		    memcmp(&all[i].uuid, &w->uuid, sizeof(w->uuid)))
			continue;
		look = look_of(&all[i]);
		if (ret_domid)
			*ret_domid = all[i].domid;
	}
	if (all)
		libxl_dominfo_list_free(all, n);
	return look;
}

/* libxl_dominfo does not tell PVH from HVM: both run in a hardware container. */
libxl_domain_type xl_type_of(struct xl_worker *w, uint32_t domid)
{
	libxl_domain_type type = LIBXL_DOMAIN_TYPE_INVALID;
	libxl_domain_config config;

	libxl_domain_config_init(&config);
	if (libxl_retrieve_domain_configuration(w->ctx, domid, &config,
						NULL) == 0)
		type = config.c_info.type;
	libxl_domain_config_dispose(&config);
	return type;
}

int xl_fail_unmovable(struct xl_worker *w)
{
	return xl_fail(w, "VM_NON_SUSPENDABLE", w->vm,
		       "its QEMU runs without root's rights and would not get "
		       "its disks again (the executor's --device-model)");
}

int xl_check_movable(struct xl_worker *w, uint32_t domid)
{
	return xl_is_restricted(w, domid) ? xl_fail_unmovable(w) : 0;
}

bool xl_is_restricted(struct xl_worker *w, uint32_t domid)
{
	libxl_domain_config cfg;
	bool restricted;

	libxl_domain_config_init(&cfg);
	restricted = libxl_retrieve_domain_configuration(w->ctx, domid, &cfg,
							 NULL) == 0 &&
		     cfg.c_info.type == LIBXL_DOMAIN_TYPE_HVM &&
		     (libxl_defbool_is_default(cfg.b_info.dm_restrict) ||
		      libxl_defbool_val(cfg.b_info.dm_restrict));
	libxl_domain_config_dispose(&cfg);
	return restricted;
}

char *xl_vnc_path(const struct xl_worker *w)
{
	return xasprintf(XL_VNC_DIR "/%s", w->vm);
}

int xl_destroy(struct xl_worker *w, uint32_t domid)
{
	_cleanup_(freep) char *vnc = xl_vnc_path(w);
	int rc = libxl_domain_destroy(w->ctx, domid, NULL);

	if (rc == 0 || rc == ERROR_DOMAIN_NOTFOUND) {
		unlink(vnc); /* its owner could not */
		return 0;
	}
	return xl_fail_libxl(w, "destroy the domain", rc);
}

/* ---- one operation ---- */

static const struct {
	const char *name;
	int (*run)(struct xl_worker *w);
} ops[] = {
	{ "start", xl_op_start },
	{ "destroy", xl_op_destroy },
	{ "pause", xl_op_pause },
	{ "unpause", xl_op_unpause },
	{ "shutdown", xl_op_shutdown },
	{ "change", xl_op_change },
	{ "suspend", xl_op_suspend },
	{ "go_on", xl_op_go_on },
	{ "look", xl_op_look },
	{ "receive", xl_op_receive },
	{ "send", xl_op_send },
	{ "console", xl_op_console },
	{ "xenstore", xl_op_xenstore },
};

static int run(struct xl_worker *w)
{
	static const libxl_childproc_hooks reaping = {
		.chldowner = libxl_sigchld_owner_libxl,
	};
	int rc;

	if (libxl_uuid_from_string(&w->uuid, w->vm))
		return xl_fail(w, "INTERNAL_ERROR", "no VM's uuid");
	rc = libxl_ctx_alloc(&w->ctx, LIBXL_VERSION, 0, &w->logger);
	if (rc)
		return xl_fail_libxl(w, "be reached", rc);
	libxl_childproc_setmode(w->ctx, &reaping, NULL);
	for (size_t i = 0; i < ARRAY_LEN(ops); i++)
		if (!strcmp(ops[i].name, w->op))
			return ops[i].run(w);
	return xl_fail(w, "INTERNAL_ERROR", "unknown operation");
}

static void tell_done(struct xl_worker *w)
{
	struct value *error = w->error ? w->error : value_set_empty();
	struct value *result = w->result ? w->result : value_struct_new(0);

	xl_packet_send(w->socket,
		       value_struct_of("type", value_stringz("done"),
				       "error", error, "result", result,
				       NULL));
}

/* Nothing of the executor's own: no terminal, no folder, and files that only
 * root reads. */
static void settle(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0)
		dup2(null, STDIN_FILENO);
	if (chdir("/") < 0)
		log_warn("cannot go to /: %s", strerror(errno));
	signal(SIGPIPE, SIG_IGN);
	fcntl(XL_WORKER_FD, F_SETFD, FD_CLOEXEC);
}

int xl_worker_main(void)
{
	struct xl_worker w = {
		.logger = { on_message, on_step, on_destroy },
		.socket = XL_WORKER_FD,
	};

	settle();
	w.request = xl_request_receive(w.socket, w.fds, &w.n_fds);
	if (!w.request)
		return 1;
	w.op = value_get_str(w.request, "op");
	w.vm = value_get_str(w.request, "vm");
	log_set_thread(w.op);
	if (!strcmp(w.op, "watch"))
		return xl_watch_main(w.socket);
	if (!strcmp(w.op, "guests"))
		return xs_watch_main(w.socket,
				     value_get_str(w.request, "root"),
				     "nobody");
	if (run(&w) != 0 && !w.error)
		xl_fail(&w, "INTERNAL_ERROR", "failed without a reason");
	tell_done(&w);
	/* Tidying up in memory could only go wrong now. */
	_exit(0);
}
