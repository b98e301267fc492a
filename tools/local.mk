bin_PROGRAMS += xenpoolctl poolbench

xenpoolctl_SOURCES = tools/xenpoolctl.c tools/xenapi.c tools/xenapi.h
xenpoolctl_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(SCHEMA_LIBS)

poolbench_SOURCES = tools/poolbench.c tools/xenapi.c tools/xenapi.h
poolbench_LDADD = $(BASE) $(SSL_LIBS) $(SCHEMA_LIBS)

EXTRA_DIST += tools/demo.py tools/localpool.py tools/watch.py \
	tools/packages.list
