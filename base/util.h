/* Small helpers that every folder uses. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/* <sys/param.h>, which some libraries drag in, has the same two. */
#undef MIN
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))
#define _noreturn_ __attribute__((noreturn))

#define TAKE_PTR(p)                        \
	({                                 \
		__typeof__(p) _taken = (p); \
		(p) = NULL;                \
		_taken;                    \
	})

/* Checked in every build: a broken invariant stops the process before it can
 * reach the disk or another member. */
#define xassert(cond) \
	((cond) ? (void)0 : xassert_fail(#cond, __FILE__, __LINE__, __func__))

_noreturn_ void xassert_fail(const char *cond, const char *file, int line,
			     const char *func);

/* Allocation never returns NULL: running out of memory ends the process, which
 * is an ordinary event (a restart finds everything that was acknowledged).
 * Whatever a caller can make grow is limited before memory is asked for. */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) _printf_(1, 2);

/* free() for _cleanup_ of a char *. */
void freep(void *p);

/* True when a NUL-terminated string equals the n bytes at p. */
bool str_equal_n(const char *s, const char *p, size_t n);

#endif
