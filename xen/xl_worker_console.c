/* Inside a worker process: where a domain's console is. */
#include "xen/xl_worker.h"

int xl_op_console(struct xl_worker *w)
{
	_cleanup_(freep) char *tty = NULL, *vnc = NULL;
	uint32_t domid;
	enum xl_look is = xl_look(w, &domid);
	int rc;

	if (is == XL_NONE)
		return xl_fail_state(w, "running", is);
	if (xl_type_of(w, domid) == LIBXL_DOMAIN_TYPE_HVM) {
		vnc = xl_vnc_path(w);
	} else {
		rc = libxl_primary_console_get_tty(w->ctx, domid, &tty);
		if (rc)
			return xl_fail_libxl(w, "tell its console", rc);
	}
	w->result = value_struct_of(
		"domid", value_int(domid), "tty", value_stringz(tty ? tty : ""),
		"vnc", value_stringz(vnc ? vnc : ""), NULL);
	return 0;
}
