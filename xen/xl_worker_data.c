/* What the pool tells a running guest. */
#include <string.h>
#include <xenstore.h>

#include "xen/xl_worker.h"
#include "xen/xs_data.h"

int xl_op_xenstore(struct xl_worker *w)
{
	const struct value *nodes = value_get(w->request, "nodes");
	enum xl_look is;
	struct xs_handle *xs;
	uint32_t domid;
	int r;

	is = xl_look(w, &domid);
	if (is != XL_RUNNING && is != XL_PAUSED)
		return xl_fail_state(w, "running, paused", is);
	if (!nodes || nodes->kind != VALUE_MAP)
		return xl_fail(w, "INTERNAL_ERROR", "no nodes");
	xs = xs_open(0);
	if (!xs)
		return xl_fail(w, "INTERNAL_ERROR", "xenstored does not answer");
	r = xs_data_write(xs, domid, nodes);
	xs_close(xs);
	return r < 0 ? xl_fail(w, "INTERNAL_ERROR", strerror(-r)) : 0;
}
