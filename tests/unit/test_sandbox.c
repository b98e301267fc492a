/* What the sandbox forbids, to threads that were there before it as well. Each
 * attempt in a process of its own: some are its end. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "xen/sandbox.h"

#define DONE 0       /* it was let */
#define REFUSED 100  /* and lives on; plus errno */
#define KILLED 1000  /* plus the signal */

static char root[] = "/tmp/xenpool-sandbox-XXXXXX";
static int (*attempt)(void);
static sem_t inside;

static int answer(int r)
{
	return r < 0 ? REFUSED + errno : DONE;
}

static void *old_thread(void *result)
{
	while (sem_wait(&inside) < 0)
		;
	*(int *)result = attempt();
	return NULL;
}

/* Never returns. The thread is begun before the sandbox is entered. */
static void child_main(bool by_thread)
{
	struct sandbox box = { .root = root, .user = "nobody",
			       .memory = 256 << 20, .files = 16 };
	int result = -1;
	pthread_t thread;

	sem_init(&inside, 0, 0);
	if (by_thread && pthread_create(&thread, NULL, old_thread, &result))
		_exit(99);
	if (sandbox_enter(&box) < 0)
		_exit(98);
	sem_post(&inside);
	if (by_thread)
		pthread_join(thread, NULL);
	else
		result = attempt();
	_exit(result);
}

static int outcome(int (*what)(void), bool by_thread)
{
	int status;
	pid_t pid;

	attempt = what;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child_main(by_thread);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) :
				     WEXITSTATUS(status);
}

static void assert_outcome(int (*what)(void), int wanted)
{
	assert_int_equal(outcome(what, false), wanted);
	assert_int_equal(outcome(what, true), wanted);
}

/* ---- attempts ---- */

static int open_file(void)
{
	return answer(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int make_socket(void)
{
	return answer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int run_program(void)
{
	return answer(execl("/bin/true", "true", (char *)NULL));
}

static int make_process(void)
{
	return answer(fork());
}

static int become_root(void)
{
	return answer(setuid(0));
}

static int look_at_parent(void)
{
	return answer((int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static int end_parent(void)
{
	return answer(kill(getppid(), SIGKILL));
}

static int code_in_memory(void)
{
	return answer(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ?
		      -1 : 0);
}

static int more_files(void)
{
	struct rlimit more = { 64, 64 };

	return answer(setrlimit(RLIMIT_NOFILE, &more));
}

static int many_files(void)
{
	int pair[2];

	for (int i = 0; i < 32; i++)
		if (pipe(pair) < 0)
			return answer(-1);
	return DONE;
}

static int much_memory(void)
{
	return answer(mmap(NULL, 512 << 20, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ?
		      -1 : 0);
}

/* What it is there to do. */
static int work(void)
{
	void *p = malloc(1 << 20);
	int pair[2];
	char c = 'x';

	if (!p || pipe(pair) < 0)
		return answer(-1);
	free(p);
	return answer(write(pair[1], &c, 1) == 1 && read(pair[0], &c, 1) == 1 ?
		      0 : -1);
}

/* ---- tests ---- */

static void test_allowed(void **state)
{
	assert_outcome(work, DONE);
}

static void test_refused(void **state)
{
	assert_outcome(open_file, REFUSED + EACCES);
	assert_outcome(many_files, REFUSED + EMFILE);
#ifndef __SANITIZE_ADDRESS__
	assert_outcome(much_memory, REFUSED + ENOMEM);
#endif
}

static void test_deadly(void **state)
{
	static int (*const attempts[])(void) = {
		make_socket, run_program, make_process, become_root,
		look_at_parent, end_parent, code_in_memory, more_files,
	};

	for (size_t i = 0; i < ARRAY_LEN(attempts); i++)
		assert_outcome(attempts[i], KILLED + SIGSYS);
}

/* A user that does not exist, or root itself, is no sandbox. */
static void test_no_user(void **state)
{
	static const char *const users[] = { "no-such-user", "root", "0" };

	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < ARRAY_LEN(users); i++) {
		struct sandbox box = { .root = root, .user = users[i],
				       .memory = 1 << 30, .files = 16 };

		assert_true(sandbox_enter(&box) < 0);
	}
}

static int set_up(void **state)
{
	log_set_level(LOG_LEVEL_ERROR + 1);
	return mkdtemp(root) && chmod(root, 0555) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	return rmdir(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_deadly),
		cmocka_unit_test(test_no_user),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
