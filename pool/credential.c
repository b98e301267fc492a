/* Local users' password hashes, rows of the private class credential. */
#include <string.h>

#include "pool/core.h"

struct record *credential_find(const struct pool *p, const char *name)
{
	struct rows it = rows_of(p->hooks.store(p->hooks.data),
				 CLASS_credential);
	struct record *r;

	while ((r = rows_next(&it)))
		if (!strcmp(record_str(r, F_credential_name), name))
			return r;
	return NULL;
}

void credential_create(struct txn *t, const char *name, const char *hash)
{
	const struct class_def *c = &schema_classes[CLASS_credential];
	char ref[REF_LEN + 1];

	row_create(t, CLASS_credential, NULL, ref);
	txn_set(t, c, ref, F_credential_name, value_stringz(name));
	txn_set(t, c, ref, F_credential_hash, value_stringz(hash));
}

void session_hash_first_password(struct pool *p, pool_password_cb cb, void *data)
{
	p->hooks.password(p->hooks.data, p->cfg.first_password, NULL, cb, data);
}
