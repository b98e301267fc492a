/* Who may call what. A session holds the names of its permissions; local
 * superusers and pool sessions hold them all. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "pool/core.h"

const struct field_def *rbac_keyed_field(const struct method_def *m)
{
	static const char *const prefixes[] = { "add_to_", "remove_from_" };
	const struct class_def *c = &schema_classes[m->cls];
	const char *verb = strchr(m->name, '.');

	for (size_t i = 0; verb && i < ARRAY_LEN(prefixes); i++) {
		size_t n = strlen(prefixes[i]);
		int f;

		if (strncmp(verb + 1, prefixes[i], n))
			continue;
		f = schema_field(c, verb + 1 + n, strlen(verb + 1 + n));
		return f < 0 ? NULL : &c->fields[f];
	}
	return NULL;
}

static bool key_matches(const char *pattern, const char *key)
{
	size_t n = strlen(pattern);

	if (n > 0 && pattern[n - 1] == '*')
		return strncasecmp(pattern, key, n - 1) == 0;
	return strcasecmp(pattern, key) == 0;
}

static const struct map_key_role *guard_of(const struct field_def *f,
					   const char *key)
{
	for (unsigned i = 0; i < f->n_map_keys; i++)
		if (key_matches(f->map_keys[i].key, key))
			return &f->map_keys[i];
	return NULL;
}

static const struct map_key_role *guarded_key(const struct method_def *m,
					      struct value *const *args,
					      unsigned n_args)
{
	const struct field_def *f = rbac_keyed_field(m);

	return f && n_args >= 2 ? guard_of(f, value_str(args[1])) : NULL;
}

static void put_lower(struct buf *b, const char *s)
{
	for (; *s; s++)
		buf_putc(b, (char)tolower((unsigned char)*s));
}

void rbac_permission(const struct method_def *m, struct value *const *args,
		     unsigned n_args, struct buf *ret)
{
	const struct map_key_role *key = guarded_key(m, args, n_args);

	put_lower(ret, m->name);
	if (key) {
		buf_puts(ret, "/key:");
		put_lower(ret, key->key);
	}
}

bool rbac_may(const struct record *session, const char *permission)
{
	const struct value *set = session->fields[F_session_rbac_permissions];

	if (record_bool(session, F_session_is_local_superuser) ||
	    record_bool(session, F_session_pool))
		return true;
	for (unsigned i = 0; i < set->n; i++)
		if (value_is_str(set->items[i], permission))
			return true;
	return false;
}

struct value *rbac_denied(const char *permission)
{
	_cleanup_(value_unrefp) struct value *roles =
		role_names_with(permission);
	struct buf text = BUF_INIT;
	struct value *error;

	buf_puts(&text, "No permission in user session. "
			"(Roles with this permission: ");
	for (unsigned i = 0; i < roles->n; i++) {
		buf_puts(&text, i ? ", " : "");
		buf_puts(&text, value_str(roles->items[i]));
	}
	buf_puts(&text, ")");
	error = api_error("RBAC_PERMISSION_DENIED", permission,
			  buf_cstr(&text), NULL);
	buf_deinit(&text);
	return error;
}

static bool is_all_mighty(const struct record *session)
{
	return !session || record_bool(session, F_session_is_local_superuser) ||
	       record_bool(session, F_session_pool);
}

/* The error of keys of `there` that differ in `other`, NULL: there is none. */
static struct value *differing_error(const struct record *session,
				     const struct class_def *c, unsigned field,
				     const struct value *there,
				     const struct value *other)
{
	const struct field_def *f = &c->fields[field];
	struct value *error = NULL;

	for (uint32_t i = 0; there && i < there->n && !error; i++) {
		const char *key = value_str(there->items[2 * i]);
		const struct map_key_role *guard = guard_of(f, key);
		const struct value *v = other ? value_get(other, key) : NULL;
		struct buf permission = BUF_INIT;

		if (!guard || (v && value_equal(v, there->items[2 * i + 1])))
			continue;
		put_lower(&permission, c->name);
		buf_puts(&permission, ".add_to_");
		put_lower(&permission, f->name);
		buf_puts(&permission, "/key:");
		put_lower(&permission, guard->key);
		if (!rbac_may(session, buf_cstr(&permission)))
			error = rbac_denied(buf_cstr(&permission));
		buf_deinit(&permission);
	}
	return error;
}

struct value *rbac_map_error(const struct record *session,
			     const struct class_def *c, unsigned field,
			     const struct value *before,
			     const struct value *after)
{
	struct value *error;

	if (is_all_mighty(session) || c->fields[field].n_map_keys == 0)
		return NULL;
	error = differing_error(session, c, field, after, before);
	return error ? error :
		       differing_error(session, c, field, before, after);
}

/* A record that something is made from may have no key in it that the caller
 * could not add afterwards. */
static struct value *record_error(const struct record *session,
				  const struct method_def *m,
				  struct value *const *args, unsigned n_args)
{
	struct value *error = NULL;

	for (unsigned i = 0; i < n_args && i < m->n_params; i++) {
		const struct type *type = m->params[i].type;
		const struct class_def *c;

		if (type->kind != TYPE_RECORD)
			continue;
		c = &schema_classes[type->id];
		for (unsigned f = 0; f < c->n_fields && !error; f++)
			error = rbac_map_error(
				session, c, f, NULL,
				value_get(args[i], c->fields[f].name));
	}
	return error;
}

struct value *rbac_check(const struct record *session, const struct method_def *m,
			 struct value *const *args, unsigned n_args)
{
	struct buf permission = BUF_INIT;
	struct value *error = NULL;

	if (is_all_mighty(session))
		return NULL;
	rbac_permission(m, args, n_args, &permission);
	if (!rbac_may(session, buf_cstr(&permission)))
		error = rbac_denied(buf_cstr(&permission));
	buf_deinit(&permission);
	return error ? error : record_error(session, m, args, n_args);
}
