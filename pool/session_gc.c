/* Sessions that nobody uses any more go, and those over the caps, the least
 * recently used first. The serving leader does it, every 30 seconds. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/session.h"

#define GC_EVERY_MS 30000
#define IDLE_S 86400
#define CAP_OWN 400   /* of the pool itself, and of root without originator */
#define CAP_OTHER 500 /* of one originator, of one user */
#define GC_BATCH 512  /* sessions destroyed in one pass */

struct gc_session {
	struct record *row; /* borrowed */
	char group[136];
};

static void name_group(struct gc_session *g)
{
	const struct record *s = g->row;

	if (record_bool(s, F_session_pool))
		snprintf(g->group, sizeof g->group, "p");
	else if (record_bool(s, F_session_is_local_superuser))
		snprintf(g->group, sizeof g->group, "o%.128s",
			 record_str(s, F_session_originator));
	else
		snprintf(g->group, sizeof g->group, "u%.128s",
			 record_str(s, F_session_auth_user_name));
}

static size_t group_cap(const struct gc_session *g)
{
	return !strcmp(g->group, "p") || !strcmp(g->group, "o") ? CAP_OWN :
								  CAP_OTHER;
}

/* By group, in a group the most recently used first. */
static int compare(const void *pa, const void *pb)
{
	const struct gc_session *a = pa, *b = pb;
	int64_t ta = record_int(a->row, F_session_last_active);
	int64_t tb = record_int(b->row, F_session_last_active);
	int c = strcmp(a->group, b->group);

	return c ? c : ta > tb ? -1 : ta < tb;
}

static bool has_pending_task(const struct store *s, const struct record *row)
{
	const struct value *tasks = row->fields[F_session_tasks];

	for (unsigned i = 0; i < tasks->n; i++) {
		struct record *t = store_get_class(s, CLASS_task,
						   value_str(tasks->items[i]));

		if (t && !task_has_ended(t))
			return true;
	}
	return false;
}

static bool is_busy(const struct store *s, const struct record *row)
{
	struct record *parent = store_get_class(s, CLASS_session,
			record_str(row, F_session_parent));

	return has_pending_task(s, row) ||
	       (parent && has_pending_task(s, parent));
}

static void destroy_unused(struct txn *t, const struct record *row)
{
	txn_guard_field(t, row, F_session_last_active);
	txn_destroy(t, value_str(row->ref));
}

static void collect(struct pool *p)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	size_t n = 0, in_group = 0, gone = 0, total = store_count(s, CLASS_session);
	_cleanup_(freep) struct gc_session *all = xcalloc(total + 1, sizeof *all);
	struct rows it = rows_of(s, CLASS_session);
	int64_t now = env_wall_ms() / 1000;
	struct txn *t = txn_new("garbage collection");
	struct record *row;

	while (n < total && (row = rows_next(&it))) {
		all[n].row = row;
		name_group(&all[n++]);
	}
	qsort(all, n, sizeof *all, compare);
	for (size_t i = 0; i < n && gone < GC_BATCH; i++) {
		int64_t idle = now - record_int(all[i].row,
						F_session_last_active);

		in_group = i > 0 && !strcmp(all[i].group, all[i - 1].group) ?
				   in_group + 1 : 1;
		if (idle <= IDLE_S && in_group <= group_cap(&all[i]))
			continue;
		if (is_busy(s, all[i].row))
			continue;
		destroy_unused(t, all[i].row);
		gone++;
	}
	if (gone > 0) {
		log_info("%zu unused sessions go", gone);
		pool_submit(p, t, NULL, NULL);
	} else {
		txn_free(t);
	}
}

static void on_gc(struct pool *p, void *data)
{
	pool_timer_arm(p, &p->sessions->gc, GC_EVERY_MS);
	if (p->serving)
		collect(p);
}

void session_gc_init(struct pool *p)
{
	pool_timer_init(&p->sessions->gc, on_gc, NULL);
	pool_timer_arm(p, &p->sessions->gc, GC_EVERY_MS);
}
