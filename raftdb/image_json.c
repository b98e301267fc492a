/* Values in JSON text, led by the field's type: the plain sqlite3 tool shows
 * sets and maps, and its JSON functions look into them.
 *
 *   string, ref, enum   string
 *   int, datetime       integer (a date in Unix seconds)
 *   float               number with 17 digits; what JSON lacks (NaN, infinity)
 *                       as the string "bits:" and 16 hex digits
 *   bool                true, false
 *   set                 array, in the set's order
 *   map                 object; all keys are strings
 *
 * Strings may hold any bytes; below U+0020, the quote and the backslash are
 * escaped. The reader takes any JSON of the right shape.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "raftdb/image_impl.h"

static void write_value(struct buf *b, const struct type *t,
			const struct value *v);

static void write_string(struct buf *b, const char *s, size_t n)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x20) {
			buf_printf(b, "\\u%04x", c);
			continue;
		}
		if (c == '"' || c == '\\')
			buf_putc(b, '\\');
		buf_putc(b, s[i]);
	}
	buf_putc(b, '"');
}

static void write_float(struct buf *b, double d)
{
	uint64_t bits;

	memcpy(&bits, &d, sizeof(bits));
	if (isfinite(d))
		buf_printf(b, "%.17g", d);
	else
		buf_printf(b, "\"bits:%016" PRIx64 "\"", bits);
}

static void write_set(struct buf *b, const struct type *t,
		      const struct value *v)
{
	buf_putc(b, '[');
	for (size_t i = 0; i < v->n; i++) {
		if (i > 0)
			buf_putc(b, ',');
		write_value(b, t->item, v->items[i]);
	}
	buf_putc(b, ']');
}

static void write_map(struct buf *b, const struct type *t,
		      const struct value *v)
{
	buf_putc(b, '{');
	for (size_t i = 0; i < v->n; i++) {
		const struct value *key = v->items[2 * i];

		if (i > 0)
			buf_putc(b, ',');
		write_string(b, key->s, key->n);
		buf_putc(b, ':');
		write_value(b, t->item, v->items[2 * i + 1]);
	}
	buf_putc(b, '}');
}

static void write_value(struct buf *b, const struct type *t,
			const struct value *v)
{
	switch (t->kind) {
	case TYPE_STRING:
	case TYPE_ENUM:
	case TYPE_REF:
		write_string(b, v->s, v->n);
		return;
	case TYPE_INT:
	case TYPE_DATETIME:
		buf_printf(b, "%" PRId64, v->i);
		return;
	case TYPE_FLOAT:
		write_float(b, v->d);
		return;
	case TYPE_BOOL:
		buf_puts(b, v->i ? "true" : "false");
		return;
	case TYPE_SET:
		write_set(b, t, v);
		return;
	case TYPE_MAP:
		write_map(b, t, v);
		return;
	case TYPE_VOID:
	case TYPE_RECORD:
	case TYPE_OPTION:
		break;
	}
	xassert(false);
}

void image_json_write(struct buf *b, const struct type *t,
		      const struct value *v)
{
	xassert(schema_fits(t, v));
	write_value(b, t, v);
}

/* Reading. Each function leaves p behind what it read; bad is for ever. */

struct json {
	const char *p, *end;
	bool bad;
};

static struct value *read_value(struct json *j, const struct type *t);

static void skip_space(struct json *j)
{
	while (j->p < j->end && *j->p && strchr(" \t\r\n", *j->p))
		j->p++;
}

/* Takes c if it is what comes next. */
static bool take(struct json *j, char c)
{
	skip_space(j);
	if (j->p == j->end || *j->p != c)
		return false;
	j->p++;
	return true;
}

static void expect(struct json *j, char c)
{
	j->bad |= !take(j, c);
}

static struct value *fail(struct json *j)
{
	j->bad = true;
	return NULL;
}

static unsigned read_hex4(struct json *j)
{
	uint8_t bytes[2];

	if (j->end - j->p < 4 || !hex_decode(j->p, 4, bytes)) {
		j->bad = true;
		return 0;
	}
	j->p += 4;
	return (unsigned)bytes[0] << 8 | bytes[1];
}

static void put_utf8(struct buf *b, unsigned c)
{
	if (c < 0x80) {
		buf_putc(b, (char)c);
		return;
	}
	if (c < 0x800) {
		buf_putc(b, (char)(0xc0 | c >> 6));
	} else if (c < 0x10000) {
		buf_putc(b, (char)(0xe0 | c >> 12));
		buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
	} else {
		buf_putc(b, (char)(0xf0 | c >> 18));
		buf_putc(b, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
	}
	buf_putc(b, (char)(0x80 | (c & 0x3f)));
}

/* Behind \u; a high surrogate must have its low one behind it. */
static void read_unicode(struct json *j, struct buf *b)
{
	unsigned c = read_hex4(j), low;

	if (c >= 0xd800 && c < 0xdc00) {
		if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u') {
			j->bad = true;
			return;
		}
		j->p += 2;
		low = read_hex4(j);
		j->bad |= low < 0xdc00 || low > 0xdfff;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	} else {
		j->bad |= c >= 0xdc00 && c < 0xe000;
	}
	if (!j->bad)
		put_utf8(b, c);
}

static void read_escape(struct json *j, struct buf *b)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	char c;

	if (j->p == j->end) {
		j->bad = true;
		return;
	}
	c = *j->p++;
	if (c == 'u') {
		read_unicode(j, b);
		return;
	}
	at = c ? strchr(from, c) : NULL;
	if (at)
		buf_putc(b, to[at - from]);
	else
		j->bad = true;
}

static struct value *read_string(struct json *j)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	expect(j, '"');
	while (!j->bad && j->p < j->end && *j->p != '"') {
		if ((unsigned char)*j->p < 0x20)
			return fail(j);
		if (*j->p != '\\') {
			buf_putc(&b, *j->p++);
			continue;
		}
		j->p++;
		read_escape(j, &b);
	}
	if (j->bad || j->p == j->end)
		return fail(j);
	j->p++;
	return value_string(b.data, b.len);
}

/* The number's text, without a copy. */
static size_t read_number(struct json *j, const char **ret)
{
	skip_space(j);
	*ret = j->p;
	while (j->p < j->end && *j->p && strchr("+-.0123456789eE", *j->p))
		j->p++;
	return (size_t)(j->p - *ret);
}

static struct value *read_int(struct json *j, enum type_kind kind)
{
	const char *s;
	size_t n = read_number(j, &s);
	int64_t i;

	if (!int_parse(s, n, &i))
		return fail(j);
	return kind == TYPE_DATETIME ? value_datetime(i) : value_int(i);
}

/* "bits:7ff8000000000000" */
static struct value *float_of_bits(const struct value *text)
{
	uint8_t bytes[8];
	uint64_t bits = 0;
	double d;

	if (!text || text->n != 21 || memcmp(text->s, "bits:", 5) != 0 ||
	    !hex_decode(text->s + 5, 16, bytes))
		return NULL;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bits = bits << 8 | bytes[i];
	memcpy(&d, &bits, sizeof(d));
	return value_float(d);
}

static struct value *read_float(struct json *j)
{
	_cleanup_(value_unrefp) struct value *text = NULL;
	struct value *v;
	const char *s;
	size_t n;
	double d;

	skip_space(j);
	if (j->p < j->end && *j->p == '"') {
		text = read_string(j);
		v = float_of_bits(text);
		return v ? v : fail(j);
	}
	n = read_number(j, &s);
	return float_parse(s, n, &d) ? value_float(d) : fail(j);
}

static bool take_word(struct json *j, const char *word)
{
	size_t n = strlen(word);

	skip_space(j);
	if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
		return false;
	j->p += n;
	return true;
}

static struct value *read_bool(struct json *j)
{
	if (take_word(j, "true"))
		return value_bool(true);
	return take_word(j, "false") ? value_bool(false) : fail(j);
}

struct vector {
	struct value **items;
	size_t n, cap;
};

static void vector_push(struct vector *v, struct value *item)
{
	if (v->n == v->cap) {
		v->cap = MAX(8, v->cap * 2);
		v->items = xrealloc(v->items, v->cap * sizeof(*v->items));
	}
	v->items[v->n++] = item;
}

static void vector_deinit(struct vector *v)
{
	for (size_t i = 0; i < v->n; i++)
		value_unref(v->items[i]);
	free(v->items);
}

static struct value *read_set(struct json *j, const struct type *t)
{
	_cleanup_(vector_deinit) struct vector items = { 0 };
	struct value *set;

	expect(j, '[');
	if (!j->bad && take(j, ']'))
		return value_set_empty();
	do
		vector_push(&items, j->bad ? NULL : read_value(j, t->item));
	while (!j->bad && take(j, ','));
	expect(j, ']');
	if (j->bad)
		return NULL;
	set = value_set_new(items.n);
	memcpy(set->items, items.items, items.n * sizeof(*items.items));
	items.n = 0;
	return set;
}

static struct value *read_map(struct json *j, const struct type *t)
{
	_cleanup_(vector_deinit) struct vector items = { 0 };
	struct value *map;

	expect(j, '{');
	if (!j->bad && take(j, '}'))
		return value_map_empty();
	do {
		vector_push(&items, j->bad ? NULL : read_string(j));
		expect(j, ':');
		vector_push(&items, j->bad ? NULL : read_value(j, t->item));
	} while (!j->bad && take(j, ','));
	expect(j, '}');
	if (j->bad)
		return NULL;
	map = value_map_from(items.items, items.n / 2);
	items.n = 0;
	return map;
}

static struct value *read_value(struct json *j, const struct type *t)
{
	switch (t->kind) {
	case TYPE_STRING:
	case TYPE_ENUM:
	case TYPE_REF:
		return read_string(j);
	case TYPE_INT:
	case TYPE_DATETIME:
		return read_int(j, t->kind);
	case TYPE_FLOAT:
		return read_float(j);
	case TYPE_BOOL:
		return read_bool(j);
	case TYPE_SET:
		return read_set(j, t);
	case TYPE_MAP:
		return read_map(j, t);
	case TYPE_VOID:
	case TYPE_RECORD:
	case TYPE_OPTION:
		break;
	}
	return fail(j);
}

struct value *image_json_read(const struct type *t, const char *p, size_t n)
{
	struct json j = { p, p + n, false };
	_cleanup_(value_unrefp) struct value *v = read_value(&j, t);

	skip_space(&j);
	if (j.bad || j.p != j.end || !schema_fits(t, v))
		return NULL;
	return TAKE_PTR(v);
}

/* Columns. */

/* A column of SQL type REAL keeps whole numbers as integers and NaN as NULL:
 * NaN and the sign of zero would be lost. */
static bool float_needs_text(double d)
{
	return isnan(d) || (d == 0 && signbit(d));
}

const char *image_column_type(const struct type *t)
{
	switch (t->kind) {
	case TYPE_INT:
	case TYPE_DATETIME:
	case TYPE_BOOL:
		return "INTEGER";
	case TYPE_FLOAT:
		return "REAL";
	default:
		return "TEXT";
	}
}

static int bind_text(sqlite3_stmt *st, int column, const char *s, size_t n)
{
	return sqlite3_bind_text64(st, column, s ? s : "", n, SQLITE_TRANSIENT,
				   SQLITE_UTF8);
}

static int bind_float(sqlite3_stmt *st, int column, double d)
{
	char text[32];
	uint64_t bits;

	if (!float_needs_text(d))
		return sqlite3_bind_double(st, column, d);
	memcpy(&bits, &d, sizeof(bits));
	snprintf(text, sizeof(text), "bits:%016" PRIx64, bits);
	return bind_text(st, column, text, strlen(text));
}

int image_column_bind(sqlite3_stmt *st, int column, const struct type *t,
		      const struct value *v, struct buf *scratch)
{
	switch (t->kind) {
	case TYPE_INT:
	case TYPE_DATETIME:
	case TYPE_BOOL:
		return sqlite3_bind_int64(st, column, v->i);
	case TYPE_FLOAT:
		return bind_float(st, column, v->d);
	case TYPE_SET:
	case TYPE_MAP:
		scratch->len = 0;
		image_json_write(scratch, t, v);
		return bind_text(st, column, scratch->data, scratch->len);
	default:
		return sqlite3_bind_text64(st, column, v->s, v->n,
					   SQLITE_STATIC, SQLITE_UTF8);
	}
}

static struct value *column_string(sqlite3_stmt *st, int column)
{
	const char *s = (const char *)sqlite3_column_text(st, column);

	return s ? value_string(s, (size_t)sqlite3_column_bytes(st, column)) :
		   NULL;
}

static struct value *column_int(sqlite3_stmt *st, int column,
				enum type_kind kind)
{
	int64_t i = sqlite3_column_int64(st, column);

	if (kind == TYPE_DATETIME)
		return value_datetime(i);
	if (kind == TYPE_BOOL)
		return i == 0 || i == 1 ? value_bool(i) : NULL;
	return value_int(i);
}

static struct value *column_text(sqlite3_stmt *st, int column,
				 const struct type *t)
{
	_cleanup_(value_unrefp) struct value *v = column_string(st, column);

	if (!v)
		return NULL;
	switch (t->kind) {
	case TYPE_SET:
	case TYPE_MAP:
		return image_json_read(t, v->s, v->n);
	case TYPE_FLOAT:
		return float_of_bits(v);
	case TYPE_STRING:
	case TYPE_REF:
	case TYPE_ENUM:
		return schema_fits(t, v) ? TAKE_PTR(v) : NULL;
	default:
		return NULL;
	}
}

struct value *image_column_read(sqlite3_stmt *st, int column,
				const struct type *t)
{
	switch (sqlite3_column_type(st, column)) {
	case SQLITE_TEXT:
		return column_text(st, column, t);
	case SQLITE_INTEGER:
		return strcmp(image_column_type(t), "INTEGER") == 0 ?
			       column_int(st, column, t->kind) :
			       NULL;
	case SQLITE_FLOAT:
		return t->kind == TYPE_FLOAT ?
			       value_float(sqlite3_column_double(st, column)) :
			       NULL;
	default:
		return NULL;
	}
}
