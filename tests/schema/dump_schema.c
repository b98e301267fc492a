/* Prints what the compiled tables say about the public API, one fact a line,
 * in the form of the files beside it: dump_schema classes > classes.tsv.
 * check_facts.py compares the two.
 */
#include <stdio.h>
#include <string.h>

#include "schema/gen/schema_ids.h"
#include "schema/schema.h"

/* Flags in the order of their bits; "" is not printed. */
static const char *const class_flags[] = {
	"in_db", "volatile", "constructor", "events", "get_all", "private",
	"stored",
};
static const char *const field_flags[] = {
	"internal", "volatile", "ignore_fk", "effect", "",
};
static const char *const method_flags[] = {
	"async", "session", "hidden", "pool_internal", "emergency", "secret",
	"removed", "local", "no_current_operations",
};
static const char *const qualifiers[] = {
	[FIELD_RW] = "RW",
	[FIELD_CONSTRUCTOR] = "RO/constructor",
	[FIELD_RUNTIME] = "RO/runtime",
};
static const char *const kinds[METHOD_KIND_MAX] = {
	[METHOD_CUSTOM] = "custom",
	[METHOD_GET] = "get",
	[METHOD_SET] = "set",
	[METHOD_ADD] = "add",
	[METHOD_REMOVE] = "remove",
	[METHOD_ADD_TO] = "add_to",
	[METHOD_REMOVE_FROM] = "remove_from",
	[METHOD_GET_RECORD] = "get_record",
	[METHOD_GET_BY_UUID] = "get_by_uuid",
	[METHOD_GET_BY_NAME_LABEL] = "get_by_name_label",
	[METHOD_GET_ALL] = "get_all",
	[METHOD_GET_ALL_WHERE] = "get_all_where",
	[METHOD_GET_ALL_RECORDS] = "get_all_records",
	[METHOD_GET_ALL_RECORDS_WHERE] = "get_all_records_where",
	[METHOD_CREATE] = "create",
	[METHOD_DESTROY] = "destroy",
};

static void print_flags(unsigned flags, const char *const *names, size_t n)
{
	const char *sep = "\t";

	for (size_t i = 0; i < n; i++) {
		if (!(flags & 1u << i) || !*names[i])
			continue;
		printf("%s%s", sep, names[i]);
		sep = ",";
	}
	if (*sep == '\t')
		printf("\t-");
}

static void print_keys(const struct map_key_role *keys, unsigned n)
{
	printf("\t%s", n ? "" : "-");
	for (unsigned i = 0; i < n; i++)
		printf("%s%s:%s", i ? "," : "", keys[i].key,
		       schema_role_sets[keys[i].roles].name);
}

static const struct class_def *public_class(unsigned i)
{
	const struct class_def *c = &schema_classes[i];

	return c->flags & CLASS_PRIVATE ? NULL : c;
}

static void dump_classes(void)
{
	printf("#class\tsince\tflags\tmessage_roles\timplicit_roles\n");
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = public_class(i);

		if (!c)
			continue;
		printf("%s\t%s", c->name, c->since);
		print_flags(c->flags, class_flags, ARRAY_LEN(class_flags));
		printf("\t%s\t%s\n", schema_role_sets[c->message_roles].name,
		       schema_role_sets[c->implicit_roles].name);
	}
}

static void dump_field(const struct class_def *c, const struct field_def *f)
{
	printf("%s.%s\t%s\t%s\t%s\t%s", c->name, f->name, f->db_name,
	       f->type->text, qualifiers[f->qualifier],
	       f->default_json ? f->default_json : "-");
	print_flags(f->flags, field_flags, ARRAY_LEN(field_flags));
	printf("\t%s\t%s\t%s", schema_role_sets[f->readers].name,
	       schema_role_sets[f->writers].name, f->since);
	print_keys(f->map_keys, f->n_map_keys);
	printf("\n");
}

static void dump_fields(void)
{
	printf("#field\tdb_name\ttype\tqualifier\tdefault\tflags\treaders\t"
	       "writers\tsince\tmap_keys\n");
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = public_class(i);

		for (unsigned j = 0; c && j < c->n_fields; j++)
			dump_field(c, &c->fields[j]);
	}
}

static void print_errors(const struct method_def *m)
{
	printf("\t%s", m->errors[0] ? "" : "-");
	for (unsigned i = 0; m->errors[i]; i++)
		printf("%s%s", i ? "," : "", m->errors[i]);
}

static void print_param(const struct param_def *p)
{
	printf("\t%s %s%s%s%s", p->name, p->type->text,
	       p->default_json ? " = " : "",
	       p->default_json ? p->default_json : "",
	       p->secret ? " secret" : "");
}

static void dump_methods(void)
{
	printf("#method\tkind\tfield\tflags\troles\tstate\tsince\tresult\t"
	       "errors\tmap_keys\tparameters\n");
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];
		const struct class_def *c = public_class((unsigned)m->cls);

		if (!c)
			continue;

		printf("%s\t%s\t%s", m->name, kinds[m->kind],
		       m->field < 0 ? "-" : c->fields[m->field].name);
		print_flags(m->flags, method_flags, ARRAY_LEN(method_flags));
		printf("\t%s\t%s\t%s\t%s", schema_role_sets[m->roles].name,
		       m->state, m->since, m->result->text);
		print_errors(m);
		print_keys(m->map_keys, m->n_map_keys);
		for (unsigned j = 0; j < m->n_params; j++)
			print_param(&m->params[j]);
		printf("\n");
	}
}

static void dump_enums(void)
{
	printf("#enum\tvalues\n");
	for (unsigned i = 0; i < schema_n_enums; i++) {
		const struct enum_def *e = &schema_enums[i];

		printf("%s", e->name);
		for (unsigned j = 0; j < e->n_values; j++)
			printf("\t%s", e->values[j]);
		printf("\n");
	}
}

static void dump_errors(void)
{
	printf("#error\tparameters\n");
	for (unsigned i = 0; i < schema_n_errors; i++) {
		const struct error_def *e = &schema_errors[i];

		printf("%s%s", e->code, e->params ? "" : "\t?");
		for (unsigned j = 0; e->params && e->params[j]; j++)
			printf("\t%s", e->params[j]);
		printf("\n");
	}
}

/* A set bound to itself counts as many-many when it holds its own class. */
static const char *relation_name(const struct class_def *c,
				 const struct field_def *f)
{
	bool own = f->other_class == c->id &&
		   &c->fields[f->other_field] == f;
	const struct field_def *o =
		&schema_classes[f->other_class].fields[f->other_field];

	if (own)
		return f->type->item->id == c->id ? "many-many" : "self";
	if (f->relation == RELATION_ONE)
		return "one-many";
	/* Each is printed once, from the side whose name comes first. */
	if (f->relation == RELATION_BOTH) {
		int r = strcmp(c->name, schema_classes[f->other_class].name);

		return r < 0 || (r == 0 && strcmp(f->name, o->name) < 0) ?
			"many-many" : NULL;
	}
	return NULL;
}

static void dump_relations(void)
{
	printf("#field\tother\tkind\n");
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];

		for (unsigned j = 0; j < c->n_fields; j++) {
			const struct field_def *f = &c->fields[j];
			const struct class_def *o;
			const char *kind;

			if (f->other_class < 0 ||
			    !(kind = relation_name(c, f)))
				continue;
			o = &schema_classes[f->other_class];
			printf("%s.%s\t%s.%s\t%s\n", c->name, f->name,
			       o->name, o->fields[f->other_field].name, kind);
		}
	}
}

static void dump_roles(void)
{
	printf("#role\tuuid\tflags\n");
	for (unsigned i = 0; i < schema_n_roles; i++)
		printf("%u %s\t%s\t%s\n", i, schema_roles[i].name,
		       schema_roles[i].uuid,
		       schema_roles[i].internal ? "internal" : "-");
}

static void dump_role_sets(void)
{
	printf("#set\tmembers\n");
	for (unsigned i = 0; i < schema_n_role_sets; i++) {
		printf("%s", schema_role_sets[i].name);
		for (unsigned j = 0; j < schema_n_roles; j++)
			if (schema_role_sets[i].role_bits & 1u << j)
				printf("\t%s", schema_roles[j].name);
		printf("\n");
	}
}

static void dump_alerts(void)
{
	printf("#alert\tpriority\n");
	for (unsigned i = 0; i < schema_n_alerts; i++)
		printf("%s\t%d\n", schema_alerts[i].name,
		       schema_alerts[i].priority);
}

static const struct {
	const char *name;
	void (*dump)(void);
} dumps[] = {
	{ "classes", dump_classes },
	{ "fields", dump_fields },
	{ "methods", dump_methods },
	{ "enums", dump_enums },
	{ "errors", dump_errors },
	{ "relations", dump_relations },
	{ "roles", dump_roles },
	{ "role_sets", dump_role_sets },
	{ "alerts", dump_alerts },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < ARRAY_LEN(dumps); i++) {
		if (strcmp(dumps[i].name, argv[1]) != 0)
			continue;
		dumps[i].dump();
		return fflush(stdout) == 0 ? 0 : 1;
	}
	fprintf(stderr, "usage: dump_schema TABLE\n");
	return 2;
}
