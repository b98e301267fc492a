/* The reader of guests' nodes, and the writer of theirs, with a real xenstored
 * that thinks there is a Xen (fakexen.c). Skipped where there is no xenstored. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <xenstore.h>

#include "base/env.h"
#include "base/log.h"
#include "schema/value.h"
#include "xen/guest_scan.h"
#include "xen/xs_data.h"
#include "xen/xs_watch.h"

#define PATIENCE_MS 60000
#define VM_OF(n) "11111111-1111-4111-8111-11111111111" #n
#define FLOOD_NODES 8000

static const char *const stores[] = { "/usr/lib/xen-4.17/bin/xenstored",
				      "/usr/lib/xen-4.20/bin/xenstored",
				      "/usr/sbin/xenstored" };

static struct {
	char dir[48];
	pid_t store, reader;
	struct xs_handle *xs;
	int told; /* the reader's packets */
} w;

static pid_t child(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void stop(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

static const char *store_program(void)
{
	for (size_t i = 0; i < ARRAY_LEN(stores); i++)
		if (access(stores[i], X_OK) == 0)
			return stores[i];
	return NULL;
}

static void store_start(void)
{
	const char *build = getenv("XENPOOL_BUILD");
	char fake[512];
	int64_t until = env_mono_ms() + PATIENCE_MS;

	snprintf(fake, sizeof fake, "%s/tests/unit/fakexen.so",
		 build ? build : ".");
	w.store = child();
	if (w.store == 0) {
		setenv("LD_PRELOAD", fake, 1);
		execl(store_program(), "xenstored", "-N", NULL);
		_exit(127);
	}
	while (!(w.xs = xs_open(XS_OPEN_SOCKETONLY)) && env_mono_ms() < until)
		poll(NULL, 0, 20);
	assert_non_null(w.xs);
}

static void reader_start(void)
{
	char empty[80];
	int pair[2];

	snprintf(empty, sizeof empty, "%s/empty", w.dir);
	assert_int_equal(mkdir(empty, 0555), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				    pair), 0);
	w.reader = child();
	if (w.reader == 0) {
		close(pair[0]);
		_exit(xs_watch_main(pair[1], empty, "nobody"));
	}
	close(pair[1]);
	w.told = pair[0];
}

static int set_up(void **state)
{
	strcpy(w.dir, "/tmp/xenpool-xs-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	setenv("XENSTORED_RUNDIR", w.dir, 1);
	w.told = -1;
	if (!store_program())
		return 0;
	store_start();
	reader_start();
	return 0;
}

static int tear_down(void **state)
{
	char command[80];

	stop(&w.reader);
	if (w.xs)
		xs_close(w.xs);
	w.xs = NULL;
	stop(&w.store);
	if (w.told >= 0)
		close(w.told);
	snprintf(command, sizeof command, "rm -rf '%s'", w.dir);
	return system(command);
}

#define NEEDS_STORE()              \
	do {                       \
		if (!w.xs)         \
			skip();    \
	} while (0)

/* ---- guests ---- */

static void put(unsigned domid, const char *node, const char *text, size_t n)
{
	char path[256];

	snprintf(path, sizeof path, "/local/domain/%u/%s", domid, node);
	assert_true(xs_write(w.xs, XBT_NULL, path, text, (unsigned)n));
}

static void puts_(unsigned domid, const char *node, const char *text)
{
	put(domid, node, text, strlen(text));
}

static void domain_new(unsigned domid, const char *vm)
{
	char text[64];

	snprintf(text, sizeof text, "/vm/%s", vm);
	puts_(domid, "vm", text);
	assert_true(xs_introduce_domain(w.xs, domid, 1, 1));
}

static struct value *packet(int64_t until)
{
	static char room[1 << 20];
	struct pollfd f = { .fd = w.told, .events = POLLIN };
	int64_t left = MAX(until - env_mono_ms(), (int64_t)0);
	struct reader r;
	ssize_t n;

	if (poll(&f, 1, (int)left) <= 0)
		return NULL;
	n = recv(w.told, room, sizeof room, 0);
	assert_true(n > 0);
	r = reader_of(room, (size_t)n);
	return value_decode(&r);
}

/* The next metrics of the VM in which member[key] is text; others are counted
 * by VM. */
static void wait_for(const char *vm, const char *member, const char *key,
		     const char *text)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;
	bool found = false;

	while (!found) {
		struct value *v = packet(until);

		if (!v)
			fail_msg("%s: no %s[%s] = %s", vm, member, key, text);
		found = !strcmp(value_get_str(v, "vm"), vm) &&
			!strcmp(value_get_str(value_get(value_get(v, "metrics"),
							member), key), text);
		value_unref(v);
	}
}

/* ---- tests ---- */

static void test_reader(void **state)
{
	NEEDS_STORE();
	domain_new(1, VM_OF(1));
	puts_(1, "data/os_name", "One");
	wait_for(VM_OF(1), "os_version", "name", "One");
	/* One that comes later, and writes later still. */
	domain_new(2, VM_OF(2));
	puts_(2, "attr/vif/0/ipv4/0", "192.0.2.7");
	wait_for(VM_OF(2), "networks", "0/ip", "192.0.2.7");
	puts_(1, "data/os_name", "Another & \"quoted\"");
	wait_for(VM_OF(1), "os_version", "name", "Another & \"quoted\"");
	puts_(1, "control/feature-suspend", "1");
	wait_for(VM_OF(1), "other", "feature-suspend", "1");
	puts_(1, "device/vbd/51712/state", "4");
	puts_(1, "data/host_name", "x");
	wait_for(VM_OF(1), "netbios_name", "host_name", "x");
	/* Another VM in a domain of that number. */
	puts_(2, "vm", "/vm/" VM_OF(3));
	domain_new(4, VM_OF(4));
	wait_for(VM_OF(3), "networks", "0/ip", "192.0.2.7");
	/* A connection less is the end of the reader, not of anything else. */
	close(w.told);
	w.told = -1;
	assert_int_equal(waitpid(w.reader, NULL, 0), w.reader);
	w.reader = 0;
}

/* The number after a name in a thread's status; -1: not there. */
static int64_t status_of(const char *task, const char *name, int base)
{
	char path[320], line[256];
	int64_t found = -1;
	FILE *f;

	snprintf(path, sizeof path, "%s/status", task);
	f = fopen(path, "re");
	assert_non_null(f);
	while (found < 0 && fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)))
			found = strtoll(line + strlen(name), NULL, base);
	fclose(f);
	return found;
}

static int64_t resident_kib(pid_t pid)
{
	char task[64];

	snprintf(task, sizeof task, "/proc/%d", (int)pid);
	return status_of(task, "VmRSS:", 10);
}

/* All its threads, libxenstore's too, which was there before. */
static void test_confined(void **state)
{
	char tasks[64], task[320];
	struct dirent *d;
	unsigned n = 0;
	DIR *dir;

	NEEDS_STORE();
	domain_new(7, VM_OF(7));
	puts_(7, "data/os_name", "Seven");
	wait_for(VM_OF(7), "os_version", "name", "Seven");
	snprintf(tasks, sizeof tasks, "/proc/%d/task", (int)w.reader);
	dir = opendir(tasks);
	assert_non_null(dir);
	while ((d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		n++;
		snprintf(task, sizeof task, "%s/%s", tasks, d->d_name);
		assert_int_equal(status_of(task, "Seccomp:", 10), 2);
		assert_int_equal(status_of(task, "NoNewPrivs:", 10), 1);
		if (geteuid())
			continue;
		assert_int_not_equal(status_of(task, "Uid:", 10), 0);
		assert_int_equal(status_of(task, "CapPrm:", 16), 0);
	}
	closedir(dir);
	assert_true(n >= 2);
}

/* Another process, as the guest would be: 8000 nodes of 2 KiB, over and over. */
static pid_t flood_start(unsigned domid)
{
	static char text[2048];
	struct xs_handle *xs;
	char path[96];
	pid_t pid = child();

	if (pid)
		return pid;
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = i % 2 ? '"' : '&';
	xs = xs_open(XS_OPEN_SOCKETONLY);
	for (unsigned i = 0; xs; i++) {
		snprintf(path, sizeof path, "/local/domain/%u/%s/k%u", domid,
			 i % 2 ? "control" : "data", i / 2 % FLOOD_NODES);
		/* Half of them are short enough to be told. */
		snprintf(text, 16, "%015u", i);
		text[15] = '&';
		xs_write(xs, XBT_NULL, path, text,
			 i % 3 ? sizeof text : GUEST_MAX_VALUE);
	}
	_exit(0);
}

#define FLOOD_MS 7000

static void test_flood(void **state)
{
	int64_t before, grown, until;
	unsigned n = 0, told = 0, other = 0;
	pid_t flood;
	char text[24];

	NEEDS_STORE();
	domain_new(5, VM_OF(5));
	domain_new(6, VM_OF(6));
	puts_(6, "data/os_name", "0");
	wait_for(VM_OF(6), "os_version", "name", "0");
	before = resident_kib(w.reader);
	flood = flood_start(5);
	until = env_mono_ms() + FLOOD_MS;
	while (env_mono_ms() < until) {
		/* The neighbour says something new, and is heard. */
		snprintf(text, sizeof text, "%u", ++n);
		puts_(6, "data/os_name", text);
		for (bool heard = false; !heard;) {
			struct value *v = packet(env_mono_ms() + PATIENCE_MS);
			const struct value *m;

			assert_non_null(v);
			m = value_get(v, "metrics");
			told += !strcmp(value_get_str(v, "vm"), VM_OF(5));
			heard = !strcmp(value_get_str(
						value_get(m, "os_version"),
						"name"), text);
			value_unref(v);
		}
		other++;
		poll(NULL, 0, 200);
	}
	grown = resident_kib(w.reader) - before;
	stop(&flood);
	print_message("flood told %u times, neighbour %u times, reader grew by "
		      "%lld KiB\n", told, other, (long long)grown);
	assert_true(other >= 3);
	assert_true(told >= 1 && told <= FLOOD_MS / 1000);
	assert_true(grown < 8192);
}

static char *get(unsigned domid, const char *node)
{
	char path[256];
	unsigned n;

	snprintf(path, sizeof path, "/local/domain/%u/%s", domid, node);
	return xs_read(w.xs, XBT_NULL, path, &n);
}

static void assert_node(unsigned domid, const char *node, const char *text)
{
	char *got = get(domid, node);

	if (text) {
		assert_non_null(got);
		assert_string_equal(got, text);
	} else {
		assert_null(got);
	}
	free(got);
}

static void test_data(void **state)
{
	struct value *nodes = value_map_of(
		"vm-data/a", value_stringz("1"),
		"vm-data/deep/er", value_stringz("two & \"three\""),
		"FIST/x", value_stringz(""), NULL);
	struct value *none = value_map_empty();

	NEEDS_STORE();
	domain_new(7, VM_OF(7));
	puts_(7, "vm-data/old", "gone soon");
	puts_(7, "data/os_name", "stays");
	assert_int_equal(xs_data_write(w.xs, 7, nodes), 0);
	assert_node(7, "vm-data/a", "1");
	assert_node(7, "vm-data/deep/er", "two & \"three\"");
	assert_node(7, "FIST/x", "");
	assert_node(7, "vm-data/old", NULL);
	assert_node(7, "data/os_name", "stays");
	assert_int_equal(xs_data_write(w.xs, 7, nodes), 0);
	assert_int_equal(xs_data_write(w.xs, 7, none), 0);
	assert_node(7, "vm-data/a", NULL);
	assert_node(7, "FIST/x", NULL);
	assert_node(7, "data/os_name", "stays");
	/* Once more although there is nothing to clear. */
	assert_int_equal(xs_data_write(w.xs, 7, none), 0);
	value_unref(nodes);
	value_unref(none);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_STORE(test_reader),
		WITH_STORE(test_confined),
		WITH_STORE(test_flood),
		WITH_STORE(test_data),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
