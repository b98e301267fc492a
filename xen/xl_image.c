#include "xen/xl_image.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/text.h"
#include "xen/files.h"

#define MAGIC "XPGUEST1"
#define FIXED 20 /* bytes before the json */
#define MAX_JSON (1u << 20)

int xl_image_head(struct buf *b, const char *vm, const char *config)
{
	_cleanup_(json_putp) struct json_object *o = json_object_new_object();
	struct json_object *c = json_parse(config, strlen(config));
	const char *text;
	size_t n;

	xassert(o);
	if (!c)
		return -EINVAL;
	json_add_int(o, "format", 1);
	json_add_str(o, "vm", vm);
	json_object_object_add(o, "config", c);
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
	xassert(text);
	n = strlen(text);
	if (n > MAX_JSON)
		return -E2BIG;
	buf_append(b, MAGIC, 8);
	buf_put_u32(b, (uint32_t)n);
	buf_put_u64(b, hash64(text, n));
	buf_append(b, text, n);
	return 0;
}

static int read_whole(int fd, char *p, size_t n)
{
	while (n > 0) {
		ssize_t k = read(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EBADMSG;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int check_json(const char *p, size_t n, const char *vm)
{
	_cleanup_(json_putp) struct json_object *o = json_parse(p, n);
	char whose[UUID_LEN + 1];
	int64_t format;

	if (!o || !json_int(o, "format", 1, 1, &format) ||
	    !json_str(o, "vm", whose, sizeof(whose)))
		return -EBADMSG;
	return strcmp(whose, vm) ? -ESTALE : 0;
}

int xl_image_check(int fd, const char *vm)
{
	_cleanup_(freep) char *json = NULL;
	char fixed[FIXED];
	struct reader r = reader_of(fixed + 8, FIXED - 8);
	int rc = read_whole(fd, fixed, sizeof(fixed));
	uint32_t n;
	uint64_t hash;

	if (rc < 0)
		return rc;
	n = reader_u32(&r);
	hash = reader_u64(&r);
	if (memcmp(fixed, MAGIC, 8) || n == 0 || n > MAX_JSON)
		return -EBADMSG;
	json = xmalloc(n);
	rc = read_whole(fd, json, n);
	if (rc < 0)
		return rc;
	return hash64(json, n) == hash ? check_json(json, n, vm) : -EBADMSG;
}

int xl_image_open(const char *path, const char *vm, int *ret_fd)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (r == 0)
		r = xl_image_check(fd, vm);
	/* Whoever is handed the file checks for itself. */
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0 && ret_fd)
		*ret_fd = fd;
	else
		close(fd);
	return r;
}
