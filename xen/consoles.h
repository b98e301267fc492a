/* The consoles of this host's domains and of the host itself: a thread that
 * opens them, one at a time, because asking the hypervisor for one may take a
 * while, and the processes (xenpool-vncterm) that make RFB of text.
 */
#ifndef XEN_CONSOLES_H
#define XEN_CONSOLES_H

#include "xen/xen_ops.h"

#define CONSOLES_MAX_PENDING 64 /* asked for, not told yet */

struct consoles;

struct consoles_config {
	const struct xen_ops *ops;
	struct xen *xen;
	const char *state_dir;    /* made when missing: console/ in it */
	const char *vncterm;      /* the program */
	const char *console_user; /* that it becomes, when we are root */
	/* Something is to be told; any thread. */
	void (*wake)(void *data);
	void *data;
};

int consoles_start(const struct consoles_config *cfg, struct consoles **ret);
/* Ends the helper processes too. */
void consoles_stop(struct consoles *c);

/* The rest from one thread. msg: a `console`, of checked form. */
void consoles_open(struct consoles *c, const struct value *msg);
/* The oldest `console` reply that was not told yet, borrowed, and the stream
 * that goes with it (borrowed; -1: none); or NULL. */
const struct value *consoles_next(struct consoles *c, int *ret_fd);
/* That one is on its way. */
void consoles_told(struct consoles *c);
/* The daemon has gone: it asks again. */
void consoles_forget(struct consoles *c);

#endif
