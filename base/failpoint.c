#include "base/failpoint.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define FILE_PREFIX "file:"
#define SPEC_MAX 4096
#define SEPARATORS ", \t\r\n"

/* Made by the linker; absent from a program that has no point. */
extern struct failpoint *const __start_failpoints[] __attribute__((weak));
extern struct failpoint *const __stop_failpoints[] __attribute__((weak));

bool failpoints_armed;

/* Recursive: what the log says of a bad list passes the point in the clock. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const char *path; /* of the list, NULL: it does not change */
static struct stat seen; /* of the file that was read last */

static const struct {
	const char *name;
	enum failpoint_action action;
	bool has_n;
} actions[] = {
	{ "crash", FAILPOINT_CRASH, false },
	{ "stop", FAILPOINT_STOP, false },
	{ "delay", FAILPOINT_DELAY, true },
	{ "return", FAILPOINT_RETURN, true },
};

/* ---- the list ---- */

static struct failpoint *find(const char *name)
{
	struct failpoint *const *p;

	for (p = __start_failpoints; p < __stop_failpoints; p++)
		if (!strcmp((*p)->name, name))
			return *p;
	return NULL;
}

static bool parse_number(const char *s, int64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoll(s, &end, 10);
	return !errno && end != s && !*end;
}

/* ACTION[:N][@K], changed on the way. */
static bool parse_action(char *s, struct failpoint *ret)
{
	char *at = strchr(s, '@'), *n;
	int64_t k = 0;

	if (at)
		*at++ = '\0';
	n = strchr(s, ':');
	if (n)
		*n++ = '\0';
	if (at && (!parse_number(at, &k) || k <= 0))
		return false;
	ret->at = (uint64_t)k;
	for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
		if (strcmp(actions[i].name, s) != 0)
			continue;
		ret->action = actions[i].action;
		return actions[i].has_n ? n && parse_number(n, &ret->n) : !n;
	}
	return false;
}

static int parse_item(char *item)
{
	char *eq = strchr(item, '=');
	struct failpoint wanted = { 0 }, *p;

	if (eq)
		*eq = '\0';
	p = find(item);
	if (!p || !eq) {
		log_error("failpoints: no point %s, or no action for it", item);
		return -EINVAL;
	}
	if (!parse_action(eq + 1, &wanted)) {
		log_error("failpoints: %s: want crash, stop, delay:MS or "
			  "return:N, and perhaps @K", item);
		return -EINVAL;
	}
	wanted.name = p->name;
	*p = wanted;
	return 0;
}

static int parse_list(char *list)
{
	struct failpoint *const *p;
	char *state = NULL, *item;
	int r = 0;

	for (p = __start_failpoints; p < __stop_failpoints; p++)
		**p = (struct failpoint){ .name = (*p)->name };
	for (item = strtok_r(list, SEPARATORS, &state); item && r == 0;
	     item = strtok_r(NULL, SEPARATORS, &state))
		r = parse_item(item);
	return r;
}

static int read_list(void)
{
	char text[SPEC_MAX];
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f) {
		log_error("failpoints: cannot read %s: %s", path,
			  strerror(errno));
		return -EINVAL;
	}
	n = fread(text, 1, sizeof text - 1, f);
	text[n] = '\0';
	fstat(fileno(f), &seen);
	fclose(f);
	return parse_list(text);
}

static bool has_changed(void)
{
	struct stat st;

	return path && stat(path, &st) == 0 &&
	       (st.st_ino != seen.st_ino ||
		st.st_mtim.tv_sec != seen.st_mtim.tv_sec ||
		st.st_mtim.tv_nsec != seen.st_mtim.tv_nsec);
}

static void print_names(void)
{
	struct failpoint *const *p;

	for (p = __start_failpoints; p < __stop_failpoints; p++)
		puts((*p)->name);
}

static int read_spec(const char *spec)
{
	char text[SPEC_MAX];

	if (!strncmp(spec, FILE_PREFIX, strlen(FILE_PREFIX))) {
		path = spec + strlen(FILE_PREFIX);
		return read_list();
	}
	path = NULL;
	snprintf(text, sizeof text, "%s", spec);
	return parse_list(text);
}

int failpoints_start(const char *spec)
{
	int r;

	if (!spec || !*spec)
		return 0;
	if (!strcmp(spec, "list")) {
		print_names();
		return 1;
	}
	r = read_spec(spec);
	if (r < 0)
		return r;
	log_warn("FAILPOINTS ARE ARMED, this process may fail on purpose: %s",
		 spec);
	failpoints_armed = true;
	return 0;
}

/* ---- a point is reached ---- */

/* What is to be done now. */
static enum failpoint_action take(struct failpoint *p, int64_t *ret_n)
{
	enum failpoint_action action = FAILPOINT_NONE;

	pthread_mutex_lock(&lock);
	/* A test that armed something else than it meant must not pass. */
	if (has_changed() && read_list() < 0)
		_exit(2);
	if (p->action != FAILPOINT_NONE && (++p->hits == p->at || !p->at))
		action = p->action;
	*ret_n = p->n;
	pthread_mutex_unlock(&lock);
	return action;
}

static void sleep_ms(int64_t ms)
{
	struct timespec t = { .tv_sec = ms / 1000,
			      .tv_nsec = ms % 1000 * 1000000 };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* Without the lock: the log reads the clock, which has a point of its own. */
int64_t failpoint_hit(struct failpoint *p)
{
	int64_t n;

	switch (take(p, &n)) {
	case FAILPOINT_NONE:
		break;
	case FAILPOINT_CRASH:
		log_warn("failpoint %s: crash", p->name);
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	case FAILPOINT_STOP:
		log_warn("failpoint %s: stop", p->name);
		kill(getpid(), SIGSTOP);
		break;
	case FAILPOINT_DELAY:
		sleep_ms(n);
		break;
	case FAILPOINT_RETURN:
		return n;
	}
	return 0;
}
