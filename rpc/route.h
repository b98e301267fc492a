/* Which handler a method and path belong to. */
#ifndef RPC_ROUTE_H
#define RPC_ROUTE_H

#include "rpc/http.h"

enum route_kind {
	ROUTE_XMLRPC,
	ROUTE_JSONRPC,
	ROUTE_OPTIONS,
	ROUTE_CONSOLE,
	ROUTE_FILE,      /* a file under www_dir, or 404 */
	ROUTE_ABSENT,    /* a handler of the API that is not built in: 501 */
	ROUTE_FORBIDDEN, /* 403 */
	ROUTE_UNKNOWN,   /* a method that HTTP handlers do not have: 501 */
};

struct route {
	enum route_kind kind;
	const char *handler; /* ROUTE_ABSENT: its name in the API; constant */
};

/* The longest known prefix of the path wins, as clients of the reference rely
 * on; /jsonrpc alone must be the whole path. */
struct route route_find(const struct http_request *r);

/* Reads the file that a path names below dir ("" or a trailing / mean
 * index.html). Neither ".." nor a link leads out of dir. Returns 0 with the
 * content appended and its type (constant), or -ENOENT, -EFBIG, or another
 * negative errno. Blocks on the disk: for small files. */
int route_read_file(const char *dir, const char *path, struct buf *b,
		    const char **ret_type);
#define ROUTE_MAX_FILE (16 * 1024 * 1024)

#endif
