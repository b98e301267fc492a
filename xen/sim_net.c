#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim.h"
#include "xen/sim_wire.h"

/* A peer that has shown no token yet is given up soon. */
#define CLAIM_MS 5000
#define IDLE_MS 30000

struct conn {
	int fd;
	struct buf in;
	int64_t deadline;
	char vm[UUID_LEN + 1]; /* "" until a token was claimed */
	uint64_t attempt;
	bool closing;
};

struct sim_net {
	struct sim *s;
	pthread_t thread;
	bool started;
	int wake_fd;
	/* Under the simulation's lock; closed by the thread alone. */
	int listen_fd;
	uint16_t port;
	bool stop;
	/* The thread's own. */
	struct conn conns[SIM_MAX_CONNECTIONS];
	size_t n_conns;
};

void sim_net_wake(struct sim *s)
{
	uint64_t one = 1;

	if (s->net && write(s->net->wake_fd, &one, sizeof(one)) < 0)
		xassert(errno == EAGAIN);
}

/* ---- guests that do something by themselves ---- */

static bool event_due(const struct sim_domain *d)
{
	return d->state == SIM_RUNNING && d->script.event_ms > 0 &&
	       sim_ticks(d) >= d->script.event_ms;
}

static void guest_event(struct sim *s, struct sim_domain *d,
			struct xen_event *ret)
{
	memcpy(ret->vm, d->vm, sizeof(ret->vm));
	ret->domid = d->domid;
	ret->kind = d->script.event;
	if (d->script.event == XEN_EV_GONE) {
		sim_domain_remove(s, d);
		return;
	}
	sim_set_state(d, SIM_SHUTDOWN);
	d->reason = d->script.event;
	d->script.event_ms = 0;
}

static bool next_event(struct sim *s, struct xen_event *ret)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	list_for_each_safe(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (found || !event_due(d))
			continue;
		guest_event(s, d, ret);
		found = true;
	}
	/* The guest has done it, whether or not the file can say so. */
	if (found)
		sim_state_save(s);
	pthread_mutex_unlock(&s->lock);
	return found;
}

static int64_t events_in_ms(struct sim *s)
{
	int64_t least = INT_MAX;

	list_for_each(l, &s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (d->state == SIM_RUNNING && d->script.event_ms > 0)
			least = MIN(least, d->script.event_ms - sim_ticks(d));
	}
	return MAX(least, (int64_t)0);
}

/* ---- arrivals ---- */

static int listen_open(struct sim_net *net)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	unsigned bind_len;
	int fd;

	if (!wire_address(net->s->migrate_address, 0, &ss, &bind_len))
		return -EINVAL;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&ss, bind_len) < 0 ||
	    listen(fd, SIM_MAX_CONNECTIONS) < 0 ||
	    getsockname(fd, (struct sockaddr *)&ss, &len) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	net->port = ntohs(ss.ss_family == AF_INET ?
				  ((struct sockaddr_in *)&ss)->sin_port :
				  ((struct sockaddr_in6 *)&ss)->sin6_port);
	net->listen_fd = fd;
	return 0;
}

int sim_net_listen(struct sim *s, uint16_t *ret_port)
{
	int r = s->net->listen_fd < 0 ? listen_open(s->net) : 0;

	if (r < 0) {
		log_error("cannot listen for migrations on %s: %s",
			  s->migrate_address, strerror(-r));
		return r;
	}
	*ret_port = s->net->port;
	return 0;
}

/* The door is open only while somebody is expected. */
static void listen_close_unneeded(struct sim_net *net)
{
	list_for_each(l, &net->s->domains) {
		struct sim_domain *d = list_entry(l, struct sim_domain, link);

		if (d->migration == SIM_EXPECTED && *d->token)
			return;
	}
	if (net->listen_fd >= 0)
		close(net->listen_fd);
	net->listen_fd = -1;
}

static void conn_answer(struct conn *c, enum wire_type type, const char *text)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	wire_put(&b, type, text, strlen(text));
	/* Some dozen bytes into an empty socket buffer; if the peer is gone its
	 * link is closed below. */
	if (send(c->fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) !=
	    (ssize_t)b.len)
		c->closing = true;
	if (type == WIRE_REFUSED)
		c->closing = true;
}

static void on_token(struct sim_net *net, struct conn *c,
		     const struct wire_frame *f)
{
	if (*c->vm || !sim_migrate_claim(net->s, f->payload, f->len, c->vm,
					 &c->attempt)) {
		log_warn("migration: a peer with an unknown token");
		conn_answer(c, WIRE_REFUSED, "unknown token");
		return;
	}
	conn_answer(c, WIRE_OK, "");
}

static void on_state(struct sim_net *net, struct conn *c,
		     const struct wire_frame *f)
{
	const char *why = sim_migrate_arrive(net->s, c->vm, c->attempt,
					     f->payload, f->len);

	if (why)
		log_warn("migration of %s: %s", c->vm, why);
	conn_answer(c, why ? WIRE_REFUSED : WIRE_OK, why ? why : "");
}

static void on_frame(struct sim_net *net, struct conn *c,
		     const struct wire_frame *f)
{
	if (f->type == WIRE_TOKEN)
		on_token(net, c, f);
	else if (!*c->vm)
		c->closing = true;
	else if (f->type == WIRE_STATE)
		on_state(net, c, f);
	else if (f->type != WIRE_ROUND)
		c->closing = true;
	c->deadline = sim_now() + IDLE_MS;
}

static void conn_frames(struct sim_net *net, struct conn *c)
{
	struct wire_frame f;
	int r = 0;

	while (!c->closing && (r = wire_parse(&c->in, &f)) > 0) {
		on_frame(net, c, &f);
		buf_consume(&c->in, f.total);
	}
	if (r < 0) {
		log_warn("migration: a damaged frame");
		c->closing = true;
	}
}

static void conn_read(struct sim_net *net, struct conn *c)
{
	char block[8192];
	ssize_t n = recv(c->fd, block, sizeof(block), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		c->closing = true;
	if (n <= 0)
		return;
	buf_append(&c->in, block, (size_t)n);
	conn_frames(net, c);
}

static void conns_accept(struct sim_net *net)
{
	int fd = accept4(net->listen_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* Out of descriptors, perhaps: the door stays readable. */
		poll(NULL, 0, 20);
		return;
	}
	if (net->n_conns == SIM_MAX_CONNECTIONS) {
		close(fd);
		return;
	}
	net->conns[net->n_conns++] = (struct conn){
		.fd = fd, .deadline = sim_now() + CLAIM_MS,
	};
}

static void conns_sweep(struct sim_net *net, bool all)
{
	for (size_t i = 0; i < net->n_conns;) {
		struct conn *c = &net->conns[i];

		if (!c->closing && sim_now() < c->deadline && !all) {
			i++;
			continue;
		}
		close(c->fd);
		buf_deinit(&c->in);
		*c = net->conns[--net->n_conns];
	}
}

/* ---- the thread ---- */

/* Slot 0 wakes, 1 is the door, conns follow. */
static size_t poll_set(struct sim_net *net, struct pollfd *p, bool *ret_stop)
{
	int64_t ms;

	pthread_mutex_lock(&net->s->lock);
	listen_close_unneeded(net);
	p[0] = (struct pollfd){ .fd = net->wake_fd, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = net->listen_fd, .events = POLLIN };
	ms = MIN(events_in_ms(net->s), sim_guest_wait(net->s));
	*ret_stop = net->stop;
	pthread_mutex_unlock(&net->s->lock);
	for (size_t i = 0; i < net->n_conns; i++) {
		struct conn *c = &net->conns[i];

		p[2 + i] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
		ms = MIN(ms, MAX(c->deadline - sim_now(), (int64_t)0));
	}
	return (size_t)ms;
}

static void poll_done(struct sim_net *net, const struct pollfd *p, size_t n)
{
	struct xen_event ev;
	uint64_t drop;

	if (p[0].revents && read(net->wake_fd, &drop, sizeof(drop)) < 0)
		xassert(errno == EAGAIN);
	for (size_t i = 0; i < n; i++)
		if (p[2 + i].revents)
			conn_read(net, &net->conns[i]);
	if (p[1].revents)
		conns_accept(net);
	conns_sweep(net, false);
	sim_guest_tick(net->s);
	while (next_event(net->s, &ev))
		net->s->event(net->s->event_data, &ev);
}

static void *net_main(void *data)
{
	struct pollfd p[2 + SIM_MAX_CONNECTIONS];
	struct sim_net *net = data;
	bool stop = false;

	log_set_thread("sim");
	while (true) {
		size_t n = net->n_conns;
		size_t ms = poll_set(net, p, &stop);

		if (stop)
			break;
		if (poll(p, 2 + n, ms >= INT_MAX ? -1 : (int)ms) < 0)
			memset(p, 0, sizeof(p));
		poll_done(net, p, n);
	}
	conns_sweep(net, true);
	return NULL;
}

int sim_net_open(struct sim *s)
{
	struct sim_net *net = xcalloc(1, sizeof(*net));
	int r;

	net->s = s;
	net->listen_fd = -1;
	net->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->net = net;
	if (net->wake_fd < 0)
		return -errno;
	r = -pthread_create(&net->thread, NULL, net_main, net);
	net->started = r == 0;
	return r;
}

void sim_net_close(struct sim *s)
{
	struct sim_net *net = s->net;

	if (!net)
		return;
	if (net->started) {
		pthread_mutex_lock(&s->lock);
		net->stop = true;
		pthread_mutex_unlock(&s->lock);
		sim_net_wake(s);
		pthread_join(net->thread, NULL);
	}
	if (net->listen_fd >= 0)
		close(net->listen_fd);
	if (net->wake_fd >= 0)
		close(net->wake_fd);
	s->net = NULL;
	free(net);
}
