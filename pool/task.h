/* Tasks' state, shared by task.c and task_gc.c. */
#ifndef POOL_TASK_H
#define POOL_TASK_H

#include "pool/core.h"

struct task_state {
	struct pool_timer gc;
	struct map old; /* pending for a day: ref -> struct old_task */
	unsigned pass;
	struct pool_timer leftovers;
	bool leftovers_done, leftovers_busy;
};

void task_gc_init(struct pool *p);
void task_gc_deinit(struct pool *p);
/* Ends, once after a start, this host's tasks that its last run left behind. */
void task_leftovers_begin(struct pool *p);

#endif
