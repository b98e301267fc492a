/* What a viewer of RFB does: is there somebody at the keyboard? Only looks at the
 * bytes as they go by (RFC 6143, 7.1-7.5), which it never changes or refuses.
 */
#ifndef RPC_RFB_WATCH_H
#define RPC_RFB_WATCH_H

#include "base/util.h"

struct rfb_watch {
	uint8_t step;       /* enum rfb_step, of the .c file */
	uint8_t have;       /* bytes of the message's head */
	uint8_t head[8];
	uint64_t skip;      /* bytes that say nothing more */
};

/* n bytes of the viewer's, the first ones after a zeroed watch. True: there was a
 * key or the pointer among them, or something that is not RFB's core protocol:
 * from then on all counts. */
bool rfb_watch(struct rfb_watch *w, const char *p, size_t n);

#endif
