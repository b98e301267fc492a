#include "rpc/rfb_watch.h"

#include <string.h>

enum rfb_step {
	RFB_VERSION,
	RFB_SECURITY, /* the viewer's choice, since 3.7 */
	RFB_INIT,
	RFB_MESSAGES,
	RFB_UNKNOWN,
};

#define VERSION_LEN 12

enum { SET_PIXEL_FORMAT, SET_ENCODINGS = 2, UPDATE_REQUEST, KEY, POINTER, CUT_TEXT };

/* Length of a message, and where in it is the number of what follows. */
static const struct message {
	uint8_t len;
	uint8_t count_at, count_len; /* big-endian; 0: nothing follows */
	uint8_t item_len;
	bool by_hand;
} messages[] = {
	[SET_PIXEL_FORMAT] = { .len = 20 },
	[SET_ENCODINGS] = { .len = 4, .count_at = 2, .count_len = 2,
			    .item_len = 4 },
	[UPDATE_REQUEST] = { .len = 10 },
	[KEY] = { .len = 8, .by_hand = true },
	[POINTER] = { .len = 6, .by_hand = true },
	[CUT_TEXT] = { .len = 8, .count_at = 4, .count_len = 4, .item_len = 1,
		       .by_hand = true },
};

/* The first bytes: "RFB 003.00x\n", of which only x matters. */
static void take_version(struct rfb_watch *w, char c)
{
	if (w->have == VERSION_LEN - 2)
		w->head[0] = (uint8_t)c;
	if (++w->have < VERSION_LEN)
		return;
	w->have = 0;
	w->step = w->head[0] >= '7' ? RFB_SECURITY : RFB_INIT;
}

/* True: by hand. */
static bool take_head(struct rfb_watch *w, char c)
{
	const struct message *m;
	uint64_t n = 0;

	w->head[w->have++] = (uint8_t)c;
	if (w->head[0] >= ARRAY_LEN(messages) || !messages[w->head[0]].len) {
		w->step = RFB_UNKNOWN;
		return true;
	}
	m = &messages[w->head[0]];
	if (w->have < m->count_at + m->count_len)
		return false;
	for (unsigned i = 0; i < m->count_len; i++)
		n = n << 8 | w->head[m->count_at + i];
	w->skip = m->len - w->have + n * m->item_len;
	w->have = 0;
	return m->by_hand;
}

static bool take(struct rfb_watch *w, char c)
{
	switch (w->step) {
	case RFB_VERSION:
		take_version(w, c);
		return false;
	case RFB_SECURITY:
		/* None (1) is followed by nothing of the viewer's. */
		w->step = c == 1 ? RFB_INIT : RFB_UNKNOWN;
		return false;
	case RFB_INIT:
		w->step = RFB_MESSAGES;
		return false;
	default:
		return take_head(w, c);
	}
}

bool rfb_watch(struct rfb_watch *w, const char *p, size_t n)
{
	bool by_hand = false;

	while (n > 0 && w->step != RFB_UNKNOWN) {
		size_t skip = (size_t)MIN(w->skip, (uint64_t)n);

		w->skip -= skip;
		p += skip;
		n -= skip;
		if (n == 0)
			break;
		by_hand |= take(w, *p);
		p++;
		n--;
	}
	return by_hand || w->step == RFB_UNKNOWN;
}
