#include "xen/executor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "xen/consoles.h"
#include "xen/guests.h"
#include "xen/jobs.h"
#include "xen/looker.h"
#include "xen/message.h"

#define STATE_EVERY_MS 5000
/* A new connection that has not said hello by then makes room. */
#define HELLO_MS 5000
/* Guests' own deeds waiting for a slow daemon; the state tells the rest. */
#define MAX_EVENTS 256
/* Looks at the domains that results overtook, before results wait for one. */
#define MAX_TOO_OLD 4
/* Packets read or written before the others have their turn. */
#define BURST 64

struct executor {
	const struct executor_options *o;
	struct xen *xen;
	struct jobs *jobs;
	struct consoles *consoles;
	struct guests *guests;
	struct looker *looker;
	int lock_fd, listen_fd, signal_fd, wake_fd;
	bool stop;

	/* The daemon's connection. */
	int conn;
	bool greeted;
	bool full; /* its socket takes no more for now */
	bool state_due;
	uint64_t told; /* counts what makes a look at the domains too old */
	unsigned too_old; /* looks in a row that were */
	int64_t state_at, hello_by;
	char *packet; /* EXEC_MAX_MESSAGE + 1 bytes */

	pthread_mutex_t events_lock;
	struct xen_event events[MAX_EVENTS];
	size_t n_events;
	bool events_on; /* somebody listens */
};

static void wake(void *data)
{
	struct executor *e = data;
	uint64_t one = 1;

	if (write(e->wake_fd, &one, sizeof(one)) < 0)
		xassert(errno == EAGAIN);
}

/* ---- what guests did, from the backend's threads ---- */

static void on_event(void *data, const struct xen_event *ev)
{
	struct executor *e = data;
	bool lost = false;

	pthread_mutex_lock(&e->events_lock);
	if (e->events_on && e->n_events < MAX_EVENTS)
		e->events[e->n_events++] = *ev;
	else
		lost = e->events_on;
	pthread_mutex_unlock(&e->events_lock);
	if (lost)
		log_warn("domain %u of %s: its event found no room", ev->domid,
			 ev->vm);
	wake(e);
}

static void on_guest(void *data, const char *vm, uint32_t domid,
		     struct value *metrics)
{
	struct executor *e = data;

	guests_report(e->guests, vm, domid, metrics);
}

static void events_listen(struct executor *e, bool on)
{
	pthread_mutex_lock(&e->events_lock);
	e->events_on = on;
	e->n_events = 0;
	pthread_mutex_unlock(&e->events_lock);
}

/* ---- packets out ---- */

static void conn_drop(struct executor *e, const char *why)
{
	if (e->conn < 0)
		return;
	log_info("daemon's connection ends: %s", why);
	close(e->conn);
	e->conn = -1;
	events_listen(e, false);
	consoles_forget(e->consoles);
}

static ssize_t send_with_fd(int to, const struct buf *b, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { b->data, b->len };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
	struct cmsghdr *h;

	if (fd >= 0) {
		m.msg_control = room;
		m.msg_controllen = sizeof(room);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof(int));
	}
	return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* True: it is on its way, with fd unless that is -1. */
static bool packet_send_fd(struct executor *e, const struct value *v, int fd)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	if (exec_message_encode(&b, v) < 0) {
		log_error("a %s is too long for a packet",
			  value_get_str(v, "type"));
		return true;
	}
	if (send_with_fd(e->conn, &b, fd) >= 0)
		return true;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS ||
	    errno == ETOOMANYREFS)
		e->full = true;
	else
		conn_drop(e, strerror(errno));
	return false;
}

static bool packet_send(struct executor *e, const struct value *v)
{
	return packet_send_fd(e, v, -1);
}

static const char *const event_names[] = {
	[XEN_EV_SHUTDOWN] = "shutdown", [XEN_EV_REBOOT] = "reboot",
	[XEN_EV_CRASH] = "crash", [XEN_EV_GONE] = "gone",
};

static struct value *domain_value(const struct xen_domain *d)
{
	static const char *const states[] = {
		[XEN_RUNNING] = "running", [XEN_PAUSED] = "paused",
		[XEN_SHUTDOWN] = "shutdown",
	};
	const char *reason =
		d->state == XEN_SHUTDOWN ? event_names[d->reason] : "";

	return value_struct_of(
		"vm", value_stringz(d->vm), "domid", value_int(d->domid),
		"state", value_stringz(states[d->state]),
		"fence", value_int(d->fence),
		"memory_kib", value_int((int64_t)d->memory_kib),
		"vcpus", value_int(d->vcpus),
		"incoming", value_bool(d->incoming),
		"guest_ticks", value_int(d->guest_ticks),
		"reason", value_stringz(reason), NULL);
}

static struct value *cpu_value(const struct xen_host *h)
{
	return value_struct_of(
		"sockets", value_int(h->cpu_sockets),
		"nodes", value_int(h->cpu_nodes),
		"cores_per_socket", value_int(h->cpu_cores_per_socket),
		"threads_per_core", value_int(h->cpu_threads_per_core),
		"family", value_int(h->cpu_family),
		"model", value_int(h->cpu_model_number),
		"stepping", value_int(h->cpu_stepping),
		"flags", value_stringz(h->cpu_flags),
		"features", value_stringz(h->cpu_features), NULL);
}

static struct value *host_value(const struct executor *e,
				const struct xen_host *h)
{
	return value_struct_of(
		"memory_total", value_int((int64_t)h->memory_total),
		"memory_free", value_int((int64_t)h->memory_free),
		"cpu_count", value_int(h->cpu_count),
		"cpu_model", value_stringz(h->cpu_model),
		"cpu_vendor", value_stringz(h->cpu_vendor),
		"cpu_mhz", value_int(h->cpu_mhz),
		"xen_version", value_stringz(h->xen_version),
		"backend", value_stringz(e->o->ops->name),
		"cpu", cpu_value(h),
		"boot_time", value_int(h->boot_time),
		"capabilities", value_stringz(h->xen_capabilities),
		"scheduler", value_stringz(h->scheduler),
		"kernel", value_stringz(h->kernel),
		"dom0_memory", value_int((int64_t)h->dom0_memory),
		"dom0_vcpus", value_int(h->dom0_vcpus), NULL);
}

static void send_look(struct executor *e, const struct look *look)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	struct value *set;

	guests_keep(e->guests, look->domains, look->n);
	set = value_set_new(look->n);
	for (size_t i = 0; i < look->n; i++)
		set->items[i] = domain_value(&look->domains[i]);
	v = value_struct_of("type", value_stringz("state"),
			    "boot_id", value_stringz(look->host.boot_id),
			    "domains", set, "host",
			    host_value(e, &look->host), NULL);
	e->state_due = !packet_send(e, v);
}

/* The daemon takes a state for newer than all that it was told before it: what
 * was seen before the last of that, or before it asked, does not go. */
static bool send_state(struct executor *e)
{
	struct look look;

	if (!e->state_due)
		return false;
	if (!looker_take(e->looker, &look)) {
		looker_ask(e->looker, e->told);
		return false;
	}
	if (look.error < 0) {
		log_error("cannot ask the hypervisor: %s",
			  strerror(-look.error));
		e->state_due = false;
	} else if (look.stamp == e->told) {
		e->too_old = 0;
		send_look(e, &look);
	} else {
		e->too_old++;
		looker_ask(e->looker, e->told);
	}
	free(look.domains);
	return !e->state_due;
}

static bool send_event(struct executor *e)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	bool sent = false;

	pthread_mutex_lock(&e->events_lock);
	if (e->n_events > 0) {
		struct xen_event *ev = &e->events[0];

		v = value_struct_of("type", value_stringz("domain"),
				    "vm", value_stringz(ev->vm),
				    "domid", value_int(ev->domid),
				    "event", value_stringz(event_names[ev->kind]),
				    NULL);
	}
	pthread_mutex_unlock(&e->events_lock);
	/* Only this thread takes events away. */
	if (!v || !packet_send(e, v))
		return false;
	e->told++;
	pthread_mutex_lock(&e->events_lock);
	if (e->n_events > 0) {
		memmove(e->events, e->events + 1,
			--e->n_events * sizeof(e->events[0]));
		sent = true;
	}
	pthread_mutex_unlock(&e->events_lock);
	return sent;
}

static bool send_done(struct executor *e)
{
	_cleanup_(value_unrefp) struct value *v = jobs_next_done(e->jobs);

	if (!v || !packet_send(e, v))
		return false;
	e->told++;
	jobs_told(e->jobs, v);
	return true;
}

static bool send_progress(struct executor *e)
{
	_cleanup_(value_unrefp) struct value *v = jobs_next_progress(e->jobs);

	return v && packet_send(e, v);
}

static bool send_console(struct executor *e)
{
	int fd = -1;
	const struct value *v = consoles_next(e->consoles, &fd);

	if (!v || !packet_send_fd(e, v, fd))
		return false;
	consoles_told(e->consoles);
	return true;
}

static bool send_guest(struct executor *e)
{
	_cleanup_(value_unrefp) struct value *v = guests_next(e->guests);

	if (!v || !packet_send(e, v))
		return false;
	guests_told(e->guests, v);
	return true;
}

/* A busy host gets its states told too, however slowly Xen answers. */
static bool waits_for_state(const struct executor *e)
{
	return e->state_due && e->too_old >= MAX_TOO_OLD;
}

static bool may_tell(const struct executor *e)
{
	return !e->full && e->conn >= 0 && !waits_for_state(e);
}

/* True when there may be more. */
static bool pump_one(struct executor *e)
{
	return send_state(e) || (may_tell(e) && send_event(e)) ||
	       (may_tell(e) && send_done(e)) ||
	       (!e->full && e->conn >= 0 && send_console(e)) ||
	       (!e->full && e->conn >= 0 && send_progress(e)) ||
	       (!e->full && e->conn >= 0 && send_guest(e));
}

static void pump(struct executor *e)
{
	for (int i = 0; i < BURST; i++) {
		if (e->conn < 0 || !e->greeted || e->full)
			return;
		if (!pump_one(e))
			return;
	}
	wake(e); /* there is more */
}

/* ---- packets in ---- */

/* One that begins from now on. */
static void state_wanted(struct executor *e)
{
	e->told++;
	e->state_due = true;
	e->state_at = env_mono_ms() + STATE_EVERY_MS;
}

static void on_hello(struct executor *e, const struct value *v)
{
	char host[UUID_LEN + 1];

	if (value_get_int(v, "protocol", 0) != EXEC_PROTOCOL) {
		conn_drop(e, "another version of the protocol");
		return;
	}
	if (!domain_uuid(value_get_str(v, "host"), host) ||
	    (*e->o->host_uuid && strcmp(host, e->o->host_uuid))) {
		conn_drop(e, "its host's uuid is not ours");
		return;
	}
	log_info("daemon of host %s is here", host);
	e->greeted = true;
	state_wanted(e);
	guests_again(e->guests);
	events_listen(e, true);
}

static void on_job(struct executor *e, const struct value *v)
{
	log_debug("job %s: %s of %s", value_get_str(v, "id"),
		  value_get_str(v, "verb"), value_get_str(v, "vm"));
	jobs_submit(e->jobs, v);
}

static void on_cancel(struct executor *e, const struct value *v)
{
	jobs_cancel(e->jobs, value_get_str(v, "id"));
}

static void on_console(struct executor *e, const struct value *v)
{
	consoles_open(e->consoles, v);
}

static void on_list(struct executor *e, const struct value *v)
{
	state_wanted(e);
}

static const struct {
	const char *type;
	void (*fn)(struct executor *e, const struct value *v);
} takers[] = {
	{ "hello", on_hello }, { "job", on_job }, { "cancel", on_cancel },
	{ "list", on_list }, { "console", on_console },
};

static void on_packet(struct executor *e, size_t n)
{
	_cleanup_(value_unrefp) struct value *v = NULL;
	char reason[128];

	v = exec_message_decode(EXEC_TO_EXECUTOR, e->packet, n, reason,
				sizeof(reason));
	if (!v) {
		log_warn("malformed packet from the daemon: %s", reason);
		conn_drop(e, "malformed packet");
		return;
	}
	if (e->greeted == !strcmp(value_get_str(v, "type"), "hello")) {
		conn_drop(e, "hello must come first, and once");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(takers); i++)
		if (!strcmp(value_get_str(v, "type"), takers[i].type))
			takers[i].fn(e, v);
}

static void conn_read(struct executor *e)
{
	for (int i = 0; i < BURST && e->conn >= 0; i++) {
		ssize_t n = recv(e->conn, e->packet, EXEC_MAX_MESSAGE + 1,
				 MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			conn_drop(e, strerror(errno));
		else if (n == 0)
			conn_drop(e, "closed");
		else if (n > EXEC_MAX_MESSAGE)
			conn_drop(e, "oversized packet");
		else
			on_packet(e, (size_t)n);
	}
}

static void conn_accept(struct executor *e)
{
	int fd = accept4(e->listen_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);
	/* Room for one packet of full size and then some; the kernel doubles
	 * it. Best effort: a smaller limit only refuses the longest states. */
	int room = 2 * EXEC_MAX_MESSAGE;

	if (fd < 0) {
		poll(NULL, 0, 20);
		return;
	}
	conn_drop(e, "a new daemon came");
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	e->conn = fd;
	e->greeted = false;
	e->full = false;
	e->state_due = false;
	e->hello_by = env_mono_ms() + HELLO_MS;
}

/* ---- set-up ---- */

static int fail_with(const char *what, const char *name, int r)
{
	log_error("%s %s: %s", what, name, strerror(-r));
	return r;
}

static int lock_take(struct executor *e)
{
	_cleanup_(freep) char *path = xasprintf("%s.lock", e->o->socket_path);

	e->lock_fd =
		open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (e->lock_fd < 0)
		return fail_with("cannot open", path, -errno);
	if (flock(e->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		log_error("%s is held: another executor serves this socket",
			  path);
		return -EBUSY;
	}
	return 0;
}

static int stale_remove(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : fail_with("cannot see", path, -errno);
	if (!S_ISSOCK(st.st_mode))
		return fail_with("not a socket, left alone:", path, -EEXIST);
	return unlink(path) < 0 ? fail_with("cannot remove", path, -errno) : 0;
}

static int owner_set(const struct executor_options *o)
{
	struct passwd *pw;
	int64_t uid;

	if (!o->socket_owner)
		return 0;
	pw = getpwnam(o->socket_owner);
	if (pw)
		uid = pw->pw_uid;
	else if (!int_parse(o->socket_owner, strlen(o->socket_owner), &uid) ||
		 uid < 0 || uid >= UINT32_MAX)
		return fail_with("no such user:", o->socket_owner, -ENOENT);
	if (chown(o->socket_path, (uid_t)uid, (gid_t)-1) < 0)
		return fail_with("cannot give away", o->socket_path, -errno);
	return 0;
}

static int socket_open(struct executor *e)
{
	const char *path = e->o->socket_path;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	mode_t before;
	int r;

	if (strlen(path) >= sizeof(sun.sun_path))
		return fail_with("too long for a socket:", path, -ENAMETOOLONG);
	r = stale_remove(path);
	if (r < 0)
		return r;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	e->listen_fd = socket(AF_UNIX,
			      SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (e->listen_fd < 0)
		return fail_with("cannot make", path, -errno);
	before = umask(0177);
	r = bind(e->listen_fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ?
		    -errno : 0;
	umask(before);
	if (r == 0 && listen(e->listen_fd, 8) < 0)
		r = -errno;
	if (r < 0)
		return fail_with("cannot listen at", path, r);
	return owner_set(e->o);
}

static int signals_open(struct executor *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	/* Ignored by who started us, it would be by us, and what becomes of our
	 * processes we would never hear. */
	signal(SIGCHLD, SIG_DFL);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	e->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return e->signal_fd < 0 || e->wake_fd < 0 ? -errno : 0;
}

static int backend_open(struct executor *e)
{
	struct xen_options x = {
		.state_dir = e->o->state_dir,
		.host_uuid = e->o->host_uuid,
		.migrate_address = e->o->migrate_address,
		.dm_root = e->o->dm_root,
		.cert = e->o->cert,
		.key = e->o->key,
		.trust = e->o->trust,
		.memory_bytes = e->o->memory_mib << 20,
		.cpus = e->o->cpus,
		.reboot = e->o->reboot,
		.event = on_event,
		.guest = on_guest,
		.event_data = e,
	};
	struct jobs_config j = {
		.ops = e->o->ops,
		.n_workers = e->o->workers,
		.allowed = &e->o->allowed,
		.wake = wake,
		.data = e,
	};
	struct consoles_config c = {
		.ops = e->o->ops,
		.state_dir = e->o->state_dir,
		.vncterm = e->o->vncterm,
		.console_user = e->o->console_user,
		.wake = wake,
		.data = e,
	};
	int r;

	if (mkdir(e->o->state_dir, 0700) < 0 && errno != EEXIST)
		return fail_with("cannot make", e->o->state_dir, -errno);
	r = e->o->ops->open(&x, &e->xen);
	if (r < 0)
		return r;
	j.xen = c.xen = e->xen;
	r = jobs_start(&j, &e->jobs);
	if (r == 0)
		r = consoles_start(&c, &e->consoles);
	if (r == 0)
		r = looker_start(e->o->ops, e->xen, wake, e, &e->looker);
	return r < 0 ? fail_with("cannot start", "workers", r) : 0;
}

static int executor_open(struct executor *e)
{
	int r = signals_open(e);

	if (r < 0)
		return fail_with("cannot watch", "signals", r);
	r = lock_take(e);
	if (r == 0)
		r = backend_open(e);
	if (r == 0)
		r = socket_open(e);
	return r;
}

static void fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* The daemon's connection goes first, so that it takes no half-done job for a
 * failed one. */
static void executor_close(struct executor *e)
{
	conn_drop(e, "the executor stops");
	if (e->listen_fd >= 0)
		unlink(e->o->socket_path);
	fd_close(e->listen_fd);
	if (e->jobs)
		jobs_stop(e->jobs);
	if (e->consoles)
		consoles_stop(e->consoles);
	if (e->looker)
		looker_stop(e->looker);
	if (e->xen)
		e->o->ops->close(e->xen);
	guests_free(e->guests);
	fd_close(e->signal_fd);
	fd_close(e->wake_fd);
	fd_close(e->lock_fd);
	pthread_mutex_destroy(&e->events_lock);
	free(e->packet);
	free(e);
}

/* ---- the loop ---- */

enum { P_SIGNAL, P_WAKE, P_LISTEN, P_CONN, P_COUNT };

static int64_t next_deadline(const struct executor *e)
{
	if (e->conn < 0)
		return INT64_MAX;
	return e->greeted ? e->state_at : e->hello_by;
}

static int64_t next_turn(const struct executor *e)
{
	int64_t at = next_deadline(e);

	return e->conn >= 0 && e->greeted ?
		       MIN(at, guests_next_at(e->guests)) : at;
}

static void drain(int fd)
{
	uint64_t drop;

	if (read(fd, &drop, sizeof(drop)) < 0)
		xassert(errno == EAGAIN || errno == EINTR);
}

static void check_clock(struct executor *e)
{
	if (e->conn < 0 || env_mono_ms() < next_deadline(e))
		return;
	if (!e->greeted) {
		conn_drop(e, "no hello");
		return;
	}
	e->state_due = true;
	e->state_at = env_mono_ms() + STATE_EVERY_MS;
}

static void handle(struct executor *e, const struct pollfd *p)
{
	if (p[P_SIGNAL].revents)
		e->stop = true;
	if (p[P_WAKE].revents)
		drain(e->wake_fd);
	if (p[P_CONN].revents & POLLOUT)
		e->full = false;
	if (e->conn >= 0 && (p[P_CONN].revents & ~POLLOUT))
		conn_read(e);
	if (p[P_LISTEN].revents)
		conn_accept(e);
	check_clock(e);
	pump(e);
}

static void loop(struct executor *e)
{
	while (!e->stop) {
		struct pollfd p[P_COUNT] = {
			[P_SIGNAL] = { .fd = e->signal_fd, .events = POLLIN },
			[P_WAKE] = { .fd = e->wake_fd, .events = POLLIN },
			[P_LISTEN] = { .fd = e->listen_fd, .events = POLLIN },
			[P_CONN] = { .fd = e->conn, .events = POLLIN },
		};
		int64_t at = next_turn(e), left = at - env_mono_ms();

		if (e->full)
			p[P_CONN].events |= POLLOUT;
		left = MIN(MAX(left, (int64_t)0), (int64_t)INT_MAX);
		/* A state that the socket would not take waits for POLLOUT. */
		if (at == INT64_MAX || e->full)
			left = -1;
		if (poll(p, P_COUNT, (int)left) < 0) {
			xassert(errno == EINTR);
			continue;
		}
		handle(e, p);
	}
}

int executor_run(const struct executor_options *o)
{
	struct executor *e = xcalloc(1, sizeof(*e));
	int r;

	e->o = o;
	e->lock_fd = e->listen_fd = e->signal_fd = e->wake_fd = e->conn = -1;
	e->packet = xmalloc(EXEC_MAX_MESSAGE + 1);
	e->guests = guests_new(wake, e);
	pthread_mutex_init(&e->events_lock, NULL);
	r = executor_open(e);
	if (r == 0) {
		log_info("ready at %s", o->socket_path);
		loop(e);
		log_info("stopping");
	}
	executor_close(e);
	return r;
}
