/* The executor's side of the watcher, without a Xen: this program is its own
 * watcher, which sees what the test has put into a file that both have mapped. Not
 * tried here: the 30 s of silence after which a watcher is begun again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/xl.h"

#define VM1 "11111111-1111-4111-8111-111111111111"
#define VM2 "22222222-2222-4222-8222-222222222222"
#define WORLD "XENPOOL_TEST_WORLD"
#define MOST 4
#define MAX_TOLD 16

enum mode { HONEST, DIES, SHORT, TOO_MANY, LONGER_THAN_SAID };

/* What the watcher sees, and how it is minded. */
struct world {
	atomic_int mode, begun;
	uint32_t n;
	struct xl_seen seen[MOST];
};

static struct world *world;

static void map_world(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	xassert(fd >= 0 && ftruncate(fd, sizeof(*world)) == 0);
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	xassert(world != MAP_FAILED);
	close(fd);
}

/* ---- the watcher ---- */

static void tell_view(uint64_t asked, int mode)
{
	size_t n = sizeof(struct xl_view) + MOST * sizeof(struct xl_seen);
	struct xl_view *v = xcalloc(1, n);

	v->answers = asked;
	v->at_ms = env_mono_ms();
	v->n = world->n;
	memcpy(v->seen, world->seen, sizeof(world->seen));
	n = sizeof(*v) + v->n * sizeof(v->seen[0]);
	if (mode == SHORT)
		n = sizeof(*v) - 1;
	if (mode == TOO_MANY)
		v->n = XL_MAX_DOMAINS + 1;
	if (mode == LONGER_THAN_SAID)
		v->n++;
	if (send(XL_WORKER_FD, v, n, MSG_NOSIGNAL) < 0)
		_exit(1);
	free(v);
}

static int watcher(void)
{
	int fds[XL_MAX_FDS], mode;
	uint64_t asked;
	size_t n;

	value_unref(xl_request_receive(XL_WORKER_FD, fds, &n));
	map_world(getenv(WORLD));
	world->begun++;
	while (recv(XL_WORKER_FD, &asked, sizeof(asked), 0) == sizeof(asked)) {
		mode = world->mode;
		if (mode == DIES)
			return 3;
		if (mode != HONEST)
			tell_view(asked, mode);
		if (mode != HONEST)
			world->mode = HONEST;
		tell_view(asked, HONEST);
	}
	return 0;
}

/* ---- the executor ---- */

static struct {
	struct xl x;
	char dir[48], file[64];
	pthread_mutex_t lock;
	struct xen_event told[MAX_TOLD];
	size_t n_told;
} w;

static void on_event(void *data, const struct xen_event *ev)
{
	pthread_mutex_lock(&w.lock);
	assert_true(w.n_told < MAX_TOLD);
	w.told[w.n_told++] = *ev;
	pthread_mutex_unlock(&w.lock);
}

static int set_up(void **state)
{
	memset(&w, 0, sizeof(w));
	pthread_mutex_init(&w.lock, NULL);
	strcpy(w.dir, "/tmp/xenpool-watch-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.file, sizeof(w.file), "%s/world", w.dir);
	setenv(WORLD, w.file, 1);
	map_world(w.file);
	w.x.dir = w.dir;
	w.x.event = on_event;
	w.x.lock_fd = w.x.stop_fd = -1;
	pthread_mutex_init(&w.x.lock, NULL);
	assert_int_equal(xl_state_open(&w.x), 0);
	return 0;
}

static int tear_down(void **state)
{
	char command[80];

	xl_watch_stop(&w.x);
	xl_state_close(&w.x);
	pthread_mutex_destroy(&w.x.lock);
	munmap(world, sizeof(*world));
	snprintf(command, sizeof(command), "rm -rf '%s'", w.dir);
	return system(command);
}

static struct xl_seen *sees(uint32_t i, const char *vm, uint32_t domid)
{
	struct xl_seen *s = &world->seen[i];

	*s = (struct xl_seen){ .domid = domid, .state = XEN_RUNNING,
			       .cpu_ms = 7 };
	strcpy(s->vm, vm);
	world->n = MAX(world->n, i + 1);
	return s;
}

static void begin(void)
{
	assert_int_equal(xl_watch_start(&w.x), 0);
}

/* A look, and how many domains there are by it. */
static unsigned look(void)
{
	unsigned n;

	pthread_mutex_lock(&w.x.lock);
	assert_int_equal(xl_watch_look(&w.x), 0);
	n = w.x.view->n;
	pthread_mutex_unlock(&w.x.lock);
	return n;
}

static void was_told(size_t i, const char *vm, enum xen_event_kind kind,
		     uint32_t domid)
{
	assert_true(w.n_told > i);
	assert_string_equal(w.told[i].vm, vm);
	assert_int_equal(w.told[i].kind, kind);
	assert_int_equal(w.told[i].domid, domid);
}

static struct xl_vm *vm_of(const char *vm)
{
	struct xl_vm *v;

	pthread_mutex_lock(&w.x.lock);
	v = xl_get(&w.x, vm);
	pthread_mutex_unlock(&w.x.lock);
	return v;
}

/* ---- tests ---- */

static void test_looks(void **state)
{
	begin();
	assert_int_equal(look(), 0);
	sees(0, VM1, 3);
	sees(1, VM2, 4)->state = XEN_PAUSED;
	assert_int_equal(look(), 2);
	assert_string_equal(w.x.view->seen[1].vm, VM2);
	assert_int_equal(w.x.view->seen[1].state, XEN_PAUSED);
	assert_int_equal(w.x.view->seen[0].cpu_ms, 7);
	assert_int_equal(world->begun, 1);
	assert_int_equal(w.n_told, 0);
}

static void test_own_deeds(void **state)
{
	struct xl_seen *one = sees(0, VM1, 3);

	sees(1, VM2, 4);
	begin();
	look();
	assert_int_equal(w.n_told, 0);
	one->state = XEN_SHUTDOWN;
	one->reason = XEN_EV_CRASH;
	look();
	was_told(0, VM1, XEN_EV_CRASH, 3);
	world->n = 1;
	look();
	look();
	was_told(1, VM2, XEN_EV_GONE, 4);
	/* Each once, also the one that is still there. */
	assert_int_equal(w.n_told, 2);
	/* Another domain of the same VM. */
	sees(0, VM1, 9);
	look();
	world->n = 0;
	look();
	was_told(2, VM1, XEN_EV_GONE, 9);
}

static void test_deeds_of_operations(void **state)
{
	struct xl_vm *v;

	sees(0, VM1, 3);
	begin();
	look();
	v = vm_of(VM1);
	v->busy = true;
	world->n = 0;
	look();
	v->busy = false;
	/* It ended after that look began: nothing is known since. */
	v->ended_ms = env_mono_ms() + 100000;
	look();
	v->ended_ms = 0;
	v->phase = XL_SENT;
	look();
	assert_int_equal(w.n_told, 0);
	v->phase = XL_HOME;
	look();
	was_told(0, VM1, XEN_EV_GONE, 3);
}

static void test_watcher_dies(void **state)
{
	sees(0, VM1, 3);
	begin();
	look();
	world->mode = DIES;
	pthread_mutex_lock(&w.x.lock);
	w.x.asked++;
	pthread_mutex_unlock(&w.x.lock);
	kill(w.x.watcher.pid, SIGKILL);
	/* What happens meanwhile is seen by the next one that lives. */
	world->n = 0;
	while (world->begun < 3)
		poll(NULL, 0, 20);
	world->mode = HONEST;
	assert_int_equal(look(), 0);
	was_told(0, VM1, XEN_EV_GONE, 3);
	assert_true(world->begun >= 3);
}

static void test_asked_of_one_that_dies(void **state)
{
	begin();
	sees(0, VM1, 3);
	kill(w.x.watcher.pid, SIGSTOP);
	pthread_mutex_lock(&w.x.lock);
	kill(w.x.watcher.pid, SIGKILL);
	assert_int_equal(xl_watch_look(&w.x), 0);
	assert_int_equal(w.x.view->n, 1);
	pthread_mutex_unlock(&w.x.lock);
	assert_int_equal(world->begun, 2);
}

static void test_rubbish(void **state)
{
	static const enum mode modes[] = { SHORT, TOO_MANY, LONGER_THAN_SAID };

	sees(0, VM1, 3);
	begin();
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		world->mode = modes[i];
		assert_int_equal(look(), 1);
		assert_string_equal(w.x.view->seen[0].vm, VM1);
		assert_int_equal(world->mode, HONEST);
	}
	assert_int_equal(w.n_told, 0);
}

static void test_no_xen(void **state)
{
	int64_t start = env_mono_ms();

	world->mode = DIES;
	assert_int_equal(xl_watch_start(&w.x), -ENXIO);
	/* Not for want of patience. */
	assert_true(env_mono_ms() - start < 8000);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		test(test_looks), test(test_own_deeds),
		test(test_deeds_of_operations), test(test_watcher_dies),
		test(test_asked_of_one_that_dies), test(test_rubbish),
		test(test_no_xen),
	};

	if (argc > 1 && !strcmp(argv[1], XL_WORKER_OPTION))
		return watcher();
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
