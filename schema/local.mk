noinst_LIBRARIES += schema/libschema.a
schema_libschema_a_SOURCES = \
	schema/call.c schema/call.h \
	schema/coerce.c \
	schema/record.c schema/record.h \
	schema/schema.c schema/schema.h schema/tables.h \
	schema/value.c schema/value.h \
	schema/gen/schema_ids.h schema/gen/schema_tables.c

EXTRA_DIST += schema/class schema/alerts.schema schema/enums.schema \
	schema/errors.schema schema/releases.schema schema/roles.schema \
	schema/generate.py schema/model.py

# The output is committed: a build needs no generator.
.PHONY: generate
generate:
	$(PYTHON) $(srcdir)/schema/generate.py
