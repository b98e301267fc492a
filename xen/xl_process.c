#include "xen/xl_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "schema/call.h"

/* A worker that has told its result may take so long to end. */
#define LINGER_MS 1000
#define SLICE_MS 20
#define GO_ON 2 /* beside 0, XEN_FAILED and errnos */

/* ---- packets ---- */

int xl_packet_send(int fd, struct value *v)
{
	return xl_process_send(fd, v, NULL, 0);
}

int xl_process_send(int fd, struct value *request, const int *fds, size_t n_fds)
{
	_cleanup_(value_unrefp) struct value *v = request;
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	char control[CMSG_SPACE(XL_MAX_FDS * sizeof(int))] = { 0 };
	struct msghdr h = { 0 };
	struct iovec io;

	xassert(n_fds <= XL_MAX_FDS);
	value_encode(&b, v);
	if (b.len > XL_MAX_PACKET)
		return -E2BIG;
	io = (struct iovec){ b.data, b.len };
	h.msg_iov = &io;
	h.msg_iovlen = 1;
	if (n_fds > 0) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	return sendmsg(fd, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* One packet into p; 0 at the end, negative errno. */
static ssize_t receive(int fd, char *p, size_t size, int fds[XL_MAX_FDS],
		       size_t *ret_n)
{
	union {
		char bytes[CMSG_SPACE(XL_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec io = { p, size };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1,
			    .msg_control = control.bytes,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&h);

	*ret_n = 0;
	if (n < 0)
		return -errno;
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*ret_n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *ret_n * sizeof(int));
	}
	return n;
}

static struct value *packet_receive(int fd, int fds[XL_MAX_FDS], size_t *ret_n,
				    int *ret_error)
{
	_cleanup_(freep) char *p = xmalloc(XL_MAX_PACKET);
	ssize_t n = receive(fd, p, XL_MAX_PACKET, fds, ret_n);
	struct reader r = reader_of(p, n > 0 ? (size_t)n : 0);
	struct value *v = n > 0 ? value_decode(&r) : NULL;

	*ret_error = n < 0 ? (int)n : n == 0 ? -EPIPE : v ? 0 : -EBADMSG;
	return v;
}

struct value *xl_request_receive(int fd, int fds[XL_MAX_FDS], size_t *ret_n)
{
	int r;
	struct value *v = packet_receive(fd, fds, ret_n, &r);

	if (!v)
		log_error("no request: %s", strerror(-r));
	return v;
}

/* ---- the process ---- */

static void child(int fd, pid_t parent, const char *op, const char *vm)
{
	const char *argv[] = { "xenpool-executor", XL_WORKER_OPTION, op, vm,
			       NULL };
	sigset_t none;

	/* With us go the helpers, and without the executor we go. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd == XL_WORKER_FD)
		fcntl(fd, F_SETFD, 0);
	else
		dup2(fd, XL_WORKER_FD);
	execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
	_exit(127);
}

int xl_process_start(struct xl_process *p, const char *op, const char *vm)
{
	int room = 2 * XL_MAX_PACKET, pair[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	/* Root may pass the system's limit; a configuration is far below. */
	for (int i = 0; i < 2; i++)
		if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &room,
			       sizeof(room)) < 0)
			setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &room,
				   sizeof(room));
	p->pid = fork();
	if (p->pid == 0)
		child(pair[1], parent, op, vm);
	close(pair[1]);
	p->fd = pair[0];
	if (p->pid > 0)
		return 0;
	close(p->fd);
	p->pid = 0;
	return -errno;
}

static void describe(int status, char *how, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(how, size, "signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, size, "exit status %d", WEXITSTATUS(status));
}

static void group_kill(const struct xl_process *p)
{
	/* The group is not there before the child has made it. */
	kill(-p->pid, SIGKILL);
	kill(p->pid, SIGKILL);
}

/* True when it has ended; it is not reaped, so that its number and its group's
 * stay its own. */
static bool has_ended(const struct xl_process *p)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)p->pid, &info,
		      WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid;
}

void xl_process_end(struct xl_process *p, char *how, size_t size)
{
	int64_t until = env_mono_ms() + LINGER_MS;
	int status = 0;

	if (!p->pid)
		return;
	close(p->fd);
	while (!has_ended(p) && env_mono_ms() < until)
		poll(NULL, 0, SLICE_MS);
	group_kill(p);
	waitpid(p->pid, &status, 0);
	describe(status, how, size);
	p->pid = 0;
}

void xl_process_kill(struct xl_process *p)
{
	char how[64];

	if (!p->pid)
		return;
	group_kill(p);
	xl_process_end(p, how, sizeof(how));
}

/* ---- waiting for the result ---- */

struct waiting {
	struct xl_process *p;
	struct xen_call *c;
	const char *op;
	int64_t until;
	xl_news_fn *news; /* may be NULL */
	struct value **ret;
};

static int fail_internal(struct waiting *w, const char *what)
{
	_cleanup_(freep) char *text = xasprintf("%s: %s", w->op, what);

	log_warn("%s of %s: %s", w->op, w->c->vm, what);
	return xen_fail(w->c, "INTERNAL_ERROR", text);
}

static int fail_ended(struct waiting *w)
{
	char how[64], text[128];

	xl_process_end(w->p, how, sizeof(how));
	snprintf(text, sizeof(text), "the worker ended without a result: %s",
		 how);
	return fail_internal(w, text);
}

static int take_done(struct waiting *w, const struct value *v)
{
	const struct value *error = value_get(v, "error");

	if (error && error->kind == VALUE_SET && error->n > 0)
		return xen_fail_value(w->c, value_ref(error));
	if (w->ret)
		*w->ret = value_ref(value_get(v, "result"));
	return 0;
}

/* GO_ON, or the outcome. */
static int take_packet(struct waiting *w)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	const struct value *fraction;
	int fds[XL_MAX_FDS], r;
	size_t n;

	v = packet_receive(w->p->fd, fds, &n, &r);
	while (n > 0)
		close(fds[--n]);
	if (!v)
		return fail_ended(w);
	if (!strcmp(value_get_str(v, "type"), "done"))
		return take_done(w, v);
	fraction = value_get(v, "fraction");
	if (fraction && fraction->kind == VALUE_FLOAT)
		w->c->progress(w->c, fraction->d);
	r = w->news ? w->news(w->c, v) : 0;
	return r < 0 ? r : r == XL_ENOUGH ? 0 : GO_ON;
}

static int wait_turn(struct waiting *w)
{
	struct pollfd f[2] = { { .fd = w->p->fd, .events = POLLIN },
			       { .fd = w->c->abort_fd, .events = POLLIN } };
	int64_t left = w->until - env_mono_ms();

	if (left <= 0)
		return fail_internal(w, "no result in time, given up");
	if (poll(f, 2, (int)MIN(left, (int64_t)60000)) < 0)
		return GO_ON;
	if (f[0].revents)
		return take_packet(w);
	return xen_aborted(w->c) ? xen_fail_aborted(w->c) : GO_ON;
}

int xl_process_wait_news(struct xl_process *p, struct xen_call *c,
			 const char *op, int64_t patience_ms, xl_news_fn *news,
			 struct value **ret)
{
	struct waiting w = { p, c, op, env_mono_ms() + patience_ms, news, ret };
	int r = GO_ON;

	while (r == GO_ON)
		r = wait_turn(&w);
	return r;
}

int xl_process_wait(struct xl_process *p, struct xen_call *c, const char *op,
		    int64_t patience_ms, struct value **ret)
{
	return xl_process_wait_news(p, c, op, patience_ms, NULL, ret);
}

static struct value *addressed(struct value *request, const char *op,
			       const char *vm)
{
	struct value *v = value_struct_new(request->n + 2);

	v->items[0] = value_stringz("op");
	v->items[1] = value_stringz(op);
	v->items[2] = value_stringz("vm");
	v->items[3] = value_stringz(vm);
	for (uint32_t i = 0; i < 2 * request->n; i++)
		v->items[4 + i] = value_ref(request->items[i]);
	value_unref(request);
	return v;
}

int xl_run(struct xen_call *c, const char *op, struct value *request,
	   const int *fds, size_t n_fds, int64_t patience_ms,
	   struct value **ret)
{
	struct xl_process p = { 0 };
	char how[64];
	int r = xl_process_start(&p, op, c->vm);

	if (r < 0) {
		value_unref(request);
		return r;
	}
	r = xl_process_send(p.fd, addressed(request, op, c->vm), fds, n_fds);
	/* A worker that is gone already: its end says more than EPIPE. */
	if (r == 0 || r == -EPIPE)
		r = xl_process_wait(&p, c, op, patience_ms, ret);
	if (r != 0)
		xl_process_kill(&p);
	else
		xl_process_end(&p, how, sizeof(how));
	return r;
}
