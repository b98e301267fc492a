/* Named places in the code at which a test lets a process die, stop, dawdle or
 * take another way. A process has them armed only when its environment says so
 * at its start; nothing that comes over a socket can. Unarmed, a point costs
 * one branch on a flag that never changes.
 *
 * XENPOOL_FAILPOINTS is a list of POINT=ACTION, with commas or white space
 * between:
 *
 *   crash      kill -9 of the process by itself
 *   stop       SIGSTOP of the process by itself
 *   delay:MS   the thread sleeps
 *   return:N   failpoint() returns N; its place says what that means
 *
 * ACTION@K happens at the K-th time that the point is reached, once; without @K
 * every time. "file:PATH" instead of a list: the list is in this file, which may
 * be replaced (by rename) while the process runs; counting begins anew then.
 * "list" prints the names of all points and ends the program. An empty list
 * arms nothing. docs/faults.md has the points.
 */
#ifndef BASE_FAILPOINT_H
#define BASE_FAILPOINT_H

#include "base/util.h"

enum failpoint_action {
	FAILPOINT_NONE,
	FAILPOINT_CRASH,
	FAILPOINT_STOP,
	FAILPOINT_DELAY,
	FAILPOINT_RETURN,
};

struct failpoint {
	const char *name;
	enum failpoint_action action;
	int64_t n;         /* of delay and return */
	uint64_t at, hits; /* at 0: every time */
};

extern bool failpoints_armed;

/* The point NAME, a literal that no other place has; 0, or what return:N says.
 * From any thread. The linker gathers the points of a program in a section. */
#define failpoint(NAME)                                              \
	({                                                           \
		static struct failpoint point_ = { .name = (NAME) }; \
		static struct failpoint *const listed_               \
			__attribute__((section("failpoints"), used)) = &point_; \
		__builtin_expect(failpoints_armed, 0) ?              \
			failpoint_hit(&point_) : 0;                  \
	})

int64_t failpoint_hit(struct failpoint *p);

/* Arms what spec (of the environment; may be NULL) says, with a warning in the
 * log. 1: the names were printed, end with 0. -EINVAL: an unknown point or
 * action, or a file that cannot be read; logged. Call before threads start;
 * borrows spec for good. */
int failpoints_start(const char *spec);

#endif
