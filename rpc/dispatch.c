#include "rpc/dispatch.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define LIST_METHODS "system.listMethods"
#define IS_ALIVE "system.isAlive:"

static const struct {
	const char *prefix;
	enum call_mode mode;
} prefixes[] = {
	{ "Async.", CALL_ASYNC },
	{ "InternalAsync.", CALL_INTERNAL_ASYNC },
};

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* The names that clients may call, without their Async forms. Made once. */
static struct value *method_list;
static pthread_once_t method_list_once = PTHREAD_ONCE_INIT;

static bool is_public(const struct method_def *m)
{
	return !(schema_classes[m->cls].flags & CLASS_PRIVATE);
}

static void make_method_list(void)
{
	size_t n = 0;

	for (unsigned i = 0; i < schema_n_methods; i++)
		n += is_public(&schema_methods[i]);
	method_list = value_set_new(n);
	n = 0;
	for (unsigned i = 0; i < schema_n_methods; i++)
		if (is_public(&schema_methods[i]))
			method_list->items[n++] =
				value_stringz(schema_methods[i].name);
}

bool dispatch_is_bare(const char *method)
{
	return strcmp(method, LIST_METHODS) == 0;
}

/* system.*: neither a session nor the pool is needed. */
static bool answer_here(const struct rpc_request *r, struct call *c)
{
	if (strcmp(r->method, LIST_METHODS) == 0) {
		pthread_once(&method_list_once, make_method_list);
		c->result = value_ref(method_list);
		return true;
	}
	if (!starts_with(r->method, IS_ALIVE) ||
	    r->method[sizeof(IS_ALIVE) - 1] == '\0')
		return false;
	if (r->params->n > 0)
		c->result = value_ref(r->params->items[0]);
	else
		c->error = api_error("MESSAGE_PARAMETER_COUNT_MISMATCH",
				     r->method, "1", "0", NULL);
	return true;
}

/* Class_method: the class is the longest name that fits, for both parts may
 * hold more of them (VM_metrics_get_all). */
static const struct method_def *find_alias(const char *name, size_t n)
{
	char dotted[RPC_MAX_METHOD_NAME + 1];
	const struct method_def *m;

	if (n > RPC_MAX_METHOD_NAME)
		return NULL;
	memcpy(dotted, name, n);
	for (size_t i = n; i-- > 0; ) {
		if (name[i] != '_')
			continue;
		dotted[i] = '.';
		m = schema_method(dotted, n);
		if (m)
			return m;
		dotted[i] = '_';
	}
	return NULL;
}

static const struct method_def *find_method(const char *name,
					    enum call_mode mode)
{
	size_t n = strlen(name);
	const struct method_def *m = schema_method(name, n);

	if (!m && mode == CALL_SYNC && !memchr(name, '.', n))
		m = find_alias(name, n);
	return m;
}

/* The first parameter of every method but the few that need no session. */
static bool take_session(const struct rpc_request *r, struct call *c)
{
	const struct value *first = r->params->items[0];

	if (first->kind != VALUE_STRING) {
		c->error = api_error("INTERNAL_ERROR",
				     "Expected a session reference, a string",
				     NULL);
		return false;
	}
	c->session = value_ref(first);
	return true;
}

static bool unknown_method(const struct rpc_request *r, struct call *c)
{
	if (r->params->n == 0) {
		c->error = api_error("MESSAGE_METHOD_UNKNOWN", c->name, NULL);
		return false;
	}
	if (!take_session(r, c))
		return false;
	c->n_args = MIN(r->params->n - 1, (uint32_t)CALL_MAX_ARGS);
	for (unsigned i = 0; i < c->n_args; i++)
		c->args[i] = value_ref(r->params->items[i + 1]);
	return true;
}

/* A method with optional parameters ignores surplus ones, as clients of newer
 * versions send; the count that it is told to expect leaves them out. */
static bool check_count(const struct rpc_request *r, struct call *c)
{
	const struct method_def *m = c->method;
	int received = (int)r->params->n - !!(m->flags & METHOD_SESSION);
	char expected_text[12], received_text[12];

	if (received >= m->n_required &&
	    (received <= m->n_params || m->n_params > m->n_required))
		return true;
	snprintf(expected_text, sizeof(expected_text), "%d", m->n_required);
	snprintf(received_text, sizeof(received_text), "%d", received);
	c->error = api_error("MESSAGE_PARAMETER_COUNT_MISMATCH", m->name,
			     expected_text, received_text, NULL);
	return false;
}

/* A string where an enum has no such member, anywhere in v; ret_field is the
 * record's field that it was meant for, if it is in one. */
static const struct value *bad_enum(const struct type *t, const struct value *v,
				    const char **ret_field);

static const struct value *bad_enum_items(const struct type *t,
					  const struct value *v,
					  const char **ret_field)
{
	unsigned width = v->kind == VALUE_SET ? 1 : 2;
	const struct value *bad = NULL;

	for (uint32_t i = 0; i < v->n && !bad; i++) {
		if (width == 2 && t->key)
			bad = bad_enum(t->key, v->items[2 * i], ret_field);
		if (!bad)
			bad = bad_enum(t->item,
				       v->items[width * i + width - 1],
				       ret_field);
	}
	return bad;
}

static const struct value *bad_enum_member(const struct type *t,
					   const struct value *v,
					   const char **ret_field)
{
	const struct class_def *cls = &schema_classes[t->id];
	const struct value *bad = NULL;

	for (uint32_t i = 0; i < v->n && !bad; i++) {
		const struct value *name = v->items[2 * i];
		int f = schema_field(cls, value_str(name), name->n);

		if (f < 0)
			continue;
		bad = bad_enum(cls->fields[f].type, v->items[2 * i + 1],
			       ret_field);
		if (bad)
			*ret_field = cls->fields[f].name;
	}
	return bad;
}

static const struct value *bad_enum(const struct type *t, const struct value *v,
				    const char **ret_field)
{
	bool pairs = v->kind == VALUE_STRUCT || v->kind == VALUE_MAP;

	if (t->kind == TYPE_ENUM)
		return v->kind == VALUE_STRING && !enum_has(t->id, v->s) ?
			       v : NULL;
	if ((t->kind == TYPE_SET || t->kind == TYPE_OPTION) &&
	    v->kind == VALUE_SET)
		return bad_enum_items(t, v, ret_field);
	if (t->kind == TYPE_OPTION)
		return bad_enum(t->item, v, ret_field);
	if (t->kind == TYPE_MAP && pairs)
		return bad_enum_items(t, v, ret_field);
	if (t->kind == TYPE_RECORD && pairs)
		return bad_enum_member(t, v, ret_field);
	return NULL;
}

static bool coerce_arg(struct call *c, unsigned i, const struct value *v)
{
	const struct param_def *p = &c->method->params[i];
	const char *field = p->name;
	const struct value *bad;
	char reason[200], text[280];

	reason[0] = '\0';
	c->args[i] = schema_coerce(p->type, v, reason, sizeof(reason));
	if (c->args[i])
		return true;
	bad = bad_enum(p->type, v, &field);
	if (bad) {
		c->error = api_error("INVALID_VALUE", field, value_str(bad),
				     NULL);
		return false;
	}
	snprintf(text, sizeof(text), "Parameter %s: %s", p->name, reason);
	/* The reason may end in a character cut in two. */
	for (size_t n = strlen(text); n > 0 && !text_valid(text, n); n--)
		text[n - 1] = '\0';
	c->error = api_error("INTERNAL_ERROR", text, NULL);
	return false;
}

static bool fill_args(const struct rpc_request *r, struct call *c)
{
	const struct method_def *m = c->method;
	unsigned first = !!(m->flags & METHOD_SESSION);

	if (first && !take_session(r, c))
		return false;
	if (m->n_params > CALL_MAX_ARGS) {
		c->error = api_error("NOT_IMPLEMENTED", m->name, NULL);
		return false;
	}
	c->n_args = m->n_params;
	for (unsigned i = 0; i < m->n_params; i++) {
		if (first + i >= r->params->n)
			c->args[i] = schema_param_default(m, i);
		else if (!coerce_arg(c, i, r->params->items[first + i]))
			return false;
	}
	return true;
}

bool dispatch_request(const struct rpc_request *r, struct call *c)
{
	const char *name = r->method;

	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
		if (!starts_with(name, prefixes[i].prefix))
			continue;
		name += strlen(prefixes[i].prefix);
		c->mode = prefixes[i].mode;
		break;
	}
	c->name = xstrdup(name);
	if (c->mode == CALL_SYNC && answer_here(r, c))
		return false;
	c->method = find_method(name, c->mode);
	if (!c->method)
		return unknown_method(r, c);
	if (c->mode != CALL_SYNC && !(c->method->flags & METHOD_ASYNC)) {
		_cleanup_(freep) char *text = xasprintf(
			"No async mode for this operation (rpc: %s)", name);

		c->error = api_error("Fault", text, NULL);
		return false;
	}
	return check_count(r, c) && fill_args(r, c);
}
