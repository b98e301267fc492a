/* xenpoolctl: what an operator asks a member that the API has no call for. */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/ctl.h"

static const struct {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "status", "the members, their roles and indexes, as this one sees "
	  "them", ctl_status },
	{ "check", "find out whether the member's database is in order",
	  ctl_check },
	{ "history", "who changed an object, when, from what to what",
	  ctl_history },
	{ "at", "what an object was at some time", ctl_at },
	{ "backup", "copy the pool's whole database into a file", ctl_backup },
	{ "restore", "begin a pool anew from a backup (no daemon running)",
	  ctl_restore },
	{ "api", "counts of the API's parts; --missing: messages not built yet",
	  ctl_api },
};

static void print_help(FILE *f)
{
	fprintf(f, "usage: xenpoolctl [OPTIONS] COMMAND\n\nCommands (each has "
		"--help)\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(f, "\nOptions\n"
		"  --url=URL        member to ask: unix:PATH, http://HOST[:PORT] or\n"
		"                   https://HOST[:PORT] (%s)\n"
		"  --user=NAME      (root)\n"
		"  --password=TEXT  or environment variable XENPOOL_PASSWORD; not\n"
		"                   needed by root on the Unix socket\n"
		"  --json           machine-readable output\n"
		"  --help, --version\n", ctl.url);
}

enum { OPT_URL = 256, OPT_USER, OPT_PASSWORD, OPT_JSON, OPT_HELP, OPT_VERSION };

static const struct option longs[] = {
	{ "url", 1, NULL, OPT_URL }, { "user", 1, NULL, OPT_USER },
	{ "password", 1, NULL, OPT_PASSWORD }, { "json", 0, NULL, OPT_JSON },
	{ "help", 0, NULL, OPT_HELP }, { "version", 0, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int run(int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(argv[0], commands[i].name))
			return commands[i].run(argc, argv);
	fprintf(stderr, "xenpoolctl: unknown command \"%s\"\n\n", argv[0]);
	print_help(stderr);
	return 2;
}

int main(int argc, char **argv)
{
	int c;

	if (getenv("XENPOOL_PASSWORD"))
		ctl.password = getenv("XENPOOL_PASSWORD");
	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (c) {
		case OPT_URL: ctl.url = optarg; break;
		case OPT_USER: ctl.user = optarg; break;
		case OPT_PASSWORD: ctl.password = optarg; break;
		case OPT_JSON: ctl.json = true; break;
		case OPT_HELP: print_help(stdout); return 0;
		case OPT_VERSION:
			printf("xenpoolctl %s\n", PACKAGE_VERSION);
			return 0;
		default: return 2;
		}
	}
	if (optind < argc)
		return run(argc - optind, argv + optind);
	print_help(stderr);
	return 2;
}
