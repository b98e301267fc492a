/* The text of a task's result: the XML-RPC form of the value, whatever the
 * caller's transport. And back, for calls that waited for a job's task.
 */
#include <stdio.h>
#include <string.h>

#include "pool/core.h"

static void put_value(struct buf *b, const struct value *v);

static void put_escaped(struct buf *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		switch (s[i]) {
		case '&':
			buf_puts(b, "&amp;");
			break;
		case '<':
			buf_puts(b, "&lt;");
			break;
		case '>':
			buf_puts(b, "&gt;");
			break;
		case '"':
			buf_puts(b, "&quot;");
			break;
		default:
			buf_putc(b, s[i]);
		}
	}
}

static void put_member(struct buf *b, const char *name, size_t n,
		       const struct value *v)
{
	buf_puts(b, "<member><name>");
	put_escaped(b, name, n);
	buf_puts(b, "</name>");
	put_value(b, v);
	buf_puts(b, "</member>");
}

static void put_record(struct buf *b, const struct record *r)
{
	buf_puts(b, "<struct>");
	for (unsigned f = 0; f < r->cls->n_fields; f++)
		if (!(r->cls->fields[f].flags & FIELD_INTERNAL))
			put_member(b, r->cls->fields[f].name,
				   strlen(r->cls->fields[f].name),
				   r->fields[f]);
	buf_puts(b, "</struct>");
}

static void put_content(struct buf *b, const struct value *v)
{
	char date[DATE_LEN + 1];

	switch ((enum value_kind)v->kind) {
	case VALUE_VOID:
	case VALUE_NIL:
		break;
	case VALUE_STRING:
		put_escaped(b, v->s, v->n);
		break;
	case VALUE_INT:
		buf_printf(b, "%lld", (long long)v->i);
		break;
	case VALUE_COUNT:
		buf_printf(b, "<i4>%lld</i4>", (long long)v->i);
		break;
	case VALUE_FLOAT:
		buf_printf(b, "<double>%.16g</double>", v->d);
		break;
	case VALUE_BOOL:
		buf_printf(b, "<boolean>%d</boolean>", v->i != 0);
		break;
	case VALUE_DATETIME:
		date_format(v->i, date);
		buf_printf(b, "<dateTime.iso8601>%s</dateTime.iso8601>", date);
		break;
	case VALUE_SET:
		buf_puts(b, "<array><data>");
		for (unsigned i = 0; i < v->n; i++)
			put_value(b, v->items[i]);
		buf_puts(b, "</data></array>");
		break;
	case VALUE_MAP:
	case VALUE_STRUCT:
		buf_puts(b, "<struct>");
		for (unsigned i = 0; i < v->n; i++)
			put_member(b, v->items[2 * i]->s, v->items[2 * i]->n,
				   v->items[2 * i + 1]);
		buf_puts(b, "</struct>");
		break;
	case VALUE_RECORD:
		put_record(b, v->record);
		break;
	}
}

static void put_value(struct buf *b, const struct value *v)
{
	buf_puts(b, "<value>");
	put_content(b, v);
	buf_puts(b, "</value>");
}

struct value *task_result_text(const struct value *v)
{
	struct buf b = BUF_INIT;
	struct value *text;

	put_value(&b, v);
	text = value_string(b.data, b.len);
	buf_deinit(&b);
	return text;
}

/* ---- and back: exactly what is written above, nothing else of XML ---- */

struct text_reader {
	const char *p, *end;
	unsigned depth;
};

static struct value *get_value(struct text_reader *r);

static bool skip(struct text_reader *r, const char *tag)
{
	size_t n = strlen(tag);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, tag, n))
		return false;
	r->p += n;
	return true;
}

static const struct {
	const char *entity;
	char c;
} entities[] = {
	{ "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' },
};

/* Text up to the next tag. */
static struct value *get_text(struct text_reader *r)
{
	struct buf b = BUF_INIT;
	struct value *v;

	while (r->p < r->end && *r->p != '<') {
		size_t i = 0;

		while (i < ARRAY_LEN(entities) && !skip(r, entities[i].entity))
			i++;
		buf_putc(&b, i < ARRAY_LEN(entities) ? entities[i].c :
						       *r->p++);
	}
	v = value_string(b.data ? b.data : "", b.len);
	buf_deinit(&b);
	return v;
}

/* A growing list of values that is freed as a whole. */
struct items {
	struct value **v;
	size_t n, cap;
};

static void items_add(struct items *l, struct value *v)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 8;
		l->v = xrealloc(l->v, l->cap * sizeof *l->v);
	}
	l->v[l->n++] = v;
}

static struct value *items_drop(struct items *l)
{
	for (size_t i = 0; i < l->n; i++)
		value_unref(l->v[i]);
	free(l->v);
	return NULL;
}

static struct value *get_array(struct text_reader *r)
{
	struct items l = { 0 };
	struct value *set;

	while (!skip(r, "</data></array>")) {
		struct value *v = get_value(r);

		if (!v)
			return items_drop(&l);
		items_add(&l, v);
	}
	set = value_set_new(l.n);
	for (size_t i = 0; i < l.n; i++)
		set->items[i] = l.v[i];
	free(l.v);
	return set;
}

static struct value *get_struct(struct text_reader *r)
{
	struct items l = { 0 };
	struct value *s;

	while (!skip(r, "</struct>")) {
		struct value *v;

		if (!skip(r, "<member><name>"))
			return items_drop(&l);
		items_add(&l, get_text(r));
		v = skip(r, "</name>") ? get_value(r) : NULL;
		if (!v)
			return items_drop(&l);
		items_add(&l, v);
		if (!skip(r, "</member>"))
			return items_drop(&l);
	}
	s = value_struct_new(l.n / 2);
	for (size_t i = 0; i < l.n; i++)
		s->items[i] = l.v[i];
	free(l.v);
	return s;
}

static struct value *get_bool(struct text_reader *r)
{
	struct value *text = get_text(r);
	struct value *v = value_bool(value_is_str(text, "1"));

	value_unref(text);
	return skip(r, "</boolean>") ? v : (value_unref(v), NULL);
}

/* The text of a tag, as the string that schema_coerce() understands. */
static struct value *get_tagged(struct text_reader *r, const char *end)
{
	struct value *v = get_text(r);

	return skip(r, end) ? v : (value_unref(v), NULL);
}

static struct value *get_content(struct text_reader *r)
{
	if (skip(r, "<array><data>"))
		return get_array(r);
	if (skip(r, "<struct>"))
		return get_struct(r);
	if (skip(r, "<boolean>"))
		return get_bool(r);
	if (skip(r, "<double>"))
		return get_tagged(r, "</double>");
	if (skip(r, "<i4>"))
		return get_tagged(r, "</i4>");
	if (skip(r, "<dateTime.iso8601>"))
		return get_tagged(r, "</dateTime.iso8601>");
	return get_text(r);
}

static struct value *get_value(struct text_reader *r)
{
	struct value *v;

	if (r->depth >= VALUE_MAX_DEPTH || !skip(r, "<value>"))
		return NULL;
	r->depth++;
	v = get_content(r);
	r->depth--;
	if (v && !skip(r, "</value>")) {
		value_unref(v);
		return NULL;
	}
	return v;
}

struct value *task_result_value(const struct type *type, const struct value *text)
{
	struct text_reader r = { value_str(text), value_str(text), 0 };
	_cleanup_(value_unrefp) struct value *loose = NULL;
	char reason[128];

	if (type->kind == TYPE_VOID)
		return value_void();
	r.end = r.p + text->n;
	loose = get_value(&r);
	if (!loose || r.p != r.end)
		return NULL;
	return schema_coerce(type, loose, reason, sizeof reason);
}
