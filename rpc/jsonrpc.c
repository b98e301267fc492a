#include "rpc/jsonrpc.h"

#include <json-c/json.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "schema/record.h"

#define TOKENER_KEEP 65536 /* bytes of a body */

/* Reading.
 *
 * json-c makes the tree. Before it runs, one pass over the bytes finds what it
 * would hide: an escaped NUL (it cuts member names there), half of a surrogate
 * pair (it puts U+FFFD in its place), and how many containers and values there
 * are, each of which costs it hundreds of bytes.
 */
struct scan {
	size_t containers, values;
	const char *bad; /* first escape that no text may have */
};

static bool hex4(const char *p, const char *end, unsigned *ret)
{
	uint8_t bytes[2];

	if (end - p < 4 || !hex_decode(p, 4, bytes))
		return false;
	*ret = (unsigned)bytes[0] << 8 | bytes[1];
	return true;
}

/* p is behind a \u. Returns the last byte that belongs to the escape or pair;
 * what is not even four digits is left to json-c. */
static const char *scan_unicode(struct scan *s, const char *p, const char *end)
{
	unsigned c, low;

	if (!hex4(p, end, &c))
		return p - 1;
	p += 3;
	if (c >= 0xd800 && c <= 0xdbff && end - p > 3 && p[1] == '\\' &&
	    p[2] == 'u' && hex4(p + 3, end, &low) && low >= 0xdc00 &&
	    low <= 0xdfff)
		return p + 6;
	if ((c == 0 || (c >= 0xd800 && c <= 0xdfff)) && !s->bad)
		s->bad = p - 5;
	return p;
}

/* p is behind the opening quote; returns the closing one or end. */
static const char *scan_string(struct scan *s, const char *p, const char *end)
{
	for (; p < end && *p != '"'; p++) {
		if (*p != '\\')
			continue;
		if (++p == end)
			return end;
		if (*p == 'u')
			p = scan_unicode(s, p + 1, end);
	}
	return p;
}

/* NULL or what is wrong. */
static const char *scan_body(struct scan *s, const char *p, size_t n)
{
	const char *end = p + n;

	for (; p < end; p++) {
		if (*p == '"') {
			p = scan_string(s, p + 1, end);
			if (p == end)
				break;
		}
		/* json-c takes names in single quotes. */
		if (*p == '\'')
			return "JSON: strings are in double quotes";
		s->containers += *p == '[' || *p == '{';
		s->values += *p == ',';
	}
	return s->containers > RPC_MAX_CONTAINERS ||
	       s->values > RPC_MAX_VALUES ? "JSON: too many values" : NULL;
}

static void json_putp(struct json_object **o)
{
	json_object_put(*o);
}

static bool only_white(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != ' ' && p[i] != '\n' && p[i] != '\r' && p[i] != '\t')
			return false;
	return true;
}

/* One a thread is kept: small bodies shall not pay for making it. */
static pthread_key_t tokener_key;
static pthread_once_t tokener_once = PTHREAD_ONCE_INIT;
static _Thread_local int tokener_depth;

static void tokener_free(void *t)
{
	json_tokener_free(t);
}

static void tokener_init(void)
{
	xassert(pthread_key_create(&tokener_key, tokener_free) == 0);
}

static struct json_tokener *tokener_get(int depth)
{
	struct json_tokener *t;

	pthread_once(&tokener_once, tokener_init);
	t = pthread_getspecific(tokener_key);
	if (t && tokener_depth == depth)
		return t;
	if (t)
		json_tokener_free(t);
	t = json_tokener_new_ex(depth);
	xassert(t && pthread_setspecific(tokener_key, t) == 0);
	json_tokener_set_flags(t, JSON_TOKENER_STRICT |
				  JSON_TOKENER_ALLOW_TRAILING_CHARS);
	tokener_depth = depth;
	return t;
}

/* Its buffer may have become as long as the body. */
static void tokener_put(struct json_tokener *t, size_t n)
{
	json_tokener_reset(t);
	if (n <= TOKENER_KEEP)
		return;
	xassert(pthread_setspecific(tokener_key, NULL) == 0);
	json_tokener_free(t);
}

/* The whole body must be one value. */
static struct json_object *parse_tree(const char *body, size_t n, int depth,
				      char *reason, size_t reason_size)
{
	struct json_tokener *t = tokener_get(depth);
	struct json_object *o;
	size_t end;

	o = json_tokener_parse_ex(t, body, (int)MIN(n, (size_t)INT32_MAX));
	end = json_tokener_get_parse_end(t);
	if (json_tokener_get_error(t) != json_tokener_success) {
		snprintf(reason, reason_size, "JSON: %s at byte %zu",
			 json_tokener_error_desc(json_tokener_get_error(t)),
			 end);
		json_object_put(o);
		o = NULL;
	} else if (!only_white(body + end, n - end)) {
		snprintf(reason, reason_size,
			 "JSON: something follows the value");
		json_object_put(o);
		o = NULL;
	}
	tokener_put(t, n);
	return o;
}

struct converter {
	unsigned max_depth;
	bool too_deep;
	struct value *bad; /* the failure about the first bad text */
};

static struct value *convert(struct converter *c, struct json_object *o,
			     unsigned depth);

static struct value *convert_text(struct converter *c, const char *s, size_t n)
{
	if (!text_valid(s, n) && !c->bad)
		c->bad = rpc_bad_text(s, n);
	return value_string(s, n);
}

static struct value *convert_array(struct converter *c, struct json_object *o,
				   unsigned depth)
{
	size_t n = json_object_array_length(o);
	struct value *v;

	v = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		v->items[i] = convert(c, json_object_array_get_idx(o, i),
				      depth);
	return v;
}

static struct value *convert_object(struct converter *c, struct json_object *o,
				    unsigned depth)
{
	struct value *v;
	size_t i = 0;

	v = value_struct_new((size_t)json_object_object_length(o));
	json_object_object_foreach(o, key, item) {
		v->items[i++] = convert_text(c, key, strlen(key));
		v->items[i++] = convert(c, item, depth);
	}
	return v;
}

static struct value *convert_int(struct json_object *o)
{
	uint64_t u = json_object_get_uint64(o);

	/* Too big for an int: as a float it fits no parameter of that type. */
	if (u > INT64_MAX)
		return value_float((double)u);
	return value_int(json_object_get_int64(o));
}

static struct value *convert(struct converter *c, struct json_object *o,
			     unsigned depth)
{
	enum json_type type = json_object_get_type(o);

	if (depth >= c->max_depth &&
	    (type == json_type_array || type == json_type_object)) {
		c->too_deep = true;
		return value_nil();
	}
	switch (type) {
	case json_type_boolean:
		return value_bool(json_object_get_boolean(o));
	case json_type_int:
		return convert_int(o);
	case json_type_double:
		return value_float(json_object_get_double(o));
	case json_type_string:
		return convert_text(c, json_object_get_string(o),
				    (size_t)json_object_get_string_len(o));
	case json_type_array:
		return convert_array(c, o, depth + 1);
	case json_type_object:
		return convert_object(c, o, depth + 1);
	case json_type_null:
		break;
	}
	return value_nil();
}

static enum rpc_parse_result malformed(struct rpc_parse_error *err,
				       const char *why)
{
	snprintf(err->reason, sizeof(err->reason), "%s", why);
	return RPC_PARSE_MALFORMED;
}

/* NULL or the reason why the request cannot be answered at all. */
static const char *read_envelope(struct json_object *o, struct rpc_request *ret,
				 const char **ret_method, size_t *ret_len)
{
	struct json_object *version, *id, *method;

	if (!json_object_is_type(o, json_type_object))
		return "JSON-RPC: the request must be an object";
	if (!json_object_object_get_ex(o, "jsonrpc", &version))
		ret->encoding = RPC_JSON_V1;
	else if (json_object_is_type(version, json_type_string) &&
		 strcmp(json_object_get_string(version), "2.0") == 0)
		ret->encoding = RPC_JSON_V2;
	else
		return "JSON-RPC: the version must be 2.0, or left out";
	json_object_object_get_ex(o, "id", &id);
	if (json_object_is_type(id, json_type_int))
		ret->id = value_int(json_object_get_int64(id));
	else if (json_object_is_type(id, json_type_string))
		ret->id = value_string(json_object_get_string(id),
				(size_t)json_object_get_string_len(id));
	if (!ret->id || (ret->id->kind == VALUE_STRING &&
			 !text_valid(ret->id->s, ret->id->n)))
		return "JSON-RPC: id must be an integer or a string";
	if (!json_object_object_get_ex(o, "method", &method) ||
	    !json_object_is_type(method, json_type_string))
		return "JSON-RPC: method must be a string";
	*ret_method = json_object_get_string(method);
	*ret_len = (size_t)json_object_get_string_len(method);
	if (*ret_len > RPC_MAX_METHOD_NAME)
		return "JSON-RPC: method name too long";
	return NULL;
}

/* NULL when they are not of a form that the version allows. */
static struct value *read_params(struct converter *c, struct json_object *o,
				 enum rpc_encoding version)
{
	struct json_object *params = NULL;
	struct value *v;

	json_object_object_get_ex(o, "params", &params);
	if (json_object_is_type(params, json_type_array))
		return convert_array(c, params, 0);
	if (version == RPC_JSON_V1)
		return NULL;
	if (!params)
		return value_set_empty();
	if (!json_object_is_type(params, json_type_object))
		return NULL;
	v = value_set_new(1);
	v->items[0] = convert(c, params, 0);
	return v;
}

static enum rpc_parse_result read_request(struct json_object *o,
					  const struct scan *scan,
					  const char *end, unsigned depth,
					  struct rpc_request *ret,
					  struct rpc_parse_error *err)
{
	struct converter c = { .max_depth = depth };
	const char *method = NULL, *why;
	size_t len = 0;

	why = read_envelope(o, ret, &method, &len);
	if (why)
		return malformed(err, why);
	if (!text_valid(method, len))
		c.bad = rpc_bad_text(method, len);
	ret->params = read_params(&c, o, ret->encoding);
	if (!c.bad && scan->bad)
		c.bad = rpc_bad_text(scan->bad,
				     MIN(end - scan->bad, (ptrdiff_t)12));
	if (!ret->params || c.too_deep) {
		value_unref(c.bad);
		return malformed(err, c.too_deep ?
				 "JSON-RPC: nested too deep" :
				 "JSON-RPC: params must be an array");
	}
	if (c.bad) {
		err->error = c.bad;
		return RPC_PARSE_BAD_TEXT;
	}
	ret->method = xstrndup(method, len);
	return RPC_PARSE_OK;
}

enum rpc_parse_result jsonrpc_parse(const char *body, size_t n,
				    const struct rpc_limits *limits,
				    struct rpc_request *ret,
				    struct rpc_parse_error *err)
{
	_cleanup_(json_putp) struct json_object *o = NULL;
	struct scan scan = { 0 };
	enum rpc_parse_result r;
	const char *why;

	why = scan_body(&scan, body, n);
	if (!why && memchr(body, '\0', n))
		why = "JSON: a NUL byte";
	if (why)
		return malformed(err, why);
	/* The request's object and its params array come on top. */
	o = parse_tree(body, n, (int)limits->depth + 3, err->reason,
		       sizeof(err->reason));
	if (!o)
		return *err->reason ? RPC_PARSE_MALFORMED :
				      malformed(err, "JSON: null");
	r = read_request(o, &scan, body + n, limits->depth, ret, err);
	if (r == RPC_PARSE_MALFORMED)
		rpc_request_deinit(ret);
	return r;
}

/* Writing. */

static const char short_escape[32] = {
	['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
};

static void put_escape(struct buf *b, uint8_t c)
{
	buf_putc(b, '\\');
	if (c >= 0x20)
		buf_putc(b, (char)c);
	else if (short_escape[c])
		buf_putc(b, short_escape[c]);
	else
		buf_printf(b, "u%04x", c);
}

static void put_string(struct buf *b, const char *s, size_t n)
{
	size_t start = 0;

	buf_putc(b, '"');
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		buf_append(b, s + start, i - start);
		put_escape(b, c);
		start = i + 1;
	}
	buf_append(b, s + start, n - start);
	buf_putc(b, '"');
}

static void put_float(struct buf *b, double d)
{
	char text[40];

	if (isnan(d)) {
		buf_puts(b, "NaN");
	} else if (isinf(d)) {
		buf_puts(b, d < 0 ? "-Infinity" : "Infinity");
	} else {
		snprintf(text, sizeof(text), "%.16g", d);
		buf_puts(b, text);
		/* Readers tell a float from an int by it. */
		if (!strpbrk(text, ".e"))
			buf_puts(b, ".0");
	}
}

static void put_set(struct buf *b, const struct value *v)
{
	buf_putc(b, '[');
	for (uint32_t i = 0; i < v->n; i++) {
		if (i > 0)
			buf_putc(b, ',');
		jsonrpc_write_value(b, v->items[i]);
	}
	buf_putc(b, ']');
}

static void put_pairs(struct buf *b, const struct value *v)
{
	buf_putc(b, '{');
	for (uint32_t i = 0; i < v->n; i++) {
		const struct value *name = v->items[2 * i];

		if (i > 0)
			buf_putc(b, ',');
		put_string(b, value_str(name), name->n);
		buf_putc(b, ':');
		jsonrpc_write_value(b, v->items[2 * i + 1]);
	}
	buf_putc(b, '}');
}

static void put_record(struct buf *b, const struct record *r)
{
	bool first = true;

	buf_putc(b, '{');
	for (unsigned i = 0; i < r->cls->n_fields; i++) {
		const struct field_def *f = &r->cls->fields[i];

		if (f->flags & FIELD_INTERNAL)
			continue;
		if (!first)
			buf_putc(b, ',');
		first = false;
		/* Names of fields need no escapes. */
		buf_putc(b, '"');
		buf_puts(b, f->name);
		buf_append(b, "\":", 2);
		jsonrpc_write_value(b, r->fields[i]);
	}
	buf_putc(b, '}');
}

/* n: without the zone, the last character. */
static void put_date(struct buf *b, const struct value *v)
{
	char text[DATE_LEN + 1];

	date_format(v->i, text);
	buf_putc(b, '"');
	buf_append(b, text, DATE_LEN - !!v->n);
	buf_putc(b, '"');
}

void jsonrpc_write_value(struct buf *b, const struct value *v)
{
	switch (v ? (enum value_kind)v->kind : VALUE_NIL) {
	case VALUE_VOID:
		buf_append(b, "\"\"", 2);
		break;
	case VALUE_STRING:
		put_string(b, v->s, v->n);
		break;
	case VALUE_INT:
	case VALUE_COUNT:
		rpc_put_int(b, v->i);
		break;
	case VALUE_FLOAT:
		put_float(b, v->d);
		break;
	case VALUE_BOOL:
		buf_puts(b, v->i ? "true" : "false");
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
	case VALUE_NIL:
		buf_append(b, "null", 4);
		break;
	}
}

static void put_error_v2(struct buf *b, const struct value *error)
{
	buf_puts(b, "{\"code\":1,\"message\":");
	jsonrpc_write_value(b, error->items[0]);
	buf_puts(b, ",\"data\":[");
	for (uint32_t i = 1; i < error->n; i++) {
		if (i > 1)
			buf_putc(b, ',');
		jsonrpc_write_value(b, error->items[i]);
	}
	buf_puts(b, "]}");
}

static void put_v1(struct buf *b, const struct value *result,
		   const struct value *error)
{
	buf_puts(b, "{\"result\":");
	jsonrpc_write_value(b, error ? NULL : result);
	buf_puts(b, ",\"error\":");
	jsonrpc_write_value(b, error);
}

static void put_v2(struct buf *b, const struct value *result,
		   const struct value *error)
{
	buf_puts(b, "{\"jsonrpc\":\"2.0\",");
	if (error) {
		buf_puts(b, "\"error\":");
		put_error_v2(b, error);
	} else {
		buf_puts(b, "\"result\":");
		jsonrpc_write_value(b, result);
	}
}

void jsonrpc_write_reply(struct buf *b, enum rpc_encoding version,
			 const struct value *id, const struct value *result,
			 const struct value *error)
{
	if (version == RPC_JSON_V1)
		put_v1(b, result, error);
	else
		put_v2(b, result, error);
	buf_puts(b, ",\"id\":");
	if (id)
		jsonrpc_write_value(b, id);
	else
		buf_putc(b, '0');
	buf_putc(b, '}');
}

/* The client's side. */

void jsonrpc_write_call(struct buf *b, const char *method,
			struct value *const *params, unsigned n_params)
{
	buf_puts(b, "{\"jsonrpc\":\"2.0\",\"method\":");
	put_string(b, method, strlen(method));
	buf_puts(b, ",\"params\":[");
	for (unsigned i = 0; i < n_params; i++) {
		if (i > 0)
			buf_putc(b, ',');
		jsonrpc_write_value(b, params[i]);
	}
	buf_puts(b, "],\"id\":0}");
}

static struct value *read_error(struct converter *c, struct json_object *error)
{
	struct json_object *message, *data;
	struct value *v;
	size_t n = 0;

	if (!json_object_object_get_ex(error, "message", &message) ||
	    !json_object_is_type(message, json_type_string))
		return NULL;
	if (json_object_object_get_ex(error, "data", &data) &&
	    json_object_is_type(data, json_type_array))
		n = json_object_array_length(data);
	v = value_set_new(n + 1);
	v->items[0] = convert(c, message, 0);
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(data, i);
		const char *text = json_object_get_string(o);

		v->items[i + 1] = convert_text(c, text ? text : "",
					       text ? strlen(text) : 0);
	}
	return v;
}

bool jsonrpc_parse_reply(const char *body, size_t n, struct value **ret_result,
			 struct value **ret_error)
{
	_cleanup_(json_putp) struct json_object *o = NULL;
	_cleanup_(value_unrefp) struct value *v = NULL;
	struct converter c = { .max_depth = VALUE_MAX_DEPTH };
	struct json_object *part;
	char reason[160];
	bool failed;

	if (memchr(body, '\0', n))
		return false;
	o = parse_tree(body, n, VALUE_MAX_DEPTH + 3, reason, sizeof(reason));
	if (!json_object_is_type(o, json_type_object))
		return false;
	failed = json_object_object_get_ex(o, "error", &part) &&
		 json_object_is_type(part, json_type_object);
	if (failed)
		v = read_error(&c, part);
	else if (json_object_object_get_ex(o, "result", &part))
		v = convert(&c, part, 0);
	if (c.bad) {
		value_unref(c.bad);
		return false;
	}
	if (!v || c.too_deep)
		return false;
	*(failed ? ret_error : ret_result) = TAKE_PTR(v);
	return true;
}
