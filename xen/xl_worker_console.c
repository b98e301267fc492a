/* Inside a worker process: where a domain's console is. */
#include <stdlib.h>
#include <xenstore.h>

#include "xen/xl_worker.h"

/* A node below the domain's own, the caller's to free; NULL: there is none. */
static char *store_read(uint32_t domid, const char *name)
{
	_cleanup_(freep) char *path =
		xasprintf("/local/domain/%u/%s", domid, name);
	struct xs_handle *xs = xs_open(0);
	unsigned len;
	char *text;

	if (!xs)
		return NULL;
	text = xs_read(xs, XBT_NULL, path, &len);
	xs_close(xs);
	return text;
}

int xl_op_console(struct xl_worker *w)
{
	_cleanup_(freep) char *tty = NULL, *port = NULL;
	uint32_t domid;
	enum xl_look is = xl_look(w, &domid);
	int rc;

	if (is == XL_NONE)
		return xl_fail_state(w, "running", is);
	port = store_read(domid, "console/vnc-port");
	if (!port) {
		rc = libxl_primary_console_get_tty(w->ctx, domid, &tty);
		if (rc)
			return xl_fail_libxl(w, "tell its console", rc);
	}
	w->result = value_struct_of(
		"domid", value_int(domid), "tty", value_stringz(tty ? tty : ""),
		"vnc_port", value_int(port ? strtol(port, NULL, 10) : 0), NULL);
	return 0;
}
