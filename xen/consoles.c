#include "xen/consoles.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"

/* One `console` on its way through. */
struct request {
	struct list link;
	char vm[UUID_LEN + 1]; /* "": the host's */
	bool raw;
	struct value *id, *reply;
	int fd;
};

/* A text console and the process that shows it. */
struct server {
	struct list link;
	char vm[UUID_LEN + 1];
	uint32_t domid;
	bool raw;
	pid_t pid;
	char name[64]; /* of its socket, in the folder */
};

#define LOOK_EVERY_S 1 /* for processes that have ended */

struct consoles {
	struct consoles_config cfg;
	char *dir, *empty;
	int dir_fd;
	struct list servers; /* the thread's own */
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t work;
	/* Under the lock. */
	struct list asked, answered;
	size_t n;
	bool stop;
};

static void request_free(struct request *r)
{
	value_unref(r->id);
	value_unref(r->reply);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

static struct request *first_of(struct list *l)
{
	return list_entry(l->next, struct request, link);
}

/* ---- the thread ---- */

static struct value *error_of(const char *vm, int r)
{
	if (r == -ENOENT)
		return api_error("VM_BAD_POWER_STATE", vm, "running", "halted",
				 NULL);
	if (r == -EOPNOTSUPP)
		return api_error("NOT_IMPLEMENTED", "console", NULL);
	return api_error("INTERNAL_ERROR", strerror(-r), NULL);
}

/* ---- processes ---- */

static void server_drop(struct consoles *c, struct server *s)
{
	unlinkat(c->dir_fd, s->name, 0);
	list_remove(&s->link);
	free(s);
}

static void server_kill(struct consoles *c, struct server *s)
{
	kill(s->pid, SIGKILL);
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	server_drop(c, s);
}

static void servers_reap(struct consoles *c)
{
	list_for_each_safe(it, &c->servers) {
		struct server *s = list_entry(it, struct server, link);
		int status;

		if (waitpid(s->pid, &status, WNOHANG) != s->pid)
			continue;
		if (WIFSIGNALED(status))
			log_warn("console of domain %u: its process was "
				 "killed by signal %d", s->domid,
				 WTERMSIG(status));
		else if (WEXITSTATUS(status) != 0)
			log_warn("console of domain %u: %s failed", s->domid,
				 c->cfg.vncterm);
		server_drop(c, s);
	}
}

static struct server *server_find(struct consoles *c, const char *vm)
{
	list_for_each(it, &c->servers) {
		struct server *s = list_entry(it, struct server, link);

		if (!strcmp(s->vm, vm))
			return s;
	}
	return NULL;
}

/* By the folder's descriptor: its path may be longer than an address takes. */
static void address_of(const struct consoles *c, const struct server *s,
		       struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s",
		 c->dir_fd, s->name);
}

static int server_listen(const struct consoles *c, const struct server *s)
{
	struct sockaddr_un sun;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	address_of(c, s, &sun);
	unlinkat(c->dir_fd, s->name, 0);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    listen(fd, 16) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int server_connect(const struct consoles *c, const struct server *s)
{
	struct sockaddr_un sun;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	address_of(c, s, &sun);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

#define TTY_FD "3"
#define LISTEN_FD "4"

/* In the child of a process with threads: nothing that takes a lock. The
 * descriptors are moved out of each other's way first. */
_noreturn_ static void become(char *const argv[], int tty, int listener)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	tty = fcntl(tty, F_DUPFD, 16);
	listener = fcntl(listener, F_DUPFD, 16);
	if (dup2(tty, 3) >= 0 && dup2(listener, 4) >= 0 &&
	    close_range(5, ~0u, 0) == 0)
		execv(argv[0], argv);
	_exit(127);
}

static int server_spawn(struct consoles *c, struct server *s,
			const char *title, int tty, int listener)
{
	const char *argv[] = {
		c->cfg.vncterm, "--tty-fd", TTY_FD, "--listen-fd", LISTEN_FD,
		"--title", title, "--root", c->empty,
		"--user", c->cfg.console_user, s->raw ? "--raw" : NULL, NULL,
	};

	s->pid = fork();
	if (s->pid == 0)
		become((char *const *)argv, tty, listener);
	return s->pid < 0 ? -errno : 0;
}

/* Takes con->fd. */
static int server_new(struct consoles *c, const char *vm, bool raw,
		      const struct xen_console *con, struct server **ret)
{
	struct server *s = xcalloc(1, sizeof(*s));
	int listener, r;

	snprintf(s->vm, sizeof(s->vm), "%s", vm);
	s->domid = con->domid;
	s->raw = raw;
	snprintf(s->name, sizeof(s->name), "%s", *vm ? vm : "host");
	listener = server_listen(c, s);
	r = MIN(listener, 0);
	if (r == 0) {
		r = server_spawn(c, s, con->title, con->fd, listener);
		close(listener);
	}
	close(con->fd);
	if (r < 0) {
		free(s);
		return r;
	}
	list_init(&s->link);
	list_push(&c->servers, &s->link);
	*ret = s;
	return 0;
}

/* A stream to the console. */
static int open_console(struct consoles *c, const struct request *q)
{
	struct xen_console con = { .fd = -1 };
	struct server *s;
	int r;

	servers_reap(c);
	s = server_find(c, q->vm);
	if (s && s->raw != q->raw) {
		server_kill(c, s);
		s = NULL;
	}
	if (!c->cfg.ops->console)
		return -EOPNOTSUPP;
	r = c->cfg.ops->console(c->cfg.xen, q->vm,
				 s ? (int64_t)s->domid : -1, &con);
	if (r < 0 || con.kind == XEN_CONSOLE_RFB)
		return r < 0 ? r : con.fd;
	if (con.fd >= 0) {
		if (s)
			server_kill(c, s);
		r = server_new(c, q->vm, q->raw, &con, &s);
	}
	return r < 0 ? r : server_connect(c, s);
}

static void serve(struct consoles *c, struct request *q)
{
	int r;

	q->fd = open_console(c, q);
	r = MIN(q->fd, 0);
	if (r < 0)
		log_warn("console of %s: %s", *q->vm ? q->vm : "the host",
			 strerror(-r));
	q->reply = value_struct_of("type", value_stringz("console"),
				   "id", value_ref(q->id),
				   "ok", value_bool(r == 0),
				   "error", r ? error_of(q->vm, r) :
						value_set_new(0), NULL);
}

static void *run(void *data)
{
	struct consoles *c = data;

	log_set_thread("consoles");
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		struct request *q;

		if (list_empty(&c->asked)) {
			struct timespec at;

			servers_reap(c);
			clock_gettime(CLOCK_REALTIME, &at);
			at.tv_sec += LOOK_EVERY_S;
			if (list_empty(&c->servers))
				pthread_cond_wait(&c->work, &c->lock);
			else
				pthread_cond_timedwait(&c->work, &c->lock, &at);
			continue;
		}
		q = first_of(&c->asked);
		list_remove(&q->link);
		pthread_mutex_unlock(&c->lock);
		serve(c, q);
		pthread_mutex_lock(&c->lock);
		list_push(&c->answered, &q->link);
		c->cfg.wake(c->cfg.data);
	}
	pthread_mutex_unlock(&c->lock);
	/* Here, because they were started here: with the thread that started
	 * them they would end anyway. */
	list_for_each_safe(it, &c->servers)
		server_kill(c, list_entry(it, struct server, link));
	return NULL;
}

/* ---- the executor's side ---- */

static int make_dir(const char *path, mode_t mode)
{
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

static int open_folders(struct consoles *c)
{
	int r;

	c->dir = xasprintf("%s/console", c->cfg.state_dir);
	c->empty = xasprintf("%s/empty", c->dir);
	r = make_dir(c->dir, 0700);
	if (r == 0)
		r = make_dir(c->empty, 0555);
	if (r < 0)
		return r;
	c->dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return c->dir_fd < 0 ? -errno : 0;
}

int consoles_start(const struct consoles_config *cfg, struct consoles **ret)
{
	struct consoles *c = xcalloc(1, sizeof(*c));
	int r;

	c->cfg = *cfg;
	c->dir_fd = -1;
	list_init(&c->servers);
	list_init(&c->asked);
	list_init(&c->answered);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	r = open_folders(c);
	if (r == 0)
		r = -pthread_create(&c->thread, NULL, run, c);
	c->started = r == 0;
	if (r < 0)
		consoles_stop(c);
	else
		*ret = c;
	return r;
}

static void list_drop(struct consoles *c, struct list *l)
{
	list_for_each_safe(it, l) {
		list_remove(it);
		request_free(list_entry(it, struct request, link));
		c->n--;
	}
}

void consoles_stop(struct consoles *c)
{
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
	if (c->started)
		pthread_join(c->thread, NULL);
	list_drop(c, &c->asked);
	list_drop(c, &c->answered);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->work);
	if (c->dir_fd >= 0)
		close(c->dir_fd);
	free(c->dir);
	free(c->empty);
	free(c);
}

static struct request *request_new(const struct value *msg)
{
	const char *vm = value_get_str(msg, "vm");
	struct request *q = xcalloc(1, sizeof(*q));

	q->fd = -1;
	q->id = value_ref(value_get(msg, "id"));
	q->raw = value_get(msg, "raw")->i;
	list_init(&q->link);
	if (*vm && !domain_uuid(vm, q->vm))
		q->reply = value_struct_of(
			"type", value_stringz("console"), "id",
			value_ref(q->id), "ok", value_bool(false), "error",
			api_error("INVALID_VALUE", "vm", vm, NULL), NULL);
	return q;
}

void consoles_open(struct consoles *c, const struct value *msg)
{
	struct request *q;

	pthread_mutex_lock(&c->lock);
	if (c->n >= CONSOLES_MAX_PENDING) {
		/* The daemon gives up by itself. */
		log_warn("too many consoles are asked for at a time");
	} else {
		c->n++;
		q = request_new(msg);
		list_push(q->reply ? &c->answered : &c->asked, &q->link);
		pthread_cond_signal(&c->work);
	}
	pthread_mutex_unlock(&c->lock);
}

const struct value *consoles_next(struct consoles *c, int *ret_fd)
{
	const struct value *v = NULL;

	pthread_mutex_lock(&c->lock);
	if (!list_empty(&c->answered)) {
		v = first_of(&c->answered)->reply;
		*ret_fd = first_of(&c->answered)->fd;
	}
	pthread_mutex_unlock(&c->lock);
	return v;
}

void consoles_told(struct consoles *c)
{
	struct request *q;

	pthread_mutex_lock(&c->lock);
	q = first_of(&c->answered);
	list_remove(&q->link);
	c->n--;
	pthread_mutex_unlock(&c->lock);
	request_free(q);
}

void consoles_forget(struct consoles *c)
{
	pthread_mutex_lock(&c->lock);
	list_drop(c, &c->asked);
	list_drop(c, &c->answered);
	pthread_mutex_unlock(&c->lock);
}
