/* Inside a worker process: one libxl context, one operation. Internal to
 * xen/xl_worker*.c; nothing here is shared with the executor. */
#ifndef XEN_XL_WORKER_H
#define XEN_XL_WORKER_H

#include <libxl.h>

#include "schema/call.h"
#include "xen/xl_process.h"

struct xl_worker {
	struct xentoollog_logger logger; /* first: libxl gives it back */
	int socket;
	libxl_ctx *ctx;
	struct value *request;
	const char *op, *vm;
	libxl_uuid uuid;
	int fds[XL_MAX_FDS];
	size_t n_fds;
	char complaint[512]; /* libxl's first, "" for none */
	struct value *error; /* [CODE, params...] */
	struct value *result;
};

enum xl_look { XL_NONE, XL_RUNNING, XL_PAUSED, XL_SUSPENDED, XL_ENDED };

/* Keeps the first error; always XEN_FAILED. */
int xl_fail_value(struct xl_worker *w, struct value *error);
#define xl_fail(w, ...) xl_fail_value(w, api_error(__VA_ARGS__, NULL))
/* libxl's code and its first complaint as an API error. */
int xl_fail_libxl(struct xl_worker *w, const char *what, int rc);
int xl_fail_state(struct xl_worker *w, const char *expected, enum xl_look is);

/* This VM's domain; those that Xen is clearing away do not count. ret may be
 * NULL. */
enum xl_look xl_look(struct xl_worker *w, uint32_t *ret_domid);
/* Has it a QEMU, and one without rights? */
bool xl_is_restricted(struct xl_worker *w, uint32_t domid);
/* Such a guest cannot be saved or moved: when it is to go on, QEMU opens its
 * disks anew, by their names. 0 for others. */
int xl_check_movable(struct xl_worker *w, uint32_t domid);
int xl_fail_unmovable(struct xl_worker *w);
libxl_domain_type xl_type_of(struct xl_worker *w, uint32_t domid);
bool xl_flag(const struct xl_worker *w, const char *name);
int64_t xl_number(const struct xl_worker *w, const char *name);
/* Result: {domid}. */
void xl_result_domid(struct xl_worker *w, uint32_t domid);
void xl_tell_progress(struct xl_worker *w, double fraction);
/* Where its QEMU's VNC server is, the caller's to free. */
char *xl_vnc_path(const struct xl_worker *w);
int xl_destroy(struct xl_worker *w, uint32_t domid);
/* xl_worker_build.c: start and restore */
int xl_op_start(struct xl_worker *w);
/* Whether a start could be made now. */
int xl_check_build(struct xl_worker *w);
/* xl_worker_life.c */
int xl_op_destroy(struct xl_worker *w);
int xl_op_pause(struct xl_worker *w);
int xl_op_unpause(struct xl_worker *w);
int xl_op_shutdown(struct xl_worker *w);
int xl_op_look(struct xl_worker *w); /* {domid} of a domain that is alive */
/* xl_worker_change.c */
int xl_op_change(struct xl_worker *w);
/* xl_worker_save.c */
int xl_op_suspend(struct xl_worker *w);
int xl_op_go_on(struct xl_worker *w);
int xl_let_go_on(struct xl_worker *w);
/* xl_worker_move.c */
int xl_op_receive(struct xl_worker *w);
int xl_op_send(struct xl_worker *w);
/* xl_worker_console.c */
int xl_op_console(struct xl_worker *w);
/* xl_worker_data.c */
int xl_op_xenstore(struct xl_worker *w);

#endif
