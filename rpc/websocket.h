/* WebSocket (RFC 6455), the server's side: frames as a transformation of bytes.
 * Payload leaves as it arrives, whatever the length of its frame or message, so
 * the memory needed does not depend on what a client announces.
 */
#ifndef RPC_WEBSOCKET_H
#define RPC_WEBSOCKET_H

#include "base/buf.h"

#define WS_ACCEPT_LEN 28
#define WS_CONTROL_MAX 125 /* bytes of payload (5.5) */

/* The value of Sec-WebSocket-Accept for a client's key; false when the key is
 * not 16 bytes in base64. */
bool ws_accept(const char *key, size_t n, char out[WS_ACCEPT_LEN + 1]);

struct ws {
	uint8_t head[14]; /* of the frame that is arriving */
	unsigned have;    /* bytes of it */
	uint64_t left;    /* of its payload */
	unsigned mask_at;
	bool in_payload, in_message, closed;
	char control[WS_CONTROL_MAX]; /* payload of a control frame */
	unsigned n_control;
};

enum ws_result {
	WS_OPEN,
	WS_CLOSED, /* a close frame went both ways: the end */
};

/* Takes n bytes of a client. Data is appended to data, whole frames to be sent
 *  back (pong, close) to replies: at most 4 bytes more than came in. 0
 * (WS_OPEN) or WS_CLOSED, also when the client broke the protocol: then replies
 * ends with the close frame that tells it so. */
enum ws_result ws_take(struct ws *w, const char *p, size_t n, struct buf *data,
		       struct buf *replies);
/* Appends one binary frame. */
void ws_put_data(struct buf *b, const char *p, size_t n);
/* Appends a close frame (7.4.1: 1000 normal, 1001 going away). */
void ws_put_close(struct buf *b, unsigned code);

#endif
