/* What a guest travels in: the image's head, the pump, and the link between two
 * hosts. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "xen/files.h"
#include "xen/xl_image.h"
#include "xen/xl_pump.h"
#include "xen/xl_tls.h"

#define VM1 "11111111-1111-4111-8111-111111111111"
#define VM2 "22222222-2222-4222-8222-222222222222"

static char dir[] = "/tmp/xl-link-XXXXXX";

static char *path(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static void run(const char *fmt, ...) _printf_(1, 2);
static void run(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

static void put_file(const char *name, const char *p, size_t n)
{
	_cleanup_(freep) char *full = path(name);

	assert_int_equal(file_replace(full, p, n), 0);
}

/* ---- image ---- */

static void make_image(struct buf *b)
{
	assert_int_equal(xl_image_head(b, VM1, "{\"c_info\": {}}"), 0);
	buf_puts(b, "stream");
}

static int open_as(const char *vm, const struct buf *b)
{
	_cleanup_(freep) char *full = path("image");

	put_file("image", b->data, b->len);
	return xl_image_open(full, vm, NULL);
}

static void test_image(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	_cleanup_(freep) char *full = path("image");
	char rest[16] = "";
	int fd;

	make_image(&b);
	assert_int_equal(open_as(VM1, &b), 0);
	assert_int_equal(xl_image_open(full, VM1, &fd), 0);
	assert_int_equal(xl_image_check(fd, VM1), 0);
	assert_int_equal(read(fd, rest, sizeof(rest)), 6);
	assert_string_equal(rest, "stream");
	close(fd);
	assert_int_equal(open_as(VM2, &b), -ESTALE);
	assert_int_equal(xl_image_head(&b, VM1, "no json"), -EINVAL);
}

/* Each byte of the head counts, and a head that is cut is none. */
static void test_image_damaged(void **state)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	size_t head;

	make_image(&b);
	head = b.len - 6;
	for (size_t i = 0; i < head; i++) {
		struct buf cut = { b.data, i, b.cap };

		b.data[i] ^= 0x20;
		assert_int_equal(open_as(VM1, &b), -EBADMSG);
		b.data[i] ^= 0x20;
		assert_int_equal(open_as(VM1, &cut), -EBADMSG);
	}
}

static void test_image_is_a_file(void **state)
{
	_cleanup_(freep) char *fifo = path("fifo");
	_cleanup_(freep) char *link = path("link");

	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(symlink("/etc/shadow", link), 0);
	assert_int_equal(xl_image_open(fifo, VM1, NULL), -EINVAL);
	assert_int_equal(xl_image_open(link, VM1, NULL), -ELOOP);
	assert_int_equal(xl_image_open("/nowhere/x", VM1, NULL), -ENOENT);
}

/* ---- pump ---- */

static void test_pump_full_disk(void **state)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct xl_pump p;
	char block[4096] = "";

	assert_true(full >= 0);
	assert_int_equal(xl_pump_start(&p, false, xl_pump_to_file, &full), 0);
	/* The writer is told at last, by EPIPE. */
	while (write(p.fd, block, sizeof(block)) > 0)
		;
	assert_int_equal(errno, EPIPE);
	assert_int_equal(xl_pump_end(&p), -ENOSPC);
	close(full);
}

static void test_pump_copies_all(void **state)
{
	_cleanup_(freep) char *name = path("copy");
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), big = 3 << 20;
	_cleanup_(freep) char *data = xmalloc((size_t)big);
	_cleanup_(buf_deinit) struct buf got = BUF_INIT;
	struct xl_pump p;

	for (int i = 0; i < big; i++)
		data[i] = (char)(i * 31 + (i >> 11));
	assert_int_equal(xl_pump_start(&p, false, xl_pump_to_file, &fd), 0);
	for (int done = 0; done < big;) {
		ssize_t k = write(p.fd, data + done, (size_t)(big - done));

		assert_true(k > 0);
		done += (int)k;
	}
	assert_int_equal(xl_pump_end(&p), 0);
	assert_int_equal(p.bytes, big);
	assert_int_equal(file_read(name, (size_t)big, &got), 0);
	assert_int_equal(got.len, big);
	assert_memory_equal(got.data, data, (size_t)big);
	close(fd);
}

/* ---- link ---- */

struct end {
	struct xl_tls_files files;
	char *cert, *key, *trust;
	int fd, r;
	char text[32];
	pthread_t thread;
};

static void end_init(struct end *e, const char *who, const char *trust, int fd)
{
	_cleanup_(freep) char *crt = xasprintf("%s.crt", who);
	_cleanup_(freep) char *key = xasprintf("%s.key", who);

	memset(e, 0, sizeof(*e));
	e->cert = path(crt);
	e->key = path(key);
	e->trust = path(trust);
	e->files = (struct xl_tls_files){ e->cert, e->key, e->trust };
	e->fd = fd;
}

static void end_deinit(struct end *e)
{
	free(e->cert);
	free(e->key);
	free(e->trust);
}

/* The destination: takes chunks to their end and says OK. */
static void *destination(void *data)
{
	struct end *e = data;
	struct xl_tls t;
	ssize_t k = 0;
	size_t n = 0;

	e->r = xl_tls_open(&t, &e->files, e->fd, true);
	while (e->r == 0 &&
	       (k = xl_tls_get_chunk(&t, e->text + n, 4)) > 0)
		n += (size_t)k;
	if (e->r == 0)
		e->r = k < 0 ? (int)k : xl_tls_write(&t, "OK", 2);
	xl_tls_close(&t);
	return NULL;
}

static int source(struct end *e, bool to_the_end)
{
	char hello[] = "hello", world[] = "world!", ok[3] = "";
	struct xl_tls t;
	int r = xl_tls_open(&t, &e->files, e->fd, false);

	if (r == 0 && (xl_tls_put_chunk(&t, hello, 5) != 5 ||
		       xl_tls_put_chunk(&t, world, 6) != 6))
		r = -EPIPE;
	if (r == 0 && to_the_end)
		r = xl_tls_end_chunks(&t);
	if (r == 0 && to_the_end)
		r = xl_tls_read(&t, ok, 2);
	xl_tls_close(&t);
	return r ? r : to_the_end && strcmp(ok, "OK") ? -EBADMSG : 0;
}

/* What the source got; d tells what the destination got. */
static int talk(struct end *d, const char *dst, const char *src,
		const char *dst_trust, const char *src_trust, bool to_the_end)
{
	struct end s;
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
				    pair), 0);
	end_init(d, dst, dst_trust, pair[0]);
	end_init(&s, src, src_trust, pair[1]);
	assert_int_equal(pthread_create(&d->thread, NULL, destination, d), 0);
	r = source(&s, to_the_end);
	pthread_join(d->thread, NULL);
	end_deinit(d);
	end_deinit(&s);
	return r;
}

static void test_link(void **state)
{
	struct end d;

	assert_int_equal(talk(&d, "a", "b", "both", "both", true), 0);
	assert_int_equal(d.r, 0);
	assert_string_equal(d.text, "helloworld!");
}

static void test_link_strangers(void **state)
{
	struct end d;

	assert_true(talk(&d, "a", "x", "both", "both", true) < 0);
	assert_int_equal(d.r, -EACCES);
	assert_string_equal(d.text, "");
	assert_int_equal(talk(&d, "x", "b", "both", "both", true), -EACCES);
	assert_true(d.r < 0);
	/* Without a list nobody is trusted; nor with one that is damaged. */
	assert_int_equal(talk(&d, "a", "b", "both", "missing", true), -EACCES);
	assert_int_equal(talk(&d, "a", "b", "both", "damaged", true), -EACCES);
}

static void test_link_breaks(void **state)
{
	struct end d;

	talk(&d, "a", "b", "both", "both", false);
	assert_int_equal(d.r, -EPIPE);
}

/* ---- set-up ---- */

static int make_files(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return -1;
	for (const char *p = "abx"; *p; p++)
		run("cd %s && openssl req -x509 -newkey ec -pkeyopt "
		    "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=%c "
		    "-keyout %c.key -out %c.crt 2>openssl.log",
		    dir, *p, *p, *p);
	run("cd %s && f() { openssl x509 -in $1.crt -noout -fingerprint "
	    "-sha256 | sed 's/.*=//; s/://g'; } && printf "
	    "'[{\"fingerprint\":\"%%s\"},{\"fingerprint\":\"%%s\"}]' "
	    "$(f a) $(f b) > both && echo '[{\"fing' > damaged", dir);
	return 0;
}

static int remove_files(void **state)
{
	run("rm -rf %s", dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_image),
		cmocka_unit_test(test_image_damaged),
		cmocka_unit_test(test_image_is_a_file),
		cmocka_unit_test(test_pump_full_disk),
		cmocka_unit_test(test_pump_copies_all),
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_link_strangers),
		cmocka_unit_test(test_link_breaks),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
