/* member.open_console: may this session use that console, and who serves it?
 * The front end asks before it lets bytes through. wanted holds "ref" (of a
 * console or VM) or "uuid" (of a VM or console; it wins), "websocket" when that
 * is how the client came, and "relayed" when another member asks for a client
 * of its own: then the console has to be here.
 *
 * The result of a console of this host has its stream beside it (call.fd), and
 * holds its protocol and after how many idle seconds (0: never) the viewer is to
 * be sent away; of another host's it holds where to ask: address, port and
 * fingerprint of its member.
 *
 * This host counts who has which of its consoles, by leases, since the pool may
 * allow one at a time only (pool.limit_console_sessions).
 */
#include <inttypes.h>
#include <stdio.h>
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

#define IDLE_MAX_S (365 * 24 * 3600)

/* ---- who has one ---- */

struct viewer {
	struct lease *lease;
	char vm[REF_LEN + 1];
	struct list link;
};

struct console_state {
	struct list viewers;
};

static int console_init(struct pool *p)
{
	p->consoles = xmalloc(sizeof(*p->consoles));
	list_init(&p->consoles->viewers);
	return 0;
}

static void viewer_free(struct viewer *v)
{
	list_remove(&v->link);
	lease_release(v->lease);
	free(v);
}

static void console_free(struct pool *p)
{
	list_for_each_safe(l, &p->consoles->viewers)
		viewer_free(list_entry(l, struct viewer, link));
	free(p->consoles);
}

const struct pool_module console_module = {
	.name = "console", .init = console_init, .free = console_free,
};

/* Those who have gone are found here: nobody else asks. */
static bool has_viewer(const struct pool *p, const struct record *vm)
{
	bool found = false;

	list_for_each_safe(l, &p->consoles->viewers) {
		struct viewer *v = list_entry(l, struct viewer, link);

		if (!lease_is_held(v->lease))
			viewer_free(v);
		else
			found |= !strcmp(v->vm, value_str(vm->ref));
	}
	return found;
}

static struct lease *viewer_new(struct pool *p, const struct record *vm)
{
	struct viewer *v = xcalloc(1, sizeof(*v));

	v->lease = lease_new();
	snprintf(v->vm, sizeof(v->vm), "%s", value_str(vm->ref));
	list_push(&p->consoles->viewers, &v->link);
	return v->lease;
}

/* ---- a console of this host ---- */

static struct value *answer(const struct req *r, const struct record *console,
			    const struct record *vm)
{
	int64_t idle_s = record_bool(vm, F_VM_is_control_domain) ?
		record_int(pool_this_host(r->pool),
			   F_host_console_idle_timeout) :
		record_int(pool_row(r->pool), F_pool_vm_console_idle_timeout);
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64,
		 MIN(MAX(idle_s, (int64_t)0), (int64_t)IDLE_MAX_S));
	return value_map_of("protocol",
			    value_ref(console->fields[F_console_protocol]),
			    "idle_s", value_stringz(text), NULL);
}

static void on_stream(void *data, int fd, struct value *takes_error)
{
	struct req *r = data;

	if (takes_error) {
		req_fail_value(r, takes_error);
		return;
	}
	r->call->fd = fd;
	req_reply(r, value_ref(r->memo));
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
	if (has_viewer(r->pool, vm) &&
	    record_bool(pool_row(r->pool), F_pool_limit_console_sessions)) {
		req_fail(r, CALL_CONSOLE_LIMIT, NULL);
		return;
	}
	value_unref(r->memo);
	r->memo = answer(r, console, vm);
	lease_release(r->call->lease);
	r->call->lease = viewer_new(r->pool, vm);
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

/* ---- timeouts ---- */

static bool timeout_is_good(struct req *r, int64_t value)
{
	char text[24];

	if (value >= 0 && value <= IDLE_MAX_S)
		return true;
	snprintf(text, sizeof(text), "%" PRId64, value);
	req_fail(r, "VALUE_NOT_SUPPORTED", "console_idle_timeout", text,
		 "It has to be between 0 (never) and a year of seconds", NULL);
	return false;
}

static void set_timeout(struct txn *t, const struct record *host, int64_t value)
{
	txn_set(t, host->cls, value_str(host->ref), F_host_console_idle_timeout,
		value_int(value));
}

void host_set_console_idle_timeout(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);
	int64_t value = req_arg_int(r, 1);
	struct txn *t;

	if (!host || !timeout_is_good(r, value))
		return;
	t = req_txn(r);
	set_timeout(t, host, value);
	req_commit(r, t, NULL);
}

void pool_set_console_idle_timeout(struct req *r)
{
	const struct store *s = req_store(r);
	int64_t value = req_arg_int(r, 1);
	struct txn *t;

	if (!req_arg_record(r, 0, CLASS_pool) || !timeout_is_good(r, value))
		return;
	t = req_txn(r);
	for (struct record *h = store_first(s, CLASS_host); h;
	     h = store_next(s, h))
		set_timeout(t, h, value);
	req_commit(r, t, NULL);
}
