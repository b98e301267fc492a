/* From a job's verb and params to an operation of the backend. */
#ifndef XEN_VERBS_H
#define XEN_VERBS_H

#include "xen/xen_ops.h"

struct verb_run {
	const struct xen_ops *ops;
	struct xen *xen;
	struct xen_call *call;
	const struct value *params; /* borrowed; nothing is believed yet */
	/* Folders that images may be in; none: anywhere. */
	const char *const *image_dirs;
	size_t n_image_dirs;
	struct value *result; /* set by the run; NULL: an empty struct */
};

struct verb;

/* NULL if unknown. */
const struct verb *verb_find(const char *name);
const char *verb_name(const struct verb *v);
/* As an operation of xen_ops; bad params are INVALID_VALUE. */
int verb_run(const struct verb *v, struct verb_run *r);

#endif
