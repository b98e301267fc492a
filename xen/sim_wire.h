/* Frames between two simulated hosts, over TCP:
 *
 *   "XPM1"  type:u8  length:u32  hash64(payload):u64  payload
 *
 *   source                          destination
 *   TOKEN   the ticket's token  ->
 *                               <-  OK, or REFUSED with the reason
 *   ROUND   empty, now and then ->  (keeps the link from being given up)
 *   STATE   the guest as JSON   ->  the source's copy is paused by now
 *                               <-  OK: the guest is here, paused, on disk
 *
 * A link that breaks before the last OK leaves the guest at its source; a copy
 * that has arrived stays paused until it is activated or aborted.
 */
#ifndef XEN_SIM_WIRE_H
#define XEN_SIM_WIRE_H

#include "base/buf.h"
#include "xen/xen_ops.h"

enum wire_type {
	WIRE_TOKEN = 1,
	WIRE_OK,
	WIRE_REFUSED,
	WIRE_ROUND,
	WIRE_STATE,
};

#define WIRE_HEAD 17
#define WIRE_MAX_PAYLOAD 65536
#define WIRE_TIMEOUT_MS 10000 /* of the source, for one step */

struct wire_frame {
	enum wire_type type;
	const char *payload; /* borrowed from the buffer */
	size_t len;          /* of the payload */
	size_t total;        /* to consume */
};

void wire_put(struct buf *b, enum wire_type type, const char *p, size_t n);
/* 1 and a frame; 0 not whole yet; -EBADMSG. */
int wire_parse(const struct buf *b, struct wire_frame *ret);

/* The source's side: wait for the socket, an abort (-ECANCELED) or the end of
 * time (-ETIMEDOUT). */
int wire_connect(const struct xen_ticket *to, int abort_fd, int *ret_fd);
int wire_send(int fd, int abort_fd, enum wire_type type, const char *p,
	      size_t n);
/* Waits for one frame; the one before must have been consumed. */
int wire_recv(int fd, int abort_fd, struct buf *in, struct wire_frame *ret);

/* Numeric IPv4 or IPv6; false when it is none. ret is a sockaddr_storage. */
struct sockaddr_storage;
bool wire_address(const char *address, uint16_t port,
		  struct sockaddr_storage *ret, unsigned *ret_len);

#endif
