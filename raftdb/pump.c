#include "raftdb/pump.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (64 * 1024)

struct pump {
	uv_pipe_t pipe; /* our end of the socket pair */
	struct link_conn *conn; /* NULL: gone */
	size_t queued; /* bytes on the way into the pipe */
	bool pipe_closed, pipe_gone, conn_paused, pipe_paused;
	void (*gone)(void *data);
	void *data;
	char buffer[BUFFER];
};

struct pump_write {
	uv_write_t req;
	struct pump *pump;
	size_t n;
	char bytes[];
};

static void maybe_free(struct pump *p)
{
	if (!p->pipe_gone || p->conn)
		return;
	p->gone(p->data);
	free(p);
}

static void on_pipe_closed(uv_handle_t *h)
{
	struct pump *p = h->data;

	p->pipe_gone = true;
	maybe_free(p);
}

static void stop(struct pump *p)
{
	if (p->conn)
		link_conn_close(p->conn);
	p->conn = NULL;
	if (p->pipe_closed)
		return;
	p->pipe_closed = true;
	uv_close((uv_handle_t *)&p->pipe, on_pipe_closed);
}

static void on_conn_closed(void *data, const char *why)
{
	struct pump *p = data;

	p->conn = NULL;
	stop(p);
	maybe_free(p);
}

static void on_pipe_written(uv_write_t *req, int status)
{
	struct pump_write *w = container_of(req, struct pump_write, req);
	struct pump *p = w->pump;

	p->queued -= w->n;
	free(w);
	if (status < 0) {
		stop(p);
	} else if (p->conn_paused && p->queued < LINK_QUEUE_HIGH / 2) {
		p->conn_paused = false;
		if (p->conn)
			link_conn_pause(p->conn, false);
	}
}

static void on_conn_bytes(void *data, const char *bytes, size_t n)
{
	struct pump *p = data;
	struct pump_write *w;
	uv_buf_t b = uv_buf_init((char *)bytes, (unsigned)n);
	int r = 0;

	if (p->pipe_closed)
		return;
	if (p->queued == 0)
		r = uv_try_write((uv_stream_t *)&p->pipe, &b, 1);
	if (r < 0 && r != UV_EAGAIN) {
		stop(p);
		return;
	}
	if (r > 0) {
		bytes += r;
		n -= (size_t)r;
	}
	if (n == 0)
		return;
	w = xmalloc(sizeof *w + n);
	memcpy(w->bytes, bytes, n);
	w->pump = p;
	w->n = n;
	b = uv_buf_init(w->bytes, (unsigned)n);
	if (uv_write(&w->req, (uv_stream_t *)&p->pipe, &b, 1,
		     on_pipe_written) < 0) {
		free(w);
		stop(p);
		return;
	}
	p->queued += n;
	if (p->queued > LINK_QUEUE_HIGH) {
		p->conn_paused = true;
		link_conn_pause(p->conn, true);
	}
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
	struct pump *p = h->data;

	*b = uv_buf_init(p->buffer, BUFFER);
}

static void on_pipe_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct pump *p = s->data;

	if (n < 0 || !p->conn) {
		stop(p);
	} else if (n > 0) {
		link_conn_write(p->conn, b->base, (size_t)n);
		if (link_conn_queued(p->conn) > LINK_QUEUE_HIGH) {
			p->pipe_paused = true;
			uv_read_stop(s);
		}
	}
}

static void on_conn_drained(void *data)
{
	struct pump *p = data;

	if (!p->pipe_paused || p->pipe_closed)
		return;
	p->pipe_paused = false;
	if (uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_pipe_read) < 0)
		stop(p);
}

static const struct link_conn_ops conn_ops = {
	.bytes = on_conn_bytes,
	.drained = on_conn_drained,
	.closed = on_conn_closed,
};

int pump_new(uv_loop_t *loop, struct link_conn *c, uv_pipe_t *ret_stream,
	     void (*gone)(void *data), void *data)
{
	struct pump *p;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       fds) < 0) {
		link_conn_close(c);
		return -errno;
	}
	p = xcalloc(1, sizeof *p);
	p->conn = c;
	p->gone = gone;
	p->data = data;
	uv_pipe_init(loop, &p->pipe, 0);
	uv_pipe_init(loop, ret_stream, 0);
	p->pipe.data = p;
	xassert(uv_pipe_open(&p->pipe, fds[0]) == 0);
	xassert(uv_pipe_open(ret_stream, fds[1]) == 0);
	link_conn_attach(c, &conn_ops, p);
	xassert(uv_read_start((uv_stream_t *)&p->pipe, on_alloc,
			      on_pipe_read) == 0);
	return 0;
}
