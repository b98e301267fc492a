#include "xen/guests.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/map.h"

/* A guest may be heard just before its domain is in a list that was made. */
#define MAX_MISSES 2

struct guest {
	char vm[UUID_LEN + 1];
	uint32_t domid;
	struct value *metrics;
	bool is_news;
	int64_t not_before; /* env_mono_ms() */
	unsigned misses;
};

struct guests {
	pthread_mutex_t lock;
	struct map by_vm;
	void (*wake)(void *data);
	void *data;
};

struct guests *guests_new(void (*wake)(void *data), void *data)
{
	struct guests *g = xcalloc(1, sizeof(*g));

	pthread_mutex_init(&g->lock, NULL);
	map_init(&g->by_vm);
	g->wake = wake;
	g->data = data;
	return g;
}

static void guest_drop(struct guests *g, struct guest *t)
{
	map_del(&g->by_vm, t->vm, strlen(t->vm));
	value_unref(t->metrics);
	free(t);
}

void guests_free(struct guests *g)
{
	struct guest *t;
	size_t i = 0;

	if (!g)
		return;
	while ((t = map_next(&g->by_vm, &i)))
		guest_drop(g, t);
	map_deinit(&g->by_vm);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static struct guest *guest_for(struct guests *g, const char *vm)
{
	struct guest *t = map_getz(&g->by_vm, vm);

	if (t || g->by_vm.count >= GUESTS_MAX)
		return t;
	t = xcalloc(1, sizeof(*t));
	snprintf(t->vm, sizeof(t->vm), "%s", vm);
	map_put(&g->by_vm, t->vm, strlen(t->vm), t);
	return t;
}

/* Takes metrics. True: it is news. */
static bool guest_hear(struct guest *t, uint32_t domid, struct value *metrics)
{
	bool same = t->metrics && t->domid == domid &&
		    value_equal(t->metrics, metrics);

	t->misses = 0;
	if (same) {
		value_unref(metrics);
		return false;
	}
	value_unref(t->metrics);
	t->metrics = metrics;
	t->domid = domid;
	t->is_news = true;
	return true;
}

void guests_report(struct guests *g, const char *vm, uint32_t domid,
		   struct value *metrics)
{
	struct guest *t;
	bool news = false;

	pthread_mutex_lock(&g->lock);
	t = guest_for(g, vm);
	if (t)
		news = guest_hear(t, domid, metrics);
	else
		value_unref(metrics);
	pthread_mutex_unlock(&g->lock);
	if (news)
		g->wake(g->data);
}

void guests_again(struct guests *g)
{
	struct guest *t;

	pthread_mutex_lock(&g->lock);
	for (size_t i = 0; (t = map_next(&g->by_vm, &i));) {
		t->is_news = true;
		t->not_before = 0;
	}
	pthread_mutex_unlock(&g->lock);
}

static bool is_listed(const struct guest *t, const struct xen_domain *list,
		      size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].domid == t->domid && !strcmp(list[i].vm, t->vm))
			return true;
	return false;
}

void guests_keep(struct guests *g, const struct xen_domain *list, size_t n)
{
	struct guest *t;

	pthread_mutex_lock(&g->lock);
	for (size_t i = 0; (t = map_next(&g->by_vm, &i));) {
		t->misses = is_listed(t, list, n) ? 0 : t->misses + 1;
		if (t->misses > MAX_MISSES)
			guest_drop(g, t);
	}
	pthread_mutex_unlock(&g->lock);
}

static struct guest *next_news(struct guests *g)
{
	struct guest *t, *first = NULL;

	for (size_t i = 0; (t = map_next(&g->by_vm, &i));)
		if (t->is_news &&
		    (!first || t->not_before < first->not_before))
			first = t;
	return first;
}

struct value *guests_next(struct guests *g)
{
	struct value *msg = NULL;
	struct guest *t;

	pthread_mutex_lock(&g->lock);
	t = next_news(g);
	if (t && t->not_before <= env_mono_ms())
		msg = value_struct_of("type", value_stringz("guest"),
				      "vm", value_stringz(t->vm),
				      "domid", value_int(t->domid),
				      "metrics", value_ref(t->metrics), NULL);
	pthread_mutex_unlock(&g->lock);
	return msg;
}

void guests_told(struct guests *g, const struct value *msg)
{
	struct guest *t;

	pthread_mutex_lock(&g->lock);
	t = map_getz(&g->by_vm, value_get_str(msg, "vm"));
	if (t) {
		t->is_news = t->metrics != value_get(msg, "metrics");
		t->not_before = env_mono_ms() + GUESTS_GAP_MS;
	}
	pthread_mutex_unlock(&g->lock);
}

int64_t guests_next_at(struct guests *g)
{
	struct guest *t;
	int64_t at;

	pthread_mutex_lock(&g->lock);
	t = next_news(g);
	at = t ? t->not_before : INT64_MAX;
	pthread_mutex_unlock(&g->lock);
	return at;
}
