/* The executor over its socket: lifecycle, order, fences, crashes, doors. */
#include <time.h>

#include "tests/unit/executor_host.h"

static const char *const small[] = { "--memory-mib", "256", "--cpus", "4",
				     NULL };

static struct value *image_params(struct host *h, struct value *config)
{
	struct value *path = value_printf("%s/image", h->dir);

	if (!config)
		return value_struct_of("image", path, NULL);
	return value_struct_of("image", path, "config", config, NULL);
}

static bool image_exists(struct host *h)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/image", h->dir);
	return access(path, F_OK) == 0;
}

static void test_lifecycle(void **state)
{
	struct host *h = host_new(small);
	int64_t domid;

	assert_string_equal(state_of(h, VM1), "none");
	domid = value_get_int(job_ok(h, "start", VM1, with_config(quick(VM1))),
			      "domid", 0);
	assert_true(domid > 0);
	assert_string_equal(state_of(h, VM1), "running");
	job_ok(h, "pause", VM1, NULL);
	assert_string_equal(state_of(h, VM1), "paused");
	job_ok(h, "pause", VM1, NULL);
	job_bad(h, "clean_shutdown", VM1, NULL, "VM_BAD_POWER_STATE");
	job_ok(h, "unpause", VM1, NULL);
	job_ok(h, "unpause", VM1, NULL);
	assert_string_equal(state_of(h, VM1), "running");
	job_ok(h, "clean_shutdown", VM1, NULL);
	assert_string_equal(state_of(h, VM1), "none");
	job_ok(h, "clean_shutdown", VM1, NULL);
	job_ok(h, "hard_shutdown", VM1, NULL);
	job_bad(h, "pause", VM1, NULL, "VM_BAD_POWER_STATE");
	host_free(h);
}

static void test_start_paused(void **state)
{
	struct host *h = host_new(small);

	job_ok(h, "start", VM1,
	       value_struct_of("config", quick(VM1), "paused", value_bool(true),
			       NULL));
	assert_string_equal(state_of(h, VM1), "paused");
	assert_int_equal(ticks_of(h, VM1), 0);
	job_ok(h, "unpause", VM1, NULL);
	host_sleep(h, 30);
	assert_true(ticks_of(h, VM1) >= 30);
	host_free(h);
}

static void test_start_twice(void **state)
{
	struct host *h = host_new(small);
	int64_t a, b;

	a = value_get_int(job_ok(h, "start", VM1, with_config(quick(VM1))),
			  "domid", 0);
	b = value_get_int(job_ok(h, "start", VM1, with_config(quick(VM1))),
			  "domid", 0);
	assert_int_equal(a, b);
	assert_int_equal(value_get(state_now(h), "domains")->n, 1);
	host_free(h);
}

static void test_reboots(void **state)
{
	struct host *h = host_new(small);
	int64_t a, b, c, asked;

	a = value_get_int(job_ok(h, "start", VM1, with_config(quick(VM1))),
			  "domid", 0);
	host_sleep(h, 60);
	assert_true(ticks_of(h, VM1) >= 60);
	asked = env_mono_ms();
	b = value_get_int(
		job_ok(h, "clean_reboot", VM1, with_config(quick(VM1))),
		"domid", 0);
	assert_true(b != a && b > 0);
	/* It began again: what it has run fits into the time since. */
	a = ticks_of(h, VM1);
	assert_true(a <= env_mono_ms() - asked);
	c = value_get_int(
		job_ok(h, "hard_reboot", VM1, with_config(quick(VM1))), "domid",
		0);
	assert_true(c != b && c > 0);
	job_ok(h, "hard_shutdown", VM1, NULL);
	/* A reboot that was cut short by a crash goes on from nothing. */
	job_ok(h, "hard_reboot", VM1, with_config(quick(VM1)));
	assert_string_equal(state_of(h, VM1), "running");
	host_free(h);
}

static void test_suspend_resume(void **state)
{
	struct host *h = host_new(small);
	int64_t before, after;

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	host_sleep(h, 50);
	before = ticks_of(h, VM1);
	job_ok(h, "suspend", VM1, image_params(h, NULL));
	assert_string_equal(state_of(h, VM1), "none");
	assert_true(image_exists(h));
	job_ok(h, "suspend", VM1, image_params(h, NULL));
	job_ok(h, "resume", VM1,
	       value_struct_of("image", value_printf("%s/image", h->dir),
			       "config", quick(VM1), "paused", value_bool(true),
			       NULL));
	assert_string_equal(state_of(h, VM1), "paused");
	assert_false(image_exists(h));
	after = ticks_of(h, VM1);
	assert_true(before > 0 && after >= before);
	job_ok(h, "resume", VM1, image_params(h, quick(VM1)));
	job_ok(h, "hard_shutdown", VM1, NULL);
	job_bad(h, "resume", VM1, image_params(h, quick(VM1)),
		"SUSPEND_IMAGE_NOT_ACCESSIBLE");
	assert_string_equal(state_of(h, VM1), "none");
	host_free(h);
}

static void test_image_is_no_weapon(void **state)
{
	static const char text[] = "precious";
	struct host *h = host_new(small);
	char path[192], got[16] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/image", h->dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	job_ok(h, "start", VM1, with_config(quick(VM1)));
	/* What is no image of this VM is neither replaced nor removed. */
	job_bad(h, "suspend", VM1, image_params(h, NULL),
		"SUSPEND_IMAGE_NOT_ACCESSIBLE");
	job_ok(h, "resume", VM1, image_params(h, quick(VM1)));
	assert_string_equal(state_of(h, VM1), "running");
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(got, sizeof(got), f));
	fclose(f);
	assert_string_equal(got, text);
	job_bad(h, "suspend", VM1,
		value_struct_of("image", value_stringz("relative"), NULL),
		"INVALID_VALUE");
	job_bad(h, "suspend", VM1,
		value_struct_of("image", value_stringz("/tmp/../etc/x"), NULL),
		"INVALID_VALUE");
	host_free(h);
}

static void test_drop_image(void **state)
{
	struct host *h = host_new(small);

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	job_ok(h, "suspend", VM1, image_params(h, NULL));
	assert_true(image_exists(h));
	/* Another VM's, whoever says so. */
	job_bad(h, "drop_image", VM2, image_params(h, NULL),
		"SUSPEND_IMAGE_NOT_ACCESSIBLE");
	job_bad(h, "drop_image", VM1,
		value_struct_of("image", value_stringz("image"), NULL),
		"INVALID_VALUE");
	/* Written since it was said. */
	job_ok(h, "drop_image", VM1,
	       value_struct_of("image", value_printf("%s/image", h->dir),
			       "before", value_int(time(NULL) - 3600), NULL));
	assert_true(image_exists(h));
	job_ok(h, "drop_image", VM1,
	       value_struct_of("image", value_printf("%s/image", h->dir),
			       "before", value_int(time(NULL) + 3600), NULL));
	assert_false(image_exists(h));
	job_ok(h, "drop_image", VM1, image_params(h, NULL));
	/* It was written down long ago, or has overtaken what was: neither it
	 * nor the other is too late. */
	job_send(h, "low", "drop_image", VM1, 0, image_params(h, NULL));
	assert_true(value_get_int(done_wait(h, "low"), "ok", 0));
	job_send(h, "high", "drop_image", VM1, 1000000, image_params(h, NULL));
	assert_true(value_get_int(done_wait(h, "high"), "ok", 0));
	job_ok(h, "start", VM1, with_config(quick(VM1)));
	host_free(h);
}

static void test_image_dir(void **state)
{
	const char *options[] = { "--image-dir", "/nowhere/images", NULL };
	struct host *h = host_new(options);

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	job_bad(h, "suspend", VM1, image_params(h, NULL), "INVALID_VALUE");
	job_bad(h, "suspend", VM1,
		value_struct_of("image",
				value_stringz("/nowhere/images/deeper/x"),
				NULL),
		"INVALID_VALUE");
	/* Allowed, but the folder does not exist. */
	job_bad(h, "suspend", VM1,
		value_struct_of("image", value_stringz("/nowhere/images/x"),
				NULL),
		"SUSPEND_IMAGE_NOT_ACCESSIBLE");
	assert_string_equal(state_of(h, VM1), "running");
	host_free(h);
}

static struct value *config_of(const char *key, struct value *v)
{
	_cleanup_(value_unrefp) struct value *config =
		config_with(VM1, 64, value_map_empty());
	struct value *s = value_struct_new(config->n + 1);

	for (uint32_t i = 0; i < 2 * config->n; i++)
		s->items[i] = value_ref(config->items[i]);
	s->items[2 * config->n] = value_stringz(key);
	s->items[2 * config->n + 1] = v;
	return with_config(s);
}

static struct value *disk_of(const char *path)
{
	struct value *set = value_set_new(1);

	set->items[0] = value_struct_of("number", value_int(0), "path",
					value_stringz(path), NULL);
	return set;
}

/* A job cannot make root give some file of the host to a guest. */
static void test_kernel_and_disk_dirs(void **state)
{
	const char *options[] = { "--kernel-dir", "/k", "--kernel-dir", "/l/m",
				  "--disk-dir", "/d", NULL };
	static const char *const others[] = { "/etc/shadow", "/k", "/k/", "/kk/x",
					      "/k/../etc/shadow", "/l/x", "x" };
	struct host *h = host_new(options);

	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		job_bad(h, "start", VM1, config_of("kernel",
						   value_stringz(others[i])),
			"INVALID_VALUE");
		job_bad(h, "start", VM1, config_of("ramdisk",
						   value_stringz(others[i])),
			"INVALID_VALUE");
		job_bad(h, "start", VM1, config_of("disks", disk_of(others[i])),
			"INVALID_VALUE");
	}
	job_bad(h, "migrate_receive", VM1,
		config_of("kernel", value_stringz("/d/x")), "INVALID_VALUE");
	job_ok(h, "start", VM1, config_of("disks", disk_of("/d/1/2.raw")));
	job_ok(h, "hard_reboot", VM1,
	       config_of("kernel", value_stringz("/l/m/vmlinux")));
	host_free(h);
}

static struct value *change_of(const char *what, struct value *v)
{
	return value_struct_of(what, v, NULL);
}

static struct value *one_disk(const char *path)
{
	return value_struct_of("number", value_int(1), "path",
			       value_stringz(path), NULL);
}

/* Nor can a change of one that runs, and it says one thing only. */
static void test_change(void **state)
{
	const char *options[] = { "--disk-dir", "/d", NULL };
	struct host *h = host_new(options);
	struct value *two = value_struct_of("vcpus", value_int(2), "memory",
					    value_int(64 * MIB), NULL);

	job_bad(h, "change", VM1, change_of("plug_disk", one_disk("/d/x")),
		"VM_BAD_POWER_STATE");
	job_ok(h, "start", VM1, with_config(quick(VM1)));
	job_bad(h, "change", VM1, change_of("plug_disk",
					    one_disk("/etc/shadow")),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("plug_disk", one_disk("/d/../x")),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("unplug_disk", value_int(255)),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("unplug_vif", value_int(-1)),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("plug_vif", value_int(0)),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("set_medium", one_disk("/d/x")),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, change_of("vcpus", value_int(0)),
		"INVALID_VALUE");
	job_bad(h, "change", VM1, two, "INVALID_VALUE");
	job_bad(h, "change", VM1, value_struct_new(0), "INVALID_VALUE");
	job_ok(h, "change", VM1, change_of("plug_disk", one_disk("/d/x")));
	job_ok(h, "change", VM1, change_of("plug_disk", one_disk("/d/x")));
	job_ok(h, "change", VM1, change_of("unplug_disk", value_int(1)));
	job_ok(h, "change", VM1, change_of("unplug_disk", value_int(1)));
	job_bad(h, "change", VM1,
		change_of("memory", value_int(1LL << 50)), "INVALID_VALUE");
	job_bad(h, "change", VM1,
		change_of("memory", value_int(64LL << 40)),
		"HOST_NOT_ENOUGH_FREE_MEMORY");
	host_free(h);
}

static void test_memory(void **state)
{
	struct host *h = host_new(small);
	const struct value *done;

	job_ok(h, "start", VM1,
	       with_config(config_with(VM1, 200, value_map_empty())));
	assert_int_equal(value_get_int(value_get(state_now(h), "host"),
				       "memory_free", 0), 56 * MIB);
	done = job_bad(h, "start", VM2, with_config(quick(VM2)),
		       "HOST_NOT_ENOUGH_FREE_MEMORY");
	assert_string_equal(error_at(done, 1), "67108864");
	assert_string_equal(error_at(done, 2), "58720256");
	job_ok(h, "hard_shutdown", VM1, NULL);
	job_ok(h, "start", VM2, with_config(quick(VM2)));
	host_free(h);
}

/* Two at once may not both be promised the last memory. */
static void test_memory_is_held_while_building(void **state)
{
	struct host *h = host_new(small);
	struct value *slow = keys("sim:start_ms", "300", NULL);
	int64_t ok;

	job_send(h, "a", "start", VM1, 1,
		 with_config(config_with(VM1, 200, value_ref(slow))));
	job_send(h, "b", "start", VM2, 1,
		 with_config(config_with(VM2, 200, slow)));
	ok = value_get_int(done_wait(h, "a"), "ok", 0) +
	     value_get_int(done_wait(h, "b"), "ok", 0);
	assert_int_equal(ok, 1);
	host_free(h);
}

static void test_guest_that_does_not_answer(void **state)
{
	struct host *h = host_new(small);

	job_ok(h, "start", VM1,
	       with_config(config_with(
		       VM1, 64, keys("sim:ignore_shutdown", "true",
					     "sim:start_ms", "0", NULL))));
	job_bad(h, "clean_shutdown", VM1,
		value_struct_of("timeout_s", value_int(1), NULL),
		"VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT");
	assert_string_equal(state_of(h, VM1), "running");
	job_ok(h, "hard_shutdown", VM1, NULL);
	job_ok(h, "start", VM1,
	       with_config(config_with(
		       VM1, 64, keys("sim:shutdown_ms", "60000",
					     "sim:start_ms", "0", NULL))));
	job_bad(h, "clean_shutdown", VM1,
		value_struct_of("timeout_s", value_int(0), NULL),
		"VM_SHUTDOWN_TIMEOUT");
	host_free(h);
}

static void test_scripted_failure(void **state)
{
	static const char *const verbs[] = { "pause", "clean_shutdown",
					     "hard_shutdown" };
	struct host *h = host_new(small);

	job_bad(h, "start", VM1,
		with_config(config_with(
			VM1, 64, keys("sim:fail", "start", NULL))),
		"INTERNAL_ERROR");
	assert_string_equal(state_of(h, VM1), "none");
	assert_int_equal(value_get_int(value_get(state_now(h), "host"),
				       "memory_free", 0), 256 * MIB);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		char vm[UUID_LEN + 1];

		uuid_new(vm);
		job_ok(h, "start", vm,
		       with_config(config_with(
			       vm, 64, keys("sim:fail", verbs[i], NULL))));
		job_bad(h, verbs[i], vm, NULL, "INTERNAL_ERROR");
		assert_string_equal(state_of(h, vm), "running");
	}
	host_free(h);
}

static void test_guest_events(void **state)
{
	static const char *const kinds[] = { "shutdown", "reboot", "crash" };
	struct host *h = host_new(small);
	const struct value *ev;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t from = h->n_told;

		job_ok(h, "start", VM1,
		       with_config(config_with(
			       VM1, 64,
			       keys("sim:event", kinds[i],
					    "sim:event_ms", "50", NULL))));
		ev = told_wait(h, "domain", NULL, from);
		assert_string_equal(value_get_str(ev, "event"), kinds[i]);
		assert_string_equal(value_get_str(ev, "vm"), VM1);
		assert_string_equal(state_of(h, VM1), "shutdown");
		assert_string_equal(value_get_str(domain_now(h, VM1), "reason"),
				    kinds[i]);
	}
	/* What is left of it gives way to a new start. */
	job_ok(h, "start", VM1, with_config(quick(VM1)));
	assert_string_equal(state_of(h, VM1), "running");
	job_ok(h, "start", VM2,
	       with_config(config_with(VM2, 64,
				       keys("sim:event", "gone",
						    "sim:event_ms", "50", NULL))));
	ev = told_wait(h, "domain", NULL,
		       (size_t)told_find(h, "done", "auto-4", 0));
	assert_string_equal(value_get_str(ev, "event"), "gone");
	assert_string_equal(state_of(h, VM2), "none");
	host_free(h);
}

static void test_fence(void **state)
{
	struct host *h = host_new(small);
	const struct value *done;

	job_send(h, "a", "start", VM1, 5, with_config(quick(VM1)));
	assert_true(value_get_int(done_wait(h, "a"), "ok", 0));
	job_send(h, "b", "hard_shutdown", VM1, 4, NULL);
	done = done_wait(h, "b");
	assert_string_equal(error_at(done, 0), "FENCED");
	assert_string_equal(error_at(done, 1), VM1);
	assert_string_equal(error_at(done, 2), "4");
	assert_string_equal(error_at(done, 3), "5");
	assert_string_equal(state_of(h, VM1), "running");
	assert_int_equal(value_get_int(domain_now(h, VM1), "fence", 0), 5);
	/* Over a death of the executor, and without a domain too. */
	job_send(h, "c", "hard_shutdown", VM1, 6, NULL);
	assert_true(value_get_int(done_wait(h, "c"), "ok", 0));
	host_stop(h, SIGKILL);
	host_start(h, small);
	job_send(h, "d", "start", VM1, 5, with_config(quick(VM1)));
	assert_string_equal(error_at(done_wait(h, "d"), 0), "FENCED");
	host_free(h);
}

/* A waiting job loses to a later one of a higher fence. */
static void test_fence_overtakes_waiting(void **state)
{
	struct host *h = host_new(small);

	job_send(h, "a", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "300", NULL))));
	host_sleep(h, 100);
	job_send(h, "b", "pause", VM1, 1, NULL);
	job_send(h, "c", "hard_shutdown", VM1, 2, NULL);
	assert_true(value_get_int(done_wait(h, "a"), "ok", 0));
	assert_string_equal(error_at(done_wait(h, "b"), 0), "FENCED");
	assert_true(value_get_int(done_wait(h, "c"), "ok", 0));
	host_free(h);
}

static void test_order_and_parallel(void **state)
{
	struct host *h = host_new(NULL);
	int64_t begin = env_mono_ms();
	char vm[6][UUID_LEN + 1], id[24];

	for (int i = 0; i < 6; i++) {
		uuid_new(vm[i]);
		snprintf(id, sizeof(id), "start-%d", i);
		job_send(h, id, "start", vm[i], 1,
			 with_config(config_with(
				 vm[i], 64,
				 keys("sim:start_ms", "500", NULL))));
		snprintf(id, sizeof(id), "pause-%d", i);
		job_send(h, id, "pause", vm[i], 1, NULL);
		snprintf(id, sizeof(id), "unpause-%d", i);
		job_send(h, id, "unpause", vm[i], 1, NULL);
	}
	for (int i = 0; i < 6; i++) {
		ssize_t a, b, c;

		snprintf(id, sizeof(id), "unpause-%d", i);
		assert_true(value_get_int(done_wait(h, id), "ok", 0));
		c = told_find(h, "done", id, 0);
		snprintf(id, sizeof(id), "pause-%d", i);
		b = told_find(h, "done", id, 0);
		snprintf(id, sizeof(id), "start-%d", i);
		a = told_find(h, "done", id, 0);
		assert_true(a >= 0 && a < b && b < c);
	}
	/* One after another they would have taken three seconds. */
	assert_true(env_mono_ms() - begin < 2500);
	host_free(h);
}

static void test_progress(void **state)
{
	struct host *h = host_new(small);
	double last = 0;
	size_t n = 0;

	job_send(h, "a", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "700", NULL))));
	done_wait(h, "a");
	for (size_t i = 0; i < h->n_told; i++) {
		const struct value *p = value_get(h->told[i], "progress");

		if (!p)
			continue;
		assert_true(p->d > last && p->d <= 1.0);
		last = p->d;
		n++;
	}
	assert_true(n >= 3);
	host_free(h);
}

static void test_cancel(void **state)
{
	struct value *slow = keys("sim:start_ms", "60000",
					  "sim:shutdown_ms", "60000", NULL);
	struct host *h = host_new(small);

	job_send(h, "run", "start", VM1, 1,
		 with_config(config_with(VM1, 64, slow)));
	job_send(h, "wait", "pause", VM1, 1, NULL);
	host_sleep(h, 100);
	cancel_send(h, "wait");
	assert_string_equal(error_at(done_wait(h, "wait"), 0),
			    "TASK_CANCELLED");
	cancel_send(h, "unheard-of");
	cancel_send(h, "run");
	assert_string_equal(error_at(done_wait(h, "run"), 0), "TASK_CANCELLED");
	assert_string_equal(error_at(done_wait(h, "run"), 1), "run");
	assert_string_equal(state_of(h, VM1), "none");
	/* A guest that is being asked to end goes on. */
	job_ok(h, "start", VM1,
	       with_config(config_with(
		       VM1, 64, keys("sim:shutdown_ms", "60000", NULL))));
	job_send(h, "stop", "clean_shutdown", VM1, 1, NULL);
	host_sleep(h, 50);
	cancel_send(h, "stop");
	assert_string_equal(error_at(done_wait(h, "stop"), 0),
			    "TASK_CANCELLED");
	assert_string_equal(state_of(h, VM1), "running");
	host_free(h);
}

static void test_same_id(void **state)
{
	struct host *h = host_new(small);
	size_t from;

	job_send(h, "a", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "300", NULL))));
	job_send(h, "a", "start", VM1, 1, with_config(quick(VM1)));
	done_wait(h, "a");
	host_sleep(h, 100);
	from = h->n_told;
	assert_int_equal(told_find(h, "done", "a",
				   (size_t)told_find(h, "done", "a", 0) + 1),
			 -1);
	/* It has ended: the same answer again, and nothing is done. */
	job_ok(h, "hard_shutdown", VM1, NULL);
	job_send(h, "a", "start", VM1, 1, with_config(quick(VM1)));
	assert_true(value_get_int(told_wait(h, "done", "a", from), "ok", 0));
	assert_string_equal(state_of(h, VM1), "none");
	host_free(h);
}

static void test_kill_in_a_job(void **state)
{
	struct host *h = host_new(small);
	int64_t ticks;
	char boot[64];

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	ticks = ticks_of(h, VM1);
	snprintf(boot, sizeof(boot), "%s", value_get_str(h->latest, "boot_id"));
	job_send(h, "a", "start", VM2, 1,
		 with_config(config_with(
			 VM2, 64, keys("sim:start_ms", "60000", NULL))));
	host_sleep(h, 100);
	host_stop(h, SIGKILL);
	host_start(h, small);
	assert_string_equal(value_get_str(h->latest, "boot_id"), boot);
	assert_string_equal(state_of(h, VM1), "running");
	assert_string_equal(state_of(h, VM2), "none");
	/* The guest has run on all the time. */
	assert_true(ticks_of(h, VM1) >= ticks + 100);
	job_send(h, "a", "start", VM2, 1, with_config(quick(VM2)));
	assert_true(value_get_int(done_wait(h, "a"), "ok", 0));
	host_free(h);
}

static void test_reboot_of_the_host(void **state)
{
	const char *reboot[] = { "--reboot", NULL };
	struct host *h = host_new(small);
	char boot[64];

	job_send(h, "a", "start", VM1, 7, with_config(quick(VM1)));
	assert_true(value_get_int(done_wait(h, "a"), "ok", 0));
	snprintf(boot, sizeof(boot), "%s", value_get_str(h->latest, "boot_id"));
	host_stop(h, SIGKILL);
	host_start(h, reboot);
	assert_string_not_equal(value_get_str(h->latest, "boot_id"), boot);
	assert_string_equal(state_of(h, VM1), "none");
	job_send(h, "b", "start", VM1, 6, with_config(quick(VM1)));
	assert_string_equal(error_at(done_wait(h, "b"), 0), "FENCED");
	host_free(h);
}

static void test_stop_touches_nothing(void **state)
{
	struct host *h = host_new(small);
	int status;

	job_ok(h, "start", VM1,
	       with_config(config_with(
		       VM1, 64, keys("sim:shutdown_ms", "60000", NULL))));
	job_send(h, "a", "clean_shutdown", VM1, 1, NULL);
	host_sleep(h, 50);
	status = host_stop(h, SIGTERM);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	/* Not failed: to be asked again. */
	assert_int_equal(told_find(h, "done", "a", 0), -1);
	assert_int_equal(access(h->socket, F_OK), -1);
	host_start(h, small);
	assert_string_equal(state_of(h, VM1), "running");
	host_free(h);
}

/* Results that nobody was there to hear are told to the next daemon. */
static void test_daemon_away(void **state)
{
	struct host *h = host_new(small);
	struct exec_client_callbacks cb = { h, host_message, host_connected };

	job_send(h, "a", "start", VM1, 1,
		 with_config(config_with(
			 VM1, 64, keys("sim:start_ms", "200", NULL))));
	host_sleep(h, 50);
	exec_client_close(h->client);
	host_sleep(h, 400);
	assert_int_equal(told_find(h, "done", "a", 0), -1);
	h->up = false;
	assert_int_equal(exec_client_start(&h->loop, h->socket, HOST_UUID, &cb,
					   &h->client), 0);
	assert_true(value_get_int(done_wait(h, "a"), "ok", 0));
	host_free(h);
}

/* ---- doors ---- */

static int raw_connect(struct host *h)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval limit = { 10, 0 };

	assert_true(fd >= 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", h->socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void raw_send(int fd, struct value *takes_v)
{
	struct buf b = BUF_INIT;

	value_encode(&b, takes_v);
	assert_int_equal(send(fd, b.data, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_deinit(&b);
	value_unref(takes_v);
}

static struct value *hello(int64_t protocol, const char *host)
{
	return value_struct_of("type", value_stringz("hello"),
			       "protocol", value_int(protocol),
			       "host", value_stringz(host), NULL);
}

/* The executor hangs up on us. */
static void raw_expect_end(int fd)
{
	static char packet[EXEC_MAX_MESSAGE];
	ssize_t n;

	while ((n = recv(fd, packet, sizeof(packet), 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
}

static void expect_refused(struct host *h, bool greet, const void *p, size_t n)
{
	int fd = raw_connect(h);

	if (greet)
		raw_send(fd, hello(1, HOST_UUID));
	send(fd, p, n, MSG_NOSIGNAL);
	raw_expect_end(fd);
}

static void expect_refused_value(struct host *h, bool greet,
				 struct value *takes_v)
{
	struct buf b = BUF_INIT;

	value_encode(&b, takes_v);
	expect_refused(h, greet, b.data, b.len);
	buf_deinit(&b);
	value_unref(takes_v);
}

static void test_malformed(void **state)
{
	static char big[EXEC_MAX_MESSAGE + 64];
	struct host *h = host_new(small);
	int fd;

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	expect_refused(h, false, "x", 1);
	expect_refused(h, true, "\xff\xff\xff\xff", 4);
	expect_refused_value(h, false, hello(2, HOST_UUID));
	expect_refused_value(h, false, hello(1, "nobody"));
	expect_refused_value(h, true, hello(1, HOST_UUID));
	expect_refused_value(h, false, value_struct_of(
		"type", value_stringz("list"), NULL));
	expect_refused_value(h, true, value_struct_of(
		"type", value_stringz("dance"), NULL));
	expect_refused_value(h, true, value_struct_of(
		"type", value_stringz("job"), "id", value_stringz("x"), NULL));
	expect_refused_value(h, true, value_struct_of(
		"type", value_stringz("cancel"), "id", value_stringz(""), NULL));
	expect_refused_value(h, true, value_struct_of(
		"type", value_stringz("cancel"), "id",
		value_string("a\xff", 2), NULL));
	expect_refused_value(h, true, value_stringz("hello"));
	/* A packet that is too long, if our own kernel lets it out at all. */
	fd = raw_connect(h);
	{
		int room = 4 * EXEC_MAX_MESSAGE;

		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	}
	raw_send(fd, hello(1, HOST_UUID));
	if (send(fd, big, sizeof(big), MSG_NOSIGNAL) >= 0)
		raw_expect_end(fd);
	else
		close(fd);
	/* The real one is still served; it lost its place a few times. */
	host_wait_up(h);
	assert_string_equal(state_of(h, VM1), "running");
	host_free(h);
}

static void test_bad_jobs(void **state)
{
	struct host *h = host_new(small);
	const struct value *done;
	struct value *many[2] = { value_stringz("k"), value_int(3) };

	job_bad(h, "explode", VM1, NULL, "NOT_IMPLEMENTED");
	job_bad(h, "start", "not-a-uuid", NULL, "INVALID_VALUE");
	job_bad(h, "start", VM1, NULL, "INVALID_VALUE");
	job_bad(h, "start", VM1, with_config(quick(VM2)), "INVALID_VALUE");
	job_bad(h, "start", VM1,
		with_config(config_with(VM1, 0, value_map_empty())),
		"INVALID_VALUE");
	job_bad(h, "start", VM1,
		with_config(config_with(VM1, 64, value_map_from(many, 1))),
		"INVALID_VALUE");
	done = job_bad(h, "start", VM1,
		       with_config(config_with(
			       VM1, 64,
			       keys("sim:start_ms", "soon", NULL))),
		       "INVALID_VALUE");
	assert_string_equal(error_at(done, 1), "sim:start_ms");
	job_bad(h, "clean_shutdown", VM1,
		value_struct_of("timeout_s", value_int(-1), NULL),
		"INVALID_VALUE");
	job_bad(h, "migrate_send", VM1,
		value_struct_of("address", value_stringz("127.0.0.1"), "port",
				value_int(70000), "token", value_stringz("x"),
				NULL),
		"INVALID_VALUE");
	assert_int_equal(value_get(state_now(h), "domains")->n, 0);
	host_free(h);
}

static void test_second_executor(void **state)
{
	struct host *h = host_new(small), other = { 0 };
	struct stat st;
	int status;

	/* The same socket. */
	memcpy(other.socket, h->socket, sizeof(other.socket));
	snprintf(other.state, sizeof(other.state), "%s/other", h->dir);
	other.pid = host_spawn(&other, NULL);
	assert_int_equal(waitpid(other.pid, &status, 0), other.pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	/* The same folder. */
	snprintf(other.socket, sizeof(other.socket), "%s/other.socket", h->dir);
	memcpy(other.state, h->state, sizeof(other.state));
	other.pid = host_spawn(&other, NULL);
	assert_int_equal(waitpid(other.pid, &status, 0), other.pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	assert_int_equal(stat(h->socket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	job_ok(h, "hard_shutdown", VM1, NULL);
	host_free(h);
}

static void test_damaged_state(void **state)
{
	struct host *h = host_new(small);
	char path[192];
	int status;
	FILE *f;

	job_ok(h, "start", VM1, with_config(quick(VM1)));
	host_stop(h, SIGTERM);
	snprintf(path, sizeof(path), "%s/state.json", h->state);
	assert_int_equal(truncate(path, 40), 0);
	h->pid = host_spawn(h, small);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	h->pid = 0;
	/* What it could not read it did not overwrite. */
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	assert_int_equal(ftell(f), 40);
	fclose(f);
	host_free(h);
}

static int run_with(const char *arg, const char *value)
{
	const char *extra[] = { arg, value, NULL };
	struct host h = { .socket = "/nowhere/socket", .state = "/nowhere" };
	pid_t pid;
	int status, null = open("/dev/null", O_WRONLY), out = dup(1),
		err = dup(2);

	dup2(null, 1);
	dup2(null, 2);
	pid = host_spawn(&h, extra);
	dup2(out, 1);
	dup2(err, 2);
	close(null);
	close(out);
	close(err);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_image_dir_is_ours_alone(void **state)
{
	char dir[] = "/tmp/xenpool-images-XXXXXX", sub_dir[64];
	const char *options[] = { "--image-dir", sub_dir, NULL };
	struct host *h;
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(sub_dir, sizeof sub_dir, "%s/images", dir);
	h = host_new(options);
	assert_int_equal(stat(sub_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(st.st_uid, geteuid());
	job_bad(h, "drop_image", VM1,
		value_struct_of("image", value_stringz("/tmp/image"), NULL),
		"INVALID_VALUE");
	host_free(h);
	assert_int_equal(chmod(sub_dir, 0770), 0);
	assert_int_equal(run_with("--image-dir", sub_dir), 2);
	assert_int_equal(rmdir(sub_dir), 0);
	assert_int_equal(symlink("/tmp", sub_dir), 0);
	assert_int_equal(run_with("--image-dir", sub_dir), 2);
	assert_int_equal(unlink(sub_dir), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void test_options(void **state)
{
	assert_int_equal(run_with("--help", NULL), 0);
	assert_int_equal(run_with("--version", NULL), 0);
	assert_int_equal(run_with("--backend=xen", NULL), 1);
	assert_int_equal(run_with("--backend=paper", NULL), 2);
	assert_int_equal(run_with("--memory-mib", "0"), 2);
	assert_int_equal(run_with("--cpus", "many"), 2);
	assert_int_equal(run_with("--workers", "65"), 2);
	assert_int_equal(run_with("--migrate-address", "0.0.0.0"), 2);
	assert_int_equal(run_with("--migrate-address", "localhost"), 2);
	assert_int_equal(run_with("--host-uuid", "me"), 2);
	assert_int_equal(run_with("--log-level", "loud"), 2);
	assert_int_equal(run_with("--image-dir", "here"), 2);
	assert_int_equal(run_with("surplus", NULL), 2);
	assert_int_equal(run_with("--cpus", "2"), 1); /* no such folder */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lifecycle),
		cmocka_unit_test(test_start_paused),
		cmocka_unit_test(test_start_twice),
		cmocka_unit_test(test_reboots),
		cmocka_unit_test(test_suspend_resume),
		cmocka_unit_test(test_image_is_no_weapon),
		cmocka_unit_test(test_image_dir),
		cmocka_unit_test(test_drop_image),
		cmocka_unit_test(test_image_dir_is_ours_alone),
		cmocka_unit_test(test_kernel_and_disk_dirs),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_is_held_while_building),
		cmocka_unit_test(test_guest_that_does_not_answer),
		cmocka_unit_test(test_scripted_failure),
		cmocka_unit_test(test_guest_events),
		cmocka_unit_test(test_fence),
		cmocka_unit_test(test_fence_overtakes_waiting),
		cmocka_unit_test(test_order_and_parallel),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_same_id),
		cmocka_unit_test(test_kill_in_a_job),
		cmocka_unit_test(test_reboot_of_the_host),
		cmocka_unit_test(test_stop_touches_nothing),
		cmocka_unit_test(test_daemon_away),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_bad_jobs),
		cmocka_unit_test(test_second_executor),
		cmocka_unit_test(test_damaged_state),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
