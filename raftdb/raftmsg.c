#include "raftdb/raftmsg.h"

#include <stddef.h>
#include <string.h>

#include "raftdb/db.h"

#define ADDRESS_MAX 255
#define ENTRY_LEN_MIN 10  /* term, type, no bytes */
#define ENTRY_LEN_HEAD 19 /* with the longest length */
#define SERVER_LEN_HEAD 20
#define FIXED_LEN_MAX 96 /* of all that every message has */

/* The plain fields of a message, in their order on the wire. */
enum kind { KIND_END, KIND_BOOL, KIND_U8, KIND_U16, KIND_U64 };

struct field {
	enum kind kind;
	size_t at;
};

#define U64(f) { KIND_U64, offsetof(struct raft_message, f) }
#define U16(f) { KIND_U16, offsetof(struct raft_message, f) }
#define U8(f) { KIND_U8, offsetof(struct raft_message, f) }
#define BOOL(f) { KIND_BOOL, offsetof(struct raft_message, f) }

static const struct field fields[][8] = {
	[RAFT_APPEND_ENTRIES] = {
		U8(append_entries.version),
		U64(append_entries.term),
		U64(append_entries.prev_log_index),
		U64(append_entries.prev_log_term),
		U64(append_entries.leader_commit),
	},
	[RAFT_APPEND_ENTRIES_RESULT] = {
		U8(append_entries_result.version),
		U64(append_entries_result.term),
		U64(append_entries_result.rejected),
		U64(append_entries_result.last_log_index),
		U16(append_entries_result.features),
		U16(append_entries_result.capacity),
	},
	[RAFT_REQUEST_VOTE] = {
		U8(request_vote.version),
		U64(request_vote.term),
		U64(request_vote.candidate_id),
		U64(request_vote.last_log_index),
		U64(request_vote.last_log_term),
		BOOL(request_vote.disrupt_leader),
		BOOL(request_vote.pre_vote),
	},
	[RAFT_REQUEST_VOTE_RESULT] = {
		U8(request_vote_result.version),
		U64(request_vote_result.term),
		BOOL(request_vote_result.vote_granted),
		BOOL(request_vote_result.pre_vote),
		U16(request_vote_result.features),
		U16(request_vote_result.capacity),
	},
	[RAFT_INSTALL_SNAPSHOT] = {
		U8(install_snapshot.version),
		U64(install_snapshot.term),
		U64(install_snapshot.last_index),
		U64(install_snapshot.last_term),
		U64(install_snapshot.conf_index),
	},
	[RAFT_TIMEOUT_NOW] = {
		U8(timeout_now.version),
		U64(timeout_now.term),
		U64(timeout_now.last_log_index),
		U64(timeout_now.last_log_term),
	},
};

static const struct field *fields_of(unsigned type)
{
	return type < ARRAY_LEN(fields) && fields[type][0].kind != KIND_END
		       ? fields[type] : NULL;
}

/* --- out --- */

static void put_field(struct buf *b, const struct field *f, const void *p)
{
	switch (f->kind) {
	case KIND_BOOL:
		buf_put_u8(b, *(const bool *)p);
		break;
	case KIND_U8:
		buf_put_u8(b, *(const unsigned char *)p);
		break;
	case KIND_U16:
		buf_put_u8(b, (uint8_t)*(const unsigned short *)p);
		buf_put_u8(b, (uint8_t)(*(const unsigned short *)p >> 8));
		break;
	default:
		buf_put_u64(b, *(const unsigned long long *)p);
		break;
	}
}

static void put_entries(struct buf *b, const struct raft_append_entries *a)
{
	buf_put_u32(b, a->n_entries);
	for (unsigned i = 0; i < a->n_entries; i++) {
		const struct raft_entry *e = &a->entries[i];

		buf_put_u64(b, e->term);
		buf_put_u8(b, (uint8_t)e->type);
		buf_put_bytes(b, e->buf.base, e->buf.len);
	}
}

static void put_snapshot(struct buf *b, const struct raft_install_snapshot *s)
{
	buf_put_u32(b, s->conf.n);
	for (unsigned i = 0; i < s->conf.n; i++) {
		const struct raft_server *server = &s->conf.servers[i];

		buf_put_u64(b, server->id);
		buf_put_bytes(b, server->address, strlen(server->address));
		buf_put_u8(b, (uint8_t)server->role);
	}
	buf_put_u64(b, s->data.len);
}

bool raftmsg_put(struct buf *b, const struct raft_message *m)
{
	const struct field *f = fields_of(m->type);

	if (!f)
		return false;
	buf_put_u8(b, RAFTMSG_VERSION);
	buf_put_u8(b, (uint8_t)m->type);
	for (; f->kind != KIND_END; f++)
		put_field(b, f, (const char *)m + f->at);
	if (m->type == RAFT_APPEND_ENTRIES)
		put_entries(b, &m->append_entries);
	else if (m->type == RAFT_INSTALL_SNAPSHOT)
		put_snapshot(b, &m->install_snapshot);
	return true;
}

size_t raftmsg_size(const struct raft_message *m)
{
	size_t n = FIXED_LEN_MAX;

	if (m->type == RAFT_APPEND_ENTRIES)
		for (unsigned i = 0; i < m->append_entries.n_entries; i++)
			n += ENTRY_LEN_HEAD +
			     m->append_entries.entries[i].buf.len;
	else if (m->type == RAFT_INSTALL_SNAPSHOT)
		for (unsigned i = 0; i < m->install_snapshot.conf.n; i++)
			n += SERVER_LEN_HEAD +
			     strlen(m->install_snapshot.conf.servers[i].address);
	return n;
}

/* --- in --- */

static void get_field(struct reader *r, const struct field *f, void *p)
{
	uint8_t low;

	switch (f->kind) {
	case KIND_BOOL:
		low = reader_u8(r);
		r->bad = r->bad || low > 1;
		*(bool *)p = low == 1;
		break;
	case KIND_U8:
		*(unsigned char *)p = reader_u8(r);
		break;
	case KIND_U16:
		low = reader_u8(r);
		*(unsigned short *)p = (unsigned short)(low | reader_u8(r) << 8);
		break;
	default:
		*(unsigned long long *)p = reader_u64(r);
		break;
	}
}

/* What count says is there, as far as lengths tell; at most what is left. */
static bool count_fits(const struct reader *r, uint32_t count, size_t each)
{
	return !r->bad && count <= (size_t)(r->end - r->p) / each;
}

static size_t in_batch(size_t n)
{
	return (n + 7) / 8 * 8;
}

/* The entries point into the reader's memory so far. */
static size_t get_borrowed(struct reader *r, struct raft_append_entries *a)
{
	size_t total = 0;

	for (unsigned i = 0; i < a->n_entries; i++) {
		struct raft_entry *e = &a->entries[i];
		uint8_t type;

		e->term = reader_u64(r);
		type = reader_u8(r);
		r->bad = r->bad || type < RAFT_COMMAND || type > RAFT_CHANGE;
		e->type = (enum raft_entry_type)type;
		e->buf.base = (char *)reader_bytes(r, &e->buf.len);
		if (r->bad)
			return 0;
		total += in_batch(e->buf.len);
	}
	return total;
}

static void own_entries(struct raft_append_entries *a, size_t total)
{
	char *batch = raft_malloc(MAX(total, (size_t)8));

	xassert(batch);
	for (unsigned i = 0; i < a->n_entries; i++) {
		struct raft_entry *e = &a->entries[i];

		if (e->buf.len > 0)
			memcpy(batch, e->buf.base, e->buf.len);
		e->buf.base = batch;
		e->batch = i == 0 ? batch : a->entries[0].batch;
		batch += in_batch(e->buf.len);
	}
}

static void get_entries(struct reader *r, struct raft_append_entries *a)
{
	uint32_t n = reader_u32(r);
	size_t total;

	if (!count_fits(r, n, ENTRY_LEN_MIN)) {
		r->bad = true;
		return;
	}
	if (n == 0)
		return;
	a->entries = raft_calloc(n, sizeof *a->entries);
	xassert(a->entries);
	a->n_entries = n;
	total = get_borrowed(r, a);
	if (!r->bad && r->p == r->end) {
		own_entries(a, total);
		return;
	}
	r->bad = true;
	raft_free(TAKE_PTR(a->entries));
	a->n_entries = 0;
}

static void get_server(struct reader *r, struct raft_configuration *conf)
{
	char address[ADDRESS_MAX + 1] = "";
	uint64_t id = reader_u64(r);
	size_t n = 0;
	const char *p = reader_bytes(r, &n);
	uint8_t role = reader_u8(r);

	if (r->bad || id == 0 || n > ADDRESS_MAX || memchr(p, 0, n)) {
		r->bad = true;
		return;
	}
	memcpy(address, p, n);
	r->bad = raft_configuration_add(conf, id, address, role) != 0;
}

static void get_snapshot(struct reader *r, struct raft_install_snapshot *s)
{
	uint32_t n = reader_u32(r);

	raft_configuration_init(&s->conf);
	r->bad = r->bad || n > DB_MEMBERS_MAX;
	for (unsigned i = 0; i < n && !r->bad; i++)
		get_server(r, &s->conf);
	s->data.len = reader_u64(r);
	if (!r->bad && r->p == r->end)
		return;
	r->bad = true;
	raft_configuration_close(&s->conf);
}

bool raftmsg_get(struct reader *r, struct raft_message *ret)
{
	const struct field *f;
	uint8_t type;

	memset(ret, 0, sizeof *ret);
	if (reader_u8(r) != RAFTMSG_VERSION)
		return false;
	type = reader_u8(r);
	f = fields_of(type);
	if (r->bad || !f)
		return false;
	ret->type = (enum raft_message_type)type;
	for (; f->kind != KIND_END; f++)
		get_field(r, f, (char *)ret + f->at);
	if (r->bad)
		return false;
	if (type == RAFT_APPEND_ENTRIES)
		get_entries(r, &ret->append_entries);
	else if (type == RAFT_INSTALL_SNAPSHOT)
		get_snapshot(r, &ret->install_snapshot);
	return !r->bad && r->p == r->end;
}

void raftmsg_free(struct raft_message *m)
{
	if (m->type == RAFT_APPEND_ENTRIES) {
		if (m->append_entries.n_entries > 0)
			raft_free(m->append_entries.entries[0].batch);
		raft_free(m->append_entries.entries);
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->install_snapshot.conf);
		raft_free(m->install_snapshot.data.base);
	}
}
