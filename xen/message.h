/* The form of the messages of xen/protocol.h: checked on both sides before
 * anyone looks into one. */
#ifndef XEN_MESSAGE_H
#define XEN_MESSAGE_H

#include "xen/protocol.h"

enum exec_direction { EXEC_TO_EXECUTOR, EXEC_TO_DAEMON };

#define EXEC_MAX_ID 128 /* bytes of a job's id */

/* NULL, and why in reason, when the packet is not one whole value of a form
 * that this direction knows, or has a string that is not valid text. */
struct value *exec_message_decode(enum exec_direction dir, const void *p,
				  size_t n, char *reason, size_t reason_size);
/* The same for a value that is there already. */
bool exec_message_check(enum exec_direction dir, const struct value *v,
			char *reason, size_t reason_size);
/* Appends to b. -E2BIG: longer than EXEC_MAX_MESSAGE. */
int exec_message_encode(struct buf *b, const struct value *v);

#endif
