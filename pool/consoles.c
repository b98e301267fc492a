#include "pool/consoles.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"

#define ANSWER_MS 10000 /* in which the executor has to answer */
#define MAX_WAITING 64

struct waiter {
	struct list link; /* oldest first */
	char id[16];
	int64_t until;
	pool_console_cb cb;
	void *data;
};

static void end(struct consoles *c, struct waiter *w, int fd,
		struct value *takes_error)
{
	list_remove(&w->link);
	c->n--;
	w->cb(w->data, fd, takes_error);
	free(w);
}

static void on_time(uv_timer_t *t);

static void watch_clock(struct consoles *c)
{
	struct waiter *first;
	int64_t in;

	uv_timer_stop(&c->timer);
	if (list_empty(&c->waiting))
		return;
	first = list_entry(c->waiting.next, struct waiter, link);
	in = MAX(first->until - env_mono_ms(), (int64_t)0);
	uv_timer_start(&c->timer, on_time, (uint64_t)in + 1, 0);
}

static void on_time(uv_timer_t *t)
{
	struct consoles *c = t->data;
	int64_t now = env_mono_ms();

	list_for_each_safe(it, &c->waiting) {
		struct waiter *w = list_entry(it, struct waiter, link);

		if (w->until <= now)
			end(c, w, -1, api_error("INTERNAL_ERROR",
						"the executor does not answer",
						NULL));
	}
	watch_clock(c);
}

void consoles_init(struct consoles *c, uv_loop_t *loop)
{
	list_init(&c->waiting);
	uv_timer_init(loop, &c->timer);
	c->timer.data = c;
}

static int send_request(struct consoles *c, const char *id, const char *vm,
			bool raw)
{
	_cleanup_(value_unrefp) struct value *v = value_struct_of(
		"type", value_stringz("console"), "id", value_stringz(id),
		"vm", value_stringz(vm), "raw", value_bool(raw), NULL);

	if (c->n >= MAX_WAITING)
		return -EBUSY;
	return c->exec ? exec_client_send(c->exec, v) : -ENOTCONN;
}

void consoles_ask(struct consoles *c, const char *vm, bool raw,
		  pool_console_cb cb, void *data)
{
	struct waiter *w;
	char id[16];
	int r;

	snprintf(id, sizeof id, "c%u", c->next_id++);
	r = send_request(c, id, vm, raw);
	if (r < 0) {
		cb(data, -1, r == -EBUSY ?
			api_error("TOO_MANY_PENDING_TASKS", NULL) :
			api_error("INTERNAL_ERROR",
				  "this host's executor is not there", NULL));
		return;
	}
	w = xcalloc(1, sizeof *w);
	memcpy(w->id, id, sizeof id);
	w->until = env_mono_ms() + ANSWER_MS;
	w->cb = cb;
	w->data = data;
	list_init(&w->link);
	list_push(&c->waiting, &w->link);
	c->n++;
	watch_clock(c);
}

static struct waiter *find(struct consoles *c, const char *id)
{
	list_for_each(it, &c->waiting) {
		struct waiter *w = list_entry(it, struct waiter, link);

		if (!strcmp(w->id, id))
			return w;
	}
	return NULL;
}

bool consoles_message(struct consoles *c, const struct value *msg, int *fd)
{
	struct waiter *w;
	bool ok;

	if (strcmp(value_get_str(msg, "type"), "console"))
		return false;
	w = find(c, value_get_str(msg, "id"));
	if (!w)
		return true; /* too late */
	ok = value_get(msg, "ok")->i && *fd >= 0;
	if (ok)
		end(c, w, *fd, NULL);
	else if (value_get(msg, "error")->n > 0)
		end(c, w, -1, value_ref(value_get(msg, "error")));
	else
		end(c, w, -1, api_error("INTERNAL_ERROR",
					"no stream came with the console",
					NULL));
	if (ok)
		*fd = -1;
	watch_clock(c);
	return true;
}

void consoles_lost(struct consoles *c)
{
	list_for_each_safe(it, &c->waiting)
		end(c, list_entry(it, struct waiter, link), -1,
		    api_error("INTERNAL_ERROR",
			      "this host's executor went away", NULL));
	watch_clock(c);
}
