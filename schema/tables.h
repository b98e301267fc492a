/* What the generated tables hold besides schema.h's: for schema.c only. */
#ifndef SCHEMA_TABLES_H
#define SCHEMA_TABLES_H

#include "schema/gen/schema_ids.h"
#include "schema/schema.h"

/* The fields of all classes and the parameters of all methods, each in one
 * array, so that a row's place is a number. */
extern const struct field_def schema_fields[]; /* SCHEMA_FIELDS */
extern const struct param_def schema_params[]; /* SCHEMA_PARAMS */

/* A perfect hash: the low bits of a name's hash choose a shift, hash and shift
 * choose the only slot in which the name can be. Both masks are sizes - 1. */
struct name_index {
	const int16_t *slots; /* a row's number; -1: free */
	uint32_t slot_mask;
	const uint16_t *shifts;
	uint32_t shift_mask;
};

extern const struct name_index schema_index_classes; /* lower-case names */
extern const struct name_index schema_index_methods;
extern const struct name_index schema_index_errors;
extern const struct name_index schema_index_alerts;
extern const struct name_index schema_index_fields; /* seed: class + 1 */

#endif
