# Pool logic; the daemon's main is not part of it.
noinst_LIBRARIES += pool/libpool.a
pool_libpool_a_SOURCES = \
	pool/console.c \
	pool/core.h \
	pool/credential.c \
	pool/dbsync.c \
	pool/dbsync_rows.c \
	pool/error.c \
	pool/event.c pool/event.h \
	pool/event_from.c \
	pool/event_next.c \
	pool/event_subs.c \
	pool/foreign.c pool/foreign.h \
	pool/generic.c \
	pool/handlers.c \
	pool/host.c \
	pool/host_live.c \
	pool/job.c pool/job.h \
	pool/job_change.c \
	pool/job_config.c \
	pool/job_device.c \
	pool/job_end.c \
	pool/job_evacuate.c \
	pool/job_image.c \
	pool/job_leader.c \
	pool/job_migrate.c \
	pool/job_step.c \
	pool/member.c \
	pool/member_calls.c pool/member_calls.h \
	pool/member_join.c \
	pool/member_setting.c \
	pool/message.c \
	pool/minor.c \
	pool/network.c \
	pool/pbd.c \
	pool/placement.c \
	pool/plugin.c \
	pool/pool.c pool/pool.h \
	pool/rbac.c \
	pool/req.c pool/req.h \
	pool/req_end.c \
	pool/req_read.c \
	pool/req_task.c \
	pool/restore.c pool/restore.h \
	pool/result.c \
	pool/role.c \
	pool/rows.c \
	pool/session.c pool/session.h \
	pool/session_gc.c \
	pool/sr.c \
	pool/storage.h \
	pool/task.c pool/task.h \
	pool/task_gc.c \
	pool/timer.c \
	pool/vdi.c \
	pool/vm.h \
	pool/vm_calls.c pool/vm_calls.h \
	pool/vm_config.c \
	pool/vm_create.c \
	pool/vm_device.c \
	pool/vm_draft.c \
	pool/vm_guest.c pool/vm_guest.h \
	pool/vm_guest_data.c \
	pool/vm_life.c \
	pool/vm_memory.c \
	pool/vm_metrics.c \
	pool/vm_ops.c \
	pool/vm_plug.c \
	pool/vm_query.c \
	pool/vm_reconcile.c \
	pool/vm_sources.c \
	pool/vm_state.c \
	pool/where.c

sbin_PROGRAMS += xenpoold
xenpoold_SOURCES = \
	pool/consoles.c pool/consoles.h \
	pool/options.c pool/options.h \
	pool/status.c pool/status.h \
	pool/tools.c pool/tools.h \
	pool/rebuild.c pool/rebuild.h \
	pool/trust.c pool/trust.h \
	pool/xenpoold.c
xenpoold_LDADD = $(POOL) xen/libxenjobs.a raftdb/libraftdb.a $(RPC) \
	$(RAFTDB_LIBS) $(RPC_LIBS) $(CRYPT_LIBS)
