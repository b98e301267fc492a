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
 * Executor to daemon:
 *   type=state    boot_id=<text: changes when the hypervisor restarted>
 *                 domains=[{vm, domid, state: running|paused|shutdown, fence,
 *                           memory_kib, vcpus, incoming: bool}]
 *                 host={memory_total, memory_free (bytes), cpu_count,
 *                       cpu_model, cpu_vendor, cpu_mhz, xen_version, backend}
 *                 sent after hello, on list, and every 5 seconds
 *   type=done     id vm ok=<bool> error=[CODE, params...] result=<struct>
 *   type=progress id progress=<float 0..1>
 *   type=domain   vm domid event=shutdown|reboot|crash|gone
 *
 * A job with a fence lower than the highest seen for its VM is refused with
 * error [FENCED, ...]. A job that was done already answers as if it had just
 * been done (start of a running VM: ok with its domid). Jobs of one VM run one
 * at a time, in order.
 *
 * Verbs, their params and results:
 *   start      config, paused:bool            -> domid
 *   pause, unpause
 *   clean_shutdown timeout_s                  -> (ends with the domain gone)
 *   hard_shutdown                             (ok also when there is none)
 *   clean_reboot timeout_s, config            -> domid
 *   hard_reboot  config                       -> domid
 *   suspend    image:<path>, timeout_s        (domain gone, image written)
 *   resume     image, config, paused          -> domid
 *   migrate_receive config                    -> domid, address, port, token
 *   migrate_send address, port, token         -> (domain kept paused here)
 *   migrate_activate                          -> domid (incoming one unpaused)
 *   migrate_abort                             (source: unpaused again if it was
 *                                             ours; incoming copy: destroyed)
 *   migrate_finish                            (source's paused copy destroyed)
 *
 * config: {name, uuid, memory_static_max, memory_target (bytes), vcpus,
 *   vcpus_max, domain_type: hvm|pv|pvh, kernel, ramdisk, args, bootloader,
 *   on_shutdown, on_reboot, on_crash, xenstore: map, platform: map,
 *   other_config: map}
 * The simulated Xen reads other_config keys "sim:start_ms", "sim:shutdown_ms",
 * "sim:migrate_ms" (delays), "sim:fail" (a verb that fails with INTERNAL_ERROR)
 * and "sim:ignore_shutdown" (a guest that never answers).
 */
#ifndef XEN_PROTOCOL_H
#define XEN_PROTOCOL_H

#include "schema/value.h"

#define EXEC_MAX_MESSAGE (256 * 1024)
#define EXEC_PROTOCOL 1

struct exec_client;

struct exec_client_callbacks {
	void *data;
	/* Borrowed message, checked for form. */
	void (*message)(void *data, const struct value *msg);
	/* The executor went away (reconnects by itself every 200 ms) or came. */
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
