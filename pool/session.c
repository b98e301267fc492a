/* Sessions. A session is a row, so every member knows it and it outlives a
 * change of master. Local sessions live in the memory of one host, for the time
 * in which nothing can be written.
 *
 * A login runs its handler twice: the first run starts the check of the
 * password and leaves in memo what has been found (the hash that fitted, or an
 * error); the second one creates the session, on condition that the hash has
 * not been changed meanwhile.
 */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/core.h"
#include "pool/session.h"

#define ROOT "root"
#define PASSWORD_MAX 1024   /* bytes */
#define CHECKS_AT_A_TIME 8  /* password hashing under way */
#define CHECKS_QUEUED 1024
#define TOUCH_EVERY_S 600
#define MAX_LOCAL 128
#define MAX_FIELDS 64

static int64_t now_s(void)
{
	return env_wall_ms() / 1000;
}

/* ---- local sessions ---- */

struct local_session {
	struct record *row;
	int64_t used_ms;
};

static struct local_session *local_find(const struct pool *p, const char *ref)
{
	return map_getz(&p->sessions->local, ref);
}

static void local_free(struct local_session *l)
{
	record_unref(l->row);
	free(l);
}

static void local_drop(struct pool *p, struct local_session *l)
{
	map_del(&p->sessions->local, l->row->ref->s, l->row->ref->n);
	local_free(l);
}

static void local_drop_oldest(struct pool *p)
{
	struct local_session *l, *oldest = NULL;

	for (size_t i = 0; (l = map_next(&p->sessions->local, &i)); )
		if (!oldest || l->used_ms < oldest->used_ms)
			oldest = l;
	if (oldest)
		local_drop(p, oldest);
}

static void session_fields(const struct pool *p, const struct call *c,
			   struct value **ret)
{
	struct record *host = pool_this_host(p);
	const struct class_def *cls = &schema_classes[CLASS_session];

	xassert(cls->n_fields <= MAX_FIELDS);
	for (unsigned f = 0; f < cls->n_fields; f++)
		ret[f] = NULL;
	ret[F_session_this_host] = host ? value_ref(host->ref) :
					  value_null_ref();
	ret[F_session_last_active] = value_datetime(now_s());
	ret[F_session_validation_time] = value_datetime(now_s());
	ret[F_session_is_local_superuser] = value_bool(true);
	ret[F_session_auth_user_name] = c->origin.local_root ?
		value_stringz(ROOT) : value_ref(c->args[0]);
	ret[F_session_originator] = c->n_args > 3 ? value_ref(c->args[3]) :
						    value_stringz("");
}

static struct value *local_create(struct pool *p, const struct call *c)
{
	const struct class_def *cls = &schema_classes[CLASS_session];
	struct local_session *l = xcalloc(1, sizeof *l);
	struct value *fields[MAX_FIELDS];
	char ref[REF_LEN + 1], uuid[UUID_LEN + 1];

	if (p->sessions->local.count >= MAX_LOCAL)
		local_drop_oldest(p);
	ref_new(ref);
	uuid_new(uuid);
	session_fields(p, c, fields);
	fields[F_session_uuid] = value_stringz(uuid);
	l->row = record_new(cls, value_stringz(ref));
	for (unsigned f = 0; f < cls->n_fields; f++)
		record_set(l->row, f, fields[f] ? fields[f] :
						  schema_field_default(cls, f));
	l->used_ms = env_mono_ms();
	map_put(&p->sessions->local, l->row->ref->s, l->row->ref->n, l);
	return value_ref(l->row->ref);
}

/* ---- finding and touching ---- */

bool session_is_local(const struct pool *p, const char *ref)
{
	return local_find(p, ref) != NULL;
}

struct record *session_find(const struct pool *p, const char *ref)
{
	struct local_session *l = local_find(p, ref);

	if (l)
		return l->row;
	return store_get_class(p->hooks.store(p->hooks.data), CLASS_session,
			       ref);
}

struct touch {
	struct pool *pool;
	char ref[];
};

static void on_touched(void *data, int error, struct txn_result result)
{
	struct touch *touch = data;

	map_del(&touch->pool->sessions->touching, touch->ref,
		strlen(touch->ref));
	free(touch);
}

void session_touch(struct pool *p, const struct record *s)
{
	struct local_session *l = local_find(p, value_str(s->ref));
	struct touch *touch;
	struct txn *t;

	if (l)
		l->used_ms = env_mono_ms();
	if (l || now_s() - record_int(s, F_session_last_active) < TOUCH_EVERY_S ||
	    map_get(&p->sessions->touching, s->ref->s, s->ref->n))
		return;
	touch = xmalloc(sizeof *touch + s->ref->n + 1);
	touch->pool = p;
	memcpy(touch->ref, s->ref->s, s->ref->n + 1);
	map_put(&p->sessions->touching, touch->ref, s->ref->n, touch);
	t = txn_new(record_str(s, F_session_auth_user_name));
	txn_set(t, s->cls, touch->ref, F_session_last_active,
		value_datetime(now_s()));
	pool_submit(p, t, on_touched, touch);
}

/* ---- logging in ---- */

static struct value *login_refused(const char *uname)
{
	return api_error("SESSION_AUTHENTICATION_FAILED", uname,
			 "Authentication failure", NULL);
}

/* The error is told only after the delay: guessing shall be slow. */
static void refuse_later(struct req *r, struct value *error)
{
	value_unref(r->memo);
	r->memo = error;
	req_again_after(r, r->pool->cfg.login_delay_ms);
}

static void check_next(struct pool *p);

static void on_password(void *data, bool ok, const char *hash)
{
	struct req *r = data;
	struct pool *p = r->pool;

	p->sessions->checking--;
	if (ok)
		req_again(r);
	else
		refuse_later(r, login_refused(req_arg_str(r, 0)));
	check_next(p);
}

static void check_start(struct req *r)
{
	struct pool *p = r->pool;

	p->sessions->checking++;
	p->hooks.password(p->hooks.data, req_arg_str(r, 1), value_str(r->memo),
			  on_password, r);
}

static void check_next(struct pool *p)
{
	struct session_state *s = p->sessions;

	while (s->checking < CHECKS_AT_A_TIME && !list_empty(&s->queue)) {
		struct req_own *o = list_entry(s->queue.next, struct req_own,
					       in_key);

		list_remove(&o->in_key);
		s->queued--;
		check_start(&o->r);
	}
}

static void check_begin(struct req *r, const struct record *credential)
{
	struct session_state *s = r->pool->sessions;

	if (s->queued >= CHECKS_QUEUED) {
		req_fail(r, "TOO_MANY_PENDING_TASKS", NULL);
		return;
	}
	value_unref(r->memo);
	r->memo = value_ref(credential->fields[F_credential_hash]);
	req_park(r);
	s->queued++;
	list_push(&s->queue, &req_own(r)->in_key);
	check_next(r->pool);
}

/* True: the caller is who he says. False: the request is being taken care of. */
static bool login_checked(struct req *r)
{
	const char *uname = req_arg_str(r, 0);
	struct record *credential;

	if (r->call->origin.local_root)
		return true;
	if (r->memo && r->memo->kind == VALUE_SET) {
		req_fail_value(r, TAKE_PTR(r->memo));
		return false;
	}
	credential = credential_find(r->pool, uname);
	if (!credential || req_arg(r, 1)->n > PASSWORD_MAX) {
		refuse_later(r, login_refused(uname));
		return false;
	}
	if (r->memo && value_equal(r->memo,
				   credential->fields[F_credential_hash]))
		return true;
	check_begin(r, credential);
	return false;
}

static void session_login_with_password(struct req *r)
{
	const struct class_def *cls = &schema_classes[CLASS_session];
	struct value *fields[MAX_FIELDS];
	struct record *credential;
	char ref[REF_LEN + 1];
	struct txn *t;

	if (!login_checked(r))
		return;
	t = txn_new(req_arg_str(r, 0));
	credential = credential_find(r->pool, req_arg_str(r, 0));
	if (credential && !r->call->origin.local_root)
		txn_guard_field(t, credential, F_credential_hash);
	row_create(t, CLASS_session, NULL, ref);
	session_fields(r->pool, r->call, fields);
	for (unsigned f = 0; f < cls->n_fields; f++)
		if (fields[f])
			txn_set(t, cls, ref, f, fields[f]);
	req_commit(r, t, value_stringz(ref));
}

static void session_slave_local_login_with_password(struct req *r)
{
	if (login_checked(r))
		req_reply(r, local_create(r->pool, r->call));
}

/* There is no pool secret: members know each other by their certificates. */
static void secret_login(struct req *r, const char *who)
{
	if (r->memo)
		req_fail_value(r, TAKE_PTR(r->memo));
	else
		refuse_later(r, api_error("SESSION_AUTHENTICATION_FAILED", who,
					  "Pool credentials invalid", NULL));
}

static void session_slave_login(struct req *r)
{
	secret_login(r, req_arg_str(r, 0));
}

static void session_slave_local_login(struct req *r)
{
	secret_login(r, "pool");
}

/* ---- logging out ---- */

static void session_logout(struct req *r)
{
	const char *ref = value_str(r->call->session);
	struct local_session *l = local_find(r->pool, ref);
	struct txn *t;

	if (l) {
		local_drop(r->pool, l);
		event_session_gone(r->pool, ref);
		req_reply(r, NULL);
		return;
	}
	t = req_txn(r);
	if (store_get_class(req_store(r), CLASS_session, ref))
		txn_destroy(t, ref);
	req_commit(r, t, NULL);
}

static void session_local_logout(struct req *r)
{
	const char *ref = value_str(r->call->session);

	if (session_is_local(r->pool, ref))
		session_logout(r);
	else
		req_reply(r, NULL);
}

static struct value *subject_identifiers(const struct store *s)
{
	struct rows it = rows_of(s, CLASS_session);
	struct value *set = value_set_empty();
	struct record *row;

	while ((row = rows_next(&it))) {
		struct value *more, *sid = row->fields[F_session_auth_user_sid];

		if (sid->n == 0)
			continue;
		more = value_set_with(set, sid);
		value_unref(set);
		set = more;
	}
	return set;
}

static void session_get_all_subject_identifiers(struct req *r)
{
	req_reply(r, subject_identifiers(req_store(r)));
}

static void session_logout_subject_identifier(struct req *r)
{
	struct rows it = rows_of(req_store(r), CLASS_session);
	struct txn *t = req_txn(r);
	struct record *row;

	while ((row = rows_next(&it)) && txn_size(t) < TXN_MAX_BYTES / 2)
		if (value_equal(row->fields[F_session_auth_user_sid],
				req_arg(r, 0)) && req_arg(r, 0)->n > 0)
			txn_destroy(t, value_str(row->ref));
	req_commit(r, t, NULL);
}

/* ---- the password ---- */

static void on_hashed(void *data, bool ok, const char *hash)
{
	struct req *r = data;

	r->memo = hash ? value_stringz(hash) :
			 error_internal("The password could not be hashed");
	req_again(r);
}

static void session_change_password(struct req *r)
{
	const struct class_def *cls = &schema_classes[CLASS_credential];
	const struct value *new_password = req_arg(r, 1);
	struct record *credential;
	struct txn *t;

	if (!record_bool(r->session, F_session_is_local_superuser)) {
		req_fail(r, "USER_IS_NOT_LOCAL_SUPERUSER",
			 "Only the local superuser has a password here", NULL);
	} else if (new_password->n == 0 || new_password->n > PASSWORD_MAX) {
		req_fail(r, "CHANGE_PASSWORD_REJECTED",
			 "The password is empty or too long", NULL);
	} else if (!r->memo) {
		req_park(r);
		r->pool->hooks.password(r->pool->hooks.data,
					value_str(new_password), NULL,
					on_hashed, r);
	} else if (r->memo->kind == VALUE_SET) {
		req_fail_value(r, TAKE_PTR(r->memo));
	} else {
		t = req_txn(r);
		credential = credential_find(r->pool, ROOT);
		if (credential)
			txn_set(t, cls, value_str(credential->ref),
				F_credential_hash, value_ref(r->memo));
		else
			credential_create(t, ROOT, value_str(r->memo));
		req_commit(r, t, NULL);
	}
}

/* ---- the module ---- */

static int session_init(struct pool *p)
{
	struct session_state *s = xcalloc(1, sizeof *s);

	map_init(&s->local);
	map_init(&s->touching);
	list_init(&s->queue);
	p->sessions = s;
	session_gc_init(p);
	return 0;
}

static void session_free(struct pool *p)
{
	struct session_state *s = p->sessions;
	void *v;

	if (!s)
		return;
	pool_timer_cancel(p, &s->gc);
	for (size_t i = 0; (v = map_next(&s->local, &i)); )
		local_free(v);
	for (size_t i = 0; (v = map_next(&s->touching, &i)); )
		free(v);
	map_deinit(&s->local);
	map_deinit(&s->touching);
	free(s);
	p->sessions = NULL;
}

const struct pool_module session_module = {
	.name = "session",
	.init = session_init,
	.free = session_free,
};

const struct handler_def session_handlers[] = {
	{ M_session_login_with_password, session_login_with_password },
	{ M_session_slave_local_login_with_password,
	  session_slave_local_login_with_password },
	{ M_session_slave_login, session_slave_login },
	{ M_session_slave_local_login, session_slave_local_login },
	{ M_session_logout, session_logout },
	{ M_session_local_logout, session_local_logout },
	{ M_session_get_all_subject_identifiers,
	  session_get_all_subject_identifiers },
	{ M_session_logout_subject_identifier,
	  session_logout_subject_identifier },
	{ M_session_change_password, session_change_password },
	{ -1, NULL },
};
