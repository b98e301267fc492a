#include "rpc/route.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The HTTP handlers of the XenAPI, other than the RPC ones. */
static const struct absent {
	enum http_method method;
	const char *prefix;
	const char *handler;
} absent[] = {
	{ HTTP_GET, "/audit_log", "get_audit_log" },
	{ HTTP_GET, "/blob", "get_blob" },
	{ HTTP_GET, "/export", "get_export" },
	{ HTTP_GET, "/export_metadata", "get_export_metadata" },
	{ HTTP_GET, "/export_raw_vdi", "get_export_raw_vdi" },
	{ HTTP_GET, "/host_backup", "get_host_backup" },
	{ HTTP_GET, "/host_logs_download", "get_host_logs_download" },
	{ HTTP_GET, "/host_rrd", "host_rrd" },
	{ HTTP_GET, "/host_rrds", "get_host_rrds" },
	{ HTTP_GET, "/host_updates", "get_host_updates" },
	{ HTTP_GET, "/pool/xmldbdump", "get_pool_xml_db_sync" },
	{ HTTP_GET, "/repository", "get_repository" },
	{ HTTP_GET, "/repository/enabled", "get_enabled_repository" },
	{ HTTP_GET, "/rrd_updates", "rrd_updates" },
	{ HTTP_GET, "/services", "get_services" },
	{ HTTP_GET, "/services/SM", "get_services_sm" },
	{ HTTP_GET, "/services/xenops", "get_services_xenops" },
	{ HTTP_GET, "/sr_rrd", "sr_rrd" },
	{ HTTP_GET, "/sync_config_files", "get_config_sync" },
	{ HTTP_GET, "/system-status", "get_system_status" },
	{ HTTP_GET, "/update/", "get_pool_update_download" },
	{ HTTP_GET, "/updates", "get_updates" },
	{ HTTP_GET, "/vm_rrd", "vm_rrd" },
	{ HTTP_GET, "/vm_rrds", "get_vm_rrds" },
	{ HTTP_GET, "/vncsnapshot", "get_vncsnapshot" },
	{ HTTP_GET, "/wlb_diagnostics", "get_wlb_diagnostics" },
	{ HTTP_GET, "/wlb_report", "get_wlb_report" },
	{ HTTP_POST, "/cli", "post_cli" },
	{ HTTP_POST, "/remote_db_access", "post_remote_db_access" },
	{ HTTP_POST, "/remote_db_access_v2", "post_remote_db_access_v2" },
	{ HTTP_POST, "/services", "post_services" },
	{ HTTP_POST, "/services/SM", "post_services_sm" },
	{ HTTP_POST, "/services/xenops", "post_services_xenops" },
	{ HTTP_PUT, "/blob", "put_blob" },
	{ HTTP_PUT, "/bundle", "put_bundle" },
	{ HTTP_PUT, "/host_restore", "put_host_restore" },
	{ HTTP_PUT, "/import", "put_import" },
	{ HTTP_PUT, "/import_metadata", "put_import_metadata" },
	{ HTTP_PUT, "/import_raw_vdi", "put_import_raw_vdi" },
	{ HTTP_PUT, "/messages", "put_messages" },
	{ HTTP_PUT, "/pool/xmldbdump", "put_pool_xml_db_sync" },
	{ HTTP_PUT, "/pool_patch_upload", "put_pool_patch_upload" },
	{ HTTP_PUT, "/rrd", "put_rrd" },
	{ HTTP_PUT, "/services", "put_services" },
	{ HTTP_PUT, "/services/SM", "put_services_sm" },
	{ HTTP_PUT, "/services/xenops", "put_services_xenops" },
	{ HTTP_CONNECT, "/remotecmd", "connect_remotecmd" },
};

/* What a path that is in no table belongs to. */
static const enum route_kind fallback[] = {
	[HTTP_GET] = ROUTE_FILE,         [HTTP_POST] = ROUTE_XMLRPC,
	[HTTP_PUT] = ROUTE_FORBIDDEN,    [HTTP_CONNECT] = ROUTE_FORBIDDEN,
	[HTTP_OPTIONS] = ROUTE_OPTIONS,  [HTTP_HEAD] = ROUTE_UNKNOWN,
	[HTTP_OTHER] = ROUTE_UNKNOWN,
};

#define CONSOLE "/console"

struct route route_find(const struct http_request *r)
{
	struct route found = { fallback[r->method], NULL };
	size_t longest = 0;

	if (r->method == HTTP_POST && strcmp(r->path, "/jsonrpc") == 0)
		return (struct route){ ROUTE_JSONRPC, NULL };
	if ((r->method == HTTP_CONNECT || r->method == HTTP_GET) &&
	    strncmp(r->path, CONSOLE, strlen(CONSOLE)) == 0)
		return (struct route){ ROUTE_CONSOLE, NULL };
	for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
		size_t n = strlen(absent[i].prefix);

		if (absent[i].method != r->method || n <= longest ||
		    strncmp(r->path, absent[i].prefix, n) != 0)
			continue;
		longest = n;
		found = (struct route){ ROUTE_ABSENT, absent[i].handler };
	}
	return found;
}

/* Files. */

static const struct {
	const char *suffix;
	const char *type;
} types[] = {
	{ ".html", "text/html" },        { ".htm", "text/html" },
	{ ".css", "text/css" },          { ".js", "application/javascript" },
	{ ".json", "application/json" }, { ".txt", "text/plain" },
	{ ".xml", "application/xml" },   { ".png", "image/png" },
	{ ".jpg", "image/jpeg" },        { ".jpeg", "image/jpeg" },
	{ ".gif", "image/gif" },         { ".svg", "image/svg+xml" },
	{ ".ico", "image/x-icon" },
};

static const char *type_of(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		size_t suffix = strlen(types[i].suffix);

		if (n > suffix && strcmp(path + n - suffix,
					 types[i].suffix) == 0)
			return types[i].type;
	}
	return "application/octet-stream";
}

static void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static int read_all(int fd, size_t size, struct buf *b)
{
	size_t end = b->len + size;
	ssize_t n;

	buf_reserve(b, size);
	while (b->len < end) {
		n = read(fd, b->data + b->len, end - b->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		b->len += (size_t)n;
	}
	return 0;
}

/* Resolves links and "..": the result is below dir, or -ENOENT. It is the
 * caller's. */
static int resolve(const char *dir, const char *path, char **ret)
{
	_cleanup_(freep) char *root = realpath(dir, NULL);
	_cleanup_(freep) char *joined = NULL;
	_cleanup_(freep) char *full = NULL;
	size_t n;

	if (!root)
		return -ENOENT;
	joined = xasprintf("%s/%s", root, path);
	full = realpath(joined, NULL);
	n = strlen(root);
	if (!full || strncmp(full, root, n) != 0 ||
	    (full[n] != '/' && full[n] != '\0'))
		return -ENOENT;
	*ret = TAKE_PTR(full);
	return 0;
}

static int open_file(const char *dir, const char *path, struct stat *st,
		     const char **ret_type)
{
	_cleanup_(freep) char *full = NULL, *index = NULL;
	int r, fd;

	r = resolve(dir, path, &full);
	if (r == 0 && stat(full, st) == 0 && S_ISDIR(st->st_mode)) {
		index = xasprintf("%s/index.html", path);
		free(TAKE_PTR(full));
		r = resolve(dir, index, &full);
	}
	if (r < 0)
		return r;
	/* O_NONBLOCK: a FIFO must not hang the thread. */
	fd = open(full, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, st) < 0) {
		r = -errno;
		closep(&fd);
		return r;
	}
	*ret_type = type_of(full);
	return fd;
}

int route_read_file(const char *dir, const char *path, struct buf *b,
		    const char **ret_type)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;

	if (!dir || path[0] != '/')
		return -ENOENT;
	fd = open_file(dir, path, &st, ret_type);
	if (fd < 0)
		return fd;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	if (st.st_size > ROUTE_MAX_FILE)
		return -EFBIG;
	return read_all(fd, (size_t)st.st_size, b);
}
