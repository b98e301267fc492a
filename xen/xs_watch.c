#include "xen/xs_watch.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "base/text.h"
#include "xen/guest_pace.h"
#include "xen/guests.h"
#include "xen/sandbox.h"
#include "xen/xl_process.h"

/* Beyond what the process has when it begins. */
#define MEMORY_LIMIT (48u << 20)
#define MAX_FILES 16
/* Notices taken before a guest is looked at. */
#define BURST 256
/* A domain whose VM is not written down yet is looked for again. */
#define AGAIN_MS 1000
#define DOMAINS "domains" /* token of the watches that tell of domains */

struct watched {
	uint32_t domid;
	char vm[UUID_LEN + 1];
	struct guest_pace pace;
	bool listening; /* its watches are up */
	bool there;     /* in the list that is being read */
	struct list link;
};

struct xs_reader {
	int socket;
	struct xs_handle *xs;
	struct guest_scan *scan;
	struct list guests; /* the next one to be looked at first */
	size_t n_guests;
	int64_t refresh_at; /* INT64_MAX: not without a notice */
};

static const char *const folders[] = { "attr", "data", "control", "feature",
				       "device" };

/* ---- watches ---- */

static void listen_to(struct xs_reader *r, struct watched *g, bool on)
{
	char path[64], token[16];

	if (g->listening == on)
		return;
	g->listening = on;
	snprintf(token, sizeof(token), "%u", g->domid);
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		snprintf(path, sizeof(path), "/local/domain/%u/%s", g->domid,
			 folders[i]);
		if (on)
			xs_watch(r->xs, path, token);
		else
			xs_unwatch(r->xs, path, token);
	}
}

/* ---- which guests there are ---- */

static struct watched *guest_find(struct xs_reader *r, int64_t domid)
{
	list_for_each(l, &r->guests) {
		struct watched *g = list_entry(l, struct watched, link);

		if (g->domid == domid)
			return g;
	}
	return NULL;
}

static void guest_forget(struct xs_reader *r, struct watched *g)
{
	listen_to(r, g, false);
	list_remove(&g->link);
	r->n_guests--;
	free(g);
}

/* "/vm/UUID", which the toolstack wrote and the guest cannot. */
static bool read_vm(struct xs_reader *r, uint32_t domid, char out[UUID_LEN + 1])
{
	char path[64];
	unsigned n = 0;
	_cleanup_(freep) char *text = NULL;

	snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	text = xs_read(r->xs, XBT_NULL, path, &n);
	if (!text || n < 4 + UUID_LEN || strncmp(text, "/vm/", 4) ||
	    !uuid_valid(text + 4, UUID_LEN))
		return false;
	snprintf(out, UUID_LEN + 1, "%s", text + 4);
	return true;
}

static void guest_add(struct xs_reader *r, uint32_t domid,
		      const char vm[UUID_LEN + 1])
{
	struct watched *g;

	if (r->n_guests >= GUESTS_MAX)
		return;
	g = xcalloc(1, sizeof(*g));
	g->domid = domid;
	memcpy(g->vm, vm, sizeof(g->vm));
	g->there = true;
	guest_pace_init(&g->pace, env_mono_ms());
	list_push(&r->guests, &g->link);
	r->n_guests++;
	listen_to(r, g, true);
}

static void domain_seen(struct xs_reader *r, const char *name)
{
	char vm[UUID_LEN + 1];
	struct watched *g;
	int64_t domid;

	if (!int_parse(name, strlen(name), &domid) || domid < 1 ||
	    domid > UINT16_MAX)
		return;
	g = guest_find(r, domid);
	if (!read_vm(r, (uint32_t)domid, vm)) {
		r->refresh_at = env_mono_ms() + AGAIN_MS;
		return;
	}
	if (g && strcmp(g->vm, vm)) {
		guest_forget(r, g);
		g = NULL;
	}
	if (g)
		g->there = true;
	else
		guest_add(r, (uint32_t)domid, vm);
}

static void refresh(struct xs_reader *r)
{
	unsigned n = 0;
	_cleanup_(freep) char **names =
		xs_directory(r->xs, XBT_NULL, "/local/domain", &n);

	r->refresh_at = INT64_MAX;
	list_for_each(l, &r->guests)
		list_entry(l, struct watched, link)->there = false;
	for (unsigned i = 0; names && i < n; i++)
		domain_seen(r, names[i]);
	list_for_each_safe(l, &r->guests) {
		struct watched *g = list_entry(l, struct watched, link);

		if (!g->there)
			guest_forget(r, g);
	}
}

/* ---- notices ---- */

static void take_notice(struct xs_reader *r, const char *token)
{
	struct watched *g;
	int64_t domid;

	if (!strcmp(token, DOMAINS)) {
		r->refresh_at = 0;
		return;
	}
	if (!int_parse(token, strlen(token), &domid))
		return;
	g = guest_find(r, domid);
	if (!g || !g->listening)
		return; /* it was on its way */
	guest_pace_event(&g->pace, env_mono_ms());
	if (g->pace.deaf)
		listen_to(r, g, false);
}

/* True: there may be more. */
static bool take_notices(struct xs_reader *r)
{
	for (unsigned i = 0; i < BURST; i++) {
		_cleanup_(freep) char **notice = xs_check_watch(r->xs);

		if (!notice)
			return false;
		take_notice(r, notice[XS_WATCH_TOKEN]);
	}
	return true;
}

/* ---- looking at one ---- */

static void answer(struct xs_reader *r, const struct watched *g,
		   enum guest_ask ask, const char *below)
{
	char path[32 + GUEST_MAX_PATH];
	_cleanup_(freep) void *got = NULL;
	unsigned n = 0;

	snprintf(path, sizeof(path), "/local/domain/%u/%s", g->domid, below);
	if (ask == GUEST_LIST) {
		char **names = xs_directory(r->xs, XBT_NULL, path, &n);

		got = names;
		guest_scan_list(r->scan, (const char *const *)names,
				names ? n : 0);
	} else {
		got = xs_read(r->xs, XBT_NULL, path, &n);
		guest_scan_read(r->scan, got, n);
	}
}

static int report(struct xs_reader *r, const struct watched *g,
		  struct value *metrics)
{
	return xl_packet_send(r->socket,
			      value_struct_of("type", value_stringz("guest"),
					      "vm", value_stringz(g->vm),
					      "domid", value_int(g->domid),
					      "metrics", metrics, NULL));
}

static int look(struct xs_reader *r, struct watched *g)
{
	struct value *metrics;
	enum guest_ask ask;
	const char *below;

	guest_scan_begin(r->scan);
	while ((ask = guest_scan_next(r->scan, &below)) != GUEST_DONE) {
		guest_pace_spend(&g->pace, env_mono_ms(), 1);
		answer(r, g, ask, below);
	}
	metrics = guest_scan_end(r->scan);
	return metrics ? report(r, g, metrics) : 0;
}

/* The first that is due; it is the last in the row then. */
static int look_at_one(struct xs_reader *r)
{
	list_for_each_safe(l, &r->guests) {
		struct watched *g = list_entry(l, struct watched, link);

		if (!guest_pace_due(&g->pace, env_mono_ms()))
			continue;
		list_remove(&g->link);
		list_push(&r->guests, &g->link);
		/* Before the look, so that nothing written after it is
		 * missed; and also a guest that will be too loud again at once
		 * is looked at now and then. */
		listen_to(r, g, true);
		return look(r, g);
	}
	return 0;
}

/* ---- the loop ---- */

static int wait_ms(struct xs_reader *r)
{
	int64_t now = env_mono_ms(), least = MAX(r->refresh_at - now,
						 (int64_t)0);

	if (r->refresh_at == INT64_MAX)
		least = INT64_MAX;
	list_for_each(l, &r->guests)
		least = MIN(least,
			    guest_pace_wait(&list_entry(l, struct watched,
							link)->pace, now));
	return least >= INT_MAX ? -1 : (int)least;
}

static int turn(struct xs_reader *r, bool more)
{
	struct pollfd f[2] = { { .fd = r->socket, .events = POLLIN },
			       { .fd = xs_fileno(r->xs), .events = POLLIN } };

	if (poll(f, 2, more ? 0 : wait_ms(r)) < 0)
		return errno == EINTR ? 0 : -errno;
	if (f[1].revents & ~POLLIN)
		return -EIO;
	if (f[0].revents)
		return -EPIPE;
	more = take_notices(r);
	if (env_mono_ms() >= r->refresh_at)
		refresh(r);
	return look_at_one(r) < 0 ? -EPIPE : more;
}

/* ---- set-up ---- */

static uint64_t address_space(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	if (f && fscanf(f, "%lu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* libxenstore has its thread by now, and what that needs beyond the room it has
 * is the limit. */
static int confine(const char *root, const char *user)
{
	struct sandbox box = {
		.root = root, .user = user, .files = MAX_FILES,
		.memory = address_space() + MEMORY_LIMIT,
	};

	return sandbox_enter(&box);
}

static int reader_open(struct xs_reader *r, const char *root, const char *user)
{
	/* An arena for libxenstore's thread would not fit into the limit. */
	mallopt(M_ARENA_MAX, 1);
	list_init(&r->guests);
	r->scan = guest_scan_new();
	r->refresh_at = 0;
	r->xs = xs_open(0);
	/* The first watch starts libxenstore's thread. */
	if (!r->xs || !xs_watch(r->xs, "@introduceDomain", DOMAINS) ||
	    !xs_watch(r->xs, "@releaseDomain", DOMAINS))
		return -ENXIO;
	return confine(root, user);
}

int xs_watch_main(int socket, const char *root, const char *user)
{
	struct xs_reader r = { .socket = socket };
	int more = reader_open(&r, root, user);

	while (more >= 0)
		more = turn(&r, more > 0);
	if (more != -EPIPE)
		log_error("cannot read guests' nodes: %s", strerror(-more));
	return 1;
}
