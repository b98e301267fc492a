/* The executor's side of the reader of guests' nodes: keeps it alive, and passes
 * on what it tells. Nothing waits for it. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/message.h"
#include "xen/xl.h"

/* Between two that ended: a guest that could make it end gains nothing. */
#define AGAIN_MS 2000

/* False: the reader has gone, or says what it should not. */
static bool take_packet(struct xl *x, char *room)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	ssize_t n = recv(x->guests.process.fd, room, EXEC_MAX_MESSAGE, 0);
	char reason[128];

	if (n <= 0)
		return false;
	v = exec_message_decode(EXEC_TO_DAEMON, room, (size_t)n, reason,
				sizeof(reason));
	if (!v || strcmp(value_get_str(v, "type"), "guest")) {
		log_error("the reader of guests told no metrics: %s", reason);
		return false;
	}
	x->guest(x->event_data, value_get_str(v, "vm"),
		 (uint32_t)value_get_int(v, "domid", 0),
		 value_ref(value_get(v, "metrics")));
	return true;
}

static bool reader_turn(struct xl *x, char *room)
{
	struct pollfd f[2] = { { .fd = x->guests.process.fd,
				 .events = POLLIN },
			       { .fd = x->guests.stop_fd, .events = POLLIN } };

	if (poll(f, 2, -1) < 0)
		return errno == EINTR;
	return !f[1].revents && take_packet(x, room);
}

/* Its root folder is one that is and stays empty. */
static int reader_begin(struct xl *x)
{
	_cleanup_(freep) char *root = xasprintf("%s/empty", x->dir);
	int r = mkdir(root, 0555) < 0 && errno != EEXIST ? -errno : 0;

	if (r == 0)
		r = xl_process_start(&x->guests.process, "guests", "");
	if (r < 0)
		return r;
	return xl_process_send(x->guests.process.fd,
			       value_struct_of("op", value_stringz("guests"),
					       "root", value_stringz(root),
					       NULL), NULL, 0);
}

static bool stopped(struct xl *x, int wait_ms)
{
	struct pollfd f = { .fd = x->guests.stop_fd, .events = POLLIN };

	return poll(&f, 1, wait_ms) > 0;
}

static void *guests_thread(void *data)
{
	_cleanup_(freep) char *room = xmalloc(EXEC_MAX_MESSAGE);
	struct xl *x = data;

	log_set_thread("xl-guests");
	while (!stopped(x, 0)) {
		int r = reader_begin(x);

		if (r < 0)
			log_error("cannot read guests: %s", strerror(-r));
		while (r == 0 && reader_turn(x, room))
			;
		xl_process_kill(&x->guests.process);
		if (stopped(x, AGAIN_MS))
			break;
		log_warn("the reader of guests is begun again");
	}
	return NULL;
}

int xl_guests_start(struct xl *x)
{
	int r;

	x->guests.stop_fd = eventfd(0, EFD_CLOEXEC);
	if (x->guests.stop_fd < 0)
		return -errno;
	r = -pthread_create(&x->guests.thread, NULL, guests_thread, x);
	x->guests.started = r == 0;
	return r;
}

void xl_guests_stop(struct xl *x)
{
	uint64_t one = 1;

	if (x->guests.started) {
		xassert(write(x->guests.stop_fd, &one, sizeof(one)) ==
			sizeof(one));
		pthread_join(x->guests.thread, NULL);
	}
	if (x->guests.stop_fd >= 0)
		close(x->guests.stop_fd);
}
