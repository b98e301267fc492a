/* Tasks that are no use any more: old ones (the serving leader collects them
 * every 30 seconds), and those that the last run of this daemon had only in
 * memory when it died.
 */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/task.h"

#define GC_EVERY_MS 30000
#define KEEP_ENDED_S (65 * 60)
#define KEEP_PENDING_S 86400
#define MAX_YOUNG 200
#define MAX_MESSAGES 10000
#define BATCH 256
#define LEFTOVERS_AGAIN_MS 1000

static const struct store *store_of(const struct pool *p)
{
	return p->hooks.store(p->hooks.data);
}

static void submit_or_drop(struct pool *p, struct txn *t)
{
	if (txn_is_empty(t))
		txn_free(t);
	else
		pool_submit(p, t, NULL, NULL);
}

/* Tasks that a job row works for. Keys borrowed from the store. */
static void tasks_with_job(const struct store *s, struct map *ret)
{
	struct rows it = rows_of(s, CLASS_job);
	struct record *job;

	map_init(ret);
	while ((job = rows_next(&it))) {
		const struct value *task = job->fields[F_job_task];

		map_put(ret, task->s, task->n, job);
	}
}

/* ---- old tasks ---- */

struct old_task {
	double progress;
	unsigned pass;
	char ref[];
};

/* Pending for a day, and no progress since the pass before. */
static bool is_stuck(struct task_state *st, const struct record *task)
{
	double progress = task->fields[F_task_progress]->d;
	struct old_task *old = map_get(&st->old, task->ref->s, task->ref->n);
	bool stuck;

	if (!old) {
		old = xmalloc(sizeof *old + task->ref->n + 1);
		memcpy(old->ref, task->ref->s, task->ref->n + 1);
		map_put(&st->old, old->ref, task->ref->n, old);
		stuck = false;
	} else {
		stuck = progress <= old->progress;
	}
	old->progress = progress;
	old->pass = st->pass;
	return stuck;
}

static void forget_old(struct task_state *st, unsigned except_pass)
{
	struct old_task *old;
	size_t i = 0;

	while ((old = map_next(&st->old, &i))) {
		if (old->pass == except_pass)
			continue;
		map_del(&st->old, old->ref, strlen(old->ref));
		free(old);
	}
}

static bool pending_may_go(struct pool *p, const struct map *busy,
			   const struct record *task, int64_t now)
{
	if (now - record_int(task, F_task_created) <= KEEP_PENDING_S)
		return false;
	if (map_get(busy, task->ref->s, task->ref->n) ||
	    req_owns_task(p, value_str(task->ref)))
		return false;
	return is_stuck(p->tasks, task);
}

/* Destroys what is too old in any case; *ret_young counts the other ended ones. */
static void collect_aged(struct pool *p, struct txn *t, size_t *ret_young)
{
	struct rows it = rows_of(store_of(p), CLASS_task);
	int64_t now = env_wall_ms() / 1000;
	struct record *task;
	struct map busy;
	size_t n = 0;

	tasks_with_job(store_of(p), &busy);
	while ((task = rows_next(&it)) && n < BATCH) {
		bool go;

		if (task_has_ended(task))
			go = task_is_asked_to(task, "destroy") ||
			     now - record_int(task, F_task_finished) > KEEP_ENDED_S;
		else
			go = pending_may_go(p, &busy, task, now);
		if (go) {
			txn_destroy(t, value_str(task->ref));
			n++;
		} else if (task_has_ended(task)) {
			(*ret_young)++;
		}
	}
	map_deinit(&busy);
}

/* Rows come in the order of their last change, which for ended tasks is that
 * of their ends. */
static void collect_surplus(struct pool *p, size_t young)
{
	struct rows it = rows_of(store_of(p), CLASS_task);
	struct txn *t = txn_new("garbage collection");
	struct record *task;

	for (size_t n = 0; young > MAX_YOUNG && n < BATCH; ) {
		task = rows_next(&it);
		if (!task)
			break;
		if (!task_has_ended(task))
			continue;
		txn_destroy(t, value_str(task->ref));
		young--;
		n++;
	}
	submit_or_drop(p, t);
}

static void on_gc(struct pool *p, void *data)
{
	struct txn *t;
	size_t young = 0;

	pool_timer_arm(p, &p->tasks->gc, GC_EVERY_MS);
	if (!p->serving)
		return;
	p->tasks->pass++;
	t = txn_new("garbage collection");
	collect_aged(p, t, &young);
	forget_old(p->tasks, p->tasks->pass);
	if (txn_is_empty(t) && young > MAX_YOUNG)
		collect_surplus(p, young);
	submit_or_drop(p, t);
	t = txn_new("garbage collection");
	message_collect(p, t, MAX_MESSAGES);
	submit_or_drop(p, t);
}

/* ---- leftovers of the last run ---- */

static bool is_leftover(const struct pool *p, const struct record *task,
			const struct record *host, const struct map *busy)
{
	return !task_has_ended(task) &&
	       value_equal(task->fields[F_task_forwarded_to], host->ref) &&
	       !req_owns_task(p, value_str(task->ref)) &&
	       !map_get(busy, task->ref->s, task->ref->n);
}

static struct txn *end_leftovers(struct pool *p, const struct record *host)
{
	struct rows it = rows_of(store_of(p), CLASS_task);
	struct txn *t = txn_new("start");
	struct record *task;
	struct map busy;
	size_t n = 0;

	tasks_with_job(store_of(p), &busy);
	while ((task = rows_next(&it)) && n < BATCH) {
		if (!is_leftover(p, task, host, &busy))
			continue;
		txn_guard_field(t, task, F_task_status);
		task_fail(p, t, value_str(task->ref),
			  error_internal("xenpoold restarted before the "
					 "operation began"));
		n++;
	}
	map_deinit(&busy);
	return t;
}

static void leftovers_again(struct pool *p)
{
	p->tasks->leftovers_busy = false;
	pool_timer_arm(p, &p->tasks->leftovers, LEFTOVERS_AGAIN_MS);
}

static void on_leftovers_ended(void *data, int error, struct txn_result result)
{
	/* Whether it worked, and whether there are more, a new look tells. */
	leftovers_again(data);
}

static void on_leftovers_barrier(void *data, int error)
{
	struct pool *p = data;
	struct record *host = error < 0 ? NULL : pool_this_host(p);
	struct txn *t;

	if (error < 0) {
		leftovers_again(p);
		return;
	}
	t = host ? end_leftovers(p, host) : NULL;
	if (t && !txn_is_empty(t)) {
		pool_submit(p, t, on_leftovers_ended, p);
		return;
	}
	txn_free(t);
	p->tasks->leftovers_done = true;
}

static void on_leftovers_timer(struct pool *p, void *data)
{
	task_leftovers_begin(p);
}

void task_leftovers_begin(struct pool *p)
{
	struct task_state *st = p->tasks;

	if (st->leftovers_done || st->leftovers_busy || !p->leader_id)
		return;
	st->leftovers_busy = true;
	p->hooks.read_barrier(p->hooks.data, on_leftovers_barrier, p);
}

/* ---- set up ---- */

void task_gc_init(struct pool *p)
{
	map_init(&p->tasks->old);
	pool_timer_init(&p->tasks->leftovers, on_leftovers_timer, NULL);
	pool_timer_init(&p->tasks->gc, on_gc, NULL);
	pool_timer_arm(p, &p->tasks->gc, GC_EVERY_MS);
}

void task_gc_deinit(struct pool *p)
{
	pool_timer_cancel(p, &p->tasks->gc);
	pool_timer_cancel(p, &p->tasks->leftovers);
	forget_old(p->tasks, p->tasks->pass + 1);
	map_deinit(&p->tasks->old);
}
