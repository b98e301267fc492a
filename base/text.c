#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"

#define REPEAT8(byte) ((uint64_t)(byte) * 0x0101010101010101u)

/* Eight bytes at once, all in U+20..U+7F: what most strings are made of. */
static bool plain8(const char *s)
{
	uint64_t w;

	memcpy(&w, s, sizeof(w));
	/* A byte under 0x20 borrows into its top bit; a borrow from the byte
	 * below it can only follow such a byte. */
	return !((w | (w - REPEAT8(0x20))) & REPEAT8(0x80));
}

/* Length of the allowed character at s, 0 if it is none. */
static size_t char_len(const uint8_t *s, size_t n)
{
	uint32_t c = s[0], least;
	size_t len;

	if (c < 0x80)
		return c >= 0x20 || c == '\t' || c == '\n' || c == '\r';
	if (c < 0xc0 || c >= 0xf8)
		return 0;
	len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (len > n)
		return 0;
	c &= 0x7fu >> len;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	least = len == 2 ? 0x80 : len == 3 ? 0x800 : 0x10000;
	if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ||
	    c == 0xfffe || c == 0xffff)
		return 0;
	return len;
}

bool text_valid(const char *s, size_t n)
{
	size_t i = 0, len;

	while (i < n) {
		if (n - i >= 8 && plain8(s + i)) {
			i += 8;
			continue;
		}
		len = char_len((const uint8_t *)s + i, n - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

/* Dates. Days are counted from 1 March of the year -400: the leap day is then
 * the last of its year, and nothing within the years 0..9999 is negative.
 */
#define DAY_SECONDS 86400
#define DAYS_TO_1970 (719468 + 146097)
#define FIRST_SECOND INT64_C(-62167219200) /* 0000-01-01T00:00:00Z */
#define LAST_SECOND INT64_C(253402300799)  /* 9999-12-31T23:59:59Z */

/* Days before 1 March of the year y - 400. */
static int64_t days_before_year(int64_t y)
{
	return y * 365 + y / 4 - y / 100 + y / 400;
}

/* Days before a month, March being 0: 31, 30, 31, 30, 31 days twice. */
static int64_t days_before_month(int64_t m)
{
	return (m * 153 + 2) / 5;
}

static int64_t days_of(int64_t y, int64_t m, int64_t d)
{
	y += 400 - (m <= 2);
	return days_before_year(y) + days_before_month((m + 9) % 12) + d - 1 -
	       DAYS_TO_1970;
}

void date_format(int64_t t, char out[DATE_LEN + 1])
{
	int64_t days, y, m, d;
	int s;

	t = MAX(FIRST_SECOND, MIN(t, LAST_SECOND));
	t += (int64_t)DAYS_TO_1970 * DAY_SECONDS;
	days = t / DAY_SECONDS;
	s = (int)(t % DAY_SECONDS);
	/* The mean year is off by a few days at worst: at most one step. */
	y = days * 400 / 146097;
	if (days_before_year(y) > days)
		y--;
	else if (days_before_year(y + 1) <= days)
		y++;
	d = days - days_before_year(y);
	m = (d * 5 + 2) / 153;
	d -= days_before_month(m);
	y += (m >= 10) - 400;
	snprintf(out, DATE_LEN + 1, "%04u%02u%02uT%02u:%02u:%02uZ",
		 (unsigned)y % 10000, (unsigned)((m + 2) % 12 + 1) % 100,
		 (unsigned)(d + 1) % 100, (unsigned)(s / 3600) % 100,
		 (unsigned)(s / 60) % 60, (unsigned)s % 60);
}

struct cursor {
	const char *p, *end;
};

static bool take_char(struct cursor *c, char want)
{
	if (c->p == c->end || *c->p != want)
		return false;
	c->p++;
	return true;
}

static bool take_digits(struct cursor *c, int count, int64_t *ret)
{
	int64_t v = 0;

	if (c->end - c->p < count)
		return false;
	for (; count > 0; count--, c->p++) {
		if (*c->p < '0' || *c->p > '9')
			return false;
		v = v * 10 + (*c->p - '0');
	}
	*ret = v;
	return true;
}

static bool take_day(struct cursor *c, int64_t *ret_days)
{
	int64_t y, m, d;
	bool dashed;

	if (!take_digits(c, 4, &y))
		return false;
	dashed = take_char(c, '-');
	if (!take_digits(c, 2, &m) || (dashed && !take_char(c, '-')) ||
	    !take_digits(c, 2, &d))
		return false;
	if (m < 1 || m > 12 || d < 1)
		return false;
	*ret_days = days_of(y, m, d);
	/* 30 February would be a day of March. */
	return *ret_days < days_of(y + m / 12, m % 12 + 1, 1);
}

static bool take_time(struct cursor *c, int64_t *ret_seconds)
{
	int64_t h, m, s;

	if (!take_digits(c, 2, &h) || !take_char(c, ':') ||
	    !take_digits(c, 2, &m) || !take_char(c, ':') ||
	    !take_digits(c, 2, &s))
		return false;
	*ret_seconds = h * 3600 + m * 60 + s;
	return h <= 23 && m <= 59 && s <= 60; /* 60: a leap second */
}

static bool skip_fraction(struct cursor *c)
{
	const char *start;

	if (!take_char(c, '.'))
		return true;
	start = c->p;
	while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
		c->p++;
	return c->p > start;
}

/* Seconds east of Greenwich. */
static bool take_zone(struct cursor *c, int64_t *ret_east)
{
	int64_t h, m;
	bool west;

	*ret_east = 0;
	if (c->p == c->end || take_char(c, 'Z'))
		return true;
	west = take_char(c, '-');
	if (!west && !take_char(c, '+'))
		return false;
	if (!take_digits(c, 2, &h))
		return false;
	take_char(c, ':');
	if (!take_digits(c, 2, &m) || h > 23 || m > 59)
		return false;
	*ret_east = (h * 3600 + m * 60) * (west ? -1 : 1);
	return true;
}

bool date_parse(const char *s, size_t n, int64_t *ret_unix_seconds)
{
	struct cursor c = { s, s + n };
	int64_t days, seconds, east;

	if (!take_day(&c, &days) || !take_char(&c, 'T') ||
	    !take_time(&c, &seconds) || !skip_fraction(&c) ||
	    !take_zone(&c, &east) || c.p != c.end)
		return false;
	*ret_unix_seconds = days * DAY_SECONDS + seconds - east;
	return true;
}

void uuid_new(char out[UUID_LEN + 1])
{
	uint8_t bytes[16];

	env_random(bytes, sizeof(bytes));
	bytes[6] = (bytes[6] & 0x0f) | 0x40; /* RFC 4122, 4.4 */
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	uuid_format(bytes, out);
}

static bool dash_at(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_format(const uint8_t bytes[16], char out[UUID_LEN + 1])
{
	char hex[33];
	const char *h = hex;

	hex_encode(bytes, 16, hex);
	for (size_t i = 0; i < UUID_LEN; i++)
		out[i] = dash_at(i) ? '-' : *h++;
	out[UUID_LEN] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool uuid_valid(const char *s, size_t n)
{
	if (n != UUID_LEN)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (dash_at(i) ? s[i] != '-' : hex_digit(s[i]) < 0)
			return false;
	}
	return true;
}

void ref_new(char out[REF_LEN + 1])
{
	memcpy(out, REF_PREFIX, sizeof(REF_PREFIX) - 1);
	uuid_new(out + sizeof(REF_PREFIX) - 1);
}

/* Digits up to the end, at least one. */
static bool parse_digits(struct cursor *c, unsigned base, uint64_t *ret)
{
	uint64_t v = 0;

	if (c->p == c->end)
		return false;
	for (; c->p < c->end; c->p++) {
		int digit = hex_digit(*c->p);

		if (digit < 0 || digit >= (int)base ||
		    __builtin_mul_overflow(v, base, &v) ||
		    __builtin_add_overflow(v, (uint64_t)digit, &v))
			return false;
	}
	*ret = v;
	return true;
}

bool int_parse(const char *s, size_t n, int64_t *ret)
{
	struct cursor c = { s, s + n };
	bool negative = take_char(&c, '-');
	unsigned base = 10;
	uint64_t v;

	if (!negative)
		take_char(&c, '+');
	if (c.end - c.p > 2 && c.p[0] == '0' && (c.p[1] | 0x20) == 'x') {
		c.p += 2;
		base = 16;
	}
	if (!parse_digits(&c, base, &v) || v > (uint64_t)INT64_MAX + negative)
		return false;
	/* Through unsigned: the most negative has no positive twin. */
	*ret = (int64_t)(negative ? 0 - v : v);
	return true;
}

bool float_parse(const char *s, size_t n, double *ret)
{
	char copy[512], *end;
	double d;

	/* strtod() would skip white space and take hex and nan(text). */
	if (n == 0 || n >= sizeof(copy) || memchr(s, '(', n) ||
	    memchr(s, 'x', n) || memchr(s, 'X', n) || (uint8_t)s[0] <= ' ')
		return false;
	memcpy(copy, s, n);
	copy[n] = '\0';
	errno = 0;
	d = strtod(copy, &end);
	/* ERANGE with a small result is underflow: as near as a double gets. */
	if (end != copy + n || (errno == ERANGE && (d > 1 || d < -1)))
		return false;
	*ret = d;
	return true;
}

void hex_encode(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

bool hex_decode(const char *s, size_t n, uint8_t *out)
{
	if (n % 2)
		return false;
	for (size_t i = 0; i < n; i += 2) {
		int hi = hex_digit(s[i]), lo = hex_digit(s[i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		*out++ = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

bool path_is_plain(const char *path, size_t max)
{
	if (*path != '/' || strlen(path) > max ||
	    path[strlen(path) - 1] == '/')
		return false;
	for (const char *q = path; q; q = strchr(q + 1, '/'))
		if (!strncmp(q, "//", 2) || !strncmp(q, "/../", 4) ||
		    !strcmp(q, "/..") || !strncmp(q, "/./", 3) ||
		    !strcmp(q, "/."))
			return false;
	return true;
}
