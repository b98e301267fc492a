#include "pool/status.h"

#include <inttypes.h>

static const char *const role_names[] = { "spare", "stand-by", "voter" };

static struct value *hash_text(struct hash128 h)
{
	return value_printf("%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
}

static struct value *id_text(uint64_t id)
{
	return value_printf("%" PRIu64, id);
}

static struct value *member_of(const struct db_status *s, unsigned i)
{
	return value_struct_of(
		"id", id_text(s->members[i].id),
		"address", value_stringz(s->members[i].address),
		"role", value_stringz(role_names[s->members[i].role]),
		"connected", value_bool(s->members[i].connected),
		"heard_ms_ago", value_int(s->members[i].heard_ms_ago),
		"applied_index", value_int((int64_t)s->members[i].applied_index),
		"digest_generation",
		value_int((int64_t)s->members[i].digest_generation),
		"digest", hash_text(s->members[i].digest), NULL);
}

struct value *status_of(const struct db *db, const struct front *f)
{
	struct db_status s;
	struct front_status fs = { 0 };
	struct value *members;

	db_get_status(db, &s);
	if (f)
		front_get_status(f, &fs);
	members = value_set_new(s.n_members);
	for (unsigned i = 0; i < s.n_members; i++)
		members->items[i] = member_of(&s, i);
	return value_struct_of(
		"id", id_text(s.id), "leader_id", id_text(s.leader_id),
		"is_leader", value_bool(s.is_leader),
		"is_serving_leader", value_bool(s.is_serving_leader),
		"term", value_int((int64_t)s.term),
		"commit_index", value_int((int64_t)s.commit_index),
		"applied_index", value_int((int64_t)s.applied_index),
		"last_index", value_int((int64_t)s.last_index),
		"snapshot_index", value_int((int64_t)s.snapshot_index),
		"generation",
		value_int((int64_t)store_generation(db_store(db))),
		"digest", hash_text(store_digest(db_store(db))),
		"disk_free_bytes", value_int((int64_t)s.disk_free_bytes),
		"pending_txns", value_int((int64_t)s.pending_txns),
		"connections", value_int(fs.connections),
		"requests", value_int((int64_t)fs.requests),
		"members", members, NULL);
}
