/* All calls of the classes VM, VBD and VIF that have a handler of their own. */
#ifndef POOL_VM_CALLS_H
#define POOL_VM_CALLS_H

#include "pool/vm.h"

#define VM_CALLS(X)                                               \
	/* vm_life.c */                                           \
	X(VM_start, vm_start)                                     \
	X(VM_start_on, vm_start_on)                               \
	X(VM_resume, vm_resume)                                   \
	X(VM_resume_on, vm_resume_on)                             \
	X(VM_pause, vm_life)                                      \
	X(VM_unpause, vm_life)                                    \
	X(VM_clean_shutdown, vm_life)                             \
	X(VM_hard_shutdown, vm_life)                              \
	X(VM_shutdown, vm_life)                                   \
	X(VM_clean_reboot, vm_life)                               \
	X(VM_hard_reboot, vm_life)                                \
	X(VM_suspend, vm_life)                                    \
	X(VM_pool_migrate, vm_pool_migrate)                       \
	X(VM_power_state_reset, vm_power_state_reset)             \
	/* vm_create.c */                                         \
	X(VM_create, vm_create)                                   \
	X(VM_destroy, vm_destroy)                                 \
	X(VM_clone, vm_clone)                                     \
	X(VM_copy, vm_copy)                                       \
	X(VM_provision, vm_provision)                             \
	X(VM_set_is_a_template, vm_set_is_a_template)             \
	X(VM_set_is_default_template, vm_set_is_default_template) \
	/* vm_memory.c */                                         \
	X(VM_set_memory_static_max, vm_set_memory_static_max)     \
	X(VM_set_memory_static_min, vm_set_memory_static_min)     \
	X(VM_set_memory_static_range, vm_set_memory_static_range) \
	X(VM_set_memory_dynamic_max, vm_set_memory_dynamic_max)   \
	X(VM_set_memory_dynamic_min, vm_set_memory_dynamic_min)   \
	X(VM_set_memory_dynamic_range, vm_set_memory_dynamic_range) \
	X(VM_set_memory_limits, vm_set_memory_limits)             \
	X(VM_set_memory, vm_set_memory)                           \
	X(VM_set_memory_target_live, vm_nothing)                  \
	X(VM_set_VCPUs_max, vm_set_VCPUs_max)                     \
	X(VM_set_VCPUs_number_live, vm_set_VCPUs_number_live)     \
	X(VM_set_VCPUs_at_startup, vm_set_VCPUs_at_startup)       \
	X(VM_set_HVM_shadow_multiplier, vm_set_shadow_multiplier) \
	/* vm_config.c */                                         \
	X(VM_set_HVM_boot_policy, vm_set_boot_policy)             \
	X(VM_set_domain_type, vm_set_domain_type)                 \
	X(VM_set_actions_after_crash, vm_set_plain)               \
	X(VM_set_other_config, vm_set_plain)                      \
	X(VM_add_to_other_config, vm_add_to)                      \
	X(VM_remove_from_other_config, vm_remove_from)            \
	X(VM_set_platform, vm_set_plain)                          \
	X(VM_add_to_platform, vm_add_to)                          \
	X(VM_remove_from_platform, vm_remove_from)                \
	X(VM_set_blocked_operations, vm_set_plain)                \
	X(VM_add_to_blocked_operations, vm_add_to)                \
	X(VM_remove_from_blocked_operations, vm_remove_from)      \
	X(VM_set_NVRAM, vm_set_halted)                            \
	X(VM_add_to_NVRAM, vm_add_to)                             \
	X(VM_remove_from_NVRAM, vm_remove_from)                   \
	X(VM_set_has_vendor_device, vm_set_halted)                \
	X(VM_set_order, vm_set_not_negative)                      \
	X(VM_set_start_delay, vm_set_not_negative)                \
	X(VM_set_shutdown_delay, vm_set_not_negative)             \
	X(VM_set_bios_strings, vm_set_bios_strings)               \
	X(VM_set_ha_restart_priority, vm_set_ha_restart_priority) \
	X(VM_set_ha_always_run, vm_nothing)                       \
	X(VM_set_suspend_VDI, vm_set_suspend_vdi)                 \
	/* vm_query.c */                                          \
	X(VM_assert_operation_valid, vm_assert_operation_valid)   \
	X(VM_update_allowed_operations, vm_update_allowed_operations) \
	X(VM_get_allowed_VBD_devices, vm_get_allowed_vbd_devices) \
	X(VM_get_allowed_VIF_devices, vm_get_allowed_vif_devices) \
	X(VM_assert_can_boot_here, vm_assert_can_boot_here)       \
	X(VM_get_possible_hosts, vm_get_possible_hosts)           \
	X(VM_assert_agile, vm_assert_agile)                       \
	X(VM_maximise_memory, vm_maximise_memory)                 \
	X(VM_compute_memory_overhead, vm_compute_memory_overhead) \
	X(VM_get_boot_record, vm_get_boot_record)                 \
	X(VM_get_cooperative, vm_get_cooperative)                 \
	X(VM_wait_memory_target_live, vm_wait_memory_target_live) \
	/* vm_sources.c */                                        \
	X(VM_get_data_sources, vm_get_data_sources)               \
	X(VM_query_data_source, vm_query_data_source)             \
	/* vm_plug.c */                                           \
	X(VBD_plug, vbd_plug)                                     \
	X(VBD_unplug, vbd_unplug)                                 \
	X(VBD_unplug_force, vbd_unplug_force)                     \
	X(VBD_insert, vbd_insert)                                 \
	X(VBD_eject, vbd_eject)                                   \
	X(VIF_plug, vif_plug)                                     \
	X(VIF_unplug, vif_unplug)                                 \
	X(VIF_unplug_force, vif_unplug_force)                     \
	/* vm_device.c */                                         \
	X(VBD_create, vbd_create)                                 \
	X(VBD_destroy, vbd_destroy)                               \
	X(VBD_set_mode, vbd_set_mode)                             \
	X(VIF_create, vif_create)                                 \
	X(VIF_destroy, vif_destroy)

#define X(method, function) void function(struct req *r);
VM_CALLS(X)
#undef X

/* vm_device.c, vm_draft.c */
#define VM_MAX_DEVICE 254 /* disks and cards, each from 0 on */
/* "0", "xvda", "hdb", "sdc", "xvdaa" as a number; -1 when it is none. */
int vbd_number(const char *userdevice);
/* Whether the domain is given the device: all when it is booted, later those
 * that are attached. */
bool vm_device_is_wanted(const struct record *vm, const struct record *device,
			 unsigned attached_field);
/* Writes the device with its allowed_operations, and those of the disks that
 * its change is about. */
void draft_write_vbd(struct draft *d, const struct store *s,
		     const struct record *vm);
void draft_write_vif(struct draft *d, const struct record *vm);
/* OTHER_OPERATION_IN_PROGRESS while the VM is on its way, or NULL. */
struct value *vm_moving_error(const struct record *vm);
bool vm_is_stopping(const struct record *vm);
/* Why the drive's disk cannot be used now: others use it, or it is read-only. */
struct value *vbd_disk_error(const struct store *s, const struct record *vbd);
/* Commits t and a job of job_change.c on host, and waits for it. vm_draft is
 * t's; params are taken. */
void change_start_job(struct req *r, struct txn *t, struct record *vm,
		      struct draft *vm_draft, struct record *host,
		      const char *kind, struct value *params);
/* job_device.c: bytes that the card gets when it is plugged, and its row says
 * then: other_config:mtu, else the network's. */
int64_t vif_mtu(const struct store *s, const struct record *vif);
/* vm_query.c: as near as VM.wait_memory_target_live waits for; actual in bytes. */
bool vm_memory_is_at_target(const struct record *vm, int64_t actual);
/* vm_create.c: takes over what a create call's struct gives, but for fields
 * that ignored() names. */
void draft_take_args(struct draft *d, const struct value *args,
		     bool (*ignored)(unsigned field));
void vm_add_metrics(struct draft *vm, int64_t install_time);

#endif
