#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/sim.h"
#include "xen/sim_wire.h"

/* The destination hears of us at least so often while memory is copied. */
#define ROUND_MS 500

static bool is_source(const struct sim_domain *d)
{
	return d->migration == SIM_SENDING || d->migration == SIM_SENT;
}

static bool is_incoming(const struct sim_domain *d)
{
	return d->migration == SIM_EXPECTED || d->migration == SIM_ARRIVED;
}

static bool is_live(const struct sim_domain *d)
{
	return d->state == SIM_RUNNING || d->state == SIM_PAUSED;
}

/* Saves d, which was `before` until now; puts it back when the disk refuses. */
static int save_or_restore(struct sim *s, struct sim_domain *d,
			   const struct sim_domain *before)
{
	int r = sim_state_save(s);

	if (r < 0)
		*d = *before;
	sim_net_wake(s);
	return r;
}

/* ---- destination ---- */

static int expect(struct sim *s, struct sim_domain *d, struct xen_ticket *ret)
{
	struct sim_domain before = *d;
	uint8_t secret[XEN_TOKEN_LEN / 2];

	/* Asked again before anyone came: the same answer. */
	if (d->migration != SIM_EXPECTED || !*d->token) {
		env_random(secret, sizeof(secret));
		hex_encode(secret, sizeof(secret), d->token);
		d->attempt = ++s->next_attempt;
		d->ticks = 0;
	}
	d->state = SIM_PAUSED;
	d->migration = SIM_EXPECTED;
	memcpy(ret->token, d->token, sizeof(ret->token));
	snprintf(ret->address, sizeof(ret->address), "%s", s->migrate_address);
	return save_or_restore(s, d, &before);
}

static int receive_locked(struct sim *s, struct xen_call *c,
			  const struct domain_config *cfg,
			  const struct sim_script *script, uint32_t *ret_domid,
			  struct xen_ticket *ret)
{
	struct sim_domain *d = sim_find(s, c->vm);
	bool fresh = !d;
	int r;

	if (d && !is_incoming(d))
		return sim_fail_state(c, "halted", d);
	r = fresh ? sim_domain_reserve(s, c, cfg, script, &d) : 0;
	if (r != 0)
		return r;
	r = sim_net_listen(s, &ret->port);
	if (r == 0)
		r = expect(s, d, ret);
	if (r == 0)
		*ret_domid = d->domid;
	else if (fresh)
		sim_domain_remove(s, d);
	return r;
}

int sim_migrate_receive(struct xen *x, struct xen_call *c,
			const struct domain_config *cfg, uint32_t *ret_domid,
			struct xen_ticket *ret)
{
	struct sim *s = sim_of(x);
	struct sim_script script;
	int r;

	if (!sim_script_parse(c, cfg, &script) ||
	    sim_scripted(c, &script, "migrate_receive"))
		return XEN_FAILED;
	pthread_mutex_lock(&s->lock);
	r = receive_locked(s, c, cfg, &script, ret_domid, ret);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* In a time that tells nothing about how much of it was right. */
static bool token_equal(const char *a, const char *b)
{
	unsigned char diff = 0;

	for (size_t i = 0; i < XEN_TOKEN_LEN; i++)
		diff |= (unsigned char)(a[i] ^ b[i]);
	return diff == 0;
}

static struct sim_domain *claim_locked(struct sim *s, const char *token)
{
	struct sim_domain *found = NULL;

	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (d->migration == SIM_EXPECTED && *d->token &&
		    token_equal(d->token, token))
			found = d;
	}
	return found;
}

bool sim_migrate_claim(struct sim *s, const char *token, size_t n,
		       char ret_vm[UUID_LEN + 1], uint64_t *ret_attempt)
{
	struct sim_domain *d;

	if (n != XEN_TOKEN_LEN)
		return false;
	pthread_mutex_lock(&s->lock);
	d = claim_locked(s, token);
	if (d) {
		d->token[0] = '\0';
		memcpy(ret_vm, d->vm, sizeof(d->vm));
		*ret_attempt = d->attempt;
	}
	pthread_mutex_unlock(&s->lock);
	return d;
}

static const char *arrive_locked(struct sim *s, struct sim_domain *d,
				 const struct sim_guest *g)
{
	struct sim_domain before;

	/* The guest may have been given more memory since the plan was made,
	 * but a peer's word takes no memory that is not there. */
	if (g->memory > d->memory &&
	    g->memory - d->memory > sim_memory_free(s))
		return "not enough memory";
	before = *d;
	d->memory = g->memory;
	d->vcpus = g->vcpus;
	d->ticks = g->ticks;
	d->was_paused = g->was_paused;
	d->migration = SIM_ARRIVED;
	return save_or_restore(s, d, &before) < 0 ? "cannot save" : NULL;
}

const char *sim_migrate_arrive(struct sim *s, const char *vm, uint64_t attempt,
			       const char *p, size_t n)
{
	struct sim_guest guest;
	struct sim_domain *d;
	const char *why;

	if (!sim_guest_parse(p, n, &guest) || strcmp(guest.vm, vm))
		return "not the guest that is expected";
	pthread_mutex_lock(&s->lock);
	d = sim_find(s, vm);
	if (d && d->migration == SIM_EXPECTED && d->attempt == attempt)
		why = arrive_locked(s, d, &guest);
	else
		why = "no longer expected";
	pthread_mutex_unlock(&s->lock);
	return why;
}

/* ---- source ---- */

struct transfer {
	struct sim *s;
	struct xen_call *c;
	const struct xen_ticket *to;
	struct sim_script script;
	int fd;
	struct buf in;
};

static int fail_transfer(struct transfer *t, const char *what)
{
	_cleanup_(freep) char *where =
		xasprintf("%s:%u", t->to->address, t->to->port);

	if (xen_aborted(t->c))
		return xen_fail_aborted(t->c);
	log_warn("migration of %s to %s: %s", t->c->vm, where, what);
	return xen_fail(t->c, "VM_MIGRATE_FAILED", t->c->vm, t->s->host_uuid,
			where, what);
}

static int link_send(struct transfer *t, enum wire_type type, const char *p,
		     size_t n)
{
	int r = wire_send(t->fd, t->c->abort_fd, type, p, n);

	return r < 0 ? fail_transfer(t, strerror(-r)) : 0;
}

/* The destination's answer; its words are data, cut and checked. */
static int link_answer(struct transfer *t)
{
	char reason[128] = "refused";
	struct wire_frame f;
	int r = wire_recv(t->fd, t->c->abort_fd, &t->in, &f);

	if (r < 0)
		return fail_transfer(t, strerror(-r));
	if (f.type == WIRE_REFUSED && f.len < sizeof(reason) &&
	    text_valid(f.payload, f.len))
		snprintf(reason, sizeof(reason), "%.*s", (int)f.len, f.payload);
	r = f.type == WIRE_OK ? 0 : fail_transfer(t, reason);
	buf_consume(&t->in, f.total);
	return r;
}

static int link_open(struct transfer *t)
{
	int r = wire_connect(t->to, t->c->abort_fd, &t->fd);

	if (r < 0 && !xen_aborted(t->c)) {
		log_warn("migration of %s: cannot reach %s port %u: %s",
			 t->c->vm, t->to->address, t->to->port, strerror(-r));
		return xen_fail(t->c,
				"VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED");
	}
	if (r < 0)
		return xen_fail_aborted(t->c);
	r = link_send(t, WIRE_TOKEN, t->to->token, strlen(t->to->token));
	return r ? r : link_answer(t);
}

/* The guest runs while its memory is copied. */
static int copy_memory(struct transfer *t)
{
	uint32_t done = 0, all = t->script.migrate_ms;

	while (done < all) {
		uint32_t next = MIN(done + ROUND_MS, all);
		int r = sim_wait(t->c, next - done, 0.9 * done / all,
				 0.9 * next / all);

		if (r == 0)
			r = link_send(t, WIRE_ROUND, "", 0);
		if (r != 0)
			return r;
		done = next;
	}
	return 0;
}

/* Paused, and on disk as such, before the last of it leaves. */
static int freeze_locked(struct transfer *t, struct buf *ret)
{
	struct sim_domain *d = sim_find(t->s, t->c->vm), before;
	_cleanup_(json_putp) struct json_object *o = NULL;
	int r;

	if (!d || !is_live(d) || is_incoming(d))
		return sim_fail_state(t->c, "running", d);
	before = *d;
	if (d->migration == SIM_HOME)
		d->was_paused = d->state == SIM_PAUSED;
	sim_set_state(d, SIM_PAUSED);
	d->migration = SIM_SENDING;
	r = save_or_restore(t->s, d, &before);
	if (r < 0)
		return r;
	o = sim_guest_json(d);
	buf_puts(ret, json_object_to_json_string(o));
	return 0;
}

static int mark_sent_locked(struct transfer *t)
{
	struct sim_domain *d = sim_find(t->s, t->c->vm), before;

	if (!d || d->migration != SIM_SENDING)
		return sim_fail_state(t->c, "running", d);
	before = *d;
	d->migration = SIM_SENT;
	memcpy(d->token, t->to->token, sizeof(d->token));
	return save_or_restore(t->s, d, &before);
}

static int transfer(struct transfer *t)
{
	_cleanup_(buf_deinit) struct buf state = BUF_INIT;
	int r = link_open(t);

	if (r == 0 && t->to->live)
		r = copy_memory(t);
	if (r != 0)
		return r;
	pthread_mutex_lock(&t->s->lock);
	r = freeze_locked(t, &state);
	pthread_mutex_unlock(&t->s->lock);
	if (r == 0 && !t->to->live)
		r = copy_memory(t);
	if (r == 0)
		r = sim_scripted(t->c, &t->script, "migrate_send");
	if (r == 0)
		r = link_send(t, WIRE_STATE, state.data, state.len);
	if (r == 0)
		r = link_answer(t);
	if (r != 0)
		return r;
	pthread_mutex_lock(&t->s->lock);
	r = mark_sent_locked(t);
	pthread_mutex_unlock(&t->s->lock);
	return r;
}

static int back_home(struct sim *s, struct sim_domain *d)
{
	struct sim_domain before = *d;

	d->migration = SIM_HOME;
	d->token[0] = '\0';
	sim_set_state(d, d->was_paused ? SIM_PAUSED : SIM_RUNNING);
	return save_or_restore(s, d, &before);
}

static void undo(struct sim *s, const char *vm)
{
	struct sim_domain *d;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, vm);
	/* When this cannot be saved the guest stays paused, and an abort may
	 * try again. */
	if (d && is_source(d))
		back_home(s, d);
	pthread_mutex_unlock(&s->lock);
}

/* What is known before anything is sent; *ret_done: there is nothing to do. */
static int send_check(struct transfer *t, bool *ret_home, bool *ret_done)
{
	struct sim *s = t->s;
	struct sim_domain *d;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	d = sim_find(s, t->c->vm);
	*ret_done = d && d->migration == SIM_SENT &&
		    token_equal(d->token, t->to->token);
	if (!d || !is_live(d) || is_incoming(d)) {
		r = sim_fail_state(t->c, "running", d);
	} else {
		*ret_home = d->migration == SIM_HOME;
		d->activated = false; /* of an earlier migration, ended */
		t->script = d->script;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int sim_migrate_send(struct xen *x, struct xen_call *c,
		     const struct xen_ticket *to)
{
	struct transfer t = { .s = sim_of(x), .c = c, .to = to, .fd = -1 };
	bool home = false, done = false;
	int r = send_check(&t, &home, &done);

	if (r != 0 || done)
		return r;
	r = transfer(&t);
	/* One that was paused for an earlier try waits for its abort: only the
	 * pool knows what became of that try's copy. */
	if (r != 0 && home)
		undo(t.s, c->vm);
	buf_deinit(&t.in);
	if (t.fd >= 0)
		close(t.fd);
	return r;
}

/* ---- the switch ---- */

static int activate_locked(struct sim *s, struct xen_call *c,
			   uint32_t *ret_domid)
{
	struct sim_domain *d = sim_find(s, c->vm), before;
	int r;

	if (!d || is_source(d) || !is_live(d))
		return sim_fail_state(c, "paused", d);
	*ret_domid = d->domid;
	if (d->migration == SIM_HOME)
		return 0;
	if (d->migration == SIM_EXPECTED)
		return xen_fail(c, "VM_MIGRATE_FAILED", c->vm, "", s->host_uuid,
				"nothing has arrived");
	r = sim_scripted(c, &d->script, "migrate_activate");
	if (r != 0)
		return r;
	before = *d;
	d->migration = SIM_HOME;
	d->activated = true;
	d->token[0] = '\0';
	sim_set_state(d, d->was_paused ? SIM_PAUSED : SIM_RUNNING);
	return save_or_restore(s, d, &before);
}

int sim_migrate_activate(struct xen *x, struct xen_call *c,
			 uint32_t *ret_domid)
{
	struct sim *s = sim_of(x);
	int r;

	pthread_mutex_lock(&s->lock);
	r = activate_locked(s, c, ret_domid);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int abort_locked(struct sim *s, struct xen_call *c)
{
	struct sim_domain *d = sim_find(s, c->vm);
	int r;

	/* Whoever hears that the copy is gone wakes the source's up. */
	if (d && d->activated)
		return xen_fail(c, "VM_MIGRATE_FAILED", c->vm, "", s->host_uuid,
				"the copy here was activated");
	if (!d || d->migration == SIM_HOME)
		return 0;
	r = sim_scripted(c, &d->script, "migrate_abort");
	if (r != 0)
		return r;
	r = is_source(d) ? back_home(s, d) : sim_domain_destroy(s, d);
	sim_net_wake(s);
	return r;
}

int sim_migrate_abort(struct xen *x, struct xen_call *c)
{
	struct sim *s = sim_of(x);
	int r;

	pthread_mutex_lock(&s->lock);
	r = abort_locked(s, c);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int finish_locked(struct sim *s, struct xen_call *c)
{
	struct sim_domain *d = sim_find(s, c->vm);
	int r;

	if (!d)
		return 0;
	/* Never a guest that may run, whatever the pool believes. */
	if (d->migration != SIM_SENT)
		return xen_fail(c, "VM_MIGRATE_FAILED", c->vm, s->host_uuid, "",
				"the copy here was not sent");
	r = sim_scripted(c, &d->script, "migrate_finish");
	return r ? r : sim_domain_destroy(s, d);
}

int sim_migrate_finish(struct xen *x, struct xen_call *c)
{
	struct sim *s = sim_of(x);
	int r;

	pthread_mutex_lock(&s->lock);
	r = finish_locked(s, c);
	pthread_mutex_unlock(&s->lock);
	return r;
}
