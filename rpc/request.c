#include "rpc/request.h"

#include <string.h>

#define DUMP_MAX_BYTES 64

void rpc_request_deinit(struct rpc_request *r)
{
	free(r->method);
	value_unref(r->params);
	value_unref(r->id);
	*r = (struct rpc_request)RPC_REQUEST_INIT;
}

static void put_escaped(struct buf *b, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";

	if (c >= 0x20 && c < 0x7f && c != '\\') {
		buf_putc(b, (char)c);
		return;
	}
	buf_puts(b, "\\x");
	buf_putc(b, hex[c >> 4]);
	buf_putc(b, hex[c & 15]);
}

struct value *rpc_bad_text(const char *p, size_t n)
{
	_cleanup_(buf_deinit) struct buf dump = BUF_INIT;

	for (size_t i = 0; i < MIN(n, (size_t)DUMP_MAX_BYTES); i++)
		put_escaped(&dump, (uint8_t)p[i]);
	if (n > DUMP_MAX_BYTES)
		buf_puts(&dump, "...");
	return value_set_of("INVALID_VALUE",
			    "Invalid UTF-8 string in parameter",
			    buf_cstr(&dump), NULL);
}

size_t rpc_utf8_prefix(const char *p, size_t n, size_t max)
{
	if (n <= max)
		return n;
	n = max;
	while (n > 0 && ((uint8_t)p[n] & 0xc0) == 0x80)
		n--;
	return n;
}

void rpc_put_int(struct buf *b, int64_t v)
{
	char digits[20];
	uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + u % 10);
		u /= 10;
	} while (u > 0);
	if (v < 0)
		buf_putc(b, '-');
	buf_append(b, digits + i, sizeof(digits) - i);
}
