/* The executor's side of the watcher: keeps it alive, keeps what it saw last,
 * and makes events of the differences.
 *
 * A difference counts only when no operation worked on the VM while the watcher
 * looked, so what an operation did is never taken for the guest's own deed; and
 * as only differences count, a watcher that died loses nothing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/xl.h"

#define PATIENCE_MS 10000  /* for an answer, on the executor's own thread */
#define SILENCE_MS 30000   /* then the watcher is begun again */
#define AGAIN_MS 500       /* between two that ended at once */
#define MAX_VIEW (sizeof(struct xl_view) + \
		  XL_MAX_DOMAINS * sizeof(struct xl_seen))

/* ---- differences ---- */

static const struct xl_seen *seen_find(const struct xl_view *view,
				       const char *vm)
{
	for (uint32_t i = 0; i < view->n; i++)
		if (!strcmp(view->seen[i].vm, vm))
			return &view->seen[i];
	return NULL;
}

static bool is_news(const struct xl_view *view, const struct xl_vm *v)
{
	return !v->busy && v->phase == XL_HOME && view->at_ms > v->ended_ms;
}

static void tell(struct xl *x, struct xl_vm *v, enum xen_event_kind kind)
{
	struct xen_event ev = { .domid = v->domid, .kind = kind };

	memcpy(ev.vm, v->vm, sizeof(ev.vm));
	v->alive = false;
	x->event(x->event_data, &ev);
}

static void compare_known(struct xl *x, const struct xl_view *view)
{
	list_for_each_safe(l, &x->vms) {
		struct xl_vm *v = list_entry(l, struct xl_vm, link);
		const struct xl_seen *s = seen_find(view, v->vm);

		if (!is_news(view, v))
			continue;
		if (v->alive && !s)
			tell(x, v, XEN_EV_GONE);
		else if (v->alive && s->state == XEN_SHUTDOWN)
			tell(x, v, s->reason);
		xl_tidy(x, v);
	}
}

static void compare(struct xl *x, const struct xl_view *view)
{
	compare_known(x, view);
	for (uint32_t i = 0; i < view->n; i++) {
		struct xl_vm *v;

		if (view->seen[i].state == XEN_SHUTDOWN)
			continue;
		v = xl_get(x, view->seen[i].vm);
		if (!is_news(view, v))
			continue;
		v->alive = true;
		v->domid = view->seen[i].domid;
	}
}

/* ---- the thread ---- */

static bool view_valid(const struct xl_view *v, ssize_t n)
{
	return n >= (ssize_t)sizeof(*v) && v->n <= XL_MAX_DOMAINS &&
	       (size_t)n == sizeof(*v) + v->n * sizeof(v->seen[0]);
}

static void view_take(struct xl *x, const struct xl_view *v)
{
	size_t n = sizeof(*v) + v->n * sizeof(v->seen[0]);
	struct xl_view *copy = xmalloc(n);

	memcpy(copy, v, n);
	pthread_mutex_lock(&x->lock);
	compare(x, v);
	free(x->view);
	x->view = copy;
	pthread_cond_broadcast(&x->viewed);
	pthread_mutex_unlock(&x->lock);
}

/* False: the watcher has to be begun again. */
static bool watch_turn(struct xl *x, struct xl_view *room)
{
	struct pollfd f[2] = { { .fd = x->watcher.fd, .events = POLLIN },
			       { .fd = x->stop_fd, .events = POLLIN } };
	ssize_t n;

	if (poll(f, 2, SILENCE_MS) == 0) {
		log_error("the watcher of Xen says nothing any more");
		return false;
	}
	if (f[1].revents)
		return false;
	n = recv(x->watcher.fd, room, MAX_VIEW, 0);
	if (n <= 0)
		return false;
	if (view_valid(room, n))
		view_take(x, room);
	return true;
}

/* What was asked of the one before. */
static void ask_locked(struct xl *x)
{
	if (x->watcher.pid && send(x->watcher.fd, &x->asked, sizeof(x->asked),
				   MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("the watcher cannot be asked: %s", strerror(errno));
}

static int watcher_begin(struct xl *x)
{
	struct xl_process p = { 0 };
	int r = xl_process_start(&p, "watch", "");

	if (r == 0)
		r = xl_process_send(p.fd,
				    value_struct_of("op",
						    value_stringz("watch"),
						    NULL),
				    NULL, 0);
	pthread_mutex_lock(&x->lock);
	x->watcher = p;
	ask_locked(x);
	pthread_mutex_unlock(&x->lock);
	return r;
}

static void watcher_end(struct xl *x)
{
	struct xl_process p;

	pthread_mutex_lock(&x->lock);
	p = x->watcher;
	x->watcher.pid = 0;
	x->blind = !x->view;
	pthread_cond_broadcast(&x->viewed);
	pthread_mutex_unlock(&x->lock);
	xl_process_kill(&p);
}

static bool stopped(struct xl *x, int wait_ms)
{
	struct pollfd f = { .fd = x->stop_fd, .events = POLLIN };

	return poll(&f, 1, wait_ms) > 0;
}

static void *watch_thread(void *data)
{
	_cleanup_(freep) struct xl_view *room = xmalloc(MAX_VIEW);
	struct xl *x = data;

	log_set_thread("xl-watch");
	while (!stopped(x, 0)) {
		int r = watcher_begin(x);

		if (r < 0)
			log_error("cannot start a watcher: %s", strerror(-r));
		while (r == 0 && watch_turn(x, room))
			;
		watcher_end(x);
		if (stopped(x, AGAIN_MS))
			break;
		log_warn("the watcher of Xen is begun again");
	}
	return NULL;
}

/* ---- asking ---- */

int xl_watch_look(struct xl *x)
{
	uint64_t mine = ++x->asked;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	ask_locked(x);
	while (!x->view || x->view->answers < mine)
		if (x->blind || pthread_cond_timedwait(&x->viewed, &x->lock,
						       &until))
			return x->blind ? -ENXIO : -ETIMEDOUT;
	return 0;
}

int xl_watch_start(struct xl *x)
{
	pthread_condattr_t attr;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&x->viewed, &attr);
	pthread_condattr_destroy(&attr);
	x->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (x->stop_fd < 0)
		return -errno;
	r = -pthread_create(&x->watch_thread, NULL, watch_thread, x);
	if (r < 0)
		return r;
	x->watching = true;
	pthread_mutex_lock(&x->lock);
	r = xl_watch_look(x);
	pthread_mutex_unlock(&x->lock);
	return r < 0 ? -ENXIO : 0;
}

void xl_watch_stop(struct xl *x)
{
	uint64_t one = 1;

	if (x->watching) {
		xassert(write(x->stop_fd, &one, sizeof(one)) == sizeof(one));
		pthread_join(x->watch_thread, NULL);
		pthread_cond_destroy(&x->viewed);
	}
	if (x->stop_fd >= 0)
		close(x->stop_fd);
	free(TAKE_PTR(x->view));
}
