#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim.h"

#define IMAGE_FORMAT "xenpool simulated guest 1"

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

void sim_json_putp(struct json_object **o)
{
	if (*o)
		json_object_put(*o);
}

struct json_object *sim_json_parse(const char *p, size_t n)
{
	_cleanup_(tokener_freep) struct json_tokener *t =
		json_tokener_new_ex(8);
	_cleanup_(sim_json_putp) struct json_object *o = NULL;

	if (!t || n == 0 || n > SIM_MAX_STATE_BYTES)
		return NULL;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(t, p, (int)n);
	if (json_tokener_get_error(t) != json_tokener_success ||
	    json_tokener_get_parse_end(t) != n ||
	    !json_object_is_type(o, json_type_object))
		return NULL;
	return TAKE_PTR(o);
}

bool sim_json_str(struct json_object *o, const char *key, char *out,
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

bool sim_json_int(struct json_object *o, const char *key, int64_t min,
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

void sim_json_add_str(struct json_object *o, const char *key, const char *s)
{
	add(o, key, json_object_new_string(s));
}

void sim_json_add_int(struct json_object *o, const char *key, int64_t i)
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

int sim_file_read(const char *path, size_t max, struct buf *ret)
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

static int folder_sync(const char *path)
{
	_cleanup_(freep) char *copy = xstrdup(path);
	_cleanup_(fd_close) int fd =
		open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int sim_file_replace(const char *path, const char *text, size_t n)
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
	return folder_sync(path) < 0 ? 1 : 0;
}

struct json_object *sim_guest_json(const struct sim_domain *d)
{
	struct json_object *o = json_object_new_object();

	xassert(o);
	sim_json_add_str(o, "format", IMAGE_FORMAT);
	sim_json_add_str(o, "vm", d->vm);
	sim_json_add_int(o, "memory", (int64_t)d->memory);
	sim_json_add_int(o, "vcpus", d->vcpus);
	sim_json_add_int(o, "ticks", sim_ticks(d));
	sim_json_add_int(o, "was_paused", d->was_paused);
	return o;
}

bool sim_guest_parse(const char *p, size_t n, struct sim_guest *ret)
{
	_cleanup_(sim_json_putp) struct json_object *o = sim_json_parse(p, n);
	char format[64], vm[UUID_LEN + 1];
	int64_t memory, vcpus, paused;

	if (!o || !sim_json_str(o, "format", format, sizeof(format)) ||
	    strcmp(format, IMAGE_FORMAT) ||
	    !sim_json_str(o, "vm", vm, sizeof(vm)) ||
	    !domain_uuid(vm, ret->vm) ||
	    !sim_json_int(o, "memory", DOMAIN_MIN_MEMORY,
			  (int64_t)DOMAIN_MAX_MEMORY, &memory) ||
	    !sim_json_int(o, "vcpus", 1, DOMAIN_MAX_VCPUS, &vcpus) ||
	    !sim_json_int(o, "ticks", 0, INT64_MAX / 2, &ret->ticks) ||
	    !sim_json_int(o, "was_paused", 0, 1, &paused))
		return false;
	ret->memory = (uint64_t)memory;
	ret->vcpus = (uint32_t)vcpus;
	ret->was_paused = paused;
	return true;
}

/* We may be more powerful than who names the path: only what is an image of
 * this very VM may be replaced. */
int sim_image_write(const char *path, const struct sim_domain *d)
{
	_cleanup_(sim_json_putp) struct json_object *o = sim_guest_json(d);
	const char *text = json_object_to_json_string(o);
	struct sim_guest old;
	int r = sim_image_read(path, d->vm, &old);

	if (r < 0 && r != -ENOENT)
		return r;
	xassert(text);
	r = sim_file_replace(path, text, strlen(text));
	return r > 0 ? -EIO : r;
}

int sim_image_read(const char *path, const char *vm, struct sim_guest *ret)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r = sim_file_read(path, SIM_MAX_IMAGE_BYTES, &b);

	if (r < 0)
		return r;
	if (!sim_guest_parse(buf_cstr(&b), b.len, ret))
		return -EBADMSG;
	return strcmp(ret->vm, vm) ? -ESTALE : 0;
}

void sim_image_remove(const char *path, const char *vm)
{
	struct sim_guest old;

	if (sim_image_read(path, vm, &old) == 0 && unlink(path) < 0)
		log_warn("cannot remove the image %s: %s", path,
			 strerror(errno));
}
