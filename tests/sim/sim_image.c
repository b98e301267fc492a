/* Images of the store in a plain form in place of SQLite ones, which take most
 * of a run's time; some seeds use the real ones. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int __real_image_pack(const struct store_view *v, struct buf *ret);
int __wrap_image_pack(const struct store_view *v, struct buf *ret);
int __real_image_unpack(const void *p, size_t n, struct store_view **ret,
			char *reason, size_t reason_size);
int __wrap_image_unpack(const void *p, size_t n, struct store_view **ret,
			char *reason, size_t reason_size);

static void put_row(struct buf *b, const struct record *r)
{
	buf_put_u32(b, r->cls->id);
	value_encode(b, r->ref);
	buf_put_u64(b, r->created);
	buf_put_u64(b, r->modified);
	for (size_t i = 0; i < r->cls->n_fields; i++)
		value_encode(b, r->fields[i]);
}

int __wrap_image_pack(const struct store_view *v, struct buf *b)
{
	if (sim->shape.real_images)
		return __real_image_pack(v, b);
	buf_put_u64(b, v->generation);
	buf_put_u64(b, v->tombstone_horizon);
	buf_put_u64(b, v->digest.lo);
	buf_put_u64(b, v->digest.hi);
	buf_put_u64(b, v->n_rows);
	for (size_t i = 0; i < v->n_rows; i++)
		put_row(b, v->rows[i]);
	buf_put_u64(b, v->n_tombs);
	for (size_t i = 0; i < v->n_tombs; i++) {
		value_encode(b, v->tombs[i].ref);
		buf_put_u64(b, v->tombs[i].created);
		buf_put_u64(b, v->tombs[i].deleted);
		buf_put_u32(b, (uint32_t)v->tombs[i].cls);
	}
	buf_put_u64(b, v->n_ids);
	buf_append(b, v->ids, v->n_ids * sizeof(*v->ids));
	return 0;
}

static struct record *get_row(struct reader *r)
{
	const struct class_def *c = &schema_classes[reader_u32(r)];
	struct record *rec = record_new(c, value_decode(r));

	rec->created = reader_u64(r);
	rec->modified = reader_u64(r);
	for (size_t i = 0; i < c->n_fields; i++)
		rec->fields[i] = value_decode(r);
	return rec;
}

int __wrap_image_unpack(const void *p, size_t n, struct store_view **ret,
			char *reason, size_t reason_size)
{
	struct reader r = reader_of(p, n);
	struct store_view *v;

	if (sim->shape.real_images)
		return __real_image_unpack(p, n, ret, reason, reason_size);
	v = xcalloc(1, sizeof *v);
	v->generation = reader_u64(&r);
	v->tombstone_horizon = reader_u64(&r);
	v->digest.lo = reader_u64(&r);
	v->digest.hi = reader_u64(&r);
	v->n_rows = reader_u64(&r);
	v->rows = xcalloc(v->n_rows + 1, sizeof *v->rows);
	for (size_t i = 0; i < v->n_rows; i++)
		v->rows[i] = get_row(&r);
	v->n_tombs = reader_u64(&r);
	v->tombs = xcalloc(v->n_tombs + 1, sizeof *v->tombs);
	for (size_t i = 0; i < v->n_tombs; i++) {
		v->tombs[i].ref = value_decode(&r);
		v->tombs[i].created = reader_u64(&r);
		v->tombs[i].deleted = reader_u64(&r);
		v->tombs[i].cls = (int)reader_u32(&r);
	}
	v->n_ids = reader_u64(&r);
	v->ids = xcalloc(v->n_ids + 1, sizeof *v->ids);
	xassert(!r.bad && (size_t)(r.end - r.p) == v->n_ids * sizeof(*v->ids));
	memcpy(v->ids, r.p, v->n_ids * sizeof(*v->ids));
	*ret = v;
	return 0;
}
