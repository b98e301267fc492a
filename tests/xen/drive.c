/* Speaks the job protocol to an executor, for tests on a real Xen, where there
 * is no Python:
 *
 *   drive SOCKET HOST-UUID < lines
 *
 * Each line is one JSON object:
 *   {"verb": V, "vm": UUID, "fence": N, "params": {...}}  prints the `done`
 *   {"verb": ..., "later": true}      sends it, and goes on with the next line
 *   {"done": N}                       waits until N of these have ended
 *   {"list": true}                    prints a new `state`
 *   {"event": UUID}                   waits for that VM's next event
 *   {"cancel": N}                     of the N-th job, counting from 1
 *   {"sleep": MS}
 * Every packet that comes is printed on a line of its own, as text. Exit status
 * 1 when something did not come within 10 minutes. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/env.h"
#include "tests/xen/json_value.h"
#include "xen/message.h"

#define PATIENCE_MS 600000

static int fd;
static unsigned n_jobs, n_later, n_done_later;

static void say(const char *what, const struct value *v)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	buf_printf(&b, "%s:", what);
	for (uint32_t i = 0; i < v->n; i++) {
		buf_printf(&b, " %s=", value_str(v->items[2 * i]));
		value_to_text(&b, v->items[2 * i + 1]);
	}
	printf("%8.3f %s\n", (double)env_mono_ms() / 1000, buf_cstr(&b));
	fflush(stdout);
}

/* Takes v. */
static void send_value(struct value *v)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	if (exec_message_encode(&b, v) < 0 ||
	    send(fd, b.data, b.len, MSG_NOSIGNAL) < 0)
		perror("send");
	value_unref(v);
}

/* The next packet, printed; ends the program when none comes. */
static struct value *next_packet(void)
{
	static char room[EXEC_MAX_MESSAGE];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char reason[128] = "nothing came";
	struct value *v = NULL;
	ssize_t n = 0;

	if (poll(&p, 1, PATIENCE_MS) > 0)
		n = recv(fd, room, sizeof(room), 0);
	if (n > 0)
		v = exec_message_decode(EXEC_TO_DAEMON, room, (size_t)n, reason,
					sizeof(reason));
	if (!v) {
		printf("FAILED: %s\n", reason);
		exit(1);
	}
	if (strcmp(value_get_str(v, "type"), "state"))
		say("packet", v);
	if (!strcmp(value_get_str(v, "type"), "done") &&
	    value_get_str(v, "id")[0] == 'l')
		n_done_later++;
	return v;
}

static void show_state(const struct value *v)
{
	const struct value *domains = value_get(v, "domains");

	say("host", value_get(v, "host"));
	for (uint32_t i = 0; i < domains->n; i++)
		say("domain", domains->items[i]);
	printf("         domains=%u\n", domains->n);
}

/* Until a packet of this type whose member is that text. */
static void await(const char *type, const char *member, const char *text)
{
	bool found = false;

	while (!found) {
		struct value *v = next_packet();

		found = !strcmp(value_get_str(v, "type"), type) &&
			(!member || !strcmp(value_get_str(v, member), text));
		if (found && !strcmp(type, "state"))
			show_state(v);
		value_unref(v);
	}
}

static void run_job(const struct value *line)
{
	bool later = value_get(line, "later");
	const struct value *params = value_get(line, "params");
	char id[32];

	snprintf(id, sizeof(id), "%c%u-%d", later ? 'l' : 'j', ++n_jobs,
		 (int)getpid());
	n_later += later;
	send_value(value_struct_of(
		"type", value_stringz("job"), "id", value_stringz(id),
		"verb", value_ref(value_get(line, "verb")),
		"vm", value_ref(value_get(line, "vm")),
		"fence", value_int(value_get_int(line, "fence", 0)),
		"params", params ? value_ref(params) : value_struct_new(0),
		NULL));
	if (!later)
		await("done", "id", id);
}

static void run_line(const struct value *v)
{
	char id[32];

	if (value_get(v, "verb")) {
		run_job(v);
	} else if (value_get(v, "list")) {
		send_value(value_struct_of("type", value_stringz("list"),
					   NULL));
		await("state", NULL, NULL);
	} else if (value_get(v, "event")) {
		await("domain", "vm", value_get_str(v, "event"));
	} else if (value_get(v, "cancel")) {
		snprintf(id, sizeof(id), "l%d-%d",
			 (int)value_get_int(v, "cancel", 0), (int)getpid());
		send_value(value_struct_of("type", value_stringz("cancel"),
					   "id", value_stringz(id), NULL));
	} else if (value_get(v, "done")) {
		while (n_done_later <
		       (unsigned)value_get_int(v, "done", 0))
			value_unref(next_packet());
	} else {
		poll(NULL, 0, (int)value_get_int(v, "sleep", 0));
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char line[65536];

	if (argc != 3)
		return 2;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", argv[1]);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		perror(argv[1]);
		return 1;
	}
	send_value(value_struct_of("type", value_stringz("hello"), "protocol",
				   value_int(EXEC_PROTOCOL), "host",
				   value_stringz(argv[2]), NULL));
	await("state", NULL, NULL);
	while (fgets(line, sizeof(line), stdin)) {
		struct json_object *o = json_tokener_parse(line);
		struct value *v = o ? of_json(o, "") : NULL;

		if (v && v->kind == VALUE_STRUCT)
			run_line(v);
		else if (*line != '\n')
			printf("FAILED: not a JSON object: %s", line);
		value_unref(v);
		json_object_put(o);
	}
	return 0;
}
