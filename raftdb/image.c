/* Database images: a SQLite database with the whole state, in bytes or as a
 * file. docs/formats.md has the tables. In bytes it is
 *
 *   8 bytes  "XPIMAGE1"
 *   u64      bytes of the SQLite file, at most IMAGE_MAX_BYTES
 *   16 bytes hash128 (low half first) of that u64 and all that follows it here
 *   ...      one zstd frame of the SQLite file
 *
 * The hash is over the compressed bytes, so nothing damaged gets as far as zstd
 * or SQLite. What does get there may still be foreign: see image_load.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/memory.h"
#include "raftdb/image_impl.h"

#define MAGIC "XPIMAGE1"
#define MAGIC_LEN 8
#define HASHED_FROM (MAGIC_LEN + 16) /* where the hash ends */
#define HEADER_LEN (HASHED_FROM + 8)
#define ZSTD_LEVEL 1
/* Loading needs the file and its rows, with their indexes: 4.2 bytes for each of
 * a file of 54 MB with 100 000 objects. */
#define MEMORY_PER_BYTE 5

static void dbp(sqlite3 **db)
{
	sqlite3_close(*db);
}

static void sqlite3_freep(unsigned char **p)
{
	sqlite3_free(*p);
}

static void cctxp(ZSTD_CCtx **c)
{
	ZSTD_freeCCtx(*c);
}

static int errno_of(int sqlite_error)
{
	switch (sqlite_error) {
	case SQLITE_OK:
		return 0;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_TOOBIG:
	case SQLITE_FULL:
		return -EFBIG;
	default:
		return -EIO;
	}
}

/* Around the file. */

static void put_hash(uint8_t out[16], struct hash128 h)
{
	for (unsigned i = 0; i < 8; i++) {
		out[i] = (uint8_t)(h.lo >> (8 * i));
		out[8 + i] = (uint8_t)(h.hi >> (8 * i));
	}
}

/* -1 on failure, which means a lack of memory: room was made for the worst. */
static ssize_t compress(void *to, size_t room, const void *p, size_t n)
{
	_cleanup_(cctxp) ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t r;

	if (!c || ZSTD_isError(ZSTD_CCtx_setParameter(
			  c, ZSTD_c_compressionLevel, ZSTD_LEVEL)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)))
		return -1;
	r = ZSTD_compress2(c, to, room, p, n);
	return ZSTD_isError(r) ? -1 : (ssize_t)r;
}

int image_wrap(const void *p, size_t n, struct buf *ret)
{
	size_t start = ret->len, room = ZSTD_compressBound(n);
	uint8_t hash[16] = { 0 };
	ssize_t packed;

	if (n > IMAGE_MAX_BYTES)
		return -EFBIG;
	buf_reserve(ret, HEADER_LEN + room);
	buf_append(ret, MAGIC, MAGIC_LEN);
	buf_append(ret, hash, sizeof(hash));
	buf_put_u64(ret, n);
	packed = compress(ret->data + ret->len, room, p, n);
	if (packed < 0) {
		ret->len = start;
		return -ENOMEM;
	}
	ret->len += (size_t)packed;
	put_hash(hash, hash128(ret->data + start + HASHED_FROM,
			       ret->len - start - HASHED_FROM));
	memcpy(ret->data + start + MAGIC_LEN, hash, sizeof(hash));
	return 0;
}

/* Said before the kernel ends us, or another process of the host, for it. */
static bool fits_memory(uint64_t file_bytes, struct image_reason *why)
{
	uint64_t need = file_bytes * MEMORY_PER_BYTE, have = memory_available();

	if (need <= have)
		return true;
	image_refuse(why, "it needs about %llu MiB of memory, of which %llu MiB "
		     "are free: stop what else uses memory here, or give this "
		     "machine or service more",
		     (unsigned long long)(need >> 20) + 1,
		     (unsigned long long)have >> 20);
	return false;
}

int image_unwrap(const void *p, size_t n, unsigned char **ret, size_t *ret_n,
		 struct image_reason *why)
{
	struct reader r = reader_of(p, n);
	_cleanup_(sqlite3_freep) unsigned char *file = NULL;
	uint8_t hash[16];
	uint64_t size;

	if (n < HEADER_LEN || memcmp(p, MAGIC, MAGIC_LEN) != 0)
		return image_refuse(why, "not an image, or of another format");
	put_hash(hash, hash128(r.p + HASHED_FROM, n - HASHED_FROM));
	if (memcmp(r.p + MAGIC_LEN, hash, sizeof(hash)) != 0)
		return image_refuse(why, "damaged: the checksum is wrong");
	r.p += HASHED_FROM;
	size = reader_u64(&r);
	if (size == 0 || size > IMAGE_MAX_BYTES)
		return image_refuse(why, "a length of %llu bytes",
				    (unsigned long long)size);
	if (!fits_memory(size, why))
		return -ENOMEM;
	file = sqlite3_malloc64(size);
	if (!file)
		return -ENOMEM;
	if (ZSTD_decompress(file, size, r.p, (size_t)(r.end - r.p)) != size)
		return image_refuse(why, "damaged: does not decompress");
	*ret = TAKE_PTR(file);
	*ret_n = size;
	return 0;
}

/* Packing. */

/* A complete SQLite file; to be freed by sqlite3_free(). */
static int serialize(const struct store_view *v, unsigned char **ret,
		     size_t *ret_n)
{
	_cleanup_(dbp) sqlite3 *db = NULL;
	sqlite3_int64 n;
	int r = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE |
				SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX, NULL);

	r = r ? r : image_write_tables(db, v);
	if (r)
		return errno_of(r);
	*ret = sqlite3_serialize(db, "main", &n, 0);
	*ret_n = (size_t)n;
	return *ret ? 0 : -ENOMEM;
}

int image_pack(const struct store_view *v, struct buf *ret)
{
	_cleanup_(sqlite3_freep) unsigned char *file = NULL;
	size_t n;
	int r = serialize(v, &file, &n);

	return r ? r : image_wrap(file, n, ret);
}

/* Unpacking. */

int image_unpack(const void *p, size_t n, struct store_view **ret, char *reason,
		 size_t reason_size)
{
	struct image_reason why = { reason, reason_size };
	_cleanup_(sqlite3_freep) unsigned char *file = NULL;
	struct store_view *v;
	size_t size;
	int r = image_unwrap(p, n, &file, &size, &why);

	if (r < 0)
		return r;
	v = xcalloc(1, sizeof(*v));
	r = image_load(file, size, v, &why);
	if (r < 0)
		store_view_free(v);
	else
		*ret = v;
	return r;
}

/* A file. */

static int write_all(int fd, const unsigned char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno != EINTR)
			return -errno;
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
	}
	return fsync(fd) < 0 ? -errno : 0;
}

static int sync_folder_of(const char *path)
{
	_cleanup_(freep) char *copy = xstrdup(path);
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* Only its owner may read it: sessions and secrets are inside. */
static int write_tmp(const char *path, const unsigned char *p, size_t n)
{
	int fd, r;

	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, p, n);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int image_write_file(const struct store_view *v, const char *path)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", path);
	_cleanup_(sqlite3_freep) unsigned char *file = NULL;
	size_t n;
	int r = serialize(v, &file, &n);

	if (r < 0)
		return r;
	r = write_tmp(tmp, file, n);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r == 0)
		return sync_folder_of(path);
	unlink(tmp);
	return r;
}
