/* Messages between xenpoold and its host's executor, over a Unix SOCK_SEQPACKET
 * socket: one packet is one value_encode()d struct, at most
 * EXEC_MAX_MESSAGE bytes. Either side drops the connection on a packet that
 * does not decode or lacks a member that its type demands.
 *
 * Daemon to executor:
 *   type=hello    protocol=1 host=<uuid>
 *   type=job      id=<text, echoed> verb=<below> vm=<uuid> fence=<int>
 *                 params=<struct, by verb>
 *   type=cancel   id=...            the job should end early (EXEC cancelled)
 *   type=list                       answered by one `state`
 *   type=console  id vm raw:bool    a stream to the VM's console, or to the
 *                                   host's when vm is ""; raw: a text console
 *                                   as it is, not as RFB; answered by one
 *                                   `console`, in any order
 * Executor to daemon:
 *   type=state    boot_id=<text: changes when the hypervisor restarted>
 *                 domains=[{vm, domid, state: running|paused|shutdown, fence,
 *                           memory_kib, vcpus, incoming: bool,
 *                           guest_ticks: ms that the guest has run, -1 if not
 *                           known, reason: why it is shut down, else ""}]
 *                 host={memory_total, memory_free (bytes), cpu_count,
 *                       cpu_model, cpu_vendor, cpu_mhz, xen_version, backend,
 *                       and 0 or "" when not known: cpu={sockets, nodes,
 *                       cores_per_socket, threads_per_core, family, model,
 *                       stepping, flags, features}, boot_time (Unix s),
 *                       capabilities, scheduler, kernel, dom0_memory (bytes),
 *                       dom0_vcpus}
 *                 sent after hello, on list, and every 5 seconds
 *   type=done     id vm ok=<bool> error=[CODE, params...] result=<struct>
 *   type=progress id progress=<float 0..1>
 *   type=guest    vm domid metrics={PV_drivers_version, os_version,
 *                 netbios_name, memory, networks, other: maps of strings;
 *                 can_use_hotplug_vbd, can_use_hotplug_vif: yes|no|unspecified;
 *                 PV_drivers_detected: bool}
 *                 what a guest tells of itself, when it is news and at most
 *                 every 2 s a guest; all guests' after hello
 *   type=domain   vm domid event=shutdown|reboot|crash|gone
 *   type=console  id ok error=[CODE, params...]; when ok, a descriptor comes
 *                 with the packet (SCM_RIGHTS): a connected stream socket that
 *                 carries RFB or the guest's own bytes. It ends when the domain
 *                 or the process that serves it does.
 *
 * A job with a fence lower than the highest seen for its VM is refused with
 * error [FENCED, vm, given, highest]. A job that was done already answers as if
 * it had just been done (start of a running VM: ok with its domid). Jobs of one
 * VM run one at a time, in order.
 *
 * An id names one job: sent again while it waits or runs nothing happens, and
 * when it ended lately (1024 are kept) its `done` comes again. A daemon that
 * lost the connection sends the jobs again whose `done` it has not seen: an
 * executor that was killed or told to stop forgets what it was doing.
 *
 * Errors are the API's, with the VM's uuid where the API has a reference:
 * VM_BAD_POWER_STATE, HOST_NOT_ENOUGH_FREE_MEMORY [needed, available] in bytes,
 * VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT, VM_SHUTDOWN_TIMEOUT [vm, seconds],
 * SUSPEND_IMAGE_NOT_ACCESSIBLE [path], VM_MIGRATE_FAILED [vm, source,
 * destination, text], DEVICE_DETACH_TIMEOUT [VBD or VIF, number],
 * VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED,
 * OTHER_OPERATION_IN_PROGRESS (a copy that a migration holds), TASK_CANCELLED
 * [job id], INVALID_VALUE [param, text], NOT_IMPLEMENTED [verb],
 * TOO_MANY_PENDING_TASKS, INTERNAL_ERROR [text]; and FENCED.
 *
 * Verbs, their params and results:
 *   start      config, paused:bool            -> domid
 *   pause, unpause
 *   clean_shutdown timeout_s                  -> (ends with the domain gone)
 *   hard_shutdown                             (ok also when there is none)
 *   clean_reboot timeout_s, config            -> domid
 *   hard_reboot  config                       -> domid
 *   set_xenstore xenstore: map                (nodes below the domain's
 *                                             directory, all under vm-data/ or
 *                                             FIST/; they replace those that
 *                                             are there)
 *   change     one of plug_disk: disk, unplug_disk: number, set_medium: disk
 *              (path "": taken out), plug_vif: vif, unplug_vif: number,
 *              memory: bytes, vcpus: int; force:bool (false; a device goes
 *              though its guest does not let go)
 *   suspend    image:<path>, timeout_s        (domain gone, image written)
 *   resume     image, config, paused          -> domid
 *   drop_image image, before: Unix s (any)    (of a VM that shall not resume;
 *                                             ok also when there is none, and
 *                                             when it was written later: then
 *                                             it stays; of any fence, and
 *                                             raises none)
 *   migrate_receive config                    -> domid (-1: not known yet),
 *                                             address, port, token
 *   migrate_send address, port, token, live:bool (true; false stops the guest
 *                                             for the whole copy; domain kept
 *                                             paused here; on failure it runs
 *                                             on)
 *   migrate_activate                          -> domid (incoming one unpaused,
 *                                             unless it was paused before)
 *   migrate_abort                             (source: unpaused again if it was
 *                                             ours; incoming copy: destroyed,
 *                                             refused once it was activated)
 *   migrate_finish                            (source's paused copy destroyed;
 *                                             refused when it was not sent)
 * Until then no other verb but hard_shutdown moves either copy. A VM does not
 * migrate to the host where it is.
 *
 * config: {name, uuid, memory_static_max, memory_target (bytes), vcpus,
 *   vcpus_max, domain_type: hvm|pv|pvh, kernel, ramdisk, args, bootloader,
 *   on_shutdown, on_reboot, on_crash, xenstore: map, platform: map,
 *   other_config: map, hvm_boot: map {order, firmware},
 *   disks: [disk], vifs: [vif]}
 * disk: {number (0 is xvda), path ("": an empty drive), format: raw|qcow2|vhd,
 *   readonly:bool, cdrom:bool}   in the order in which a bootloader looks
 * vif: {number, mac, bridge, mtu}
 * The simulated Xen reads other_config keys "sim:start_ms", "sim:shutdown_ms",
 * "sim:migrate_ms" (delays), "sim:list_ms" (that it takes to list the domains
 * while this one is there), "sim:fail" (a verb that fails with
 * INTERNAL_ERROR), "sim:ignore_shutdown" (a guest that never answers, nor lets
 * go of a device), and
 * "sim:guest" (agent, none, or flood: 8000 nodes of 2 KiB that change always),
 * "sim:event" (what a guest does by itself: shutdown, reboot, crash, gone) with
 * "sim:event_ms" (after so much running; 1000).
 */
#ifndef XEN_PROTOCOL_H
#define XEN_PROTOCOL_H

#include "schema/value.h"

#define EXEC_MAX_MESSAGE (256 * 1024)
#define EXEC_PROTOCOL 1

struct exec_client;

struct exec_client_callbacks {
	void *data;
	/* Borrowed message, checked for form. *fd came with it, -1 if none did;
	 * it is closed afterwards unless it is taken (set to -1). */
	void (*message)(void *data, const struct value *msg, int *fd);
	/* The executor came, or went away: tried again every 200 ms. */
	void (*connected)(void *data, bool up);
};

#include <uv.h>

/* Daemon's side, on the core loop: connects to the executor's socket, says
 * hello, reconnects for ever. */
int exec_client_start(uv_loop_t *loop, const char *socket_path,
		      const char *host_uuid,
		      const struct exec_client_callbacks *cb,
		      struct exec_client **ret);
/* 0 or -ENOTCONN / -E2BIG. */
int exec_client_send(struct exec_client *c, const struct value *msg);
void exec_client_close(struct exec_client *c);

#endif
