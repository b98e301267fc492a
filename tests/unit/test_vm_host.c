/* What a VM leaves on its host, and what only its host can tell of it: images of
 * memory, balloons, figures that are in no row, domains of nobody. */
#include <math.h>

#include "pool/foreign.h"
#include "pool/restore.h"
#include "tests/unit/vm_world.h"

/* ---- images that nobody will resume ---- */

static bool image_is_there(const char *uuid)
{
	const struct dom *d = dom_find(&w.h[0], uuid);

	return d && d->image;
}

/* A suspended VM: its uuid. */
static void suspended(char vm[REF_LEN + 1], char uuid[UUID_LEN + 1])
{
	make_vm(vm, "sleeper");
	strcpy(uuid, text_of(vm, F_VM_uuid));
	do_ok("VM.start", S(vm), B(false), B(false));
	do_ok("VM.suspend", S(vm));
	assert_true(image_is_there(uuid));
}

static void test_unwanted_images_go(void **state)
{
	char vm[REF_LEN + 1], vdi[REF_LEN + 1], uuid[UUID_LEN + 1];
	char sr[REF_LEN + 1];
	int64_t allocated;

	suspended(vm, uuid);
	do_ok("VM.hard_shutdown", S(vm));
	assert_false(image_is_there(uuid));
	suspended(vm, uuid);
	strcpy(vdi, text_of(vm, F_VM_suspend_VDI));
	strcpy(sr, text_of(vdi, F_VDI_SR));
	allocated = record_int(row(sr), F_SR_virtual_allocation);
	do_ok("VDI.destroy", S(vdi));
	assert_false(image_is_there(uuid));
	assert_text(vm, F_VM_suspend_VDI, REF_NULL);
	assert_int_equal(record_int(row(sr), F_SR_virtual_allocation),
			 allocated);
	suspended(vm, uuid);
	strcpy(vdi, text_of(vm, F_VM_suspend_VDI));
	do_ok("VM.destroy", S(vm));
	assert_false(image_is_there(uuid));
	assert_null(store_get(w.store, vdi));
	/* Forgotten is not destroyed. */
	suspended(vm, uuid);
	do_ok("VDI.forget", S(text_of(vm, F_VM_suspend_VDI)));
	assert_true(image_is_there(uuid));
	assert_int_equal(store_count(w.store, CLASS_job), 0);
}

static void test_image_of_an_absent_host(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1];

	suspended(vm, uuid);
	executor_stop(&w.h[0]);
	do_ok("VM.hard_shutdown", S(vm));
	world_advance(60000);
	assert_true(image_is_there(uuid));
	assert_int_equal(store_count(w.store, CLASS_job), 1);
	daemon_stop(&w.h[0]);
	daemon_start(&w.h[0]);
	lead(0);
	executor_start(&w.h[0]);
	world_advance(2000);
	assert_false(image_is_there(uuid));
	assert_int_equal(store_count(w.store, CLASS_job), 0);
}

/* A backup of that time, restored: the file still goes, jobs of VMs do not go
 * on. */
static void test_image_after_a_restore(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1], text[24], id[24],
		why[128];
	struct restore_host me = { .uuid = w.h[0].uuid, .raft_id = id,
				   .peer_address = "10.0.0.1:1",
				   .fingerprint = "f", .certificate = "PEM" };
	struct record *job;
	struct reply start;

	suspended(vm, uuid);
	executor_stop(&w.h[0]);
	do_ok("VM.hard_shutdown", S(vm));
	make_vm(vm, "on its way");
	call_at(&w.h[0], &start, "Async.VM.start", S(vm), B(false), B(false),
		NULL);
	reply_clear(&start);
	assert_int_equal(store_count(w.store, CLASS_job), 2);
	daemon_stop(&w.h[0]);
	snprintf(id, sizeof id, "%llu",
		 (unsigned long long)db_id_of_uuid(w.h[0].uuid));
	assert_int_equal(restore_prepare(w.store, &me, why, sizeof why), 0);
	assert_int_equal(store_count(w.store, CLASS_job), 1);
	job = store_first(w.store, CLASS_job);
	snprintf(text, sizeof text, "%lld",
		 (long long)record_int(job, F_job_created));
	assert_true(!strcmp(value_get_str(job->fields[F_job_params], "before"),
			    text));
	daemon_start(&w.h[0]);
	lead(0);
	executor_start(&w.h[0]);
	world_advance(5000);
	assert_false(image_is_there(uuid));
	assert_int_equal(store_count(w.store, CLASS_job), 0);
	assert_int_equal(dom_at(&w.h[0], vm), GONE);
}

/* While a job of the VM is on its way nobody touches its image. */
static void test_image_of_a_busy_vm(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1];
	struct reply start;

	suspended(vm, uuid);
	executor_stop(&w.h[0]);
	do_ok("VM.hard_shutdown", S(vm));
	w.hold = "start";
	call_at(&w.h[0], &start, "VM.start", S(vm), B(false), B(false), NULL);
	executor_start(&w.h[0]);
	world_advance(3000);
	assert_non_null(w.held);
	assert_true(image_is_there(uuid));
	release_held();
	world_advance(2000);
	assert_non_null(start.result);
	reply_clear(&start);
	assert_false(image_is_there(uuid));
	assert_int_equal(store_count(w.store, CLASS_job), 0);
}

static void test_image_that_stays(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1];

	suspended(vm, uuid);
	w.fail = "drop_image";
	do_ok("VM.hard_shutdown", S(vm));
	assert_state(vm, "Halted");
	assert_true(messages_named("SUSPEND_IMAGE_NOT_REMOVED"));
	assert_int_equal(store_count(w.store, CLASS_job), 0);
}

/* A disk of a client's own making names another VM's image. */
static void test_image_of_another(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1];
	struct value *vdi;

	suspended(vm, uuid);
	vdi = ok("VDI.create",
		 value_struct_of(
			 "SR", S(text_of(text_of(vm, F_VM_suspend_VDI),
					 F_VDI_SR)),
			 "virtual_size", I(1 << 20), "type", S("suspend"),
			 "sharable", B(false), "read_only", B(false),
			 "other_config", value_map_empty(), "sm_config",
			 value_ref(field_of(text_of(vm, F_VM_suspend_VDI),
					    F_VDI_sm_config)), NULL));
	do_ok("VDI.destroy", value_ref(vdi));
	value_unref(vdi);
	assert_int_equal(store_count(w.store, CLASS_job), 0);
	assert_true(image_is_there(uuid));
	do_ok("VM.resume", S(vm), B(false), B(false));
}

/* ---- memory that a balloon gives back as fast as it likes ---- */

static void memory_is(const char *vm, int64_t more_kib)
{
	struct dom *d = dom_find(&w.h[0], text_of(vm, F_VM_uuid));

	d->memory_kib = record_int(row(vm), F_VM_memory_target) / 1024 +
			more_kib;
	world_advance(20000);
}

#define WAIT_TARGET "VM.wait_memory_target_live"

static void test_wait_for_memory(void **state)
{
	char vm[REF_LEN + 1];
	struct reply r;

	make_vm(vm, "balloon");
	fails((WAIT_TARGET, S(vm)), "VM_BAD_POWER_STATE", vm, "running",
	      "halted");
	do_ok("VM.start", S(vm), B(false), B(false));
	memory_is(vm, 1000);
	do_ok(WAIT_TARGET, S(vm));
	memory_is(vm, 1500);
	call_at(&w.h[1], &r, WAIT_TARGET, S(vm), NULL);
	world_advance(60000);
	assert_null(r.result);
	assert_null(r.error);
	/* Nearer by less than what the row may be off otherwise. */
	memory_is(vm, 900);
	assert_non_null(r.result);
	reply_clear(&r);
	/* It goes while somebody waits. */
	memory_is(vm, -1500);
	call_at(&w.h[1], &r, WAIT_TARGET, S(vm), NULL);
	do_ok("VM.hard_shutdown", S(vm));
	world_advance(1000);
	expect_error(&r, "VM_BAD_POWER_STATE", vm, "running", "halted", NULL);
}

static void test_wait_for_memory_ends(void **state)
{
	char vm[REF_LEN + 1];
	struct value *task;
	struct reply r;

	make_vm(vm, "stubborn");
	do_ok("VM.start", S(vm), B(false), B(false));
	memory_is(vm, 8192);
	call_at(&w.h[0], &r, WAIT_TARGET, S(vm), NULL);
	world_advance(255000);
	assert_null(r.error);
	world_advance(2000);
	expect_error(&r, "VM_MEMORY_TARGET_WAIT_TIMEOUT", REF_NULL, NULL);
	task = ok("Async." WAIT_TARGET, S(vm));
	world_advance(10000);
	assert_text(value_str(task), F_task_status, "pending");
	do_ok("task.cancel", value_ref(task));
	world_advance(1000);
	assert_text(value_str(task), F_task_status, "cancelled");
	value_unref(task);
	task = ok("Async." WAIT_TARGET, S(vm));
	world_advance(258000);
	assert_text(value_str(task), F_task_status, "failure");
	assert_true(set_has(field_of(value_str(task), F_task_error_info),
			    value_str(task)));
	value_unref(task);
}

/* ---- figures that are in no row ---- */

#define QUERY(name) "VM.query_data_source", S(vm), S(name)

static double usage_of(const char *vm)
{
	struct value *v = ok(QUERY("cpu_usage"));
	double d = v->d;

	value_unref(v);
	return d;
}

static void test_data_sources(void **state)
{
	char vm[REF_LEN + 1];
	uint64_t generation;
	struct reply r;
	struct dom *d;
	struct value *v;

	make_vm(vm, "busy");
	v = ok("VM.get_data_sources", S(vm));
	assert_int_equal(v->n, 0);
	value_unref(v);
	fails((QUERY("cpu_usage")), "VM_BAD_POWER_STATE", vm, "running",
	      "halted");
	do_ok("VM.start", S(vm), B(false), B(false));
	assert_true(isnan(usage_of(vm)));
	d = dom_find(&w.h[0], text_of(vm, F_VM_uuid));
	world_advance(20000);
	assert_true(usage_of(vm) == 0);
	generation = store_generation(w.store);
	d->ticks += 1250;
	world_advance(5000);
	assert_true(usage_of(vm) == 0.25);
	tell_state(&w.h[0]); /* at once again: no measure */
	world_run();
	assert_true(usage_of(vm) == 0.25);
	assert_int_equal(store_generation(w.store), generation);
	v = ok("VM.get_data_sources", S(vm));
	assert_int_equal(v->n, 2);
	assert_true(value_is_str(value_get(v->items[1], "name_label"),
				 "memory"));
	assert_true(value_get(v->items[1], "value")->d == 1024 * 1024);
	value_unref(v);
	fails((QUERY("heat")), "INVALID_VALUE", "data_source", "heat");
	/* A domain that counts from nothing again. */
	d->ticks = 5;
	world_advance(5000);
	assert_true(isnan(usage_of(vm)));

	/* Another member asks the host. */
	w.answers[0] = (struct remote_answer){ "VM.query_data_source", 0,
					       value_float(0.5), NULL };
	call_at(&w.h[1], &r, QUERY("cpu_usage"), NULL);
	assert_true(r.result && r.result->d == 0.5);
	reply_clear(&r);
	w.answers[0].error = -EREMOTEIO;
	w.answers[0].api_error = api_error("INVALID_VALUE", "x", NULL);
	call_at(&w.h[1], &r, QUERY("cpu_usage"), NULL);
	expect_error(&r, "INVALID_VALUE", "x", NULL);
	w.answers[0].method = NULL;
	call_at(&w.h[1], &r, QUERY("cpu_usage"), NULL);
	expect_error(&r, "CANNOT_CONTACT_HOST", w.h[0].ref, NULL);
}

/* ---- domains that are no VMs of the host ---- */

#define FOREIGN "f0e10000-0000-4000-8000-0000000000%02x"

static struct dom *foreign_comes(unsigned n, int domid)
{
	char uuid[UUID_LEN + 1];
	struct dom *d;

	snprintf(uuid, sizeof uuid, FOREIGN, n);
	d = dom_get(&w.h[0], uuid);
	d->domid = domid;
	d->state = RUNNING;
	return d;
}

static unsigned foreign_known(void)
{
	struct foreign f;
	unsigned n = 0;

	while (foreign_at(row(w.h[0].ref), n, &f))
		n++;
	return n;
}

static const char *foreign_since(unsigned n)
{
	static struct foreign f;

	assert_true(foreign_at(row(w.h[0].ref), n, &f));
	return f.since;
}

static void assert_foreign(unsigned keys, int64_t count, unsigned messages)
{
	assert_int_equal(foreign_known(), keys);
	assert_int_equal(foreign_count(row(w.h[0].ref)), count);
	assert_int_equal(messages_named("FOREIGN_DOMAIN"), messages);
}

static void test_foreign_domain(void **state)
{
	struct dom *d = foreign_comes(1, 7);
	char since[DATE_LEN + 1];
	struct foreign f;
	unsigned n;

	world_advance(10000);
	assert_foreign(1, 1, 1);
	assert_true(foreign_at(row(w.h[0].ref), 0, &f));
	assert_string_equal(f.uuid, d->vm);
	assert_int_equal(f.domid, 7);
	strcpy(since, f.since);
	assert_non_null(strstr(record_str(message_named("FOREIGN_DOMAIN", &n),
					  F_message_body), d->vm));
	/* Said once, not again by another process; never touched. */
	daemon_stop(&w.h[0]);
	daemon_start(&w.h[0]);
	lead(0);
	world_advance(60000);
	assert_foreign(1, 1, 1);
	assert_string_equal(foreign_since(0), since);
	assert_int_equal(d->state, RUNNING);
	/* Another domain of the same uuid is another one. */
	d->domid = 8;
	world_advance(15000);
	assert_foreign(1, 1, 2);
	assert_string_not_equal(foreign_since(0), since);
	d->state = GONE;
	world_advance(15000);
	assert_foreign(0, 0, 2);
	assert_null(value_get(field_of(w.h[0].ref, F_host_other_config),
			      "foreign_domains"));
}

/* Its VM is known: it should have no domain, and this one is not taken in. */
static void test_foreign_domain_of_a_vm(void **state)
{
	char vm[REF_LEN + 1], uuid[UUID_LEN + 1];
	struct dom *d;

	suspended(vm, uuid);
	d = dom_get(&w.h[0], uuid);
	d->state = RUNNING;
	world_advance(10000);
	assert_foreign(1, 1, 1);
	assert_state(vm, "Suspended");
	assert_int_equal(d->state, RUNNING);
}

static void test_many_foreign_domains(void **state)
{
	uint64_t generation;
	char since[DATE_LEN + 1];

	foreign_comes(1, 1);
	world_advance(15000);
	strcpy(since, foreign_since(0));
	for (unsigned i = 0; i < 30; i++)
		foreign_comes(i, (int)i);
	world_advance(15000);
	assert_foreign(FOREIGN_MAX, 30, 2);
	assert_string_equal(foreign_since(1), since);
	generation = store_generation(w.store);
	world_advance(60000);
	assert_int_equal(store_generation(w.store), generation);
	/* However fast they come and go. */
	for (int t = 0; t < 60; t++) {
		for (unsigned i = 0; i < 30; i++)
			foreign_comes(i, 1000 + t);
		tell_state(&w.h[0]);
		world_advance(1000);
	}
	assert_int_equal(foreign_known(), FOREIGN_MAX);
	assert_true(messages_named("FOREIGN_DOMAIN") <= 2 + 7);
}

/* ---- a host that cannot write its own rows ---- */

static FILE *log_begin(int *ret_stderr)
{
	FILE *f = tmpfile();

	assert_non_null(f);
	*ret_stderr = dup(STDERR_FILENO);
	assert_true(dup2(fileno(f), STDERR_FILENO) >= 0);
	return f;
}

/* How many lines have it. */
static unsigned log_end(FILE *f, int old_stderr, const char *text)
{
	char line[1024];
	unsigned n = 0;

	assert_true(dup2(old_stderr, STDERR_FILENO) >= 0);
	close(old_stderr);
	rewind(f);
	while (fgets(line, sizeof line, f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void test_rows_that_cannot_be_written(void **state)
{
	FILE *f;
	int old;

	w.h[1].cut = true;
	daemon_stop(&w.h[1]);
	f = log_begin(&old);
	daemon_start(&w.h[1]);
	world_advance(300000);
	assert_int_equal(log_end(f, old, "own rows cannot be refreshed (tried "
					 "5 times, goes on): Connection timed"),
			 1);
	f = log_begin(&old);
	world_advance(400000);
	assert_int_equal(log_end(f, old, "own rows cannot"), 1);
	f = log_begin(&old);
	w.h[1].cut = false;
	world_advance(60000);
	assert_int_equal(log_end(f, old, "own rows are refreshed again"), 1);
	f = log_begin(&old);
	world_advance(60000);
	assert_int_equal(log_end(f, old, "own rows"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		one_test(test_unwanted_images_go),
		one_test(test_image_of_an_absent_host),
		one_test(test_image_after_a_restore),
		one_test(test_image_of_a_busy_vm),
		one_test(test_image_that_stays),
		one_test(test_image_of_another),
		two_test(test_wait_for_memory),
		one_test(test_wait_for_memory_ends),
		two_test(test_data_sources),
		one_test(test_foreign_domain),
		one_test(test_foreign_domain_of_a_vm),
		one_test(test_many_foreign_domains),
		two_test(test_rows_that_cannot_be_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
