/* xenpoolctl check. */
#include <stdio.h>

#include "tools/ctl.h"

static void print(struct json_object *o)
{
	long long findings = ctl_int(o, "findings");

	printf("generation  %lld\ndigest      %s\nobjects     %lld\n"
	       "references  %lld, %lld of them to objects that are gone (the "
	       "API allows it)\n", (long long)ctl_int(o, "generation"),
	       ctl_text(o, "digest"), (long long)ctl_int(o, "objects"),
	       (long long)ctl_int(o, "references"),
	       (long long)ctl_int(o, "dangling"));
	if (findings == 0) {
		puts("nothing found that should not be");
		return;
	}
	printf("%lld findings\n%s", findings, ctl_text(o, "text"));
}

int ctl_check(int argc, char **argv)
{
	static const char help[] =
		"usage: xenpoolctl [OPTIONS] check\n\n"
		"Has the member look over its whole database while it serves: "
		"types, unique\nreferences and uuids, both sides of relations, "
		"indexes, the digest, and whether\npool.db says the same. Exit "
		"status 0: all is well; 3: there are findings.\n";
	const struct ctl_option options[] = { { NULL, false, NULL } };
	int r = ctl_parse(&argc, &argv, options, help);
	struct json_object *o;

	if (r || argc > 0)
		return r > 0 ? 0 : 2;
	o = ctl_ask("check", "{}");
	if (!o)
		return 1;
	if (ctl.json)
		puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	else
		print(o);
	r = ctl_int(o, "findings") ? 3 : 0;
	json_object_put(o);
	return r;
}
