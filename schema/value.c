/* Values: building, comparing, and their binary form.
 *
 * Binary form: a tag byte, the number of the kind in enum value_kind (which
 * therefore never changes), then
 *
 *   VOID, NIL             nothing
 *   STRING                bytes
 *   INT, DATETIME, COUNT  varint, zigzag: 0, -1, 1, -2 are 0, 1, 2, 3
 *   FLOAT                 u64, the bits of an IEEE 754 double
 *   BOOL                  u8, 0 or 1
 *   SET                   varint n, n values
 *   MAP                   varint n, n times: bytes key, value; keys ascending
 *   STRUCT                varint n, n times: bytes name, value
 *
 * with varint, bytes and u64 as in base/buf.h. RECORD is written as a STRUCT,
 * its tag is never read. There is one encoding of a value: whatever decodes
 * encodes again to the same bytes, so digests may be taken over them.
 *
 * Shared constants have refs = REFS_FOREVER and are in read-only memory: taking
 * and dropping references of them writes nothing, which also keeps threads from
 * fighting over their cache line.
 */
#include "schema/value.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "schema/record.h"

_Static_assert(VALUE_VOID == 0 && VALUE_STRING == 1 && VALUE_INT == 2 &&
	       VALUE_FLOAT == 3 && VALUE_BOOL == 4 && VALUE_DATETIME == 5 &&
	       VALUE_SET == 6 && VALUE_MAP == 7 && VALUE_STRUCT == 8 &&
	       VALUE_RECORD == 9 && VALUE_COUNT == 10 && VALUE_NIL == 11,
	       "the numbers are in logs and snapshots");

#define REFS_FOREVER UINT32_MAX

#define FOREVER(k, num) \
	{ .refs = REFS_FOREVER, .kind = (k), .n = 0, .i = (num) }

static const struct value the_void = FOREVER(VALUE_VOID, 0);
static const struct value the_nil = FOREVER(VALUE_NIL, 0);
static const struct value the_bools[2] = {
	FOREVER(VALUE_BOOL, 0), FOREVER(VALUE_BOOL, 1)
};
static const struct value the_empty_string = FOREVER(VALUE_STRING, 0);
static const struct value the_empty_set = FOREVER(VALUE_SET, 0);
static const struct value the_empty_map = FOREVER(VALUE_MAP, 0);

/* s[] has no room of its own: a look-alike gives it some. */
static const union {
	struct {
		atomic_uint refs;
		uint8_t kind;
		uint32_t n;
		_Alignas(int64_t) char s[sizeof(REF_NULL)];
	} raw;
	struct value v;
} the_null_ref = {
	.raw = { REFS_FOREVER, VALUE_STRING, sizeof(REF_NULL) - 1, REF_NULL }
};
_Static_assert(offsetof(struct value, s) == 16 &&
	       offsetof(__typeof__(the_null_ref), raw.s) == 16,
	       "both forms of the null reference agree");

/* Building. */

static struct value *forever(const struct value *v)
{
	return (struct value *)v;
}

static struct value *value_new(enum value_kind kind, size_t n, size_t payload)
{
	size_t size = offsetof(struct value, s) + payload;
	struct value *v;

	xassert(n < UINT32_MAX);
	v = xmalloc(MAX(size, sizeof(*v)));
	atomic_init(&v->refs, 1);
	v->kind = (uint8_t)kind;
	v->n = (uint32_t)n;
	return v;
}

static struct value *number_new(enum value_kind kind, int64_t i)
{
	struct value *v = value_new(kind, 0, sizeof(v->i));

	v->i = i;
	return v;
}

/* n elements of `width` pointers each, all NULL. */
static struct value *items_new(enum value_kind kind, size_t n, size_t width)
{
	size_t bytes = n * width * sizeof(struct value *);
	struct value *v = value_new(kind, n, bytes);

	if (n > 0)
		memset(v->items, 0, bytes);
	return v;
}

static size_t items_count(const struct value *v)
{
	switch (v->kind) {
	case VALUE_SET:
		return v->n;
	case VALUE_MAP:
	case VALUE_STRUCT:
		return (size_t)v->n * 2;
	default:
		return 0;
	}
}

struct value *value_ref(const struct value *v)
{
	struct value *shared = (struct value *)v;

	if (v && atomic_load_explicit(&shared->refs, memory_order_relaxed) !=
	    REFS_FOREVER)
		atomic_fetch_add_explicit(&shared->refs, 1,
					  memory_order_relaxed);
	return shared;
}

void value_unref(struct value *v)
{
	size_t n;

	if (!v || atomic_load_explicit(&v->refs, memory_order_relaxed) ==
	    REFS_FOREVER)
		return;
	if (atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) > 1)
		return;
	n = items_count(v);
	for (size_t i = 0; i < n; i++)
		value_unref(v->items[i]);
	if (v->kind == VALUE_RECORD)
		record_unref(v->record);
	free(v);
}

void value_unrefp(struct value **v)
{
	value_unref(*v);
}

struct value *value_void(void)
{
	return forever(&the_void);
}

struct value *value_nil(void)
{
	return forever(&the_nil);
}

struct value *value_string(const char *s, size_t n)
{
	struct value *v;

	if (n == 0)
		return forever(&the_empty_string);
	if (str_equal_n(REF_NULL, s, n))
		return value_null_ref();
	v = value_new(VALUE_STRING, n, n + 1);
	memcpy(v->s, s, n);
	v->s[n] = '\0';
	return v;
}

struct value *value_stringz(const char *s)
{
	return value_string(s, strlen(s));
}

struct value *value_printf(const char *fmt, ...)
{
	struct value *v;
	va_list ap;
	char s[512], *more = NULL;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(s, sizeof(s), fmt, ap);
	va_end(ap);
	xassert(n >= 0);
	if ((size_t)n >= sizeof(s)) {
		more = xmalloc((size_t)n + 1);
		va_start(ap, fmt);
		vsnprintf(more, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	v = value_string(more ? more : s, (size_t)n);
	free(more);
	return v;
}

struct value *value_int(int64_t i)
{
	return number_new(VALUE_INT, i);
}

struct value *value_float(double d)
{
	struct value *v = number_new(VALUE_FLOAT, 0);

	v->d = d;
	return v;
}

struct value *value_bool(bool b)
{
	return forever(&the_bools[b]);
}

struct value *value_datetime(int64_t unix_seconds)
{
	return number_new(VALUE_DATETIME, unix_seconds);
}

struct value *value_localtime(int64_t unix_seconds)
{
	struct value *v = number_new(VALUE_DATETIME, unix_seconds);

	v->n = 1;
	return v;
}

struct value *value_count(int64_t i)
{
	return number_new(VALUE_COUNT, i);
}

struct value *value_record(struct record *r)
{
	struct value *v = number_new(VALUE_RECORD, 0);

	v->record = record_ref(r);
	return v;
}

struct value *value_null_ref(void)
{
	return forever(&the_null_ref.v);
}

struct value *value_set_empty(void)
{
	return forever(&the_empty_set);
}

struct value *value_map_empty(void)
{
	return forever(&the_empty_map);
}

struct value *value_set_new(size_t n)
{
	return n ? items_new(VALUE_SET, n, 1) : value_set_empty();
}

struct value *value_struct_new(size_t n)
{
	return items_new(VALUE_STRUCT, n, 2);
}

/* How many of `width` arguments each there are before the NULL. */
static size_t count_args(const char *first, va_list ap, unsigned width)
{
	size_t n = 0;

	for (const char *s = first; s; s = va_arg(ap, const char *)) {
		if (width == 2)
			(void)va_arg(ap, struct value *);
		n++;
	}
	return n;
}

struct value *value_set_of(const char *first, ...)
{
	struct value *v;
	va_list ap;

	va_start(ap, first);
	v = value_set_new(count_args(first, ap, 1));
	va_end(ap);
	va_start(ap, first);
	for (size_t i = 0; i < v->n; i++) {
		v->items[i] = value_stringz(first);
		first = va_arg(ap, const char *);
	}
	va_end(ap);
	return v;
}

/* Fills items with n pairs of a name and a taken value. */
static void pairs_from_args(struct value **items, size_t n, const char *name,
			    va_list ap)
{
	for (size_t i = 0; i < n; i++) {
		items[2 * i] = value_stringz(name);
		items[2 * i + 1] = va_arg(ap, struct value *);
		name = va_arg(ap, const char *);
	}
}

struct value *value_struct_of(const char *name, ...)
{
	struct value *v;
	va_list ap;

	va_start(ap, name);
	v = value_struct_new(count_args(name, ap, 2));
	va_end(ap);
	va_start(ap, name);
	pairs_from_args(v->items, v->n, name, ap);
	va_end(ap);
	return v;
}

struct value *value_map_of(const char *key, ...)
{
	struct value **pairs, *v;
	va_list ap;
	size_t n;

	va_start(ap, key);
	n = count_args(key, ap, 2);
	va_end(ap);
	pairs = xcalloc(n * 2, sizeof(*pairs));
	va_start(ap, key);
	pairs_from_args(pairs, n, key, ap);
	va_end(ap);
	v = value_map_from(pairs, n);
	free(pairs);
	return v;
}

static int bytes_cmp(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int r = memcmp(a, b, MIN(a_len, b_len));

	return r ? r : (a_len > b_len) - (a_len < b_len);
}

int value_str_cmp(const struct value *a, const struct value *b)
{
	xassert(a->kind == VALUE_STRING && b->kind == VALUE_STRING);
	return a == b ? 0 : bytes_cmp(a->s, a->n, b->s, b->n);
}

struct pair {
	struct value *key, *item;
	size_t place; /* qsort() may exchange equals: the last one must stay */
};

static int pair_cmp(const void *pa, const void *pb)
{
	const struct pair *a = pa, *b = pb;
	int r = value_str_cmp(a->key, b->key);

	return r ? r : (a->place > b->place) - (a->place < b->place);
}

/* Sorts, drops all but the last of equal keys, returns how many are left. */
static size_t pairs_settle(struct pair *p, size_t n)
{
	size_t kept = 0;

	qsort(p, n, sizeof(*p), pair_cmp);
	for (size_t i = 0; i < n; i++) {
		if (i + 1 < n && value_str_cmp(p[i].key, p[i + 1].key) == 0) {
			value_unref(p[i].key);
			value_unref(p[i].item);
		} else {
			p[kept++] = p[i];
		}
	}
	return kept;
}

struct value *value_map_from(struct value **pairs, size_t n)
{
	struct pair *sorted;
	struct value *v;

	if (n == 0)
		return value_map_empty();
	sorted = xcalloc(n, sizeof(*sorted));
	for (size_t i = 0; i < n; i++)
		sorted[i] = (struct pair){ pairs[2 * i], pairs[2 * i + 1], i };
	n = pairs_settle(sorted, n);
	v = items_new(VALUE_MAP, n, 2);
	for (size_t i = 0; i < n; i++) {
		v->items[2 * i] = sorted[i].key;
		v->items[2 * i + 1] = sorted[i].item;
	}
	free(sorted);
	return v;
}

/* Reading. */

const char *value_str(const struct value *v)
{
	return v && v->kind == VALUE_STRING ? v->s : "";
}

bool value_is_str(const struct value *v, const char *s)
{
	return v && v->kind == VALUE_STRING && str_equal_n(s, v->s, v->n);
}

bool value_is_null_ref(const struct value *v)
{
	return *value_str(v) == '\0' || value_is_str(v, REF_NULL);
}

/* Where key is among n sorted strings, `width` pointers apart, or would be. */
static size_t lower_bound(const struct value *v, size_t width, const char *key,
			  size_t key_len)
{
	size_t low = 0, high = v->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct value *k = v->items[mid * width];

		if (bytes_cmp(k->s, k->n, key, key_len) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool string_is(const struct value *s, const char *p, size_t n)
{
	return s->n == n && memcmp(s->s, p, n) == 0;
}

/* The pair's place, or v->n. */
static size_t pair_find(const struct value *v, const char *key, size_t n)
{
	size_t i = 0;

	if (v->kind == VALUE_MAP) {
		i = lower_bound(v, 2, key, n);
		return i < v->n && string_is(v->items[2 * i], key, n) ? i :
								       v->n;
	}
	while (i < v->n && !string_is(v->items[2 * i], key, n))
		i++;
	return i;
}

struct value *value_get_n(const struct value *v, const char *key, size_t n)
{
	size_t i;

	if (!v || (v->kind != VALUE_MAP && v->kind != VALUE_STRUCT))
		return NULL;
	i = pair_find(v, key, n);
	return i < v->n ? v->items[2 * i + 1] : NULL;
}

struct value *value_get(const struct value *v, const char *key)
{
	return value_get_n(v, key, strlen(key));
}

const char *value_get_str(const struct value *v, const char *key)
{
	return value_str(value_get(v, key));
}

int64_t value_get_int(const struct value *v, const char *key, int64_t otherwise)
{
	const struct value *m = value_get(v, key);

	switch (m ? m->kind : VALUE_NIL) {
	case VALUE_INT:
	case VALUE_BOOL:
	case VALUE_DATETIME:
	case VALUE_COUNT:
		return m->i;
	default:
		return otherwise;
	}
}

static bool items_equal(const struct value *a, const struct value *b)
{
	size_t n = items_count(a);

	for (size_t i = 0; i < n; i++) {
		if (!value_equal(a->items[i], b->items[i]))
			return false;
	}
	return true;
}

static bool records_equal(const struct record *a, const struct record *b)
{
	if (a == b)
		return true;
	if (a->cls != b->cls || !value_equal(a->ref, b->ref))
		return false;
	for (unsigned i = 0; i < a->cls->n_fields; i++) {
		if (!value_equal(a->fields[i], b->fields[i]))
			return false;
	}
	return true;
}

/* Equal means equal encodings: an INT is no COUNT, a STRUCT's order counts, and
 * floats compare by their bits (a NaN must not be for ever unequal to itself).
 */
bool value_equal(const struct value *a, const struct value *b)
{
	if (a == b)
		return true;
	if (!a || !b || a->kind != b->kind || a->n != b->n)
		return false;
	switch ((enum value_kind)a->kind) {
	case VALUE_VOID:
	case VALUE_NIL:
		return true;
	case VALUE_STRING:
		return memcmp(a->s, b->s, a->n) == 0;
	case VALUE_INT:
	case VALUE_BOOL:
	case VALUE_DATETIME:
	case VALUE_COUNT:
		return a->i == b->i;
	case VALUE_FLOAT:
		return memcmp(&a->d, &b->d, sizeof(a->d)) == 0;
	case VALUE_SET:
	case VALUE_MAP:
	case VALUE_STRUCT:
		return items_equal(a, b);
	case VALUE_RECORD:
		return records_equal(a->record, b->record);
	}
	return false;
}

/* Changing. */

/* A copy of a set or map whose elements [at, at + removed) give way to
 * `added` new ones, left NULL. */
static struct value *splice(const struct value *v, size_t at, size_t removed,
			    size_t added)
{
	size_t width = v->kind == VALUE_SET ? 1 : 2;
	size_t n = v->n - removed + added, to = 0, gap = at * width;
	struct value *copy;

	if (n == 0)
		return forever(width == 1 ? &the_empty_set : &the_empty_map);
	copy = items_new((enum value_kind)v->kind, n, width);
	for (size_t i = 0; i < v->n * width; i++) {
		if (to == gap)
			to += added * width;
		if (i < gap || i >= gap + removed * width)
			copy->items[to++] = value_ref(v->items[i]);
	}
	return copy;
}

struct value *value_map_with(const struct value *map, const struct value *key,
			     const struct value *item)
{
	struct value *copy;
	size_t i;
	bool there;

	xassert(map->kind == VALUE_MAP && key->kind == VALUE_STRING && item);
	i = lower_bound(map, 2, key->s, key->n);
	there = i < map->n && value_equal(map->items[2 * i], key);
	copy = splice(map, i, there, 1);
	copy->items[2 * i] = value_ref(key);
	copy->items[2 * i + 1] = value_ref(item);
	return copy;
}

struct value *value_map_without(const struct value *map, const char *key,
				size_t n)
{
	size_t i;

	xassert(map->kind == VALUE_MAP);
	i = pair_find(map, key, n);
	return i < map->n ? splice(map, i, 1, 0) : value_ref(map);
}

static size_t set_find(const struct value *set, const struct value *item)
{
	size_t i = 0;

	xassert(set->kind == VALUE_SET);
	while (i < set->n && !value_equal(set->items[i], item))
		i++;
	return i;
}

static struct value *set_insert(const struct value *set, size_t i,
				const struct value *item)
{
	struct value *copy = splice(set, i, 0, 1);

	copy->items[i] = value_ref(item);
	return copy;
}

bool value_set_has(const struct value *set, const struct value *item)
{
	return set_find(set, item) < set->n;
}

struct value *value_set_with(const struct value *set, const struct value *item)
{
	if (value_set_has(set, item))
		return value_ref(set);
	return set_insert(set, set->n, item);
}

struct value *value_set_without(const struct value *set,
				const struct value *item)
{
	size_t i = set_find(set, item);

	return i < set->n ? splice(set, i, 1, 0) : value_ref(set);
}

static size_t sorted_find(const struct value *set, const struct value *item,
			  bool *ret_there)
{
	size_t i;

	xassert(set->kind == VALUE_SET && item->kind == VALUE_STRING);
	i = lower_bound(set, 1, item->s, item->n);
	*ret_there = i < set->n && value_equal(set->items[i], item);
	return i;
}

struct value *value_sorted_with(const struct value *set,
				const struct value *item)
{
	bool there;
	size_t i = sorted_find(set, item, &there);

	return there ? value_ref(set) : set_insert(set, i, item);
}

struct value *value_sorted_without(const struct value *set,
				   const struct value *item)
{
	bool there;
	size_t i = sorted_find(set, item, &there);

	return there ? splice(set, i, 1, 0) : value_ref(set);
}

/* The binary form. */

static void encode_at(struct buf *b, const struct value *v, unsigned depth);

static uint64_t zigzag(int64_t i)
{
	return (uint64_t)i << 1 ^ (i < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t u)
{
	return (int64_t)(u >> 1 ^ (u & 1 ? UINT64_MAX : 0));
}

static void encode_record(struct buf *b, const struct record *r, unsigned depth)
{
	const struct field_def *f = r->cls->fields;
	size_t n = 0;

	for (unsigned i = 0; i < r->cls->n_fields; i++)
		n += !(f[i].flags & FIELD_INTERNAL);
	buf_put_u8(b, VALUE_STRUCT);
	buf_put_varint(b, n);
	for (unsigned i = 0; i < r->cls->n_fields; i++) {
		if (f[i].flags & FIELD_INTERNAL)
			continue;
		buf_put_bytes(b, f[i].name, strlen(f[i].name));
		encode_at(b, r->fields[i], depth + 1);
	}
}

static void encode_items(struct buf *b, const struct value *v, unsigned depth)
{
	bool pairs = v->kind != VALUE_SET;

	buf_put_varint(b, v->n);
	for (size_t i = 0; i < v->n; i++) {
		const struct value *item = v->items[pairs ? 2 * i + 1 : i];

		if (pairs)
			buf_put_bytes(b, v->items[2 * i]->s,
				      v->items[2 * i]->n);
		encode_at(b, item, depth + 1);
	}
}

static void encode_at(struct buf *b, const struct value *v, unsigned depth)
{
	uint64_t bits;

	/* What no member could read must not get into the log. */
	xassert(v && depth <= VALUE_MAX_DEPTH);
	if (v->kind == VALUE_RECORD) {
		encode_record(b, v->record, depth);
		return;
	}
	buf_put_u8(b, v->kind);
	switch ((enum value_kind)v->kind) {
	case VALUE_STRING:
		buf_put_bytes(b, v->s, v->n);
		break;
	case VALUE_INT:
	case VALUE_DATETIME:
	case VALUE_COUNT:
		buf_put_varint(b, zigzag(v->i));
		break;
	case VALUE_FLOAT:
		memcpy(&bits, &v->d, sizeof(bits));
		buf_put_u64(b, bits);
		break;
	case VALUE_BOOL:
		buf_put_u8(b, v->i != 0);
		break;
	case VALUE_SET:
	case VALUE_MAP:
	case VALUE_STRUCT:
		encode_items(b, v, depth);
		break;
	case VALUE_VOID:
	case VALUE_NIL:
	case VALUE_RECORD:
		break;
	}
}

void value_encode(struct buf *b, const struct value *v)
{
	encode_at(b, v, 0);
}

static struct value *decode_at(struct reader *r, unsigned depth);

static struct value *malformed(struct reader *r)
{
	r->bad = true;
	return NULL;
}

static struct value *decode_string(struct reader *r)
{
	size_t n;
	const char *s = reader_bytes(r, &n);

	if (!s || n >= UINT32_MAX)
		return malformed(r);
	return value_string(s, n);
}

/* The i-th element of v; of MAP and STRUCT the key before it. */
static bool decode_item(struct reader *r, struct value *v, size_t i,
			unsigned depth)
{
	bool pairs = v->kind != VALUE_SET;
	struct value **at = &v->items[pairs ? 2 * i : i];

	if (pairs) {
		*at = decode_string(r);
		if (!*at)
			return false;
		if (v->kind == VALUE_MAP && i > 0 &&
		    value_str_cmp(at[-2], *at) >= 0)
			return false;
		at++;
	}
	*at = decode_at(r, depth + 1);
	return *at != NULL;
}

static struct value *decode_items(struct reader *r, enum value_kind kind,
				  unsigned depth)
{
	size_t width = kind == VALUE_SET ? 1 : 2;
	uint64_t n = reader_varint(r);
	struct value *v;

	/* An element is a byte at least, a key another: what is asked of memory
	 * stays within a small factor of what was received. */
	if (r->bad || n > (uint64_t)(r->end - r->p) / width || n >= UINT32_MAX)
		return malformed(r);
	if (n == 0 && kind != VALUE_STRUCT)
		return kind == VALUE_SET ? value_set_empty() :
					   value_map_empty();
	v = items_new(kind, n, width);
	for (size_t i = 0; i < n; i++) {
		if (!decode_item(r, v, i, depth)) {
			value_unref(v);
			return malformed(r);
		}
	}
	return v;
}

static struct value *decode_number(struct reader *r, enum value_kind kind)
{
	int64_t i = unzigzag(reader_varint(r));

	return r->bad ? NULL : number_new(kind, i);
}

static struct value *decode_float(struct reader *r)
{
	uint64_t bits = reader_u64(r);
	double d;

	memcpy(&d, &bits, sizeof(d));
	return r->bad ? NULL : value_float(d);
}

static struct value *decode_bool(struct reader *r)
{
	uint8_t b = reader_u8(r);

	return r->bad || b > 1 ? malformed(r) : value_bool(b);
}

static struct value *decode_at(struct reader *r, unsigned depth)
{
	uint8_t kind = reader_u8(r);

	if (r->bad || depth > VALUE_MAX_DEPTH)
		return malformed(r);
	switch (kind) {
	case VALUE_VOID:
		return value_void();
	case VALUE_NIL:
		return value_nil();
	case VALUE_STRING:
		return decode_string(r);
	case VALUE_INT:
	case VALUE_DATETIME:
	case VALUE_COUNT:
		return decode_number(r, kind);
	case VALUE_FLOAT:
		return decode_float(r);
	case VALUE_BOOL:
		return decode_bool(r);
	case VALUE_SET:
	case VALUE_MAP:
	case VALUE_STRUCT:
		return decode_items(r, kind, depth);
	default:
		return malformed(r);
	}
}

struct value *value_decode(struct reader *r)
{
	return decode_at(r, 0);
}

/* The text form. */

static void text_at(struct buf *b, const struct value *v, bool quoted);

static void text_quoted(struct buf *b, const char *s, size_t n)
{
	buf_putc(b, '\'');
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\'' || s[i] == '\\')
			buf_putc(b, '\\');
		buf_putc(b, s[i]);
	}
	buf_putc(b, '\'');
}

static void text_string(struct buf *b, const char *s, size_t n, bool quoted)
{
	if (quoted)
		text_quoted(b, s, n);
	else
		buf_append(b, s, n);
}

static void text_pair(struct buf *b, const char *name, size_t n,
		      const struct value *item)
{
	buf_putc(b, '(');
	text_quoted(b, name, n);
	buf_putc(b, ' ');
	text_at(b, item, true);
	buf_putc(b, ')');
}

static void text_record(struct buf *b, const struct record *r)
{
	const char *gap = "(";

	for (unsigned i = 0; i < r->cls->n_fields; i++) {
		const struct field_def *f = &r->cls->fields[i];

		if (f->flags & FIELD_INTERNAL)
			continue;
		buf_puts(b, gap);
		gap = " ";
		text_pair(b, f->name, strlen(f->name), r->fields[i]);
	}
	buf_puts(b, *gap == '(' ? "()" : ")");
}

static void text_items(struct buf *b, const struct value *v)
{
	buf_putc(b, '(');
	for (size_t i = 0; i < v->n; i++) {
		if (i > 0)
			buf_putc(b, ' ');
		if (v->kind == VALUE_SET)
			text_at(b, v->items[i], true);
		else
			text_pair(b, v->items[2 * i]->s, v->items[2 * i]->n,
				  v->items[2 * i + 1]);
	}
	buf_putc(b, ')');
}

/* Inside a set or map scalars are quoted; what has brackets of its own is not,
 * or escapes would double with every level. */
static void text_at(struct buf *b, const struct value *v, bool quoted)
{
	char s[40];

	switch ((enum value_kind)v->kind) {
	case VALUE_SET:
	case VALUE_MAP:
	case VALUE_STRUCT:
		text_items(b, v);
		return;
	case VALUE_RECORD:
		text_record(b, v->record);
		return;
	case VALUE_STRING:
		text_string(b, v->s, v->n, quoted);
		return;
	case VALUE_INT:
	case VALUE_COUNT:
		snprintf(s, sizeof(s), "%lld", (long long)v->i);
		break;
	case VALUE_FLOAT:
		snprintf(s, sizeof(s), "%.17g", v->d);
		break;
	case VALUE_BOOL:
		strcpy(s, v->i ? "true" : "false");
		break;
	case VALUE_DATETIME:
		date_format(v->i, s);
		break;
	case VALUE_VOID:
	case VALUE_NIL:
		*s = '\0';
		break;
	}
	text_string(b, s, strlen(s), quoted);
}

void value_to_text(struct buf *b, const struct value *v)
{
	text_at(b, v, false);
}
