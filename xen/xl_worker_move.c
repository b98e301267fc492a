/* Both ends of a migration. Everything of one end is in one process: libxl, the
 * thread that carries its stream, and the link. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim_wire.h"
#include "xen/xl_image.h"
#include "xen/xl_pump.h"
#include "xen/xl_tls.h"
#include "xen/xl_worker.h"

#define STEP_S 60    /* without a byte: given up */
#define ANSWER_S 600 /* until the other end has built the guest */

static struct xl_tls_files files_of(const struct xl_worker *w)
{
	return (struct xl_tls_files){
		.cert = value_get_str(w->request, "cert"),
		.key = value_get_str(w->request, "key"),
		.trust = value_get_str(w->request, "trust"),
	};
}

static int fail_move(struct xl_worker *w, const char *text)
{
	log_warn("migration of %s: %s", w->vm, text);
	return xl_fail(w, "VM_MIGRATE_FAILED", w->vm,
		       value_get_str(w->request, "source"),
		       value_get_str(w->request, "destination"), text);
}

/* ---- destination ---- */

static int listen_open(struct xl_worker *w, int *ret_fd, uint16_t *ret_port)
{
	struct sockaddr_storage ss;
	unsigned len = sizeof(ss);
	int fd;

	if (!wire_address(value_get_str(w->request, "address"), 0, &ss, &len))
		return -EINVAL;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&ss, len) < 0 || listen(fd, 4) < 0 ||
	    getsockname(fd, (struct sockaddr *)&ss, &len) < 0) {
		close(fd);
		return -errno;
	}
	/* The port is at the same place in both families. */
	*ret_port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	*ret_fd = fd;
	return 0;
}

/* In a time that tells nothing about how much of it was right. */
static bool token_equal(const char *a, const char *b)
{
	unsigned char diff = 0;

	for (size_t i = 0; i < XEN_TOKEN_LEN; i++)
		diff |= (unsigned char)(a[i] ^ b[i]);
	return diff == 0;
}

static int greet(struct xl_worker *w, struct xl_tls *t, int fd)
{
	struct xl_tls_files f = files_of(w);
	char token[XEN_TOKEN_LEN];
	int r = xl_tls_open(t, &f, fd, true);

	if (r == 0)
		r = xl_tls_read(t, token, sizeof(token));
	if (r == 0 && !token_equal(token, value_get_str(w->request, "token"))) {
		snprintf(t->why, sizeof(t->why), "nobody expects this token");
		r = -EACCES;
	}
	if (r == 0)
		r = xl_tls_write(t, "OK", 2);
	if (r < 0)
		log_warn("migration of %s: somebody came: %s", w->vm, t->why);
	return r;
}

/* Whoever comes without certificate or token is sent away, and costs nothing
 * but a little time. The executor's patience ends the waiting. */
static int await_source(struct xl_worker *w, int listener, struct xl_tls *t)
{
	while (true) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return fail_move(w, strerror(errno));
		if (greet(w, t, fd) == 0)
			break;
		xl_tls_close(t);
	}
	xl_tls_patience(t, STEP_S);
	return 0;
}

/* The executor must know that the guest is here before the source does. */
static int report_arrival(struct xl_worker *w)
{
	char answer[8];

	xl_packet_send(w->socket,
		       value_struct_of("type", value_stringz("arrived"), NULL));
	if (recv(w->socket, answer, sizeof(answer), 0) <= 0)
		return fail_move(w, "the arrival was not recorded");
	return 0;
}

static int receive_guest(struct xl_worker *w, struct xl_tls *t)
{
	struct xl_pump pump;
	int rc = xl_pump_start(&pump, true, xl_tls_get_chunk, t);

	if (rc < 0)
		return fail_move(w, strerror(-rc));
	/* The build takes its stream from there. */
	w->fds[0] = pump.fd;
	w->n_fds = 1;
	rc = xl_op_start(w);
	/* A source that is still sending hears of it when we end. */
	if (rc != 0)
		return rc;
	xl_pump_end(&pump);
	if (!t->ended)
		return fail_move(w, "the guest came without an end");
	rc = report_arrival(w);
	if (rc == 0 && xl_tls_write(t, "OK", 2) < 0)
		log_warn("migration of %s: %s", w->vm, t->why);
	return rc;
}

/* {config, paused=true, discard=true, address, token, cert, key, trust}: tells
 * `listening` with its port, then `arrived`. */
int xl_op_receive(struct xl_worker *w)
{
	struct xl_tls t = { .fd = -1 };
	uint16_t port = 0;
	int listener = -1, rc = xl_check_build(w);

	if (rc != 0)
		return rc;
	rc = listen_open(w, &listener, &port);
	if (rc < 0)
		return fail_move(w, strerror(-rc));
	xl_packet_send(w->socket,
		       value_struct_of("type", value_stringz("listening"),
				       "port", value_int(port), NULL));
	rc = await_source(w, listener, &t);
	close(listener);
	if (rc == 0)
		rc = receive_guest(w, &t);
	xl_tls_close(&t);
	return rc;
}

/* ---- source ---- */

static int connect_to(struct xl_worker *w)
{
	struct sockaddr_storage ss;
	unsigned len;
	int on = 1, fd;
	struct timeval tv = { .tv_sec = 20 };

	if (!wire_address(value_get_str(w->request, "address"),
			  (uint16_t)xl_number(w, "port"), &ss, &len))
		return -EINVAL;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&ss, len) == 0)
		return fd;
	close(fd);
	return -errno;
}

static int introduce(struct xl_worker *w, struct xl_tls *t)
{
	struct xl_tls_files f = files_of(w);
	int fd = connect_to(w), r;
	char ok[2];

	if (fd < 0) {
		log_warn("migration of %s: cannot reach %s: %s", w->vm,
			 value_get_str(w->request, "address"), strerror(-fd));
		return xl_fail(w, "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED");
	}
	r = xl_tls_open(t, &f, fd, false);
	if (r == 0)
		r = xl_tls_write(t, value_get_str(w->request, "token"),
				 XEN_TOKEN_LEN);
	if (r == 0)
		r = xl_tls_read(t, ok, sizeof(ok));
	if (r < 0)
		return fail_move(w, t->why);
	xl_tls_patience(t, STEP_S);
	return 0;
}

static int send_head(struct xl_worker *w, struct xl_tls *t)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int r = xl_image_head(&b, w->vm, "{}");

	if (r == 0 && xl_tls_put_chunk(t, b.data, b.len) > 0)
		return 0;
	return fail_move(w, r < 0 ? strerror(-r) : t->why);
}

static int fail_suspend(struct xl_worker *w, const struct xl_tls *t)
{
	if (*t->why)
		return fail_move(w, t->why);
	return fail_move(w, *w->complaint ? w->complaint
					  : "Xen could not copy the guest");
}

static int send_guest(struct xl_worker *w, struct xl_tls *t, uint32_t domid)
{
	int flags = xl_flag(w, "live") ? LIBXL_SUSPEND_LIVE : 0;
	struct xl_pump pump;
	char ok[2];
	int rc = xl_pump_start(&pump, false, xl_tls_put_chunk, t), pumped;

	if (rc < 0)
		return fail_move(w, strerror(-rc));
	rc = libxl_domain_suspend(w->ctx, domid, pump.fd, flags, NULL);
	pumped = xl_pump_end(&pump);
	if (rc || pumped < 0 || xl_tls_end_chunks(t) < 0)
		return fail_suspend(w, t);
	xl_tls_patience(t, ANSWER_S);
	if (xl_tls_read(t, ok, sizeof(ok)) < 0)
		return fail_move(w, "the destination did not take the guest");
	log_info("VM %s: %llu bytes sent as %llu, %s", w->vm,
		 (unsigned long long)pump.bytes, (unsigned long long)t->sent,
		 xl_tls_cipher(t));
	return 0;
}

/* Following a PV guest's writes takes shadow paging, which not every Xen has:
 * known before anything is begun. */
static int check_live(struct xl_worker *w, uint32_t domid)
{
	libxl_physinfo info;
	bool shadow;

	if (!xl_flag(w, "live") ||
	    xl_type_of(w, domid) != LIBXL_DOMAIN_TYPE_PV)
		return 0;
	libxl_physinfo_init(&info);
	shadow = libxl_get_physinfo(w->ctx, &info) || info.cap_shadow;
	libxl_physinfo_dispose(&info);
	if (shadow)
		return 0;
	return fail_move(w, "this Xen has no shadow paging, so a PV guest "
			    "cannot be migrated while it runs; it can with "
			    "live=false, stopped for the whole copy");
}

/* {address, port, token, live, cert, key, trust, source, destination}: at the
 * end the guest is at the destination and stopped here. After a failure it runs
 * on. */
int xl_op_send(struct xl_worker *w)
{
	struct xl_tls t = { .fd = -1 };
	uint32_t domid = INVALID_DOMID;
	enum xl_look look = xl_look(w, &domid);
	int rc;

	if (look != XL_RUNNING)
		return xl_fail_state(w, "running", look);
	rc = xl_check_movable(w, domid);
	if (rc == 0)
		rc = check_live(w, domid);
	if (rc == 0)
		rc = introduce(w, &t);
	if (rc == 0)
		rc = send_head(w, &t);
	if (rc == 0)
		rc = send_guest(w, &t, domid);
	xl_tls_close(&t);
	if (rc != 0)
		xl_let_go_on(w);
	return rc;
}
