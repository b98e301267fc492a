/* Live migration between two executors: nothing lost, and never two copies that
 * run, whichever step fails and whoever is killed. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/unit/executor_host.h"
#include "xen/sim_wire.h"

static const char *const small[] = { "--memory-mib", "256", NULL };

/* The result of a receive, as the params of a send. */
static struct value *ticket(const struct value *result)
{
	return value_struct_of(
		"address", value_ref(value_get(result, "address")),
		"port", value_ref(value_get(result, "port")),
		"token", value_ref(value_get(result, "token")), NULL);
}

static struct value *receive(struct host *b, struct value *config)
{
	return ticket(job_ok(b, "migrate_receive", VM1, with_config(config)));
}

static struct value *guest(const char *key, const char *word)
{
	return config_with(VM1, 64,
			   keys("sim:start_ms", "1", "sim:migrate_ms", "50",
				key, word, NULL));
}

static void assert_copies(struct host *a, const char *at_a, struct host *b,
			  const char *at_b)
{
	const struct value *d = domain_now(b, VM1);

	assert_string_equal(state_of(a, VM1), at_a);
	assert_string_equal(d ? value_get_str(d, "state") : "none", at_b);
}

/* A guest on a; b expects it. */
static struct value *prepare(struct host **a, struct host **b,
			     struct value *config)
{
	*a = host_new(small);
	*b = host_new(small);
	job_ok(*a, "start", VM1, with_config(value_ref(config)));
	return receive(*b, config);
}

static void end(struct host *a, struct host *b)
{
	host_free(a);
	host_free(b);
}

static void test_migrate(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	int64_t sent, arrived;
	const struct value *d = domain_now(b, VM1);

	assert_true(value_get_int(d, "incoming", 0));
	assert_string_equal(value_get_str(d, "state"), "paused");
	host_sleep(a, 80);
	job_ok(a, "migrate_send", VM1, t);
	assert_copies(a, "paused", b, "paused");
	sent = ticks_of(a, VM1);
	assert_true(sent >= 80);
	/* Not a tick lost, none made up. */
	assert_int_equal(ticks_of(b, VM1), sent);
	assert_true(value_get_int(domain_now(b, VM1), "incoming", 0));
	job_ok(b, "migrate_activate", VM1, NULL);
	job_ok(b, "migrate_activate", VM1, NULL);
	assert_copies(a, "paused", b, "running");
	assert_false(value_get_int(domain_now(b, VM1), "incoming", 1));
	job_ok(a, "migrate_finish", VM1, NULL);
	job_ok(a, "migrate_finish", VM1, NULL);
	assert_copies(a, "none", b, "running");
	host_sleep(b, 50);
	arrived = ticks_of(b, VM1);
	assert_true(arrived >= sent + 50);
	/* Too late for an abort on either side, and nobody may believe that
	 * the copy that runs is gone. */
	job_bad(b, "migrate_abort", VM1, NULL, "VM_MIGRATE_FAILED");
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_copies(a, "none", b, "running");
	end(a, b);
}

static void test_there_and_back(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	int64_t last;

	job_ok(a, "migrate_send", VM1, t);
	job_ok(b, "migrate_activate", VM1, NULL);
	job_ok(a, "migrate_finish", VM1, NULL);
	host_stop(b, SIGKILL);
	host_start(b, small);
	job_bad(b, "migrate_abort", VM1, NULL, "VM_MIGRATE_FAILED");
	last = ticks_of(b, VM1);
	t = receive(a, quick(VM1));
	/* As a source it is like any other. */
	job_ok(b, "migrate_send", VM1, value_ref(t));
	job_ok(b, "migrate_abort", VM1, NULL);
	job_ok(b, "migrate_abort", VM1, NULL);
	assert_copies(a, "paused", b, "running");
	value_unref(t);
	t = receive(a, quick(VM1));
	job_ok(b, "migrate_send", VM1, t);
	job_ok(a, "migrate_activate", VM1, NULL);
	job_ok(b, "migrate_finish", VM1, NULL);
	assert_copies(a, "running", b, "none");
	assert_true(ticks_of(a, VM1) >= last);
	end(a, b);
}

/* Between send and the switch neither copy moves by an ordinary verb. */
static void test_copies_are_held(void **state)
{
	static const char *const verbs[] = { "unpause", "pause",
					     "clean_shutdown" };
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));

	job_bad(b, "unpause", VM1, NULL, "OTHER_OPERATION_IN_PROGRESS");
	job_bad(b, "migrate_activate", VM1, NULL, "VM_MIGRATE_FAILED");
	job_bad(b, "start", VM1, with_config(quick(VM1)),
		"OTHER_OPERATION_IN_PROGRESS");
	/* Not sent yet: there is nothing to finish, and it goes on. */
	job_bad(a, "migrate_finish", VM1, NULL, "VM_MIGRATE_FAILED");
	assert_copies(a, "running", b, "paused");
	job_ok(a, "migrate_send", VM1, t);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		job_bad(a, verbs[i], VM1, NULL, "OTHER_OPERATION_IN_PROGRESS");
		job_bad(b, verbs[i], VM1, NULL, "OTHER_OPERATION_IN_PROGRESS");
	}
	job_bad(a, "migrate_activate", VM1, NULL,
		"OTHER_OPERATION_IN_PROGRESS");
	job_bad(a, "hard_reboot", VM1, with_config(quick(VM1)),
		"OTHER_OPERATION_IN_PROGRESS");
	assert_copies(a, "paused", b, "paused");
	end(a, b);
}

static void test_send_twice(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));

	job_ok(a, "migrate_send", VM1, value_ref(t));
	job_ok(a, "migrate_send", VM1, t);
	assert_copies(a, "paused", b, "paused");
	job_ok(b, "migrate_activate", VM1, NULL);
	end(a, b);
}

static void test_receive_twice(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1)), *u;

	/* Nobody came yet: the same ticket. */
	u = receive(b, quick(VM1));
	assert_true(value_equal(t, u));
	value_unref(u);
	job_ok(a, "migrate_send", VM1, value_ref(t));
	/* A new attempt after a copy has come: that one is worth nothing. */
	u = receive(b, quick(VM1));
	assert_string_not_equal(value_get_str(u, "token"),
				value_get_str(t, "token"));
	job_bad(b, "migrate_activate", VM1, NULL, "VM_MIGRATE_FAILED");
	job_ok(a, "migrate_send", VM1, u);
	job_ok(b, "migrate_activate", VM1, NULL);
	job_ok(a, "migrate_finish", VM1, NULL);
	assert_copies(a, "none", b, "running");
	value_unref(t);
	end(a, b);
}

static void test_token_is_used_once(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));

	job_ok(a, "migrate_send", VM1, value_ref(t));
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_string_equal(state_of(a, VM1), "running");
	/* Nobody is expected any more: the door is shut. */
	job_bad(a, "migrate_send", VM1, t,
		"VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED");
	assert_copies(a, "running", b, "paused");
	end(a, b);
}

static void test_abort_after_send(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	int64_t sent;

	job_ok(a, "migrate_send", VM1, t);
	sent = ticks_of(a, VM1);
	job_ok(b, "migrate_abort", VM1, NULL);
	assert_copies(a, "paused", b, "none");
	job_ok(a, "migrate_abort", VM1, NULL);
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_copies(a, "running", b, "none");
	host_sleep(a, 20);
	assert_true(ticks_of(a, VM1) >= sent + 20);
	assert_int_equal(value_get_int(value_get(state_now(b), "host"),
				       "memory_free", 0), 256 * MIB);
	/* And the next attempt works. */
	job_ok(a, "migrate_send", VM1, receive(b, quick(VM1)));
	job_ok(b, "migrate_activate", VM1, NULL);
	job_ok(a, "migrate_finish", VM1, NULL);
	assert_copies(a, "none", b, "running");
	end(a, b);
}

static void test_receive_without_memory(void **state)
{
	struct host *b = host_new(small);

	job_bad(b, "migrate_receive", VM1,
		with_config(config_with(VM1, 300, value_map_empty())),
		"HOST_NOT_ENOUGH_FREE_MEMORY");
	assert_string_equal(state_of(b, VM1), "none");
	host_free(b);
}

static void test_each_step_fails(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, guest("sim:fail", "migrate_send"));

	/* After the pause: it goes on here, and the copy may be thrown away. */
	job_bad(a, "migrate_send", VM1, t, "INTERNAL_ERROR");
	assert_copies(a, "running", b, "paused");
	job_ok(b, "migrate_abort", VM1, NULL);
	assert_copies(a, "running", b, "none");
	job_bad(b, "migrate_receive", VM1,
		with_config(guest("sim:fail", "migrate_receive")),
		"INTERNAL_ERROR");
	assert_copies(a, "running", b, "none");
	end(a, b);

	t = prepare(&a, &b, guest("sim:fail", "migrate_activate"));
	job_ok(a, "migrate_send", VM1, t);
	job_bad(b, "migrate_activate", VM1, NULL, "INTERNAL_ERROR");
	assert_copies(a, "paused", b, "paused");
	job_ok(b, "migrate_abort", VM1, NULL);
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_copies(a, "running", b, "none");
	end(a, b);

	t = prepare(&a, &b, guest("sim:fail", "migrate_finish"));
	job_ok(a, "migrate_send", VM1, t);
	job_ok(b, "migrate_activate", VM1, NULL);
	job_bad(a, "migrate_finish", VM1, NULL, "INTERNAL_ERROR");
	assert_copies(a, "paused", b, "running");
	job_ok(a, "hard_shutdown", VM1, NULL);
	assert_copies(a, "none", b, "running");
	end(a, b);
}

static void test_destination_dies(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, guest("sim:migrate_ms", "1000"));
	size_t from = a->n_told;

	job_send(a, "send", "migrate_send", VM1, 1, t);
	host_sleep(a, 200);
	assert_string_equal(state_of(a, VM1), "running"); /* live */
	host_stop(b, SIGKILL);
	assert_string_equal(error_at(told_wait(a, "done", "send", from), 0),
			    "VM_MIGRATE_FAILED");
	assert_string_equal(state_of(a, VM1), "running");
	host_start(b, small);
	/* What it held is there, good for nothing but an abort or a new try. */
	assert_copies(a, "running", b, "paused");
	job_bad(b, "migrate_activate", VM1, NULL, "VM_MIGRATE_FAILED");
	job_ok(b, "migrate_abort", VM1, NULL);
	assert_copies(a, "running", b, "none");
	end(a, b);
}

static void test_arrived_outlives_its_executors(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	int64_t sent;

	job_ok(a, "migrate_send", VM1, value_ref(t));
	sent = ticks_of(a, VM1);
	host_stop(a, SIGKILL);
	host_stop(b, SIGKILL);
	host_start(a, small);
	host_start(b, small);
	assert_copies(a, "paused", b, "paused");
	assert_int_equal(ticks_of(b, VM1), sent);
	job_bad(a, "unpause", VM1, NULL, "OTHER_OPERATION_IN_PROGRESS");
	job_ok(a, "migrate_send", VM1, t); /* it was done */
	job_ok(b, "migrate_activate", VM1, NULL);
	job_ok(a, "migrate_finish", VM1, NULL);
	assert_copies(a, "none", b, "running");
	end(a, b);
}

static void test_source_dies(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, guest("sim:migrate_ms", "1000"));

	job_send(a, "send", "migrate_send", VM1, 1, t);
	host_sleep(a, 200);
	host_stop(a, SIGKILL);
	host_start(a, small);
	assert_copies(a, "running", b, "paused");
	job_ok(a, "migrate_abort", VM1, NULL);
	job_ok(b, "migrate_abort", VM1, NULL);
	assert_copies(a, "running", b, "none");
	end(a, b);
}

static void test_cancel_send(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, guest("sim:migrate_ms", "60000"));

	job_send(a, "send", "migrate_send", VM1, 1, t);
	host_sleep(a, 200);
	cancel_send(a, "send");
	assert_string_equal(error_at(done_wait(a, "send"), 0),
			    "TASK_CANCELLED");
	assert_copies(a, "running", b, "paused");
	end(a, b);
}

static void test_paused_guest_stays_paused(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));

	job_ok(a, "pause", VM1, NULL);
	job_ok(a, "migrate_send", VM1, t);
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_copies(a, "paused", b, "paused");
	job_ok(a, "migrate_send", VM1, receive(b, quick(VM1)));
	job_ok(b, "migrate_activate", VM1, NULL);
	assert_copies(a, "paused", b, "paused");
	job_ok(b, "unpause", VM1, NULL);
	assert_copies(a, "paused", b, "running");
	end(a, b);
}

/* ---- a peer that is not what it says ---- */

static int peer(const struct value *t)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct timeval limit = { 10, 0 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_port = htons((uint16_t)value_get_int(t, "port", 0));
	inet_pton(AF_INET, value_get_str(t, "address"), &sin.sin_addr);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void frame_send(int fd, enum wire_type type, const char *text)
{
	struct buf b = BUF_INIT;

	wire_put(&b, type, text, strlen(text));
	assert_int_equal(send(fd, b.data, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	buf_deinit(&b);
}

/* The type of the next frame; 0: the peer has hung up. */
static int frame_type(int fd)
{
	struct buf b = BUF_INIT;
	struct wire_frame f;
	char c;
	int type = 0;

	while (wire_parse(&b, &f) == 0 && recv(fd, &c, 1, 0) == 1)
		buf_putc(&b, c);
	if (wire_parse(&b, &f) == 1)
		type = f.type;
	buf_deinit(&b);
	return type;
}

static void test_peer_without_token(void **state)
{
	static const char wrong[] =
		"00000000000000000000000000000000"
		"00000000000000000000000000000000";
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	int fd = peer(t);

	frame_send(fd, WIRE_STATE, "{}");
	assert_int_equal(frame_type(fd), 0);
	close(fd);
	fd = peer(t);
	frame_send(fd, WIRE_TOKEN, wrong);
	assert_int_equal(frame_type(fd), WIRE_REFUSED);
	close(fd);
	fd = peer(t);
	assert_int_equal(send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL),
			 18);
	assert_int_equal(frame_type(fd), 0);
	close(fd);
	/* The one who has it still comes in. */
	job_ok(a, "migrate_send", VM1, t);
	end(a, b);
}

/* A guest that would be welcome. */
#define GOOD_STATE                                                      \
	"{\"format\":\"xenpool simulated guest 1\",\"vm\":\"" VM1    \
	"\",\"memory\":67108864,\"vcpus\":1,\"ticks\":777,"         \
	"\"was_paused\":0}"

static void test_peer_with_used_token(void **state)
{
	struct host *b = host_new(small);
	struct value *t = receive(b, quick(VM1)), *u;
	int first, second;

	/* Another guest keeps the door open. */
	job_ok(b, "migrate_receive", VM2, with_config(quick(VM2)));
	first = peer(t);
	frame_send(first, WIRE_TOKEN, value_get_str(t, "token"));
	assert_int_equal(frame_type(first), WIRE_OK);
	second = peer(t);
	frame_send(second, WIRE_TOKEN, value_get_str(t, "token"));
	assert_int_equal(frame_type(second), WIRE_REFUSED);
	close(second);
	/* Expected anew, so the first one comes too late. */
	u = receive(b, quick(VM1));
	frame_send(first, WIRE_STATE, GOOD_STATE);
	assert_int_equal(frame_type(first), WIRE_REFUSED);
	close(first);
	first = peer(u);
	frame_send(first, WIRE_TOKEN, value_get_str(u, "token"));
	assert_int_equal(frame_type(first), WIRE_OK);
	frame_send(first, WIRE_STATE, GOOD_STATE);
	assert_int_equal(frame_type(first), WIRE_OK);
	close(first);
	assert_int_equal(ticks_of(b, VM1), 777);
	value_unref(t);
	value_unref(u);
	host_free(b);
}

static void test_peer_with_bad_state(void **state)
{
	static const char *const states[] = {
		"", "{}", "[]", "{\"format\":\"xenpool simulated guest 1\"}",
		"{\"format\":\"xenpool simulated guest 1\",\"vm\":\"" VM2
		"\",\"memory\":67108864,\"vcpus\":1,\"ticks\":1,"
		"\"was_paused\":0}",
		"{\"format\":\"xenpool simulated guest 1\",\"vm\":\"" VM1
		"\",\"memory\":6710886400,\"vcpus\":1,\"ticks\":1,"
		"\"was_paused\":0}",
		"{\"format\":\"xenpool simulated guest 1\",\"vm\":\"" VM1
		"\",\"memory\":67108864,\"vcpus\":1,\"ticks\":-5,"
		"\"was_paused\":0}",
	};
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));

	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		int fd = peer(t);

		frame_send(fd, WIRE_TOKEN, value_get_str(t, "token"));
		assert_int_equal(frame_type(fd), WIRE_OK);
		frame_send(fd, WIRE_ROUND, "");
		frame_send(fd, WIRE_STATE, states[i]);
		assert_int_equal(frame_type(fd), WIRE_REFUSED);
		close(fd);
		job_bad(b, "migrate_activate", VM1, NULL, "VM_MIGRATE_FAILED");
		value_unref(t);
		t = receive(b, quick(VM1));
	}
	job_ok(a, "migrate_send", VM1, t);
	job_ok(b, "migrate_activate", VM1, NULL);
	end(a, b);
}

static void test_peer_with_damaged_frame(void **state)
{
	struct host *a, *b;
	struct value *t = prepare(&a, &b, quick(VM1));
	struct buf f = BUF_INIT;
	int fd = peer(t);

	frame_send(fd, WIRE_TOKEN, value_get_str(t, "token"));
	assert_int_equal(frame_type(fd), WIRE_OK);
	wire_put(&f, WIRE_STATE, "{\"ticks\":1}", 11);
	f.data[f.len - 3] ^= 1;
	assert_int_equal(send(fd, f.data, f.len, MSG_NOSIGNAL), (ssize_t)f.len);
	assert_int_equal(frame_type(fd), 0);
	close(fd);
	buf_deinit(&f);
	value_unref(t);
	/* A frame that promises too much. */
	t = receive(b, quick(VM1));
	fd = peer(t);
	assert_int_equal(send(fd, "XPM1\1\xff\xff\xff\x7f........", 17, 0), 17);
	assert_int_equal(frame_type(fd), 0);
	close(fd);
	job_ok(a, "migrate_send", VM1, t);
	end(a, b);
}

/* ---- a destination that is not what it says ---- */

static int door(uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, "127.0.0.1", &sin.sin_addr);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

/* Takes a migration up to its state, which is the end of what a source may run
 * on; nobody has answered it yet. */
static int take_in(struct host *a, int listener, uint16_t port)
{
	int fd;

	job_send(a, "send", "migrate_send", VM1, 1, value_struct_of(
		"address", value_stringz("127.0.0.1"), "port", value_int(port),
		"token", value_string("0123456789abcdef0123456789abcdef"
				      "0123456789abcdef0123456789abcdef", 64),
		NULL));
	host_turn(a);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(frame_type(fd), WIRE_TOKEN);
	frame_send(fd, WIRE_OK, "");
	assert_int_equal(frame_type(fd), WIRE_ROUND);
	assert_int_equal(frame_type(fd), WIRE_STATE);
	return fd;
}

static void test_no_answer_to_the_state(void **state)
{
	struct host *a = host_new(small);
	uint16_t port;
	int listener = door(&port), fd;

	job_ok(a, "start", VM1, with_config(quick(VM1)));
	fd = take_in(a, listener, port);
	assert_string_equal(state_of(a, VM1), "paused");
	close(fd);
	assert_string_equal(error_at(done_wait(a, "send"), 0),
			    "VM_MIGRATE_FAILED");
	assert_string_equal(state_of(a, VM1), "running");
	close(listener);
	host_free(a);
}

static void test_killed_before_the_answer(void **state)
{
	struct host *a = host_new(small);
	uint16_t port;
	int listener = door(&port), fd;
	int64_t ticks;

	job_ok(a, "start", VM1, with_config(quick(VM1)));
	fd = take_in(a, listener, port);
	host_stop(a, SIGKILL);
	host_start(a, small);
	/* The other side may have it: it stays as it is until it is told. */
	assert_string_equal(state_of(a, VM1), "paused");
	ticks = ticks_of(a, VM1);
	job_bad(a, "unpause", VM1, NULL, "OTHER_OPERATION_IN_PROGRESS");
	job_bad(a, "migrate_finish", VM1, NULL, "VM_MIGRATE_FAILED");
	assert_int_equal(ticks_of(a, VM1), ticks);
	job_ok(a, "migrate_abort", VM1, NULL);
	assert_string_equal(state_of(a, VM1), "running");
	close(fd);
	close(listener);
	host_free(a);
}

static void test_destination_says_no(void **state)
{
	static const char *const words[] = { "no room", "bad \xff text" };
	struct host *a = host_new(small);
	uint16_t port;
	int listener = door(&port);

	job_ok(a, "start", VM1, with_config(quick(VM1)));
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t from = a->n_told;
		int fd = take_in(a, listener, port);
		const struct value *done;

		frame_send(fd, WIRE_REFUSED, words[i]);
		close(fd);
		done = told_wait(a, "done", "send", from);
		assert_string_equal(error_at(done, 0), "VM_MIGRATE_FAILED");
		assert_string_equal(error_at(done, 4),
				    i == 0 ? "no room" : "refused");
		assert_string_equal(state_of(a, VM1), "running");
		/* A job of that name is known by now. */
		host_stop(a, SIGTERM);
		host_start(a, small);
	}
	close(listener);
	host_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_migrate),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_copies_are_held),
		cmocka_unit_test(test_send_twice),
		cmocka_unit_test(test_receive_twice),
		cmocka_unit_test(test_token_is_used_once),
		cmocka_unit_test(test_abort_after_send),
		cmocka_unit_test(test_receive_without_memory),
		cmocka_unit_test(test_each_step_fails),
		cmocka_unit_test(test_destination_dies),
		cmocka_unit_test(test_arrived_outlives_its_executors),
		cmocka_unit_test(test_source_dies),
		cmocka_unit_test(test_cancel_send),
		cmocka_unit_test(test_paused_guest_stays_paused),
		cmocka_unit_test(test_peer_without_token),
		cmocka_unit_test(test_peer_with_used_token),
		cmocka_unit_test(test_peer_with_bad_state),
		cmocka_unit_test(test_peer_with_damaged_frame),
		cmocka_unit_test(test_no_answer_to_the_state),
		cmocka_unit_test(test_killed_before_the_answer),
		cmocka_unit_test(test_destination_says_no),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
