#include "config.h"
#include "pool/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum option_kind { OPTION_TEXT, OPTION_NUMBER };

struct option_def {
	const char *name;
	enum option_kind kind;
	size_t offset;
	const char *text; /* default of a text option */
	unsigned number, max;
	const char *arg, *help;
};

#define TEXT(n, field, def, arg, help) \
	{ n, OPTION_TEXT, offsetof(struct options, field), def, 0, 0, arg, help }
#define NUMBER(n, field, def, max, help) \
	{ n, OPTION_NUMBER, offsetof(struct options, field), NULL, def, max, "N", help }

static const struct option_def defs[] = {
	TEXT("data-dir", data_dir, "/var/lib/xenpool", "DIR",
	     "where everything that this member keeps is stored"),
	TEXT("image-dir", image_dir, NULL, "DIR",
	     "where this host's executor keeps the memory of suspended VMs, one "
	     "of its own --image-dir (default: DATA-DIR/images)"),
	TEXT("address", address, "127.0.0.1", "IP",
	     "address to serve clients and other members on"),
	TEXT("hostname", hostname, NULL, "NAME",
	     "name of the host's record at its first start"),
	NUMBER("https-port", https_port, 443, 65535, "XenAPI over TLS; 0: off"),
	NUMBER("http-port", http_port, 80, 65535,
	       "plain XenAPI, loopback addresses only; 0: off"),
	NUMBER("peer-port", peer_port, 7443, 65535,
	       "mutual TLS between members"),
	TEXT("executor-socket", executor_socket, "/run/xenpool/executor.sock",
	     "PATH", "socket of this host's xenpool-executor"),
	TEXT("unix-socket", unix_socket, NULL, "PATH",
	     "plain XenAPI on a Unix socket (default: DATA-DIR/xapi)"),
	TEXT("www-dir", www_dir, NULL, "DIR", "static files for GET"),
	TEXT("root-password-file", root_password_file, NULL, "FILE",
	     "first line: root's password, used when the pool is created "
	     "(default: a random one, written to DATA-DIR/root-password)"),
	NUMBER("front-threads", front_threads, 0, 64,
	       "threads that serve clients; 0: one for two cores"),
	NUMBER("election-timeout", election_timeout_ms, 150, 60000,
	       "Raft election timeout in ms"),
	NUMBER("heartbeat", heartbeat_ms, 15, 10000, "Raft heartbeat in ms"),
	NUMBER("snapshot-threshold", snapshot_threshold, 8192, 10000000,
	       "log entries between snapshots"),
	NUMBER("min-free-mib", min_free_mib, 64, 1000000,
	       "free disk space below which this member stops leading"),
	NUMBER("login-delay", login_delay_ms, 5000, 60000,
	       "ms to wait before a wrong password is answered"),
	NUMBER("host-dead-after", host_dead_after_ms, 20000, 3600000,
	       "ms of silence after which a host counts as not live"),
	NUMBER("restart-gap", restart_gap_s, 15, 3600,
	       "seconds from a VM's start to its next one when its guest "
	       "reboots or crashes by itself"),
	NUMBER("max-body-kib", max_body_kib, 4096, 262144,
	       "largest request body in KiB"),
	NUMBER("history-days", history_days, 30, 36500,
	       "age of the oldest changes in pool.db's history; 0: keep none"),
	NUMBER("history-mib", history_mib, 256, 1048576,
	       "size of the history in MiB; 0: keep none"),
	TEXT("log-level", log_level, "info", "LEVEL",
	     "error, warn, info or debug"),
};

static void option_free(struct options *o, const struct option_def *d)
{
	if (d->kind == OPTION_TEXT)
		free(*(char **)((char *)o + d->offset));
}

static int option_set(struct options *o, const struct option_def *d,
		      const char *value, const char *where)
{
	void *field = (char *)o + d->offset;
	unsigned long n;
	char *end;

	if (d->kind == OPTION_TEXT) {
		free(*(char **)field);
		*(char **)field = xstrdup(value);
		return 0;
	}
	errno = 0;
	n = strtoul(value, &end, 10);
	if (errno || end == value || *end || *value == '-' || n > d->max) {
		fprintf(stderr,
			"xenpoold: %s: %s must be a number from 0 to %u, not \"%s\"\n",
			where, d->name, d->max, value);
		return -1;
	}
	*(unsigned *)field = (unsigned)n;
	return 0;
}

static char *strip(char *s)
{
	char *end;

	s += strspn(s, " \t");
	end = s + strlen(s);
	while (end > s && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	return s;
}

static int parse_line(struct options *o, char *line, const char *where)
{
	char *text = strip(line), *eq, *name;

	if (!*text || *text == '#')
		return 0;
	eq = strchr(text, '=');
	if (eq) {
		*eq = '\0';
		name = strip(text);
		for (size_t i = 0; i < ARRAY_LEN(defs); i++)
			if (!strcmp(defs[i].name, name))
				return option_set(o, &defs[i], strip(eq + 1),
						  where);
	}
	fprintf(stderr,
		"xenpoold: %s: want a line `name = value` with the name of an "
		"option (see --help)\n", where);
	return -1;
}

static int parse_file(struct options *o, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[4096], where[PATH_MAX + 32];
	int r = 0;

	if (!f) {
		fprintf(stderr, "xenpoold: cannot read %s: %s\n", path,
			strerror(errno));
		return -1;
	}
	for (unsigned n = 1; r == 0 && fgets(line, sizeof line, f); n++) {
		snprintf(where, sizeof where, "%s:%u", path, n);
		r = parse_line(o, line, where);
	}
	fclose(f);
	return r;
}

static void print_help(void)
{
	printf("usage: xenpoold [OPTIONS]\n\n"
	       "The toolstack of a pool of Xen hosts: one such daemon a host.\n\n"
	       "  --config=FILE              options as lines `name = value`\n");
	for (size_t i = 0; i < ARRAY_LEN(defs); i++) {
		const struct option_def *d = &defs[i];
		char left[64];

		snprintf(left, sizeof left, "--%s=%s", d->name, d->arg);
		printf("  %-26s %s", left, d->help);
		if (d->kind == OPTION_NUMBER)
			printf(" (%u)", d->number);
		else if (d->text)
			printf(" (%s)", d->text);
		putchar('\n');
	}
	printf("  --help, --version\n");
}

enum { OPT_CONFIG = 1000, OPT_HELP, OPT_VERSION };

static int parse_argv(struct options *o, int argc, char **argv, bool config_only)
{
	struct option longs[ARRAY_LEN(defs) + 4] = { { 0 } };
	int c, r = 0;

	for (size_t i = 0; i < ARRAY_LEN(defs); i++)
		longs[i] = (struct option){ defs[i].name, required_argument,
					    NULL, (int)i };
	longs[ARRAY_LEN(defs)] =
		(struct option){ "config", required_argument, NULL, OPT_CONFIG };
	longs[ARRAY_LEN(defs) + 1] =
		(struct option){ "help", no_argument, NULL, OPT_HELP };
	longs[ARRAY_LEN(defs) + 2] =
		(struct option){ "version", no_argument, NULL, OPT_VERSION };
	optind = 1;
	while (r == 0 && (c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == '?')
			return -1;
		if (c == OPT_HELP) {
			print_help();
			return 1;
		}
		if (c == OPT_VERSION) {
			printf("xenpoold %s\n", PACKAGE_VERSION);
			return 1;
		}
		if (c == OPT_CONFIG)
			r = config_only ? parse_file(o, optarg) : 0;
		else if (!config_only)
			r = option_set(o, &defs[c], optarg, "command line");
	}
	if (r == 0 && optind < argc) {
		fprintf(stderr, "xenpoold: unexpected argument \"%s\" (see --help)\n",
			argv[optind]);
		return -1;
	}
	return r;
}

/* A follower must miss several heartbeats before it stands for election: with
 * fewer, one late message unseats the master. */
static int check_timeouts(const struct options *o)
{
	if (o->heartbeat_ms > 0 &&
	    o->heartbeat_ms <= o->election_timeout_ms / 3)
		return 0;
	fprintf(stderr,
		"xenpoold: heartbeat must be from 1 to a third of "
		"election-timeout, so not %u with one of %u (ms)\n",
		o->heartbeat_ms, o->election_timeout_ms);
	return -1;
}

int options_parse(struct options *o, int argc, char **argv)
{
	int r;

	memset(o, 0, sizeof *o);
	for (size_t i = 0; i < ARRAY_LEN(defs); i++) {
		void *field = (char *)o + defs[i].offset;

		if (defs[i].kind == OPTION_NUMBER)
			*(unsigned *)field = defs[i].number;
		else if (defs[i].text)
			*(char **)field = xstrdup(defs[i].text);
	}
	r = parse_argv(o, argc, argv, true);
	if (r == 0)
		r = parse_argv(o, argc, argv, false);
	if (r == 0)
		r = check_timeouts(o);
	if (r == 0 && !o->unix_socket)
		o->unix_socket = xasprintf("%s/xapi", o->data_dir);
	return r;
}

void options_free(struct options *o)
{
	for (size_t i = 0; i < ARRAY_LEN(defs); i++)
		option_free(o, &defs[i]);
}
