/* xenpoolctl restore: a backup becomes the state of a pool of one in a data
 * folder whose daemon does not run.
 *
 * Order: all checks; then host-uuid and certificate if there are none; then
 * members.json and pool.db go aside, and last the raft folder is replaced. A
 * failure before that leaves the old folder in use.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "pool/restore.h"
#include "raftdb/db.h"
#include "raftdb/history.h"
#include "raftdb/pooldb.h"
#include "rpc/client.h"
#include "tools/ctl.h"

#define BACKUP_MAX (1u << 30)

static const char help[] =
	"usage: xenpoolctl restore FILE [--data-dir DIR] [--host UUID]\n"
	"                          [--peer-address IP:PORT] [--older] [--force]"
	"\n\n"
	"Makes this host a pool of one that has the backup's database; for a "
	"pool that has\nlost more hosts than it can. xenpoold must not run on "
	"this folder, nor on any other\nhost of the pool. What the folder had "
	"is kept beside it. Then start xenpoold here,\nand join the other hosts "
	"again (docs/operations.md).\n"
	"  --data-dir DIR        (/var/lib/xenpool)\n"
	"  --host UUID           which of the backup's hosts this is, if the "
	"folder does not\n                        say so or it is to be "
	"another one\n"
	"  --peer-address A:P    where its members reach it, if that has "
	"changed\n"
	"  --older               even if the folder has changes that the "
	"backup has not\n"
	"  --force               even if the folder is of another host or "
	"pool\n";

struct restore {
	const char *file, *dir, *host, *peer_address;
	bool force, older;
	char uuid[UUID_LEN + 1]; /* of the folder's host; or empty */
	char address[64]; /* of it, as members reach it */
	char suffix[40];
	struct store *store;
};

/* ---- reading ---- */

static int read_whole(const char *path, size_t max, struct buf *b)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return -errno;
	do {
		buf_reserve(b, 1 << 16);
		n = fread(b->data + b->len, 1, 1 << 16, f);
		b->len += n;
	} while (n > 0 && b->len <= max);
	fclose(f);
	return b->len > max ? -EFBIG : 0;
}

static int load_backup(struct restore *r)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct store_view *v = NULL;
	char why[300];
	bool good;
	int e = read_whole(r->file, BACKUP_MAX, &b);

	if (e < 0)
		return ctl_fail("cannot read %s: %s", r->file, strerror(-e));
	if (image_unpack(b.data, b.len, &v, why, sizeof why) < 0)
		return ctl_fail("%s cannot be restored: %s", r->file, why);
	r->store = store_new();
	good = store_load(r->store, v);
	store_view_free(v);
	return good ? 0 : ctl_fail("%s cannot be restored: it does not fit its "
				   "own digest", r->file);
}

static char *path_in(const struct restore *r, const char *name)
{
	return xasprintf("%s/%s", r->dir, name);
}

static int read_host_uuid(struct restore *r)
{
	_cleanup_(freep) char *path = path_in(r, "host-uuid");
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	int e = read_whole(path, 100, &b);

	if (e == -ENOENT)
		return 0;
	if (e < 0 || b.len < UUID_LEN || !uuid_valid(b.data, UUID_LEN))
		return ctl_fail("%s holds no uuid", path);
	memcpy(r->uuid, b.data, UUID_LEN);
	r->uuid[UUID_LEN] = 0;
	return 0;
}

/* ---- checks ---- */

static int list_hosts(const struct restore *r, const char *what)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;

	restore_list_hosts(r->store, &b);
	return ctl_fail("%s; --host names one of the backup's hosts:\n%s", what,
			buf_cstr(&b));
}

static int choose_host(struct restore *r)
{
	if (!r->host && !*r->uuid)
		return list_hosts(r, "the folder does not say which host this is");
	if (!r->host)
		r->host = r->uuid;
	if (!restore_host_address(r->store, r->host))
		return list_hosts(r, r->host == r->uuid ?
				  "the backup is of another pool: this host is "
				  "not in it" : "the backup has no such host");
	if (*r->uuid && strcmp(r->uuid, r->host) != 0 && !r->force)
		return ctl_fail("%s is the folder of host %s; --force makes it "
				"that of %s", r->dir, r->uuid, r->host);
	return 0;
}

static int check_pool(const struct restore *r)
{
	_cleanup_(freep) char *path = pooldb_path(r->dir);
	const char *uuid = restore_pool_uuid(r->store);
	bool other = false;
	char why[200];

	if (!uuid)
		return ctl_fail("the backup has no pool");
	if (access(path, F_OK) == 0 &&
	    history_other_pool(path, uuid, &other, why, sizeof why) < 0)
		ctl_fail("(%s cannot be read: %s)", path, why);
	if (!other || r->force)
		return 0;
	return ctl_fail("the backup is of another pool than the folder %s; "
			"--force restores it all the same", r->dir);
}

/* Restoring takes back what was changed since: only who says so wants that. */
static int check_age(const struct restore *r)
{
	_cleanup_(freep) char *path = pooldb_path(r->dir);
	unsigned long long ours = store_generation(r->store);
	uint64_t newest = 0;
	char why[200];

	if (r->force || r->older || access(path, F_OK) < 0 ||
	    history_newest(path, &newest, why, sizeof why) < 0 ||
	    newest <= ours)
		return 0;
	return ctl_fail("the backup ends at generation %llu, but %s has come to "
			"%llu: what was changed in between would be lost. If "
			"xenpoold still starts here, or on another host of the "
			"pool, nothing needs to be restored; if it shall be "
			"lost, say --older", ours, r->dir,
			(unsigned long long)newest);
}

/* ---- doing ---- */

static int write_host_uuid(const struct restore *r)
{
	_cleanup_(freep) char *path = path_in(r, "host-uuid");
	int fd;
	bool bad;

	if (!strcmp(r->uuid, r->host))
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bad = fd < 0 || dprintf(fd, "%s\n", r->host) < 0 || fsync(fd) < 0;
	if (fd >= 0)
		close(fd);
	return bad ? ctl_fail("cannot write %s: %s", path, strerror(errno)) : 0;
}

/* The host's certificate, made if there is none; cert: PEM. */
static int load_certificate(const struct restore *r, char fingerprint[65],
			    struct buf *cert)
{
	_cleanup_(freep) char *crt = path_in(r, "server.crt");
	_cleanup_(freep) char *key = path_in(r, "server.key");
	int e = tls_ensure_certificate(crt, key,
				       restore_host_address(r->store, r->host));

	e = e ? e : tls_fingerprint_of_file(crt, fingerprint);
	e = e ? e : read_whole(crt, 1 << 16, cert);
	return e ? ctl_fail("no usable certificate in %s: %s", r->dir,
			    strerror(-e)) : 0;
}

static int prepare(struct restore *r)
{
	_cleanup_(buf_deinit) struct buf cert = BUF_INIT;
	char fingerprint[65], id[24], why[300];
	struct restore_host h = { .uuid = r->host, .raft_id = id,
				  .fingerprint = fingerprint };

	if (write_host_uuid(r) || load_certificate(r, fingerprint, &cert))
		return 1;
	if (!r->peer_address)
		r->peer_address = restore_peer_address(r->store, r->host);
	if (!r->peer_address)
		return ctl_fail("the backup does not know where members reach "
				"this host: --peer-address IP:PORT");
	snprintf(id, sizeof id, "%llu",
		 (unsigned long long)db_id_of_uuid(r->host));
	h.certificate = buf_cstr(&cert);
	/* A copy: the row that it may be of goes. */
	if ((size_t)snprintf(r->address, sizeof r->address, "%s",
			     r->peer_address) >= sizeof r->address)
		return ctl_fail("not an address: %s", r->peer_address);
	h.peer_address = r->address;
	if (restore_prepare(r->store, &h, why, sizeof why) < 0)
		return ctl_fail("%s cannot be restored: %s", r->file, why);
	return 0;
}

static int set_aside(const struct restore *r, const char *name)
{
	_cleanup_(freep) char *from = path_in(r, name);
	_cleanup_(freep) char *to = xasprintf("%s.%s", from, r->suffix);

	if (rename(from, to) < 0 && errno != ENOENT)
		return ctl_fail("cannot rename %s: %s", from, strerror(errno));
	return 0;
}

static int install(struct restore *r)
{
	const struct db_config cfg = {
		.dir = r->dir,
		.id = db_id_of_uuid(r->host),
		.peer_address = r->address,
	};
	int e = db_seed(&cfg, r->store, r->suffix);

	if (e == -EBUSY)
		return ctl_fail("xenpoold runs on %s: stop it first", r->dir);
	if (e < 0)
		return ctl_fail("cannot write %s: %s", r->dir, strerror(-e));
	if (set_aside(r, "members.json") || set_aside(r, "joining.json"))
		return 1;
	if (pooldb_set_aside(r->dir, r->suffix) < 0)
		return ctl_fail("cannot rename %s/pool.db", r->dir);
	return 0;
}

static int restore(struct restore *r)
{
	if (mkdir(r->dir, 0700) < 0 && errno != EEXIST)
		return ctl_fail("cannot make %s: %s", r->dir, strerror(errno));
	if (load_backup(r) || read_host_uuid(r) || choose_host(r) ||
	    check_pool(r) || check_age(r) || prepare(r) || install(r))
		return 1;
	printf("%s is now the folder of a pool of one with the backup's %zu VMs "
	       "and templates.\nWhat it had is kept as %s/*.%s. Start xenpoold, "
	       "and join the other hosts again.\n", r->dir,
	       store_count(r->store, schema_class("VM", 2)->id), r->dir,
	       r->suffix);
	return 0;
}

int ctl_restore(int argc, char **argv)
{
	struct restore r = { .dir = "/var/lib/xenpool" };
	const char *force = NULL, *older = NULL;
	const struct ctl_option options[] = {
		{ "data-dir", true, &r.dir }, { "host", true, &r.host },
		{ "peer-address", true, &r.peer_address },
		{ "older", false, &older }, { "force", false, &force },
		{ NULL, false, NULL },
	};
	int e = ctl_parse(&argc, &argv, options, help);

	if (e || argc != 1) {
		if (e == 0)
			fputs(help, stderr);
		return e > 0 ? 0 : 2;
	}
	umask(0077);
	r.file = argv[0];
	r.force = force != NULL;
	r.older = older != NULL;
	snprintf(r.suffix, sizeof r.suffix, "before-restore-%lld",
		 (long long)time(NULL));
	e = restore(&r);
	if (r.store)
		store_free(r.store);
	return e;
}
