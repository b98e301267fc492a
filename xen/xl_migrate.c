/* The executor's part of a migration: phases, and the process that waits for a
 * guest while its job has long ended.
 *
 * Source:       HOME -> SENDING -> SENT -> (finish) gone
 *                          `--------`----> (abort) HOME
 * Destination:  HOME -> EXPECTED -> ARRIVED -> (activate) HOME
 *                          `----------`------> (abort) gone
 * SENDING is on disk before anything is sent, ARRIVED before the source is told,
 * `activated` before the copy is let run. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/xl.h"

#define LISTEN_MS 60000
#define AWAIT_MS 3600000 /* for the guest, from its announcement on */
#define SEND_MS 3600000
#define SEND_KIB_PER_MS 5
#define DESTROY_MS 180000
#define UNPAUSE_MS 60000

/* One guest that is awaited. */
struct xl_receive {
	struct xl *x;
	char vm[UUID_LEN + 1];
	pthread_t thread;
	struct xl_process process;
	struct xen_ticket ticket;
	struct xen_call call; /* of the thread */
	bool claimed; /* by whoever joins the thread; locked */
	struct list link;
};

static int fail_moved(struct xl *x, struct xen_call *c, const char *text)
{
	return xen_fail(c, "VM_MIGRATE_FAILED", c->vm, x->host_uuid, "", text);
}

static struct value *with_files(struct xl *x, struct value *request)
{
	struct value *v = value_struct_new(request->n + 3);

	for (uint32_t i = 0; i < 2 * request->n; i++)
		v->items[i] = value_ref(request->items[i]);
	v->items[2 * request->n] = value_stringz("cert");
	v->items[2 * request->n + 1] = value_stringz(x->cert);
	v->items[2 * request->n + 2] = value_stringz("key");
	v->items[2 * request->n + 3] = value_stringz(x->key);
	v->items[2 * request->n + 4] = value_stringz("trust");
	v->items[2 * request->n + 5] = value_stringz(x->trust);
	value_unref(request);
	return v;
}

static int run_quiet(struct xen_call *c, const char *op, int64_t patience_ms)
{
	struct xen_call own = { .vm = c->vm, .abort_fd = -1,
				.progress = c->progress };
	int r = xl_run(&own, op, value_struct_new(0), NULL, 0, patience_ms,
		       NULL);

	value_unref(own.error);
	return r;
}

/* ---- destination: the process that waits ---- */

/* Locked. */
static struct xl_receive *receive_find(struct xl *x, const char *vm)
{
	list_for_each(l, &x->receives) {
		struct xl_receive *r = list_entry(l, struct xl_receive, link);

		if (!strcmp(r->vm, vm) && !r->claimed)
			return r;
	}
	return NULL;
}

static void no_progress(struct xen_call *c, double fraction)
{
}

/* 0 once the guest is here and that is on disk. */
static int take_arrival(struct xl_receive *r)
{
	struct xl *x = r->x;
	struct xl_vm *v;
	int rc = -ESTALE;

	pthread_mutex_lock(&x->lock);
	v = xl_find(x, r->vm);
	if (v && v->phase == XL_EXPECTED && !xen_aborted(&r->call))
		rc = xl_set_phase(x, v, XL_ARRIVED);
	pthread_mutex_unlock(&x->lock);
	return rc;
}

static bool has_arrived(struct xl_receive *r)
{
	struct xl_vm *v;
	bool arrived;

	pthread_mutex_lock(&r->x->lock);
	v = xl_find(r->x, r->vm);
	arrived = v && v->phase == XL_ARRIVED;
	pthread_mutex_unlock(&r->x->lock);
	return arrived;
}

static int on_news(struct xen_call *c, const struct value *packet)
{
	struct xl_receive *r = container_of(c, struct xl_receive, call);

	if (strcmp(value_get_str(packet, "type"), "arrived"))
		return 0;
	if (take_arrival(r) < 0)
		return -ESTALE;
	return send(r->process.fd, "go", 2, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void *receive_thread(void *data)
{
	struct xl_receive *r = data;
	struct xen_call *c = &r->call;
	char how[64];
	int rc;

	log_set_thread("xl-receive");
	rc = xl_process_wait_news(&r->process, c, "receive", AWAIT_MS, on_news,
				  NULL);
	if (rc == 0)
		xl_process_end(&r->process, how, sizeof(how));
	else
		xl_process_kill(&r->process);
	/* The copy that did not become whole; the pool's abort or the next try
	 * does the rest. */
	if (rc != 0 && !has_arrived(r))
		run_quiet(c, "destroy", DESTROY_MS);
	return NULL;
}

static void receive_free(struct xl_receive *r)
{
	value_unref(r->call.error);
	if (r->call.abort_fd >= 0)
		close(r->call.abort_fd);
	free(r);
}

/* Ends the waiting, if anybody waits. Not locked. */
static void receive_stop(struct xl *x, const char *vm)
{
	struct xl_receive *r;

	pthread_mutex_lock(&x->lock);
	r = receive_find(x, vm);
	if (r) {
		r->claimed = true;
		atomic_store(&r->call.aborted, true);
		xassert(eventfd_write(r->call.abort_fd, 1) == 0);
	}
	pthread_mutex_unlock(&x->lock);
	if (!r)
		return;
	pthread_join(r->thread, NULL);
	pthread_mutex_lock(&x->lock);
	list_remove(&r->link);
	pthread_mutex_unlock(&x->lock);
	receive_free(r);
}

void xl_migrate_close(struct xl *x)
{
	while (!list_empty(&x->receives)) {
		struct xl_receive *r = list_entry(x->receives.next,
						  struct xl_receive, link);
		char vm[UUID_LEN + 1];

		memcpy(vm, r->vm, sizeof(vm));
		receive_stop(x, vm);
	}
}

/* ---- destination: the verbs ---- */

static int listening(struct xen_call *c, const struct value *packet)
{
	struct xl_receive *r = c->worker;

	r->ticket.port = (uint16_t)value_get_int(packet, "port", 0);
	return r->ticket.port ? XL_ENOUGH : 0;
}

static int receive_begin(struct xl *x, struct xen_call *c,
			 const struct domain_config *cfg, struct xl_receive *r)
{
	uint8_t secret[XEN_TOKEN_LEN / 2];
	struct value *request;
	void *worker = c->worker;
	int rc = xl_process_start(&r->process, "receive", c->vm);

	if (rc < 0)
		return rc;
	env_random(secret, sizeof(secret));
	hex_encode(secret, sizeof(secret), r->ticket.token);
	snprintf(r->ticket.address, sizeof(r->ticket.address), "%s",
		 x->migrate_address);
	request = value_struct_of(
		"op", value_stringz("receive"), "vm", value_stringz(c->vm),
		"config", value_ref(cfg->source), "paused", value_bool(true),
		"discard", value_bool(true),
		"dm_root", value_bool(x->dm_root),
		"address", value_stringz(x->migrate_address),
		"token", value_stringz(r->ticket.token),
		"destination", value_stringz(x->host_uuid), NULL);
	rc = xl_process_send(r->process.fd, with_files(x, request), NULL, 0);
	c->worker = r;
	if (rc == 0)
		rc = xl_process_wait_news(&r->process, c, "receive", LISTEN_MS,
					  listening, NULL);
	c->worker = worker;
	return rc;
}

static int receive_new(struct xl *x, struct xen_call *c, struct xl_vm *v,
		       const struct domain_config *cfg, struct xen_ticket *ret)
{
	struct xl_receive *r = xcalloc(1, sizeof(*r));
	int rc;

	r->x = x;
	memcpy(r->vm, v->vm, sizeof(r->vm));
	list_init(&r->link);
	r->call = (struct xen_call){ .vm = r->vm, .progress = no_progress,
				     .abort_fd = eventfd(0, EFD_CLOEXEC) };
	rc = r->call.abort_fd < 0 ? -errno : receive_begin(x, c, cfg, r);
	if (rc == 0)
		rc = xl_phase_set(x, v, XL_EXPECTED);
	*ret = r->ticket;
	pthread_mutex_lock(&x->lock);
	if (rc == 0)
		rc = -pthread_create(&r->thread, NULL, receive_thread, r);
	if (rc == 0)
		list_push(&x->receives, &r->link);
	pthread_mutex_unlock(&x->lock);
	if (rc != 0) {
		xl_process_kill(&r->process);
		receive_free(r);
	}
	return rc;
}

/* An awaited or arrived copy is one of an earlier try. */
int xl_migrate_receive(struct xen *xen, struct xen_call *c,
		       const struct domain_config *cfg, uint32_t *ret_domid,
		       struct xen_ticket *ret)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int rc = 0;

	if (!*x->cert)
		return fail_moved(x, c, "this host's executor was given no "
					"certificate");
	pthread_mutex_lock(&x->lock);
	v = xl_get(x, c->vm);
	if (v->phase != XL_HOME && v->phase != XL_EXPECTED &&
	    v->phase != XL_ARRIVED)
		rc = xen_fail(c, "OTHER_OPERATION_IN_PROGRESS", "VM", c->vm,
			      "pool_migrate", "");
	v->busy = true;
	pthread_mutex_unlock(&x->lock);
	if (rc == 0)
		receive_stop(x, c->vm);
	if (rc == 0 && v->phase == XL_HOME && xl_has_domain(x, c->vm))
		rc = xen_fail(c, "VM_BAD_POWER_STATE", c->vm, "halted",
			      "running");
	if (rc == 0)
		rc = xl_set_activated(x, v, false); /* a copy long gone */
	if (rc == 0)
		rc = receive_new(x, c, v, cfg, ret);
	*ret_domid = UINT32_MAX;
	xl_op_end(x, v);
	return rc;
}

static int activate(struct xl *x, struct xen_call *c, struct xl_vm *v,
		    uint32_t *ret_domid)
{
	_cleanup_(value_unrefp) struct value *result = NULL;
	int rc = 0;

	if (v->phase == XL_EXPECTED)
		return fail_moved(x, c, "nothing has arrived");
	if (v->phase == XL_SENDING || v->phase == XL_SENT)
		return xen_fail(c, "OTHER_OPERATION_IN_PROGRESS", "VM", c->vm,
				"pool_migrate", "");
	if (v->phase == XL_ARRIVED) {
		receive_stop(x, c->vm);
		rc = xl_set_activated(x, v, true);
	}
	if (rc == 0)
		rc = xl_run(c, v->phase == XL_ARRIVED ? "unpause" : "look",
			    value_struct_new(0), NULL, 0, UNPAUSE_MS, &result);
	if (rc == 0)
		rc = xl_phase_set(x, v, XL_HOME);
	if (rc == 0)
		*ret_domid = (uint32_t)value_get_int(result, "domid", 0);
	return rc;
}

static struct xl_vm *begin_any(struct xl *x, const char *vm)
{
	struct xl_vm *v;

	pthread_mutex_lock(&x->lock);
	v = xl_get(x, vm);
	v->busy = true;
	pthread_mutex_unlock(&x->lock);
	return v;
}

int xl_migrate_activate(struct xen *xen, struct xen_call *c,
			uint32_t *ret_domid)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v = begin_any(x, c->vm);
	int rc = activate(x, c, v, ret_domid);

	xl_op_end(x, v);
	return rc;
}

/* ---- source ---- */

static int64_t send_patience(struct xl *x, const char *vm)
{
	return SEND_MS + (int64_t)(xl_memory_of(x, vm) / SEND_KIB_PER_MS);
}

static int send_run(struct xl *x, struct xen_call *c,
		    const struct xen_ticket *to)
{
	struct value *request = value_struct_of(
		"address", value_stringz(to->address),
		"port", value_int(to->port),
		"token", value_stringz(to->token),
		"live", value_bool(to->live),
		"source", value_stringz(x->host_uuid), NULL);

	return xl_run(c, "send", with_files(x, request), NULL, 0,
		      send_patience(x, c->vm), NULL);
}

static int send_guest(struct xl *x, struct xen_call *c, struct xl_vm *v,
		      const struct xen_ticket *to)
{
	bool home = v->phase == XL_HOME;
	int rc;

	if (v->phase == XL_SENT && !strcmp(v->token, to->token))
		return 0;
	if (!home && v->phase != XL_SENDING)
		return xen_fail(c, "OTHER_OPERATION_IN_PROGRESS", "VM", c->vm,
				"pool_migrate", "");
	rc = xl_set_activated(x, v, false); /* of an earlier migration, ended */
	if (rc == 0)
		rc = xl_phase_set(x, v, XL_SENDING);
	if (rc != 0)
		return rc;
	rc = send_run(x, c, to);
	if (rc == 0) {
		memcpy(v->token, to->token, sizeof(v->token));
		rc = xl_phase_set(x, v, XL_SENT);
	}
	/* One that was stopped for an earlier try waits for its abort: only the
	 * pool knows what became of that try's copy. */
	if (rc != 0 && home && xl_go_on(c) == 0)
		xl_phase_set(x, v, XL_HOME);
	return rc;
}

int xl_migrate_send(struct xen *xen, struct xen_call *c,
		    const struct xen_ticket *to)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v;
	int rc;

	if (!*x->cert)
		return fail_moved(x, c, "this host's executor was given no "
					"certificate");
	v = begin_any(x, c->vm);
	rc = send_guest(x, c, v, to);
	xl_op_end(x, v);
	return rc;
}

/* ---- ends ---- */

static int abort_copy(struct xl *x, struct xen_call *c, struct xl_vm *v)
{
	int rc;

	/* Whoever hears that the copy is gone wakes the source's up. */
	if (v->activated)
		return fail_moved(x, c, "the copy here was activated");
	if (v->phase < XL_SENDING)
		return 0;
	if (v->phase == XL_SENDING || v->phase == XL_SENT) {
		rc = xl_run(c, "go_on", value_struct_new(0), NULL, 0,
			    UNPAUSE_MS, NULL);
		return rc ? rc : xl_phase_set(x, v, XL_HOME);
	}
	receive_stop(x, c->vm);
	rc = xl_run(c, "destroy", value_struct_new(0), NULL, 0, DESTROY_MS,
		    NULL);
	return rc ? rc : xl_op_gone(x, v);
}

int xl_migrate_abort(struct xen *xen, struct xen_call *c)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v = begin_any(x, c->vm);
	int rc = abort_copy(x, c, v);

	xl_op_end(x, v);
	return rc;
}

static int finish(struct xl *x, struct xen_call *c, struct xl_vm *v)
{
	int rc;

	/* Never a guest that may run, whatever the pool believes. */
	if (v->phase != XL_SENT && xl_has_domain(x, c->vm))
		return fail_moved(x, c, "the copy here was not sent");
	rc = xl_run(c, "destroy", value_struct_new(0), NULL, 0, DESTROY_MS,
		    NULL);
	return rc ? rc : xl_op_gone(x, v);
}

int xl_migrate_finish(struct xen *xen, struct xen_call *c)
{
	struct xl *x = xl_of(xen);
	struct xl_vm *v = begin_any(x, c->vm);
	int rc = finish(x, c, v);

	xl_op_end(x, v);
	return rc;
}
