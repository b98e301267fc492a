#include "raftdb/consensus_send.h"

#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"

#define RESEND_MS 150        /* without progress, and */
#define RESEND_BYTES_MS 8192 /* a millisecond more for so many bytes */
#define RESEND_MAX_MS 1000
#define INSTALL_AGAIN_MS 1000
#define NO_SNAPSHOT UINT64_MAX /* last_index of a message without its data */

/* A request of libraft's that is answered by the next turn. */
struct late {
	struct list in_sender;
	struct raft_io_send *send;
	raft_io_send_cb send_cb;
	struct raft_io_snapshot_get *get;
};

struct sent {
	struct raft_io_send req; /* the real io's */
	struct sender *sender;
	uint64_t id;
	struct raft_io_send *theirs;
	raft_io_send_cb cb;
};

struct send_install {
	struct raft_io_snapshot_get get;
	struct raft_io_send send;
	struct sender *sender;
	uint64_t id;
	struct raft_snapshot *snapshot;
};

static struct sender *of(struct raft_io *io)
{
	return ((struct raft *)io->data)->data;
}

static int send_out(struct sender *s, struct raft_io_send *req,
		    const struct raft_message *m, raft_io_send_cb cb)
{
	return s->wire ? wire_send(s->wire, req, m, cb)
		       : s->real.send(s->io, req, m, cb);
}

static struct send_peer *find(struct sender *s, uint64_t id)
{
	for (unsigned i = 0; i < DB_MEMBERS_MAX; i++)
		if (s->peers[i].id == id)
			return &s->peers[i];
	return NULL;
}

/* The one that was used longest ago makes room. */
static struct send_peer *peer_of(struct sender *s, uint64_t id)
{
	struct send_peer *p = find(s, id);

	if (!p) {
		p = &s->peers[0];
		for (unsigned i = 1; i < DB_MEMBERS_MAX; i++)
			if (s->peers[i].used_at < p->used_at)
				p = &s->peers[i];
		memset(p, 0, sizeof *p);
		p->id = id;
	}
	p->used_at = env_mono_ms();
	return p;
}

void sender_connected(struct sender *s, uint64_t id)
{
	struct send_peer *p = find(s, id);

	if (!p)
		return;
	p->upto = 0;
	p->install_again_at = 0;
}

/* --- requests that are answered without having been carried out --- */

static void later(struct sender *s, struct raft_io_send *send,
		  raft_io_send_cb cb, struct raft_io_snapshot_get *get)
{
	struct late *l = xcalloc(1, sizeof *l);

	l->send = send;
	l->send_cb = cb;
	l->get = get;
	list_push(&s->late, &l->in_sender);
}

/* What libraft takes for the snapshot that it asked for, to put it into a
 * message to somebody; only then do we learn to whom. */
static void give_no_snapshot(struct raft_io_snapshot_get *get)
{
	struct raft_snapshot *snapshot = raft_calloc(1, sizeof *snapshot);

	xassert(snapshot);
	snapshot->index = NO_SNAPSHOT;
	raft_configuration_init(&snapshot->configuration);
	snapshot->bufs = raft_calloc(1, sizeof *snapshot->bufs);
	xassert(snapshot->bufs);
	snapshot->n_bufs = 1;
	get->cb(get, snapshot, 0);
}

static void answer_late(struct sender *s)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &s->late);
	while (!list_empty(&batch)) {
		struct late *l = list_entry(batch.next, struct late, in_sender);

		list_remove(&l->in_sender);
		if (l->get)
			give_no_snapshot(l->get);
		else
			l->send_cb(l->send, RAFT_NOCONNECTION);
		free(l);
	}
}

/* --- entries --- */

static void start_range(struct send_peer *p, uint64_t prev, int64_t now)
{
	p->prev = p->upto = prev;
	p->bytes = 0;
	p->since = now;
}

static bool in_range(const struct send_peer *p, uint64_t prev, int64_t now)
{
	int64_t wait = RESEND_MS + (int64_t)(p->bytes / RESEND_BYTES_MS);

	return p->upto != 0 && prev >= p->prev && prev <= p->upto &&
	       now - p->since < MIN(wait, RESEND_MAX_MS);
}

/* Takes out what is on its way. */
static void trim(struct sender *s, struct send_peer *p,
		 struct raft_append_entries *a)
{
	int64_t now = env_mono_ms();
	raft_index match = 0;
	uint64_t known;

	if (raft_match_index(s->raft, p->id, &match) == 0 && match > p->match)
		p->since = now;
	p->match = match;
	if (p->term != a->term || match >= p->upto)
		p->upto = 0;
	p->term = a->term;
	if (!in_range(p, a->prev_log_index, now))
		start_range(p, a->prev_log_index, now);
	known = MIN(p->upto - a->prev_log_index, (uint64_t)a->n_entries);
	if (known == a->n_entries) {
		a->n_entries = 0;
		a->entries = NULL;
	} else if (known > 0) {
		a->prev_log_term = a->entries[known - 1].term;
		a->prev_log_index += known;
		a->entries += known;
		a->n_entries -= (unsigned)known;
	}
	for (unsigned i = 0; i < a->n_entries; i++)
		p->bytes += a->entries[i].buf.len;
	p->upto += a->n_entries;
}

static void on_sent(struct raft_io_send *req, int status)
{
	struct sent *w = container_of(req, struct sent, req);
	struct send_peer *p = find(w->sender, w->id);

	if (status != 0 && p)
		p->upto = 0;
	w->cb(w->theirs, status);
	free(w);
}

static int send_entries(struct sender *s, struct raft_io_send *req,
			const struct raft_message *message, raft_io_send_cb cb)
{
	struct raft_message m = *message;
	struct sent *w = xcalloc(1, sizeof *w);
	int rv;

	trim(s, peer_of(s, m.server_id), &m.append_entries);
	w->sender = s;
	w->id = m.server_id;
	w->theirs = req;
	w->cb = cb;
	rv = send_out(s, &w->req, &m, on_sent);
	if (rv != 0)
		free(w);
	return rv;
}

/* --- snapshots --- */

static void note_want(struct sender *s, const struct raft_message *m)
{
	struct send_peer *p = peer_of(s, m->server_id);
	bool under_way = s->install && s->install->id == p->id;
	raft_index match = 0;

	/* Not because of the one before, then. */
	if (!under_way && p->used_at >= p->install_again_at)
		p->installed_index = 0;
	/* That one has arrived, and was too old already: libraft asks once. */
	if (p->installed_index != 0 &&
	    raft_match_index(s->raft, p->id, &match) == 0 &&
	    match >= p->installed_index)
		p->installed_index = 0;
	p->wants = s->wanted = true;
	p->want = *m;
	snprintf(p->address, sizeof p->address, "%s", m->server_address);
}

static void install_end(struct send_install *in)
{
	struct raft_snapshot *snapshot = in->snapshot;

	in->sender->install = NULL;
	if (snapshot) {
		raft_configuration_close(&snapshot->configuration);
		raft_free(snapshot->bufs[0].base);
		raft_free(snapshot->bufs);
		raft_free(snapshot);
	}
	free(in);
}

static void on_installed(struct raft_io_send *req, int status)
{
	struct send_install *in = container_of(req, struct send_install, send);
	struct send_peer *p = find(in->sender, in->id);
	size_t bytes = in->snapshot->bufs[0].len;

	if (p && status == 0)
		p->install_again_at = env_mono_ms() + INSTALL_AGAIN_MS +
				      (int64_t)(bytes / RESEND_BYTES_MS);
	install_end(in);
}

static bool still_leads(const struct sender *s, const struct send_peer *p)
{
	return raft_state(s->raft) == RAFT_LEADER &&
	       raft_current_term(s->raft) ==
		       p->want.install_snapshot.term;
}

/* libraft never hears of it: it would free what it has not got. */
static void load_failed(struct send_install *in, struct send_peer *p, int rv)
{
	if (p && rv != RAFT_CANCELED) {
		log_error("cannot load the snapshot for %016llx: %s: trying "
			  "again", (unsigned long long)p->id,
			  raft_strerror(rv));
		p->install_again_at = env_mono_ms() + INSTALL_AGAIN_MS;
	}
	install_end(in);
}

static void on_loaded(struct raft_io_snapshot_get *req,
		      struct raft_snapshot *snapshot, int status)
{
	struct send_install *in = container_of(req, struct send_install, get);
	struct sender *s = in->sender;
	struct send_peer *p = find(s, in->id);
	struct raft_message m;

	if (status != 0) {
		load_failed(in, p, status);
		return;
	}
	in->snapshot = snapshot;
	if (s->closing || !p || !still_leads(s, p)) {
		install_end(in);
		return;
	}
	m = p->want;
	m.server_address = p->address;
	m.install_snapshot.last_index = snapshot->index;
	m.install_snapshot.last_term = snapshot->term;
	m.install_snapshot.conf = snapshot->configuration;
	m.install_snapshot.conf_index = snapshot->configuration_index;
	m.install_snapshot.data = snapshot->bufs[0];
	p->wants = false;
	p->installed_index = snapshot->index;
	log_info("sending the snapshot at index %llu (%zu bytes) to %016llx",
		 (unsigned long long)snapshot->index, snapshot->bufs[0].len,
		 (unsigned long long)p->id);
	if (send_out(s, &in->send, &m, on_installed) != 0)
		install_end(in);
}

/* False: not, or not yet. */
static bool should_install(struct sender *s, struct send_peer *p, int64_t now)
{
	raft_index match = 0;

	if (!p->wants)
		return false;
	if (!still_leads(s, p) ||
	    raft_match_index(s->raft, p->id, &match) != 0 ||
	    (p->installed_index != 0 && match >= p->installed_index)) {
		p->wants = false;
		return false;
	}
	return now >= p->install_again_at;
}

static void install(struct sender *s, struct send_peer *p)
{
	struct send_install *in = xcalloc(1, sizeof *in);

	in->sender = s;
	in->id = p->id;
	s->install = in;
	if (s->real.snapshot_get(s->io, &in->get, on_loaded) != 0)
		install_end(in);
}

/* --- the io that libraft sees --- */

static int do_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *message, raft_io_send_cb cb)
{
	struct sender *s = of(io);

	if (message->type == RAFT_APPEND_ENTRIES &&
	    message->append_entries.n_entries > 0)
		return send_entries(s, req, message, cb);
	if (message->type != RAFT_INSTALL_SNAPSHOT ||
	    message->install_snapshot.last_index != NO_SNAPSHOT)
		return send_out(s, req, message, cb);
	note_want(s, message);
	req->cb = cb;
	later(s, req, cb, NULL);
	return 0;
}

static int do_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	req->cb = cb;
	later(of(io), NULL, NULL, req);
	return 0;
}

void sender_arm(struct sender *s, struct raft_io *io, struct raft *raft,
		struct wire *wire)
{
	s->raft = raft;
	s->wire = wire;
	s->io = io;
	s->real = *io;
	list_init(&s->late);
	raft->data = s;
	io->send = do_send;
	io->snapshot_get = do_snapshot_get;
}

void sender_turn(struct sender *s)
{
	int64_t now;

	while (!list_empty(&s->late))
		answer_late(s);
	if (s->install || s->closing || !s->wanted)
		return;
	now = env_mono_ms();
	s->wanted = false;
	for (unsigned i = 0; i < DB_MEMBERS_MAX && !s->install; i++) {
		struct send_peer *p = &s->peers[i];

		if (p->id && should_install(s, p, now))
			install(s, p);
		s->wanted = s->wanted || p->wants;
	}
	s->wanted = s->wanted || s->install;
}

uint64_t sender_installing(const struct sender *s)
{
	return s->install ? s->install->id : 0;
}

void sender_close(struct sender *s)
{
	s->closing = true;
	while (!list_empty(&s->late))
		answer_late(s);
}
