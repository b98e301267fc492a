#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "xen/files.h"

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static void tokener_freep(struct json_tokener **t)
{
	if (*t)
		json_tokener_free(*t);
}

void json_putp(struct json_object **o)
{
	if (*o)
		json_object_put(*o);
}

struct json_object *json_parse(const char *p, size_t n)
{
	_cleanup_(tokener_freep) struct json_tokener *t =
		json_tokener_new_ex(8);
	_cleanup_(json_putp) struct json_object *o = NULL;

	if (!t || n == 0 || n > JSON_MAX_BYTES)
		return NULL;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(t, p, (int)n);
	if (json_tokener_get_error(t) != json_tokener_success ||
	    json_tokener_get_parse_end(t) != n ||
	    !json_object_is_type(o, json_type_object))
		return NULL;
	return TAKE_PTR(o);
}

bool json_str(struct json_object *o, const char *key, char *out,
		  size_t size)
{
	struct json_object *m;
	size_t n;

	if (!json_object_object_get_ex(o, key, &m) ||
	    !json_object_is_type(m, json_type_string))
		return false;
	n = (size_t)json_object_get_string_len(m);
	if (n >= size || !text_valid(json_object_get_string(m), n))
		return false;
	memcpy(out, json_object_get_string(m), n + 1);
	return true;
}

bool json_int(struct json_object *o, const char *key, int64_t min,
		  int64_t max, int64_t *ret)
{
	struct json_object *m;

	if (!json_object_object_get_ex(o, key, &m) ||
	    !json_object_is_type(m, json_type_int))
		return false;
	*ret = json_object_get_int64(m);
	return *ret >= min && *ret <= max;
}

static void add(struct json_object *o, const char *key, struct json_object *m)
{
	xassert(m);
	xassert(json_object_object_add(o, key, m) == 0);
}

void json_add_str(struct json_object *o, const char *key, const char *s)
{
	add(o, key, json_object_new_string(s));
}

void json_add_int(struct json_object *o, const char *key, int64_t i)
{
	add(o, key, json_object_new_int64(i));
}

static int read_all(int fd, size_t max, struct buf *ret)
{
	char block[16384];
	ssize_t n;

	while ((n = read(fd, block, sizeof(block))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (ret->len + (size_t)n > max)
			return -E2BIG;
		buf_append(ret, block, (size_t)n);
	}
	return 0;
}

int file_read(const char *path, size_t max, struct buf *ret)
{
	_cleanup_(fd_close) int fd =
		open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return read_all(fd, max, ret);
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		p += k;
		n -= (size_t)k;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int file_sync_folder(const char *path)
{
	_cleanup_(freep) char *copy = xstrdup(path);
	_cleanup_(fd_close) int fd =
		open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int file_replace(const char *path, const char *text, size_t n)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", path);
	_cleanup_(fd_close) int fd = -1;
	int r;

	/* Left behind by a process that was killed. */
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		  0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, n);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return r;
	}
	return file_sync_folder(path) < 0 ? 1 : 0;
}

bool json_each(struct json_object *o, const char *key, size_t max,
	       bool (*load)(void *data, struct json_object *o), void *data)
{
	struct json_object *a;

	if (!json_object_object_get_ex(o, key, &a) ||
	    !json_object_is_type(a, json_type_array) ||
	    json_object_array_length(a) > max)
		return false;
	for (size_t i = 0; i < json_object_array_length(a); i++)
		if (!load(data, json_object_array_get_idx(a, i)))
			return false;
	return true;
}

void file_kernel_boot(char *out, size_t size)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	snprintf(out, size, "unknown");
	if (file_read("/proc/sys/kernel/random/boot_id", 256, &b) == 0)
		snprintf(out, size, "%.*s", UUID_LEN, buf_cstr(&b));
}
