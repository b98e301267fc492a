/* API errors that more than one file of the pool's core gives. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pool/core.h"

struct value *error_handle_invalid(int cls, const char *ref)
{
	return api_error("HANDLE_INVALID", schema_classes[cls].name, ref, NULL);
}

struct value *error_internal(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return api_error("INTERNAL_ERROR", text, NULL);
}

struct value *error_of_errno(const struct pool *p, int error)
{
	struct record *master;

	switch (error) {
	case -ENOSPC:
		return api_error("OUT_OF_SPACE", "pool database", NULL);
	case -E2BIG:
		return error_internal("The change is larger than one "
				      "transaction may be");
	default:
		/* No majority answers, so it is not known who is the master
		 * or whether a write will still happen. */
		master = pool_master(p);
		return api_error("CANNOT_CONTACT_HOST",
				 master ? value_str(master->ref) : REF_NULL,
				 NULL);
	}
}

static struct value *error_no_object(const struct req *r)
{
	const struct method_def *m = r->method;

	for (unsigned i = 0; i < m->n_params && i < r->call->n_args; i++)
		if (m->params[i].type->kind == TYPE_REF)
			return error_handle_invalid(m->params[i].type->id,
						    req_arg_str(r, i));
	return error_internal("An object of the operation has gone");
}

static struct value *error_duplicate_key(const struct req *r)
{
	const struct method_def *m = r->method;
	const struct class_def *c = &schema_classes[m->cls];

	if (m->field < 0 || r->call->n_args < 2)
		return error_internal("A map key exists already");
	return api_error("MAP_DUPLICATE_KEY", c->name,
			 c->fields[m->field].db_name, req_arg_str(r, 0),
			 req_arg_str(r, 1), NULL);
}

struct value *error_of_txn(const struct req *r, const struct txn_result *result)
{
	const char *class_name = schema_classes[r->method->cls].name;

	switch (result->status) {
	case TXN_NO_OBJECT:
		return error_no_object(r);
	case TXN_DUPLICATE_KEY:
		return error_duplicate_key(r);
	case TXN_NOT_UNIQUE:
		return api_error("DB_UNIQUENESS_CONSTRAINT_VIOLATION",
				 class_name, "uuid", "", NULL);
	case TXN_CONFLICT:
		return error_internal("%s: others change the same objects all "
				      "the time", r->method->name);
	default:
		return error_internal("%s: the transaction was refused "
				      "(status %d, item %u)", r->method->name,
				      (int)result->status,
				      (unsigned)result->item);
	}
}
