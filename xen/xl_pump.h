/* A thread that copies a guest's stream: libxl's helpers get a pipe, whatever
 * is behind it. They write pages of the guest straight from its memory, which
 * not every file system takes, and they know nothing of TLS. Of worker
 * processes, which are killed as a whole when something hangs. */
#ifndef XEN_XL_PUMP_H
#define XEN_XL_PUMP_H

#include <pthread.h>

#include "base/util.h"

struct xl_pump {
	pthread_t thread;
	int fd;      /* libxl's end, the owner's to close */
	int pipe;    /* the pump's end */
	bool inward; /* from the far side to libxl */
	/* At most n bytes: how many, 0 at the end, negative errno. */
	ssize_t (*far)(void *data, char *p, size_t n);
	void *data;
	uint64_t bytes;
	int error; /* 0 or negative errno, after the end */
};

/* Begins to copy: to the far side what is written to p->fd, or, inward, from
 * there to p->fd. */
int xl_pump_start(struct xl_pump *p, bool inward,
		  ssize_t (*far)(void *data, char *p, size_t n), void *data);
/* Closes libxl's end, copies the rest and ends. The error, if there was one. */
int xl_pump_end(struct xl_pump *p);

/* A far side: the file whose descriptor data points to. */
ssize_t xl_pump_to_file(void *data, char *p, size_t n);
ssize_t xl_pump_from_file(void *data, char *p, size_t n);

#endif
