#include "pool/rebuild.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/util.h"

static char *in(const char *dir, const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		r = -errno;
	else if (dprintf(fd, "%s\n", text) < 0 || fsync(fd) < 0)
		r = -EIO;
	if (fd >= 0)
		close(fd);
	if (r < 0)
		log_error("cannot write %s: %s", path, strerror(-r));
	return r;
}

/* First line; NULL: no such file. */
static char *read_text(const char *path)
{
	char line[512] = "";
	FILE *f = fopen(path, "re");

	if (!f)
		return NULL;
	if (!fgets(line, sizeof line, f))
		line[0] = '\0';
	fclose(f);
	line[strcspn(line, "\n")] = '\0';
	return xstrdup(line);
}

/* A folder of libraft's: files only. */
static void remove_folder(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(path);
}

/* The first start after the log was given up keeps it; another one, after a
 * crash on the way, has nothing worth keeping. */
static int clear_raft(const char *dir)
{
	_cleanup_(freep) char *raft = in(dir, "raft");
	_cleanup_(freep) char *aside = in(dir, "raft.before-rebuild");

	if (access(aside, F_OK) == 0)
		remove_folder(raft);
	else if (rename(raft, aside) < 0 && errno != ENOENT) {
		int r = -errno;

		log_error("cannot move %s aside: %s", raft, strerror(-r));
		return r;
	}
	return 0;
}

static int check_others(const char *dir, size_t n_members)
{
	if (n_members > 1)
		return 0;
	log_error("the database in %s/raft is gone, and there is no other "
		  "member that has a copy: put the folder back, or restore a "
		  "backup (xenpoolctl restore), or move members.json away to "
		  "begin with an empty pool", dir);
	return -ENODATA;
}

int rebuild_prepare(const char *dir, bool has_state, size_t n_members,
		    bool joining, uint64_t *ret_number)
{
	_cleanup_(freep) char *marker = in(dir, "rebuild");
	_cleanup_(freep) char *why = read_text(marker);
	int r;

	*ret_number = 0;
	if (!why && (has_state || n_members == 0 || joining))
		return 0;
	r = check_others(dir, n_members);
	if (r == 0 && !why) {
		why = xstrdup("its raft folder was empty");
		r = write_text(marker, why);
	}
	r = r ? r : clear_raft(dir);
	if (r < 0)
		return r;
	while (*ret_number == 0)
		env_random(ret_number, sizeof *ret_number);
	log_warn("this member is rebuilt from the others: %s", why);
	return 0;
}

int rebuild_note(const char *dir, const char *why, bool asked)
{
	_cleanup_(freep) char *marker = in(dir, "rebuild");
	_cleanup_(freep) char *last = in(dir, "rebuilt");
	_cleanup_(freep) char *aside = in(dir, "raft.before-rebuild");
	struct stat st;

	if (!asked && stat(last, &st) == 0 &&
	    st.st_mtime + REBUILD_AGAIN_S > env_wall_ms() / 1000) {
		log_error("it was rebuilt less than %d s ago already: look "
			  "after this host's disk and memory, then remove %s "
			  "and start again", REBUILD_AGAIN_S, last);
		return -EAGAIN;
	}
	remove_folder(aside);
	return write_text(marker, why);
}

char *rebuild_done(const char *dir)
{
	_cleanup_(freep) char *marker = in(dir, "rebuild");
	_cleanup_(freep) char *last = in(dir, "rebuilt");
	char *why = read_text(marker);

	why = why ? why : xstrdup("");
	/* Written anew for its time. */
	if (write_text(last, why) == 0 && unlink(marker) < 0 &&
	    errno != ENOENT)
		log_error("cannot remove %s: %s", marker, strerror(errno));
	return why;
}

/* ---- out of the pool ---- */

int removed_note(const char *dir, const char *why)
{
	_cleanup_(freep) char *folder = in(dir, "removed");
	_cleanup_(freep) char *path = in(folder, "why");

	if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
		int r = -errno;

		log_error("cannot make the folder %s: %s", folder, strerror(-r));
		return r;
	}
	return write_text(path, why);
}

char *removed_why(const char *dir)
{
	_cleanup_(freep) char *path = in(dir, "removed/why");

	return read_text(path);
}
