/* In the order in which things happen:
 *
 *   head -> [login] -> open -> here: stream -> 200, bytes
 *                          \-> there: relay to that member -> 200, bytes
 *
 * Who brings no session but a password (or is root on the Unix socket) gets a
 * session for as long as it takes to open the console. The core is asked by
 * ordinary calls, so whatever holds for these (roles, read barrier, delay after
 * a wrong password) holds here.
 */
#include "rpc/console.h"

#include <stdio.h>
#include <string.h>

#include "rpc/dispatch.h"
#include "rpc/param.h"
#include "rpc/stream.h"
#include "rpc/websocket.h"

#define REF_MAX 128

struct console {
	char session[REF_MAX], ref[REF_MAX], uuid[REF_MAX];
	bool own_session; /* made here, to be ended here */
	bool logging_out;
	bool websocket, offers_binary;
	char accept[WS_ACCEPT_LEN + 1];
};

void console_free(struct console *con)
{
	free(con);
}

/* ---- calls ---- */

/* Takes params, a set. */
static void ask_core(struct conn *c, const char *method, struct value *params)
{
	struct rpc_request r = { .encoding = RPC_JSON_V2,
				 .method = xstrdup(method),
				 .params = params };
	struct call *call = call_new();

	conn_fill_origin(c, &call->origin);
	/* Our own calls fit the schema. */
	xassert(dispatch_request(&r, call));
	rpc_request_deinit(&r);
	conn_submit(c, call);
}

static struct value *params_of(struct value *a, struct value *b)
{
	struct value *set = value_set_new(2);

	set->items[0] = a;
	set->items[1] = b;
	return set;
}

static void ask_login(struct conn *c, const char *user, const char *password)
{
	ask_core(c, "session.login_with_password",
		 params_of(value_stringz(user), value_stringz(password)));
}

static void ask_open(struct conn *c)
{
	const struct console *con = c->console;
	struct value *items[8];
	size_t n = 0;

	items[2 * n] = value_stringz("ref");
	items[2 * n++ + 1] = value_stringz(con->ref);
	items[2 * n] = value_stringz("uuid");
	items[2 * n++ + 1] = value_stringz(con->uuid);
	if (con->websocket) {
		items[2 * n] = value_stringz("websocket");
		items[2 * n++ + 1] = value_stringz("true");
	}
	if (c->req.relayed) {
		items[2 * n] = value_stringz("relayed");
		items[2 * n++ + 1] = value_stringz("true");
	}
	ask_core(c, "member.open_console",
		 params_of(value_stringz(con->session),
			   value_map_from(items, n)));
}

/* Of all that may follow nothing waits for it. */
static bool log_out(struct conn *c)
{
	struct console *con = c->console;
	struct value *params;

	if (!con->own_session || c->call)
		return false;
	con->own_session = false;
	con->logging_out = true;
	params = value_set_new(1);
	params->items[0] = value_stringz(con->session);
	ask_core(c, "session.logout", params);
	return true;
}

/* ---- success ---- */

static void put_head(struct conn *c)
{
	const struct console *con = c->console;

	if (!con->websocket) {
		buf_puts(&c->out, "HTTP/1.1 200 OK\r\n"
				  "Connection: keep-alive\r\n"
				  "Cache-Control: no-cache, no-store\r\n\r\n");
		return;
	}
	buf_printf(&c->out,
		   "HTTP/1.1 101 Switching Protocols\r\n"
		   "Upgrade: websocket\r\n"
		   "Connection: Upgrade\r\n"
		   "Sec-WebSocket-Accept: %s\r\n"
		   "%s\r\n",
		   con->accept, con->offers_binary ?
			   "Sec-WebSocket-Protocol: binary\r\n" : "");
}

/* The head goes in a write of its own: clients throw away what comes with it.
 * The stream reads nothing before it has left. */
void console_ready(struct conn *c)
{
	log_out(c);
	put_head(c);
	conn_send_stream(c);
}

static void open_here(struct conn *c, struct call *call)
{
	const char *idle_s = value_get_str(call->result, "idle_s");
	struct stream_watch watch = {
		.lease = TAKE_PTR(call->lease),
		.rfb = !strcmp(value_get_str(call->result, "protocol"), "rfb"),
		.idle_ms = 1000 * strtoull(idle_s, NULL, 10),
	};
	int fd = call->fd;

	call->fd = -1;
	if (stream_open(c, fd, c->console->websocket, &watch) < 0) {
		conn_refuse(c, 500, "The console's stream cannot be used");
		log_out(c);
		return;
	}
	conn_begin_stream(c);
	console_ready(c);
}

/* ---- the console is another member's ---- */

static void open_there(struct conn *c, const struct value *where)
{
	const struct console *con = c->console;
	const char *port = value_get_str(where, "port");
	_cleanup_(buf_deinit) struct buf request = BUF_INIT;
	struct stream_target to = {
		.address = value_get_str(where, "address"),
		.port = (unsigned)atoi(port) % 65536,
		.fingerprint = value_get_str(where, "fingerprint"),
	};

	buf_printf(&request, "CONNECT /console?%s=",
		   *con->uuid ? "uuid" : "ref");
	param_encode(&request, *con->uuid ? con->uuid : con->ref);
	buf_puts(&request, " HTTP/1.1\r\ncookie: session_id=");
	param_encode(&request, con->session);
	buf_puts(&request, "\r\nx-xenpool-relayed: 1\r\n\r\n");
	to.request = buf_cstr(&request);
	if (stream_relay(c, &to, con->websocket) < 0) {
		conn_refuse(c, 503, "The member that has the console cannot be "
				    "reached");
		log_out(c);
		return;
	}
	conn_begin_stream(c);
}

void console_refused(struct conn *c, int status, const char *why)
{
	bool known = status == 401 || status == 403 || status == 404 ||
		     status == 503 || status == HTTP_CONNECTION_LIMIT;

	conn_refuse(c, known ? status : 500, why);
	log_out(c);
}

/* ---- answers ---- */

static const struct {
	const char *code;
	int status;
} statuses[] = {
	{ "SESSION_INVALID", 401 },
	{ "SESSION_AUTHENTICATION_FAILED", 401 },
	{ "RBAC_PERMISSION_DENIED", 403 },
	{ "HANDLE_INVALID", 404 },
	{ "HOST_OFFLINE", 503 },
	{ "TOO_MANY_PENDING_TASKS", 503 },
	{ CALL_CONSOLE_LIMIT, HTTP_CONNECTION_LIMIT },
};

/* CODE: [ p1; p2 ] */
static void refuse_with(struct conn *c, const struct value *error)
{
	_cleanup_(buf_deinit) struct buf text = BUF_INIT;
	int status = 500;

	for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
		if (value_is_str(error->items[0], statuses[i].code))
			status = statuses[i].status;
	buf_printf(&text, "%s: [ ", value_str(error->items[0]));
	for (uint32_t i = 1; i < error->n; i++)
		buf_printf(&text, "%s%s", i > 1 ? "; " : "",
			   value_str(error->items[i]));
	buf_puts(&text, " ]");
	conn_refuse(c, status, buf_cstr(&text));
}

static void opened(struct conn *c, struct call *call)
{
	if (call->error) {
		refuse_with(c, call->error);
		log_out(c);
	} else if (call->fd >= 0) {
		open_here(c, call);
	} else {
		open_there(c, call->result);
	}
}

bool console_answered(struct conn *c, struct call *call)
{
	struct console *con = c->console;
	bool gone = c->state == CONN_CLOSED;

	if (con->logging_out) {
		con->logging_out = false;
	} else if (*con->session) {
		if (gone)
			log_out(c);
		else
			opened(c, call);
	} else if (call->error) {
		if (!gone)
			refuse_with(c, call->error);
	} else {
		snprintf(con->session, sizeof(con->session), "%s",
			 value_str(call->result));
		con->own_session = true;
		if (gone)
			log_out(c);
		else
			ask_open(c);
	}
	call_free(call);
	return c->call;
}

/* ---- the request ---- */

/* False: refused. */
static bool check_websocket(struct conn *c, struct console *con)
{
	const struct http_request *r = &c->req;
	const char *head = c->in.data;
	const char *version = head + r->ws_version.at;

	if (r->method == HTTP_CONNECT)
		return true;
	con->websocket = true;
	con->offers_binary = param_lists(&r->ws_protocol, head, "binary");
	if (!r->upgrade_websocket || !r->connection_upgrade || r->minor == 0 ||
	    r->ws_version.n != 2 || memcmp(version, "13", 2) != 0 ||
	    !ws_accept(head + r->ws_key.at, r->ws_key.n, con->accept) ||
	    (r->ws_protocol.n > 0 && !con->offers_binary)) {
		conn_refuse(c, 501, "This is no WebSocket request with the "
				    "protocol \"binary\"");
		return false;
	}
	return true;
}

static bool has_body(const struct http_request *r)
{
	return r->content_length > 0 || r->chunked;
}

static void begin(struct conn *c, struct console *con)
{
	char user[PARAM_MAX_CREDENTIAL] = "root";
	char password[PARAM_MAX_CREDENTIAL] = "";
	const char *head = c->in.data;
	bool basic = param_basic(&c->req, head, user, password);

	param_query(&c->req, head, "ref", con->ref, sizeof(con->ref));
	param_query(&c->req, head, "uuid", con->uuid, sizeof(con->uuid));
	param_cookie_or_query(&c->req, head, "session_id", con->session,
			      sizeof(con->session));
	buf_consume(&c->in, c->req.head_len);
	if (!*con->ref && !*con->uuid)
		conn_refuse(c, 400, "ref or uuid is needed");
	else if (*con->session)
		ask_open(c);
	else if (basic || c->local_root)
		ask_login(c, user, password);
	else
		conn_refuse(c, 401, "A session or a password is needed");
	explicit_bzero(password, sizeof(password));
}

void console_start(struct conn *c)
{
	struct front *f = c->thread->front;

	if (atomic_load(&f->n_streams) >= f->cfg.max_streams) {
		conn_refuse(c, 503, "Too many consoles are open");
		return;
	}
	if (has_body(&c->req)) {
		conn_refuse(c, 400, "A console's request has no body");
		return;
	}
	c->console = xcalloc(1, sizeof(*c->console));
	if (check_websocket(c, c->console))
		begin(c, c->console);
}
