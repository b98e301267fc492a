#include "tools/ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct ctl_options ctl = { "unix:/var/lib/xenpool/xapi", "root", "", false };

int ctl_fail(const char *fmt, ...)
{
	va_list ap;

	fputs("xenpoolctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

/* ---- a session ---- */

/* Two of the codes say more of the member than of the login. */
static void tell_refusal(const char *error)
{
	if (strstr(error, "HOST_UNKNOWN_TO_MASTER"))
		ctl_fail("%s was removed from its pool and keeps a copy that "
			 "nobody goes on with. Its log says why; docs/operations"
			 ".md says how it can join again. Ask another member.",
			 ctl.url);
	else if (strstr(error, "HOST_STILL_BOOTING"))
		ctl_fail("%s is being rebuilt from the other members; try again "
			 "in a moment (its log says why)", ctl.url);
	else
		ctl_fail("login refused: %s", error);
}

int ctl_open(struct ctl_session *s)
{
	const char *login[] = { ctl.user, ctl.password, "2.23", "xenpoolctl" };
	int r;

	*s = (struct ctl_session){ .x = XENAPI_INIT };
	r = xenapi_parse_url(ctl.url, &s->endpoint);
	if (r < 0) {
		ctl_fail("not a URL that I can use: %s", ctl.url);
		return -1;
	}
	r = xenapi_open(&s->x, &s->endpoint, 300);
	if (r < 0) {
		ctl_fail("cannot connect to %s: %s. Is xenpoold running? --url "
			 "names another member.", ctl.url, strerror(-r));
		return -1;
	}
	s->session = xenapi_call_text(&s->x, "session.login_with_password",
				      login, 4);
	if (!s->session) {
		tell_refusal(s->x.error);
		xenapi_close(&s->x);
		return -1;
	}
	s->host = xenapi_call_text(&s->x, "session.get_this_host",
				   (const char *[]){ s->session, s->session },
				   2);
	if (s->host)
		return 0;
	ctl_fail("%s", s->x.error);
	ctl_close(s);
	return -1;
}

void ctl_close(struct ctl_session *s)
{
	json_object_put(xenapi_call(&s->x, "session.logout",
				    (const char *[]){ s->session }, 1));
	free(s->session);
	free(s->host);
	xenapi_close(&s->x);
}

/* What the member said for people, if it is an error of the plugin. */
static void tell_error(const char *fn, const char *error)
{
	const char *list = strchr(error, '[');
	struct json_object *o = list && strstr(error, "PLUGIN_FAILURE") ?
		json_tokener_parse(list) : NULL;

	if (json_object_is_type(o, json_type_array))
		ctl_fail("%s: %s", fn, json_object_get_string(
				 json_object_array_get_idx(o, 1)));
	else
		ctl_fail("%s: %s", fn, error);
	json_object_put(o);
}

struct json_object *ctl_tool(struct ctl_session *s, const char *fn,
			     const char *args)
{
	char *text = xenapi_call_text(&s->x, "host.call_plugin",
				      (const char *[]){ s->session, s->host,
							"xenpool", fn, args },
				      5);
	struct json_object *o = text ? json_tokener_parse(text) : NULL;

	if (!text)
		tell_error(fn, s->x.error);
	else if (!o)
		ctl_fail("%s: the member's answer is no JSON", fn);
	free(text);
	return o;
}

struct json_object *ctl_ask(const char *fn, const char *args)
{
	struct ctl_session s;
	struct json_object *o;

	if (ctl_open(&s) < 0)
		return NULL;
	o = ctl_tool(&s, fn, args);
	ctl_close(&s);
	return o;
}

const char *ctl_text(struct json_object *o, const char *key)
{
	struct json_object *v = json_object_object_get(o, key);

	return v ? json_object_get_string(v) : "";
}

int64_t ctl_int(struct json_object *o, const char *key)
{
	return json_object_get_int64(json_object_object_get(o, key));
}

/* ---- options of a command ---- */

static const struct ctl_option *find(const struct ctl_option *options,
				     const char *arg, const char **ret_value)
{
	size_t n = strcspn(arg + 2, "=");

	*ret_value = arg[2 + n] ? arg + 2 + n + 1 : NULL;
	for (; options->name; options++)
		if (str_equal_n(options->name, arg + 2, n))
			return options;
	return NULL;
}

static int bad_option(const char *command, const char *arg, const char *why)
{
	ctl_fail("%s: %s %s (see xenpoolctl %s --help)", command, arg, why,
		 command);
	return -1;
}

int ctl_parse(int *argc, char ***argv, const struct ctl_option *options,
	      const char *help)
{
	const char *command = (*argv)[0];
	int n = 0;

	for (int i = 1; i < *argc; i++) {
		char *arg = (*argv)[i];
		const struct ctl_option *o;
		const char *value;

		if (!strcmp(arg, "--help")) {
			fputs(help, stdout);
			return 1;
		}
		if (strncmp(arg, "--", 2) != 0) {
			(*argv)[n++] = arg;
			continue;
		}
		o = find(options, arg, &value);
		if (!o)
			return bad_option(command, arg, "is no option");
		if (o->has_value && !value && i + 1 < *argc)
			value = (*argv)[++i];
		if (o->has_value != (value != NULL))
			return bad_option(command, arg, o->has_value ?
					  "needs a value" : "takes no value");
		*o->value = value ? value : "";
	}
	*argc = n;
	return 0;
}
