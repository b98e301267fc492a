/* The filter language of get_all_where and get_all_records_where:
 *
 *   expr  := and { "or" and }
 *   and   := not { "and" not }
 *   not   := "not" not | "(" expr ")" | "true" | "false" | value "=" value
 *   value := "field" string | string
 *   string in "double" or 'single' quotes; \" \' \\ inside stand for the second
 *            character, any other backslash for itself
 *
 * Field names are the database's (name__label) or the wire's (name_label).
 * Values compare by their text (value_to_text). Nesting and the number of
 * comparisons are limited, so a filter costs at most WHERE_MAX_NODES a row.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "pool/core.h"

#define WHERE_MAX_DEPTH 64
#define WHERE_MAX_NODES 1024
#define WHERE_MAX_BYTES 65536

enum node_kind { NODE_TRUE, NODE_FALSE, NODE_EQUAL, NODE_NOT, NODE_AND, NODE_OR };

/* field < 0: the literal. */
struct operand {
	int field;
	struct value *literal;
};

struct node {
	enum node_kind kind;
	int left, right; /* NOT, AND, OR: nodes */
	struct operand a, b;
};

struct where {
	const struct class_def *cls;
	struct node *nodes;
	int n, cap, root;
};

struct parser {
	struct where *w;
	const char *start, *p, *end;
	unsigned depth;
	char *reason;
	size_t reason_size;
};

/* ---- reading ---- */

static int fail(struct parser *p, const char *what)
{
	if (!*p->reason)
		snprintf(p->reason, p->reason_size, "%s at character %zu", what,
			 (size_t)(p->p - p->start) + 1);
	return -1;
}

static void skip_space(struct parser *p)
{
	while (p->p < p->end && isspace((unsigned char)*p->p))
		p->p++;
}

static bool skip_char(struct parser *p, char c)
{
	skip_space(p);
	if (p->p == p->end || *p->p != c)
		return false;
	p->p++;
	return true;
}

static bool skip_word(struct parser *p, const char *word)
{
	size_t n = strlen(word);

	skip_space(p);
	if ((size_t)(p->end - p->p) < n || memcmp(p->p, word, n))
		return false;
	if (p->p + n < p->end &&
	    (isalnum((unsigned char)p->p[n]) || p->p[n] == '_'))
		return false;
	p->p += n;
	return true;
}

static struct value *read_string(struct parser *p)
{
	struct buf b = BUF_INIT;
	struct value *v;
	char quote;

	skip_space(p);
	if (p->p == p->end || (*p->p != '"' && *p->p != '\'')) {
		fail(p, "a quoted string is missing");
		return NULL;
	}
	quote = *p->p++;
	while (p->p < p->end && *p->p != quote) {
		if (*p->p == '\\' && p->p + 1 < p->end &&
		    (p->p[1] == quote || p->p[1] == '\\'))
			p->p++;
		buf_putc(&b, *p->p++);
	}
	v = p->p < p->end ? value_string(b.data ? b.data : "", b.len) : NULL;
	buf_deinit(&b);
	if (v)
		p->p++;
	else
		fail(p, "a string does not end");
	return v;
}

static int read_operand(struct parser *p, struct operand *o)
{
	bool is_field = skip_word(p, "field");
	struct value *s = read_string(p);

	*o = (struct operand){ -1, s };
	if (!s)
		return -1;
	if (!is_field)
		return 0;
	o->field = schema_field(p->w->cls, s->s, s->n);
	if (o->field < 0 ||
	    p->w->cls->fields[o->field].flags & FIELD_INTERNAL)
		return fail(p, "an unknown field ends");
	return 0;
}

static int add_node(struct parser *p, struct node n)
{
	struct where *w = p->w;

	if (w->n == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 8;
		w->nodes = xrealloc(w->nodes, (size_t)w->cap * sizeof *w->nodes);
	}
	w->nodes[w->n] = n;
	if (w->n + 1 > WHERE_MAX_NODES) {
		w->n++;
		return fail(p, "too many terms");
	}
	return w->n++;
}

static int read_or(struct parser *p);

static int read_equal(struct parser *p)
{
	struct node n = { .kind = NODE_EQUAL, .a.field = -1, .b.field = -1 };
	bool good = read_operand(p, &n.a) == 0;

	if (good && !skip_char(p, '='))
		good = fail(p, "= is missing") == 0;
	good = good && read_operand(p, &n.b) == 0;
	/* The node owns the literals, good or not. */
	return add_node(p, n) < 0 || !good ? -1 : p->w->n - 1;
}

static int read_not(struct parser *p)
{
	int below;

	if (p->depth >= WHERE_MAX_DEPTH)
		return fail(p, "nested too deep");
	if (skip_word(p, "true"))
		return add_node(p, (struct node){ .kind = NODE_TRUE });
	if (skip_word(p, "false"))
		return add_node(p, (struct node){ .kind = NODE_FALSE });
	p->depth++;
	if (skip_word(p, "not")) {
		below = read_not(p);
		if (below >= 0)
			below = add_node(p, (struct node){ .kind = NODE_NOT,
							   .left = below });
	} else if (skip_char(p, '(')) {
		below = read_or(p);
		if (below >= 0 && !skip_char(p, ')'))
			below = fail(p, ") is missing");
	} else {
		below = read_equal(p);
	}
	p->depth--;
	return below;
}

static int read_chain(struct parser *p, const char *word, enum node_kind kind,
		      int (*part)(struct parser *p))
{
	int left = part(p);

	while (left >= 0 && skip_word(p, word)) {
		int right = part(p);

		left = right < 0 ? -1 : add_node(p, (struct node){
			.kind = kind, .left = left, .right = right });
	}
	return left;
}

static int read_and(struct parser *p)
{
	return read_chain(p, "and", NODE_AND, read_not);
}

static int read_or(struct parser *p)
{
	return read_chain(p, "or", NODE_OR, read_and);
}

struct where *where_parse(const struct class_def *cls, const char *text,
			  size_t n, char *reason, size_t reason_size)
{
	_cleanup_(where_freep) struct where *w = xcalloc(1, sizeof *w);
	struct parser p = { w, text, text, text + n, 0, reason, reason_size };

	w->cls = cls;
	*reason = '\0';
	if (n > WHERE_MAX_BYTES) {
		fail(&p, "too long an expression");
		return NULL;
	}
	w->root = read_or(&p);
	if (w->root < 0)
		return NULL;
	skip_space(&p);
	if (p.p < p.end) {
		fail(&p, "unexpected text");
		return NULL;
	}
	return TAKE_PTR(w);
}

void where_free(struct where *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n; i++) {
		value_unref(w->nodes[i].a.literal);
		value_unref(w->nodes[i].b.literal);
	}
	free(w->nodes);
	free(w);
}

void where_freep(struct where **w)
{
	where_free(*w);
}

/* ---- matching ---- */

static const struct value *operand_value(const struct operand *o,
					 const struct record *r)
{
	return o->field < 0 ? o->literal : r->fields[o->field];
}

static bool equal_as_text(const struct value *a, const struct value *b)
{
	struct buf ta = BUF_INIT, tb = BUF_INIT;
	bool equal;

	if (a->kind == VALUE_STRING && b->kind == VALUE_STRING)
		return a->n == b->n && memcmp(a->s, b->s, a->n) == 0;
	value_to_text(&ta, a);
	value_to_text(&tb, b);
	equal = ta.len == tb.len && (!ta.len || !memcmp(ta.data, tb.data, ta.len));
	buf_deinit(&ta);
	buf_deinit(&tb);
	return equal;
}

static bool match_node(const struct where *w, int i, const struct record *r)
{
	const struct node *n = &w->nodes[i];

	switch (n->kind) {
	case NODE_TRUE:
		return true;
	case NODE_FALSE:
		return false;
	case NODE_EQUAL:
		return equal_as_text(operand_value(&n->a, r),
				     operand_value(&n->b, r));
	case NODE_NOT:
		return !match_node(w, n->left, r);
	case NODE_AND:
		return match_node(w, n->left, r) && match_node(w, n->right, r);
	case NODE_OR:
		return match_node(w, n->left, r) || match_node(w, n->right, r);
	}
	return false;
}

bool where_match(const struct where *w, const struct record *r)
{
	return match_node(w, w->root, r);
}
