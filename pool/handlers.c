/* All handler tables and modules, in the order in which they are asked: a later
 * table wins over an earlier one for the same method. */
#include "pool/core.h"
#include "pool/member_calls.h"
#include "pool/storage.h"
#include "pool/vm.h"

extern const struct handler_def plugin_handlers[];

const struct handler_def *const pool_handlers[] = {
	session_handlers, role_handlers,   task_handlers,
	event_handlers,   message_handlers, vm_handlers,
	job_handlers,     host_handlers,   member_handlers,
	pool_class_handlers, plugin_handlers, sr_handlers, pbd_handlers,
	vdi_handlers,     network_handlers, minor_handlers, NULL,
};

const struct pool_module *const pool_modules[] = {
	&req_module, &session_module, &task_module,   &event_module,
	&job_module, &host_module,    &member_module, &guest_module,
	&console_module, NULL,
};
