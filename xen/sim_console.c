/* The consoles of simulated guests and of the simulated host: a text screen with
 * a clock that counts the guest's own time in its first line, and a shell of a
 * few commands below. What is typed is echoed.
 *
 * A thread plays them all. A guest has a little room for what it writes; when
 * that is full it waits, as a real one does for its terminal: nothing is lost,
 * and it reads no more until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim.h"

#define MAX_SCREENS 256
#define CLOCK_MS 250
#define ROOM 8192 /* that a guest may write ahead */
#define LINE 120  /* that may be typed */

struct screen {
	int fd;
	char vm[UUID_LEN + 1]; /* "": the host's */
	uint32_t domid;
	char name[64];
	struct buf out;
	char line[LINE + 1];
	size_t n;
	int64_t shown; /* second that the clock shows; -1: none yet */
	unsigned long flood; /* lines written; 0: it is quiet */
	/* What a look at the domain found. */
	int64_t ticks;
	bool alive, running;
};

struct sim_consoles {
	struct sim *s;
	pthread_t thread;
	int wake_fd;
	bool started;
	pthread_mutex_t lock; /* for what follows; taken before the sim's */
	bool stop;
	struct screen *screens[MAX_SCREENS];
	size_t n;
};

/* ---- what a screen says ---- */

static void say(struct screen *c, const char *text)
{
	buf_puts(&c->out, text);
}

static void prompt(struct screen *c)
{
	buf_printf(&c->out, "\r\n\033[1;32m%s\033[0m# ", c->name);
}

/* The first line, from which the rest of the screen is kept off. */
static void show_clock(struct screen *c)
{
	int64_t sec = c->ticks / 1000;

	c->shown = sec;
	buf_printf(&c->out,
		   "\0337\033[1;1H\033[7m %-28.28s domain %-5u up "
		   "%02d:%02d:%02d  (%lld ticks)\033[K\033[0m\0338",
		   c->name, c->domid, (int)(sec / 3600 % 100),
		   (int)(sec / 60 % 60), (int)(sec % 60),
		   (long long)c->ticks);
}

static void greet(struct screen *c)
{
	say(c, "\033c\033[2J\033[2;24r");
	show_clock(c);
	say(c, "\033[3;1HThis is a simulated console: type help.\r\n");
	prompt(c);
}

/* ---- commands ---- */

static void do_help(struct screen *c, const char *args)
{
	say(c, "help  echo TEXT  uptime  colours  clear  flood");
}

static void do_echo(struct screen *c, const char *args)
{
	say(c, args);
}

static void do_uptime(struct screen *c, const char *args)
{
	buf_printf(&c->out, "up %lld ms", (long long)c->ticks);
}

static void do_colours(struct screen *c, const char *args)
{
	for (int i = 0; i < 8; i++)
		buf_printf(&c->out, "\033[%dm colour %d \033[0m", 40 + i, i);
}

static void do_clear(struct screen *c, const char *args)
{
	say(c, "\033[2J\033[2;1H");
	show_clock(c);
}

static void do_flood(struct screen *c, const char *args)
{
	c->flood = 1;
}

static const struct {
	const char *name;
	void (*fn)(struct screen *c, const char *args);
} commands[] = {
	{ "help", do_help },       { "echo", do_echo },
	{ "uptime", do_uptime },   { "colours", do_colours },
	{ "clear", do_clear },     { "flood", do_flood },
};

static void run_line(struct screen *c)
{
	size_t name = strcspn(c->line, " ");
	const char *args = c->line + name + (c->line[name] == ' ');
	bool known = c->n == 0;

	if (c->n > 0)
		say(c, "\r\n");
	for (size_t i = 0; i < ARRAY_LEN(commands) && c->n > 0; i++) {
		if (!str_equal_n(commands[i].name, c->line, name))
			continue;
		known = true;
		commands[i].fn(c, args);
	}
	if (!known)
		buf_printf(&c->out, "%.*s: not found", (int)name, c->line);
	c->n = 0;
	c->line[0] = '\0';
	if (c->flood == 0)
		prompt(c);
}

static void type_char(struct screen *c, char ch)
{
	if (c->flood > 0) {
		c->flood = 0;
		prompt(c);
	} else if (ch == '\r' || ch == '\n') {
		run_line(c);
	} else if ((ch == '\b' || ch == 0x7f) && c->n > 0) {
		c->line[--c->n] = '\0';
		say(c, "\b \b");
	} else if ((unsigned char)ch >= 0x20 && ch != 0x7f && c->n < LINE) {
		c->line[c->n++] = ch;
		c->line[c->n] = '\0';
		buf_putc(&c->out, ch);
	}
}

/* ---- one screen's turn ---- */

static void look_at_domain(struct sim *s, struct screen *c)
{
	struct sim_domain *d;

	pthread_mutex_lock(&s->lock);
	d = *c->vm ? sim_find(s, c->vm) : NULL;
	c->alive = !*c->vm || (d && d->domid == c->domid);
	c->running = !*c->vm || (d && d->state == SIM_RUNNING);
	c->ticks = d ? sim_ticks(d) : sim_now();
	pthread_mutex_unlock(&s->lock);
}

static void write_out(struct screen *c)
{
	ssize_t n;

	if (c->out.len == 0)
		return;
	n = send(c->fd, c->out.data, c->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		buf_consume(&c->out, (size_t)n);
	else if (errno != EAGAIN && errno != EINTR)
		c->alive = false;
}

static void read_in(struct screen *c)
{
	char typed[64];
	ssize_t n = recv(c->fd, typed, sizeof(typed), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		c->alive = false;
	for (ssize_t i = 0; i < n; i++)
		type_char(c, typed[i]);
}

static void take_turn(struct sim *s, struct screen *c, short revents)
{
	look_at_domain(s, c);
	if (revents & (POLLIN | POLLHUP | POLLERR))
		read_in(c);
	if (!c->running || !c->alive)
		return;
	while (c->flood > 0 && c->out.len < ROOM)
		buf_printf(&c->out, "line %lu of a guest that cannot stop\r\n",
			   c->flood++);
	if (c->ticks / 1000 != c->shown && c->out.len < ROOM)
		show_clock(c);
	write_out(c);
}

static void screen_free(struct screen *c)
{
	close(c->fd);
	buf_deinit(&c->out);
	free(c);
}

/* ---- the thread ---- */

/* A guest that is paused, or waits to be read, reads nothing itself. */
static short events_of(const struct screen *c)
{
	short events = 0;

	if (!c->running)
		return 0;
	if (c->out.len < ROOM)
		events |= POLLIN;
	if (c->out.len > 0 || c->flood > 0)
		events |= POLLOUT;
	return events;
}

/* Slot 0 wakes. */
static size_t poll_set(struct sim_consoles *cs, struct pollfd *p, int *ret_ms)
{
	size_t n;

	pthread_mutex_lock(&cs->lock);
	n = cs->stop ? SIZE_MAX : cs->n;
	for (size_t i = 0; i < cs->n; i++)
		p[1 + i] = (struct pollfd){ .fd = cs->screens[i]->fd,
					    .events = events_of(cs->screens[i]) };
	pthread_mutex_unlock(&cs->lock);
	p[0] = (struct pollfd){ .fd = cs->wake_fd, .events = POLLIN };
	*ret_ms = n == 0 ? -1 : CLOCK_MS;
	return n;
}

/* Screens beyond n came while we waited: their turn is the next one. */
static void turns(struct sim_consoles *cs, const struct pollfd *p, size_t n)
{
	uint64_t drop;

	if (p[0].revents && read(cs->wake_fd, &drop, sizeof(drop)) < 0)
		xassert(errno == EAGAIN || errno == EINTR);
	pthread_mutex_lock(&cs->lock);
	for (size_t i = n; i-- > 0;) {
		struct screen *c = cs->screens[i];

		take_turn(cs->s, c, p[1 + i].revents);
		if (c->alive)
			continue;
		screen_free(c);
		memmove(&cs->screens[i], &cs->screens[i + 1],
			(--cs->n - i) * sizeof(*cs->screens));
	}
	pthread_mutex_unlock(&cs->lock);
}

static void *run(void *data)
{
	struct sim_consoles *cs = data;
	struct pollfd p[1 + MAX_SCREENS];
	size_t n;
	int ms;

	log_set_thread("sim-console");
	while ((n = poll_set(cs, p, &ms)) != SIZE_MAX) {
		if (poll(p, 1 + n, ms) < 0)
			memset(p, 0, sizeof(p));
		turns(cs, p, n);
	}
	return NULL;
}

static void wake(struct sim_consoles *cs)
{
	uint64_t one = 1;

	if (write(cs->wake_fd, &one, sizeof(one)) < 0)
		xassert(errno == EAGAIN);
}

/* ---- opening ---- */

static int name_domain(struct sim *s, struct screen *c)
{
	struct sim_domain *d;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, c->vm);
	if (!d || d->state == SIM_BUILDING || d->migration == SIM_EXPECTED) {
		r = -ENOENT;
	} else {
		c->domid = d->domid;
		snprintf(c->name, sizeof(c->name), "%.63s", d->name);
		c->running = d->state == SIM_RUNNING;
		c->ticks = sim_ticks(d);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* Only good text may get between the terminal's own sequences. */
static void tame(char *name)
{
	for (; *name; name++)
		if ((unsigned char)*name < 0x20 || *name == 0x7f)
			*name = '?';
}

static int screen_open(struct sim *s, const char *vm, struct screen *c)
{
	snprintf(c->vm, sizeof(c->vm), "%s", vm);
	snprintf(c->name, sizeof(c->name), "host");
	c->ticks = sim_now();
	c->shown = -1;
	c->alive = c->running = true;
	return *vm ? name_domain(s, c) : 0;
}

static int screen_add(struct sim_consoles *cs, struct screen *c)
{
	int r = 0;

	pthread_mutex_lock(&cs->lock);
	if (cs->n == MAX_SCREENS)
		r = -EMFILE;
	else
		cs->screens[cs->n++] = c;
	pthread_mutex_unlock(&cs->lock);
	wake(cs);
	return r;
}

int sim_console_open(struct xen *x, const char *vm, int64_t served,
		     struct xen_console *ret)
{
	struct sim *s = sim_of(x);
	struct screen *c = xcalloc(1, sizeof(*c));
	int fd[2], r = screen_open(s, vm, c);

	*ret = (struct xen_console){ .kind = XEN_CONSOLE_TEXT,
				     .domid = c->domid, .fd = -1 };
	if (r == 0 && c->domid != served &&
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		r = -errno;
	if (r < 0 || c->domid == served) {
		free(c);
		return r;
	}
	tame(c->name);
	greet(c);
	memcpy(ret->title, c->name, sizeof(ret->title));
	ret->fd = fd[0];
	c->fd = fd[1];
	r = screen_add(s->consoles, c);
	if (r < 0) {
		close(fd[0]);
		screen_free(c);
	}
	return r;
}

/* ---- start and stop ---- */

int sim_console_start(struct sim *s)
{
	struct sim_consoles *cs = xcalloc(1, sizeof(*cs));

	cs->s = s;
	pthread_mutex_init(&cs->lock, NULL);
	cs->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->consoles = cs;
	if (cs->wake_fd < 0)
		return -errno;
	cs->started = pthread_create(&cs->thread, NULL, run, cs) == 0;
	return cs->started ? 0 : -EAGAIN;
}

void sim_console_stop(struct sim *s)
{
	struct sim_consoles *cs = TAKE_PTR(s->consoles);

	if (!cs)
		return;
	pthread_mutex_lock(&cs->lock);
	cs->stop = true;
	pthread_mutex_unlock(&cs->lock);
	if (cs->started) {
		wake(cs);
		pthread_join(cs->thread, NULL);
	}
	for (size_t i = 0; i < cs->n; i++)
		screen_free(cs->screens[i]);
	if (cs->wake_fd >= 0)
		close(cs->wake_fd);
	pthread_mutex_destroy(&cs->lock);
	free(cs);
}
