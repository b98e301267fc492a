/* A growing byte buffer, and the binary encoding that logs, snapshots and
 * host-to-host messages share.
 *
 * Encoding: u8/u32/u64 little-endian; varint = LEB128, at most 10 bytes;
 * bytes = varint length + that many bytes. Readers never trust a length: they
 * fail when it passes the end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>

#include "base/util.h"

struct buf {
	char *data; /* owned; not NUL-terminated unless buf_cstr() is asked */
	size_t len;
	size_t cap;
};

#define BUF_INIT { NULL, 0, 0 }

void buf_deinit(struct buf *b);
void buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
/* NUL-terminates without counting the NUL. Borrowed until the next change. */
const char *buf_cstr(struct buf *b);
/* Gives the (NUL-terminated) memory to the caller, who frees it. */
char *buf_steal(struct buf *b, size_t *ret_len);
/* Drops the first n bytes. */
void buf_consume(struct buf *b, size_t n);

static inline void buf_putc(struct buf *b, char c)
{
	if (b->len == b->cap)
		buf_reserve(b, 1);
	b->data[b->len++] = c;
}

void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, uint64_t v);
void buf_put_bytes(struct buf *b, const void *p, size_t n);

/* After a failed read `bad` is set and every later read returns 0/NULL, so a
 * decoder may check once at its end. */
struct reader {
	const char *p, *end;
	bool bad;
};

static inline struct reader reader_of(const void *p, size_t n)
{
	const char *start = p;

	/* NULL + 0 is undefined in C. */
	return (struct reader){ start, n ? start + n : start, false };
}

uint8_t reader_u8(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
uint64_t reader_varint(struct reader *r);
/* Borrowed from the reader's memory. */
const char *reader_bytes(struct reader *r, size_t *ret_len);

#endif
