/* What a string, a date, a uuid or a number may look like. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/util.h"

/* Strict UTF-8 (no overlong forms, surrogates or values over U+10FFFF) made of
 * characters that XML 1.0 allows (section 2.2): TAB, LF, CR, U+20..U+D7FF,
 * U+E000..U+FFFD, U+10000..U+10FFFF. NUL is not allowed. */
bool text_valid(const char *s, size_t n);
/* An absolute path of at most max bytes, without //, . and .. */
bool path_is_plain(const char *path, size_t max);

/* "20180102T14:05:54Z" and a NUL; years 0..9999, clamped. */
#define DATE_LEN 18
void date_format(int64_t unix_seconds, char out[DATE_LEN + 1]);
/* Accepts YYYYMMDDTHH:MM:SS and YYYY-MM-DDTHH:MM:SS, each with nothing, Z,
 * +hh:mm, -hh:mm, +hhmm or -hhmm behind it, and fractions of a second, which
 * are dropped. No zone means UTC. */
bool date_parse(const char *s, size_t n, int64_t *ret_unix_seconds);

#define UUID_LEN 36
/* Random (version 4) uuid from env_random(), lower-case, with a NUL. */
void uuid_new(char out[UUID_LEN + 1]);
void uuid_format(const uint8_t bytes[16], char out[UUID_LEN + 1]);
/* 8-4-4-4-12 hex digits of either case. */
bool uuid_valid(const char *s, size_t n);

#define REF_PREFIX "OpaqueRef:"
#define REF_LEN (sizeof(REF_PREFIX) - 1 + UUID_LEN)
#define REF_NULL "OpaqueRef:NULL"
void ref_new(char out[REF_LEN + 1]);

/* Whole string must be a decimal number (optional sign; 0x hex accepted, as the
 * reference does). False on overflow. */
bool int_parse(const char *s, size_t n, int64_t *ret);
bool float_parse(const char *s, size_t n, double *ret);

void hex_encode(const uint8_t *p, size_t n, char *out); /* 2n+1 bytes */
bool hex_decode(const char *s, size_t n, uint8_t *out); /* n/2 bytes */

#endif
