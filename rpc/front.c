/* The threads of the front end, their listeners, and the two ways between them
 * and the core: calls go into one queue that the core's loop empties, outcomes
 * into one queue a front thread. A call is in exactly one place: in the queue,
 * with the core, in the thread's `done` list, or with its connection.
 *
 * Every thread has its own listening socket of each address (SO_REUSEPORT: the
 * kernel spreads the connections); the Unix socket is the first thread's.
 */
#include "rpc/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "rpc/xmlrpc.h"

#define BACKLOG 128
#define TICK_MS 500
#define STOP_TICK_MS 20
#define STOP_MS 1000
#define MAX_THREADS 8

/* The way to the core and back. A wake-up costs more than most calls, so calls and
 * outcomes gather until the loop that has them is about to wait, or there are
 * enough of them that the other side should begin. */

#define GATHER 8

static void flush_submitted(struct front_thread *t)
{
	struct front *f = t->front;

	if (t->n_submitted == 0)
		return;
	t->n_submitted = 0;
	pthread_mutex_lock(&f->lock);
	list_splice(&f->queue, &t->submitted);
	pthread_mutex_unlock(&f->lock);
	uv_async_send(&f->to_core);
}

static void on_thread_prepare(uv_prepare_t *h)
{
	flush_submitted(h->data);
}

void front_submit(struct conn *c)
{
	struct front_thread *t = c->thread;

	list_push(&t->submitted, &c->queue);
	if (++t->n_submitted >= GATHER)
		flush_submitted(t);
}

static void wake_thread(struct front_thread *t)
{
	if (t->n_due == 0)
		return;
	t->n_due = 0;
	uv_async_send(&t->wake);
}

void front_flush(struct front *f)
{
	for (unsigned i = 0; i < f->n_threads && !f->stopped; i++)
		wake_thread(&f->threads[i]);
}

static void on_core_prepare(uv_prepare_t *h)
{
	front_flush(h->data);
}

static char *copy_string(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void free_config(struct front_config *cfg)
{
	free((char *)cfg->address);
	free((char *)cfg->http_address);
	free((char *)cfg->unix_path);
	free((char *)cfg->cert_file);
	free((char *)cfg->key_file);
	free((char *)cfg->www_dir);
}

static void free_thread(struct front_thread *t)
{
	for (int i = 0; i < LISTEN_MAX; i++)
		if (t->listeners[i].fd >= 0)
			close(t->listeners[i].fd);
	pthread_mutex_destroy(&t->lock);
}

static void free_front(struct front *f)
{
	for (unsigned i = 0; i < f->n_threads; i++)
		free_thread(&f->threads[i]);
	free(f->threads);
	SSL_CTX_free(f->tls);
	pthread_mutex_destroy(&f->lock);
	free_config(&f->cfg);
	free(f);
}

/* Calls that the core still works on when the front end stops keep it. */
static void free_if_unused(struct front *f)
{
	if (f->stopped && f->n_open == 0 && f->calls == 0)
		free_front(f);
}

/* On the core thread. */
static void on_done(struct call *call)
{
	struct conn *c = call->owner;
	struct front_thread *t = c->thread;
	struct front *f = t->front;

	f->calls--;
	if (f->stopped) {
		conn_free(c);
		free_if_unused(f);
		return;
	}
	failpoint("answer.queued");
	pthread_mutex_lock(&t->lock);
	list_push(&t->done, &c->queue);
	pthread_mutex_unlock(&t->lock);
	if (++t->n_due >= GATHER)
		wake_thread(t);
}

static struct conn *pop(struct list *l)
{
	struct list *first = l->next;

	list_remove(first);
	return list_entry(first, struct conn, queue);
}

/* On the core thread. */
static void on_calls(uv_async_t *a)
{
	struct front *f = a->data;
	struct list calls;

	list_init(&calls);
	pthread_mutex_lock(&f->lock);
	list_splice(&calls, &f->queue);
	pthread_mutex_unlock(&f->lock);
	while (!list_empty(&calls)) {
		struct conn *c = pop(&calls);

		f->calls++;
		c->call->owner = c;
		c->call->done = on_done;
		f->fn(f->data, c->call);
	}
}

/* One thread. */

static void answer_all(struct front_thread *t)
{
	struct list done;

	list_init(&done);
	pthread_mutex_lock(&t->lock);
	list_splice(&done, &t->done);
	pthread_mutex_unlock(&t->lock);
	while (!list_empty(&done))
		conn_answered(pop(&done));
}

static void on_tick(uv_timer_t *timer)
{
	struct front_thread *t = timer->data;
	uint64_t now = uv_now(&t->loop);

	list_for_each_safe(it, &t->conns) {
		struct conn *c = list_entry(it, struct conn, link);

		if (t->stop_at > 0 && now >= t->stop_at)
			conn_stop(c, true);
		else
			conn_tick(c, now);
	}
	if (!list_empty(&t->conns))
		return;
	uv_timer_stop(timer);
	if (t->stop_at > 0) {
		uv_close((uv_handle_t *)timer, NULL);
		uv_close((uv_handle_t *)&t->wake, NULL);
		uv_close((uv_handle_t *)&t->before_wait, NULL);
	}
}

static void begin_stop(struct front_thread *t)
{
	t->stop_at = uv_now(&t->loop) + STOP_MS;
	for (int i = 0; i < LISTEN_MAX; i++)
		if (t->listeners[i].h.handle.data)
			uv_close(&t->listeners[i].h.handle, NULL);
	list_for_each_safe(it, &t->conns)
		conn_stop(list_entry(it, struct conn, link), false);
	uv_timer_start(&t->tick, on_tick, 0, STOP_TICK_MS);
}

static void on_wake(uv_async_t *a)
{
	struct front_thread *t = a->data;
	bool stop;

	answer_all(t);
	pthread_mutex_lock(&t->lock);
	stop = t->stop;
	pthread_mutex_unlock(&t->lock);
	if (stop && t->stop_at == 0)
		begin_stop(t);
}

static void on_connection(uv_stream_t *s, int status)
{
	struct listener *l = container_of(s, struct listener, h.stream);
	struct front_thread *t = l->thread;

	if (status < 0) {
		log_warn("accept: %s", uv_strerror(status));
		return;
	}
	if (!uv_is_active((uv_handle_t *)&t->tick))
		uv_timer_start(&t->tick, on_tick, TICK_MS, TICK_MS);
	conn_accept(l);
}

static void run_thread(void *data)
{
	struct front_thread *t = data;

	log_set_thread(t->name);
	uv_run(&t->loop, UV_RUN_DEFAULT);
	xassert(uv_loop_close(&t->loop) == 0);
}

/* Gives the listening socket to the thread's loop. */
static void start_listener(struct front_thread *t, struct listener *l)
{
	int fd = l->fd, r;

	if (fd < 0)
		return;
	l->fd = -1;
	if (l->kind == LISTEN_UNIX) {
		uv_pipe_init(&t->loop, &l->h.pipe, 0);
		r = uv_pipe_open(&l->h.pipe, fd);
	} else {
		uv_tcp_init(&t->loop, &l->h.tcp);
		r = uv_tcp_open(&l->h.tcp, fd);
	}
	xassert(r == 0);
	l->h.handle.data = l;
	xassert(uv_listen(&l->h.stream, BACKLOG, on_connection) == 0);
}

/* Threads take no signals: these are the core's, and a closed socket's SIGPIPE
 * stays pending instead of ending the process. */
static void start_thread(struct front_thread *t)
{
	sigset_t all, old;

	xassert(uv_loop_init(&t->loop) == 0);
	xassert(uv_async_init(&t->loop, &t->wake, on_wake) == 0);
	uv_timer_init(&t->loop, &t->tick);
	uv_prepare_init(&t->loop, &t->before_wait);
	t->wake.data = t->tick.data = t->before_wait.data = t;
	uv_prepare_start(&t->before_wait, on_thread_prepare);
	for (int i = 0; i < LISTEN_MAX; i++)
		start_listener(t, &t->listeners[i]);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	xassert(uv_thread_create(&t->id, run_thread, t) == 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Sockets. */

static int parse_address(const char *address, unsigned port,
			 struct sockaddr_storage *sa, socklen_t *ret_len)
{
	if (port > 65535)
		return -EINVAL;
	if (uv_ip4_addr(address, (int)port, (struct sockaddr_in *)sa) == 0)
		*ret_len = sizeof(struct sockaddr_in);
	else if (uv_ip6_addr(address, (int)port,
			     (struct sockaddr_in6 *)sa) == 0)
		*ret_len = sizeof(struct sockaddr_in6);
	else
		return -EINVAL;
	return 0;
}

static int bind_tcp(const char *address, unsigned port, bool shared)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = 0;
	int fd, one = 1, r = parse_address(address, port, &sa, &n);

	if (r < 0)
		return r;
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if ((shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one,
				  sizeof(one)) < 0) ||
	    bind(fd, (struct sockaddr *)&sa, n) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* Would bind() share the port with another process of ours, a second daemon?
 * A socket that does not share tells. */
int front_check_port(const char *address, unsigned port)
{
	int fd, r = 0;

	if (port == 0)
		return 0;
	fd = bind_tcp(address, port, false);
	if (fd < 0)
		return fd;
	if (listen(fd, 1) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int listen_tcp(struct front *f, enum listener_kind kind,
		      const char *address, unsigned port)
{
	int r;

	if (port == 0)
		return 0;
	r = front_check_port(address, port);
	for (unsigned i = 0; i < f->n_threads && r >= 0; i++) {
		r = bind_tcp(address, port, true);
		if (r < 0)
			break;
		f->threads[i].listeners[kind].fd = r;
		if (listen(r, BACKLOG) < 0)
			r = -errno;
	}
	if (r < 0)
		log_error("listening on %s port %u: %s", address, port,
			  strerror(-r));
	return MIN(r, 0);
}

/* A socket file that nobody listens on is left over from an earlier run. */
static int remove_stale(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool alive;

	if (fd < 0)
		return -errno;
	alive = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0;
	close(fd);
	if (alive)
		return -EADDRINUSE;
	if (unlink(sa->sun_path) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

static int bind_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, strlen(path) + 1);
	r = remove_stale(&sa);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int listen_unix(struct front *f)
{
	const char *path = f->cfg.unix_path;
	int fd;

	if (!path)
		return 0;
	fd = bind_unix(path);
	if (fd < 0) {
		log_error("listening on %s: %s", path, strerror(-fd));
		return fd;
	}
	f->threads[0].listeners[LISTEN_UNIX].fd = fd;
	return 0;
}

static int open_listeners(struct front *f)
{
	const struct front_config *cfg = &f->cfg;
	int r = 0;

	if (cfg->https_port > 0) {
		r = tls_server_context(cfg->cert_file, cfg->key_file, &f->tls);
		if (r == 0)
			r = listen_tcp(f, LISTEN_HTTPS, cfg->address,
				       cfg->https_port);
	}
	if (r == 0)
		r = listen_tcp(f, LISTEN_HTTP, cfg->http_address,
			       cfg->http_port);
	return r < 0 ? r : listen_unix(f);
}

/* Start and stop. */

static void or_default(unsigned *v, unsigned otherwise)
{
	if (*v == 0)
		*v = otherwise;
}

/* The core needs a processor of its own, and so do the other processes; threads
 * beyond that take turns with it, and each of them gathers fewer calls. */
static unsigned threads_for(unsigned processors)
{
	return MAX(processors / 2, 1u);
}

static void copy_config(struct front_config *to, const struct front_config *cfg)
{
	const char *http = cfg->http_address ? cfg->http_address : cfg->address;

	*to = *cfg;
	to->address = copy_string(cfg->address);
	to->http_address = copy_string(http);
	to->unix_path = copy_string(cfg->unix_path);
	to->cert_file = copy_string(cfg->cert_file);
	to->key_file = copy_string(cfg->key_file);
	to->www_dir = copy_string(cfg->www_dir);
	or_default(&to->n_threads, threads_for(uv_available_parallelism()));
	to->n_threads = MIN(to->n_threads, (unsigned)MAX_THREADS);
	or_default(&to->max_connections, 800);
	or_default(&to->max_streams, 256);
	or_default(&to->max_header_bytes, 16384);
	or_default(&to->max_body_bytes, 4 << 20);
	or_default(&to->max_depth, 32);
	or_default(&to->header_timeout_s, 60);
	or_default(&to->idle_timeout_s, 3600);
	or_default(&to->write_timeout_s, 60);
}

static void init_thread(struct front *f, unsigned number)
{
	struct front_thread *t = &f->threads[number];

	t->front = f;
	t->number = number;
	snprintf(t->name, sizeof(t->name), "front-%u", number);
	list_init(&t->conns);
	list_init(&t->done);
	list_init(&t->submitted);
	pthread_mutex_init(&t->lock, NULL);
	for (int i = 0; i < LISTEN_MAX; i++) {
		t->listeners[i].thread = t;
		t->listeners[i].kind = (enum listener_kind)i;
		t->listeners[i].fd = -1;
	}
}

int front_start(uv_loop_t *core, const struct front_config *cfg,
		front_call_fn fn, void *data, struct front **ret)
{
	struct front *f = xcalloc(1, sizeof(*f));
	int r;

	xmlrpc_init();
	copy_config(&f->cfg, cfg);
	f->fn = fn;
	f->data = data;
	list_init(&f->queue);
	pthread_mutex_init(&f->lock, NULL);
	f->n_threads = f->cfg.n_threads;
	f->threads = xcalloc(f->n_threads, sizeof(*f->threads));
	for (unsigned i = 0; i < f->n_threads; i++)
		init_thread(f, i);
	r = open_listeners(f);
	if (r == 0)
		r = uv_async_init(core, &f->to_core, on_calls);
	if (r < 0) {
		free_front(f);
		return r;
	}
	f->to_core.data = f->before_wait.data = f;
	uv_prepare_init(core, &f->before_wait);
	uv_prepare_start(&f->before_wait, on_core_prepare);
	f->n_open = 2;
	for (unsigned i = 0; i < f->n_threads; i++)
		start_thread(&f->threads[i]);
	*ret = f;
	return 0;
}

void front_get_status(const struct front *f, struct front_status *ret)
{
	ret->connections = atomic_load(&f->n_tcp) + atomic_load(&f->n_unix);
	ret->requests = atomic_load(&f->requests);
	ret->errors_4xx = atomic_load(&f->errors_4xx);
	ret->errors_5xx = atomic_load(&f->errors_5xx);
}

static void on_handle_closed(uv_handle_t *h)
{
	struct front *f = h->data;

	f->n_open--;
	free_if_unused(f);
}

void front_stop(struct front *f)
{
	for (unsigned i = 0; i < f->n_threads; i++) {
		struct front_thread *t = &f->threads[i];

		pthread_mutex_lock(&t->lock);
		t->stop = true;
		pthread_mutex_unlock(&t->lock);
		uv_async_send(&t->wake);
	}
	for (unsigned i = 0; i < f->n_threads; i++)
		uv_thread_join(&f->threads[i].id);
	/* What no thread will look at any more. */
	f->stopped = true;
	for (unsigned i = 0; i < f->n_threads; i++) {
		struct front_thread *t = &f->threads[i];

		list_splice(&f->queue, &t->submitted);
		list_splice(&f->queue, &t->done);
	}
	while (!list_empty(&f->queue))
		conn_free(pop(&f->queue));
	if (f->cfg.unix_path)
		unlink(f->cfg.unix_path);
	uv_close((uv_handle_t *)&f->to_core, on_handle_closed);
	uv_close((uv_handle_t *)&f->before_wait, on_handle_closed);
}
