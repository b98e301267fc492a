/* From a job's verb and params to an operation of the backend. */
#ifndef XEN_VERBS_H
#define XEN_VERBS_H

#include "xen/xen_ops.h"

#define DIRS_MAX 8

/* Folders of the host; none: any. Borrowed, without / at the end. */
struct dirs {
	const char *dir[DIRS_MAX];
	size_t n;
};

/* What root may open because a job names it. Nobody but root must be able to
 * write these folders: links in them are followed. */
struct allowed {
	struct dirs images;  /* of suspended VMs, right in the folder */
	struct dirs kernels; /* kernels and ramdisks, at any depth */
	struct dirs disks;   /* at any depth */
};

struct verb_run {
	const struct xen_ops *ops;
	struct xen *xen;
	struct xen_call *call;
	const struct value *params; /* borrowed; nothing is believed yet */
	const struct allowed *allowed;
	struct value *result; /* set by the run; NULL: an empty struct */
};

struct verb;

/* NULL if unknown. */
const struct verb *verb_find(const char *name);
const char *verb_name(const struct verb *v);
/* False: it touches no domain, and a job of any fence may do it. */
bool verb_is_fenced(const struct verb *v);
/* As an operation of xen_ops; bad params are INVALID_VALUE. */
int verb_run(const struct verb *v, struct verb_run *r);

#endif
