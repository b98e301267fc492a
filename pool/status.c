#include "pool/status.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "pool/foreign.h"

static const char *const role_names[] = { "spare", "stand-by", "voter" };

static void put_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void put_int(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static void put_bool(struct json_object *o, const char *key, bool b)
{
	json_object_object_add(o, key, json_object_new_boolean(b));
}

/* Ids use all 64 bits, which JSON readers may not keep: as text. */
static void put_id(struct json_object *o, const char *key, uint64_t id)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, id);
	put_text(o, key, text);
}

static void put_digest(struct json_object *o, struct hash128 h)
{
	char text[40];

	snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
	put_text(o, "digest", text);
}

static struct json_object *members_json(const struct db_status *s)
{
	struct json_object *list = json_object_new_array();

	for (unsigned i = 0; i < s->n_members; i++) {
		struct json_object *o = json_object_new_object();

		put_id(o, "id", s->members[i].id);
		put_text(o, "address", s->members[i].address);
		put_text(o, "role", role_names[s->members[i].role]);
		put_bool(o, "connected", s->members[i].connected);
		put_bool(o, "lost", s->members[i].lost);
		put_int(o, "heard_ms_ago",
			(uint64_t)s->members[i].heard_ms_ago);
		put_int(o, "applied_index", s->members[i].applied_index);
		put_int(o, "digest_generation",
			s->members[i].digest_generation);
		put_digest(o, s->members[i].digest);
		json_object_array_add(list, o);
	}
	return list;
}

static void put_front(struct json_object *o, const struct front *f)
{
	struct front_status s;

	front_get_status(f, &s);
	put_int(o, "connections", s.connections);
	put_int(o, "requests", s.requests);
	put_int(o, "errors_4xx", s.errors_4xx);
	put_int(o, "errors_5xx", s.errors_5xx);
}

static struct json_object *pooldb_json(struct pooldb *p)
{
	struct json_object *o = json_object_new_object();
	struct pooldb_status s;

	pooldb_get_status(p, &s);
	put_int(o, "generation", s.generation);
	put_int(o, "index", s.index);
	put_int(o, "queued_bytes", s.queued_bytes);
	put_int(o, "history_bytes", s.history_bytes);
	put_int(o, "resyncs", s.resyncs);
	put_bool(o, "failing", s.failing);
	return o;
}

static struct json_object *settings_json(const struct pool *p)
{
	struct json_object *all = json_object_new_object();
	struct pool_setting s;

	for (size_t i = 0; pool_setting(p, i, &s); i++) {
		struct json_object *o = json_object_new_object();

		put_int(o, "value", (uint64_t)s.value);
		put_int(o, "default", (uint64_t)s.def);
		json_object_object_add(all, s.key, o);
	}
	return all;
}

static void add_foreign(struct json_object *list, const struct record *host)
{
	struct foreign f;

	for (unsigned i = 0; foreign_at(host, i, &f); i++) {
		struct json_object *o = json_object_new_object();

		put_text(o, "host", record_str(host, F_host_uuid));
		put_text(o, "hostname", record_str(host, F_host_hostname));
		put_text(o, "uuid", f.uuid);
		json_object_object_add(o, "domid",
				       json_object_new_int64(f.domid));
		put_text(o, "since", f.since);
		json_object_array_add(list, o);
	}
}

/* Of all hosts, as this member's copy has it; total: also those that a host has
 * not told one by one. */
static void put_foreign(struct json_object *o, const struct store *s)
{
	struct json_object *list = json_object_new_array();
	int64_t total = 0;

	for (struct record *h = store_first(s, CLASS_host); h;
	     h = store_next(s, h)) {
		add_foreign(list, h);
		total += foreign_count(h);
	}
	json_object_object_add(o, "foreign_domains", list);
	put_int(o, "foreign_domains_total", (uint64_t)total);
}

char *status_json(const struct db *db, const struct front *f, struct pooldb *p,
		  const struct pool *pool, uint64_t longest_turn_us)
{
	struct json_object *o = json_object_new_object();
	struct db_status s;
	char *ret;

	db_get_status(db, &s);
	put_id(o, "id", s.id);
	put_id(o, "leader_id", s.leader_id);
	put_bool(o, "is_leader", s.is_leader);
	put_bool(o, "is_serving_leader", s.is_serving_leader);
	put_int(o, "term", s.term);
	put_int(o, "commit_index", s.commit_index);
	put_int(o, "applied_index", s.applied_index);
	put_int(o, "last_index", s.last_index);
	put_int(o, "snapshot_index", s.snapshot_index);
	put_int(o, "generation", store_generation(db_store(db)));
	put_digest(o, store_digest(db_store(db)));
	put_int(o, "disk_free_bytes", s.disk_free_bytes);
	put_int(o, "pending_txns", s.pending_txns);
	put_int(o, "age_ms", (uint64_t)db_age_ms(db));
	if (f)
		put_front(o, f);
	put_int(o, "longest_turn_us", longest_turn_us);
	if (p)
		json_object_object_add(o, "pooldb", pooldb_json(p));
	json_object_object_add(o, "settings", settings_json(pool));
	json_object_object_add(o, "members", members_json(&s));
	put_foreign(o, db_store(db));
	ret = xstrdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
	return ret;
}
