#include "pool/vm_calls.h"

const struct handler_def vm_handlers[] = {
#define X(method, function) { M_##method, function },
	VM_CALLS(X)
#undef X
	{ 0, NULL },
};
