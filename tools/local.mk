bin_PROGRAMS += xenpoolctl poolbench

xenpoolctl_SOURCES = tools/xenpoolctl.c tools/ctl.c tools/ctl.h \
	tools/ctl_api.c tools/ctl_backup.c tools/ctl_check.c \
	tools/ctl_history.c tools/ctl_restore.c tools/ctl_status.c \
	tools/xenapi.c tools/xenapi.h
xenpoolctl_LDADD = $(POOL) raftdb/libraftdb.a $(RPC) $(RAFTDB_LIBS) \
	$(RPC_LIBS) $(SCHEMA_LIBS)

poolbench_SOURCES = tools/poolbench.c tools/xenapi.c tools/xenapi.h
poolbench_LDADD = $(BASE) $(SSL_LIBS) $(SCHEMA_LIBS)

EXTRA_DIST += tools/demo.py tools/localpool.py tools/watch.py \
	tools/packages.list tools/completion/xenpoolctl
