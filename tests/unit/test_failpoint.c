#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/failpoint.h"

static int64_t reach_one(void)
{
	return failpoint("test.one");
}

static int64_t reach_two(void)
{
	return failpoint("test.two");
}

static void test_unarmed(void **state)
{
	assert_int_equal(failpoints_start(NULL), 0);
	assert_int_equal(failpoints_start(""), 0);
	assert_false(failpoints_armed);
	assert_int_equal(reach_one(), 0);
}

static void test_return(void **state)
{
	assert_int_equal(failpoints_start("test.one=return:7"), 0);
	assert_true(failpoints_armed);
	assert_int_equal(reach_one(), 7);
	assert_int_equal(reach_one(), 7);
	assert_int_equal(reach_two(), 0);
	assert_int_equal(failpoints_start("test.two=return:-3@2,\n"
					  "test.one=return:1@1"), 0);
	assert_int_equal(reach_one(), 1);
	assert_int_equal(reach_one(), 0);
	assert_int_equal(reach_two(), 0);
	assert_int_equal(reach_two(), -3);
	assert_int_equal(reach_two(), 0);
}

static void test_bad_lists(void **state)
{
	static const char *const bad[] = {
		"test.three=crash", "test.one", "test.one=", "test.one=boom",
		"test.one=crash:1", "test.one=delay", "test.one=return:x",
		"test.one=crash@0", "test.one=crash@", "test.one=crash@1x",
		"file:/nowhere/at/all",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(failpoints_start(bad[i]), -EINVAL);
}

static void test_delay(void **state)
{
	int64_t start = env_mono_ms();

	assert_int_equal(failpoints_start("test.one=delay:50@1"), 0);
	assert_int_equal(reach_one(), 0);
	assert_in_range(env_mono_ms() - start, 49, 30000);
}

static void test_clock(void **state)
{
	int64_t now = env_wall_ms();

	assert_int_equal(failpoints_start("clock.wall=return:-86400000"), 0);
	assert_in_range(now - env_wall_ms(), 86400000 - 30000, 86400000);
}

static void write_list(const char *path, const char *text)
{
	char next[64];
	FILE *f;

	snprintf(next, sizeof next, "%s.new", path);
	f = fopen(next, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(rename(next, path), 0);
}

static void test_file(void **state)
{
	char path[] = "/tmp/test-failpoint-XXXXXX", spec[64];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	snprintf(spec, sizeof spec, "file:%s", path);
	assert_int_equal(failpoints_start(spec), 0);
	assert_int_equal(reach_one(), 0);
	write_list(path, "test.one=return:1\ntest.two=return:2@2\n");
	assert_int_equal(reach_one(), 1);
	assert_int_equal(reach_two(), 0);
	assert_int_equal(reach_two(), 2);
	write_list(path, "test.two=return:3@1\n");
	assert_int_equal(reach_one(), 0);
	assert_int_equal(reach_two(), 3);
	unlink(path);
}

/* The wait status of a process that reaches the point twice. */
static int end_of_child(const char *spec, int options)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		if (failpoints_start(spec) < 0)
			_exit(99);
		reach_one();
		reach_one();
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, options), pid);
	if (WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return status;
}

static void test_ends(void **state)
{
	int status = end_of_child("test.one=crash@2", 0);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	status = end_of_child("test.one=stop@2", WUNTRACED);
	assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	status = end_of_child("test.one=crash@3", 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(WEXITSTATUS(end_of_child("x=crash", 0)), 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unarmed),
		cmocka_unit_test(test_return),
		cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_ends),
	};

	return cmocka_run_group_tests_name("failpoint", tests, NULL, NULL);
}
