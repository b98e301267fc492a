/* Operations in processes of their own: the executor starts itself again as
 * `--xl-worker OP VM`, hands over one request, and gets one result.
 *
 * On the socket (SOCK_SEQPACKET), each a value_encode()d struct:
 *   to the worker    op vm and the operation's own; file descriptors with it
 *   from the worker  type=progress fraction
 *                    type=done error=[CODE, params...] result={...}
 */
#ifndef XEN_XL_PROCESS_H
#define XEN_XL_PROCESS_H

#include <sys/types.h>

#include "xen/xen_ops.h"

#define XL_WORKER_OPTION "--xl-worker"
#define XL_WORKER_FD 3
#define XL_MAX_FDS 2
#define XL_MAX_PACKET (1024 * 1024)

struct xl_process {
	pid_t pid; /* 0: there is none */
	int fd;
};

/* Its helpers are of its process group. Negative errno. */
int xl_process_start(struct xl_process *p, const char *op, const char *vm);
/* Ends it and its helpers at once, and waits for it. */
void xl_process_kill(struct xl_process *p);
/* After it has closed its socket: how it ended ("exit status 1", "signal 6
 * (Aborted)"); kills what does not end. */
void xl_process_end(struct xl_process *p, char *how, size_t size);

/* Fds are borrowed. Takes request. */
int xl_process_send(int fd, struct value *request, const int *fds,
		    size_t n_fds);
/* Waits until the result is there, the worker has ended, the job is aborted or
 * patience is over. As an operation of xen_ops: the worker's error becomes the
 * call's. ret: the result, the caller's; may be NULL. */
int xl_process_wait(struct xl_process *p, struct xen_call *c, const char *op,
		    int64_t patience_ms, struct value **ret);
/* The same, with other packets than `done` given to news: 0 to go on, XL_ENOUGH
 * ends the waiting with 0 (the process lives on), negative errno fails it. */
#define XL_ENOUGH 1
typedef int xl_news_fn(struct xen_call *c, const struct value *packet);
int xl_process_wait_news(struct xl_process *p, struct xen_call *c,
			 const char *op, int64_t patience_ms, xl_news_fn *news,
			 struct value **ret);

/* All of it: start, send, wait, end. Takes request, which lacks op and vm. */
int xl_run(struct xen_call *c, const char *op, struct value *request,
	   const int *fds, size_t n_fds, int64_t patience_ms,
	   struct value **ret);

/* ---- the worker's side ---- */
/* The request, and fds that are the caller's now; NULL after a log line. */
struct value *xl_request_receive(int fd, int fds[XL_MAX_FDS], size_t *ret_n);
int xl_packet_send(int fd, struct value *v); /* takes v */

/* `--xl-worker` itself: the program's exit status. */
int xl_worker_main(void);

#endif
