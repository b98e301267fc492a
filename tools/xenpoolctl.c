/* xenpoolctl: what an operator asks a member that the API has no call for. */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "pool/pool.h"
#include "tools/xenapi.h"

static const char *url = "unix:/var/lib/xenpool/xapi";
static const char *user = "root", *password = "";
static bool json_output;

/* ---- api: what the tables say, without a daemon ---- */

static bool is_public(const struct method_def *m)
{
	return !(schema_classes[m->cls].flags & CLASS_PRIVATE);
}

static int print_missing(void)
{
	const char *name;
	size_t n = 0;

	for (; (name = pool_missing_message(n)); n++)
		puts(name);
	fprintf(stderr, "%zu messages answer NOT_IMPLEMENTED\n", n);
	return 0;
}

static int print_counts(void)
{
	unsigned classes = 0, fields = 0, custom = 0, generated = 0, async = 0;
	size_t missing = 0;

	for (unsigned i = 0; i < schema_n_classes; i++) {
		if (schema_classes[i].flags & CLASS_PRIVATE)
			continue;
		classes++;
		fields += schema_classes[i].n_fields;
	}
	for (unsigned i = 0; i < schema_n_methods; i++) {
		const struct method_def *m = &schema_methods[i];

		if (!is_public(m))
			continue;
		*(m->kind == METHOD_CUSTOM ? &custom : &generated) += 1;
		async += !!(m->flags & METHOD_ASYNC);
	}
	while (pool_missing_message(missing))
		missing++;
	printf("classes             %u\nfields              %u\n"
	       "generated messages  %u\ncustom messages     %u\n"
	       "  not built yet     %zu (--missing lists them)\n"
	       "asynchronous forms  %u\n",
	       classes, fields, generated, custom, missing, async);
	return 0;
}

static int cmd_api(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--missing"))
		return print_missing();
	if (argc > 1) {
		fprintf(stderr, "usage: xenpoolctl api [--missing]\n");
		return 2;
	}
	return print_counts();
}

/* ---- status ---- */

static int open_session(struct xenapi *x, char **ret_session)
{
	const char *login[] = { user, password, "2.23", "xenpoolctl" };
	struct xenapi_endpoint e;
	int r = xenapi_parse_url(url, &e);

	if (r < 0) {
		fprintf(stderr, "xenpoolctl: not a URL that I can use: %s\n", url);
		return r;
	}
	r = xenapi_open(x, &e, 30);
	if (r < 0) {
		fprintf(stderr, "xenpoolctl: cannot connect to %s: %s. Is "
			"xenpoold running? --url names another member.\n",
			url, strerror(-r));
		return r;
	}
	*ret_session = xenapi_call_text(x, "session.login_with_password", login, 4);
	if (*ret_session)
		return 0;
	fprintf(stderr, "xenpoolctl: login refused: %s\n", x->error);
	return -1;
}

static const char *text_of(struct json_object *o, const char *key)
{
	return json_object_get_string(json_object_object_get(o, key));
}

static void print_member(struct json_object *m, const char *self,
			 const char *leader)
{
	const char *id = text_of(m, "id");
	bool here = !strcmp(id, self);

	printf("  %-22s %-8s %-7s %-12s applied %-10s digest %.16s\n",
	       text_of(m, "address"), text_of(m, "role"),
	       !strcmp(id, leader) ? "master" : "",
	       here ? "this member" :
	       json_object_get_boolean(json_object_object_get(m, "connected")) ?
		      "connected" : "NOT REACHED",
	       text_of(m, "applied_index"), text_of(m, "digest"));
}

static void print_status(const char *text)
{
	struct json_object *o = json_tokener_parse(text), *list;
	const char *leader = text_of(o, "leader_id");

	list = json_object_object_get(o, "members");
	printf("master      %s\n", strcmp(leader, "0") ? leader :
	       "none: fewer than half of the voters are reachable");
	printf("term        %s\nindexes     last %s, committed %s, applied %s, "
	       "snapshot %s\n", text_of(o, "term"), text_of(o, "last_index"),
	       text_of(o, "commit_index"), text_of(o, "applied_index"),
	       text_of(o, "snapshot_index"));
	printf("generation  %s\ndigest      %s\ndisk free   %lld MiB\nmembers\n",
	       text_of(o, "generation"), text_of(o, "digest"),
	       (long long)json_object_get_int64(
		       json_object_object_get(o, "disk_free_bytes")) >> 20);
	for (size_t i = 0; i < json_object_array_length(list); i++)
		print_member(json_object_array_get_idx(list, i), text_of(o, "id"),
			     leader);
	json_object_put(o);
}

static int cmd_status(int argc, char **argv)
{
	struct xenapi x = XENAPI_INIT;
	char *session = NULL, *host, *text = NULL;
	int r = 1;

	if (open_session(&x, &session) < 0)
		return 1;
	host = xenapi_call_text(&x, "session.get_this_host",
				(const char *[]){ session, session }, 2);
	if (host)
		text = xenapi_call_text(&x, "host.call_plugin",
					(const char *[]){ session, host, "xenpool",
							  "status", "{}" }, 5);
	if (text) {
		if (json_output)
			puts(text);
		else
			print_status(text);
		r = 0;
	} else {
		fprintf(stderr, "xenpoolctl: %s\n", x.error);
	}
	json_object_put(xenapi_call(&x, "session.logout",
				    (const char *[]){ session }, 1));
	free(session);
	free(host);
	free(text);
	xenapi_close(&x);
	return r;
}

/* ---- command line ---- */

static const struct {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "status", "the members, their roles and indexes, as this one sees them",
	  cmd_status },
	{ "api", "counts of the API's parts; --missing: messages not built yet",
	  cmd_api },
};

static void print_help(FILE *f)
{
	fprintf(f, "usage: xenpoolctl [OPTIONS] COMMAND\n\nCommands\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(f, "\nOptions\n"
		"  --url=URL        member to ask: unix:PATH, http://HOST[:PORT] or\n"
		"                   https://HOST[:PORT] (%s)\n"
		"  --user=NAME      (root)\n"
		"  --password=TEXT  or environment variable XENPOOL_PASSWORD; not\n"
		"                   needed by root on the Unix socket\n"
		"  --json           machine-readable output\n"
		"  --help, --version\n", url);
}

enum { OPT_URL = 256, OPT_USER, OPT_PASSWORD, OPT_JSON, OPT_HELP, OPT_VERSION };

static const struct option longs[] = {
	{ "url", 1, NULL, OPT_URL }, { "user", 1, NULL, OPT_USER },
	{ "password", 1, NULL, OPT_PASSWORD }, { "json", 0, NULL, OPT_JSON },
	{ "help", 0, NULL, OPT_HELP }, { "version", 0, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	int c;

	if (getenv("XENPOOL_PASSWORD"))
		password = getenv("XENPOOL_PASSWORD");
	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (c) {
		case OPT_URL: url = optarg; break;
		case OPT_USER: user = optarg; break;
		case OPT_PASSWORD: password = optarg; break;
		case OPT_JSON: json_output = true; break;
		case OPT_HELP: print_help(stdout); return 0;
		case OPT_VERSION: printf("xenpoolctl %s\n", PACKAGE_VERSION); return 0;
		default: return 2;
		}
	}
	for (size_t i = 0; optind < argc && i < ARRAY_LEN(commands); i++)
		if (!strcmp(argv[optind], commands[i].name))
			return commands[i].run(argc - optind, argv + optind);
	if (optind < argc)
		fprintf(stderr, "xenpoolctl: unknown command \"%s\"\n\n", argv[optind]);
	print_help(stderr);
	return 2;
}
