/* CONNECT /console and its WebSocket: from the request to an open stream. */
#ifndef RPC_CONSOLE_H
#define RPC_CONSOLE_H

#include "rpc/conn.h"

/* c->req is such a request, its head still in c->in. */
void console_start(struct conn *c);
/* The core has answered a call that console_start() led to. Takes call. True:
 * c has made another one. */
bool console_answered(struct conn *c, struct call *call);
/* From the stream: the other member has opened it, or would not. */
void console_ready(struct conn *c);
void console_refused(struct conn *c, int status, const char *why);
void console_free(struct console *con); /* NULL is fine */

#endif
