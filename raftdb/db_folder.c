/* The folder of a member as the system sees it: its lock, what is in it, how
 * much room is left. The simulation replaces this file. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "raftdb/db_impl.h"

int disk_make_dir(const char *path)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	log_error("cannot create the folder %s: %s", path, strerror(errno));
	return -errno;
}

static int write_owner(const char *path, uint64_t id)
{
	_cleanup_(freep) char *new = xasprintf("%s.new", path);
	int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0 || dprintf(fd, "%016llx\n", (unsigned long long)id) < 0 ||
	    fsync(fd) < 0 || rename(new, path) < 0) {
		r = -errno;
		log_error("cannot write %s: %s", path, strerror(-r));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* A log says nothing of who wrote it. With one that another member wrote, or
 * under another name, we would vote and acknowledge for a member that we are
 * not. */
int disk_claim(const char *raft_dir, uint64_t id)
{
	_cleanup_(freep) char *path = xasprintf("%s/owner", raft_dir);
	char text[32] = "";
	FILE *f = fopen(path, "re");
	unsigned long long owner = 0;

	if (!f)
		return write_owner(path, id);
	if (fgets(text, sizeof text, f))
		owner = strtoull(text, NULL, 16);
	fclose(f);
	if (owner == id)
		return 0;
	log_error("%s belongs to the member %016llx, but this is %016llx "
		  "(the first half of host-uuid): put back the folder or the "
		  "host-uuid that belongs here; or move %s away: a member of a "
		  "pool is then rebuilt from the others", raft_dir, owner,
		  (unsigned long long)id, raft_dir);
	return -EBADMSG;
}

int disk_lock(const char *dir, int *ret_fd)
{
	_cleanup_(freep) char *path = xasprintf("%s/lock", dir);
	char pid[32] = "?";
	ssize_t n;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int r;

	if (fd < 0) {
		r = -errno;
		log_error("cannot open %s: %s", path, strerror(-r));
		return r;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		n = read(fd, pid, sizeof pid - 1);
		if (n > 0)
			pid[strcspn(pid, "\n")] = 0;
		log_error("%s is in use by another process (pid %s); stop it, "
			  "or give this one a data folder of its own", dir, pid);
		close(fd);
		return r;
	}
	n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
		log_warn("cannot write %s: %s", path, strerror(errno));
	*ret_fd = fd;
	return 0;
}

/* Metadata, a snapshot, or a closed segment "first-last". An empty open segment
 * is there as soon as a member has started, so it says nothing. */
static bool is_state(const char *name)
{
	unsigned long long first, last;
	int end = 0;

	if (strncmp(name, "metadata", 8) == 0 ||
	    strncmp(name, "snapshot-", 9) == 0)
		return true;
	return sscanf(name, "%llu-%llu%n", &first, &last, &end) == 2 &&
	       name[end] == 0;
}

bool disk_has_state(const char *raft_dir)
{
	DIR *d = opendir(raft_dir);
	struct dirent *e;
	bool has = false;

	if (!d)
		return false;
	while (!has && (e = readdir(d)))
		has = is_state(e->d_name);
	closedir(d);
	return has;
}

static char *floor_path(const char *dir)
{
	return xasprintf("%s/floor", dir);
}

uint64_t disk_floor(const char *dir)
{
	_cleanup_(freep) char *path = floor_path(dir);
	FILE *f = fopen(path, "re");
	unsigned long long index = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%llu", &index) != 1)
		index = 0;
	fclose(f);
	return index;
}

/* Not synced: it is a lower bound, and a second old anyway. */
void disk_set_floor(const char *dir, uint64_t index)
{
	_cleanup_(freep) char *path = floor_path(dir);
	char text[32];
	int n = snprintf(text, sizeof text, "%020llu\n",
			 (unsigned long long)index);
	int fd;

	if (index == 0) {
		unlink(path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n)
		log_debug("cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

bool disk_room(const char *dir, uint64_t *ret_bytes)
{
	struct statvfs s;

	if (statvfs(dir, &s) < 0)
		return false;
	*ret_bytes = (uint64_t)s.f_bavail * s.f_frsize;
	return true;
}
