/* What the commands of xenpoolctl share. Each has its file, tools/ctl_*.c. */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

#include "tools/xenapi.h"

/* The options that stand before the command. */
struct ctl_options {
	const char *url, *user, *password;
	bool json;
};
extern struct ctl_options ctl;

/* "xenpoolctl: " and a line end around it, on standard error. Returns 1, the
 * exit status of a failure. */
int ctl_fail(const char *fmt, ...) _printf_(1, 2);

/* A session with the member at ctl.url. */
struct ctl_session {
	struct xenapi_endpoint endpoint; /* x borrows its name */
	struct xenapi x;
	char *session, *host;
};
/* 0, or -1 after a message. */
int ctl_open(struct ctl_session *s);
void ctl_close(struct ctl_session *s);
/* Calls a function of the member's built-in plugin; args is JSON text of a map
 * of strings. The result is parsed JSON, the caller's; NULL after a message. */
struct json_object *ctl_tool(struct ctl_session *s, const char *fn,
			     const char *args);
/* The same for a command that asks for one thing; text: as it came. */
struct json_object *ctl_ask(const char *fn, const char *args);

const char *ctl_text(struct json_object *o, const char *key); /* "" if none */
int64_t ctl_int(struct json_object *o, const char *key);

/* A command's own options: "--name VALUE" or "--name=VALUE" (has_value), or
 * "--name". What is left in argv, the command's name aside, are its operands.
 * -1 after a message; 1: --help was printed. */
struct ctl_option {
	const char *name;
	bool has_value;
	const char **value; /* or a flag: "" when given */
};
int ctl_parse(int *argc, char ***argv, const struct ctl_option *options,
	      const char *help);

int ctl_api(int argc, char **argv);
int ctl_at(int argc, char **argv);
int ctl_backup(int argc, char **argv);
int ctl_check(int argc, char **argv);
int ctl_history(int argc, char **argv);
int ctl_restore(int argc, char **argv);
int ctl_status(int argc, char **argv);

#endif
