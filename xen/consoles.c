#include "xen/consoles.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"

/* One `console` on its way through. */
struct request {
	struct list link;
	char vm[UUID_LEN + 1]; /* "": the host's */
	struct value *id, *reply;
	int fd;
};

struct consoles {
	struct consoles_config cfg;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t work;
	/* Under the lock. */
	struct list asked, answered;
	size_t n;
	bool stop;
};

static void request_free(struct request *r)
{
	value_unref(r->id);
	value_unref(r->reply);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

static struct request *first_of(struct list *l)
{
	return list_entry(l->next, struct request, link);
}

/* ---- the thread ---- */

static struct value *error_of(const char *vm, int r)
{
	if (r == -ENOENT)
		return api_error("VM_BAD_POWER_STATE", vm, "running", "halted",
				 NULL);
	if (r == -EOPNOTSUPP)
		return api_error("NOT_IMPLEMENTED", "console", NULL);
	return api_error("INTERNAL_ERROR", strerror(-r), NULL);
}

static void serve(struct consoles *c, struct request *q)
{
	struct xen_console con = { .fd = -1 };
	int r = c->cfg.ops->console ?
			c->cfg.ops->console(c->cfg.xen, q->vm, &con) :
			-EOPNOTSUPP;

	if (r < 0)
		log_warn("console of %s: %s", *q->vm ? q->vm : "the host",
			 strerror(-r));
	q->fd = con.fd;
	q->reply = value_struct_of("type", value_stringz("console"),
				   "id", value_ref(q->id),
				   "ok", value_bool(r == 0),
				   "error", r ? error_of(q->vm, r) :
						value_set_new(0), NULL);
}

static void *run(void *data)
{
	struct consoles *c = data;

	log_set_thread("consoles");
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		struct request *q;

		if (list_empty(&c->asked)) {
			pthread_cond_wait(&c->work, &c->lock);
			continue;
		}
		q = first_of(&c->asked);
		list_remove(&q->link);
		pthread_mutex_unlock(&c->lock);
		serve(c, q);
		pthread_mutex_lock(&c->lock);
		list_push(&c->answered, &q->link);
		c->cfg.wake(c->cfg.data);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* ---- the executor's side ---- */

int consoles_start(const struct consoles_config *cfg, struct consoles **ret)
{
	struct consoles *c = xcalloc(1, sizeof(*c));
	int r;

	c->cfg = *cfg;
	list_init(&c->asked);
	list_init(&c->answered);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	r = -pthread_create(&c->thread, NULL, run, c);
	c->started = r == 0;
	if (r < 0)
		consoles_stop(c);
	else
		*ret = c;
	return r;
}

static void list_drop(struct consoles *c, struct list *l)
{
	list_for_each_safe(it, l) {
		list_remove(it);
		request_free(list_entry(it, struct request, link));
		c->n--;
	}
}

void consoles_stop(struct consoles *c)
{
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
	if (c->started)
		pthread_join(c->thread, NULL);
	list_drop(c, &c->asked);
	list_drop(c, &c->answered);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->work);
	free(c);
}

static struct request *request_new(const struct value *msg)
{
	const char *vm = value_get_str(msg, "vm");
	struct request *q = xcalloc(1, sizeof(*q));

	q->fd = -1;
	q->id = value_ref(value_get(msg, "id"));
	list_init(&q->link);
	if (*vm && !domain_uuid(vm, q->vm))
		q->reply = value_struct_of(
			"type", value_stringz("console"), "id",
			value_ref(q->id), "ok", value_bool(false), "error",
			api_error("INVALID_VALUE", "vm", vm, NULL), NULL);
	return q;
}

void consoles_open(struct consoles *c, const struct value *msg)
{
	struct request *q;

	pthread_mutex_lock(&c->lock);
	if (c->n >= CONSOLES_MAX_PENDING) {
		/* The daemon gives up by itself. */
		log_warn("too many consoles are asked for at a time");
	} else {
		c->n++;
		q = request_new(msg);
		list_push(q->reply ? &c->answered : &c->asked, &q->link);
		pthread_cond_signal(&c->work);
	}
	pthread_mutex_unlock(&c->lock);
}

const struct value *consoles_next(struct consoles *c, int *ret_fd)
{
	const struct value *v = NULL;

	pthread_mutex_lock(&c->lock);
	if (!list_empty(&c->answered)) {
		v = first_of(&c->answered)->reply;
		*ret_fd = first_of(&c->answered)->fd;
	}
	pthread_mutex_unlock(&c->lock);
	return v;
}

void consoles_told(struct consoles *c)
{
	struct request *q;

	pthread_mutex_lock(&c->lock);
	q = first_of(&c->answered);
	list_remove(&q->link);
	c->n--;
	pthread_mutex_unlock(&c->lock);
	request_free(q);
}

void consoles_forget(struct consoles *c)
{
	pthread_mutex_lock(&c->lock);
	list_drop(c, &c->asked);
	list_drop(c, &c->answered);
	pthread_mutex_unlock(&c->lock);
}
