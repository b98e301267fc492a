/* host.call_plugin: scripts in a host's plugins folder are not there (yet); one
 * plugin is built in, "xenpool", through which the project's own tools ask a
 * member what the API has no call for.
 */
#include <string.h>

#include "pool/req.h"

struct plugin_function {
	const char *name;
	void (*fn)(struct req *r);
};

static void plugin_status(struct req *r)
{
	const struct pool_hooks *h = &r->pool->hooks;
	_cleanup_(freep) char *text = h->status ? h->status(h->data) : NULL;

	req_reply(r, value_stringz(text ? text : "{}"));
}

static void on_tool(void *data, const char *text, const char *error)
{
	struct req *r = data;

	if (text)
		req_reply(r, value_stringz(text));
	else
		req_fail(r, "XENAPI_PLUGIN_FAILURE", "failed", error, "", NULL);
}

/* Parked at first: the answer may come at once. */
static void plugin_tool(struct req *r, const char *fn)
{
	const struct pool_hooks *h = &r->pool->hooks;

	req_park(r);
	if (!h->tool || !h->tool(h->data, fn, req_arg(r, 3), on_tool, r))
		req_fail(r, "XENAPI_PLUGIN_FAILURE", "unknown function", fn, "",
			 NULL);
}

static const struct plugin_function functions[] = {
	{ "status", plugin_status },
};

static void host_call_plugin(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	const char *plugin = req_arg_str(r, 1), *fn = req_arg_str(r, 2);

	if (!host)
		return;
	if (strcmp(plugin, "xenpool")) {
		req_fail(r, "XENAPI_MISSING_PLUGIN", plugin, NULL);
		return;
	}
	if (host != pool_this_host(r->pool)) {
		req_fail(r, "XENAPI_PLUGIN_FAILURE", "wrong host",
			 "the xenpool plugin answers for the host that is "
			 "connected to (session.get_this_host)", "", NULL);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
		if (!strcmp(functions[i].name, fn)) {
			functions[i].fn(r);
			return;
		}
	}
	plugin_tool(r, fn);
}

const struct handler_def plugin_handlers[] = {
	{ M_host_call_plugin, host_call_plugin },
	{ -1, NULL },
};
