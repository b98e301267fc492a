/* The happy path of a call on the wire:
 *
 *   ->  (once) preface, SETTINGS, WINDOW_UPDATE of the connection
 *   ->  HEADERS, DATA with END_STREAM: a zero byte, u32 length, the message
 *   <-  HEADERS, DATA with a message, HEADERS with END_STREAM
 *
 * A call that fails ends with HEADERS alone, so no header needs to be decoded to
 * see it. Header fields that are the same in every call are put into the
 * peer's dynamic table by the first one and are one byte each from then on, as
 * with any gRPC client. What we may send is not counted: calls are small,
 * and the server opens its window again as it reads.
 */
#include "tools/bench_grpc.h"

#include <string.h>

enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_RST_STREAM = 3,
       FRAME_SETTINGS = 4, FRAME_PING = 6, FRAME_GOAWAY = 7,
       FRAME_WINDOW_UPDATE = 8 };
enum { FLAG_END_STREAM = 1, FLAG_ACK = 1, FLAG_END_HEADERS = 4 };

#define FRAME_HEAD 9
#define FRAME_MAX (1 << 20)

static void put_be(struct buf *b, uint32_t v, unsigned bytes)
{
	while (bytes-- > 0)
		buf_putc(b, (char)(v >> (8 * bytes)));
}

static uint32_t get_be(const char *p, unsigned bytes)
{
	uint32_t v = 0;

	while (bytes-- > 0)
		v = v << 8 | (uint8_t)*p++;
	return v;
}

static void put_frame(struct buf *b, unsigned type, unsigned flags,
		      uint32_t stream, const struct buf *payload)
{
	put_be(b, (uint32_t)payload->len, 3);
	put_be(b, type, 1);
	put_be(b, flags, 1);
	put_be(b, stream, 4);
	buf_append(b, payload->data, payload->len);
}

static void put_preface(struct buf *b)
{
	struct buf nothing = BUF_INIT, window = BUF_INIT;

	buf_puts(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	put_frame(b, FRAME_SETTINGS, 0, 0, &nothing);
	put_be(&window, 0x7fffffff - 65535, 4);
	put_frame(b, FRAME_WINDOW_UPDATE, 0, 0, &window);
	buf_deinit(&window);
}

/* ---- header fields (RFC 7541) ---- */

static void put_short_text(struct buf *b, const char *text)
{
	size_t n = MIN(strlen(text), (size_t)126);

	buf_putc(b, (char)n);
	buf_append(b, text, n);
}

static void put_headers(struct buf *b, bool first, const char *authority,
			const char *path)
{
	buf_puts(b, "\x83\x86"); /* :method POST, :scheme http */
	buf_putc(b, 0x04);	 /* :path, not kept */
	put_short_text(b, path);
	if (!first) {
		buf_puts(b, "\xc0\xbf\xbe"); /* the three below, as they were kept */
		return;
	}
	buf_putc(b, 0x41); /* :authority, kept */
	put_short_text(b, authority);
	buf_putc(b, 0x5f); /* content-type, kept */
	put_short_text(b, "application/grpc");
	buf_putc(b, 0x40); /* a new name, kept */
	put_short_text(b, "te");
	put_short_text(b, "trailers");
}

void grpc_put_call(struct grpc *g, struct buf *out, const char *authority,
		   const char *path, const struct buf *message)
{
	struct buf headers = BUF_INIT, data = BUF_INIT;
	bool first = g->stream == 0;

	if (first)
		put_preface(out);
	g->stream = first ? 1 : g->stream + 2;
	g->answered = false;
	buf_append(out, g->control.data, g->control.len);
	g->control.len = 0;
	put_headers(&headers, first, authority, path);
	put_be(&data, 0, 1);
	put_be(&data, (uint32_t)message->len, 4);
	buf_append(&data, message->data, message->len);
	put_frame(out, FRAME_HEADERS, FLAG_END_HEADERS, g->stream, &headers);
	put_frame(out, FRAME_DATA, FLAG_END_STREAM, g->stream, &data);
	buf_deinit(&headers);
	buf_deinit(&data);
}

/* ---- the answer ---- */

struct frame {
	uint32_t n, stream;
	unsigned type, flags;
	struct buf payload; /* borrowed */
};

/* 1: the call has ended, -1: so has the connection. */
static int take_frame(struct grpc *g, const struct frame *f)
{
	struct buf nothing = BUF_INIT;

	if (f->type == FRAME_GOAWAY)
		return -1;
	if (f->type == FRAME_SETTINGS && !(f->flags & FLAG_ACK))
		put_frame(&g->control, FRAME_SETTINGS, FLAG_ACK, 0, &nothing);
	if (f->type == FRAME_PING && !(f->flags & FLAG_ACK))
		put_frame(&g->control, FRAME_PING, FLAG_ACK, 0, &f->payload);
	if (f->stream != g->stream)
		return 0;
	if (f->type == FRAME_DATA && f->n >= 5)
		g->answered = true;
	return f->type == FRAME_RST_STREAM ||
	       ((f->type == FRAME_DATA || f->type == FRAME_HEADERS) &&
		f->flags & FLAG_END_STREAM);
}

int grpc_read(struct grpc *g, struct buf *in, bool *ret_ok)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && in->len - at >= FRAME_HEAD) {
		char *p = in->data + at;
		struct frame f = { .n = get_be(p, 3), .type = (uint8_t)p[3],
				   .flags = (uint8_t)p[4],
				   .stream = get_be(p + 5, 4) };

		if (f.n > FRAME_MAX)
			return -1;
		if (in->len - at < FRAME_HEAD + f.n)
			break;
		f.payload = (struct buf){ .data = p + FRAME_HEAD, .len = f.n };
		r = take_frame(g, &f);
		at += FRAME_HEAD + f.n;
	}
	buf_consume(in, at);
	*ret_ok = g->answered;
	return r;
}

void grpc_deinit(struct grpc *g)
{
	buf_deinit(&g->control);
	memset(g, 0, sizeof *g);
}

/* ---- protobuf ---- */

void grpc_put_bytes(struct buf *message, unsigned field, const char *text)
{
	buf_put_varint(message, field << 3 | 2);
	buf_put_varint(message, strlen(text));
	buf_puts(message, text);
}

void grpc_put_true(struct buf *message, unsigned field)
{
	buf_put_varint(message, field << 3);
	buf_put_varint(message, 1);
}
