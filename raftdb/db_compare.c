#include "raftdb/db_compare.h"

#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "raftdb/db_impl.h"
#include "raftdb/store_impl.h"
#include "schema/gen/schema_ids.h"

#define FRESH_MS 2000    /* who was not heard for so long does not count */
#define PATIENCE_MS 5000 /* with the comparison: then without the names */
#define VIEW_MS PATIENCE_MS /* kept for who compares */
#define ROWS_BYTES (128 * 1024) /* of a ROWS frame */
#define TEXT_MAX (16 * 1024)
#define SCRUB_ROWS 512   /* a tick */
#define SCRUB_MS 5000    /* between the passes */

/* --- digests by log index --- */

/* For tests: this member's state becomes another than the others'. return:1, as
 * by a mistake in applying, return:2, as by memory that changes by itself. */
static void corrupt(struct db *db, int64_t how)
{
	struct record *old = store_first(db->store, CLASS_pool), *r;
	struct value *bad;

	if (!how || !old)
		return;
	bad = value_stringz("corrupted");
	if (how == 1) {
		r = record_copy(old);
		record_set(r, F_pool_name_description, bad);
		store_replace(db->store,
			      store_row(db->store, r->ref->s, r->ref->n), r);
	} else { /* others may be reading the old value */
		old->fields[F_pool_name_description] = bad;
	}
}

void compare_note(struct db *db, uint64_t index)
{
	struct digest_at *d = &db->digests[db->n_digests++ % DB_DIGESTS];

	corrupt(db, failpoint("state.corrupt"));
	d->index = index;
	d->generation = store_generation(db->store);
	d->digest = store_digest(db->store);
}

/* Our state as of this index; NULL: not there yet, or too long ago. */
static const struct digest_at *digest_at(const struct db *db, uint64_t index)
{
	uint64_t n = MIN(db->n_digests, (uint64_t)DB_DIGESTS);

	if (index > db->st.applied_index)
		return NULL;
	for (uint64_t i = 1; i <= n; i++) {
		const struct digest_at *d =
			&db->digests[(db->n_digests - i) % DB_DIGESTS];

		if (d->index <= index)
			return d;
	}
	return NULL;
}

static void compare_digest(struct db *db, struct peer *p)
{
	const struct digest_at *d;
	bool differs;

	if (!p->digest_known)
		return;
	d = digest_at(db, p->applied_index);
	if (!d)
		return;
	p->digest_known = false;
	differs = d->generation != p->generation ||
		  d->digest.lo != p->digest.lo || d->digest.hi != p->digest.hi;
	if (differs)
		db->n_differences++;
	if (differs && !p->digest_differs)
		log_error("state differs from that of member %016llx at log "
			  "index %llu: generation %llu here, %llu there",
			  (unsigned long long)p->id,
			  (unsigned long long)p->applied_index,
			  (unsigned long long)d->generation,
			  (unsigned long long)p->generation);
	else if (!differs && p->digest_differs)
		log_info("state is that of member %016llx again",
			 (unsigned long long)p->id);
	p->digest_differs = differs;
}

/* --- the one that asks --- */

static void forget_seen(struct compare *c)
{
	char *key;

	for (size_t i = 0; (key = map_next(&c->seen, &i));)
		free(key);
	map_deinit(&c->seen);
	map_init(&c->seen);
}

static void forget_found(struct compare *c)
{
	while (c->n_found > 0)
		value_unref(c->found[--c->n_found]);
	c->n_more = c->next = 0;
	buf_deinit(&c->text);
}

static void drop_view(struct compare *c)
{
	if (c->view)
		store_view_free(c->view);
	c->view = NULL;
}

void compare_deinit(struct compare *c)
{
	forget_seen(c);
	forget_found(c);
	drop_view(c);
}

static bool ask_rows(struct db *db, uint64_t cursor)
{
	struct peer *p = peers_get(db->peers, db->compare.peer);
	struct buf *b = p ? peer_frame_begin(p, FRAME_ROWS_ASK) : NULL;

	if (!b)
		return false;
	buf_put_u64(b, cursor);
	peer_frame_end(p);
	return true;
}

static void begin(struct db *db, struct peer *with, bool odd, int64_t now)
{
	struct compare *c = &db->compare;

	forget_seen(c);
	forget_found(c);
	c->odd = odd;
	c->told = true;
	c->peer = with->id;
	c->until = now + PATIENCE_MS;
	c->phase = COMPARE_ROWS;
	if (odd && db->st.is_leader)
		db_transfer(db, 0, NULL, NULL);
	if (!ask_rows(db, 0))
		c->until = now;
}

static _printf_(2, 3) void tell(struct compare *c, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	buf_printf(&c->text, "%s\n", line);
}

static void note(struct compare *c, struct value *ref)
{
	if (c->n_found < COMPARE_FOUND)
		c->found[c->n_found++] = value_ref(ref);
	else
		c->n_more++;
}

/* Of the row as it is in memory, whatever was noted when it was written. */
static struct hash128 hash_now(const struct db *db, const struct record *r)
{
	return store_hash(store_table(db->store, r->cls), r,
			  &db->store->scratch);
}

static bool deleted_since(const struct db *db, const char *ref, size_t n,
			  uint64_t generation)
{
	list_for_each(it, &db->store->tombstones) {
		const struct tombstone *t = list_entry(it, struct tombstone,
						       in_all);

		if (t->deleted > generation &&
		    str_equal_n(value_str(t->ref), ref, n))
			return true;
	}
	return false;
}

/* A row of the peer's, whose view is of this generation. What was changed on
 * one side only so far says nothing. */
static void compare_row(struct db *db, const char *ref, size_t n,
			uint64_t stamp, struct hash128 hash,
			uint64_t generation)
{
	struct compare *c = &db->compare;
	const struct row *row = store_row(db->store, ref, n);
	struct value *missing;

	if (stamp > store_generation(db->store) ||
	    (row && row->rec->modified > generation))
		return;
	if (!row) {
		if (deleted_since(db, ref, n, generation))
			return;
		missing = value_string(ref, n);
		note(c, missing);
		value_unref(missing);
	} else if (row->rec->modified != stamp ||
		   !hash128_equal(hash_now(db, row->rec), hash)) {
		note(c, row->rec->ref);
	}
}

/* Rows that are here only. */
static void find_surplus(struct db *db, uint64_t generation)
{
	struct compare *c = &db->compare;
	struct row *row;

	for (size_t i = 0; (row = map_next(&db->store->rows, &i));)
		if (row->rec->created <= generation &&
		    store_generation(db->store) >= generation &&
		    !map_get(&c->seen, row->rec->ref->s, row->rec->ref->n))
			note(c, row->rec->ref);
}

static void ask_next_row(struct db *db, int64_t now)
{
	struct compare *c = &db->compare;
	struct peer *p = peers_get(db->peers, c->peer);
	struct buf *b;

	if (c->next == c->n_found || !p) {
		c->until = now; /* compare_tick() tells */
		return;
	}
	b = peer_frame_begin(p, FRAME_ROW_ASK);
	if (!b)
		return;
	buf_put_bytes(b, c->found[c->next]->s, c->found[c->next]->n);
	peer_frame_end(p);
}

void compare_on_rows(struct db *db, struct peer *from, struct reader *r)
{
	struct compare *c = &db->compare;
	uint64_t next = reader_u64(r), generation = reader_u64(r);

	if (r->bad || c->phase != COMPARE_ROWS || from->id != c->peer)
		return;
	while (r->p < r->end) {
		size_t n;
		const char *ref = reader_bytes(r, &n);
		uint64_t stamp = reader_u64(r);
		struct hash128 hash;
		char *key;

		hash.lo = reader_u64(r);
		hash.hi = reader_u64(r);
		if (r->bad)
			return;
		compare_row(db, ref, n, stamp, hash, generation);
		key = xasprintf("%.*s", (int)n, ref);
		free(map_put(&c->seen, key, n, key));
	}
	if (next != 0) {
		ask_rows(db, next);
		return;
	}
	find_surplus(db, generation);
	c->phase = COMPARE_FIELDS;
	ask_next_row(db, env_mono_ms());
}

/* --- fields: by name, with a hash of the value --- */

static uint64_t field_hash(struct db *db, const struct record *r, unsigned f)
{
	struct buf *b = &db->store->scratch;

	b->len = 0;
	value_encode(b, r->fields[f]);
	return hash64(b->data, b->len);
}

static int field_of(const struct class_def *c, const char *name, size_t n)
{
	for (unsigned f = 0; f < c->n_fields; f++)
		if (str_equal_n(c->fields[f].name, name, n))
			return (int)f;
	return -1;
}

/* Names what differs between our row and the peer's fields; those that it does
 * not speak of we do not know to be different. */
static void name_fields(struct db *db, const struct record *rec,
			struct reader *r, const char *what)
{
	struct compare *c = &db->compare;
	bool found = false;

	while (r->p < r->end) {
		size_t n;
		const char *name = reader_bytes(r, &n);
		uint64_t hash = reader_u64(r);
		int f = r->bad ? -1 : field_of(rec->cls, name, n);

		if (r->bad)
			break;
		if (f < 0 || field_hash(db, rec, (unsigned)f) == hash)
			continue;
		tell(c, "%s field %s", what, rec->cls->fields[f].name);
		found = true;
	}
	if (!found)
		tell(c, "%s when it was last changed", what);
}

void compare_on_row(struct db *db, struct peer *from, struct reader *r)
{
	struct compare *c = &db->compare;
	size_t n, class_len;
	const char *ref = reader_bytes(r, &n);
	const char *class_name = reader_bytes(r, &class_len);
	char what[200];
	const struct row *row;

	if (r->bad || c->phase != COMPARE_FIELDS || from->id != c->peer ||
	    c->next >= c->n_found ||
	    !str_equal_n(value_str(c->found[c->next]), ref, n))
		return;
	row = store_row(db->store, ref, n);
	snprintf(what, sizeof what, "%.*s %.*s",
		 row ? (int)strlen(row->rec->cls->name) : (int)class_len,
		 row ? row->rec->cls->name : class_name, (int)n, ref);
	if (!row)
		tell(c, "%s is missing", what);
	else if (class_len == 0)
		tell(c, "%s should not be there", what);
	else
		name_fields(db, row->rec, r, what);
	c->next++;
	ask_next_row(db, env_mono_ms());
}

/* --- the one that is asked --- */

static void keep_view(struct db *db, uint64_t asker, int64_t now)
{
	struct compare *c = &db->compare;

	drop_view(c);
	c->view = store_view_new(db->store);
	c->asker = asker;
	c->view_at = now;
}

/* One at a time; who comes second tries in vain and goes without names. */
void compare_on_rows_ask(struct db *db, struct peer *from, struct reader *r)
{
	struct compare *c = &db->compare;
	uint64_t at = reader_u64(r);
	struct buf *b;
	size_t start, next_at;

	if (r->bad || (c->view && c->asker != from->id))
		return;
	if (at == 0)
		keep_view(db, from->id, env_mono_ms());
	if (!c->view || at > c->view->n_rows)
		return;
	b = peer_frame_begin(from, FRAME_ROWS);
	if (!b)
		return;
	next_at = b->len;
	buf_put_u64(b, 0);
	buf_put_u64(b, c->view->generation);
	for (start = b->len; at < c->view->n_rows &&
			     b->len - start < ROWS_BYTES; at++) {
		const struct record *rec = c->view->rows[at];
		struct hash128 h = hash_now(db, rec);

		buf_put_bytes(b, rec->ref->s, rec->ref->n);
		buf_put_u64(b, rec->modified);
		buf_put_u64(b, h.lo);
		buf_put_u64(b, h.hi);
	}
	for (int i = 0; at < c->view->n_rows && i < 8; i++)
		b->data[next_at + (size_t)i] = (char)(at >> (8 * i));
	if (at == c->view->n_rows)
		drop_view(c); /* the next one may ask */
	peer_frame_end(from);
}

void compare_on_row_ask(struct db *db, struct peer *from, struct reader *r)
{
	size_t n;
	const char *ref = reader_bytes(r, &n);
	const struct row *row;
	const struct class_def *c;
	struct buf *b;

	if (r->bad || !(b = peer_frame_begin(from, FRAME_ROW)))
		return;
	row = store_row(db->store, ref, n);
	c = row ? row->rec->cls : NULL;
	buf_put_bytes(b, ref, n);
	buf_put_bytes(b, c ? c->name : "", c ? strlen(c->name) : 0);
	for (unsigned f = 0; c && f < c->n_fields; f++) {
		buf_put_bytes(b, c->fields[f].name, strlen(c->fields[f].name));
		buf_put_u64(b, field_hash(db, row->rec, f));
	}
	peer_frame_end(from);
}

/* --- telling --- */

static void log_lines(const char *text)
{
	for (const char *p = text, *end; *p; p = *end ? end + 1 : end) {
		end = p + strcspn(p, "\n");
		log_error("state: %.*s", (int)(end - p), p);
	}
}

static void tell_everybody(struct db *db, const struct compare *c,
			   const uint8_t id[TXN_ID_LEN])
{
	for (struct peer *p = peers_next(db->peers, NULL); p;
	     p = peers_next(db->peers, p)) {
		struct buf *b = peer_frame_begin(p, FRAME_DIVERGED);

		if (!b)
			continue;
		buf_put_bytes(b, id, TXN_ID_LEN);
		buf_put_bytes(b, c->text.data, MIN(c->text.len,
						   (size_t)TEXT_MAX));
		peer_frame_end(p);
	}
}

static void finish(struct db *db)
{
	struct compare *c = &db->compare;
	struct buf found = c->text;
	uint8_t id[TXN_ID_LEN];

	c->text = (struct buf)BUF_INIT;
	env_random(id, sizeof id);
	tell(c, "member %016llx differs from %016llx%s",
	     (unsigned long long)db->id, (unsigned long long)c->peer,
	     c->odd ? " and is rebuilt" : "; it cannot be told which is right, "
	     "so an operator has to choose which one is rebuilt");
	buf_append(&c->text, found.data, found.len);
	buf_deinit(&found);
	for (; c->next < c->n_found; c->next++)
		tell(c, "%s", value_str(c->found[c->next]));
	if (c->n_more > 0)
		tell(c, "and %u objects more", c->n_more);
	log_lines(buf_cstr(&c->text));
	tell_everybody(db, c, id);
	if (!c->odd && db->cb.diverged)
		db->cb.diverged(db->cb.data, id, buf_cstr(&c->text));
	c->phase = COMPARE_TOLD;
	db_kick(db);
}

void compare_on_diverged(struct db *db, struct peer *from, struct reader *r)
{
	size_t n, id_len;
	const char *id = reader_bytes(r, &id_len);
	const char *p = reader_bytes(r, &n);
	_cleanup_(freep) char *text = NULL;

	if (r->bad || id_len != TXN_ID_LEN || n > TEXT_MAX)
		return;
	text = xasprintf("%.*s", (int)n, p);
	log_lines(text);
	if (db->cb.diverged)
		db->cb.diverged(db->cb.data, (const uint8_t *)id, text);
}

/* --- who is the odd one --- */

/* A peer that differs; NULL: nobody does. */
static struct peer *count(struct db *db, int64_t now, unsigned *ret_differ,
			  unsigned *ret_agree)
{
	struct peer *other = NULL;

	*ret_differ = 0;
	*ret_agree = 1;
	for (struct peer *p = peers_next(db->peers, NULL); p;
	     p = peers_next(db->peers, p)) {
		compare_digest(db, p);
		if (p->heard_at < 0 || now - p->heard_at > FRESH_MS ||
		    !members_find(db, p->id) || p->lost)
			continue;
		if (!p->digest_differs) {
			++*ret_agree;
			continue;
		}
		++*ret_differ;
		if (!other || p->connected)
			other = p;
	}
	return other;
}

static void judge(struct db *db, int64_t now)
{
	struct compare *c = &db->compare;
	unsigned differ, agree;
	struct peer *other = count(db, now, &differ, &agree);

	if (db->heal.rebuilding || c->phase != COMPARE_IDLE)
		return;
	if (differ > agree)
		begin(db, other, true, now);
	else if (differ == agree && db->id < other->id && !c->told)
		begin(db, other, false, now);
	else if (differ == 0)
		c->told = false;
}

/* Memory does not always stay what it was. */
static void scrub(struct db *db, int64_t now)
{
	struct compare *c = &db->compare;
	struct row *row = NULL;
	struct peer *p;

	if (c->phase != COMPARE_IDLE || now < c->scrub_from)
		return;
	for (unsigned n = 0; n < SCRUB_ROWS; n++) {
		row = map_next(&db->store->rows, &c->scrub_at);
		if (!row || !hash128_equal(hash_now(db, row->rec), row->hash))
			break;
	}
	if (!row) {
		c->scrub_at = 0;
		c->scrub_from = now + SCRUB_MS;
		return;
	}
	if (hash128_equal(hash_now(db, row->rec), row->hash))
		return;
	log_error("state: %s %s is not in memory as it was written",
		  row->rec->cls->name, value_str(row->rec->ref));
	for (p = peers_next(db->peers, NULL); p && !p->connected;)
		p = peers_next(db->peers, p);
	if (p)
		begin(db, p, true, now);
	else
		db_fail(db, "this host's memory is not reliable");
}

void compare_tick(struct db *db, int64_t now)
{
	struct compare *c = &db->compare;

	if (c->view && now > c->view_at + VIEW_MS)
		drop_view(c);
	judge(db, now);
	scrub(db, now);
	if (c->phase == COMPARE_TOLD && c->odd) {
		snprintf(db->heal.why, sizeof db->heal.why,
			 "the state of this member differed from that of the "
			 "others in %u objects", c->n_found + c->n_more);
		db_end(db, DB_END_REBUILD, db->heal.why);
	} else if (c->phase == COMPARE_TOLD) {
		c->phase = COMPARE_IDLE;
	} else if (c->phase != COMPARE_IDLE && now >= c->until) {
		finish(db);
	}
}
