#include "rpc/xmlrpc.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "schema/record.h"

/* Reading.
 *
 * The parser is a stack of open elements, each of a kind that says what may be
 * inside it (the grammar table), and a stack of finished values. Closing an
 * element replaces the values above its mark by the one that they make.
 */
enum kind {
	K_DOCUMENT,
	K_CALL,
	K_METHOD_NAME,
	K_PARAMS,
	K_PARAM,
	K_VALUE,
	K_ARRAY,
	K_DATA,
	K_STRUCT,
	K_MEMBER,
	K_NAME,
	K_STRING,
	K_INT,
	K_DOUBLE,
	K_BOOLEAN,
	K_DATE,
	K_NIL,
};

struct rule {
	enum kind parent;
	const char *element;
	enum kind child;
};

static const struct rule grammar[] = {
	{ K_DOCUMENT, "methodCall", K_CALL },
	{ K_CALL, "methodName", K_METHOD_NAME },
	{ K_CALL, "params", K_PARAMS },
	{ K_PARAMS, "param", K_PARAM },
	{ K_PARAM, "value", K_VALUE },
	{ K_VALUE, "string", K_STRING },
	{ K_VALUE, "struct", K_STRUCT },
	{ K_VALUE, "array", K_ARRAY },
	{ K_VALUE, "int", K_INT },
	{ K_VALUE, "i4", K_INT },
	{ K_VALUE, "i8", K_INT },
	{ K_VALUE, "double", K_DOUBLE },
	{ K_VALUE, "boolean", K_BOOLEAN },
	{ K_VALUE, "dateTime.iso8601", K_DATE },
	{ K_VALUE, "nil", K_NIL },
	{ K_ARRAY, "data", K_DATA },
	{ K_DATA, "value", K_VALUE },
	{ K_STRUCT, "member", K_MEMBER },
	{ K_MEMBER, "name", K_NAME },
	{ K_MEMBER, "value", K_VALUE },
};

struct element {
	enum kind kind;
	unsigned children;
	size_t mark; /* values below it are not ours */
};

struct parser {
	const struct rpc_limits *limits;
	xmlParserCtxtPtr xml;
	struct element *stack; /* the deepest is the last */
	size_t depth, max_depth;
	struct value **values; /* the stack of finished values */
	size_t n_values, cap_values;
	size_t seen, containers;
	unsigned nesting;
	struct buf text;
	char *method;
	enum rpc_parse_result result;
	struct rpc_parse_error *err;
};

static void stop(struct parser *p, enum rpc_parse_result result)
{
	if (p->result == RPC_PARSE_OK)
		p->result = result;
	xmlStopParser(p->xml);
}

static void malformed(struct parser *p, const char *fmt, ...) _printf_(2, 3);

static void malformed(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	if (p->result != RPC_PARSE_OK)
		return;
	va_start(ap, fmt);
	vsnprintf(p->err->reason, sizeof(p->err->reason), fmt, ap);
	va_end(ap);
	stop(p, RPC_PARSE_MALFORMED);
}

static void bad_text(struct parser *p, const char *s, size_t n)
{
	if (p->result != RPC_PARSE_OK)
		return;
	p->err->error = rpc_bad_text(s, n);
	stop(p, RPC_PARSE_BAD_TEXT);
}

static struct element *top(struct parser *p)
{
	return &p->stack[p->depth - 1];
}

static void push_value(struct parser *p, struct value *v)
{
	if (p->n_values == p->cap_values) {
		p->cap_values = MAX(p->cap_values * 2, (size_t)16);
		p->values = xrealloc(p->values,
				     p->cap_values * sizeof(*p->values));
	}
	p->values[p->n_values++] = v;
	if (++p->seen > RPC_MAX_VALUES)
		malformed(p, "More than %d values", RPC_MAX_VALUES);
}

/* Moves the values above the mark into a new container. */
static struct value *pop_container(struct parser *p, size_t mark, bool members)
{
	size_t n = p->n_values - mark;
	struct value *v;

	v = members ? value_struct_new(n / 2) : value_set_new(n);
	if (n > 0)
		memcpy(v->items, p->values + mark, n * sizeof(*p->values));
	p->n_values = mark;
	return v;
}

static bool is_white(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr(" \t\r\n", s[i]) || s[i] == '\0')
			return false;
	return true;
}

static bool has_text(enum kind k)
{
	return k == K_METHOD_NAME || k == K_VALUE || k == K_NAME ||
	       (k >= K_STRING && k != K_NIL);
}

static const struct rule *find_rule(enum kind parent, const char *element)
{
	for (size_t i = 0; i < ARRAY_LEN(grammar); i++)
		if (grammar[i].parent == parent &&
		    strcmp(grammar[i].element, element) == 0)
			return &grammar[i];
	return NULL;
}

/* May another child of this kind come now? */
static bool in_order(const struct element *e, enum kind child)
{
	switch (e->kind) {
	case K_CALL:
		return e->children == (child == K_PARAMS);
	case K_MEMBER:
		return e->children == (child == K_VALUE);
	case K_DOCUMENT:
	case K_PARAM:
	case K_VALUE:
	case K_ARRAY:
		return e->children == 0;
	default:
		return true;
	}
}

static bool is_container(enum kind k)
{
	return k == K_ARRAY || k == K_STRUCT;
}

static void on_start(void *data, const xmlChar *name, const xmlChar *prefix,
		     const xmlChar *uri, int n_ns, const xmlChar **ns,
		     int n_attr, int n_defaulted, const xmlChar **attr)
{
	struct parser *p = data;
	struct element *e = top(p);
	const struct rule *rule = find_rule(e->kind, (const char *)name);

	if (p->result != RPC_PARSE_OK)
		return;
	if (!rule || !in_order(e, rule->child)) {
		malformed(p, "Unexpected element <%.40s>", (const char *)name);
		return;
	}
	if (e->kind == K_VALUE && !is_white(p->text.data, p->text.len)) {
		malformed(p, "Text beside an element in <value>");
		return;
	}
	if (is_container(rule->child) && (++p->nesting > p->limits->depth ||
			++p->containers > RPC_MAX_CONTAINERS)) {
		malformed(p, "Nested deeper than %u, or more than %d arrays "
			  "and structs", p->limits->depth, RPC_MAX_CONTAINERS);
		return;
	}
	xassert(p->depth < p->max_depth);
	e->children++;
	p->stack[p->depth++] = (struct element){ rule->child, 0, p->n_values };
	p->text.len = 0;
}

static void on_text(void *data, const xmlChar *s, int len)
{
	struct parser *p = data;
	const struct element *e = top(p);

	if (p->result != RPC_PARSE_OK)
		return;
	if (has_text(e->kind) && (e->kind != K_VALUE || e->children == 0))
		buf_append(&p->text, s, (size_t)len);
	else if (!is_white((const char *)s, (size_t)len))
		malformed(p, "Text between elements");
}

static void trim(const char **s, size_t *n)
{
	while (*n > 0 && is_white(*s, 1)) {
		(*s)++;
		(*n)--;
	}
	while (*n > 0 && is_white(*s + *n - 1, 1))
		(*n)--;
}

/* A number or date that does not parse stays a string: the check of the
 * parameter's type then names it. */
static struct value *scalar(enum kind kind, const char *s, size_t n)
{
	int64_t i;
	double d;

	if (kind == K_VALUE || kind == K_NAME || kind == K_STRING)
		return value_string(s, n);
	trim(&s, &n);
	if (kind == K_INT && int_parse(s, n, &i))
		return value_int(i);
	if (kind == K_DOUBLE && float_parse(s, n, &d))
		return value_float(d);
	if (kind == K_DATE && date_parse(s, n, &i))
		return value_datetime(i);
	if (kind == K_BOOLEAN)
		return value_bool(n == 1 && *s == '1');
	return value_string(s, n);
}

static void end_text(struct parser *p, enum kind kind)
{
	const char *s = p->text.len > 0 ? p->text.data : "";

	if (!text_valid(s, p->text.len)) {
		bad_text(p, s, p->text.len);
		return;
	}
	if (kind != K_METHOD_NAME) {
		push_value(p, scalar(kind, s, p->text.len));
		return;
	}
	if (p->text.len > RPC_MAX_METHOD_NAME)
		malformed(p, "Method name too long");
	else
		p->method = xstrndup(s, p->text.len);
}

static void on_end(void *data, const xmlChar *name, const xmlChar *prefix,
		   const xmlChar *uri)
{
	struct parser *p = data;
	const struct element e = *top(p);

	if (p->result != RPC_PARSE_OK)
		return;
	if (has_text(e.kind) && !(e.kind == K_VALUE && e.children > 0)) {
		end_text(p, e.kind);
	} else if (e.kind == K_NIL) {
		push_value(p, value_nil());
	} else if (e.kind == K_DATA || e.kind == K_STRUCT ||
		   e.kind == K_PARAMS) {
		push_value(p, pop_container(p, e.mark, e.kind == K_STRUCT));
	} else if ((e.kind == K_MEMBER && e.children != 2) ||
		   ((e.kind == K_PARAM || e.kind == K_ARRAY) &&
		    e.children != 1) ||
		   (e.kind == K_CALL && !p->method)) {
		malformed(p, "Incomplete <%.40s>", (const char *)name);
	}
	p->nesting -= is_container(e.kind);
	p->depth--;
	p->text.len = 0;
}

static void on_dtd(void *data, const xmlChar *name, const xmlChar *external,
		   const xmlChar *system)
{
	malformed(data, "A document type declaration is not allowed");
}

static bool is_bad_char(int code)
{
	return code == XML_ERR_INVALID_CHAR || code == XML_ERR_INVALID_CHARREF ||
	       code == XML_ERR_INVALID_ENCODING || code == XML_I18N_CONV_FAILED;
}

/* The source text before the place of the error, from the last tag on. */
static void bad_char(struct parser *p)
{
	const xmlParserInput *in = p->xml->input;
	const char *start, *end;

	if (!in || !in->cur || !in->base) {
		bad_text(p, "", 0);
		return;
	}
	end = (const char *)in->cur + MIN(in->end - in->cur, 4);
	start = (const char *)in->cur;
	while (start > (const char *)in->base && end - start < 60 &&
	       start[-1] != '>')
		start--;
	bad_text(p, start, (size_t)(end - start));
}

static void on_error(void *data, xmlErrorPtr error)
{
	struct parser *p = data;
	int line = 0;

	if (p->result != RPC_PARSE_OK || error->level < XML_ERR_ERROR ||
	    error->domain == XML_FROM_NAMESPACE)
		return;
	if (is_bad_char(error->code)) {
		bad_char(p);
		return;
	}
	line = (int)strcspn(error->message ? error->message : "", "\n");
	malformed(p, "XML: %.*s", MIN(line, 120),
		  error->message ? error->message : "");
}

static void set_handlers(xmlSAXHandler *sax)
{
	memset(sax, 0, sizeof(*sax));
	sax->initialized = XML_SAX2_MAGIC;
	sax->startElementNs = on_start;
	sax->endElementNs = on_end;
	sax->characters = on_text;
	sax->ignorableWhitespace = on_text;
	sax->cdataBlock = on_text;
	sax->internalSubset = on_dtd;
	sax->serror = on_error;
}

/* Does the XML declaration name an encoding other than UTF-8? */
static bool other_encoding(const char *body, size_t n)
{
	char head[128];
	const char *e;

	n = MIN(n, sizeof(head) - 1);
	memcpy(head, body, n);
	head[n] = '\0';
	if (strncmp(head, "<?xml", 5) != 0)
		return false;
	head[strcspn(head, ">")] = '\0';
	e = strstr(head, "encoding");
	if (!e)
		return false;
	e += strcspn(e, "\"'");
	return *e && strncasecmp(e + 1, "utf-8", 5) != 0 &&
	       strncasecmp(e + 1, "us-ascii", 8) != 0;
}

/* libxml2 reports broken bytes in several ways, some of which look like bad
 * mark-up, so they are looked for before it runs. */
static bool has_bad_bytes(const char *body, size_t n,
			  struct rpc_parse_error *err)
{
	size_t start, len = 0;

	if (text_valid(body, n) || other_encoding(body, n))
		return false;
	/* Bisect: text_valid() says where the first bad byte is only by the
	 * longest prefix that it accepts; a cut character is at most 3 more. */
	for (size_t step = n; step > 0; step /= 2)
		while (len + step <= n &&
		       text_valid(body, rpc_utf8_prefix(body, n, len + step)))
			len += step;
	start = len;
	while (start > 0 && body[start - 1] != '>' && len - start < 48)
		start--;
	err->error = rpc_bad_text(body + start, MIN(n - start, len + 8 - start));
	return true;
}

static void parser_deinit(struct parser *p)
{
	for (size_t i = 0; i < p->n_values; i++)
		value_unref(p->values[i]);
	free(p->values);
	free(p->stack);
	free(p->method);
	buf_deinit(&p->text);
	xmlFreeParserCtxt(p->xml);
}

static void run(struct parser *p)
{
	xmlCtxtUseOptions(p->xml, XML_PARSE_NONET);
	set_handlers(p->xml->sax);
	p->xml->userData = p;
	p->stack[p->depth++] = (struct element){ K_DOCUMENT, 0, 0 };
	xmlParseDocument(p->xml);
	if (p->result == RPC_PARSE_OK && !p->xml->wellFormed)
		malformed(p, "Not well-formed");
	if (p->result == RPC_PARSE_OK && !p->method)
		malformed(p, "No method call");
}

void xmlrpc_init(void)
{
	xmlInitParser();
}

enum rpc_parse_result xmlrpc_parse(const char *body, size_t n,
				   const struct rpc_limits *limits,
				   struct rpc_request *ret,
				   struct rpc_parse_error *err)
{
	_cleanup_(parser_deinit) struct parser p = { .limits = limits,
						     .err = err };

	if (n == 0 || n > INT32_MAX) {
		snprintf(err->reason, sizeof(err->reason), "Empty body");
		return RPC_PARSE_MALFORMED;
	}
	if (has_bad_bytes(body, n, err))
		return RPC_PARSE_BAD_TEXT;
	p.xml = xmlCreateMemoryParserCtxt(body, (int)n);
	xassert(p.xml);
	/* The call's own elements, then at most four for each level (value,
	 * struct, member, and the array's data) and a scalar. */
	p.max_depth = 8 + 4 * (size_t)limits->depth;
	p.stack = xmalloc(p.max_depth * sizeof(*p.stack));
	run(&p);
	if (p.result != RPC_PARSE_OK)
		return p.result;
	ret->encoding = RPC_XML;
	ret->method = TAKE_PTR(p.method);
	ret->params = p.n_values > 0 ? p.values[--p.n_values] :
				       value_set_empty();
	return RPC_PARSE_OK;
}

/* Writing. */

/* 1: replaced, 2: dropped. */
static const uint8_t special[256] = {
	['&'] = 1, ['<'] = 1, ['>'] = 1, ['"'] = 1,
	[0] = 2, [1] = 2, [2] = 2, [3] = 2, [4] = 2, [5] = 2, [6] = 2,
	[7] = 2, [8] = 2, [11] = 2, [12] = 2, [14] = 2, [15] = 2, [16] = 2,
	[17] = 2, [18] = 2, [19] = 2, [20] = 2, [21] = 2, [22] = 2, [23] = 2,
	[24] = 2, [25] = 2, [26] = 2, [27] = 2, [28] = 2, [29] = 2, [30] = 2,
	[31] = 2,
};

static void put_entity(struct buf *b, char c)
{
	buf_puts(b, c == '&' ? "&amp;" :
		    c == '<' ? "&lt;" :
		    c == '>' ? "&gt;" : "&quot;");
}

static void put_text(struct buf *b, const char *s, size_t n)
{
	size_t start = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t how = special[(uint8_t)s[i]];

		if (how == 0)
			continue;
		buf_append(b, s + start, i - start);
		start = i + 1;
		if (how == 1)
			put_entity(b, s[i]);
	}
	buf_append(b, s + start, n - start);
}

#define PUT(b, literal) buf_append(b, literal, sizeof(literal) - 1)

static void put_member(struct buf *b, const char *name, size_t n,
		       const struct value *v)
{
	PUT(b, "<member><name>");
	put_text(b, name, n);
	PUT(b, "</name>");
	xmlrpc_write_value(b, v);
	PUT(b, "</member>");
}

static void put_set(struct buf *b, const struct value *v)
{
	PUT(b, "<array><data>");
	for (uint32_t i = 0; i < v->n; i++)
		xmlrpc_write_value(b, v->items[i]);
	PUT(b, "</data></array>");
}

static void put_pairs(struct buf *b, const struct value *v)
{
	PUT(b, "<struct>");
	for (uint32_t i = 0; i < v->n; i++)
		put_member(b, value_str(v->items[2 * i]), v->items[2 * i]->n,
			   v->items[2 * i + 1]);
	PUT(b, "</struct>");
}

static void put_record(struct buf *b, const struct record *r)
{
	PUT(b, "<struct>");
	for (unsigned i = 0; i < r->cls->n_fields; i++) {
		const struct field_def *f = &r->cls->fields[i];

		if (!(f->flags & FIELD_INTERNAL))
			put_member(b, f->name, strlen(f->name), r->fields[i]);
	}
	PUT(b, "</struct>");
}

static void put_float(struct buf *b, double d)
{
	char text[40];

	snprintf(text, sizeof(text), "%.16g", d);
	PUT(b, "<double>");
	buf_puts(b, text);
	PUT(b, "</double>");
}

/* n: without the zone, the last character. */
static void put_date(struct buf *b, const struct value *v)
{
	char text[DATE_LEN + 1];

	date_format(v->i, text);
	PUT(b, "<dateTime.iso8601>");
	buf_append(b, text, DATE_LEN - !!v->n);
	PUT(b, "</dateTime.iso8601>");
}

static void put_content(struct buf *b, const struct value *v)
{
	switch ((enum value_kind)v->kind) {
	case VALUE_VOID:
		break;
	case VALUE_STRING:
		put_text(b, v->s, v->n);
		break;
	case VALUE_INT:
		rpc_put_int(b, v->i);
		break;
	case VALUE_FLOAT:
		put_float(b, v->d);
		break;
	case VALUE_BOOL:
		buf_puts(b, v->i ? "<boolean>1</boolean>" :
				   "<boolean>0</boolean>");
		break;
	case VALUE_DATETIME:
		put_date(b, v);
		break;
	case VALUE_SET:
		put_set(b, v);
		break;
	case VALUE_MAP:
	case VALUE_STRUCT:
		put_pairs(b, v);
		break;
	case VALUE_RECORD:
		put_record(b, v->record);
		break;
	case VALUE_COUNT:
		PUT(b, "<i4>");
		rpc_put_int(b, v->i);
		PUT(b, "</i4>");
		break;
	case VALUE_NIL:
		PUT(b, "<nil/>");
		break;
	}
}

void xmlrpc_write_value(struct buf *b, const struct value *v)
{
	PUT(b, "<value>");
	if (v)
		put_content(b, v);
	else
		PUT(b, "<nil/>");
	PUT(b, "</value>");
}

void xmlrpc_write_reply(struct buf *b, const struct value *result,
			const struct value *error, bool bare)
{
	PUT(b, "<?xml version=\"1.0\"?><methodResponse><params><param>");
	if (error) {
		PUT(b, "<value><struct><member><name>Status</name>"
		       "<value>Failure</value></member>");
		put_member(b, "ErrorDescription", 16, error);
		PUT(b, "</struct></value>");
	} else if (bare) {
		xmlrpc_write_value(b, result);
	} else {
		PUT(b, "<value><struct><member><name>Status</name>"
		       "<value>Success</value></member>");
		put_member(b, "Value", 5, result);
		PUT(b, "</struct></value>");
	}
	PUT(b, "</param></params></methodResponse>");
}
