#include "raftdb/store_check.h"

#include <inttypes.h>
#include <stdio.h>

#include "raftdb/store_impl.h"

void check_result_deinit(struct check_result *c)
{
	buf_deinit(&c->text);
}

void check_finding(struct check_result *c, const char *fmt, ...)
{
	char line[600];
	va_list ap;

	if (c->findings++ >= CHECK_LINES)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	buf_puts(&c->text, line);
	buf_putc(&c->text, '\n');
}

/* ---- a row by itself ---- */

static bool fields_fit(const struct record *r, struct check_result *c)
{
	for (unsigned i = 0; i < r->cls->n_fields; i++) {
		if (r->fields[i] &&
		    schema_fits(r->cls->fields[i].type, r->fields[i]))
			continue;
		check_finding(c, "%s %s: %s is not of type %s", r->cls->name,
			      value_str(r->ref), r->cls->fields[i].name,
			      r->cls->fields[i].type->text);
		return false;
	}
	return true;
}

static bool is_alone(const struct store *s, const struct record *r,
		     struct check_result *c)
{
	const struct value *uuid = r->cls->f_uuid >= 0 ?
		r->fields[r->cls->f_uuid] : NULL;

	if (store_row(s, r->ref->s, r->ref->n))
		check_finding(c, "%s %s: its reference is there twice",
			      r->cls->name, value_str(r->ref));
	else if (uuid && map_get(&s->uuids, uuid->s, uuid->n))
		check_finding(c, "%s %s: its uuid %s is there twice",
			      r->cls->name, value_str(r->ref), value_str(uuid));
	else
		return true;
	return false;
}

static void check_stamps(const struct record *r, uint64_t generation,
			 struct check_result *c)
{
	if (r->created > r->modified || r->modified > generation)
		check_finding(c, "%s %s: created at %" PRIu64 ", changed at %"
			      PRIu64 ", but the generation is %" PRIu64,
			      r->cls->name, value_str(r->ref), r->created,
			      r->modified, generation);
}

/* ---- between rows ---- */

static void check_derived(const struct store *s, const struct record *r,
			  struct check_result *c)
{
	const struct table *t = store_table(s, r->cls);
	const struct target *target = map_get(&s->targets, r->ref->s, r->ref->n);

	for (size_t i = 0; i < t->n_derived; i++) {
		const struct field_def *f = &r->cls->fields[t->derived[i]];
		struct value *set = store_pointing(target, f->other_class,
						   f->other_field);

		if (!value_equal(set, r->fields[t->derived[i]]))
			check_finding(c, "%s %s: %s has %u members, %u point "
				      "to it by %s.%s", r->cls->name,
				      value_str(r->ref), f->name,
				      (unsigned)r->fields[t->derived[i]]->n,
				      (unsigned)set->n,
				      schema_classes[f->other_class].name,
				      schema_classes[f->other_class]
					      .fields[f->other_field].name);
		value_unref(set);
	}
}

static void check_links(const struct store *s, const struct row *row,
			struct check_result *c)
{
	const struct record *r = row->rec;

	list_for_each(it, &row->links) {
		const struct link *l = list_entry(it, struct link, in_row);
		const struct field_def *f = &r->cls->fields[l->field];
		const struct value *ref = l->target->ref;
		const struct row *other = store_row(s, ref->s, ref->n);

		c->references++;
		if (!other) {
			c->dangling += !value_is_null_ref(ref);
			continue;
		}
		if (field_is_one(f) || other->rec->cls->id != f->other_class ||
		    value_set_has(other->rec->fields[f->other_field], r->ref))
			continue;
		check_finding(c, "%s %s: %s names %s, which does not name it",
			      r->cls->name, value_str(r->ref), f->name,
			      value_str(ref));
	}
}

void store_check_view(const struct store_view *v, struct check_result *c)
{
	struct store *s = store_new();
	const struct row *row;

	for (size_t i = 0; i < v->n_rows; i++) {
		struct record *r = v->rows[i];

		check_stamps(r, v->generation, c);
		if (fields_fit(r, c) && is_alone(s, r, c))
			store_insert(s, record_ref(r));
	}
	c->rows = v->n_rows;
	for (size_t i = 0; (row = map_next(&s->rows, &i));) {
		check_derived(s, row->rec, c);
		check_links(s, row, c);
	}
	s->generation = v->generation;
	if (!hash128_equal(store_digest(s), v->digest))
		check_finding(c, "the state's digest is not that of its rows");
	store_free(s);
}

/* ---- indexes ---- */

void store_check_indexes(const struct store *s, const struct record *r,
			 struct check_result *c)
{
	int uuid = r->cls->f_uuid, name = r->cls->f_name_label;
	struct value *named;

	if (uuid >= 0 && store_by_uuid(s, r->cls->id, record_str(
						r, (unsigned)uuid)) != r)
		check_finding(c, "%s %s: not found by its uuid", r->cls->name,
			      value_str(r->ref));
	if (name < 0)
		return;
	named = map_get(&store_table(s, r->cls)->names, r->fields[name]->s,
			r->fields[name]->n);
	if (!named)
		check_finding(c, "%s %s: not found by its name", r->cls->name,
			      value_str(r->ref));
}
