#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/map.h"
#include "xen/sim.h"
#include "xen/sim_wire.h"

static const char magic[4] = { 'X', 'P', 'M', '1' };

void wire_put(struct buf *b, enum wire_type type, const char *p, size_t n)
{
	xassert(n <= WIRE_MAX_PAYLOAD);
	buf_append(b, magic, sizeof(magic));
	buf_put_u8(b, (uint8_t)type);
	buf_put_u32(b, (uint32_t)n);
	buf_put_u64(b, hash64(p, n));
	buf_append(b, p, n);
}

int wire_parse(const struct buf *b, struct wire_frame *ret)
{
	size_t have = MIN(b->len, sizeof(magic));
	struct reader r = reader_of(b->data, b->len);
	uint64_t hash;
	uint8_t type;

	if (have > 0 && memcmp(b->data, magic, have))
		return -EBADMSG;
	if (b->len < WIRE_HEAD)
		return 0;
	r.p += sizeof(magic);
	type = reader_u8(&r);
	ret->len = reader_u32(&r);
	hash = reader_u64(&r);
	if (type < WIRE_TOKEN || type > WIRE_STATE ||
	    ret->len > WIRE_MAX_PAYLOAD)
		return -EBADMSG;
	if (b->len < WIRE_HEAD + ret->len)
		return 0;
	ret->type = (enum wire_type)type;
	ret->payload = b->data + WIRE_HEAD;
	ret->total = WIRE_HEAD + ret->len;
	return hash64(ret->payload, ret->len) == hash ? 1 : -EBADMSG;
}

bool wire_address(const char *address, uint16_t port,
		  struct sockaddr_storage *ret, unsigned *ret_len)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *four = (struct sockaddr_in *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		*ret_len = sizeof(*four);
		return true;
	}
	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		*ret_len = sizeof(*six);
		return true;
	}
	return false;
}

static int wait_for(int fd, short events, int abort_fd, int64_t until)
{
	struct pollfd p[2] = { { .fd = fd, .events = events },
			       { .fd = abort_fd, .events = POLLIN } };
	int64_t left = until - sim_now();
	int n = poll(p, 2, (int)MAX(left, (int64_t)0));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents)
		return -ECANCELED;
	return n == 0 ? -ETIMEDOUT : 0;
}

static int connect_wait(int fd, int abort_fd)
{
	int r = wait_for(fd, POLLOUT, abort_fd, sim_now() + WIRE_TIMEOUT_MS);
	socklen_t len = sizeof(int);
	int error = 0;

	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

int wire_connect(const struct xen_ticket *to, int abort_fd, int *ret_fd)
{
	struct sockaddr_storage ss;
	unsigned len;
	int fd, r = 0;

	if (!wire_address(to->address, to->port, &ss, &len))
		return -EINVAL;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&ss, len) < 0)
		r = errno == EINPROGRESS ? connect_wait(fd, abort_fd) : -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int wire_send(int fd, int abort_fd, enum wire_type type, const char *p,
	      size_t n)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int64_t until = sim_now() + WIRE_TIMEOUT_MS;

	wire_put(&b, type, p, n);
	while (b.len > 0) {
		int r = wait_for(fd, POLLOUT, abort_fd, until);
		ssize_t k;

		if (r < 0)
			return r;
		k = send(fd, b.data, b.len, MSG_NOSIGNAL);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (k > 0)
			buf_consume(&b, (size_t)k);
	}
	return 0;
}

int wire_recv(int fd, int abort_fd, struct buf *in, struct wire_frame *ret)
{
	int64_t until = sim_now() + WIRE_TIMEOUT_MS;
	char block[4096];
	int r;

	while ((r = wire_parse(in, ret)) == 0) {
		ssize_t k;

		r = wait_for(fd, POLLIN, abort_fd, until);
		if (r < 0)
			return r;
		k = recv(fd, block, sizeof(block), 0);
		if (k == 0)
			return -ECONNRESET;
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (k > 0)
			buf_append(in, block, (size_t)k);
	}
	return r < 0 ? r : 0;
}
