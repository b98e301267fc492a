/* Calls of many classes that are a few lines each. */
#include <string.h>

#include "pool/storage.h"

static void no_method_list(struct req *r)
{
	req_fail(r, "NOT_IMPLEMENTED", "list_method", NULL);
}

/* Consoles come and go with domains. */
static void no_console_create(struct req *r)
{
	req_fail(r, "NOT_IMPLEMENTED", "Console.create", NULL);
}

static void no_console_destroy(struct req *r)
{
	req_fail(r, "NOT_IMPLEMENTED", "Console.destroy", NULL);
}

/* There is none that could be. */
static void pool_disable_ha(struct req *r)
{
	req_fail(r, "HA_NOT_ENABLED", NULL);
}

static void host_power_on(struct req *r)
{
	struct record *host = req_arg_record(r, 0, CLASS_host);

	if (!host)
		return;
	if (host_counts_live(r->pool, host))
		req_fail(r, "HOST_IS_LIVE", value_str(host->ref), NULL);
	else if (!*record_str(host, F_host_power_on_mode))
		req_fail(r, "HOST_POWER_ON_MODE_DISABLED", NULL);
	else
		req_fail(r, "XENAPI_MISSING_PLUGIN", "power-on-host", NULL);
}

static void secret_introduce(struct req *r)
{
	const char *uuid = req_arg_str(r, 0);
	struct value *ref;
	struct draft d;

	if (!uuid_valid(uuid, strlen(uuid))) {
		req_fail(r, "UUID_INVALID", "secret", uuid, NULL);
		return;
	}
	draft_create(&d, req_txn(r), CLASS_secret, uuid);
	draft_copy(&d, F_secret_value, req_arg(r, 1));
	draft_copy(&d, F_secret_other_config, req_arg(r, 2));
	ref = value_ref(d.now->ref);
	draft_write(&d);
	req_commit(r, d.t, ref);
}

const struct handler_def minor_handlers[] = {
	{ M_host_list_methods, no_method_list },
	{ M_console_create, no_console_create },
	{ M_console_destroy, no_console_destroy },
	{ M_pool_disable_ha, pool_disable_ha },
	{ M_host_power_on, host_power_on },
	{ M_secret_introduce, secret_introduce },
	/* Rows of these would promise what nothing here keeps. */
	{ M_Caller_create, req_not_implemented },
	{ M_Observer_create, req_not_implemented },
	{ M_PVS_cache_storage_create, req_not_implemented },
	{ M_Rate_limit_create, req_not_implemented },
	{ M_VMSS_create, req_not_implemented },
	{ -1, NULL },
};
