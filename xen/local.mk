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
	xen/jobs.c xen/jobs.h \
	xen/sim.c xen/sim.h \
	xen/sim_console.c \
	xen/sim_files.c \
	xen/sim_migrate.c \
	xen/sim_net.c \
	xen/sim_state.c \
	xen/sim_wire.c xen/sim_wire.h \
	xen/verbs.c xen/verbs.h \
	xen/xen_ops.h

sbin_PROGRAMS += xenpool-executor
xenpool_executor_SOURCES = xen/executor_main.c
xenpool_executor_LDADD = $(EXECUTOR) $(XEN_LIBS)
