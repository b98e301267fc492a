/* Inside of raftdb/link*.c. */
#ifndef RAFTDB_LINK_IMPL_H
#define RAFTDB_LINK_IMPL_H

#include <openssl/ssl.h>

#include "base/list.h"
#include "raftdb/link.h"

#define LINK_SCRATCH (64 * 1024)
#define LINK_PREAMBLE_LEN 22
#define LINK_ANSWER_LEN 14

struct link {
	uv_loop_t *loop;
	uv_tcp_t listener;
	uv_timer_t sweeper;
	SSL_CTX *ctx;
	uint64_t id;
	struct link_ops ops;
	struct list conns; /* struct link_conn.in_link */
	struct list dirty; /* struct link_conn.in_dirty: frames to send */
	unsigned n_handles; /* not yet closed, of every kind */
	unsigned n_strangers;
	unsigned sweeps;
	unsigned log_tokens, log_dropped;
	bool closing;
	void (*close_cb)(void *data);
	void *close_data;
	char rx[LINK_SCRATCH], plain[LINK_SCRATCH], tx[LINK_SCRATCH];
};

/* CONNECTING -> HANDSHAKE -> PREAMBLE -> READY; any -> CLOSED. An accepted one
 * starts in HANDSHAKE. */
enum conn_state {
	CONN_CONNECTING,
	CONN_HANDSHAKE,
	CONN_PREAMBLE,
	CONN_READY,
	CONN_CLOSED,
};

struct link_conn {
	struct link *link;
	uv_tcp_t tcp;
	uv_connect_t connect;
	SSL *ssl;
	BIO *rbio, *wbio; /* the ssl's */
	enum conn_state state;
	enum link_kind kind;
	bool outgoing, stranger, reading, paused, framing;
	uint64_t peer_id;
	char fingerprint[65];
	char address[64]; /* of the other side, for the log */
	int64_t deadline; /* of the handshake, env_mono_ms */
	size_t queued;    /* ciphertext given to libuv */
	size_t frame_at;  /* of the open frame in out */
	struct buf in;    /* plaintext not handled yet */
	struct buf out;   /* frames not encrypted yet */
	const struct link_conn_ops *ops;
	void *data;
	char why[160];
	struct list in_link, in_dirty;
};

struct link_conn *conn_new(struct link *l);
/* After the TCP connection stands: TLS. */
void conn_start(struct link_conn *c, bool outgoing);
void conn_fail(struct link_conn *c, const char *fmt, ...) _printf_(2, 3);
void conn_flush(struct link_conn *c);
void link_handle_closed(struct link *l);
/* Refusals are logged, but nobody may fill the log with them. */
void link_log(struct link *l, const char *fmt, ...) _printf_(2, 3);
SSL_CTX *link_tls_context(const char *cert_file, const char *key_file);
/* SHA-256 of the peer's certificate; false if it showed none. */
bool link_tls_fingerprint(SSL *ssl, char ret[65]);

#endif
