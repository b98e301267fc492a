/* What the executor does with too much, with a disk that refuses, and with
 * packets made of rubbish. */
#include "tests/unit/executor_host.h"
#include "xen/domain_config.h"
#include "xen/jobs.h"

static const char *const small[] = { "--memory-mib", "256", NULL };

/* ---- limits ---- */

static void test_too_many_jobs(void **state)
{
	struct host *h = host_new(small);
	char id[24];

	job_send(h, "slow", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "60000", NULL))));
	for (int i = 1; i < JOBS_MAX_PENDING; i++) {
		snprintf(id, sizeof(id), "fits-%d", i);
		job_send(h, id, "pause", VM1, 1, NULL);
	}
	job_send(h, "surplus", "pause", VM2, 1, NULL);
	assert_string_equal(error_at(done_wait(h, "surplus"), 0),
			    "TOO_MANY_PENDING_TASKS");
	/* The place of one that was cancelled is free again. */
	cancel_send(h, "fits-7");
	done_wait(h, "fits-7");
	job_send(h, "late", "hard_shutdown", VM2, 1, NULL);
	assert_true(value_get_int(done_wait(h, "late"), "ok", 0));
	host_free(h);
}

static void say_ms(const char *what, int64_t start)
{
	print_message("%s: %lld ms\n", what,
		      (long long)(env_mono_ms() - start));
}

/* While Xen takes its time to list the domains, jobs go on; and a state that was
 * looked up before the result of one does not come after it. */
static void test_slow_list(void **state)
{
	struct host *h = host_new(small);
	const int n = 10;
	size_t states;
	int64_t start;
	char id[24];

	job_ok(h, "start", VM1,
	       with_config(config_with(VM1, 64, keys("sim:start_ms", "1",
						     "sim:list_ms", "2000",
						     NULL))));
	states = h->n_states;
	list_send(h);
	start = env_mono_ms();
	job_send(h, "other", "start", VM2, 1, with_config(quick(VM2)));
	assert_true(value_get_int(done_wait(h, "other"), "ok", 0));
	say_ms("a result while Xen is slow", start);
	assert_true(env_mono_ms() - start < 1500);
	assert_int_equal(h->n_states, states);
	while (h->n_states == states && env_mono_ms() < start + PATIENCE_MS)
		host_turn(h);
	assert_int_equal(value_get(h->latest, "domains")->n, 2);
	/* Results without end do not keep the state away. */
	job_ok(h, "hard_reboot", VM1,
	       with_config(config_with(VM1, 64, keys("sim:list_ms", "300",
						     NULL))));
	states = h->n_states;
	list_send(h);
	start = env_mono_ms();
	for (int i = 0; h->n_states == states &&
	     env_mono_ms() < start + PATIENCE_MS; i++) {
		snprintf(id, sizeof(id), "many-%d", i % n);
		job_send(h, id, i % 2 ? "pause" : "unpause", VM2, 1, NULL);
		host_sleep(h, 50);
	}
	say_ms("a state among results", start);
	assert_true(h->n_states > states);
	host_free(h);
}

static void test_results_are_bounded(void **state)
{
	struct exec_client_callbacks cb;
	struct host *h = host_new(small);
	const int n = JOBS_MAX_ENDED + 50;
	char id[24];

	job_send(h, "r-0", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "500", NULL))));
	for (int i = 1; i < n; i++) {
		snprintf(id, sizeof(id), "r-%d", i);
		job_send(h, id, "pause", VM1, 1, NULL);
	}
	state_now(h); /* all have been taken */
	exec_client_close(h->client);
	host_sleep(h, 1500);
	assert_int_equal(told_find(h, "done", NULL, 0), -1);
	cb = (struct exec_client_callbacks){ h, host_message, host_connected };
	assert_int_equal(exec_client_start(&h->loop, h->socket, HOST_UUID, &cb,
					   &h->client), 0);
	snprintf(id, sizeof(id), "r-%d", n - 1);
	assert_true(value_get_int(done_wait(h, id), "ok", 0));
	assert_int_equal(told_find(h, "done", "r-0", 0), -1);
	assert_int_equal(told_find(h, "done", "r-49", 0), -1);
	assert_true(told_find(h, "done", "r-50", 0) >= 0);
	host_free(h);
}

static void test_client_limits(void **state)
{
	struct host *h = host_new(small);
	char *big = xcalloc(1, EXEC_MAX_MESSAGE + 1);
	struct value *v;

	memset(big, 'x', EXEC_MAX_MESSAGE);
	v = value_struct_of("type", value_stringz("cancel"), "id",
			    value_stringz(big), NULL);
	assert_int_equal(exec_client_send(h->client, v), -E2BIG);
	value_unref(v);
	free(big);
	host_stop(h, SIGTERM);
	v = value_struct_of("type", value_stringz("list"), NULL);
	assert_int_equal(exec_client_send(h->client, v), -ENOTCONN);
	value_unref(v);
	host_start(h, small);
	host_free(h);
}

/* A config of almost a whole packet comes through. */
static void test_long_packet(void **state)
{
	struct value *pairs[2 * 15];
	struct host *h = host_new(small);
	char *word = xcalloc(1, DOMAIN_MAX_ITEM + 1);

	memset(word, 'x', DOMAIN_MAX_ITEM);
	for (size_t i = 0; i < 15; i++) {
		pairs[2 * i] = value_printf("key-%zu", i);
		pairs[2 * i + 1] = value_stringz(word);
	}
	job_ok(h, "start", VM1,
	       with_config(config_with(VM1, 64, value_map_from(pairs, 15))));
	free(word);
	host_free(h);
}

static void test_many_domains(void **state)
{
	const char *big[] = { "--memory-mib", "65536", "--workers", "2", NULL };
	struct host *h = host_new(big);
	char vm[UUID_LEN + 1];

	for (int i = 0; i < 100; i++) {
		uuid_new(vm);
		job_ok(h, "start", vm, with_config(quick(vm)));
	}
	assert_int_equal(value_get(state_now(h), "domains")->n, 100);
	host_stop(h, SIGKILL);
	host_start(h, big);
	assert_int_equal(value_get(state_now(h), "domains")->n, 100);
	host_free(h);
}

/* ---- a disk that refuses: state.json.tmp cannot be made ---- */

static void disk_break(struct host *h, char path[192])
{
	snprintf(path, 192, "%s/state.json.tmp", h->state);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void test_disk_refuses(void **state)
{
	static const char *const verbs[] = { "pause", "clean_shutdown",
					     "hard_shutdown" };
	struct host *h = host_new(small);
	char path[192];

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	job_ok(h, "hard_shutdown", VM2, NULL); /* its fence is known */
	disk_break(h, path);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		job_bad(h, verbs[i], VM1, NULL, "INTERNAL_ERROR");
		assert_string_equal(state_of(h, VM1), "running");
	}
	job_bad(h, "start", VM2, with_config(quick(VM2)), "INTERNAL_ERROR");
	job_bad(h, "hard_reboot", VM1, with_config(quick(VM1)),
		"INTERNAL_ERROR");
	job_bad(h, "migrate_receive", VM2, with_config(quick(VM2)),
		"INTERNAL_ERROR");
	assert_string_equal(state_of(h, VM1), "running");
	assert_string_equal(state_of(h, VM2), "none");
	assert_int_equal(value_get_int(value_get(state_now(h), "host"),
				       "memory_free", 0), 192 * MIB);
	/* A fence that cannot be kept lets nothing pass. */
	job_send(h, "fence", "hard_shutdown", VM1, 9, NULL);
	assert_string_equal(error_at(done_wait(h, "fence"), 0),
			    "INTERNAL_ERROR");
	assert_int_equal(rmdir(path), 0);
	job_ok(h, "pause", VM1, NULL);
	job_ok(h, "start", VM2, with_config(quick(VM2)));
	host_stop(h, SIGKILL);
	host_start(h, small);
	assert_string_equal(state_of(h, VM1), "paused");
	assert_string_equal(state_of(h, VM2), "running");
	host_free(h);
}

/* Whoever was killed while writing leaves this behind. */
static void test_left_behind(void **state)
{
	struct host *h = host_new(small);
	char path[192];
	FILE *f;

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	host_stop(h, SIGKILL); /* its socket and lock stay too */
	snprintf(path, sizeof(path), "%s/state.json.tmp", h->state);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("{\"format\":", f);
	fclose(f);
	host_start(h, small);
	assert_string_equal(state_of(h, VM1), "running");
	job_ok(h, "pause", VM1, NULL);
	assert_int_equal(access(path, F_OK), -1);
	host_free(h);
}

static void test_not_a_socket(void **state)
{
	struct host *h = host_new(small);
	int fd, status;

	host_stop(h, SIGTERM);
	fd = open(h->socket, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "mine", 4), 4);
	close(fd);
	h->pid = host_spawn(h, small);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	h->pid = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	fd = open(h->socket, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 4);
	close(fd);
	host_free(h);
}

/* ---- forms ---- */

static struct value *changed(const char *name, struct value *takes_v)
{
	struct value *c = config_with(VM1, 64, value_map_empty());

	for (uint32_t i = 0; i < c->n; i++) {
		if (!value_is_str(c->items[2 * i], name))
			continue;
		value_unref(c->items[2 * i + 1]);
		c->items[2 * i + 1] = takes_v;
		return c;
	}
	fail_msg("no member %s", name);
	return c;
}

static void expect_reason(const char *name, struct value *takes_v,
			  const char *reason)
{
	_cleanup_(value_unrefp) struct value *c = changed(name, takes_v);
	char got[160] = "";

	assert_null(domain_config_parse(c, got, sizeof(got)));
	assert_string_equal(got, reason);
}

static void test_config(void **state)
{
	_cleanup_(value_unrefp) struct value *v =
		config_with(VM1, 64, keys("a", "b", NULL));
	_cleanup_(domain_config_freep) struct domain_config *c = NULL;
	char got[160] = "";

	c = domain_config_parse(v, got, sizeof(got));
	assert_non_null(c);
	assert_string_equal(c->uuid, VM1);
	assert_string_equal(c->name, "guest");
	assert_int_equal(c->type, DOMAIN_PVH);
	assert_int_equal(c->memory_target, 64 * MIB);
	assert_int_equal(c->vcpus, 1);
	assert_int_equal(c->vcpus_max, 2);
	assert_int_equal(c->on_reboot, DOMAIN_RESTART);
	assert_int_equal(c->on_crash, DOMAIN_DESTROY);
	assert_string_equal(c->kernel, "");
	assert_string_equal(value_get_str(c->other_config, "a"), "b");
	assert_null(domain_config_parse(NULL, got, sizeof(got)));
	assert_string_equal(got, "missing or not a struct");
}

static void test_config_refused(void **state)
{
	expect_reason("vcpus", value_int(0), "vcpus: 0 is not in 1..512");
	expect_reason("vcpus", value_int(3), "vcpus: above vcpus_max");
	expect_reason("vcpus", value_stringz("1"), "vcpus: wrong type");
	expect_reason("vcpus_max", value_int(513),
		      "vcpus_max: 513 is not in 1..512");
	expect_reason("memory_static_max", value_int(-1),
		      "memory_static_max: -1 is not in 1048576..70368744177664");
	expect_reason("memory_target", value_int(65 * MIB),
		      "memory_target: above memory_static_max");
	expect_reason("memory_target", value_int(1),
		      "memory_target: below 1 MiB");
	expect_reason("domain_type", value_stringz("lxc"),
		      "domain_type: unknown word \"lxc\"");
	expect_reason("domain_type", value_stringz(""),
		      "domain_type: unknown word \"\"");
	expect_reason("on_crash", value_stringz("weep"),
		      "on_crash: unknown word \"weep\"");
	expect_reason("uuid", value_stringz("1"), "uuid: not a uuid");
	expect_reason("name", value_string("a\xff", 2), "name: not valid text");
	expect_reason("platform", value_int(1), "platform: wrong type");
}

/* Nothing to find but a crash or a leak: run it with the sanitizers. */
static void test_rubbish(void **state)
{
	_cleanup_(buf_deinit) struct buf good = BUF_INIT;
	_cleanup_(value_unrefp) struct value *v = value_struct_of(
		"type", value_stringz("job"), "id", value_stringz("id"),
		"verb", value_stringz("start"), "vm", value_stringz(VM1),
		"fence", value_int(1), "params", with_config(quick(VM1)), NULL);
	unsigned seed = 12345, taken = 0;
	char reason[160];

	value_encode(&good, v);
	for (int round = 0; round < 20000; round++) {
		char *bad = xmalloc(good.len);
		size_t n = good.len;
		struct value *got;

		memcpy(bad, good.data, n);
		for (int k = rand_r(&seed) % 3; k >= 0; k--)
			bad[(size_t)rand_r(&seed) % n] = (char)rand_r(&seed);
		if (rand_r(&seed) % 4 == 0)
			n = (size_t)rand_r(&seed) % n;
		got = exec_message_decode(EXEC_TO_EXECUTOR, bad, n, reason,
					  sizeof(reason));
		if (got) {
			taken++;
			domain_config_free(domain_config_parse(
				value_get(value_get(got, "params"), "config"),
				reason, sizeof(reason)));
		}
		value_unref(got);
		free(bad);
	}
	/* Some changes hit only a text. */
	assert_true(taken > 100 && taken < 19000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_too_many_jobs),
		cmocka_unit_test(test_slow_list),
		cmocka_unit_test(test_results_are_bounded),
		cmocka_unit_test(test_client_limits),
		cmocka_unit_test(test_long_packet),
		cmocka_unit_test(test_many_domains),
		cmocka_unit_test(test_disk_refuses),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_not_a_socket),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_config_refused),
		cmocka_unit_test(test_rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
