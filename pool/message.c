/* Messages (alerts): rows of a class of their own whose calls are all custom. */
#include <string.h>

#include "base/env.h"
#include "pool/core.h"

#define CLS (&schema_classes[CLASS_message])

void message_create(struct txn *t, const char *name, int priority,
		    const char *cls, const char *obj_uuid, const char *body)
{
	char ref[REF_LEN + 1];

	row_create(t, CLASS_message, NULL, ref);
	txn_set(t, CLS, ref, F_message_name, value_stringz(name));
	txn_set(t, CLS, ref, F_message_priority, value_int(priority));
	txn_set(t, CLS, ref, F_message_cls, value_stringz(cls));
	txn_set(t, CLS, ref, F_message_obj_uuid, value_stringz(obj_uuid));
	txn_set(t, CLS, ref, F_message_timestamp,
		value_datetime(env_wall_ms() / 1000));
	txn_set(t, CLS, ref, F_message_body, value_stringz(body));
}

void pool_alarm(struct pool *p, const uint8_t id[TXN_ID_LEN], const char *name,
		int priority, const char *text)
{
	const struct record *pool = pool_row(p);
	struct txn *t = txn_new(p->cfg.host_uuid);

	if (id)
		memcpy(t->id, id, TXN_ID_LEN);
	message_create(t, name, priority, "Pool",
		       pool ? record_str(pool, F_pool_uuid) : "", text);
	pool_submit(p, t, NULL, NULL);
}

void message_collect(const struct pool *p, struct txn *t, unsigned at_most)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	size_t n = store_count(s, CLASS_message);
	struct record *r = store_first(s, CLASS_message);

	for (; n > at_most && r && txn_size(t) < TXN_MAX_BYTES / 4; n--) {
		txn_destroy(t, value_str(r->ref));
		r = store_next(s, r);
	}
}

/* ---- filters ---- */

struct filter {
	const struct value *cls, *obj_uuid; /* NULL: any */
	int64_t after, before;              /* exclusive */
	int64_t priority;                   /* -1: any */
	const struct where *where;          /* NULL: all */
};

#define FILTER_ALL { .after = INT64_MIN, .before = INT64_MAX, .priority = -1 }

static bool filter_match(const struct filter *f, const struct record *r)
{
	int64_t at = record_int(r, F_message_timestamp);

	if (f->cls && !value_equal(f->cls, r->fields[F_message_cls]))
		return false;
	if (f->obj_uuid && !value_equal(f->obj_uuid,
					r->fields[F_message_obj_uuid]))
		return false;
	if (f->priority >= 0 &&
	    record_int(r, F_message_priority) != f->priority)
		return false;
	if (f->where && !where_match(f->where, r))
		return false;
	return at > f->after && at < f->before;
}

static void reply_records(struct req *r, const struct filter *f)
{
	const struct store *s = req_store(r);
	size_t n = 0, most = store_count(s, CLASS_message);
	_cleanup_(freep) struct value **pairs = xcalloc(2 * most + 1,
							sizeof *pairs);

	for (struct record *m = store_first(s, CLASS_message); m;
	     m = store_next(s, m)) {
		if (!filter_match(f, m))
			continue;
		pairs[2 * n] = value_ref(m->ref);
		pairs[2 * n + 1] = value_record(m);
		n++;
	}
	req_reply(r, value_map_from(pairs, n));
}

/* ---- reading ---- */

static void message_get(struct req *r)
{
	struct filter f = FILTER_ALL;

	f.cls = req_arg(r, 0);
	f.obj_uuid = req_arg(r, 1);
	f.after = req_arg_int(r, 2);
	reply_records(r, &f);
}

static void message_get_since(struct req *r)
{
	struct filter f = FILTER_ALL;

	f.after = req_arg_int(r, 0);
	reply_records(r, &f);
}

static void message_get_all_records(struct req *r)
{
	struct filter f = FILTER_ALL;

	reply_records(r, &f);
}

static void message_get_all_records_where(struct req *r)
{
	const struct value *expr = req_arg(r, 0);
	_cleanup_(where_freep) struct where *w = NULL;
	struct filter f = FILTER_ALL;
	char reason[128];

	w = where_parse(CLS, expr->s, expr->n, reason, sizeof reason);
	if (!w) {
		req_fail(r, "INVALID_VALUE", value_str(expr), reason, NULL);
		return;
	}
	f.where = w;
	reply_records(r, &f);
}

/* ---- creating and destroying ---- */

static void message_create_call(struct req *r)
{
	const struct value *cls = req_arg(r, 2), *obj_uuid = req_arg(r, 3);
	const struct class_def *c = schema_class_nocase(cls->s, cls->n);
	char ref[REF_LEN + 1];
	struct txn *t;

	if (!c || !row_by_uuid(req_store(r), c->id, value_str(obj_uuid))) {
		req_fail(r, "UUID_INVALID", value_str(cls),
			 value_str(obj_uuid), NULL);
		return;
	}
	t = req_txn(r);
	row_create(t, CLASS_message, NULL, ref);
	txn_set(t, CLS, ref, F_message_name, value_ref(req_arg(r, 0)));
	txn_set(t, CLS, ref, F_message_priority, value_ref(req_arg(r, 1)));
	txn_set(t, CLS, ref, F_message_cls, value_ref(cls));
	txn_set(t, CLS, ref, F_message_obj_uuid, value_ref(obj_uuid));
	txn_set(t, CLS, ref, F_message_timestamp,
		value_datetime(env_wall_ms() / 1000));
	txn_set(t, CLS, ref, F_message_body, value_ref(req_arg(r, 4)));
	req_commit(r, t, value_stringz(ref));
}

static void message_destroy(struct req *r)
{
	struct record *m = req_arg_record(r, 0, CLASS_message);
	struct txn *t;

	if (!m)
		return;
	t = req_txn(r);
	txn_destroy(t, value_str(m->ref));
	req_commit(r, t, NULL);
}

static void message_destroy_many(struct req *r)
{
	const struct value *refs = req_arg(r, 0);
	struct txn *t = req_txn(r);
	struct map seen;

	map_init(&seen);
	for (unsigned i = 0; i < refs->n; i++) {
		const struct value *ref = refs->items[i];

		if (map_put(&seen, ref->s, ref->n, r))
			continue;
		if (!store_get_class(req_store(r), CLASS_message,
				     value_str(ref))) {
			map_deinit(&seen);
			txn_free(t);
			req_fail_value(r, error_handle_invalid(
				CLASS_message, value_str(ref)));
			return;
		}
		txn_destroy(t, value_str(ref));
	}
	map_deinit(&seen);
	req_commit(r, t, NULL);
}

static bool filter_read(struct filter *f, const struct value *key,
			const struct value *v)
{
	if (value_is_str(key, "after"))
		return date_parse(v->s, v->n, &f->after);
	if (value_is_str(key, "before"))
		return date_parse(v->s, v->n, &f->before);
	if (value_is_str(key, "priority"))
		return int_parse(v->s, v->n, &f->priority) && f->priority >= 0;
	return false;
}

static void message_destroy_all(struct req *r)
{
	const struct value *filters = req_arg(r, 0);
	struct filter f = FILTER_ALL;
	struct record *m;
	struct txn *t;

	for (unsigned i = 0; i < filters->n; i++) {
		if (filter_read(&f, filters->items[2 * i],
				filters->items[2 * i + 1]))
			continue;
		req_fail(r, "INVALID_VALUE", value_str(filters->items[2 * i]),
			 value_str(filters->items[2 * i + 1]), NULL);
		return;
	}
	t = req_txn(r);
	for (m = store_first(req_store(r), CLASS_message);
	     m && txn_size(t) < TXN_MAX_BYTES - 4096;
	     m = store_next(req_store(r), m))
		if (filter_match(&f, m))
			txn_destroy(t, value_str(m->ref));
	req_commit(r, t, NULL);
}

/* Readers that every other class has as generated methods. */
static void message_get_all(struct req *r)
{
	generic_handlers[METHOD_GET_ALL](r);
}

static void message_get_record(struct req *r)
{
	generic_handlers[METHOD_GET_RECORD](r);
}

static void message_get_by_uuid(struct req *r)
{
	generic_handlers[METHOD_GET_BY_UUID](r);
}

const struct handler_def message_handlers[] = {
	{ M_message_create, message_create_call },
	{ M_message_destroy, message_destroy },
	{ M_message_destroy_many, message_destroy_many },
	{ M_message_destroy_all, message_destroy_all },
	{ M_message_get, message_get },
	{ M_message_get_since, message_get_since },
	{ M_message_get_all, message_get_all },
	{ M_message_get_all_records, message_get_all_records },
	{ M_message_get_all_records_where, message_get_all_records_where },
	{ M_message_get_record, message_get_record },
	{ M_message_get_by_uuid, message_get_by_uuid },
	{ -1, NULL },
};
