/* xenpoolctl backup: an image of the database, made by the member and fetched in
 * pieces through the same connection, so it works from anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "raftdb/store.h"
#include "tools/ctl.h"

static const char help[] =
	"usage: xenpoolctl [OPTIONS] backup FILE\n\n"
	"Writes the pool's whole database, as of now, into FILE (mode 0600: "
	"passwords'\nhashes and secrets are in it). Any member that serves will "
	"do, and it goes on\nserving. The file is checked by loading it before "
	"the command ends. FILE must not\nexist yet.\n";

/* Appends a piece to b: its bytes, or -1 after a message. */
static ssize_t fetch_piece(struct ctl_session *s, const char *name,
			   struct buf *b)
{
	_cleanup_(freep) char *args = xasprintf(
		"{\"name\":\"%s\",\"offset\":\"%zu\"}", name, b->len);
	struct json_object *o = ctl_tool(s, "backup_read", args);
	const char *text = o ? ctl_text(o, "data") : "";
	size_t chars = strlen(text), n = o ? (size_t)ctl_int(o, "bytes") : 0;
	ssize_t ret = -1;

	if (o && n <= chars / 4 * 3) {
		buf_reserve(b, chars);
		if (EVP_DecodeBlock((unsigned char *)b->data + b->len,
				    (const unsigned char *)text,
				    (int)chars) >= (int)n) {
			b->len += n;
			ret = (ssize_t)n;
		}
	}
	if (o && ret < 0)
		ctl_fail("the member sent a piece that cannot be read");
	json_object_put(o);
	return ret;
}

static int fetch(struct ctl_session *s, struct json_object *made, struct buf *b)
{
	size_t all = (size_t)ctl_int(made, "bytes");
	struct hash128 h;
	char hash[33];

	while (b->len < all) {
		ssize_t n = fetch_piece(s, ctl_text(made, "name"), b);

		if (n < 0)
			return -1;
		if (n == 0)
			break;
	}
	h = hash128(b->data, b->len);
	snprintf(hash, sizeof hash, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
	if (b->len == all && !strcmp(hash, ctl_text(made, "hash")))
		return 0;
	ctl_fail("what arrived is not what the member wrote: try again");
	return -1;
}

static int verify(const struct buf *b)
{
	struct store_view *v = NULL;
	struct store *s;
	char why[300];
	bool good;

	if (image_unpack(b->data, b->len, &v, why, sizeof why) < 0)
		return ctl_fail("the backup cannot be read: %s", why);
	s = store_new();
	good = store_load(s, v);
	store_view_free(v);
	store_free(s);
	return good ? 0 : ctl_fail("the backup does not fit its own digest");
}

static int write_out(const char *path, const struct buf *b)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	size_t done = 0;
	bool bad;

	if (fd < 0)
		return ctl_fail("cannot make %s: %s", path, strerror(errno));
	while (done < b->len) {
		ssize_t n = write(fd, b->data + done, b->len - done);

		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	bad = done < b->len || fsync(fd) < 0;
	bad = close(fd) < 0 || bad;
	if (!bad)
		return 0;
	ctl_fail("cannot write %s: %s", path, strerror(errno));
	unlink(path);
	return 1;
}

static void drop(struct ctl_session *s, const char *name)
{
	_cleanup_(freep) char *args = xasprintf("{\"name\":\"%s\"}", name);

	json_object_put(ctl_tool(s, "backup_drop", args));
}

static int backup(struct ctl_session *s, const char *path)
{
	struct json_object *made = ctl_tool(s, "backup", "{}");
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r;

	if (!made)
		return 1;
	r = fetch(s, made, &b) < 0;
	drop(s, ctl_text(made, "name"));
	r = r ? r : verify(&b);
	r = r ? r : write_out(path, &b);
	if (r == 0 && ctl.json)
		puts(json_object_to_json_string_ext(made,
						    JSON_C_TO_STRING_PLAIN));
	else if (r == 0)
		printf("%s: %zu bytes, %lld objects, generation %lld\n", path,
		       b.len, (long long)ctl_int(made, "objects"),
		       (long long)ctl_int(made, "generation"));
	json_object_put(made);
	return r;
}

int ctl_backup(int argc, char **argv)
{
	const struct ctl_option options[] = { { NULL, false, NULL } };
	int r = ctl_parse(&argc, &argv, options, help);
	struct ctl_session s;

	if (r || argc != 1) {
		if (r == 0)
			fputs(help, stderr);
		return r > 0 ? 0 : 2;
	}
	if (access(argv[0], F_OK) == 0)
		return ctl_fail("%s is there already", argv[0]);
	if (ctl_open(&s) < 0)
		return 1;
	r = backup(&s, argv[0]);
	ctl_close(&s);
	return r;
}
