/* xenpoolctl status. */
#include <stdio.h>
#include <string.h>

#include "tools/ctl.h"

/* How we are with a member. */
static const char *link_text(struct json_object *m, bool here)
{
	if (here)
		return "this member";
	if (!json_object_get_boolean(json_object_object_get(m, "connected")))
		return "NOT REACHED";
	if (json_object_get_boolean(json_object_object_get(m, "lost")))
		return "REBUILDING";
	return "connected";
}

/* lag: entries that are committed and that it had not applied when it was last
 * heard. */
static void print_member(struct json_object *m, const char *self,
			 const char *leader, long long committed)
{
	const char *id = ctl_text(m, "id");
	long long lag = committed - (long long)ctl_int(m, "applied_index");

	printf("  %-22s %-8s %-7s %-12s applied %-10s lag %-6lld digest %.16s\n",
	       ctl_text(m, "address"), ctl_text(m, "role"),
	       !strcmp(id, leader) ? "master" : "",
	       link_text(m, !strcmp(id, self)), ctl_text(m, "applied_index"),
	       lag > 0 ? lag : 0, ctl_text(m, "digest"));
}

static void print_pooldb(struct json_object *o)
{
	if (!o)
		return;
	printf("pool.db     generation %lld, %lld MiB of history%s\n",
	       (long long)ctl_int(o, "generation"),
	       (long long)ctl_int(o, "history_bytes") >> 20,
	       json_object_get_boolean(json_object_object_get(o, "failing")) ?
		       "; CANNOT BE WRITTEN, see the log" : "");
}

/* How many vote, and for how long a silent one keeps its seat. An older member
 * does not tell. */
static void print_settings(struct json_object *all)
{
	const char *before = "settings    ";

	if (!all)
		return;
	json_object_object_foreach(all, key, o) {
		long long value = (long long)ctl_int(o, "value");
		long long def = (long long)ctl_int(o, "default");

		printf("%s%s %lld (default", before, key, value);
		if (value != def)
			printf(" %lld", def);
		puts(")");
		before = "            ";
	}
}

/* Domains that are no VMs of their host. */
static void print_foreign(struct json_object *o)
{
	struct json_object *list = json_object_object_get(o, "foreign_domains");
	size_t n = list ? json_object_array_length(list) : 0;
	long long more = (long long)ctl_int(o, "foreign_domains_total") -
			 (long long)n;

	if (n == 0)
		return;
	puts("FOREIGN DOMAINS (no VMs of their host; see docs/operations.md)");
	for (size_t i = 0; i < n; i++) {
		struct json_object *d = json_object_array_get_idx(list, i);

		printf("  %-22s domid %-5lld uuid %s since %s\n",
		       ctl_text(d, "hostname"), (long long)ctl_int(d, "domid"),
		       ctl_text(d, "uuid"), ctl_text(d, "since"));
	}
	if (more > 0)
		printf("  and %lld more\n", more);
}

static void print_status(struct json_object *o)
{
	struct json_object *list = json_object_object_get(o, "members");
	const char *leader = ctl_text(o, "leader_id");

	printf("master      %s\n", strcmp(leader, "0") ? leader :
	       "none: fewer than half of the voters are reachable");
	printf("term        %s\nindexes     last %s, committed %s, applied %s, "
	       "snapshot %s\n", ctl_text(o, "term"), ctl_text(o, "last_index"),
	       ctl_text(o, "commit_index"), ctl_text(o, "applied_index"),
	       ctl_text(o, "snapshot_index"));
	printf("generation  %s\ndigest      %s\ndisk free   %lld MiB\n",
	       ctl_text(o, "generation"), ctl_text(o, "digest"),
	       (long long)ctl_int(o, "disk_free_bytes") >> 20);
	print_pooldb(json_object_object_get(o, "pooldb"));
	print_settings(json_object_object_get(o, "settings"));
	puts("members");
	for (size_t i = 0; i < json_object_array_length(list); i++)
		print_member(json_object_array_get_idx(list, i),
			     ctl_text(o, "id"), leader,
			     (long long)ctl_int(o, "commit_index"));
	print_foreign(o);
}

int ctl_status(int argc, char **argv)
{
	static const char help[] =
		"usage: xenpoolctl [OPTIONS] status\n\n"
		"The members, their roles and indexes, the settings of "
		"membership, and domains that\nare no VMs of their host, as the "
		"member that is asked sees them.\n";
	const struct ctl_option options[] = { { NULL, false, NULL } };
	int r = ctl_parse(&argc, &argv, options, help);
	struct json_object *o;

	if (r || argc > 0)
		return r > 0 ? 0 : 2;
	o = ctl_ask("status", "{}");
	if (!o)
		return 1;
	if (ctl.json)
		puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	else
		print_status(o);
	json_object_put(o);
	return 0;
}
