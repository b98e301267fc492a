/* Intrusive doubly linked list with a sentinel head. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/util.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Adds n at the end of the list whose head is l. */
static inline void list_push(struct list *l, struct list *n)
{
	n->prev = l->prev;
	n->next = l;
	l->prev->next = n;
	l->prev = n;
}

/* Removing an entry twice, or one that was list_init()ed only, does nothing. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* Moves all entries of from to the end of to. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(n, type, member) container_of(n, type, member)

#define list_for_each(it, head) \
	for (struct list *it = (head)->next; it != (head); it = it->next)

#define list_for_each_safe(it, head)                                  \
	for (struct list *it = (head)->next, *it##_next = it->next;   \
	     it != (head); it = it##_next, it##_next = it->next)

#endif
