#include "rpc/websocket.h"

#include <openssl/evp.h>
#include <string.h>

enum opcode {
	OP_MORE = 0,
	OP_BINARY = 2,
	OP_CLOSE = 8,
	OP_PING = 9,
	OP_PONG = 10,
};

#define FIN 0x80
#define MASKED 0x80
#define CONTROL 0x08 /* bit of the opcodes of control frames */

#define CLOSE_NORMAL 1000
#define CLOSE_PROTOCOL 1002
#define CLOSE_UNSUPPORTED 1003

bool ws_accept(const char *key, size_t n, char out[WS_ACCEPT_LEN + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char plain[18], digest[EVP_MAX_MD_SIZE];
	char text[24 + sizeof(guid)];

	if (n != 24 || key[22] != '=' || key[23] != '=' ||
	    EVP_DecodeBlock(plain, (const unsigned char *)key, 24) != 18)
		return false;
	memcpy(text, key, 24);
	memcpy(text + 24, guid, sizeof(guid));
	EVP_Digest(text, 24 + sizeof(guid) - 1, digest, NULL, EVP_sha1(), NULL);
	EVP_EncodeBlock((unsigned char *)out, digest, 20);
	return true;
}

/* ---- frames out ---- */

static void put_frame(struct buf *b, enum opcode op, const char *p, size_t n)
{
	buf_putc(b, (char)(FIN | op));
	if (n < 126) {
		buf_putc(b, (char)n);
	} else if (n < 65536) {
		buf_putc(b, 126);
		buf_putc(b, (char)(n >> 8));
		buf_putc(b, (char)n);
	} else {
		buf_putc(b, 127);
		for (int shift = 56; shift >= 0; shift -= 8)
			buf_putc(b, (char)((uint64_t)n >> shift));
	}
	buf_append(b, p, n);
}

void ws_put_data(struct buf *b, const char *p, size_t n)
{
	put_frame(b, OP_BINARY, p, n);
}

void ws_put_close(struct buf *b, unsigned code)
{
	const char payload[2] = { (char)(code >> 8), (char)code };

	put_frame(b, OP_CLOSE, payload, 2);
}

/* ---- frames in ---- */

static enum opcode op_of(const struct ws *w)
{
	return (enum opcode)(w->head[0] & 0x0f);
}

/* 2 bytes, the longer forms of a length, the mask. */
static unsigned head_length(const struct ws *w)
{
	unsigned n = w->have < 2 ? 0 : w->head[1] & 0x7f;

	if (w->have < 2)
		return 2;
	return 6 + (n == 126 ? 2 : n == 127 ? 8 : 0);
}

static uint64_t payload_length(const struct ws *w)
{
	unsigned n = w->head[1] & 0x7f, bytes = n == 126 ? 2 : 8;
	uint64_t v = 0;

	if (n < 126)
		return n;
	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | w->head[2 + i];
	return v;
}

/* 0, or the code with which to close. From the first two bytes alone, so that
 * nothing is waited for that is refused anyway. */
static unsigned check_start(const struct ws *w)
{
	bool fin = w->head[0] & FIN;
	enum opcode op = op_of(w);

	if (w->head[0] & 0x70) /* no extension was agreed on (5.2) */
		return CLOSE_PROTOCOL;
	if (!(w->head[1] & MASKED)) /* (5.1) */
		return CLOSE_PROTOCOL;
	if (op & CONTROL) {
		if (!fin || (w->head[1] & 0x7f) > WS_CONTROL_MAX ||
		    op > OP_PONG)
			return CLOSE_PROTOCOL;
		return 0;
	}
	if (op == 1)
		return CLOSE_UNSUPPORTED;
	if ((op != OP_MORE && op != OP_BINARY) ||
	    w->in_message != (op == OP_MORE))
		return CLOSE_PROTOCOL;
	return 0;
}

/* The rest of the head has come: 5.2 wants the shortest form of a length. */
static unsigned check_length(const struct ws *w, uint64_t n)
{
	unsigned form = w->head[1] & 0x7f;

	if ((form == 126 && n < 126) || (form == 127 && n < 65536) || n >> 63)
		return CLOSE_PROTOCOL;
	return 0;
}

static void close_with(struct ws *w, struct buf *replies, unsigned code)
{
	w->closed = true;
	ws_put_close(replies, code);
}

/* Which codes a client may send (7.4). */
static bool close_code_valid(unsigned code)
{
	return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 &&
		code != 1006) || (code >= 3000 && code <= 4999);
}

static void on_close(struct ws *w, struct buf *replies)
{
	const uint8_t *p = (const uint8_t *)w->control;
	unsigned code = CLOSE_NORMAL;

	if (w->n_control == 1)
		code = CLOSE_PROTOCOL;
	else if (w->n_control >= 2)
		code = (unsigned)p[0] << 8 | p[1];
	close_with(w, replies, close_code_valid(code) ? code : CLOSE_PROTOCOL);
}

static void frame_done(struct ws *w, struct buf *replies)
{
	enum opcode op = op_of(w);

	if (op == OP_PING)
		put_frame(replies, OP_PONG, w->control, w->n_control);
	else if (op == OP_CLOSE)
		on_close(w, replies);
	else if (!(op & CONTROL))
		w->in_message = !(w->head[0] & FIN);
	w->in_payload = false;
	w->have = 0;
}

static void start_payload(struct ws *w, struct buf *replies)
{
	unsigned code;

	w->left = payload_length(w);
	code = check_length(w, w->left);
	w->in_payload = true;
	w->mask_at = w->n_control = 0;
	if (code)
		close_with(w, replies, code);
	else if (w->left == 0)
		frame_done(w, replies);
}

/* One byte of a head. */
static void take_head(struct ws *w, uint8_t c, struct buf *replies)
{
	unsigned code;

	w->head[w->have++] = c;
	if (w->have == 2) {
		code = check_start(w);
		if (code) {
			close_with(w, replies, code);
			return;
		}
	}
	if (w->have == head_length(w))
		start_payload(w, replies);
}

static void unmask(struct ws *w, char *p, size_t n)
{
	const uint8_t *mask = w->head + w->have - 4;

	for (size_t i = 0; i < n; i++)
		p[i] = (char)((uint8_t)p[i] ^ mask[w->mask_at++ & 3]);
}

static size_t take_payload(struct ws *w, const char *p, size_t n,
			   struct buf *data, struct buf *replies)
{
	n = (size_t)MIN((uint64_t)n, w->left);
	if (op_of(w) & CONTROL) {
		memcpy(w->control + w->n_control, p, n);
		unmask(w, w->control + w->n_control, n);
		w->n_control += (unsigned)n;
	} else {
		buf_append(data, p, n);
		unmask(w, data->data + data->len - n, n);
	}
	w->left -= n;
	if (w->left == 0)
		frame_done(w, replies);
	return n;
}

enum ws_result ws_take(struct ws *w, const char *p, size_t n, struct buf *data,
		       struct buf *replies)
{
	while (n > 0 && !w->closed) {
		size_t used = 1;

		if (w->in_payload)
			used = take_payload(w, p, n, data, replies);
		else
			take_head(w, (uint8_t)*p, replies);
		p += used;
		n -= used;
	}
	return w->closed ? WS_CLOSED : WS_OPEN;
}
