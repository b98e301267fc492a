/* A job's way: args are checked on the core, what needs the store is taken from
 * it there (a frozen view), `sync` waits until pool.db has all that was applied,
 * `run` works on a worker thread, and the text goes back to the core.
 *
 * A backup is an image of the state (docs/formats.md) in DATA-DIR/backups,
 * written by "backup" and fetched in pieces with "backup_read"; the one who
 * asked removes it with "backup_drop", and the next backup removes what was
 * forgotten.
 */
#include "pool/tools.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "raftdb/history.h"
#include "raftdb/store_check.h"

#define RUNNING_MAX 3
#define BACKUP_FORGOTTEN_S 3600
#define BACKUPS_MAX 4
#define PIECE_BYTES (768 * 1024)
#define CHECK_ROWS 2000 /* a turn of the loop */
#define HISTORY_ROWS 2000

struct job {
	uv_work_t work;
	uv_idle_t idle;
	struct tools *tools;
	const struct function *fn;
	struct value *args;
	struct store_view *view;
	size_t next_row; /* of the view, to be checked on the core */
	struct check_result check;
	char *path, *text;
	char error[400];
	pool_tool_cb cb;
	void *cb_data;
};

struct function {
	const char *name;
	bool view, sync, indexes;
	void (*run)(struct job *j);
};

static const char *arg(const struct job *j, const char *name)
{
	return value_get_str(j->args, name);
}

static _printf_(2, 3) void fail(struct job *j, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->error, sizeof j->error, fmt, ap);
	va_end(ap);
}

static char *take_json(struct json_object *o)
{
	char *ret = xstrdup(json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PLAIN));

	json_object_put(o);
	return ret;
}

static void put_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void put_int(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)n));
}

static void put_hash(struct json_object *o, const char *key, struct hash128 h)
{
	char text[33];

	snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
	put_text(o, key, text);
}

/* ---- history, at ---- */

static void run_history(struct job *j)
{
	const char *field = arg(j, "field");

	history_rows(j->path, arg(j, "class"), arg(j, "id"),
		     *field ? field : NULL, HISTORY_ROWS, &j->text, j->error,
		     sizeof j->error);
}

static void run_at(struct job *j)
{
	const char *when = arg(j, "generation"), *index = arg(j, "index");
	int64_t generation = 0, seconds = 0, i;
	uint64_t found;

	if (*index) {
		if (int_parse(index, strlen(index), &i) && i > 0 &&
		    history_generation_of_index(j->path, (uint64_t)i, &found,
						j->error,
						sizeof j->error) == 0)
			history_at(j->path, arg(j, "class"), arg(j, "id"), found,
				   0, &j->text, j->error, sizeof j->error);
		return;
	}
	if (*when ? !int_parse(when, strlen(when), &generation) ||
			    generation <= 0 :
		    !date_parse(arg(j, "time"), strlen(arg(j, "time")),
				&seconds)) {
		fail(j, "neither a generation nor a time");
		return;
	}
	/* All of the second that was named. */
	history_at(j->path, arg(j, "class"), arg(j, "id"), (uint64_t)generation,
		   seconds * 1000 + 999, &j->text, j->error, sizeof j->error);
}

/* ---- backup ---- */

static bool is_backup(const char *name)
{
	static const char allowed[] = "0123456789abcdef.img";

	return strncmp(name, "backup-", 7) == 0 &&
	       strspn(name + 7, allowed) == strlen(name + 7) &&
	       !strstr(name, "..") && strlen(name) < 100;
}

static char *backup_path(const struct job *j, const char *name)
{
	return xasprintf("%s/backups/%s", j->tools->data_dir, name);
}

/* Removes what nobody fetched; the number of those that stay. */
static size_t collect_backups(struct job *j, const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t n = 0;

	while (d && (e = readdir(d))) {
		_cleanup_(freep) char *path = backup_path(j, e->d_name);
		struct stat st;

		if (!is_backup(e->d_name) || stat(path, &st) < 0)
			continue;
		if (st.st_mtime < env_wall_ms() / 1000 - BACKUP_FORGOTTEN_S)
			unlink(path);
		else
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

static int write_file(const char *path, const char *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	while (r == 0 && n > 0) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno != EINTR)
			r = -errno;
		p += w > 0 ? w : 0;
		n -= w > 0 ? (size_t)w : 0;
	}
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r < 0)
		unlink(path);
	return r;
}

static void backup_made(struct job *j, const char *name, const struct buf *image)
{
	struct json_object *o = json_object_new_object();

	put_text(o, "name", name);
	put_int(o, "bytes", image->len);
	put_hash(o, "hash", hash128(image->data, image->len));
	put_int(o, "generation", j->view->generation);
	put_hash(o, "digest", j->view->digest);
	put_int(o, "objects", j->view->n_rows);
	j->text = take_json(o);
}

static void run_backup(struct job *j)
{
	_cleanup_(freep) char *dir = xasprintf("%s/backups", j->tools->data_dir);
	_cleanup_(freep) char *path = NULL;
	_cleanup_(buf_deinit) struct buf image = BUF_INIT;
	char name[32];
	uint8_t random[6];
	int r;

	memcpy(name, "backup-", 7);
	env_random(random, sizeof random);
	hex_encode(random, sizeof random, name + 7);
	strcpy(name + 7 + 2 * sizeof random, ".img");
	path = backup_path(j, name);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		fail(j, "cannot make %s: %s", dir, strerror(errno));
		return;
	}
	if (collect_backups(j, dir) >= BACKUPS_MAX) {
		fail(j, "%d backups are being fetched already: try later, or "
		     "remove the files in %s", BACKUPS_MAX, dir);
		return;
	}
	r = image_pack(j->view, &image);
	r = r ? r : write_file(path, image.data, image.len);
	if (r < 0)
		fail(j, "cannot write %s: %s", path, strerror(-r));
	else
		backup_made(j, name, &image);
}

static char *base64(const unsigned char *p, size_t n)
{
	unsigned char *out = xmalloc(4 * ((n + 2) / 3) + 1);

	EVP_EncodeBlock(out, p, (int)n);
	return (char *)out;
}

static void run_backup_read(struct job *j)
{
	_cleanup_(freep) char *path = backup_path(j, arg(j, "name"));
	_cleanup_(freep) char *piece = NULL, *text = NULL;
	struct json_object *o;
	int64_t offset;
	ssize_t n = -1;
	int fd;

	if (!is_backup(arg(j, "name")) ||
	    !int_parse(arg(j, "offset"), strlen(arg(j, "offset")), &offset) ||
	    offset < 0) {
		fail(j, "no such backup");
		return;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	piece = xmalloc(PIECE_BYTES);
	if (fd >= 0)
		n = pread(fd, piece, PIECE_BYTES, offset);
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		fail(j, "cannot read %s: %s", path, strerror(errno));
		return;
	}
	text = base64((unsigned char *)piece, (size_t)n);
	o = json_object_new_object();
	put_text(o, "data", text);
	put_int(o, "bytes", (uint64_t)n);
	j->text = take_json(o);
}

static void run_backup_drop(struct job *j)
{
	_cleanup_(freep) char *path = backup_path(j, arg(j, "name"));

	if (!is_backup(arg(j, "name")) || unlink(path) < 0)
		fail(j, "no such backup");
	else
		j->text = xstrdup("{}");
}

/* ---- check ---- */

static void run_check(struct job *j)
{
	struct json_object *o = json_object_new_object();
	char why[300];

	store_check_view(j->view, &j->check);
	if (history_verify(j->path, why, sizeof why) < 0)
		check_finding(&j->check, "pool.db: %s", why);
	put_int(o, "generation", j->view->generation);
	put_hash(o, "digest", j->view->digest);
	put_int(o, "objects", j->check.rows);
	put_int(o, "references", j->check.references);
	put_int(o, "dangling", j->check.dangling);
	put_int(o, "findings", j->check.findings);
	put_text(o, "text", buf_cstr(&j->check.text));
	j->text = take_json(o);
}

/* On the core: members that were at the same generation have the same state. */
static void check_members(struct job *j)
{
	struct db_status s;

	db_get_status(j->tools->db, &s);
	for (unsigned i = 0; i < s.n_members; i++) {
		if (s.members[i].digest_generation != j->view->generation ||
		    (s.members[i].digest.lo == j->view->digest.lo &&
		     s.members[i].digest.hi == j->view->digest.hi))
			continue;
		check_finding(&j->check, "member %016" PRIx64 " (%s) has "
			      "another state at generation %" PRIu64,
			      s.members[i].id, s.members[i].address,
			      j->view->generation);
	}
}

/* ---- a job's way ---- */

static void job_free(struct job *j)
{
	j->tools->running--;
	if (j->view)
		store_view_free(j->view);
	check_result_deinit(&j->check);
	value_unref(j->args);
	free(j->path);
	free(j->text);
	free(j);
}

static void on_work(uv_work_t *w)
{
	struct job *j = container_of(w, struct job, work);

	j->fn->run(j);
}

static void on_worked(uv_work_t *w, int status)
{
	struct job *j = container_of(w, struct job, work);

	if (!j->text && !*j->error)
		fail(j, "it could not be done");
	j->cb(j->cb_data, *j->error ? NULL : j->text, j->error);
	job_free(j);
}

static void start_work(struct job *j)
{
	xassert(uv_queue_work(j->tools->loop, &j->work, on_work,
			      on_worked) == 0);
}

static void on_synced(void *data, int error)
{
	struct job *j = data;

	if (error == 0) {
		start_work(j);
		return;
	}
	fail(j, "pool.db cannot be written now; the log of xenpoold on this "
	     "member says why");
	j->cb(j->cb_data, NULL, j->error);
	job_free(j);
}

static void sync_or_work(struct job *j)
{
	if (j->fn->sync)
		pooldb_sync(j->tools->pooldb, on_synced, j);
	else
		start_work(j);
}

static void on_idle_closed(uv_handle_t *h)
{
	sync_or_work(container_of(h, struct job, idle));
}

/* The store may have moved on since the view: rows that did are passed by. */
static void on_idle(uv_idle_t *h)
{
	struct job *j = container_of(h, struct job, idle);
	const struct store *s = db_store(j->tools->db);
	size_t end = MIN(j->next_row + CHECK_ROWS, j->view->n_rows);

	for (; j->next_row < end; j->next_row++) {
		struct record *r = j->view->rows[j->next_row];

		if (store_get(s, value_str(r->ref)) == r)
			store_check_indexes(s, r, &j->check);
	}
	if (end == j->view->n_rows)
		uv_close((uv_handle_t *)h, on_idle_closed);
}

static const struct function functions[] = {
	{ "history", false, true, false, run_history },
	{ "at", false, true, false, run_at },
	{ "backup", true, false, false, run_backup },
	{ "backup_read", false, false, false, run_backup_read },
	{ "backup_drop", false, false, false, run_backup_drop },
	{ "check", true, true, true, run_check },
};

static const struct function *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(functions); i++)
		if (!strcmp(functions[i].name, name))
			return &functions[i];
	return NULL;
}

bool tools_call(struct tools *t, const char *fn, const struct value *args,
		pool_tool_cb cb, void *cb_data)
{
	const struct function *f = find(fn);
	struct job *j;

	if (!f)
		return false;
	if (t->running >= RUNNING_MAX || !t->pooldb) {
		cb(cb_data, NULL, "too many of these are running: try later");
		return true;
	}
	j = xcalloc(1, sizeof *j);
	t->running++;
	j->tools = t;
	j->fn = f;
	j->args = value_ref(args);
	j->path = pooldb_path(t->data_dir);
	j->cb = cb;
	j->cb_data = cb_data;
	if (f->view)
		j->view = store_view_new(db_store(t->db));
	if (f->indexes) {
		check_members(j);
		uv_idle_init(t->loop, &j->idle);
		uv_idle_start(&j->idle, on_idle);
	} else {
		sync_or_work(j);
	}
	return true;
}
