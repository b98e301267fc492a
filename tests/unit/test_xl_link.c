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

#include <openssl/bio.h>
#include <openssl/ssl.h>

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

/* ---- what travels over it ---- */

/* A link in the hands of a test: the destination takes, in pieces of `piece`
 * bytes, until the end or an error, in a thread. */
struct trip {
	struct end d, s;
	struct xl_tls to, from;
	size_t piece;
	struct buf got;
	uint64_t wire; /* bytes of TLS */
	int r;	       /* what the destination met at last */
};

static void *taker(void *data)
{
	struct trip *t = data;
	_cleanup_(freep) char *p = xmalloc(t->piece);
	ssize_t k;

	t->r = xl_tls_open(&t->to, &t->d.files, t->d.fd, true);
	while (t->r == 0 &&
	       (k = xl_tls_get_chunk(&t->to, p, t->piece)) != 0) {
		t->r = k < 0 ? (int)k : 0;
		buf_append(&t->got, p, k < 0 ? 0 : (size_t)k);
		/* Whatever came is here before more is sent. */
		if (t->piece == XL_TLS_RUN)
			xl_tls_write(&t->to, "+", 1);
	}
	return NULL;
}

static void trip_begin(struct trip *t, size_t piece)
{
	int pair[2];

	memset(t, 0, sizeof(*t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
				    pair), 0);
	t->piece = piece;
	end_init(&t->d, "a", "both", pair[0]);
	end_init(&t->s, "b", "both", pair[1]);
	assert_int_equal(pthread_create(&t->d.thread, NULL, taker, t), 0);
	assert_int_equal(xl_tls_open(&t->from, &t->s.files, t->s.fd, false), 0);
	t->wire = BIO_number_written(SSL_get_wbio(t->from.ssl));
}

/* Cuts the link. What the destination got is t->got, and its last word t->r. */
static void trip_end(struct trip *t)
{
	t->wire = BIO_number_written(SSL_get_wbio(t->from.ssl)) - t->wire;
	xl_tls_close(&t->from);
	pthread_join(t->d.thread, NULL);
	xl_tls_close(&t->to);
	end_deinit(&t->d);
	end_deinit(&t->s);
}

/* Bytes none of which is zero. */
static void fill(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)(1 + (i * 7 + (i >> 9)) % 255);
}

/* Through the link and out of it again, the same; how many bytes of TLS. */
static uint64_t travel(char *p, size_t n, size_t chunk, size_t piece)
{
	struct trip t;

	trip_begin(&t, piece);
	for (size_t i = 0; i < n; i += chunk) {
		size_t k = MIN(chunk, n - i);

		assert_int_equal(xl_tls_put_chunk(&t.from, p + i, k), k);
	}
	assert_int_equal(xl_tls_end_chunks(&t.from), 0);
	trip_end(&t);
	assert_int_equal(t.r, 0);
	assert_int_equal(t.got.len, n);
	assert_memory_equal(t.got.data, p, n);
	buf_deinit(&t.got);
	return t.wire;
}

static void test_zeros_are_not_sent(void **state)
{
	size_t n = (3u << 20) + 17;
	_cleanup_(freep) char *p = xcalloc(1, n);

	assert_in_range(travel(p, n, 1 << 20, 70000), 1, 1000);
	assert_in_range(travel(p, n, n, 1u << 19), 1, 1000);
	/* An end alone, a chunk of a few zeros. */
	assert_in_range(travel(p, 0, 1, 100), 1, 100);
	assert_in_range(travel(p, 3, 3, 100), 1, 100);
	/* And where there are none, little is added. */
	fill(p, n);
	assert_in_range(travel(p, n, 1 << 20, 70000), n, n + n / 200);
	/* Of a few bytes only the last one. */
	memset(p, 0, n);
	p[n - 1] = 1;
	assert_in_range(travel(p, n, 1 << 20, 4097), 1, 1000);
}

/* Pages of zeros begin anywhere in what a read brought. */
static void test_zeros_anywhere(void **state)
{
	enum { CHUNK = 8192, PAGE = 4096, OFFSETS = 1100 };
	size_t n = (size_t)CHUNK * OFFSETS;
	_cleanup_(freep) char *p = xmalloc(n);
	uint64_t sent;

	fill(p, n);
	for (size_t i = 0; i < OFFSETS; i++)
		memset(p + i * CHUNK + i, 0, PAGE);
	sent = travel(p, n, CHUNK, 5000);
	assert_in_range(sent, n / 2, n - (size_t)OFFSETS * (PAGE - 700));
	/* Chunks of any length, too. */
	travel(p, 1 << 20, 4099, 1023);
	travel(p, 1 << 12, 1, 1 << 15);
}

/* The destination hands on what it has, though more is to come. */
static void test_nothing_is_held_back(void **state)
{
	char p[3000] = "hello", plus;
	struct trip t;

	trip_begin(&t, XL_TLS_RUN);
	for (int i = 0; i < 20; i++) {
		p[i % 2 ? 0 : sizeof(p) - 1] ^= 1;
		assert_int_equal(xl_tls_put_chunk(&t.from, p, sizeof(p)),
				 sizeof(p));
		assert_int_equal(xl_tls_read(&t.from, &plus, 1), 0);
	}
	trip_end(&t);
	assert_int_equal(t.got.len, 20 * sizeof(p));
	buf_deinit(&t.got);
}

/* Words of a source that lies: the destination's last word, and how much it
 * took before. */
static int lie(uint32_t zeros, uint32_t length, size_t cut, size_t *ret_got)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct trip t;

	buf_put_u32(&b, zeros);
	buf_put_u32(&b, length);
	buf_puts(&b, "guest");
	trip_begin(&t, 1000);
	assert_int_equal(xl_tls_write(&t.from, b.data, MIN(cut, b.len)), 0);
	trip_end(&t);
	*ret_got = t.got.len;
	buf_deinit(&t.got);
	return t.r;
}

static void test_lies(void **state)
{
	static const uint32_t absurd[] = { XL_TLS_RUN + 1, 0x7fffffff,
					   0x80000000, 0xffffffff };
	size_t got;

	for (size_t i = 0; i < sizeof(absurd) / sizeof(*absurd); i++) {
		assert_int_equal(lie(absurd[i], 0, 8, &got), -EBADMSG);
		assert_int_equal(got, 0);
		assert_int_equal(lie(0, absurd[i], 13, &got), -EBADMSG);
		assert_int_equal(lie(1, absurd[i], 13, &got), -EBADMSG);
		assert_int_equal(got, 0);
	}
	/* The most that may be said, and then nothing. */
	assert_int_equal(lie(XL_TLS_RUN, 0, 8, &got), -EPIPE);
	assert_int_equal(got, XL_TLS_RUN);
	/* Cut anywhere, a stream has no end. */
	for (size_t cut = 0; cut < 13; cut++)
		assert_int_equal(lie(300, 5, cut, &got), -EPIPE);
	assert_int_equal(lie(300, 5, 13, &got), -EPIPE);
	assert_int_equal(got, 305);
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
		cmocka_unit_test(test_zeros_are_not_sent),
		cmocka_unit_test(test_zeros_anywhere),
		cmocka_unit_test(test_nothing_is_held_back),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
