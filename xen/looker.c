#include "xen/looker.h"

#include <pthread.h>
#include <string.h>

#include "base/log.h"

enum looker_step { IDLE, ASKED, SEEN };

struct looker {
	const struct xen_ops *ops;
	struct xen *xen;
	void (*wake)(void *data);
	void *data;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t asked;
	enum looker_step step;
	bool stop;
	struct look look; /* the thread's while ASKED, else locked */
};

static void look_now(struct looker *l)
{
	struct look *v = &l->look;

	v->error = l->ops->list(l->xen, &v->domains, &v->n);
	if (v->error == 0)
		v->error = l->ops->host(l->xen, &v->host);
	if (v->error < 0)
		free(TAKE_PTR(v->domains));
}

static void *run(void *data)
{
	struct looker *l = data;

	log_set_thread("looker");
	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		if (l->step != ASKED) {
			pthread_cond_wait(&l->asked, &l->lock);
			continue;
		}
		pthread_mutex_unlock(&l->lock);
		look_now(l);
		pthread_mutex_lock(&l->lock);
		l->step = SEEN;
		l->wake(l->data);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int looker_start(const struct xen_ops *ops, struct xen *xen,
		 void (*wake)(void *data), void *data, struct looker **ret)
{
	struct looker *l = xcalloc(1, sizeof(*l));
	int r;

	l->ops = ops;
	l->xen = xen;
	l->wake = wake;
	l->data = data;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->asked, NULL);
	r = -pthread_create(&l->thread, NULL, run, l);
	if (r < 0)
		free(l);
	else
		*ret = l;
	return r;
}

void looker_stop(struct looker *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->asked);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->asked);
	pthread_mutex_destroy(&l->lock);
	free(l->look.domains);
	free(l);
}

void looker_ask(struct looker *l, uint64_t stamp)
{
	pthread_mutex_lock(&l->lock);
	if (l->step == IDLE) {
		memset(&l->look, 0, sizeof(l->look));
		l->look.stamp = stamp;
		l->step = ASKED;
		pthread_cond_signal(&l->asked);
	}
	pthread_mutex_unlock(&l->lock);
}

bool looker_take(struct looker *l, struct look *ret)
{
	bool seen;

	pthread_mutex_lock(&l->lock);
	seen = l->step == SEEN;
	if (seen) {
		*ret = l->look;
		l->look.domains = NULL;
		l->step = IDLE;
	}
	pthread_mutex_unlock(&l->lock);
	return seen;
}
