#include "pool/restore.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/core.h"
#include "pool/job.h"

static struct record *host_of(const struct store *s, const char *uuid)
{
	return store_by_uuid(s, CLASS_host, uuid);
}

const char *restore_host_address(const struct store *s, const char *uuid)
{
	const struct record *host = host_of(s, uuid);

	return host ? record_str(host, F_host_address) : NULL;
}

const char *restore_peer_address(const struct store *s, const char *uuid)
{
	const struct record *host = host_of(s, uuid);
	const struct record *m = host ?
		member_of_host(s, value_str(host->ref)) : NULL;

	return m ? record_str(m, F_member_peer_address) : NULL;
}

const char *restore_pool_uuid(const struct store *s)
{
	const struct record *pool = store_first(s, CLASS_pool);

	return pool ? record_str(pool, F_pool_uuid) : NULL;
}

void restore_list_hosts(const struct store *s, struct buf *b)
{
	for (struct record *h = store_first(s, CLASS_host); h;
	     h = store_next(s, h))
		buf_printf(b, "  %s  %s\n", record_str(h, F_host_uuid),
			   record_str(h, F_host_hostname));
}

static void destroy_all(const struct store *s, struct txn *t, int cls)
{
	for (struct record *r = store_first(s, cls); r; r = store_next(s, r))
		txn_destroy(t, value_str(r->ref));
}

/* Nobody works on anything any more. */
static void end_vm_operations(const struct store *s, struct txn *t)
{
	struct draft d;

	for (struct record *vm = store_first(s, CLASS_VM); vm;
	     vm = store_next(s, vm)) {
		if (vm->fields[F_VM_current_operations]->n == 0 &&
		    value_is_null_ref(
			    vm->fields[F_VM_scheduled_to_be_resident_on]))
			continue;
		draft_edit(&d, t, vm);
		draft_set(&d, F_VM_current_operations, value_map_empty());
		draft_null(&d, F_VM_scheduled_to_be_resident_on);
		draft_write_vm(&d, s);
	}
}

static void end_operations(const struct store *s, struct txn *t)
{
	static const char name[] = "current_operations";

	end_vm_operations(s, t);
	for (unsigned i = 0; i < schema_n_classes; i++) {
		const struct class_def *c = &schema_classes[i];
		int field = schema_field(c, name, strlen(name));

		if (field < 0 || c->id == CLASS_VM || c->id == CLASS_task)
			continue;
		for (struct record *r = store_first(s, c->id); r;
		     r = store_next(s, r))
			if (r->fields[field]->n > 0)
				txn_set(t, c, value_str(r->ref),
					(unsigned)field, value_map_empty());
	}
}

static void set_member(const struct store *s, struct txn *t,
		       const struct record *host, const struct restore_host *h)
{
	struct draft d;

	destroy_all(s, t, CLASS_member);
	draft_create(&d, t, CLASS_member, NULL);
	draft_copy(&d, F_member_host, host->ref);
	draft_str(&d, F_member_raft_id, h->raft_id);
	draft_str(&d, F_member_peer_address, h->peer_address);
	draft_str(&d, F_member_fingerprint, h->fingerprint);
	draft_str(&d, F_member_certificate, h->certificate);
	draft_str(&d, F_member_wanted_role, "voter");
	draft_write(&d);
}

/* What was under way is at an end, but for files that nobody will resume and
 * whose host was away: nothing else would ever remove them. A newer file of the
 * same name is of a life that the backup does not know; it stays. */
static void end_jobs(const struct store *s, struct txn *t)
{
	for (struct record *j = store_first(s, CLASS_job); j;
	     j = store_next(s, j)) {
		struct draft d;

		if (!value_is_str(j->fields[F_job_kind], "drop_image") ||
		    !store_get_class(s, CLASS_host, record_str(j, F_job_host))) {
			txn_destroy(t, value_str(j->ref));
			continue;
		}
		draft_edit(&d, t, j);
		draft_map_put(&d, F_job_params, JOB_IMAGE_BEFORE,
			      value_printf("%lld", (long long)record_int(
							j, F_job_created)));
		draft_write(&d);
	}
}

int restore_prepare(struct store *s, const struct restore_host *h, char *why,
		    size_t why_size)
{
	const struct record *host = host_of(s, h->uuid);
	const struct record *pool = store_first(s, CLASS_pool);
	struct txn_result result;
	struct txn *t;

	if (!host || !pool) {
		snprintf(why, why_size, "the backup has no %s", pool ?
			 "such host" : "pool");
		return -EINVAL;
	}
	t = txn_new("restore");
	end_operations(s, t);
	destroy_all(s, t, CLASS_session);
	destroy_all(s, t, CLASS_task);
	end_jobs(s, t);
	set_member(s, t, host, h);
	txn_set(t, pool->cls, value_str(pool->ref), F_pool_master,
		value_ref(host->ref));
	result = store_apply(s, t);
	txn_free(t);
	if (result.status == TXN_OK)
		return 0;
	snprintf(why, why_size, "its rows do not fit: status %d, item %u",
		 (int)result.status, result.item);
	return -EINVAL;
}
