/* The file of a suspended VM that nobody will resume: removed by the host that
 * has it, by a job of that host's own, written with the transaction that lets go
 * of the image, or that says that a suspend has failed. Such a job has no VM (it may
 * be gone too) and waits as long as its host is away.
 *
 * params: image (the file), vm (a uuid: whose image it is), before (see job.h).
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "pool/core.h"
#include "pool/job.h"
#include "pool/storage.h"

#define SUFFIX ".image"

char *job_image_path(const struct pool *p, const struct record *vm)
{
	return xasprintf("%s/%s" SUFFIX,
			 p->cfg.image_dir ? p->cfg.image_dir : "",
			 record_str(vm, F_VM_uuid));
}

/* The VM's uuid out of an image's path; false when we made no such path. */
static bool whose_image(const char *path, char out[UUID_LEN + 1])
{
	const char *name = strrchr(path, '/');

	if (!name || strlen(name + 1) != UUID_LEN + strlen(SUFFIX) ||
	    strcmp(name + 1 + UUID_LEN, SUFFIX) != 0)
		return false;
	memcpy(out, name + 1, UUID_LEN);
	out[UUID_LEN] = '\0';
	return uuid_valid(out, UUID_LEN);
}

static void drop_by_job(const struct pool *p, struct txn *t,
			struct record *host, const char *path, const char *vm)
{
	struct job_spec spec = { .kind = "drop_image", .step = "run",
				 .host = host, .task = "", .author = "image" };

	job_create(p, t, NULL, &spec,
		   value_map_of("image", value_stringz(path), "vm",
				value_stringz(vm), NULL), NULL);
}

bool job_image_drop(const struct pool *p, struct txn *t, const char *vdi_ref)
{
	const struct store *s = p->hooks.store(p->hooks.data);
	const struct record *vdi = store_get_class(s, CLASS_VDI, vdi_ref);
	const struct value *config = vdi ? vdi->fields[F_VDI_sm_config] : NULL;
	struct record *host;
	char vm[UUID_LEN + 1];

	if (!vdi || !value_is_str(vdi->fields[F_VDI_type], "suspend") ||
	    !whose_image(value_get_str(config, "path"), vm))
		return false;
	host = store_by_uuid(s, CLASS_host, value_get_str(config, "host"));
	if (host)
		drop_by_job(p, t, host, value_get_str(config, "path"), vm);
	return true;
}

void job_image_unmade(struct job_end *e)
{
	_cleanup_(freep) char *path = job_image_path(e->p, e->vm.now);
	struct record *host = job_host(e, F_job_host);

	if (host)
		drop_by_job(e->p, e->t, host, path,
			    record_str(e->vm.now, F_VM_uuid));
}

/* Whether another suspend has written the file anew; a client may also have
 * named it in a disk of its own making. */
static bool is_wanted(const struct store *s, const struct record *host,
		      const char *path)
{
	struct rows it = rows_of(s, CLASS_VDI);
	struct record *vdi;

	while ((vdi = rows_next(&it))) {
		const struct value *c = vdi->fields[F_VDI_sm_config];

		if (!strcmp(value_get_str(c, "path"), path) &&
		    !strcmp(value_get_str(c, "host"),
			    record_str(host, F_host_uuid)))
			return true;
	}
	return false;
}

enum job_go job_image_may_go(const struct store *s, const struct record *job)
{
	const struct value *params = job->fields[F_job_params];
	const struct record *host = store_get_class(s, CLASS_host,
						    record_str(job,
							       F_job_host));
	const struct record *vm = store_by_uuid(s, CLASS_VM,
						value_get_str(params, "vm"));

	/* It may be on its way into this very file, or out of it. */
	if (vm && job_of_vm(s, value_str(vm->ref)))
		return JOB_WAITS;
	if (!host || is_wanted(s, host, value_get_str(params, "image")))
		return JOB_IS_VOID;
	return JOB_MAY_GO;
}

struct value *job_image_params(const struct pool *p, const struct record *job,
			       const struct record *vm)
{
	const struct value *params = job->fields[F_job_params];
	const char *text = value_get_str(params, JOB_IMAGE_BEFORE);
	struct value *image = value_ref(value_get(params, "image"));
	int64_t before;

	if (!int_parse(text, strlen(text), &before))
		return value_struct_of("image", image, NULL);
	return value_struct_of("image", image, "before", value_int(before),
			       NULL);
}

void job_image_dropped(struct job_end *e)
{
}

void job_image_stays(struct job_end *e)
{
	const struct record *host = job_host(e, F_job_host);
	const char *path = value_get_str(e->job->fields[F_job_params], "image");
	const char *code = value_str(e->error->items[0]);
	_cleanup_(freep) char *body = NULL;

	body = xasprintf(
		"The image %s of a VM that is not suspended any more could not "
		"be removed: %s", path, code);

	log_error("the image %s could not be removed: %s", path, code);
	if (host)
		message_create(e->t, "SUSPEND_IMAGE_NOT_REMOVED", 3, "Host",
			       record_str(host, F_host_uuid), body);
}
