/* Host-to-host connections: TCP with mutual TLS, on the core's loop. A member
 * listens on one port. A peer is who its certificate says: its SHA-256
 * fingerprint must be known; there is no certificate authority.
 *
 * On the wire, inside TLS (1.3, at least 1.2; both sides show certificates):
 *	connector: "XPLK" u8 version, u8 kind, u64 own id, u64 id it wants
 *	acceptor:  "XPLK" u8 version, u8 status, u64 own id
 * then frames: u32 length of the rest, u8 type, payload.
 */
#ifndef RAFTDB_LINK_H
#define RAFTDB_LINK_H

#include "base/buf.h"

#include <uv.h>

#include "raftdb/db.h"

struct link;
struct link_conn;

enum link_kind { LINK_MESSAGES = 1 };

#define LINK_FRAME_MAX (1024 * 1024 + 4096) /* payload of a frame */
#define LINK_HANDSHAKE_MS 5000
#define LINK_STRANGERS_MAX 64 /* accepted, not yet authenticated */
#define LINK_QUEUE_MAX (16 * 1024 * 1024) /* bytes waiting in a connection */
#define LINK_QUEUE_HIGH (1024 * 1024) /* memory above this is not kept */

struct link_config {
	const char *address; /* "127.0.0.1:8444" or "[::1]:8444"; copied */
	uint64_t id;
	const char *cert_file, *key_file; /* PEM; read at once */
};

struct link_ops {
	void *data;
	/* NULL: refuse. */
	db_trust_fn trusted;
	/* An authenticated member connected to us. Take the connection by
	 * link_conn_attach(), or it is closed. */
	void (*accepted)(void *data, struct link_conn *c, enum link_kind kind,
			 const struct db_member *m);
};

/* Where a connection reports: from the loop, never from inside a call of the
 * connection's own functions (but link_conn_pause(c, false) may give frames), and
 * no more after closed or link_conn_close(). */
struct link_conn_ops {
	void (*ready)(void *data); /* connector: the peer accepted us */
	/* Connector: for the peer we are no member; closed() follows. */
	void (*stranger)(void *data);
	void (*frame)(void *data, uint8_t type, const char *p, size_t n);
	/* Lost or refused; the connection is gone after this. */
	void (*closed)(void *data, const char *why);
};

/* Listens. Negative errno and a log line when the address or the certificate
 * cannot be used. */
int link_new(uv_loop_t *loop, const struct link_config *cfg,
	     const struct link_ops *ops, struct link **ret);
/* Closes all connections. cb when all handles are closed; link is freed. */
void link_close(struct link *l, void (*cb)(void *data), void *data);

/* Starts to connect. NULL (and a log line) when the address is not ip:port;
 * every other failure comes by closed(). ops borrowed. */
struct link_conn *link_connect(struct link *l, enum link_kind kind, uint64_t id,
			       const char *address,
			       const struct link_conn_ops *ops, void *data);
void link_conn_attach(struct link_conn *c, const struct link_conn_ops *ops,
		      void *data);
/* The owner wants it no more: no further callbacks. */
void link_conn_close(struct link_conn *c);

/* Writes a frame in place: append the payload to the buffer returned, then
 * end it. It leaves with the next link_flush(). NULL: the queue is full. */
struct buf *link_frame_begin(struct link_conn *c, uint8_t type);
void link_frame_end(struct link_conn *c);
/* Sends the frames of all connections. */
void link_flush(struct link *l);

/* Bytes waiting to go out. */
size_t link_conn_queued(const struct link_conn *c);
/* Stops and restarts reading (backpressure). */
void link_conn_pause(struct link_conn *c, bool pause);

/* "ip:port" or "[ip6]:port"; -EINVAL. */
int link_parse_address(const char *address, struct sockaddr_storage *ret);

#endif
