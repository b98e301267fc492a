/* For the tests of the executor: real executors in folders of their own, each
 * with a client on one loop; everything they say is remembered. Included by one
 * file a program. */
#ifndef TESTS_UNIT_EXECUTOR_HOST_H
#define TESTS_UNIT_EXECUTOR_HOST_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "xen/message.h"

#define VM1 "11111111-1111-4111-8111-111111111111"
#define VM2 "22222222-2222-4222-8222-222222222222"
#define HOST_UUID "99999999-9999-4999-8999-999999999999"
#define MIB (1024ll * 1024)
#define PATIENCE_MS 20000
#define MAX_TOLD 4096

struct host {
	char dir[48], socket[96], state[96];
	pid_t pid;
	uv_loop_t loop;
	struct exec_client *client;
	bool up;
	struct value *told[MAX_TOLD]; /* done, progress, domain; in order */
	size_t n_told, n_states;
	struct value *latest; /* state */
	unsigned next_id;
};

static void host_message(void *data, const struct value *msg, int *fd)
{
	struct host *h = data;

	if (!strcmp(value_get_str(msg, "type"), "state")) {
		value_unref(h->latest);
		h->latest = value_ref(msg);
		h->n_states++;
		return;
	}
	assert_true(h->n_told < MAX_TOLD);
	h->told[h->n_told++] = value_ref(msg);
}

static void host_connected(void *data, bool up)
{
	((struct host *)data)->up = up;
}

static void no_op(uv_timer_t *t)
{
}

/* One turn of the loop, at most 20 ms long. */
static void host_turn(struct host *h)
{
	uv_timer_t t;

	uv_timer_init(&h->loop, &t);
	uv_timer_start(&t, no_op, 20, 0);
	uv_run(&h->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(&h->loop, UV_RUN_NOWAIT);
}

static _unused_ void host_sleep(struct host *h, int64_t ms)
{
	int64_t until = env_mono_ms() + ms;

	while (env_mono_ms() < until)
		host_turn(h);
}

/* Starts the program; extra: NULL-terminated options. */
static pid_t host_spawn(struct host *h, const char *const *extra)
{
	const char *build = getenv("XENPOOL_BUILD");
	char program[512];
	const char *argv[24] = { program, "--socket", h->socket, "--state-dir",
				 h->state, "--log-level", "error" };
	size_t n = 7;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/xenpool-executor",
		 build ? build : ".");
	for (; extra && *extra; extra++)
		argv[n++] = *extra;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* A test that fails leaves nothing behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid;
}

static void host_wait_up(struct host *h)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;
	size_t before = h->n_states;

	while ((!h->up || h->n_states == before) && env_mono_ms() < until)
		host_turn(h);
	assert_true(h->up && h->n_states > before);
}

static void host_start(struct host *h, const char *const *extra)
{
	h->pid = host_spawn(h, extra);
	host_wait_up(h);
}

static int host_stop(struct host *h, int sig)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;
	int status = 0;

	assert_int_equal(kill(h->pid, sig), 0);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	h->pid = 0;
	while (h->up && env_mono_ms() < until)
		host_turn(h);
	assert_false(h->up);
	return status;
}

static struct host *host_new(const char *const *extra)
{
	struct host *h = xcalloc(1, sizeof(*h));
	struct exec_client_callbacks cb = { h, host_message, host_connected };

	log_set_level(LOG_LEVEL_ERROR);
	snprintf(h->dir, sizeof(h->dir), "/tmp/xenpool-executor-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->socket, sizeof(h->socket), "%s/socket", h->dir);
	snprintf(h->state, sizeof(h->state), "%s/state", h->dir);
	assert_int_equal(uv_loop_init(&h->loop), 0);
	assert_int_equal(exec_client_start(&h->loop, h->socket, HOST_UUID, &cb,
					   &h->client), 0);
	host_start(h, extra);
	return h;
}

static void host_free(struct host *h)
{
	char command[256];

	exec_client_close(h->client);
	while (uv_loop_alive(&h->loop))
		uv_run(&h->loop, UV_RUN_ONCE);
	assert_int_equal(uv_loop_close(&h->loop), 0);
	if (h->pid) {
		int status;

		/* A clean end, also for the sanitizers. */
		kill(h->pid, SIGTERM);
		waitpid(h->pid, &status, 0);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	for (size_t i = 0; i < h->n_told; i++)
		value_unref(h->told[i]);
	value_unref(h->latest);
	snprintf(command, sizeof(command), "rm -rf %s", h->dir);
	assert_int_equal(system(command), 0);
	free(h);
}

/* ---- jobs ---- */

static struct value *config_with(const char *vm, int64_t mib,
				 struct value *other_config)
{
	return value_struct_of(
		"name", value_stringz("guest"), "uuid", value_stringz(vm),
		"memory_static_max", value_int(mib * MIB),
		"memory_target", value_int(mib * MIB), "vcpus", value_int(1),
		"vcpus_max", value_int(2), "domain_type", value_stringz("pvh"),
		"on_shutdown", value_stringz("destroy"),
		"on_reboot", value_stringz("restart"),
		"on_crash", value_stringz("destroy"),
		"xenstore", value_map_empty(), "platform", value_map_empty(),
		"other_config", other_config, NULL);
}

/* A map from C-string key, value pairs, NULL at the end. */
static struct value *keys(const char *key, ...)
{
	struct value *pairs[16];
	size_t n = 0;
	va_list ap;

	va_start(ap, key);
	for (; key; key = va_arg(ap, const char *)) {
		assert_true(n + 2 <= ARRAY_LEN(pairs));
		pairs[n++] = value_stringz(key);
		pairs[n++] = value_stringz(va_arg(ap, const char *));
	}
	va_end(ap);
	return value_map_from(pairs, n / 2);
}

/* A guest of 64 MiB that starts at once. */
static struct value *quick(const char *vm)
{
	return config_with(vm, 64,
			   keys("sim:start_ms", "1", "sim:shutdown_ms",
					"1", "sim:migrate_ms", "1", NULL));
}

static struct value *with_config(struct value *config)
{
	return value_struct_of("config", config, NULL);
}

static void job_send(struct host *h, const char *id, const char *verb,
		     const char *vm, int64_t fence, struct value *params)
{
	_cleanup_(value_unrefp) struct value *v = value_struct_of(
		"type", value_stringz("job"), "id", value_stringz(id),
		"verb", value_stringz(verb), "vm", value_stringz(vm),
		"fence", value_int(fence),
		"params", params ? params : value_struct_new(0), NULL);

	assert_int_equal(exec_client_send(h->client, v), 0);
}

static _unused_ void cancel_send(struct host *h, const char *id)
{
	_cleanup_(value_unrefp) struct value *v = value_struct_of(
		"type", value_stringz("cancel"), "id", value_stringz(id), NULL);

	assert_int_equal(exec_client_send(h->client, v), 0);
}

/* Index of the first message of the type and id from `from` on, or -1. */
static ssize_t told_find(struct host *h, const char *type, const char *id,
			 size_t from)
{
	for (size_t i = from; i < h->n_told; i++)
		if (!strcmp(value_get_str(h->told[i], "type"), type) &&
		    (!id || !strcmp(value_get_str(h->told[i], "id"), id)))
			return (ssize_t)i;
	return -1;
}

static const struct value *told_wait(struct host *h, const char *type,
				     const char *id, size_t from)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;
	ssize_t i;

	while ((i = told_find(h, type, id, from)) < 0 && env_mono_ms() < until)
		host_turn(h);
	if (i < 0)
		fail_msg("no %s %s came", type, id ? id : "");
	return h->told[i];
}

static const struct value *done_wait(struct host *h, const char *id)
{
	return told_wait(h, "done", id, 0);
}

static const char *error_at(const struct value *done, size_t i)
{
	const struct value *error = value_get(done, "error");

	return i < error->n ? value_str(error->items[i]) : "";
}

/* Runs a job to its end. Borrowed. */
static const struct value *job_run(struct host *h, const char *verb,
				   const char *vm, struct value *params)
{
	char id[32];

	snprintf(id, sizeof(id), "auto-%u", h->next_id++);
	job_send(h, id, verb, vm, 1, params);
	return done_wait(h, id);
}

/* Must succeed; its result, borrowed. */
static const struct value *job_ok(struct host *h, const char *verb,
				  const char *vm, struct value *params)
{
	const struct value *done = job_run(h, verb, vm, params);

	if (!value_get_int(done, "ok", 0))
		fail_msg("%s: %s %s %s", verb, error_at(done, 0),
			 error_at(done, 1), error_at(done, 2));
	return value_get(done, "result");
}

/* Must fail with this code. Borrowed. */
static const struct value *job_bad(struct host *h, const char *verb,
				   const char *vm, struct value *params,
				   const char *code)
{
	const struct value *done = job_run(h, verb, vm, params);

	assert_false(value_get_int(done, "ok", 1));
	assert_string_equal(error_at(done, 0), code);
	return done;
}

/* ---- state ---- */

static void list_send(struct host *h)
{
	_cleanup_(value_unrefp) struct value *v =
		value_struct_of("type", value_stringz("list"), NULL);

	assert_int_equal(exec_client_send(h->client, v), 0);
}

static const struct value *state_now(struct host *h)
{
	int64_t until = env_mono_ms() + PATIENCE_MS;
	size_t before = h->n_states;

	list_send(h);
	while (h->n_states == before && env_mono_ms() < until)
		host_turn(h);
	assert_true(h->n_states > before);
	return h->latest;
}

/* NULL: no such domain. Borrowed until the next state. */
static const struct value *domain_now(struct host *h, const char *vm)
{
	const struct value *set = value_get(state_now(h), "domains");

	for (uint32_t i = 0; i < set->n; i++)
		if (!strcmp(value_get_str(set->items[i], "vm"), vm))
			return set->items[i];
	return NULL;
}

static const char *state_of(struct host *h, const char *vm)
{
	const struct value *d = domain_now(h, vm);

	return d ? value_get_str(d, "state") : "none";
}

static _unused_ int64_t ticks_of(struct host *h, const char *vm)
{
	const struct value *d = domain_now(h, vm);

	assert_non_null(d);
	return value_get_int(d, "guest_ticks", -1);
}

#endif
