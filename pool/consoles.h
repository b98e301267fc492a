/* Consoles of this host, for the daemon: asks the executor for the streams, one
 * request and one reply each, and gives up on what is not answered. */
#ifndef POOL_CONSOLES_H
#define POOL_CONSOLES_H

#include <uv.h>

#include "base/list.h"
#include "pool/pool.h"
#include "xen/protocol.h"

struct consoles {
	struct exec_client *exec; /* borrowed */
	uv_timer_t timer;
	struct list waiting;
	unsigned n, next_id;
};

void consoles_init(struct consoles *c, uv_loop_t *loop);
/* pool_hooks.console */
void consoles_ask(struct consoles *c, const char *vm, bool raw,
		  pool_console_cb cb, void *data);
/* A message of the executor; false: it is not about consoles. Takes *fd. */
bool consoles_message(struct consoles *c, const struct value *msg, int *fd);
/* The executor has gone: nothing that was asked for will be answered. */
void consoles_lost(struct consoles *c);

#endif
