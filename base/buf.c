#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#define BUF_MIN_CAP 64

void buf_deinit(struct buf *b)
{
	free(b->data);
	*b = (struct buf)BUF_INIT;
}

void buf_reserve(struct buf *b, size_t more)
{
	size_t need, cap;

	if (more <= b->cap - b->len)
		return;
	xassert(more <= SIZE_MAX / 4 - b->len);
	need = b->len + more;
	/* Doubling keeps a long run of small appends linear. */
	cap = MAX(b->cap * 2, (size_t)BUF_MIN_CAP);
	b->cap = MAX(cap, need);
	b->data = xrealloc(b->data, b->cap);
}

void buf_append(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return;
	buf_reserve(b, n);
	memcpy(b->data + b->len, p, n);
	b->len += n;
}

void buf_puts(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	int n;

	buf_reserve(b, 1);
	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap);
	va_end(ap);
	xassert(n >= 0);
	if ((size_t)n >= b->cap - b->len) {
		buf_reserve(b, (size_t)n + 1);
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	b->len += (size_t)n;
}

const char *buf_cstr(struct buf *b)
{
	buf_reserve(b, 1);
	b->data[b->len] = '\0';
	return b->data;
}

char *buf_steal(struct buf *b, size_t *ret_len)
{
	char *data;

	buf_cstr(b);
	data = b->data;
	if (ret_len)
		*ret_len = b->len;
	*b = (struct buf)BUF_INIT;
	return data;
}

void buf_consume(struct buf *b, size_t n)
{
	xassert(n <= b->len);
	b->len -= n;
	if (n > 0 && b->len > 0)
		memmove(b->data, b->data + n, b->len);
}

static void put_little_endian(struct buf *b, uint64_t v, unsigned bytes)
{
	char out[8];

	for (unsigned i = 0; i < bytes; i++)
		out[i] = (char)(v >> (8 * i));
	buf_append(b, out, bytes);
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_putc(b, (char)v);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	put_little_endian(b, v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	put_little_endian(b, v, 8);
}

void buf_put_varint(struct buf *b, uint64_t v)
{
	while (v >= 0x80) {
		buf_putc(b, (char)(v | 0x80));
		v >>= 7;
	}
	buf_putc(b, (char)v);
}

void buf_put_bytes(struct buf *b, const void *p, size_t n)
{
	buf_put_varint(b, n);
	buf_append(b, p, n);
}

/* The next n bytes, or NULL with the reader turned bad. */
static const char *take(struct reader *r, uint64_t n)
{
	const char *p = r->p;

	if (r->bad || n > (uint64_t)(r->end - r->p)) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	return p;
}

static uint64_t read_little_endian(struct reader *r, unsigned bytes)
{
	const uint8_t *p = (const uint8_t *)take(r, bytes);
	uint64_t v = 0;

	if (!p)
		return 0;
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)read_little_endian(r, 1);
}

uint32_t reader_u32(struct reader *r)
{
	return (uint32_t)read_little_endian(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
	return read_little_endian(r, 8);
}

/* Only the shortest form is taken, so that equal things have equal bytes on
 * every member and a digest over bytes means what it says. */
uint64_t reader_varint(struct reader *r)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t c = reader_u8(r);

		if (r->bad || (shift == 63 && c > 1) || (shift > 0 && c == 0))
			break;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80)
			return v;
	}
	r->bad = true;
	return 0;
}

const char *reader_bytes(struct reader *r, size_t *ret_len)
{
	uint64_t n = reader_varint(r);
	const char *p = take(r, n);

	*ret_len = p ? (size_t)n : 0;
	return p;
}
