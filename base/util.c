#include "base/util.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

void xassert_fail(const char *cond, const char *file, int line,
		  const char *func)
{
	log_error("%s:%d: %s: broken invariant: %s", file, line, func, cond);
	abort();
}

/* Not a plain xassert: the text must tell an operator what to look at. */
static void *check_memory(void *p, size_t n)
{
	if (!p) {
		log_error("out of memory (asked for %zu bytes)", n);
		abort();
	}
	return p;
}

void *xmalloc(size_t n)
{
	return check_memory(malloc(n ? n : 1), n);
}

void *xcalloc(size_t n, size_t size)
{
	if (n == 0 || size == 0)
		n = size = 1;
	return check_memory(calloc(n, size), n);
}

void *xrealloc(void *p, size_t n)
{
	return check_memory(realloc(p, n ? n : 1), n);
}

char *xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *copy = xmalloc(len + 1);

	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	xassert(n >= 0);
	s = xmalloc((size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

void freep(void *p)
{
	free(*(void **)p);
}

bool str_equal_n(const char *s, const char *p, size_t n)
{
	return strlen(s) == n && (n == 0 || memcmp(s, p, n) == 0);
}
