/* A pool without daemon, network or disk: one store in memory, a clock that the
 * test moves, transactions and barriers that are carried out when the test lets
 * the world run. Handlers of VMs, hosts and jobs are not in it.
 */
#ifndef TESTS_POOL_HELP_H
#define TESTS_POOL_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "pool/core.h"

#define _value_ _cleanup_(value_unrefp) struct value *

struct wish {
	struct list link;
	struct txn *txn; /* NULL: a barrier, or a password */
	pool_txn_cb txn_cb;
	pool_done_cb done_cb;
	pool_password_cb password_cb;
	void *data;
	char *password, *hash;
};

static struct world {
	struct store *store;
	struct pool *pool;
	int64_t wall_ms, mono_ms, wake_ms;
	int64_t age_ms; /* what the store's age is told to be */
	uint64_t random;
	struct list wishes;
	int submit_error, barrier_error; /* 0, or what every wish ends with */
	bool hold;                       /* wishes pile up */
	unsigned barriers, submits, passwords;
	char host[REF_LEN + 1], session[REF_LEN + 1];
	char cancelled[REF_LEN + 1]; /* last job_cancel_requested() */
} w;

/* ---- what the rest of pool/ would supply ---- */

struct record *host_of_raft_id(const struct pool *p, uint64_t id)
{
	return pool_this_host(p);
}

void job_cancel_requested(struct pool *p, const char *task_ref)
{
	snprintf(w.cancelled, sizeof w.cancelled, "%s", task_ref);
}

/* ---- clock and hooks ---- */

static int64_t fake_wall(void *data)
{
	return w.wall_ms;
}

static int64_t fake_mono(void *data)
{
	return w.mono_ms;
}

static void fake_random(void *data, void *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		w.random = w.random * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)out)[i] = (uint8_t)(w.random >> 56);
	}
}

static const struct env_ops fake_env = { fake_wall, fake_mono, fake_random, NULL };

static struct wish *wish_new(void *data)
{
	struct wish *wish = xcalloc(1, sizeof *wish);

	wish->data = data;
	list_push(&w.wishes, &wish->link);
	return wish;
}

static const struct store *hook_store(void *data)
{
	return w.store;
}

static void hook_submit(void *data, struct txn *t, pool_txn_cb cb, void *cb_data)
{
	struct wish *wish = wish_new(cb_data);

	w.submits++;
	wish->txn = t;
	wish->txn_cb = cb;
}

static void hook_barrier(void *data, pool_done_cb cb, void *cb_data)
{
	w.barriers++;
	wish_new(cb_data)->done_cb = cb;
}

static void hook_password(void *data, const char *password, const char *hash,
			  pool_password_cb cb, void *cb_data)
{
	struct wish *wish = wish_new(cb_data);

	w.passwords++;
	wish->password_cb = cb;
	wish->password = xstrdup(password);
	wish->hash = hash ? xstrdup(hash) : NULL;
}

static int64_t hook_age_ms(void *data)
{
	return w.age_ms;
}

static void hook_wake_at(void *data, int64_t mono_ms)
{
	w.wake_ms = mono_ms;
}

static void on_changed(void *data, const struct txn *t, uint64_t generation,
		       const struct change *changes, size_t n)
{
	if (w.pool)
		pool_changed(w.pool, t, generation, changes, n);
}

/* ---- letting the world run ---- */

static inline void wish_fulfil(struct wish *wish)
{
	struct txn_result result = { 0 };

	if (wish->txn) {
		if (!w.submit_error)
			result = store_apply(w.store, wish->txn);
		wish->txn_cb(wish->data, w.submit_error, result);
	} else if (wish->done_cb) {
		wish->done_cb(wish->data, w.barrier_error);
	} else {
		char hash[256];

		snprintf(hash, sizeof hash, "hash:%s", wish->password);
		wish->password_cb(wish->data, wish->hash &&
				  !strcmp(hash, wish->hash), hash);
	}
}

static inline void wish_free(struct wish *wish)
{
	list_remove(&wish->link);
	txn_free(wish->txn);
	free(wish->password);
	free(wish->hash);
	free(wish);
}

/* Carries out what can be at this instant. */
static inline void world_run(void)
{
	for (unsigned i = 0; i < 100000; i++) {
		if (!list_empty(&w.wishes) && !w.hold) {
			struct wish *wish = list_entry(w.wishes.next,
						       struct wish, link);

			list_remove(&wish->link);
			wish_fulfil(wish);
			wish_free(wish);
		} else if (w.wake_ms <= w.mono_ms) {
			w.wake_ms = INT64_MAX;
			pool_timers(w.pool);
		} else {
			return;
		}
	}
	fail_msg("the world does not come to rest");
}

static inline void world_advance(int64_t ms)
{
	int64_t until = w.mono_ms + ms;

	world_run();
	while (w.mono_ms < until) {
		int64_t step = MIN(until, MAX(w.wake_ms, w.mono_ms)) - w.mono_ms;

		w.mono_ms += step;
		w.wall_ms += step;
		world_run();
	}
}

static inline struct txn_result apply(struct txn *t)
{
	struct txn_result result = store_apply(w.store, t);

	txn_free(t);
	return result;
}

#endif
