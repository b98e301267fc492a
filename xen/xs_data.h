/* What the pool tells a guest: nodes below its domain's directory. */
#ifndef XEN_XS_DATA_H
#define XEN_XS_DATA_H

#include "schema/value.h"

struct xs_handle;

/* Makes nodes (a map of paths, all under vm-data/ or FIST/, to texts) all that
 * is there under these two, in one transaction. They belong to dom0, and the
 * guest reads them, as its directory is. Negative errno. */
int xs_data_write(struct xs_handle *xs, uint32_t domid,
		  const struct value *nodes);

#endif
