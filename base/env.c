#include "base/env.h"

#include "base/failpoint.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static int64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	xassert(clock_gettime(id, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t real_wall_ms(void *data)
{
	return clock_ms(CLOCK_REALTIME);
}

/* CLOCK_BOOTTIME: a host that slept has lost its leases meanwhile. */
static int64_t real_mono_ms(void *data)
{
	return clock_ms(CLOCK_BOOTTIME);
}

static void real_random(void *data, void *out, size_t n)
{
	char *p = out;

	while (n > 0) {
		ssize_t got = getrandom(p, n, 0);

		xassert(got > 0 || (got < 0 && errno == EINTR));
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
}

static const struct env_ops real_ops = {
	real_wall_ms, real_mono_ms, real_random, NULL
};

static struct env_ops ops = {
	real_wall_ms, real_mono_ms, real_random, NULL
};

void env_replace(const struct env_ops *new_ops)
{
	ops = new_ops ? *new_ops : real_ops;
}

int64_t env_wall_ms(void)
{
	return ops.wall_ms(ops.data) + failpoint("clock.wall"); /* ms off */
}

int64_t env_mono_ms(void)
{
	return ops.mono_ms(ops.data);
}

void env_random(void *out, size_t n)
{
	ops.random(ops.data, out, n);
}
