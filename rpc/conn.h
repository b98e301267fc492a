/* One client's connection: what rpc/front.c and rpc/conn.c know of each other.
 *
 * A connection belongs to a front thread and is touched by no other, except
 * its `queue` link and its call while they are handed to the core thread and
 * back. One call of a connection is under way at a time.
 */
#ifndef RPC_CONN_H
#define RPC_CONN_H

#include <pthread.h>

#include "base/list.h"
#include "rpc/front.h"
#include "rpc/http.h"
#include "rpc/request.h"
#include "rpc/tls.h"

struct console;
struct stream;

enum listener_kind { LISTEN_HTTPS, LISTEN_HTTP, LISTEN_UNIX, LISTEN_MAX };

union stream_handle {
	uv_handle_t handle;
	uv_stream_t stream;
	uv_tcp_t tcp;
	uv_pipe_t pipe;
};

struct listener {
	union stream_handle h;
	struct front_thread *thread;
	enum listener_kind kind;
	int fd; /* -1: none, or given to the handle */
};

#define READ_CHUNK 65536

struct front_thread {
	struct front *front;
	unsigned number;
	char name[24];
	uv_thread_t id;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t tick;
	struct listener listeners[LISTEN_MAX];
	struct list conns;
	uint64_t stop_at; /* 0: running; else when to drop what is left */

	pthread_mutex_t lock; /* for the two below */
	struct list done;     /* conn.queue: outcomes from the core */
	bool stop;

	/* Calls that the core shall get before this loop waits. */
	struct list submitted;
	unsigned n_submitted;
	uv_prepare_t before_wait;
	unsigned n_due; /* the core's: outcomes of which the thread has no word */

	char chunk[READ_CHUNK]; /* what was just read */
};

struct front {
	struct front_config cfg; /* limits filled in; strings owned */
	front_call_fn fn;
	void *data;
	SSL_CTX *tls;
	struct front_thread *threads;
	unsigned n_threads;

	pthread_mutex_t lock; /* for the queue */
	struct list queue;    /* conn.queue: calls for the core */
	uv_async_t to_core;   /* on the core's loop */

	/* The core thread's own. */
	uv_prepare_t before_wait;
	unsigned calls;       /* given to fn, no outcome yet */
	unsigned n_open;      /* handles on the core's loop */
	bool stopped;

	atomic_uint n_tcp, n_unix;
	atomic_uint n_streams;
	atomic_size_t memory; /* of large buffers */
	atomic_uint_fast64_t requests, errors_4xx, errors_5xx;
};

enum conn_state {
	CONN_HEAD,   /* waits for a request, or for the rest of its head */
	CONN_BODY,
	CONN_CALL,   /* the core has the call */
	CONN_STREAM, /* a console: see rpc/stream.h */
	CONN_WRITE,
	CONN_LINGER, /* all said; reads on so that the client gets it all */
	CONN_CLOSED,
};

struct conn {
	struct list link;  /* in thread->conns */
	struct list queue; /* in front->queue or thread->done */
	struct front_thread *thread;
	union stream_handle h;
	enum listener_kind kind;
	enum conn_state state;
	uint64_t deadline; /* of the state, by the loop's clock, ms */
	uint64_t limit;    /* that progress may not push the deadline over */

	struct tls_stream *tls;
	struct buf in;     /* plain text from the client */
	struct buf cipher; /* TLS: to be sent */
	struct buf flight; /* TLS: being sent */
	struct buf out;    /* the reply, from out_start on */
	size_t out_start;
	size_t sent;       /* of out: given to TLS or the socket */
	size_t queued;     /* in the socket's queue at the last look */
	size_t charged;    /* to front->memory */
	uv_write_t write;
	uv_shutdown_t shutdown;

	struct http_request req;
	struct rpc_request rpc;
	struct call *call;
	struct console *console; /* owned; NULL: an ordinary request */
	struct stream *stream;   /* owned; in CONN_STREAM */
	bool reading, writing; /* handle: read started, write under way */
	bool rejected; /* over the limit of connections */
	bool timed;    /* the deadline is that of the head, not of idleness */
	bool keep;     /* the reply leaves the connection open */
	bool eof;      /* the client sends no more */
	bool local_root;
	bool handle_closed;
	char address[64];
};

/* Accepts one connection. */
void conn_accept(struct listener *l);
/* The core has answered c->call. */
void conn_answered(struct conn *c);
/* Looks at the deadlines. */
void conn_tick(struct conn *c, uint64_t now);
/* The thread ends: closes what is idle at once, all at last. */
void conn_stop(struct conn *c, bool now);
/* On the core thread, for a connection that outlived its thread. */
void conn_free(struct conn *c);

/* Hands c->call to the core. */
void front_submit(struct conn *c);

/* ---- for rpc/console.c and rpc/stream.c ---- */
void conn_fill_origin(const struct conn *c, struct call_origin *o);
/* Hands a call to the core, which answers by console_answered(). Takes call. */
void conn_submit(struct conn *c, struct call *call);
/* An error page, then the end; nothing of a stream has been sent yet. */
void conn_refuse(struct conn *c, int status, const char *detail);
/* c->stream is there. */
void conn_begin_stream(struct conn *c);
/* Sends what has been appended to c->out while nothing was on its way; once it
 * has gone, perhaps at once, the stream is told. */
void conn_send_stream(struct conn *c);
/* All has been sent: the orderly end. */
void conn_end_stream(struct conn *c);
void conn_adjust_reading(struct conn *c);

#endif
