#include "raftdb/consensus_aio.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

typedef long (*syscall_fn)(long number, ...);

static atomic_uint_fast64_t ends;

static syscall_fn next_syscall(void)
{
	static _Atomic(syscall_fn) known;
	syscall_fn next = atomic_load(&known);

	if (next)
		return next;
	next = (syscall_fn)dlsym(RTLD_NEXT, "syscall");
	xassert(next);
	atomic_store(&known, next);
	return next;
}

static void *end(void *context)
{
	log_set_thread("aio-end");
	next_syscall()(SYS_io_destroy, context);
	return NULL;
}

/* No signal of the process's is handled there. */
static bool end_on_thread(void *context)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, &attr, end, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r == 0;
}

/* As the C library's: -1 and errno, or what the kernel says. It takes six
 * arguments whatever the caller gave, as that one does. */
long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (size_t i = 0; i < ARRAY_LEN(a); i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_io_destroy && end_on_thread((void *)a[0])) {
		atomic_fetch_add(&ends, 1);
		return 0;
	}
	return next_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void consensus_aio_set(void)
{
	next_syscall();
}

uint64_t consensus_aio_ends(void)
{
	return atomic_load(&ends);
}
