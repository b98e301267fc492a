/* What a worker's misfortune costs: one operation. This program is its own
 * worker: it is started again with the worker's option, and then does what the
 * operation's name says. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/log.h"
#include "schema/call.h"
#include "xen/xl.h"
#include "xen/xl_image.h"
#include "xen/xl_process.h"

#define VM1 "11111111-1111-4111-8111-111111111111"
#define PATIENCE_MS 20000

/* ---- the worker ---- */

static void say_done(struct value *error, struct value *result)
{
	xl_packet_send(XL_WORKER_FD,
		       value_struct_of("type", value_stringz("done"), "error",
				       error, "result", result, NULL));
}

/* A helper that would live on, with its number told by the result. */
static void with_helper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		sleep(600);
		_exit(0);
	}
	xl_packet_send(XL_WORKER_FD,
		       value_struct_of("type", value_stringz("progress"),
				       "fraction", value_float((double)pid),
				       NULL));
}

static void write_to(int fd)
{
	if (write(fd, "hello", 5) != 5)
		_exit(9);
}

static int worker(void)
{
	_cleanup_(value_unrefp) struct value *request = NULL;
	int fds[XL_MAX_FDS];
	size_t n;
	const char *op;

	request = xl_request_receive(XL_WORKER_FD, fds, &n);
	op = value_get_str(request, "op");
	if (!strcmp(op, "abort"))
		abort();
	if (!strcmp(op, "exit"))
		return 3;
	if (!strcmp(op, "hang"))
		with_helper();
	if (!strcmp(op, "hang"))
		sleep(600);
	if (!strcmp(op, "rubbish") && send(XL_WORKER_FD, "x", 1, 0) < 0)
		return 1;
	if (!strcmp(op, "rubbish"))
		sleep(600);
	if (!strcmp(op, "fail"))
		say_done(api_error("OUCH", value_get_str(request, "vm"), NULL),
			 value_struct_new(0));
	if (!strcmp(op, "write"))
		write_to(fds[0]);
	if (!strcmp(op, "linger")) {
		say_done(value_set_empty(), value_struct_new(0));
		with_helper();
		sleep(600);
	}
	say_done(value_set_empty(),
		 value_struct_of("n", value_int(value_get_int(request, "n", 0)),
				 NULL));
	return 0;
}

/* ---- the tests ---- */

static pid_t helper;

static void on_progress(struct xen_call *c, double fraction)
{
	helper = (pid_t)fraction;
}

static struct xen_call call_new_for_test(void)
{
	helper = 0;
	return (struct xen_call){ .vm = VM1, .abort_fd = eventfd(0, EFD_CLOEXEC),
				  .progress = on_progress };
}

static void call_end(struct xen_call *c)
{
	value_unref(c->error);
	close(c->abort_fd);
}

static const char *error_at(const struct xen_call *c, uint32_t i)
{
	return c->error && i < c->error->n ? value_str(c->error->items[i]) : "";
}

static bool is_gone(pid_t pid)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;

	while (kill(pid, 0) == 0 && env_mono_ms() < until) {
		char path[64], state[512] = "";
		FILE *f;

		/* A killed orphan may wait for whoever reaps orphans here. */
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
		f = fopen(path, "r");
		if (!f || !fgets(state, sizeof(state), f) ||
		    strstr(state, ") Z"))
			*state = '\0';
		if (f)
			fclose(f);
		if (!*state)
			return true;
		usleep(20000);
	}
	return kill(pid, 0) < 0;
}

static void fails_internal(const char *op, const char *how)
{
	struct xen_call c = call_new_for_test();

	assert_int_equal(xl_run(&c, op, value_struct_new(0), NULL, 0,
				PATIENCE_MS, NULL),
			 XEN_FAILED);
	assert_string_equal(error_at(&c, 0), "INTERNAL_ERROR");
	if (!strstr(error_at(&c, 1), how))
		fail_msg("\"%s\" without \"%s\"", error_at(&c, 1), how);
	call_end(&c);
}

static void test_result(void **state)
{
	struct xen_call c = call_new_for_test();
	struct value *result = NULL;

	assert_int_equal(xl_run(&c, "ok",
				value_struct_of("n", value_int(42), NULL), NULL,
				0, PATIENCE_MS, &result),
			 0);
	assert_int_equal(value_get_int(result, "n", 0), 42);
	assert_null(c.error);
	value_unref(result);
	call_end(&c);
}

static void test_error(void **state)
{
	struct xen_call c = call_new_for_test();

	assert_int_equal(xl_run(&c, "fail", value_struct_new(0), NULL, 0,
				PATIENCE_MS, NULL),
			 XEN_FAILED);
	assert_string_equal(error_at(&c, 0), "OUCH");
	assert_string_equal(error_at(&c, 1), VM1);
	call_end(&c);
}

static void test_death(void **state)
{
	fails_internal("abort", "signal 6");
	fails_internal("exit", "exit status 3");
	fails_internal("rubbish", "without a result");
}

static void test_hang(void **state)
{
	struct xen_call c = call_new_for_test();

	assert_int_equal(xl_run(&c, "hang", value_struct_new(0), NULL, 0, 1000,
				NULL),
			 XEN_FAILED);
	assert_string_equal(error_at(&c, 0), "INTERNAL_ERROR");
	assert_non_null(strstr(error_at(&c, 1), "in time"));
	assert_true(helper > 0);
	assert_true(is_gone(helper));
	call_end(&c);
}

static void test_abort(void **state)
{
	struct xen_call c = call_new_for_test();
	int64_t start = env_mono_ms();

	atomic_store(&c.aborted, true);
	assert_int_equal(eventfd_write(c.abort_fd, 1), 0);
	assert_int_equal(xl_run(&c, "hang", value_struct_new(0), NULL, 0,
				600000, NULL),
			 XEN_FAILED);
	assert_string_equal(error_at(&c, 0), "TASK_CANCELLED");
	assert_true(env_mono_ms() - start < PATIENCE_MS);
	call_end(&c);
}

/* One that has told its result and does not end is ended, its helper too. */
static void test_linger(void **state)
{
	struct xen_call c = call_new_for_test();

	assert_int_equal(xl_run(&c, "linger", value_struct_new(0), NULL, 0,
				PATIENCE_MS, NULL),
			 0);
	call_end(&c);
}

static void test_fd(void **state)
{
	struct xen_call c = call_new_for_test();
	char got[8] = "";
	int pair[2];

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	assert_int_equal(xl_run(&c, "write", value_struct_new(0), &pair[1], 1,
				PATIENCE_MS, NULL),
			 0);
	assert_int_equal(read(pair[0], got, sizeof(got)), 5);
	assert_string_equal(got, "hello");
	close(pair[0]);
	close(pair[1]);
	call_end(&c);
}

/* ---- what needs no worker ---- */

static void write_file(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static void test_drop_image(void **state)
{
	char dir[] = "/tmp/xenpool-image-XXXXXX", path[64], tmp[80];
	_cleanup_(buf_deinit) struct buf head = BUF_INIT;
	struct xen_call c = { .vm = VM1 };
	struct xen_call other = { .vm = "22222222-2222-4222-8222-222222222222" };

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/image", dir);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	assert_int_equal(xl_image_head(&head, VM1, "{}"), 0);
	write_file(path, head.data, head.len);
	write_file(tmp, "x", 1);
	assert_int_equal(xl_drop_image(NULL, &other, path), XEN_FAILED);
	assert_true(value_is_str(other.error->items[0],
				 "SUSPEND_IMAGE_NOT_ACCESSIBLE"));
	value_unref(other.error);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(access(tmp, F_OK), 0);
	assert_int_equal(xl_drop_image(NULL, &c, path), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(xl_drop_image(NULL, &c, path), 0);
	write_file(path, "precious", 8);
	assert_int_equal(xl_drop_image(NULL, &c, path), XEN_FAILED);
	value_unref(c.error);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_result), cmocka_unit_test(test_error),
		cmocka_unit_test(test_death),  cmocka_unit_test(test_hang),
		cmocka_unit_test(test_abort),  cmocka_unit_test(test_linger),
		cmocka_unit_test(test_fd),
		cmocka_unit_test(test_drop_image),
	};

	if (argc > 1 && !strcmp(argv[1], XL_WORKER_OPTION))
		return worker();
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
