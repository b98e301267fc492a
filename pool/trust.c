#include "pool/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static void put_text(char *out, size_t size, const char *s)
{
	snprintf(out, size, "%s", s ? s : "");
}

static const char *member_text(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) ||
	    !json_object_is_type(v, json_type_string))
		return "";
	return json_object_get_string(v);
}

static int member_parse(struct json_object *o, struct db_member *m)
{
	if (!json_object_is_type(o, json_type_object))
		return -EBADMSG;
	memset(m, 0, sizeof *m);
	m->id = strtoull(member_text(o, "raft_id"), NULL, 10);
	put_text(m->address, sizeof m->address, member_text(o, "peer_address"));
	put_text(m->fingerprint, sizeof m->fingerprint,
		 member_text(o, "fingerprint"));
	put_text(m->uuid, sizeof m->uuid, member_text(o, "uuid"));
	return m->id && *m->address && strlen(m->fingerprint) == 64 ?
		       0 : -EBADMSG;
}

static int parse(struct trust *t, struct json_object *root)
{
	size_t n;

	if (!json_object_is_type(root, json_type_array))
		return -EBADMSG;
	n = json_object_array_length(root);
	if (n > TRUST_MAX_MEMBERS)
		return -EBADMSG;
	t->members = xcalloc(n + 1, sizeof *t->members);
	for (t->n = 0; t->n < n; t->n++)
		if (member_parse(json_object_array_get_idx(root, t->n),
				 &t->members[t->n]) < 0)
			return -EBADMSG;
	return 0;
}

int trust_load(struct trust *t, const char *path)
{
	struct json_object *root;
	int r;

	*t = (struct trust){ .path = xstrdup(path) };
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	root = json_object_from_file(path);
	r = parse(t, root);
	json_object_put(root);
	if (r < 0) {
		t->n = 0;
		log_error("%s is damaged: restore it from another member, or "
			  "move the data folder away and join the pool again",
			  path);
	}
	return r;
}

void trust_deinit(struct trust *t)
{
	free(t->path);
	free(t->members);
}

const struct db_member *trust_find(const struct trust *t, const char *fingerprint)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->members[i].fingerprint, fingerprint))
			return &t->members[i];
	return NULL;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_(freep) char *tmp = xasprintf("%s.tmp", path);
	size_t n = strlen(text);
	int fd, r = 0;

	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, n) != (ssize_t)n || fsync(fd) < 0)
		r = errno ? -errno : -EIO;
	close(fd);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	return r;
}

static int write_json(const char *path, struct json_object *root)
{
	int r = write_file(path, json_object_to_json_string_ext(
					 root, JSON_C_TO_STRING_PRETTY));

	if (r < 0)
		log_error("cannot write %s: %s", path, strerror(-r));
	return r;
}

static void add(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static struct json_object *member_json(const struct db_member *m)
{
	struct json_object *o = json_object_new_object();
	char id[24];

	snprintf(id, sizeof id, "%llu", (unsigned long long)m->id);
	add(o, "raft_id", id);
	add(o, "peer_address", m->address);
	add(o, "fingerprint", m->fingerprint);
	add(o, "uuid", m->uuid);
	return o;
}

int trust_replace(struct trust *t, const struct db_member *members, size_t n)
{
	struct json_object *root;
	int r;

	n = MIN(n, (size_t)TRUST_MAX_MEMBERS);
	if (n == t->n && !memcmp(t->members, members, n * sizeof *members))
		return 0;
	free(t->members);
	t->members = xcalloc(n + 1, sizeof *members);
	memcpy(t->members, members, n * sizeof *members);
	t->n = n;
	root = json_object_new_array();
	for (size_t i = 0; i < n; i++)
		json_object_array_add(root, member_json(&members[i]));
	r = write_json(t->path, root);
	json_object_put(root);
	return r;
}

int trust_write_value(const char *path, const struct value *members)
{
	struct json_object *root = json_object_new_array();
	int r;

	for (uint32_t i = 0; i < members->n && i < TRUST_MAX_MEMBERS; i++) {
		struct json_object *o = json_object_new_object();
		const struct value *m = members->items[i];

		add(o, "raft_id", value_get_str(m, "raft_id"));
		add(o, "peer_address", value_get_str(m, "peer_address"));
		add(o, "fingerprint", value_get_str(m, "fingerprint"));
		add(o, "uuid", value_get_str(m, "uuid"));
		json_object_array_add(root, o);
	}
	r = write_json(path, root);
	json_object_put(root);
	return r;
}
