/* The front end: N threads that own the client sockets. Each turns bytes into
 * calls, hands them to the core thread's loop by a queue, and turns outcomes
 * into bytes again. It knows the schema and nothing of the pool.
 */
#ifndef RPC_FRONT_H
#define RPC_FRONT_H

#include "schema/call.h"

#include <uv.h>

struct front;

struct front_config {
	const char *address;      /* IPv4 or IPv6 literal to listen on */
	unsigned https_port;      /* 0: none */
	unsigned http_port;       /* plain HTTP; 0: none */
	const char *http_address; /* NULL: as address */
	const char *unix_path;    /* plain HTTP on a Unix socket; NULL: none */
	const char *cert_file, *key_file;
	const char *www_dir;      /* static files for GET; NULL: none */
	unsigned n_threads;       /* 0: one for two cores, at most 8 */

	/* Limits; 0 takes the default. */
	unsigned max_connections;  /* 800 over TCP, as many again on Unix */
	unsigned max_streams;      /* 256 consoles, of those connections */
	unsigned max_header_bytes; /* 16384 */
	unsigned max_body_bytes;   /* 4 MiB */
	unsigned max_depth;        /* 32: nesting of XML and JSON */
	unsigned header_timeout_s; /* 60 for the first request's header */
	unsigned idle_timeout_s;   /* 3600 between requests */
	unsigned write_timeout_s;  /* 60: a client that stops reading */
};

/* On the core thread, for every well-formed call. Takes c; ends with c->done
 * (through call_reply/call_fail), at any later time. */
typedef void (*front_call_fn)(void *data, struct call *c);

/* Could one listen there? 0, or a negative errno. port 0: nobody wants to. */
int front_check_port(const char *address, unsigned port);

/* Starts the threads and listens. The process must ignore SIGPIPE. core is the loop of the thread that runs
 * front_call_fn. Negative errno and a log line that names the address on
 * failure. */
int front_start(uv_loop_t *core, const struct front_config *cfg,
		front_call_fn fn, void *data, struct front **ret);

struct front_status {
	unsigned connections;
	uint64_t requests, errors_4xx, errors_5xx;
};
void front_get_status(const struct front *f, struct front_status *ret);

/* On the core thread: wakes the threads that have outcomes to send. The front end
 * does it by itself before the loop waits; whoever causes outcomes after that, in
 * a prepare handle that runs later, calls it again. */
void front_flush(struct front *f);

/* On the core thread: stops accepting, lets replies under way finish for at
 * most a second, joins the threads. Blocks. f may not be used afterwards,
 * except by calls that the core still has: they may be answered, to nobody,
 * as long as the core's loop runs, which also frees f. */
void front_stop(struct front *f);

#endif
