/* A suspended guest's file:
 *
 *   "XPGUEST1"  length:u32  hash64(json):u64  json  libxl's stream
 *
 * numbers little-endian, at most 1 MiB of json:
 *   {"format": 1, "vm": uuid, "config": libxl's configuration of the domain}
 * libxl's stream ends by itself; a file that is there under its name is whole.
 */
#ifndef XEN_XL_IMAGE_H
#define XEN_XL_IMAGE_H

#include "base/buf.h"

/* Appends the head. config: a JSON object as text. -E2BIG, -EINVAL. */
int xl_image_head(struct buf *b, const char *vm, const char *config);
/* Reads the head from fd, leaves fd behind it. -EBADMSG not an image, -ESTALE
 * another VM's, or what read(2) says. */
int xl_image_check(int fd, const char *vm);
/* Opens a file and checks its head; ret_fd, at the file's beginning, may be
 * NULL. Also -EINVAL: not a
 * regular file. */
int xl_image_open(const char *path, const char *vm, int *ret_fd);

#endif
