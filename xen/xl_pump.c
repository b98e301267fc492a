#include "xen/xl_pump.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#define BLOCK (1u << 20)

ssize_t xl_pump_to_file(void *data, char *p, size_t n)
{
	ssize_t k = write(*(int *)data, p, n);

	return k < 0 ? -errno : k;
}

ssize_t xl_pump_from_file(void *data, char *p, size_t n)
{
	ssize_t k = read(*(int *)data, p, n);

	return k < 0 ? -errno : k;
}

static ssize_t near(struct xl_pump *p, char *block, size_t n)
{
	ssize_t k = p->inward ? write(p->pipe, block, n)
			      : read(p->pipe, block, n);

	return k < 0 ? -errno : k;
}

/* All n bytes to one side; the other side's turn brought them. */
static int put(struct xl_pump *p, char *block, size_t n)
{
	while (n > 0) {
		ssize_t k = p->inward ? near(p, block, n)
				      : p->far(p->data, block, n);

		if (k == -EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? (int)k : -EIO;
		block += k;
		n -= (size_t)k;
	}
	return 0;
}

static void *pump_thread(void *data)
{
	struct xl_pump *p = data;
	_cleanup_(freep) char *block = xmalloc(BLOCK);

	while (p->error == 0) {
		ssize_t k = p->inward ? p->far(p->data, block, BLOCK)
				      : near(p, block, BLOCK);

		if (k == -EINTR)
			continue;
		if (k == 0)
			break;
		p->error = k < 0 ? (int)k : put(p, block, (size_t)k);
		p->bytes += k > 0 ? (uint64_t)k : 0;
	}
	/* Whoever reads or writes the other end shall notice. */
	close(p->pipe);
	return NULL;
}

int xl_pump_start(struct xl_pump *p, bool inward,
		  ssize_t (*far)(void *data, char *p, size_t n), void *data)
{
	int pair[2], r;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	/* Best effort: fewer, longer system calls. */
	fcntl(pair[0], F_SETPIPE_SZ, BLOCK);
	p->inward = inward;
	p->far = far;
	p->data = data;
	p->bytes = 0;
	p->error = 0;
	p->fd = pair[inward ? 0 : 1];
	p->pipe = pair[inward ? 1 : 0];
	r = -pthread_create(&p->thread, NULL, pump_thread, p);
	if (r < 0) {
		close(pair[0]);
		close(pair[1]);
	}
	return r;
}

int xl_pump_end(struct xl_pump *p)
{
	close(p->fd);
	pthread_join(p->thread, NULL);
	return p->error;
}
