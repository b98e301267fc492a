# The daemon's side of the job protocol.
noinst_LIBRARIES += xen/libxenjobs.a
xen_libxenjobs_a_SOURCES = \
	xen/exec_client.c \
	xen/message.c xen/message.h \
	xen/protocol.h

noinst_LIBRARIES += xen/libexecutor.a
xen_libexecutor_a_SOURCES = \
	xen/consoles.c xen/consoles.h \
	xen/domain_config.c xen/domain_config.h \
	xen/executor.c xen/executor.h \
	xen/looker.c xen/looker.h \
	xen/fences.c xen/fences.h \
	xen/files.c xen/files.h \
	xen/guest_pace.c xen/guest_pace.h \
	xen/guest_scan.c xen/guest_scan.h \
	xen/guests.c xen/guests.h \
	xen/host_facts.c xen/host_facts.h \
	xen/jobs.c xen/jobs.h \
	xen/sandbox.c xen/sandbox.h \
	xen/sim.c xen/sim.h \
	xen/sim_change.c \
	xen/sim_console.c \
	xen/sim_files.c \
	xen/sim_guest.c \
	xen/sim_migrate.c \
	xen/sim_net.c \
	xen/sim_state.c \
	xen/sim_wire.c xen/sim_wire.h \
	xen/verbs.c xen/verbs.h \
	xen/xen_ops.h \
	xen/xl.c xen/xl.h \
	xen/xl_config.c xen/xl_config.h \
	xen/xl_console.c \
	xen/xl_image.c xen/xl_image.h \
	xen/xl_migrate.c \
	xen/xl_facts.c xen/xl_facts.h \
	xen/xl_guests.c \
	xen/xl_process.c xen/xl_process.h \
	xen/xl_pump.c xen/xl_pump.h \
	xen/xl_save.c \
	xen/xl_state.c \
	xen/xl_tls.c xen/xl_tls.h \
	xen/xl_watch.c \
	xen/xl_watch_main.c \
	xen/xl_worker.c xen/xl_worker.h \
	xen/xl_worker_build.c \
	xen/xl_worker_change.c \
	xen/xl_worker_console.c \
	xen/xl_worker_data.c \
	xen/xl_worker_life.c \
	xen/xl_worker_move.c \
	xen/xl_worker_save.c \
	xen/xs_data.c xen/xs_data.h \
	xen/xs_watch.c xen/xs_watch.h

sbin_PROGRAMS += xenpool-executor
xenpool_executor_SOURCES = xen/executor_main.c
xenpool_executor_LDADD = $(EXECUTOR) $(XEN_LIBS)

# One text console for its viewers, in a sandbox.
sbin_PROGRAMS += xenpool-vncterm
xenpool_vncterm_SOURCES = \
	xen/vncterm.h \
	xen/vncterm_font.c \
	xen/vncterm_main.c \
	xen/vncterm_raw.c \
	xen/vncterm_rfb.c \
	xen/vncterm_screen.c
xenpool_vncterm_LDADD = xen/libexecutor.a $(BASE) $(VNC_LIBS) $(VTERM_LIBS) $(SECCOMP_LIBS) \
	$(BASE_LIBS)
