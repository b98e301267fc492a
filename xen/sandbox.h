/* A process puts itself where its mistakes cost little: an empty root folder, a
 * user without rights, no way back to any, little memory, few files, and only the
 * system calls that it needs.
 */
#ifndef XEN_SANDBOX_H
#define XEN_SANDBOX_H

#include <stdint.h>

struct sandbox {
	const char *root; /* folder to be locked into; NULL: none. Root only */
	const char *user; /* name or number to become; NULL: none. Root only */
	uint64_t memory;  /* bytes of address space; not with a sanitizer */
	unsigned files;
};

/* For all threads that there are, and for ever. What is open stays open. It ends
 * with the thread that started it, too. Negative errno and a log line: the
 * process must end then. */
int sandbox_enter(const struct sandbox *s);

#endif
