/* One RPC call on its way from a front thread to the pool and back. */
#ifndef SCHEMA_CALL_H
#define SCHEMA_CALL_H

#include "base/lease.h"
#include "schema/schema.h"

enum call_mode { CALL_SYNC, CALL_ASYNC, CALL_INTERNAL_ASYNC };

/* How fresh the store must be that the call sees. */
enum call_read {
	CALL_READ_DEFAULT,      /* as its session wants it */
	CALL_READ_LINEARIZABLE, /* no finished write escapes it */
	CALL_READ_LOCAL,        /* this member's copy as it is */
};

/* Where a call came from; strings may be "". */
struct call_origin {
	char address[64];    /* client's address, "" on the Unix socket */
	char user_agent[128];
	bool local_root;     /* Unix socket with a root peer */
	bool secure;         /* TLS */
	enum call_read read;
	uint64_t min_generation; /* of the store that the call sees */
};

#define CALL_MAX_ARGS 32

struct call {
	const struct method_def *method; /* NULL: unknown (see name) */
	enum call_mode mode;
	char *name;             /* owned; as sent, without the Async. prefix */
	struct value *session;  /* the first parameter; NULL if there is none */
	struct value *args[CALL_MAX_ARGS]; /* coerced; optional ones filled in */
	unsigned n_args;
	struct call_origin origin;

	/* The outcome. Exactly one of the two is set by call_reply/call_fail. */
	struct value *result;
	struct value *error; /* set of strings, the code first */
	int fd; /* a stream that is part of the result, owned; -1: none */
	struct lease *lease; /* of that stream, owned; or NULL */
	/* Of the store when the outcome was there; 0: the pool was not asked. */
	uint64_t generation;
	/* How old the copy may be that a local read saw; -1: it was none. */
	int64_t age_ms;

	/* Called once, on the core thread, when the outcome is there; takes the
	 * call. The front end sets it. */
	void (*done)(struct call *c);
	void *owner;

	/* Set by the front thread when the client has gone: the pool may then
	 * give up waiting (work that was asked for goes on). */
	atomic_bool gone;

	void *pool_data; /* the pool's own, while it works on the call */
};

/* A code of our own: there is a viewer, and there may be one only. */
#define CALL_CONSOLE_LIMIT "CONSOLE_LIMIT_EXCEEDED"

struct call *call_new(void);
void call_free(struct call *c);

/* Takes result. */
void call_reply(struct call *c, struct value *result);
/* Code, then its parameters as C strings, then NULL. */
void call_fail(struct call *c, const char *code, ...);
/* Takes error. */
void call_fail_value(struct call *c, struct value *error);

/* [code, params...] as a value. */
struct value *api_error(const char *code, ...);

#endif
