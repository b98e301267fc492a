/* Calls of the class pool. */
#ifndef POOL_MEMBER_CALLS_H
#define POOL_MEMBER_CALLS_H

#include "pool/vm.h"

/* member_join.c */
void pool_join(struct req *r);
void pool_join_force(struct req *r);
/* Private: a newcomer's host tells what it is. Params: its description and
 * its software_version; result: all members, a set of maps. */
void member_register(struct req *r);
/* console.c */
void member_open_console(struct req *r);
void host_set_console_idle_timeout(struct req *r);
void pool_set_console_idle_timeout(struct req *r);
extern const struct pool_module console_module;

#endif
