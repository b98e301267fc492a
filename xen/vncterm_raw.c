/* The terminal's own bytes for the viewers. The last RING bytes are kept for all
 * of them together: a viewer that falls behind by more is told that it missed
 * something, and goes on; nobody waits for it. Who comes later sees the last
 * SHOWN bytes first.
 */
#include "xen/vncterm.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define RING (1u << 18)
#define SHOWN 8192
#define TYPED 256 /* bytes of a viewer at a time */

struct viewer {
	int fd;
	uint64_t at; /* of all bytes ever, the next one for it */
};

struct raw {
	uint64_t end; /* bytes ever */
	struct viewer viewers[VT_MAX_VIEWERS];
	size_t n;
	char ring[RING];
};

static int raw_init(struct vncterm *v)
{
	v->mode_data = xcalloc(1, sizeof(struct raw));
	return 0;
}

/* False: it is gone. */
static bool send_some(struct raw *r, struct viewer *who)
{
	static const char missed[] = "\r\n[... too slow, output is missing ...]\r\n";

	if (r->end - who->at > RING) {
		who->at = r->end - SHOWN;
		/* It may not fit: then only the note is missing too. */
		if (send(who->fd, missed, sizeof(missed) - 1,
			 MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			return false;
	}
	while (who->at < r->end) {
		size_t from = who->at % RING;
		size_t n = (size_t)MIN(r->end - who->at,
				       (uint64_t)(RING - from));
		ssize_t sent = send(who->fd, r->ring + from, n,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		who->at += (uint64_t)sent;
	}
	return true;
}

static void drop(struct raw *r, size_t i)
{
	close(r->viewers[i].fd);
	r->viewers[i] = r->viewers[--r->n];
}

static void raw_output(struct vncterm *v, const char *p, size_t n)
{
	struct raw *r = v->mode_data;

	while (n > 0) {
		size_t to = r->end % RING;
		size_t some = MIN(n, (size_t)(RING - to));

		memcpy(r->ring + to, p, some);
		r->end += some;
		p += some;
		n -= some;
	}
	for (size_t i = r->n; i-- > 0;)
		if (!send_some(r, &r->viewers[i]))
			drop(r, i);
}

static void raw_viewer(struct vncterm *v, int fd)
{
	struct raw *r = v->mode_data;

	if (r->n == VT_MAX_VIEWERS) {
		log_warn("too many viewers");
		close(fd);
		return;
	}
	log_info("a viewer is here, text");
	r->viewers[r->n] = (struct viewer){ fd, r->end - MIN(r->end, SHOWN) };
	if (!send_some(r, &r->viewers[r->n++]))
		drop(r, r->n - 1);
}

static size_t raw_fds(struct vncterm *v, struct pollfd *p)
{
	struct raw *r = v->mode_data;
	bool room = vt_room(v) >= TYPED;

	for (size_t i = 0; i < r->n; i++) {
		p[i] = (struct pollfd){ .fd = r->viewers[i].fd,
					.events = room ? POLLIN : 0 };
		if (r->viewers[i].at < r->end)
			p[i].events |= POLLOUT;
	}
	return r->n;
}

/* False: it is gone. */
static bool read_some(struct vncterm *v, struct viewer *who)
{
	char typed[TYPED];
	ssize_t n = recv(who->fd, typed, sizeof(typed), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n > 0)
		vt_type(v, typed, (size_t)n);
	return n > 0;
}

static void raw_ready(struct vncterm *v, const struct pollfd *p, size_t n)
{
	struct raw *r = v->mode_data;

	/* The others keep their places when one from the end goes. */
	for (size_t i = n; i-- > 0;)
		if ((p[i].revents & POLLOUT && !send_some(r, &r->viewers[i])) ||
		    (p[i].revents & ~POLLOUT &&
		     !read_some(v, &r->viewers[i])))
			drop(r, i);
}

const struct vt_mode vt_raw = {
	.init = raw_init,
	.output = raw_output,
	.viewer = raw_viewer,
	.fds = raw_fds,
	.ready = raw_ready,
};
