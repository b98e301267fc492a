/* Random transactions against the store: a second store that gets them in
 * bytes must agree at every step, what fails must change nothing, and at
 * intervals everything derived is computed anew from the plain fields.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/store_help.h"

#define TXNS 20000
#define CHECK_EVERY 500

/* What an observer knows: the last version of every row it was told of. */
struct mirror {
	struct map rows;
	uint64_t generation;
};

static void mirror_change(void *data, const struct txn *t, uint64_t generation,
			  const struct change *changes, size_t n)
{
	struct mirror *m = data;
	struct record *known;

	assert_true(n > 0 && generation > m->generation);
	m->generation = generation;
	for (size_t i = 0; i < n; i++) {
		const struct change *c = &changes[i];
		const struct value *ref = (c->before ? c->before : c->after)
						  ->ref;

		known = map_get(&m->rows, ref->s, ref->n);
		assert_ptr_equal(known, c->before);
		assert_int_equal(c->kind, !c->before ? CHANGE_ADD :
					  c->after   ? CHANGE_MOD :
						       CHANGE_DEL);
		assert_true(!c->after || c->after->modified == generation);
		if (c->after)
			map_put(&m->rows, c->after->ref->s, c->after->ref->n,
				record_ref(c->after));
		else
			map_del(&m->rows, ref->s, ref->n);
		record_unref(known);
	}
}

static void mirror_deinit(struct mirror *m)
{
	struct record *r;

	for (size_t i = 0; (r = map_next(&m->rows, &i));)
		record_unref(r);
	map_deinit(&m->rows);
}

/* Computing anew. */

static bool points_to(const struct record *r, unsigned field,
		      const struct value *ref)
{
	return value_equal(r->fields[field], ref);
}

static size_t count_pointing(const struct store *s, const struct field_def *f,
			     const struct value *ref)
{
	size_t n = 0;

	for (struct record *r = store_first(s, f->other_class); r;
	     r = store_next(s, r))
		n += points_to(r, (unsigned)f->other_field, ref);
	return n;
}

static void check_derived(const struct store *s, const struct record *r,
			  unsigned field)
{
	const struct field_def *f = &r->cls->fields[field];
	const struct value *set = r->fields[field];

	assert_int_equal(set->n, count_pointing(s, f, r->ref));
	for (size_t i = 0; i < set->n; i++) {
		const struct record *other =
			store_get_class(s, f->other_class,
					value_str(set->items[i]));

		assert_non_null(other);
		assert_true(points_to(other, (unsigned)f->other_field, r->ref));
		assert_true(i == 0 || value_str_cmp(set->items[i - 1],
						    set->items[i]) < 0);
	}
}

static void check_both(const struct store *s, const struct record *r,
		       unsigned field)
{
	const struct field_def *f = &r->cls->fields[field];

	for (struct record *other = store_first(s, f->other_class); other;
	     other = store_next(s, other))
		assert_int_equal(
			value_set_has(r->fields[field], other->ref),
			value_set_has(other->fields[f->other_field], r->ref));
}

/* The digest's definition, written a second time. */
static struct hash128 hash_anew(const struct record *r)
{
	struct { const char *name; unsigned field; } order[256];
	const struct class_def *c = r->cls;
	struct buf b = BUF_INIT;
	struct hash128 h;
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_fields; i++) {
		unsigned at = n++;

		while (at > 0 && strcmp(order[at - 1].name,
					c->fields[i].name) > 0) {
			order[at] = order[at - 1];
			at--;
		}
		order[at].name = c->fields[i].name;
		order[at].field = i;
	}
	buf_put_bytes(&b, c->name, strlen(c->name));
	buf_put_bytes(&b, value_str(r->ref), r->ref->n);
	buf_put_u64(&b, r->created);
	buf_put_u64(&b, r->modified);
	for (unsigned i = 0; i < n; i++) {
		_value_ d = schema_field_default(c, order[i].field);

		if (value_equal(d, r->fields[order[i].field]))
			continue;
		buf_put_bytes(&b, order[i].name, strlen(order[i].name));
		value_encode(&b, r->fields[order[i].field]);
	}
	h = hash128(b.data, b.len);
	buf_deinit(&b);
	return h;
}

static void check_name(const struct store *s, const struct record *r,
		       unsigned field)
{
	const struct value *name = r->fields[field];
	_value_ same = store_by_name(s, r->cls->id, value_str(name));
	size_t n = 0;

	if (strlen(value_str(name)) != name->n)
		return; /* not to be asked for with a C string */
	assert_true(value_set_has(same, r->ref));
	for (struct record *o = store_first(s, r->cls->id); o;
	     o = store_next(s, o))
		n += value_equal(o->fields[field], name);
	assert_int_equal(same->n, n);
}

static void check_indexes(const struct store *s, const struct record *r)
{
	const struct class_def *c = r->cls;
	const struct value *uuid = r->fields[c->f_uuid];

	assert_ptr_equal(store_get(s, value_str(r->ref)), r);
	if (strlen(value_str(uuid)) == uuid->n)
		assert_ptr_equal(store_by_uuid(s, c->id, value_str(uuid)), r);
	if (c->f_name_label >= 0)
		check_name(s, r, (unsigned)c->f_name_label);
}

static void check_row(const struct store *s, const struct record *r)
{
	for (unsigned f = 0; f < r->cls->n_fields; f++) {
		assert_true(schema_fits(r->cls->fields[f].type, r->fields[f]));
		if (field_is_derived(&r->cls->fields[f]))
			check_derived(s, r, f);
		if (field_is_both(r->cls, f))
			check_both(s, r, f);
	}
	check_indexes(s, r);
}

static void check_all(const struct store *s, const struct mirror *m)
{
	struct hash128 sum = { 0, 0 };
	size_t rows = 0;

	for (unsigned c = 0; c < schema_n_classes; c++) {
		uint64_t last = 0;
		size_t n = 0;

		for (struct record *r = store_first(s, (int)c); r;
		     r = store_next(s, r), n++) {
			assert_true(r->modified >= last);
			last = r->modified;
			hash128_add(&sum, hash_anew(r));
			check_row(s, r);
			assert_ptr_equal(map_get(&m->rows, r->ref->s,
						 r->ref->n), r);
		}
		assert_int_equal(n, store_count(s, (int)c));
		rows += n;
	}
	assert_int_equal(m->rows.count, rows);
	assert_true(hash128_equal(sum, s->sum));
	assert_true(store_relations_agree(s));
}

static void check_view(const struct store *s)
{
	struct store_view *v = store_view_new(s);
	struct store *copy = store_new();

	assert_true(store_load(copy, v));
	assert_digest(s, copy);
	assert_int_equal(copy->targets.count, s->targets.count);
	assert_int_equal(copy->uuids.count, s->uuids.count);
	store_view_free(v);
	store_free(copy);
}

/* Applies t to other after a trip through bytes. */
static struct txn_result apply_bytes(struct store *other, const struct txn *t)
{
	struct buf b = BUF_INIT;
	struct txn_result result;
	struct reader r;

	txn_encode(&b, t);
	r = reader_of(b.data, b.len);
	{
		_txn_ copy = txn_decode(&r);

		assert_non_null(copy);
		result = store_apply(other, copy);
	}
	buf_deinit(&b);
	return result;
}

static void step(struct store *s, struct store *other, unsigned *counts)
{
	_txn_ t = random_txn(s);
	struct hash128 before = store_digest(s);
	uint64_t generation = store_generation(s);
	struct txn_result a, b;

	a = store_apply(s, t);
	b = apply_bytes(other, t);
	assert_int_equal(a.status, b.status);
	assert_int_equal(a.item, b.item);
	assert_int_equal(a.generation, b.generation);
	assert_int_equal(a.generation, store_generation(s));
	assert_digest(s, other);
	assert_int_equal(hash128_equal(before, store_digest(s)),
			 a.generation == generation);
	if (a.status != TXN_OK)
		assert_int_equal(a.generation, generation);
	counts[a.status]++;
}

/* The copy takes over in the middle: a member that came up from a snapshot
 * goes on exactly like one that was there from the start. */
static struct store *replaced_by_copy(struct store *s)
{
	struct store_view *v = store_view_new(s);
	struct store *copy = store_new();

	assert_true(store_load(copy, v));
	store_view_free(v);
	store_free(s);
	return copy;
}

static void test_random(void **state)
{
	_cleanup_(mirror_deinit) struct mirror m = { 0 };
	struct store *s = store_new(), *other = store_new();
	unsigned counts[TXN_INVALID + 1] = { 0 };
	uint64_t seed = world_seed_or(42);

	world_start(seed);
	store_set_observer(s, mirror_change, &m);
	for (unsigned i = 1; i <= TXNS; i++) {
		step(s, other, counts);
		if (i % CHECK_EVERY == 0) {
			check_all(s, &m);
			check_view(s);
		}
		if (i % (CHECK_EVERY * 4) == 0)
			other = replaced_by_copy(other);
	}
	print_message("seed %llu: ok %u, conflict %u, no object %u, duplicate "
		      "key %u, not unique %u, invalid %u; %zu rows\n",
		      (unsigned long long)seed, counts[0], counts[1],
		      counts[2], counts[3], counts[4], counts[5],
		      s->rows.count);
	for (unsigned i = 0; i <= TXN_INVALID; i++)
		assert_true(counts[i] > 0);
	store_free(s);
	store_free(other);
}

/* No assertion on time: the numbers are for who reads the log. */
static void test_speed(void **state)
{
	enum { N = 100000, ROWS = 1000 };
	struct store *s = store_new();
	struct txn **txns = xcalloc(N, sizeof(*txns));
	char ref[32];
	double start;

	world_start(1);
	for (unsigned i = 0; i < ROWS; i++) {
		snprintf(ref, sizeof(ref), "vm%u", i);
		apply_new(s, CLS(VM), ref);
	}
	for (unsigned i = 0; i < N; i++) {
		snprintf(ref, sizeof(ref), "vm%u", i % ROWS);
		txns[i] = txn_new("bench");
		txn_set(txns[i], CLS(VM), ref, F_VM_user_version,
			value_int((int64_t)i + 1));
	}
	start = seconds();
	for (unsigned i = 0; i < N; i++)
		store_apply(s, txns[i]);
	print_message("single-field sets of VMs: %.0f a second\n",
		      N / (seconds() - start));
	assert_int_equal(store_generation(s), ROWS + N);
	for (unsigned i = 0; i < N; i++)
		txn_free(txns[i]);
	free(txns);
	store_free(s);
}

/* The worst derived set: every VM on one host. */
static void test_speed_of_a_crowd(void **state)
{
	enum { N = 2000 };
	struct store *s = store_new();
	struct txn *t = txn_new("bench");
	char ref[32];
	double start;

	put_new(t, CLS(host), "host");
	for (unsigned i = 0; i < N; i++) {
		snprintf(ref, sizeof(ref), "vm%u", i);
		put_new(t, CLS(VM), ref);
	}
	assert_int_equal(apply_free(s, t).status, TXN_OK);
	start = seconds();
	for (unsigned i = 0; i < N; i++) {
		snprintf(ref, sizeof(ref), "vm%u", i);
		apply_set(s, CLS(VM), ref, F_VM_resident_on,
			  value_stringz("host"));
	}
	print_message("VMs coming to one host, up to %u: %.0f a second\n", N,
		      N / (seconds() - start));
	assert_int_equal(store_get(s, "host")->fields[F_host_resident_VMs]->n,
			 N);
	store_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_speed),
		cmocka_unit_test(test_speed_of_a_crowd),
	};

	return cmocka_run_group_tests_name("store_random", tests, NULL, NULL);
}
