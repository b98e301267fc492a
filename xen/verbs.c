#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "schema/call.h"
#include "xen/verbs.h"

#define DEFAULT_TIMEOUT_S 1200
#define MAX_TIMEOUT_S 86400

struct verb {
	const char *name;
	int (*run)(struct verb_run *r);
	bool (*later)(const struct xen_ops *ops); /* NULL: all have it */
};

int xen_fail_value(struct xen_call *c, struct value *error)
{
	if (c->error)
		value_unref(error);
	else
		c->error = error;
	return XEN_FAILED;
}

int xen_fail_aborted(struct xen_call *c)
{
	return xen_fail(c, "TASK_CANCELLED", "");
}

/* ---- params ---- */

static int bad(struct verb_run *r, const char *name, const char *what)
{
	return xen_fail(r->call, "INVALID_VALUE", name, what);
}

/* path is plain, so nothing in it leads out of dir. */
static bool path_is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && path[n] == '/' && path[n + 1];
}

static bool is_below_one(const struct dirs *dirs, const char *path)
{
	bool found = dirs->n == 0 || !*path;

	for (size_t i = 0; i < dirs->n && !found; i++)
		found = domain_path_plain(path) &&
			path_is_below(path, dirs->dir[i]);
	return found;
}

/* What root would open for a guest. */
static int check_paths(struct verb_run *r, const struct domain_config *c)
{
	const struct dirs *kernels = &r->allowed->kernels;

	if (!is_below_one(kernels, c->kernel))
		return bad(r, "config", "kernel: not in a folder for kernels");
	if (!is_below_one(kernels, c->ramdisk))
		return bad(r, "config", "ramdisk: not in a folder for kernels");
	for (size_t i = 0; i < c->n_disks; i++)
		if (!is_below_one(&r->allowed->disks, c->disks[i].path))
			return bad(r, "config",
				   "disks: not in a folder for disks");
	return 0;
}

static int param_config(struct verb_run *r, struct domain_config **ret)
{
	char reason[160];
	struct domain_config *c = domain_config_parse(
		value_get(r->params, "config"), reason, sizeof(reason));

	if (!c)
		return bad(r, "config", reason);
	if (strcmp(c->uuid, r->call->vm)) {
		domain_config_free(c);
		return bad(r, "config", "uuid: not this job's VM");
	}
	if (check_paths(r, c)) {
		domain_config_free(c);
		return XEN_FAILED;
	}
	*ret = c;
	return 0;
}

static int param_bool(struct verb_run *r, const char *name, bool *ret)
{
	const struct value *v = value_get(r->params, name);

	if (v && v->kind != VALUE_BOOL)
		return bad(r, name, "not a bool");
	*ret = v && v->i;
	return 0;
}

static int param_timeout(struct verb_run *r, int64_t *ret_ms)
{
	const struct value *v = value_get(r->params, "timeout_s");

	*ret_ms = DEFAULT_TIMEOUT_S * 1000;
	if (!v)
		return 0;
	if (v->kind != VALUE_INT || v->i < 0 || v->i > MAX_TIMEOUT_S)
		return bad(r, "timeout_s", "not an int in 0..86400");
	*ret_ms = v->i * 1000;
	return 0;
}

static bool path_is_in(const char *path, const char *dir)
{
	return path_is_below(path, dir) &&
	       !strchr(path + strlen(dir) + 1, '/');
}

static int param_image(struct verb_run *r, const char **ret)
{
	const struct value *v = value_get(r->params, "image");
	const struct dirs *dirs = &r->allowed->images;
	bool found = dirs->n == 0;

	if (!v || v->kind != VALUE_STRING || !domain_path_plain(v->s))
		return bad(r, "image", "not a plain absolute path");
	for (size_t i = 0; i < dirs->n; i++)
		found = found || path_is_in(v->s, dirs->dir[i]);
	if (!found)
		return bad(r, "image", "not in a folder for images");
	*ret = v->s;
	return 0;
}

static int param_text(struct verb_run *r, const char *name, char *out,
		      size_t size)
{
	const struct value *v = value_get(r->params, name);

	if (!v || v->kind != VALUE_STRING || v->n == 0 || v->n >= size)
		return bad(r, name, "missing, empty or too long");
	memcpy(out, v->s, v->n + 1);
	return 0;
}

static int param_ticket(struct verb_run *r, struct xen_ticket *ret)
{
	const struct value *port = value_get(r->params, "port");
	uint8_t secret[XEN_TOKEN_LEN / 2];

	if (param_text(r, "address", ret->address, sizeof(ret->address)) ||
	    param_text(r, "token", ret->token, sizeof(ret->token)))
		return XEN_FAILED;
	if (!port || port->kind != VALUE_INT || port->i < 1 || port->i > 65535)
		return bad(r, "port", "not an int in 1..65535");
	if (strlen(ret->token) != XEN_TOKEN_LEN ||
	    !hex_decode(ret->token, XEN_TOKEN_LEN, secret))
		return bad(r, "token", "malformed");
	ret->port = (uint16_t)port->i;
	return 0;
}

static int result_domid(struct verb_run *r, int rc, uint32_t domid)
{
	if (rc == 0)
		r->result = value_struct_of("domid", value_int(domid), NULL);
	return rc;
}

/* ---- verbs ---- */

static int run_start(struct verb_run *r)
{
	_cleanup_(domain_config_freep) struct domain_config *cfg = NULL;
	uint32_t domid = 0;
	bool paused;
	int rc;

	if (param_config(r, &cfg) || param_bool(r, "paused", &paused))
		return XEN_FAILED;
	rc = r->ops->start(r->xen, r->call, cfg, paused, &domid);
	return result_domid(r, rc, domid);
}

static int run_pause(struct verb_run *r)
{
	return r->ops->pause(r->xen, r->call);
}

static int run_unpause(struct verb_run *r)
{
	return r->ops->unpause(r->xen, r->call);
}

static int run_clean_shutdown(struct verb_run *r)
{
	int64_t ms;

	if (param_timeout(r, &ms))
		return XEN_FAILED;
	return r->ops->clean_shutdown(r->xen, r->call, ms);
}

static int run_hard_shutdown(struct verb_run *r)
{
	return r->ops->hard_shutdown(r->xen, r->call);
}

static int run_clean_reboot(struct verb_run *r)
{
	_cleanup_(domain_config_freep) struct domain_config *cfg = NULL;
	uint32_t domid = 0;
	int64_t ms;
	int rc;

	if (param_config(r, &cfg) || param_timeout(r, &ms))
		return XEN_FAILED;
	rc = r->ops->clean_reboot(r->xen, r->call, ms, cfg, &domid);
	return result_domid(r, rc, domid);
}

static int run_hard_reboot(struct verb_run *r)
{
	_cleanup_(domain_config_freep) struct domain_config *cfg = NULL;
	uint32_t domid = 0;
	int rc;

	if (param_config(r, &cfg))
		return XEN_FAILED;
	rc = r->ops->hard_reboot(r->xen, r->call, cfg, &domid);
	return result_domid(r, rc, domid);
}

static bool is_node_path(const struct value *key)
{
	const char *s = value_str(key);
	size_t n = strlen(s);

	return n > 0 && n <= DOMAIN_MAX_KEY && s[n - 1] != '/' &&
	       (!strncmp(s, "vm-data/", 8) || !strncmp(s, "FIST/", 5)) &&
	       !strstr(s, "//") &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789-/_@:.") == n;
}

static int run_set_xenstore(struct verb_run *r)
{
	const struct value *v = value_get(r->params, "xenstore");

	if (!v || v->kind != VALUE_MAP || v->n > DOMAIN_MAX_KEYS)
		return bad(r, "xenstore", "missing, no map or too large");
	for (uint32_t i = 0; i < v->n; i++) {
		const struct value *item = v->items[2 * (size_t)i + 1];

		if (!is_node_path(v->items[2 * (size_t)i]) ||
		    item->kind != VALUE_STRING || item->n > DOMAIN_MAX_ITEM)
			return bad(r, "xenstore", "not a node for a guest");
	}
	return r->ops->set_xenstore(r->xen, r->call, v);
}

static int run_change(struct verb_run *r)
{
	struct domain_change change;
	char reason[160];
	int rc;

	if (!domain_change_parse(r->params, &change, reason, sizeof(reason)))
		rc = bad(r, "change", reason);
	else if (change.disk.path &&
		 !is_below_one(&r->allowed->disks, change.disk.path))
		rc = bad(r, "change", "disk: not in a folder for disks");
	else
		rc = r->ops->change(r->xen, r->call, &change);
	domain_change_deinit(&change);
	return rc;
}

static int run_suspend(struct verb_run *r)
{
	const char *image;
	int64_t ms;

	if (param_image(r, &image) || param_timeout(r, &ms))
		return XEN_FAILED;
	return r->ops->suspend(r->xen, r->call, image, ms);
}

static int run_resume(struct verb_run *r)
{
	_cleanup_(domain_config_freep) struct domain_config *cfg = NULL;
	const char *image;
	uint32_t domid = 0;
	bool paused;
	int rc;

	if (param_image(r, &image) || param_config(r, &cfg) ||
	    param_bool(r, "paused", &paused))
		return XEN_FAILED;
	rc = r->ops->resume(r->xen, r->call, image, cfg, paused,
			    &domid);
	return result_domid(r, rc, domid);
}

static bool is_newer(const char *image, int64_t before)
{
	struct stat st;

	return lstat(image, &st) == 0 && st.st_mtime > before;
}

static int run_drop_image(struct verb_run *r)
{
	int64_t before = value_get_int(r->params, "before", INT64_MAX);
	const char *image;

	if (param_image(r, &image))
		return XEN_FAILED;
	if (is_newer(image, before)) {
		log_warn("%s stays: it was written after it was to be removed",
			 image);
		return 0;
	}
	return r->ops->drop_image(r->xen, r->call, image);
}

static int run_migrate_receive(struct verb_run *r)
{
	_cleanup_(domain_config_freep) struct domain_config *cfg = NULL;
	struct xen_ticket t = { 0 };
	uint32_t domid = 0;
	int rc;

	if (param_config(r, &cfg))
		return XEN_FAILED;
	rc = r->ops->migrate_receive(r->xen, r->call, cfg, &domid, &t);
	if (rc != 0)
		return rc;
	r->result = value_struct_of("domid",
				    value_int((int32_t)domid),
				    "address", value_stringz(t.address),
				    "port", value_int(t.port),
				    "token", value_stringz(t.token), NULL);
	return 0;
}

static int run_migrate_send(struct verb_run *r)
{
	struct xen_ticket t = { 0 };

	if (param_ticket(r, &t))
		return XEN_FAILED;
	t.live = true;
	if (value_get(r->params, "live") && param_bool(r, "live", &t.live))
		return XEN_FAILED;
	return r->ops->migrate_send(r->xen, r->call, &t);
}

static int run_migrate_activate(struct verb_run *r)
{
	uint32_t domid = 0;
	int rc = r->ops->migrate_activate(r->xen, r->call, &domid);

	return result_domid(r, rc, domid);
}

static int run_migrate_abort(struct verb_run *r)
{
	return r->ops->migrate_abort(r->xen, r->call);
}

static int run_migrate_finish(struct verb_run *r)
{
	return r->ops->migrate_finish(r->xen, r->call);
}

static bool can_set_xenstore(const struct xen_ops *ops)
{
	return ops->set_xenstore;
}

static bool can_change(const struct xen_ops *ops)
{
	return ops->change;
}

static const struct verb verbs[] = {
	{ "start", run_start, NULL },
	{ "pause", run_pause, NULL },
	{ "unpause", run_unpause, NULL },
	{ "clean_shutdown", run_clean_shutdown, NULL },
	{ "hard_shutdown", run_hard_shutdown, NULL },
	{ "clean_reboot", run_clean_reboot, NULL },
	{ "hard_reboot", run_hard_reboot, NULL },
	{ "set_xenstore", run_set_xenstore, can_set_xenstore },
	{ "change", run_change, can_change },
	{ "suspend", run_suspend, NULL },
	{ "resume", run_resume, NULL },
	{ "drop_image", run_drop_image, NULL },
	{ "migrate_receive", run_migrate_receive, NULL },
	{ "migrate_send", run_migrate_send, NULL },
	{ "migrate_activate", run_migrate_activate, NULL },
	{ "migrate_abort", run_migrate_abort, NULL },
	{ "migrate_finish", run_migrate_finish, NULL },
};

const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

bool verb_is_fenced(const struct verb *v)
{
	return v->run != run_drop_image;
}

const char *verb_name(const struct verb *v)
{
	return v->name;
}

int verb_run(const struct verb *v, struct verb_run *r)
{
	/* A backend may lack the later verbs. */
	if (v->later && !v->later(r->ops))
		return xen_fail(r->call, "NOT_IMPLEMENTED", v->name);
	return v->run(r);
}
