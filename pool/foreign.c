#include "pool/foreign.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "pool/vm.h"

#define COUNT_KEY "foreign_domains"
#define DOMAIN_KEY "foreign_domain:"

static bool has_prefix(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static bool is_ours(const char *key)
{
	return !strcmp(key, COUNT_KEY) || has_prefix(key, DOMAIN_KEY);
}

/* ---- reading ---- */

bool foreign_at(const struct record *host, unsigned n, struct foreign *ret)
{
	const struct value *map = host->fields[F_host_other_config];

	for (uint32_t i = 0; i < map->n; i++) {
		const char *key = value_str(map->items[2 * i]);

		if (!has_prefix(key, DOMAIN_KEY) || n-- > 0)
			continue;
		*ret = (struct foreign){ .uuid = key + strlen(DOMAIN_KEY) };
		sscanf(value_str(map->items[2 * i + 1]),
		       "domid %" SCNd64 " since %18s", &ret->domid, ret->since);
		return true;
	}
	return false;
}

int64_t foreign_count(const struct record *host)
{
	const char *text = value_get_str(host->fields[F_host_other_config],
					 COUNT_KEY);
	int64_t n;

	return int_parse(text, strlen(text), &n) ? n : 0;
}

/* ---- writing ---- */

/* What the row's other_config ought to be. */
struct wanted {
	const struct value *old; /* borrowed */
	struct value **pairs;
	size_t n;                /* pairs */
	unsigned keys;           /* of domains */
	struct buf news;         /* "domid 7, uuid ...; " of those without a key */
};

static void want(struct wanted *w, const char *key, struct value *takes_v)
{
	w->pairs[2 * w->n] = value_stringz(key);
	w->pairs[2 * w->n + 1] = takes_v;
	w->n++;
}

static bool is_wanted(const struct wanted *w, const char *key)
{
	for (size_t i = 0; i < w->n; i++)
		if (value_is_str(w->pairs[2 * i], key))
			return true;
	return false;
}

static void want_others(struct wanted *w)
{
	for (uint32_t i = 0; i < w->old->n; i++)
		if (!is_ours(value_str(w->old->items[2 * i])))
			want(w, value_str(w->old->items[2 * i]),
			     value_ref(w->old->items[2 * i + 1]));
}

static void want_domain(struct wanted *w, const struct value *dom, bool known)
{
	const char *uuid = value_get_str(dom, "vm");
	long long domid = value_get_int(dom, "domid", -1);
	char key[sizeof DOMAIN_KEY + UUID_LEN], date[DATE_LEN + 1], text[32];
	struct value *old;

	snprintf(key, sizeof key, DOMAIN_KEY "%.36s", uuid);
	snprintf(text, sizeof text, "domid %lld ", domid);
	old = value_get(w->old, key);
	if (w->keys == FOREIGN_MAX || !uuid_valid(uuid, strlen(uuid)) ||
	    known != (old && has_prefix(value_str(old), text)) ||
	    is_wanted(w, key))
		return;
	w->keys++;
	if (known) {
		want(w, key, value_ref(old));
		return;
	}
	date_format(env_wall_ms() / 1000, date);
	want(w, key, value_printf("%ssince %s", text, date));
	buf_printf(&w->news, "%sdomid %lld, uuid %s", w->news.len ? "; " : "",
		   domid, uuid);
}

/* Those that have a key keep it, whatever else comes. */
static void want_domains(struct wanted *w, const struct value *domains)
{
	for (uint32_t i = 0; i < domains->n; i++)
		want_domain(w, domains->items[i], true);
	for (uint32_t i = 0; i < domains->n; i++)
		want_domain(w, domains->items[i], false);
	if (domains->n > 0)
		want(w, COUNT_KEY, value_printf("%" PRIu32, domains->n));
}

/* What did not happen needs no rest: the next state tries again. */
static void on_written(void *data, int error, struct txn_result result)
{
	struct pool *p = data;

	if (p->hosts && (error < 0 || result.status != TXN_OK))
		p->hosts->foreign_due_ms = 0;
}

static void write_row(struct pool *p, struct record *me, struct value *map,
		      const char *news)
{
	struct txn *t = txn_new("host");
	_cleanup_(freep) char *body =
		xasprintf("Domains that are no VMs of this host: %s", news);
	struct draft d;

	draft_edit(&d, t, me);
	draft_set(&d, F_host_other_config, map);
	draft_write_host(&d, true);
	if (*news) {
		log_warn("domains that are no VMs of this host are left alone: "
			 "%s", news);
		message_create(t, "FOREIGN_DOMAIN", 3, "Host",
			       p->cfg.host_uuid, body);
	}
	p->hosts->foreign_due_ms = env_mono_ms() + FOREIGN_EVERY_MS;
	pool_submit(p, t, on_written, p);
}

bool foreign_note(struct pool *p, const struct value *domains, bool act)
{
	struct record *me = pool_this_host(p);
	struct wanted w = { .old = me->fields[F_host_other_config] };
	struct value *map;
	bool differs;

	if (env_mono_ms() < p->hosts->foreign_due_ms)
		return false;
	w.pairs = xcalloc(2 * (w.old->n + FOREIGN_MAX + 1), sizeof *w.pairs);
	want_others(&w);
	want_domains(&w, domains);
	map = value_map_from(w.pairs, w.n);
	differs = !value_equal(map, w.old);
	if (differs && act)
		write_row(p, me, value_ref(map), w.news.len ? buf_cstr(&w.news) : "");
	value_unref(map);
	buf_deinit(&w.news);
	free(w.pairs);
	return differs;
}
