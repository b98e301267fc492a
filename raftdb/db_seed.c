/* The folder of a pool of one whose past is a backup: libraft gets a snapshot
 * and no log, so whoever joins is sent the snapshot first.
 *
 * It is made beside the old one and takes its place in one rename: a crash
 * leaves the old folder, or both.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "raftdb/db_impl.h"
#include "raftdb/store_impl.h"

/* No earlier log has come so far, nor any generation that a client holds: such
 * a client is told that it has missed something, not that nothing happened. */
#define JUMP ((uint64_t)1 << 32)
#define FIRST_INDEX 16

static void jump(struct store *s)
{
	s->generation += JUMP;
	s->horizon = s->generation;
}

static int write_snapshot(const struct db_config *cfg, const char *dir,
			  const struct store *s)
{
	_cleanup_(buf_deinit) struct buf image = BUF_INIT, header = BUF_INIT;
	struct store_view *v = store_view_new(s);
	const struct buf none = BUF_INIT;
	struct consensus_part parts[2];
	int r = image_pack(v, &image);

	snaps_header(&header, FIRST_INDEX, v->n_ids, &image, &none);
	store_view_free(v);
	if (r < 0)
		return r;
	parts[0] = (struct consensus_part){ header.data, header.len };
	parts[1] = (struct consensus_part){ image.data, image.len };
	return consensus_seed(dir, cfg->id, cfg->peer_address, FIRST_INDEX,
			      parts, 2);
}

static int swap(const char *made, const char *dir, const char *suffix)
{
	_cleanup_(freep) char *aside = xasprintf("%s.%s", dir, suffix);

	if (rename(dir, aside) < 0 && errno != ENOENT)
		return -errno;
	return rename(made, dir) < 0 ? -errno : 0;
}

int db_seed(const struct db_config *cfg, struct store *s, const char *suffix)
{
	_cleanup_(freep) char *dir = xasprintf("%s/raft", cfg->dir);
	_cleanup_(freep) char *made = xasprintf("%s/raft.%s.new", cfg->dir,
						suffix);
	int fd = -1, r = disk_make_dir(cfg->dir);

	if (r == 0)
		r = disk_lock(cfg->dir, &fd);
	if (r < 0)
		return r;
	jump(s);
	r = disk_make_dir(made);
	r = r ? r : write_snapshot(cfg, made, s);
	if (r == 0)
		disk_set_floor(cfg->dir, 0);
	r = r ? r : swap(made, dir, suffix);
	close(fd);
	return r;
}
