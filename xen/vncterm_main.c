/* xenpool-vncterm: its options, its loop. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "xen/sandbox.h"
#include "xen/vncterm.h"

/* Room for viewers, two pipe ends for each in libvncserver, and our own. */
#define MAX_FILES (16 + 4 * VT_MAX_VIEWERS)
#define MAX_MEMORY (1024ull << 20) /* addresses; threads' stacks take most */

/* A guest that floods its terminal is read at 3 MB/s, no more. */
#define SLICE_MS 20
#define SLICE_BYTES 65536

struct options {
	int64_t tty, listener;
	const char *user, *root, *title, *try;
	bool raw;
};

static const char help_text[] =
	"usage: xenpool-vncterm --tty-fd N --listen-fd N [options]\n"
	"Shows a text console to viewers: as RFB (VNC), or as it is.\n"
	"xenpool-executor starts it.\n"
	"\n"
	"  --tty-fd N       the terminal: a pty or a connected socket\n"
	"  --listen-fd N    a listening Unix socket, for viewers\n"
	"  --raw            viewers get the terminal's own bytes\n"
	"  --title TEXT     name of the screen\n"
	"  --user USER      become this user (when started by root)\n"
	"  --root DIR       be locked into this folder (when started by root)\n"
	"  --log-level LEVEL  error, warn, info (default) or debug\n"
	"  --try open|socket|exec|fork  after start, do something forbidden:\n"
	"                   for tests\n"
	"  --help, --version\n";

/* ---- the loop ---- */

void vt_type(struct vncterm *v, const char *p, size_t n)
{
	uint64_t one = 1;

	pthread_mutex_lock(&v->lock);
	if (v->typed.len + n <= VT_TYPED_MAX)
		buf_append(&v->typed, p, n);
	pthread_mutex_unlock(&v->lock);
	if (write(v->wake, &one, sizeof(one)) < 0)
		xassert(errno == EAGAIN);
}

size_t vt_room(struct vncterm *v)
{
	size_t n;

	pthread_mutex_lock(&v->lock);
	n = VT_TYPED_MAX - v->typed.len;
	pthread_mutex_unlock(&v->lock);
	return n;
}

/* False: the terminal is gone. */
static bool write_typed(struct vncterm *v)
{
	ssize_t n = 0;

	pthread_mutex_lock(&v->lock);
	if (v->typed.len > 0)
		n = write(v->tty, v->typed.data, v->typed.len);
	if (n > 0)
		buf_consume(&v->typed, (size_t)n);
	pthread_mutex_unlock(&v->lock);
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Bytes read; -1: the terminal is gone. */
static ssize_t read_output(struct vncterm *v)
{
	char block[8192];
	ssize_t n = read(v->tty, block, sizeof(block));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (n == 0)
		return -1;
	v->mode->output(v, block, (size_t)n);
	return n;
}

static void accept_viewer(struct vncterm *v)
{
	int fd = accept4(v->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		v->mode->viewer(v, fd);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		poll(NULL, 0, 20);
}

enum { P_TTY, P_LISTEN, P_WAKE, P_VIEWERS };

static size_t poll_set(struct vncterm *v, struct pollfd *p, bool rest)
{
	p[P_TTY] = (struct pollfd){ .fd = v->tty, .events = rest ? 0 : POLLIN };
	if (vt_room(v) < VT_TYPED_MAX)
		p[P_TTY].events |= POLLOUT;
	p[P_LISTEN] = (struct pollfd){ .fd = v->listener, .events = POLLIN };
	p[P_WAKE] = (struct pollfd){ .fd = v->wake, .events = POLLIN };
	return v->mode->fds ? v->mode->fds(v, p + P_VIEWERS) : 0;
}

/* False: the terminal is gone. */
static bool turn(struct vncterm *v, const struct pollfd *p, size_t n,
		 int64_t *left)
{
	uint64_t drop;
	ssize_t got = 0;

	if (p[P_WAKE].revents && read(v->wake, &drop, sizeof(drop)) < 0)
		xassert(errno == EAGAIN || errno == EINTR);
	if (n > 0)
		v->mode->ready(v, p + P_VIEWERS, n);
	if (p[P_LISTEN].revents)
		accept_viewer(v);
	if (p[P_TTY].revents & ~POLLOUT)
		got = read_output(v);
	*left -= MAX(got, (ssize_t)0);
	return got >= 0 && write_typed(v);
}

static void loop(struct vncterm *v)
{
	struct pollfd p[P_VIEWERS + VT_MAX_VIEWERS];
	int64_t left = SLICE_BYTES, next = 0;
	bool goes_on = true;

	while (goes_on) {
		int64_t now = env_mono_ms();
		size_t n;

		if (now >= next) {
			left = SLICE_BYTES;
			next = now + SLICE_MS;
		}
		n = poll_set(v, p, left <= 0);
		if (poll(p, P_VIEWERS + n, left <= 0 ? SLICE_MS : -1) < 0)
			memset(p, 0, sizeof(p));
		/* A hang-up is seen even while we do not want to read. */
		if (left <= 0)
			p[P_TTY].revents = 0;
		goes_on = turn(v, p, n, &left);
	}
}

/* ---- start ---- */

/* Things that the sandbox is there to prevent. */
static void try_forbidden(const char *what)
{
	int r = 0;

	if (!strcmp(what, "open"))
		r = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	else if (!strcmp(what, "socket"))
		r = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	else if (!strcmp(what, "exec"))
		r = execl("/bin/true", "true", (char *)NULL);
	else if (!strcmp(what, "fork"))
		r = fork();
	log_error("%s: %s", what, r < 0 ? strerror(errno) : "it was let do it");
}

static int usage(const char *what)
{
	fprintf(stderr, "xenpool-vncterm: %s (see --help)\n", what);
	return 2;
}

static bool fd_given(int64_t fd)
{
	return fd >= 0 && fd < 1024 && fcntl((int)fd, F_GETFD) >= 0;
}

static int start(const struct options *o)
{
	static struct vncterm v;
	struct sandbox box = {
		.root = o->root, .user = o->user,
		.memory = MAX_MEMORY, .files = MAX_FILES,
	};
	int r;

	v.tty = (int)o->tty;
	v.listener = (int)o->listener;
	v.mode = o->raw ? &vt_raw : &vt_rfb;
	v.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&v.lock, NULL);
	snprintf(v.title, sizeof(v.title), "%s", o->title);
	fcntl(v.tty, F_SETFL, fcntl(v.tty, F_GETFL) | O_NONBLOCK);
	fcntl(v.listener, F_SETFL, fcntl(v.listener, F_GETFL) | O_NONBLOCK);
	signal(SIGPIPE, SIG_IGN);
	r = v.mode->init(&v);
	if (r < 0 || sandbox_enter(&box) < 0)
		return 1;
	log_info("serves %s", v.title);
	if (o->try)
		try_forbidden(o->try);
	loop(&v);
	log_info("the terminal of %s is gone", v.title);
	return 0;
}

enum {
	OPT_TTY_FD, OPT_LISTEN_FD, OPT_RAW, OPT_TITLE, OPT_USER, OPT_ROOT,
	OPT_LOG_LEVEL, OPT_TRY, OPT_HELP, OPT_VERSION,
};

static const struct option known[] = {
	[OPT_TTY_FD] = { "tty-fd", required_argument, NULL, 0 },
	[OPT_LISTEN_FD] = { "listen-fd", required_argument, NULL, 0 },
	[OPT_RAW] = { "raw", no_argument, NULL, 0 },
	[OPT_TITLE] = { "title", required_argument, NULL, 0 },
	[OPT_USER] = { "user", required_argument, NULL, 0 },
	[OPT_ROOT] = { "root", required_argument, NULL, 0 },
	[OPT_LOG_LEVEL] = { "log-level", required_argument, NULL, 0 },
	[OPT_TRY] = { "try", required_argument, NULL, 0 },
	[OPT_HELP] = { "help", no_argument, NULL, 0 },
	[OPT_VERSION] = { "version", no_argument, NULL, 0 },
	{ NULL, 0, NULL, 0 },
};

static bool set(struct options *o, int which, const char *arg)
{
	enum log_level level;

	switch (which) {
	case OPT_TTY_FD:
		return int_parse(arg, strlen(arg), &o->tty);
	case OPT_LISTEN_FD:
		return int_parse(arg, strlen(arg), &o->listener);
	case OPT_RAW:
		o->raw = true;
		return true;
	case OPT_TITLE:
		o->title = arg;
		return true;
	case OPT_USER:
		o->user = arg;
		return true;
	case OPT_ROOT:
		o->root = arg;
		return *arg == '/';
	case OPT_TRY:
		o->try = arg;
		return true;
	default:
		if (!log_level_parse(arg, &level))
			return false;
		log_set_level(level);
		return true;
	}
}

int main(int argc, char **argv)
{
	struct options o = { .tty = -1, .listener = -1, .title = "console" };
	int i = 0, c;

	while ((c = getopt_long(argc, argv, "", known, &i)) >= 0) {
		if (c != 0)
			return 2; /* getopt has said why */
		if (i == OPT_HELP || i == OPT_VERSION) {
			fputs(i == OPT_HELP ? help_text : "xenpool-vncterm "
			      PACKAGE_VERSION "\n", stdout);
			return 0;
		}
		if (!set(&o, i, optarg))
			return usage(known[i].name);
	}
	if (optind < argc || !fd_given(o.tty) || !fd_given(o.listener))
		return usage("--tty-fd and --listen-fd have to be open");
	log_set_thread("vncterm");
	return start(&o);
}
