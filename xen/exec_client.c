/* The daemon's side of xen/protocol.h, on its libuv loop.
 *
 * Everything that can call back does so from the loop, never from within
 * exec_client_send(): a send that finds the link broken leaves it to the next
 * turn to say so.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "base/text.h"
#include "xen/message.h"

#define RECONNECT_MS 200
/* Bytes waiting for an executor that does not read; beyond it is given up. */
#define MAX_WAITING (16u << 20)
#define BURST 64

struct packet {
	struct list link;
	size_t n;
	char data[];
};

struct exec_client {
	uv_loop_t *loop;
	struct exec_client_callbacks cb;
	char *path;
	char host[UUID_LEN + 1];
	uv_timer_t timer; /* reconnects; also reports a broken link */
	uv_poll_t *poll;  /* NULL: not connected */
	int fd;
	bool broken, closing;
	struct list waiting; /* struct packet */
	size_t waiting_bytes;
	char *packet; /* EXEC_MAX_MESSAGE + 1 bytes */
};

static void on_poll(uv_poll_t *handle, int status, int events);
static void on_timer(uv_timer_t *timer);

static void on_poll_closed(uv_handle_t *h)
{
	free(h);
}

static void waiting_drop(struct exec_client *c)
{
	list_for_each_safe(l, &c->waiting) {
		list_remove(l);
		free(list_entry(l, struct packet, link));
	}
	c->waiting_bytes = 0;
}

static void link_close(struct exec_client *c)
{
	waiting_drop(c);
	if (!c->poll)
		return;
	uv_poll_stop(c->poll);
	uv_close((uv_handle_t *)TAKE_PTR(c->poll), on_poll_closed);
	close(c->fd);
	c->fd = -1;
	c->broken = false;
}

/* The callback may close the client: nothing is touched after it. */
static void link_lost(struct exec_client *c, const char *why)
{
	log_warn("executor: %s", why);
	link_close(c);
	uv_timer_start(&c->timer, on_timer, RECONNECT_MS, 0);
	c->cb.connected(c->cb.data, false);
}

/* ---- out ---- */

static void link_watch(struct exec_client *c)
{
	int events = UV_READABLE;

	if (!list_empty(&c->waiting))
		events |= UV_WRITABLE;
	uv_poll_start(c->poll, events, on_poll);
}

static void link_break_soon(struct exec_client *c)
{
	c->broken = true;
	uv_timer_start(&c->timer, on_timer, 0, 0);
}

/* 1 sent, 0 not now, negative errno. */
static int packet_send(struct exec_client *c, const void *p, size_t n)
{
	if (send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 1;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
		return 0;
	return -errno;
}

static int packet_keep(struct exec_client *c, const void *data, size_t n)
{
	struct packet *p;

	if (c->waiting_bytes + n > MAX_WAITING) {
		log_warn("executor: does not read");
		return -ENOTCONN;
	}
	p = xmalloc(sizeof(*p) + n);
	p->n = n;
	memcpy(p->data, data, n);
	list_init(&p->link);
	list_push(&c->waiting, &p->link);
	c->waiting_bytes += n;
	link_watch(c);
	return 0;
}

int exec_client_send(struct exec_client *c, const struct value *msg)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r;

	if (!c->poll || c->broken)
		return -ENOTCONN;
	r = exec_message_encode(&b, msg);
	if (r < 0)
		return r;
	r = list_empty(&c->waiting) ? packet_send(c, b.data, b.len) : 0;
	if (r == 0)
		r = packet_keep(c, b.data, b.len);
	if (r >= 0)
		return 0;
	link_break_soon(c);
	return -ENOTCONN;
}

static void link_write(struct exec_client *c)
{
	list_for_each_safe(l, &c->waiting) {
		struct packet *p = list_entry(l, struct packet, link);
		int r = packet_send(c, p->data, p->n);

		if (r < 0)
			link_break_soon(c);
		if (r <= 0)
			break;
		c->waiting_bytes -= p->n;
		list_remove(&p->link);
		free(p);
	}
	link_watch(c);
}

/* ---- in ---- */

static void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* As recv(2); *ret_fd: the descriptor that came with the packet, or -1. */
static ssize_t packet_receive(struct exec_client *c, int *ret_fd)
{
	char room[CMSG_SPACE(sizeof(int))];
	struct iovec part = { c->packet, EXEC_MAX_MESSAGE + 1 };
	struct msghdr m = {
		.msg_iov = &part, .msg_iovlen = 1,
		.msg_control = room,
		/* Room for one: the kernel drops what is too many. */
		.msg_controllen = CMSG_LEN(sizeof(int)),
	};
	ssize_t n = recvmsg(c->fd, &m,
			    MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	*ret_fd = -1;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
	    h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(h), sizeof(int));
	return n;
}

/* False: the link is gone, or the client is closing. */
static bool link_read_one(struct exec_client *c, size_t *bytes)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	_cleanup_(closep) int fd = -1;
	char reason[128];
	ssize_t n = packet_receive(c, &fd);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		link_lost(c, n < 0 ? strerror(errno) : "went away");
		return false;
	}
	*bytes += (size_t)n;
	v = exec_message_decode(EXEC_TO_DAEMON, c->packet, (size_t)n, reason,
				sizeof(reason));
	if (!v) {
		link_lost(c, reason);
		return false;
	}
	c->cb.message(c->cb.data, v, &fd);
	return !c->closing && c->poll && !c->broken;
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
	struct exec_client *c = handle->data;

	if (status < 0) {
		link_lost(c, uv_strerror(status));
		return;
	}
	if (events & UV_WRITABLE)
		link_write(c);
	if (!(events & UV_READABLE) || c->broken)
		return;
	/* So much, or so many, and others have their turn. */
	for (size_t i = 0, bytes = 0; i < BURST && bytes < EXEC_MAX_MESSAGE;
	     i++)
		if (!link_read_one(c, &bytes))
			return;
}

/* ---- the link ---- */

static int link_connect(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);
	int room = 2 * EXEC_MAX_MESSAGE;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int say_hello(struct exec_client *c)
{
	_cleanup_(value_unrefp) struct value *v = value_struct_of(
		"type", value_stringz("hello"),
		"protocol", value_int(EXEC_PROTOCOL),
		"host", value_stringz(c->host), NULL);

	return exec_client_send(c, v);
}

static int link_open(struct exec_client *c)
{
	uv_poll_t *poll;
	int r;

	c->fd = link_connect(c->path);
	if (c->fd < 0)
		return c->fd;
	poll = xcalloc(1, sizeof(*poll));
	r = uv_poll_init(c->loop, poll, c->fd);
	if (r < 0) {
		free(poll);
		close(c->fd);
		c->fd = -1;
		return r;
	}
	poll->data = c;
	c->poll = poll;
	link_watch(c);
	return say_hello(c);
}

static void on_timer(uv_timer_t *timer)
{
	struct exec_client *c = timer->data;
	int r;

	if (c->broken) {
		link_lost(c, "cannot be written to");
		return;
	}
	r = link_open(c);
	if (r < 0) {
		link_close(c);
		uv_timer_start(&c->timer, on_timer, RECONNECT_MS, 0);
		return;
	}
	c->cb.connected(c->cb.data, true);
}

int exec_client_start(uv_loop_t *loop, const char *socket_path,
		      const char *host_uuid,
		      const struct exec_client_callbacks *cb,
		      struct exec_client **ret)
{
	struct exec_client *c;
	int r;

	if (strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -ENAMETOOLONG;
	if (!uuid_valid(host_uuid, strlen(host_uuid)))
		return -EINVAL;
	c = xcalloc(1, sizeof(*c));
	c->loop = loop;
	c->cb = *cb;
	c->fd = -1;
	c->path = xstrdup(socket_path);
	c->packet = xmalloc(EXEC_MAX_MESSAGE + 1);
	snprintf(c->host, sizeof(c->host), "%s", host_uuid);
	list_init(&c->waiting);
	r = uv_timer_init(loop, &c->timer);
	xassert(r == 0); /* cannot fail, says its manual */
	c->timer.data = c;
	/* From the loop: no callback fires before the caller has ret. */
	uv_timer_start(&c->timer, on_timer, 0, 0);
	*ret = c;
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct exec_client *c = h->data;

	free(c->path);
	free(c->packet);
	free(c);
}

void exec_client_close(struct exec_client *c)
{
	if (!c || c->closing)
		return;
	c->closing = true;
	link_close(c);
	uv_timer_stop(&c->timer);
	uv_close((uv_handle_t *)&c->timer, on_closed);
}
