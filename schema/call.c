#include "schema/call.h"

#include <stdarg.h>
#include <unistd.h>

struct call *call_new(void)
{
	struct call *c = xcalloc(1, sizeof(*c));

	atomic_init(&c->gone, false);
	c->age_ms = -1;
	c->fd = -1;
	return c;
}

void call_free(struct call *c)
{
	if (!c)
		return;
	free(c->name);
	value_unref(c->session);
	for (unsigned i = 0; i < CALL_MAX_ARGS; i++)
		value_unref(c->args[i]);
	value_unref(c->result);
	value_unref(c->error);
	if (c->fd >= 0)
		close(c->fd);
	lease_release(c->lease);
	free(c);
}

/* done() takes the call: nobody may touch it afterwards. */
static void finish(struct call *c)
{
	if (c->done)
		c->done(c);
}

void call_reply(struct call *c, struct value *result)
{
	xassert(!c->result && !c->error && result);
	c->result = result;
	finish(c);
}

void call_fail_value(struct call *c, struct value *error)
{
	xassert(!c->result && !c->error);
	xassert(error->kind == VALUE_SET && error->n > 0);
	c->error = error;
	finish(c);
}

static struct value *error_from(const char *code, va_list ap)
{
	struct value *error;
	va_list again;
	size_t n = 1;

	va_copy(again, ap);
	while (va_arg(again, const char *))
		n++;
	va_end(again);
	error = value_set_new(n);
	for (size_t i = 0; i < n; i++)
		error->items[i] = value_stringz(
			i == 0 ? code : va_arg(ap, const char *));
	return error;
}

struct value *api_error(const char *code, ...)
{
	struct value *error;
	va_list ap;

	va_start(ap, code);
	error = error_from(code, ap);
	va_end(ap);
	return error;
}

void call_fail(struct call *c, const char *code, ...)
{
	struct value *error;
	va_list ap;

	va_start(ap, code);
	error = error_from(code, ap);
	va_end(ap);
	call_fail_value(c, error);
}
