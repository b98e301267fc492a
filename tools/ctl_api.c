/* xenpoolctl api: what the tables say, without a daemon. */
#include <stdio.h>

#include "pool/pool.h"
#include "tools/ctl.h"

static bool is_public(const struct method_def *m)
{
	return !(schema_classes[m->cls].flags & CLASS_PRIVATE);
}

static int print_missing(void)
{
	const char *name;
	size_t n = 0;

	for (; (name = pool_missing_message(n)); n++)
		puts(name);
	fprintf(stderr, "%zu messages answer NOT_IMPLEMENTED\n", n);
	return 0;
}

static int print_counts(void)
{
	unsigned classes = 0, fields = 0, custom = 0, generated = 0, async = 0;
	size_t missing = 0;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		if (schema_classes[i].flags & CLASS_PRIVATE)
			continue;
		classes++;
		fields += schema_classes[i].n_fields;
	}
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];

		if (!is_public(m))
			continue;
		*(m->kind == METHOD_CUSTOM ? &custom : &generated) += 1;
		async += !!(m->flags & METHOD_ASYNC);
	}
	while (pool_missing_message(missing))
		missing++;
	printf("classes             %u\nfields              %u\n"
	       "generated messages  %u\ncustom messages     %u\n"
	       "  not built yet     %zu (--missing lists them)\n"
	       "asynchronous forms  %u\n",
	       classes, fields, generated, custom, missing, async);
	return 0;
}

int ctl_api(int argc, char **argv)
{
	static const char help[] =
		"usage: xenpoolctl api [--missing]\n\n"
		"Counts the parts of the API that this program knows.\n"
		"  --missing  list the messages that answer NOT_IMPLEMENTED\n";
	const char *missing = NULL;
	const struct ctl_option options[] = {
		{ "missing", false, &missing }, { NULL, false, NULL },
	};
	int r = ctl_parse(&argc, &argv, options, help);

	if (r || argc > 0)
		return r > 0 ? 0 : 2;
	return missing ? print_missing() : print_counts();
}
