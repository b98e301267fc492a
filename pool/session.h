/* Sessions' state, shared by session.c and session_gc.c. */
#ifndef POOL_SESSION_H
#define POOL_SESSION_H

#include "pool/core.h"

struct session_state {
	struct map local;    /* ref -> struct local_session */
	struct map touching; /* ref -> struct touch: last_active being written */
	struct list queue;   /* logins that wait for a password check */
	unsigned queued, checking;
	struct pool_timer gc;
};

void session_gc_init(struct pool *p);

#endif
