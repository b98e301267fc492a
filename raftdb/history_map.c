/* Maps are compared as values when a change is written, and put together again
 * as text when it is undone: what a column of the file once said is all that is
 * known of a value of an older schema.
 */
#include "raftdb/history_map.h"

#include <string.h>

/* ---- what changed ---- */

static size_t pairs_not_in(struct value **ret, const struct value *map,
			   const struct value *other)
{
	size_t n = 0;

	for (uint32_t i = 0; i < map->n; i++) {
		struct value *key = map->items[2 * i];
		struct value *item = map->items[2 * i + 1];
		const struct value *there = value_get_n(other, key->s, key->n);

		if (there && value_equal(item, there))
			continue;
		ret[2 * n] = value_ref(key);
		ret[2 * n + 1] = value_ref(item);
		n++;
	}
	return n;
}

static struct value *map_without(const struct value *map,
				 const struct value *other)
{
	_cleanup_(freep) struct value **pairs =
		xcalloc(2 * (size_t)map->n + 1, sizeof(*pairs));

	return value_map_from(pairs, pairs_not_in(pairs, map, other));
}

void history_map_diff(const struct value *before, const struct value *after,
		      struct value **ret_old, struct value **ret_new)
{
	*ret_old = map_without(before, after);
	*ret_new = map_without(after, before);
}

/* ---- taking it back ---- */

struct pair {
	const char *text; /* ('key' 'item'), in its map's text */
	size_t n;
	struct buf key;
};

struct pairs {
	struct pair *all;
	size_t n, room;
};

static void pairs_deinit(struct pairs *p)
{
	for (size_t i = 0; i < p->n; i++)
		buf_deinit(&p->all[i].key);
	free(p->all);
}

/* Behind the quoted text at s, which goes to key, or NULL. */
static const char *skip_quoted(const char *s, struct buf *key)
{
	if (*s != '\'')
		return NULL;
	for (s++; *s && *s != '\''; s++) {
		if (*s == '\\' && *++s == '\0')
			return NULL;
		if (key)
			buf_putc(key, *s);
	}
	return *s ? s + 1 : NULL;
}

/* Behind the item at s, a quoted text or one in brackets, or NULL. */
static const char *skip_item(const char *s)
{
	unsigned depth = 0;

	do {
		if (*s == '\'') {
			s = skip_quoted(s, NULL);
		} else if (*s == '\0') {
			s = NULL;
		} else {
			depth += *s == '(';
			depth -= *s == ')' && depth > 0;
			s++;
		}
	} while (s && depth > 0);
	return s;
}

static const char *read_pair(struct pairs *p, const char *s)
{
	struct pair *pair;
	const char *from = s;

	if (p->n == p->room) {
		p->room = MAX(2 * p->room, 16);
		p->all = xrealloc(p->all, p->room * sizeof(*p->all));
	}
	pair = &p->all[p->n++];
	*pair = (struct pair){ .text = from, .key = BUF_INIT };
	s = *s == '(' ? skip_quoted(s + 1, &pair->key) : NULL;
	s = s && *s == ' ' ? skip_item(s + 1) : NULL;
	if (!s || *s != ')')
		return NULL;
	pair->n = (size_t)(s + 1 - from);
	return s + 1;
}

static bool read_pairs(struct pairs *p, const char *s)
{
	if (*s++ != '(')
		return false;
	while (*s && *s != ')') {
		s = read_pair(p, s);
		if (!s)
			return false;
		s += *s == ' ';
	}
	return *s == ')' && s[1] == '\0';
}

static int compare_keys(const struct pair *a, const struct pair *b)
{
	size_t n = MIN(a->key.len, b->key.len);
	int r = n ? memcmp(a->key.data, b->key.data, n) : 0;

	return r ? r : (a->key.len > b->key.len) - (a->key.len < b->key.len);
}

static void put_pair(struct buf *b, const struct pair *p)
{
	if (b->len > 1)
		buf_putc(b, ' ');
	buf_append(b, p->text, p->n);
}

/* All three are sorted by key. */
static void merge(struct buf *b, const struct pairs *now,
		  const struct pairs *old, const struct pairs *new)
{
	size_t o = 0, n = 0;

	buf_putc(b, '(');
	for (size_t i = 0; i < now->n; i++) {
		const struct pair *p = &now->all[i];

		while (o < old->n && compare_keys(&old->all[o], p) < 0)
			put_pair(b, &old->all[o++]);
		while (n < new->n && compare_keys(&new->all[n], p) < 0)
			n++;
		if (o < old->n && compare_keys(&old->all[o], p) == 0)
			put_pair(b, &old->all[o++]);
		else if (n == new->n || compare_keys(&new->all[n], p) != 0)
			put_pair(b, p);
	}
	while (o < old->n)
		put_pair(b, &old->all[o++]);
	buf_putc(b, ')');
}

bool history_map_undo(struct buf *text, const char *old, const char *new)
{
	_cleanup_(pairs_deinit) struct pairs p = { 0 }, po = { 0 }, pn = { 0 };
	struct buf merged = BUF_INIT;

	if (!read_pairs(&p, buf_cstr(text)) || !read_pairs(&po, old) ||
	    !read_pairs(&pn, new))
		return false;
	merge(&merged, &p, &po, &pn);
	buf_deinit(text);
	*text = merged;
	return true;
}
