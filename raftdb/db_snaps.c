/* Snapshots of the state machine, without holding up the loop.
 *
 * libraft asks for a snapshot's bytes on the loop and wants them at once, as of
 * the index it has just applied. So we work ahead: at the threshold a view of
 * the store is taken (at index B) and packed by a worker, while every entry
 * applied meanwhile is kept as well; then libraft is told to take its snapshot
 * (at index E >= B), which is the packed image and the entries from B to E.
 * Loading it again is: load the image, apply the entries.
 *
 *	u32 magic, u8 version, u64 E, u64 ids in the image, u64 image bytes,
 *	u64 tail bytes, u64 XXH3 of image and tail (lo of the two xored)
 *	the image (image_pack())
 *	the tail: each entry as bytes (varint length + entry)
 */
#include <errno.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "raftdb/db_impl.h"

#define MAGIC 0x53505858 /* "XXPS" */
#define VERSION 1
#define HEADER_BYTES 45
#define BYTES_BETWEEN (64u * 1024 * 1024) /* take one at the latest */
#define TAIL_MAX (256u * 1024 * 1024)
#define TRAILING 8192u /* entries kept behind a snapshot, at most */
#define TRAILING_BYTES (32u * 1024 * 1024)
#define RETRY_MS 10000 /* after a failure */
#define ASK_MS 1000

struct snap_work {
	uv_work_t req;
	struct db *db;
	struct store_view *view;
	struct buf image, tail, header;
	int error;
	bool busy;      /* the worker has it */
	bool ready;     /* packed: libraft may take it */
	bool taken;     /* libraft is writing it */
	bool abandoned; /* the state was replaced, or we close */
	uint64_t n_ids, index;
	int64_t started_at, asked_at;
};

void snaps_init(struct snaps *s, unsigned threshold)
{
	s->threshold = threshold;
	s->sizes = xcalloc(TRAILING, sizeof *s->sizes);
}

void snaps_deinit(struct snaps *s)
{
	free(s->sizes);
}

static void work_free(struct snap_work *w)
{
	w->db->snaps.work = NULL;
	if (w->view)
		store_view_free(w->view);
	buf_deinit(&w->image);
	buf_deinit(&w->tail);
	buf_deinit(&w->header);
	free(w);
}

static void pack(uv_work_t *req)
{
	struct snap_work *w = container_of(req, struct snap_work, req);

	w->error = image_pack(w->view, &w->image);
	store_view_free(w->view);
	w->view = NULL;
}

static void on_packed(uv_work_t *req, int status)
{
	struct snap_work *w = container_of(req, struct snap_work, req);
	struct db *db = w->db;

	w->busy = false;
	if (w->abandoned || status < 0 || w->error) {
		if (!w->abandoned)
			log_error("snapshot: packing failed: %s",
				  strerror(status < 0 ? -status : -w->error));
		db->snaps.retry_at = env_mono_ms() + RETRY_MS;
		work_free(w);
		if (db->closing)
			db_close_part(db);
		return;
	}
	w->ready = true;
	db_kick(db);
}

static void start(struct db *db, int64_t now)
{
	struct snap_work *w = xcalloc(1, sizeof *w);

	w->db = db;
	w->view = store_view_new(db->store);
	w->n_ids = w->view->n_ids;
	w->index = db->st.applied_index;
	w->started_at = now;
	w->busy = true;
	db->snaps.work = w;
	if (uv_queue_work(db->loop, &w->req, pack, on_packed) < 0) {
		db->snaps.retry_at = now + RETRY_MS;
		work_free(w);
	}
}

/* How many of the last entries to keep for members that lag a little. */
static unsigned trailing(const struct db *db)
{
	const struct snaps *s = &db->snaps;
	unsigned max = MIN(MAX(s->threshold, 16u), TRAILING);
	uint64_t bytes = 0, index = db->st.applied_index;
	unsigned n = 0;

	while (n < max && n < index && bytes < TRAILING_BYTES)
		bytes += s->sizes[(index - n++) % TRAILING];
	return MAX(n, 1u);
}

static void ask_libraft(struct db *db, struct snap_work *w, int64_t now)
{
	if (!w->ready || w->taken || now < w->asked_at + ASK_MS)
		return;
	w->asked_at = now;
	consensus_snapshot(db->consensus, trailing(db));
}

void snaps_flush(struct db *db)
{
	struct snaps *s = &db->snaps;
	bool due = db->st.applied_index >= s->index + s->threshold ||
		   s->bytes_since >= BYTES_BETWEEN;
	int64_t now;

	if (!s->work && !due)
		return;
	now = env_mono_ms();
	if (s->work)
		ask_libraft(db, s->work, now);
	else if (now >= s->retry_at && db->st.applied_index > s->index)
		start(db, now);
}

void snaps_applied(struct db *db, uint64_t index, const char *p, size_t n)
{
	struct snaps *s = &db->snaps;
	struct snap_work *w = s->work;

	s->sizes[index % TRAILING] = (uint32_t)n;
	s->bytes_since += n;
	if (!w || w->taken || w->abandoned)
		return;
	buf_put_bytes(&w->tail, p, n);
	if (w->tail.len < TAIL_MAX)
		return;
	log_warn("snapshot: more than %u MiB were written meanwhile, starting "
		 "again", TAIL_MAX >> 20);
	w->abandoned = true;
	w->ready = false;
	if (!w->busy)
		work_free(w);
}

/* --- libraft takes it --- */

static uint64_t checksum(const char *image, size_t image_len, const char *tail,
			 size_t tail_len)
{
	return hash64(image, image_len) ^ (hash64(tail, tail_len) * 31);
}

/* What libraft stores as a snapshot begins so; h is empty. */
void snaps_header(struct buf *h, uint64_t index, uint64_t n_ids,
		  const struct buf *image, const struct buf *tail)
{
	buf_put_u32(h, MAGIC);
	buf_put_u8(h, VERSION);
	buf_put_u64(h, index);
	buf_put_u64(h, n_ids);
	buf_put_u64(h, image->len);
	buf_put_u64(h, tail->len);
	buf_put_u64(h, checksum(image->data, image->len, tail->data,
				tail->len));
	xassert(h->len == HEADER_BYTES);
}

int snaps_take(void *data, uint64_t index,
	       struct consensus_part parts[CONSENSUS_PARTS], unsigned *ret_n)
{
	struct db *db = data;
	struct snap_work *w = db->snaps.work;

	if (!w || !w->ready || w->taken || w->abandoned)
		return -EAGAIN;
	w->taken = true;
	w->index = index;
	w->header.len = 0;
	snaps_header(&w->header, index, w->n_ids, &w->image, &w->tail);
	parts[0] = (struct consensus_part){ w->header.data, w->header.len };
	parts[1] = (struct consensus_part){ w->image.data, w->image.len };
	parts[2] = (struct consensus_part){ w->tail.data, w->tail.len };
	*ret_n = w->tail.len > 0 ? 3 : 2;
	db->snaps.index = index;
	db->snaps.bytes_since = 0;
	return 0;
}

void snaps_done(void *data)
{
	struct db *db = data;
	struct snap_work *w = db->snaps.work;

	xassert(w && w->taken);
	log_info("snapshot at index %llu: %zu bytes of image, %zu of entries, "
		 "%lld ms", (unsigned long long)w->index, w->image.len,
		 w->tail.len, (long long)(env_mono_ms() - w->started_at));
	work_free(w);
}

/* --- and gives it back --- */

static bool replay_tail(struct db *db, const char *p, size_t n)
{
	struct reader r = reader_of(p, n);

	while (r.p < r.end) {
		size_t len;
		const char *entry = reader_bytes(&r, &len);

		if (!entry || !db_apply_entry(db, entry, len))
			return false;
	}
	return true;
}

static int load_image(struct db *db, const char *p, size_t n)
{
	struct store_view *v = NULL;
	char reason[200] = "";
	int r = image_unpack(p, n, &v, reason, sizeof reason);

	if (r < 0) {
		log_error("snapshot: the image cannot be read: %s", reason);
		return r;
	}
	if (!store_load(db->store, v)) {
		log_error("snapshot: the image does not fit its own digest");
		r = -EBADMSG;
	}
	store_view_free(v);
	return r;
}

int snaps_restore(void *data, const char *p, size_t n)
{
	struct db *db = data;
	struct snap_work *w = db->snaps.work;
	struct reader r = reader_of(p, MIN(n, (size_t)HEADER_BYTES));
	bool known = reader_u32(&r) == MAGIC && reader_u8(&r) == VERSION;
	uint64_t index = reader_u64(&r), n_ids = reader_u64(&r);
	uint64_t image = reader_u64(&r), tail = reader_u64(&r);
	uint64_t sum = reader_u64(&r), before = db->n_txns;
	const char *body = p + HEADER_BYTES;
	int error;

	if (r.bad || !known || image > n || tail > n ||
	    image + tail + HEADER_BYTES != n ||
	    checksum(body, image, body + image, tail) != sum) {
		log_error("snapshot: damaged, or of a newer version");
		db_fail(db, "a snapshot could not be loaded");
		return -EBADMSG;
	}
	if (w && !w->taken) {
		w->abandoned = true;
		w->ready = false;
		if (!w->busy)
			work_free(w);
	}
	db->restoring = true;
	error = load_image(db, body, image);
	if (error == 0 && !replay_tail(db, body + image, tail))
		error = -EBADMSG;
	db->restoring = false;
	if (error < 0) {
		db_fail(db, "a snapshot could not be loaded");
		return error;
	}
	db->applying = db->snaps.index = index;
	db->snaps.bytes_since = 0;
	db->n_digests = 0; /* nothing is known of what was jumped over */
	compare_note(db, index);
	txns_restored(db,
		      n_ids + (db->n_txns - before) >= STORE_REMEMBERED_IDS);
	log_info("snapshot at index %llu loaded: %zu bytes",
		 (unsigned long long)index, n);
	if (db->opened && db->cb.reloaded)
		db->cb.reloaded(db->cb.data);
	return 0;
}

bool snaps_close(struct db *db)
{
	struct snap_work *w = db->snaps.work;

	if (!w)
		return true;
	w->abandoned = true;
	if (w->busy)
		return false;
	if (!w->taken)
		work_free(w);
	return true;
}
