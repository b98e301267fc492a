/* One line a message on standard error: time, level, thread, text. Safe from
 * any thread. Secrets (session refs, passwords, tokens) never go in. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/util.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
bool log_level_parse(const char *s, enum log_level *ret);
/* Names the calling thread in its lines ("core", "front-1"), borrowed, and for
 * top -H and the like, which see 15 characters. There the process's first thread
 * keeps the program's name. */
void log_set_thread(const char *name);
void log_line(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
