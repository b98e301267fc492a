/* Consoles of the real Xen: a process asks libxl where a domain's console is,
 * the executor opens it. Text is on a pty that xenconsoled holds (xenstore:
 * console/tty); a guest with a device model has that one's VNC server on a Unix
 * socket in a folder that only root enters. The host's own console is a login
 * on a new pty.
 */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xl.h"

#define ASK_MS 8000
#define LOGIN "/bin/login"

static void no_progress(struct xen_call *c, double fraction)
{
}

/* The worker's answer: {domid, tty, vnc}. */
static int ask(const char *vm, struct value **ret)
{
	struct xen_call c = { .vm = vm, .abort_fd = -1,
			      .progress = no_progress };
	int r = xl_run(&c, "console", value_struct_new(0), NULL, 0, ASK_MS,
		       ret);

	if (r == XEN_FAILED)
		r = c.error && value_is_str(c.error->items[0],
					    "VM_BAD_POWER_STATE") ?
			    -ENOENT : -EIO;
	value_unref(c.error);
	return r;
}

static void make_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0)
		return;
	cfmakeraw(&t);
	tcsetattr(fd, TCSANOW, &t);
}

/* The path came from xenstore, where guests have no say of this node; that it
 * is a terminal is checked all the same. */
static int open_tty(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK |
			    O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	if (!isatty(fd)) {
		close(fd);
		return -ENOTTY;
	}
	make_raw(fd);
	return fd;
}

static int open_vnc(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* A login ends with its pty: whoever shows it holds the other side. Its remains
 * are taken up when the next one is wanted. */
static int open_login(void)
{
	static pid_t last;
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	sigset_t none;
	pid_t pid;
	int fd;

	if (last > 0)
		waitpid(last, NULL, WNOHANG);
	pid = forkpty(&fd, NULL, NULL, &size);
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		last = pid;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		return fd;
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	close_range(3, ~0u, 0);
	execle(LOGIN, "login", (char *)NULL,
	       (char *const[]){ (char *)"TERM=vt100", NULL });
	_exit(127);
}

static int open_domain(const struct value *where, int64_t served,
		       struct xen_console *ret)
{
	const char *vnc = value_get_str(where, "vnc");
	const char *tty = value_get_str(where, "tty");

	ret->domid = (uint32_t)value_get_int(where, "domid", 0);
	snprintf(ret->title, sizeof(ret->title), "domain %u", ret->domid);
	if (*vnc) {
		ret->kind = XEN_CONSOLE_RFB;
		ret->fd = open_vnc(vnc);
		return MIN(ret->fd, 0);
	}
	if (served == ret->domid)
		return 0;
	if (*tty != '/')
		return -ENOENT;
	ret->fd = open_tty(tty);
	return MIN(ret->fd, 0);
}

int xl_console_open(struct xen *xen, const char *vm, int64_t served,
		    struct xen_console *ret)
{
	_cleanup_(value_unrefp) struct value *where = NULL;
	int r;

	*ret = (struct xen_console){ .kind = XEN_CONSOLE_TEXT, .fd = -1 };
	if (!*vm) {
		snprintf(ret->title, sizeof(ret->title), "host");
		if (served == 0)
			return 0;
		ret->fd = open_login();
		return MIN(ret->fd, 0);
	}
	r = ask(vm, &where);
	return r < 0 ? r : open_domain(where, served, ret);
}
