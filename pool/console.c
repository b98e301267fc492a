/* member.open_console: may this session use that console, and who serves it?
 * The front end asks before it lets bytes through. wanted holds "ref" (of a
 * console or VM) or "uuid" (of a VM or console; it wins), "websocket" when that
 * is how the client came, and "relayed" when another member asks for a client
 * of its own: then the console has to be here.
 *
 * The result of a console of this host is empty and has its stream beside it
 * (call.fd); of another host's it holds where to ask: address, port and
 * fingerprint of its member.
 */
#include <string.h>

#include "base/text.h"
#include "pool/core.h"
#include "pool/member_calls.h"

static struct record *with_protocol(const struct store *s,
				    const struct record *vm,
				    const char *protocol)
{
	const struct value *set = vm->fields[F_VM_consoles];

	for (uint32_t i = 0; i < set->n; i++) {
		struct record *c = store_get_class(s, CLASS_console,
						   value_str(set->items[i]));

		if (c && !strcmp(record_str(c, F_console_protocol), protocol))
			return c;
	}
	return NULL;
}

/* A VM stands for its graphical console, or else for its text. */
static struct record *of_vm(const struct store *s, const struct record *vm)
{
	struct record *c = with_protocol(s, vm, "rfb");

	return c ? c : with_protocol(s, vm, "vt100");
}

static struct record *find_console(const struct store *s,
				   const struct value *wanted)
{
	const char *uuid = value_get_str(wanted, "uuid");
	const char *ref = value_get_str(wanted, "ref");
	struct record *vm = *uuid ? store_by_uuid(s, CLASS_VM, uuid) :
				    store_get_class(s, CLASS_VM, ref);

	if (vm)
		return of_vm(s, vm);
	return *uuid ? store_by_uuid(s, CLASS_console, uuid) :
		       store_get_class(s, CLASS_console, ref);
}

/* False: the request has ended. */
static bool may_connect(struct req *r, const struct record *vm, bool ws)
{
	const char *permission = ws ? "http/connect_console_ws" :
				      "http/connect_console";
	const char *host = ws ? "http/connect_console_ws/host_console_ws" :
				"http/connect_console/host_console";

	if (!req_may(r, permission))
		host = permission;
	else if (!record_bool(vm, F_VM_is_control_domain) || req_may(r, host))
		return true;
	req_fail_value(r, rbac_denied(host));
	return false;
}

static void on_stream(void *data, int fd, struct value *takes_error)
{
	struct req *r = data;

	if (takes_error) {
		req_fail_value(r, takes_error);
		return;
	}
	r->call->fd = fd;
	req_reply(r, value_map_of(NULL));
}

static void serve_here(struct req *r, const struct record *console,
		       const struct record *vm)
{
	const struct pool_hooks *h = &r->pool->hooks;
	bool raw = strcmp(record_str(console, F_console_protocol), "rfb") != 0;

	if (!h->console) {
		req_fail(r, "NOT_IMPLEMENTED", "console", NULL);
		return;
	}
	req_park(r);
	h->console(h->data, record_bool(vm, F_VM_is_control_domain) ? "" :
			    record_str(vm, F_VM_uuid), raw, on_stream, r);
}

static struct record *member_of(const struct store *s,
				const struct record *host)
{
	for (struct record *m = store_first(s, CLASS_member); m;
	     m = store_next(s, m))
		if (value_equal(m->fields[F_member_host], host->ref))
			return m;
	return NULL;
}

/* Which of the host's ports: as its consoles' locations say it. */
static void serve_there(struct req *r, const struct record *host)
{
	const struct record *m = member_of(req_store(r), host);
	const char *port = value_get_str(host->fields[F_host_other_config],
					 HOST_PORT_KEY);

	if (value_get(req_arg(r, 0), "relayed") || !m) {
		req_fail(r, "HOST_OFFLINE", value_str(host->ref), NULL);
		return;
	}
	req_reply(r, value_map_of(
		"address", value_ref(host->fields[F_host_address]),
		"port", value_stringz(*port ? port : "443"),
		"fingerprint", value_ref(m->fields[F_member_fingerprint]),
		NULL));
}

void member_open_console(struct req *r)
{
	const struct store *s = req_store(r);
	const struct value *wanted = req_arg(r, 0);
	struct record *console = find_console(s, wanted), *vm, *host;
	const char *asked = value_get_str(wanted, "uuid");

	vm = console ? store_get_class(s, CLASS_VM, record_str(console,
							F_console_VM)) : NULL;
	if (!vm) {
		req_fail(r, "HANDLE_INVALID", "console",
			 *asked ? asked : value_get_str(wanted, "ref"), NULL);
		return;
	}
	if (!may_connect(r, vm, value_get(wanted, "websocket")))
		return;
	host = store_get_class(s, CLASS_host, record_str(vm, F_VM_resident_on));
	if (!host || strcmp(record_str(vm, F_VM_power_state), "Running"))
		req_fail_value(r, vm_bad_power_state(vm, "running"));
	else if (host == pool_this_host(r->pool))
		serve_here(r, console, vm);
	else
		serve_there(r, host);
}
