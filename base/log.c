#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/text.h"

/* Longer lines are cut: one write(2) of a line stays whole between threads. */
#define LINE_MAX_BYTES 4000

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static atomic_int max_level = LOG_LEVEL_INFO;
static _Thread_local const char *thread_name = "main";

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *s, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

void log_set_thread(const char *name)
{
	char seen[16];

	thread_name = name;
	if (gettid() == getpid())
		return;
	snprintf(seen, sizeof seen, "%s", name);
	pthread_setname_np(pthread_self(), seen);
}

/* A client's text in a message must not be able to forge a line of its own or
 * to reach the terminal of whoever reads the log. */
static void hide_controls(char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = s[i] == '\t' || s[i] == '\n' ? ' ' : '?';
	}
}

static size_t put_head(char *line, enum log_level level)
{
	char date[DATE_LEN + 1];
	int64_t ms = env_wall_ms();
	int64_t seconds = ms / 1000 - (ms % 1000 < 0);
	int n;

	date_format(seconds, date);
	n = snprintf(line, LINE_MAX_BYTES / 2, "%.17s.%03dZ %s %.32s: ", date,
		     (int)(ms - seconds * 1000), level_names[level],
		     thread_name);
	return n > 0 ? (size_t)n : 0;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES + 1];
	int saved_errno = errno;
	va_list ap;
	size_t head, len;
	int n;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	head = put_head(line, level);
	errno = saved_errno; /* for %m */
	va_start(ap, fmt);
	n = vsnprintf(line + head, LINE_MAX_BYTES - head, fmt, ap);
	va_end(ap);
	len = head + (n > 0 ? (size_t)n : 0);
	len = MIN(len, (size_t)LINE_MAX_BYTES - 1);
	hide_controls(line + head, len - head);
	line[len++] = '\n';
	/* Nobody can be told when the log itself cannot be written. */
	(void)!write(STDERR_FILENO, line, len);
	errno = saved_errno;
}
