/* xenpoolctl history, at: of a member, or of the pool.db of a folder. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "raftdb/history.h"
#include "raftdb/pooldb.h"
#include "tools/ctl.h"

static const char history_help[] =
	"usage: xenpoolctl [OPTIONS] history CLASS UUID [--field NAME] "
	"[--data-dir DIR]\n\n"
	"Who changed the object, when, and from what to what; oldest first. "
	"CLASS is as in\nthe API (VM, host, VM_metrics), UUID the object's, or "
	"its reference if the class\nhas no uuids.\n"
	"  --field NAME     changes of this field only\n"
	"  --data-dir DIR   read the pool.db in a member's folder, no daemon "
	"needed\n";
static const char at_help[] =
	"usage: xenpoolctl [OPTIONS] at WHEN CLASS UUID [--data-dir DIR]\n\n"
	"What the object was: its fields as text. WHEN is a time "
	"(2026-05-01T12:00:00, UTC\nunless it has a zone), #N: generation N, or "
	"@N: log index N.\n"
	"  --data-dir DIR   read the pool.db in a member's folder, no daemon "
	"needed\n";

static void print_time(int64_t ms)
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;
	char text[40];

	gmtime_r(&t, &tm);
	strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
	printf("%sZ", text);
}

static void print_quoted(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", stdout);
		else
			putchar(*text);
	}
	putchar('"');
}

static void print_row(struct json_object *o)
{
	const char *field = ctl_text(o, "field");
	struct json_object *old = json_object_object_get(o, "old");
	struct json_object *new = json_object_object_get(o, "new");

	print_time(ctl_int(o, "time"));
	printf("  #%-8lld %-12s ", (long long)ctl_int(o, "generation"),
	       *ctl_text(o, "author") ? ctl_text(o, "author") : "-");
	if (*field == '_') {
		puts(field + 1);
		return;
	}
	printf("%s ", field);
	if (old)
		print_quoted(json_object_get_string(old));
	fputs(old && new ? " -> " : new ? "= " : " (at its end)", stdout);
	if (new)
		print_quoted(json_object_get_string(new));
	putchar('\n');
}

static int print_history(struct json_object *o)
{
	struct json_object *rows = json_object_object_get(o, "rows");
	size_t n = json_object_array_length(rows);

	if (json_object_get_boolean(json_object_object_get(o, "more")))
		fprintf(stderr, "only the newest %zu changes are shown\n", n);
	for (size_t i = 0; i < n; i++)
		print_row(json_object_array_get_idx(rows, i));
	if (n > 0)
		return 0;
	return ctl_fail("nothing is recorded of this object: is the uuid right? "
			"Has it not changed for longer than the history goes "
			"back?");
}

/* Prints and frees o; exit status. */
static int show(struct json_object *o, int (*print)(struct json_object *))
{
	int r = 1;

	if (!o)
		return 1;
	if (ctl.json) {
		puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
		r = 0;
	} else {
		r = print(o);
	}
	json_object_put(o);
	return r;
}

static struct json_object *parse_taken(int error, char *text, const char *why)
{
	struct json_object *o = NULL;

	if (error < 0)
		ctl_fail("%s", why);
	else
		o = json_tokener_parse(text);
	free(text);
	return o;
}

static char *args_text(const char *const pairs[][2], size_t n)
{
	struct json_object *o = json_object_new_object();
	char *ret;

	for (size_t i = 0; i < n; i++)
		if (pairs[i][1])
			json_object_object_add(o, pairs[i][0],
					       json_object_new_string(
						       pairs[i][1]));
	ret = xstrdup(json_object_to_json_string(o));
	json_object_put(o);
	return ret;
}

int ctl_history(int argc, char **argv)
{
	const char *field = NULL, *dir = NULL;
	const struct ctl_option options[] = {
		{ "field", true, &field }, { "data-dir", true, &dir },
		{ NULL, false, NULL },
	};
	int r = ctl_parse(&argc, &argv, options, history_help);
	_cleanup_(freep) char *path = NULL, *args = NULL;
	char why[400], *text = NULL;

	if (r || argc != 2) {
		if (r == 0)
			fputs(history_help, stderr);
		return r > 0 ? 0 : 2;
	}
	if (dir) {
		path = pooldb_path(dir);
		r = history_rows(path, argv[0], argv[1], field, HISTORY_ROWS_MAX,
				 &text, why, sizeof why);
		return show(parse_taken(r, text, why), print_history);
	}
	args = args_text((const char *const[][2]){ { "class", argv[0] },
						   { "id", argv[1] },
						   { "field", field } }, 3);
	return show(ctl_ask("history", args), print_history);
}

/* ---- at ---- */

static void print_missing(struct json_object *list)
{
	size_t n = json_object_array_length(list);

	if (n == 0)
		return;
	fputs("(not recorded:", stdout);
	for (size_t i = 0; i < n; i++)
		printf(" %s", json_object_get_string(
			       json_object_array_get_idx(list, i)));
	puts(")");
}

static int print_past(struct json_object *o)
{
	struct json_object *fields = json_object_object_get(o, "fields");

	printf("generation %lld\n", (long long)ctl_int(o, "generation"));
	if (json_object_get_boolean(json_object_object_get(o, "gap")))
		puts("(this member did not record the steps around it one by "
		     "one: a field may be as it was somewhat later)");
	if (!json_object_get_boolean(json_object_object_get(o, "exists"))) {
		puts("the object did not exist");
		return 0;
	}
	json_object_object_foreach(fields, name, value) {
		printf("%-36s ", name);
		print_quoted(json_object_get_string(value));
		putchar('\n');
	}
	print_missing(json_object_object_get(o, "not_recorded"));
	return 0;
}

/* #N, @N or a time; exactly one of the results is set. */
static bool parse_when(const char *s, int64_t *generation, int64_t *index,
		       int64_t *seconds)
{
	*generation = *index = *seconds = 0;
	if (*s == '#')
		return int_parse(s + 1, strlen(s + 1), generation) &&
		       *generation > 0;
	if (*s == '@')
		return int_parse(s + 1, strlen(s + 1), index) && *index > 0;
	return date_parse(s, strlen(s), seconds);
}

static struct json_object *ask_at(const char *when, const char *cls,
				  const char *id, int64_t index)
{
	char number[24];
	_cleanup_(freep) char *args = NULL;

	snprintf(number, sizeof number, "%lld", (long long)index);
	args = args_text((const char *const[][2]){
		{ "class", cls }, { "id", id },
		{ "generation", *when == '#' ? when + 1 : NULL },
		{ "index", index ? number : NULL },
		{ "time", *when == '#' || index ? NULL : when } }, 5);
	return ctl_ask("at", args);
}

static struct json_object *read_at(const char *path, char **argv,
				   int64_t generation, int64_t index,
				   int64_t seconds)
{
	char why[400], *text = NULL;
	uint64_t found = (uint64_t)generation;
	int r = 0;

	if (index)
		r = history_generation_of_index(path, (uint64_t)index, &found,
						why, sizeof why);
	r = r ? r : history_at(path, argv[1], argv[2], found,
			       seconds * 1000 + 999, &text, why, sizeof why);
	return parse_taken(r, text, why);
}

int ctl_at(int argc, char **argv)
{
	const char *dir = NULL;
	const struct ctl_option options[] = {
		{ "data-dir", true, &dir }, { NULL, false, NULL },
	};
	int r = ctl_parse(&argc, &argv, options, at_help);
	int64_t generation, index, seconds;
	_cleanup_(freep) char *path = NULL;

	if (r || argc != 3) {
		if (r == 0)
			fputs(at_help, stderr);
		return r > 0 ? 0 : 2;
	}
	if (!parse_when(argv[0], &generation, &index, &seconds)) {
		ctl_fail("\"%s\" is neither a time (2026-05-01T12:00:00), nor "
			 "#GENERATION, nor @INDEX", argv[0]);
		return 2;
	}
	if (!dir)
		return show(ask_at(argv[0], argv[1], argv[2], index), print_past);
	path = pooldb_path(dir);
	return show(read_at(path, argv, generation, index, seconds), print_past);
}
