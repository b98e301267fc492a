/* The folder: its lock, what is in it, and how full its disk is. */
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

#define CHECK_MS 500
#define TRANSFER_EVERY_MS 2000

int disk_make_dir(const char *path)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	log_error("cannot create the folder %s: %s", path, strerror(errno));
	return -errno;
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

/* A live voter with room on its disk, the most up to date first. */
static uint64_t successor(struct db *db)
{
	const struct peer *best = NULL;

	for (unsigned i = 0; i < db->n_members; i++) {
		const struct peer *p = peers_get(db->peers, db->members[i].id);

		if (!p || db->members[i].role != DB_VOTER || p->disk_low ||
		    !db_member_alive(db, p->id, 1000))
			continue;
		if (!best || p->applied_index > best->applied_index)
			best = p;
	}
	return best ? best->id : 0;
}

static void on_transferred(void *data, int error)
{
}

static void hand_over(struct db *db, int64_t now)
{
	uint64_t to;

	if (!db->serving || now < db->low_transfer_at + TRANSFER_EVERY_MS)
		return;
	db->low_transfer_at = now;
	to = successor(db);
	if (to && db_transfer(db, to, on_transferred, NULL) == 0)
		log_warn("disk full: handing leadership over to %016llx",
			 (unsigned long long)to);
}

void disk_tick(struct db *db, int64_t now)
{
	struct statvfs s;
	bool low;

	if (now < db->disk_at + CHECK_MS)
		return;
	db->disk_at = now;
	if (statvfs(db->raft_dir, &s) < 0)
		return;
	db->disk_free = (uint64_t)s.f_bavail * s.f_frsize;
	low = db->disk_free < (uint64_t)db->min_free_mib << 20;
	if (low && !db->disk_low)
		log_error("disk full: %llu MiB are left below %s, at least %u "
			  "are needed; this member sequences no writes until "
			  "there is room again: remove files, or enlarge it",
			  (unsigned long long)(db->disk_free >> 20), db->dir,
			  db->min_free_mib);
	else if (!low && db->disk_low)
		log_info("disk: %llu MiB are free again below %s",
			 (unsigned long long)(db->disk_free >> 20), db->dir);
	if (low != db->disk_low)
		db_kick(db);
	db->disk_low = low;
	if (low)
		hand_over(db, now);
}
