/* Transactions in bytes.
 *
 *   txn    u8 format (1), 16 bytes id, u64 time_ms (two's complement),
 *          text author, varint number of guards, varint number of operations,
 *          bytes guards, bytes operations
 *   text   varint n, n bytes without NUL, one NUL
 *   guard  u8 kind, then
 *            EXISTS   text class ("" = any), text ref
 *            ABSENT   text ref
 *            VERSION  text ref, varint generation
 *            FIELD    text class, text ref, text field, value
 *   op     u8 kind, then
 *            CREATE                     text class, text ref
 *            DESTROY, TOUCH             text ref
 *            SET, SET_ADD, SET_REMOVE   text class, text ref, text field, value
 *            MAP_ADD, MAP_PUT           text class, text ref, text field,
 *                                       text key, value
 *            MAP_REMOVE                 text class, text ref, text field,
 *                                       text key
 *
 * u8, u64, varint and bytes are those of base/buf.h, a value is that of
 * schema/value.c. The kinds' numbers are those of the enums in txn.h, which
 * therefore never change; a new kind or a new order of parts takes a new format
 * number, and is written only when every member reads it. A text carries its
 * NUL so that the store may look it up where it lies, without a copy.
 *
 * struct txn holds both lists in this form from the start: adding an operation
 * appends bytes, and encoding copies them. txn_decode() walks both lists to
 * their ends; what it lets through, the iterator of txn_read.h can read.
 */
#include "raftdb/txn.h"

#include <string.h>

#include "base/env.h"
#include "raftdb/txn_read.h"

#define TXN_FORMAT 1

_Static_assert(GUARD_EXISTS == 0 && GUARD_ABSENT == 1 && GUARD_VERSION == 2 &&
	       GUARD_FIELD == 3, "the numbers are in the log");
_Static_assert(OP_CREATE == 0 && OP_DESTROY == 1 && OP_SET == 2 &&
	       OP_MAP_ADD == 3 && OP_MAP_PUT == 4 && OP_MAP_REMOVE == 5 &&
	       OP_SET_ADD == 6 && OP_SET_REMOVE == 7 && OP_TOUCH == 8,
	       "the numbers are in the log");

/* Which parts follow the kind, in this order. */
enum part {
	HAS_CLASS = 1 << 0,
	HAS_REF = 1 << 1,
	HAS_FIELD = 1 << 2,
	HAS_KEY = 1 << 3,
	HAS_VALUE = 1 << 4,
	HAS_VERSION = 1 << 5,
	ANY_CLASS = 1 << 6, /* the class may be "" */
};

#define HAS_CELL (HAS_CLASS | HAS_REF | HAS_FIELD)

static const uint8_t guard_parts[] = {
	[GUARD_EXISTS] = HAS_CLASS | HAS_REF | ANY_CLASS,
	[GUARD_ABSENT] = HAS_REF,
	[GUARD_VERSION] = HAS_REF | HAS_VERSION,
	[GUARD_FIELD] = HAS_CELL | HAS_VALUE,
};

static const uint8_t op_parts[] = {
	[OP_CREATE] = HAS_CLASS | HAS_REF,
	[OP_DESTROY] = HAS_REF,
	[OP_SET] = HAS_CELL | HAS_VALUE,
	[OP_MAP_ADD] = HAS_CELL | HAS_KEY | HAS_VALUE,
	[OP_MAP_PUT] = HAS_CELL | HAS_KEY | HAS_VALUE,
	[OP_MAP_REMOVE] = HAS_CELL | HAS_KEY,
	[OP_SET_ADD] = HAS_CELL | HAS_VALUE,
	[OP_SET_REMOVE] = HAS_CELL | HAS_VALUE,
	[OP_TOUCH] = HAS_REF,
};

struct txn *txn_new(const char *author)
{
	struct txn *t = xcalloc(1, sizeof(*t));

	env_random(t->id, sizeof(t->id));
	t->time_ms = env_wall_ms();
	t->author = xstrdup(author);
	return t;
}

void txn_free(struct txn *t)
{
	if (!t)
		return;
	free(t->author);
	buf_deinit(&t->body);
	buf_deinit(&t->guards);
	free(t);
}

void txn_freep(struct txn **t)
{
	txn_free(*t);
}

static void put_text(struct buf *b, const char *s)
{
	size_t n = strlen(s);

	buf_put_varint(b, n);
	buf_append(b, s, n + 1);
}

static struct buf *add_guard(struct txn *t, enum txn_guard_kind kind)
{
	xassert(t->n_guards < UINT32_MAX);
	t->n_guards++;
	buf_put_u8(&t->guards, kind);
	return &t->guards;
}

static struct buf *add_op(struct txn *t, enum txn_op_kind kind)
{
	xassert(t->n_ops < UINT32_MAX);
	t->n_ops++;
	buf_put_u8(&t->body, kind);
	return &t->body;
}

static void put_cell(struct buf *b, const struct class_def *cls,
		     const char *ref, unsigned field)
{
	xassert(field < cls->n_fields);
	put_text(b, cls->name);
	put_text(b, ref);
	put_text(b, cls->fields[field].name);
}

void txn_guard_exists(struct txn *t, const struct class_def *cls,
		      const char *ref)
{
	struct buf *b = add_guard(t, GUARD_EXISTS);

	put_text(b, cls ? cls->name : "");
	put_text(b, ref);
}

void txn_guard_absent(struct txn *t, const char *ref)
{
	put_text(add_guard(t, GUARD_ABSENT), ref);
}

void txn_guard_version(struct txn *t, const struct record *r)
{
	struct buf *b = add_guard(t, GUARD_VERSION);

	put_text(b, value_str(r->ref));
	buf_put_varint(b, r->modified);
}

void txn_guard_field(struct txn *t, const struct record *r, unsigned field)
{
	struct buf *b = add_guard(t, GUARD_FIELD);

	put_cell(b, r->cls, value_str(r->ref), field);
	value_encode(b, r->fields[field]);
}

void txn_create(struct txn *t, const struct class_def *cls, const char *ref)
{
	struct buf *b = add_op(t, OP_CREATE);

	put_text(b, cls->name);
	put_text(b, ref);
}

void txn_destroy(struct txn *t, const char *ref)
{
	put_text(add_op(t, OP_DESTROY), ref);
}

static void take_value(struct buf *b, struct value *v)
{
	value_encode(b, v);
	value_unref(v);
}

void txn_set(struct txn *t, const struct class_def *cls, const char *ref,
	     unsigned field, struct value *takes_v)
{
	struct buf *b = add_op(t, OP_SET);

	put_cell(b, cls, ref, field);
	take_value(b, takes_v);
}

void txn_map_add(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, const char *key, struct value *takes_v)
{
	struct buf *b = add_op(t, OP_MAP_ADD);

	put_cell(b, cls, ref, field);
	put_text(b, key);
	take_value(b, takes_v);
}

void txn_map_put(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, const char *key, struct value *takes_v)
{
	struct buf *b = add_op(t, OP_MAP_PUT);

	put_cell(b, cls, ref, field);
	put_text(b, key);
	take_value(b, takes_v);
}

void txn_map_remove(struct txn *t, const struct class_def *cls,
		    const char *ref, unsigned field, const char *key)
{
	struct buf *b = add_op(t, OP_MAP_REMOVE);

	put_cell(b, cls, ref, field);
	put_text(b, key);
}

void txn_set_add(struct txn *t, const struct class_def *cls, const char *ref,
		 unsigned field, struct value *takes_v)
{
	struct buf *b = add_op(t, OP_SET_ADD);

	put_cell(b, cls, ref, field);
	take_value(b, takes_v);
}

void txn_set_remove(struct txn *t, const struct class_def *cls,
		    const char *ref, unsigned field, struct value *takes_v)
{
	struct buf *b = add_op(t, OP_SET_REMOVE);

	put_cell(b, cls, ref, field);
	take_value(b, takes_v);
}

void txn_touch(struct txn *t, const char *ref)
{
	put_text(add_op(t, OP_TOUCH), ref);
}

bool txn_is_empty(const struct txn *t)
{
	return t->n_ops == 0;
}

/* Never less than what txn_encode() writes: format, time, five varints and the
 * NUL of the author's text take 50 bytes at most. */
size_t txn_size(const struct txn *t)
{
	return 64 + sizeof(t->id) + strlen(t->author) + t->guards.len +
	       t->body.len;
}

void txn_encode(struct buf *b, const struct txn *t)
{
	buf_reserve(b, txn_size(t));
	buf_put_u8(b, TXN_FORMAT);
	buf_append(b, t->id, sizeof(t->id));
	buf_put_u64(b, (uint64_t)t->time_ms);
	put_text(b, t->author);
	buf_put_varint(b, t->n_guards);
	buf_put_varint(b, t->n_ops);
	buf_put_bytes(b, t->guards.data, t->guards.len);
	buf_put_bytes(b, t->body.data, t->body.len);
}

static struct txn_text read_text(struct reader *r)
{
	uint64_t n = reader_varint(r);
	const char *s = r->p;

	if (r->bad || n >= (uint64_t)(r->end - s) || s[n] != '\0' ||
	    memchr(s, '\0', n)) {
		r->bad = true;
		return (struct txn_text){ NULL, 0 };
	}
	r->p += n + 1;
	return (struct txn_text){ s, (size_t)n };
}

static void read_parts(struct reader *r, struct txn_item *item, unsigned parts)
{
	if (parts & HAS_CLASS)
		item->cls = read_text(r);
	if (parts & HAS_REF)
		item->ref = read_text(r);
	if (parts & HAS_FIELD)
		item->field = read_text(r);
	if (parts & HAS_KEY)
		item->key = read_text(r);
	if (parts & HAS_VALUE)
		item->value = value_decode(r);
	if (parts & HAS_VERSION)
		item->version = reader_varint(r);
	if ((parts & HAS_CLASS) && item->cls.n == 0) {
		item->cls.s = NULL;
		r->bad |= !(parts & ANY_CLASS);
	}
	if ((parts & HAS_FIELD) && item->field.n == 0)
		r->bad = true;
}

static void iter_init(struct txn_iter *it, const struct buf *b, uint32_t n,
		      bool guards)
{
	*it = (struct txn_iter){ .r = reader_of(b->data, b->len), .left = n,
				 .guards = guards };
	it->item.index = UINT32_MAX; /* the first step makes it 0 */
}

void txn_iter_guards(struct txn_iter *it, const struct txn *t)
{
	iter_init(it, &t->guards, t->n_guards, true);
}

void txn_iter_ops(struct txn_iter *it, const struct txn *t)
{
	iter_init(it, &t->body, t->n_ops, false);
}

void txn_iter_deinit(struct txn_iter *it)
{
	value_unref(it->item.value);
	it->item.value = NULL;
}

bool txn_iter_next(struct txn_iter *it)
{
	const uint8_t *parts = it->guards ? guard_parts : op_parts;
	size_t kinds = it->guards ? ARRAY_LEN(guard_parts) :
				    ARRAY_LEN(op_parts);
	uint32_t index = it->item.index + 1;
	uint8_t kind;

	txn_iter_deinit(it);
	if (it->left == 0 || it->r.bad)
		return false;
	it->left--;
	kind = reader_u8(&it->r);
	it->item = (struct txn_item){ .kind = kind, .index = index };
	if (kind < kinds)
		read_parts(&it->r, &it->item, parts[kind]);
	else
		it->r.bad = true;
	return !it->r.bad;
}

/* True when exactly the items promised are there, and nothing behind them. */
static bool iter_holds(struct txn_iter *it)
{
	while (txn_iter_next(it))
		;
	txn_iter_deinit(it);
	return !it->r.bad && it->left == 0 && it->r.p == it->r.end;
}

static bool items_hold(const struct txn *t)
{
	struct txn_iter guards, ops;

	txn_iter_guards(&guards, t);
	txn_iter_ops(&ops, t);
	return iter_holds(&guards) && iter_holds(&ops);
}

static uint32_t read_count(struct reader *r)
{
	uint64_t n = reader_varint(r);

	r->bad |= n > UINT32_MAX;
	return (uint32_t)n;
}

static void read_list(struct reader *r, struct buf *ret)
{
	size_t n;
	const char *p = reader_bytes(r, &n);

	if (p)
		buf_append(ret, p, n);
}

struct txn *txn_decode(struct reader *r)
{
	_cleanup_(txn_freep) struct txn *t = xcalloc(1, sizeof(*t));
	struct txn_text author;

	r->bad |= reader_u8(r) != TXN_FORMAT;
	for (size_t i = 0; i < sizeof(t->id); i++)
		t->id[i] = reader_u8(r);
	t->time_ms = (int64_t)reader_u64(r);
	author = read_text(r);
	if (author.s)
		t->author = xstrndup(author.s, author.n);
	t->n_guards = read_count(r);
	t->n_ops = read_count(r);
	read_list(r, &t->guards);
	read_list(r, &t->body);
	if (r->bad || !items_hold(t)) {
		r->bad = true;
		return NULL;
	}
	return TAKE_PTR(t);
}
