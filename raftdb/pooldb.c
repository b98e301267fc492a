/* The core's side of pool.db, and the worker's loop.
 *
 * The queue holds items in the order of the log. `lost` says that the worker
 * cannot go on from what is queued: the core then drops changes until it has
 * put a view of the whole store into the queue, which the worker asks for when
 * it has room for one and its file is open. So at most one view is on its way,
 * and a queue that is full costs the core nothing more.
 *
 * After a start, the log is replayed from the last snapshot, which may be older
 * than the file: what the file has already is skipped, and its digest tells
 * whether it was the same past.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "raftdb/pooldb_impl.h"
#include "raftdb/store_impl.h"

#define QUEUE_BYTES (64u * 1024 * 1024)
#define BATCH_MS 250
#define RETRY_MS 10000
#define WORKER_NICE 5 /* more than the core's: clients wait for that */

struct pooldb {
	struct pooldb_config cfg;
	char *dir;
	const struct store *store;
	uint64_t core_index; /* of what was handed over last */
	uv_async_t async;
	uv_thread_t thread;

	uv_mutex_t lock; /* all below */
	uv_cond_t wake;
	struct list queue, synced;
	size_t bytes, changes;
	bool urgent;     /* do not wait for more */
	bool lost;       /* a view is needed before any more changes */
	bool wants_view; /* the worker is ready for it */
	bool stop;
	struct pooldb_status status;

	/* The worker's own. */
	struct pooldb_file file;
	uint64_t start_generation; /* of the store, when the thread began */
	struct hash128 start_digest;
	uint64_t skip_to;        /* the file has changes up to here */
	bool skip_matched;       /* the digest there was the file's */
	bool broken;             /* the file needs a view: drop changes */
	bool foreign;            /* and all that it has goes */
	bool told;               /* the failure is in the log */
	struct list waiting;     /* syncs that need the view */
	uint64_t n_views;        /* written */
	int64_t retry_at;
};

char *pooldb_path(const char *dir)
{
	return xasprintf("%s/pool.db", dir);
}

/* ---- items ---- */

static void txn_unref(struct pooldb_txn *t)
{
	for (size_t i = 0; i < t->n; i++) {
		record_unref(t->changes[i].before);
		record_unref(t->changes[i].after);
	}
}

static void item_free(struct pooldb_item *it)
{
	list_remove(&it->link);
	if (it->txn)
		txn_unref(it->txn);
	if (it->view)
		store_view_free(it->view);
	free(it);
}

/* With room for more behind it, which goes with it. */
static struct pooldb_item *item_new(enum pooldb_item_kind kind, size_t more)
{
	struct pooldb_item *it = xcalloc(1, sizeof *it + more);

	it->kind = kind;
	list_init(&it->link);
	return it;
}

/* Under the lock. */
static void push(struct pooldb *d, struct pooldb_item *it, bool urgent)
{
	bool wakes = list_empty(&d->queue) || urgent;

	list_push(&d->queue, &it->link);
	d->bytes += it->bytes;
	d->changes += it->txn ? it->txn->n : 0;
	d->urgent |= urgent || d->changes >= POOLDB_BATCH_CHANGES;
	if (wakes || d->urgent)
		uv_cond_signal(&d->wake);
}

/* ---- the core ---- */

/* What a change keeps alive, about: versions of a row share their values. */
static size_t change_bytes(const struct change *c)
{
	return 512 + (size_t)c->cls->n_fields * sizeof(void *) * 2;
}

static struct pooldb_item *txn_item(const struct txn *t, uint64_t generation,
				    const struct change *changes, size_t n)
{
	const char *author = t->author ? t->author : "";
	size_t txn_n = sizeof(struct pooldb_txn) + n * sizeof *changes;
	size_t author_n = strlen(author) + 1;
	struct pooldb_item *it = item_new(ITEM_TXN, txn_n + author_n);
	struct pooldb_txn *p = (struct pooldb_txn *)(it + 1);

	p->generation = generation;
	p->time_ms = t->time_ms;
	p->author = memcpy((char *)p + txn_n, author, author_n);
	p->n = n;
	it->bytes = sizeof *it + txn_n + author_n;
	for (size_t i = 0; i < n; i++) {
		p->changes[i] = changes[i];
		p->changes[i].before = record_ref(changes[i].before);
		p->changes[i].after = record_ref(changes[i].after);
		it->bytes += change_bytes(&changes[i]);
	}
	it->txn = p;
	return it;
}

void pooldb_changed(struct pooldb *d, uint64_t index, const struct txn *t,
		    uint64_t generation, const struct change *changes,
		    size_t n)
{
	struct pooldb_item *it;

	d->core_index = index;
	uv_mutex_lock(&d->lock);
	if (!d->lost && d->bytes > d->cfg.queue_bytes)
		d->lost = d->urgent = true;
	if (!d->lost) {
		it = txn_item(t, generation, changes, n);
		it->txn->index = index;
		it->txn->digest = store_digest(d->store);
		push(d, it, false);
	}
	uv_mutex_unlock(&d->lock);
}

void pooldb_reloaded(struct pooldb *d, uint64_t index)
{
	d->core_index = index;
	uv_mutex_lock(&d->lock);
	d->lost = d->urgent = true;
	uv_cond_signal(&d->wake);
	uv_mutex_unlock(&d->lock);
}

void pooldb_sync(struct pooldb *d, pooldb_synced_cb cb, void *data)
{
	struct pooldb_item *it = item_new(ITEM_SYNC, 0);

	it->cb = cb;
	it->data = data;
	uv_mutex_lock(&d->lock);
	it->needs_view = d->lost;
	push(d, it, true);
	uv_mutex_unlock(&d->lock);
}

void pooldb_get_status(struct pooldb *d, struct pooldb_status *ret)
{
	uv_mutex_lock(&d->lock);
	*ret = d->status;
	ret->queued_bytes = d->bytes;
	uv_mutex_unlock(&d->lock);
}

static void give_view(struct pooldb *d)
{
	struct pooldb_item *it = item_new(ITEM_VIEW, 0);

	it->view = store_view_new(d->store);
	it->index = d->core_index;
	uv_mutex_lock(&d->lock);
	d->lost = d->wants_view = false;
	push(d, it, true);
	uv_mutex_unlock(&d->lock);
}

static void run_callbacks(struct pooldb *d, int error)
{
	struct list done;

	list_init(&done);
	uv_mutex_lock(&d->lock);
	list_splice(&done, &d->synced);
	uv_mutex_unlock(&d->lock);
	list_for_each_safe(n, &done) {
		struct pooldb_item *it = list_entry(n, struct pooldb_item, link);

		it->cb(it->data, error ? error : it->error);
		item_free(it);
	}
}

static void on_async(uv_async_t *a)
{
	struct pooldb *d = a->data;
	bool view;

	uv_mutex_lock(&d->lock);
	view = d->wants_view && d->lost && !d->stop;
	uv_mutex_unlock(&d->lock);
	if (view)
		give_view(d);
	run_callbacks(d, 0);
}

/* ---- the worker ---- */

static void note_status(struct pooldb *d, bool failing)
{
	uv_mutex_lock(&d->lock);
	d->status.generation = d->file.generation;
	d->status.index = d->file.index;
	d->status.history_bytes = d->file.history_bytes;
	d->status.failing = failing;
	uv_mutex_unlock(&d->lock);
}

/* What is queued, and what follows, does not fit what the file has. */
static void set_broken(struct pooldb *d, bool foreign)
{
	d->broken = true;
	d->foreign = foreign;
	uv_mutex_lock(&d->lock);
	d->lost = true;
	uv_mutex_unlock(&d->lock);
}

static void failed(struct pooldb *d)
{
	if (!d->told)
		log_error("%s cannot be written (%s): the pool goes on without "
			  "it; free disk space or make the folder writable, "
			  "and it is brought up to date by itself",
			  d->file.path, d->file.why);
	d->told = true;
	pooldb_file_close(&d->file);
	d->retry_at = env_mono_ms() + d->cfg.retry_ms;
	set_broken(d, d->foreign);
	note_status(d, true);
}

static void worked(struct pooldb *d)
{
	if (d->told)
		log_info("%s is written again", d->file.path);
	d->told = false;
	note_status(d, false);
}

static bool has_room(struct pooldb *d)
{
	struct statvfs s;

	if (d->cfg.min_free_mib == 0 || statvfs(d->dir, &s) < 0 ||
	    (uint64_t)s.f_bavail * s.f_frsize >=
		    (uint64_t)d->cfg.min_free_mib << 20)
		return true;
	snprintf(d->file.why, sizeof d->file.why,
		 "less than %u MiB of disk space are left", d->cfg.min_free_mib);
	return false;
}

/* A file of an earlier run may be ahead of the store, which the log's replay
 * will change, or behind it, or of another past. */
static void compare_start(struct pooldb *d)
{
	struct pooldb_file *f = &d->file;
	bool same = hash128_equal(f->digest, d->start_digest);

	d->skip_to = 0;
	if (f->is_new || f->generation < d->start_generation) {
		set_broken(d, false);
	} else if (f->generation > d->start_generation) {
		d->skip_to = f->generation;
		d->skip_matched = false;
	} else if (!same) {
		set_broken(d, true);
	}
	d->start_generation = UINT64_MAX; /* said once */
}

static bool ensure_open(struct pooldb *d)
{
	bool first = d->start_generation != UINT64_MAX;

	if (d->file.db)
		return true;
	if (env_mono_ms() < d->retry_at)
		return false;
	if (!has_room(d) || pooldb_file_open(&d->file) < 0) {
		failed(d);
		return false;
	}
	if (first)
		compare_start(d);
	note_status(d, d->told);
	return true;
}

static bool is_stopping(void *data)
{
	struct pooldb *d = data;
	bool stop;

	uv_mutex_lock(&d->lock);
	stop = d->stop;
	uv_mutex_unlock(&d->lock);
	return stop;
}

static void write_view(struct pooldb *d, struct pooldb_item *it)
{
	struct pooldb_file *f = &d->file;
	bool back = it->view->generation < f->generation && !f->is_new;
	int r = pooldb_file_sync(f, it->view, it->index, d->foreign || back,
				 is_stopping, d);

	if (r == -ECANCELED)
		return;
	if (r < 0) {
		failed(d);
		return;
	}
	d->skip_to = 0;
	d->broken = d->foreign = false;
	d->n_views++;
	uv_mutex_lock(&d->lock);
	d->status.resyncs++;
	uv_mutex_unlock(&d->lock);
	worked(d);
}

/* False: the file knows it already. */
static bool is_news(struct pooldb *d, const struct pooldb_txn *t)
{
	if (d->skip_to == 0)
		return true;
	if (t->generation == d->skip_to)
		d->skip_matched = hash128_equal(t->digest, d->file.digest);
	if (t->generation <= d->skip_to)
		return false;
	d->skip_to = 0;
	if (d->skip_matched)
		return true;
	log_warn("%s is not of this pool's past: it is written anew",
		 d->file.path);
	set_broken(d, true);
	return false;
}

struct batch {
	struct pooldb_txn *txns[POOLDB_BATCH_CHANGES];
	size_t n, changes;
};

static void flush(struct pooldb *d, struct batch *b)
{
	size_t n = b->n;

	b->n = b->changes = 0;
	if (n == 0)
		return;
	if (pooldb_file_apply(&d->file, b->txns, n) < 0)
		failed(d);
	else
		worked(d);
}

static void take_item(struct pooldb *d, struct pooldb_item *it, struct batch *b)
{
	if (it->kind == ITEM_TXN) {
		if (!d->file.db || d->broken || !is_news(d, it->txn))
			return;
		b->txns[b->n++] = it->txn;
		b->changes += it->txn->n;
		if (b->n == ARRAY_LEN(b->txns) ||
		    b->changes >= POOLDB_BATCH_CHANGES)
			flush(d, b);
		return;
	}
	flush(d, b);
	it->at_view = d->n_views;
	it->needs_view |= d->broken;
	if (it->kind == ITEM_VIEW && d->file.db)
		write_view(d, it);
	else if (it->kind == ITEM_VIEW)
		set_broken(d, d->foreign);
}

/* Syncs whose time has come go back to the core; the others wait for a view. */
static void answer_syncs(struct pooldb *d)
{
	bool any = false;

	list_for_each_safe(n, &d->waiting) {
		struct pooldb_item *it = list_entry(n, struct pooldb_item, link);

		if (it->needs_view && it->at_view == d->n_views && d->file.db)
			continue;
		it->error = d->file.db ? 0 : -EIO;
		list_remove(&it->link);
		uv_mutex_lock(&d->lock);
		list_push(&d->synced, &it->link);
		uv_mutex_unlock(&d->lock);
		any = true;
	}
	if (any)
		uv_async_send(&d->async);
}

static void give_back(struct pooldb *d, struct list *items)
{
	size_t bytes = 0;

	list_for_each_safe(n, items) {
		struct pooldb_item *it = list_entry(n, struct pooldb_item, link);

		bytes += it->bytes;
		if (it->kind != ITEM_SYNC) {
			item_free(it);
			continue;
		}
		list_remove(&it->link);
		list_push(&d->waiting, &it->link);
	}
	uv_mutex_lock(&d->lock);
	d->bytes -= bytes;
	uv_mutex_unlock(&d->lock);
	answer_syncs(d);
}

static void work(struct pooldb *d, struct list *items)
{
	static const struct batch empty;
	struct batch *b = xmalloc(sizeof *b);

	*b = empty;
	ensure_open(d);
	list_for_each(n, items)
		take_item(d, list_entry(n, struct pooldb_item, link), b);
	flush(d, b);
	free(b);
	if (d->file.db && history_prune(&d->file, env_wall_ms()) < 0)
		failed(d);
	give_back(d, items);
}

/* Under the lock. When the core has dropped changes, and all that it has queued
 * is written, it may give a view. */
static void ask_for_view(struct pooldb *d)
{
	if (!d->lost || d->wants_view || !list_empty(&d->queue) || !d->file.db)
		return;
	d->wants_view = true;
	uv_async_send(&d->async);
}

/* Under the lock: until there is something to do. */
static void wait(struct pooldb *d)
{
	uint64_t ms = d->cfg.retry_ms;

	while (list_empty(&d->queue) && !d->stop) {
		ask_for_view(d);
		if (!d->file.db || d->cfg.history_days > 0) {
			if (uv_cond_timedwait(&d->wake, &d->lock, ms * 1000000))
				return;
		} else {
			uv_cond_wait(&d->wake, &d->lock);
		}
	}
	if (!d->urgent && !d->stop)
		uv_cond_timedwait(&d->wake, &d->lock,
				  (uint64_t)d->cfg.batch_ms * 1000000);
}

/* Linux: of the calling thread only. */
static void give_way(void)
{
	int now;

	errno = 0;
	now = getpriority(PRIO_PROCESS, 0);
	if (errno == 0)
		setpriority(PRIO_PROCESS, 0, now + WORKER_NICE);
}

static void run(void *data)
{
	struct pooldb *d = data;
	struct list items;
	bool stop = false;

	log_set_thread("pool.db");
	give_way();
	list_init(&items);
	ensure_open(d);
	while (!stop) {
		uv_mutex_lock(&d->lock);
		wait(d);
		list_splice(&items, &d->queue);
		d->urgent = false;
		d->changes = 0;
		stop = d->stop;
		uv_mutex_unlock(&d->lock);
		work(d, &items);
	}
	list_splice(&d->synced, &d->waiting);
	pooldb_file_close(&d->file);
}

/* ---- start and stop ---- */

struct pooldb *pooldb_start(uv_loop_t *loop, const struct pooldb_config *cfg,
			    const struct store *s, uint64_t index)
{
	struct pooldb *d = xcalloc(1, sizeof *d);

	d->cfg = *cfg;
	d->dir = xstrdup(cfg->dir);
	d->cfg.dir = d->dir;
	if (!d->cfg.queue_bytes)
		d->cfg.queue_bytes = QUEUE_BYTES;
	if (!d->cfg.batch_ms)
		d->cfg.batch_ms = BATCH_MS;
	if (!d->cfg.retry_ms)
		d->cfg.retry_ms = RETRY_MS;
	d->store = s;
	d->core_index = index;
	d->start_generation = store_generation(s);
	d->start_digest = store_digest(s);
	d->file.path = pooldb_path(cfg->dir);
	d->file.cfg = &d->cfg;
	list_init(&d->queue);
	list_init(&d->synced);
	list_init(&d->waiting);
	xassert(uv_mutex_init(&d->lock) == 0 && uv_cond_init(&d->wake) == 0);
	xassert(uv_async_init(loop, &d->async, on_async) == 0);
	d->async.data = d;
	xassert(uv_thread_create(&d->thread, run, d) == 0);
	return d;
}

static void on_closed(uv_handle_t *h)
{
	struct pooldb *d = h->data;

	free(d->file.path);
	free(d->dir);
	free(d);
}

void pooldb_stop(struct pooldb *d)
{
	uv_mutex_lock(&d->lock);
	d->stop = true;
	uv_cond_signal(&d->wake);
	uv_mutex_unlock(&d->lock);
	uv_thread_join(&d->thread);
	run_callbacks(d, -ECANCELED);
	xassert(list_empty(&d->queue));
	uv_mutex_destroy(&d->lock);
	uv_cond_destroy(&d->wake);
	uv_close((uv_handle_t *)&d->async, on_closed);
}

int pooldb_set_aside(const char *dir, const char *suffix)
{
	static const char *const parts[] = { "", "-wal", "-shm" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		_cleanup_(freep) char *from = xasprintf("%s/pool.db%s", dir,
							parts[i]);
		_cleanup_(freep) char *to = xasprintf("%s/pool.db.%s%s", dir,
						      suffix, parts[i]);

		if (rename(from, to) < 0 && errno != ENOENT)
			r = -errno;
	}
	return r;
}
