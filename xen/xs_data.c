#include "xen/xs_data.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xenstore.h>

/* Others write at the same time. */
#define MAX_TRIES 20

static const char *const folders[] = { "vm-data", "FIST" };

static int failed(void)
{
	return errno ? -errno : -EIO;
}

static int folder_clear(struct xs_handle *xs, xs_transaction_t t,
			const char *dir, const char *name)
{
	_cleanup_(freep) char *path = xasprintf("%s/%s", dir, name);

	errno = 0;
	return xs_rm(xs, t, path) || errno == ENOENT ? 0 : failed();
}

static int node_write(struct xs_handle *xs, xs_transaction_t t, const char *dir,
		      const struct value *key, const struct value *text)
{
	_cleanup_(freep) char *path = xasprintf("%s/%s", dir, value_str(key));

	errno = 0;
	return xs_write(xs, t, path, text->s, text->n) ? 0 : failed();
}

static int write_all(struct xs_handle *xs, xs_transaction_t t, const char *dir,
		     const struct value *nodes)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++)
		r = folder_clear(xs, t, dir, folders[i]);
	for (size_t i = 0; i < nodes->n && r == 0; i++)
		r = node_write(xs, t, dir, nodes->items[2 * i],
			       nodes->items[2 * i + 1]);
	return r;
}

int xs_data_write(struct xs_handle *xs, uint32_t domid,
		  const struct value *nodes)
{
	_cleanup_(freep) char *dir = xasprintf("/local/domain/%u", domid);
	int r = -EAGAIN;

	for (unsigned i = 0; i < MAX_TRIES && r == -EAGAIN; i++) {
		xs_transaction_t t = xs_transaction_start(xs);

		if (t == XBT_NULL)
			return failed();
		r = write_all(xs, t, dir, nodes);
		errno = 0;
		if (!xs_transaction_end(xs, t, r != 0) && r == 0)
			r = failed();
	}
	return r;
}
