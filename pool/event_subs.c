/* Subscriptions: "*", "class", "class/ref", the class in any case. */
#include <string.h>

#include "pool/event.h"

#define MAX_SUBSCRIPTIONS 16384

bool event_class(const struct class_def *c)
{
	return (c->flags & CLASS_EVENTS) && (c->flags & CLASS_STORED) &&
	       !(c->flags & CLASS_PRIVATE);
}

static void add_class(struct event_subs *s, const struct class_def *c)
{
	if (!c || !event_class(c))
		return;
	s->any_class = true;
	s->classes[c->id] = true;
	if (c->id != CLASS_task)
		s->only_tasks = false;
}

static void add_ref(struct event_subs *s, const struct class_def *c,
		    const char *ref, size_t n)
{
	if (!c || !event_class(c))
		return;
	s->refs[s->n_refs++] = (struct event_sub_ref){ c->id,
						       value_string(ref, n) };
	if (c->id != CLASS_task)
		s->only_tasks = false;
}

static void add_name(struct event_subs *s, const struct value *name)
{
	const char *slash = memchr(name->s, '/', name->n);
	size_t n = slash ? (size_t)(slash - name->s) : name->n;

	if (value_is_str(name, "*")) {
		for (unsigned i = 0; i < schema_n_classes; i++)
			add_class(s, &schema_classes[i]);
		return;
	}
	if (slash)
		add_ref(s, schema_class_nocase(name->s, n), slash + 1,
			name->n - n - 1);
	else
		add_class(s, schema_class_nocase(name->s, n));
}

static int compare_refs(const void *pa, const void *pb)
{
	const struct event_sub_ref *a = pa, *b = pb;

	return a->cls != b->cls ? a->cls - b->cls : value_str_cmp(a->ref, b->ref);
}

/* Sorts, and drops what is there twice or by its class. */
static void tidy_refs(struct event_subs *s)
{
	size_t n = 0;

	if (s->n_refs > 0)
		qsort(s->refs, s->n_refs, sizeof *s->refs, compare_refs);
	for (size_t i = 0; i < s->n_refs; i++) {
		struct event_sub_ref e = s->refs[i];

		if (s->classes[e.cls] ||
		    (n > 0 && compare_refs(&s->refs[n - 1], &e) == 0))
			value_unref(e.ref);
		else
			s->refs[n++] = e;
	}
	s->n_refs = n;
}

struct value *event_subs_parse(const struct value *names, struct event_subs *ret)
{
	xassert(schema_n_classes <= EVENT_CLASSES);
	memset(ret, 0, sizeof *ret);
	if (names->n > MAX_SUBSCRIPTIONS)
		return api_error("EVENT_SUBSCRIPTION_PARSE_FAILURE",
				 "too many subscriptions", NULL);
	ret->refs = xcalloc(names->n + 1, sizeof *ret->refs);
	ret->only_tasks = true;
	for (unsigned i = 0; i < names->n; i++)
		add_name(ret, names->items[i]);
	tidy_refs(ret);
	ret->only_tasks = ret->only_tasks && (ret->any_class || ret->n_refs);
	return NULL;
}

void event_subs_deinit(struct event_subs *s)
{
	for (size_t i = 0; i < s->n_refs; i++)
		value_unref(s->refs[i].ref);
	free(s->refs);
	s->refs = NULL;
	s->n_refs = 0;
}

bool event_subs_match(const struct event_subs *s, int cls,
		      const struct value *ref)
{
	struct event_sub_ref key = { cls, (struct value *)ref };

	if (s->classes[cls])
		return true;
	return s->n_refs > 0 && bsearch(&key, s->refs, s->n_refs,
					sizeof *s->refs, compare_refs);
}
