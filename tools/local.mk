bin_PROGRAMS += xenpoolctl poolbench

xenpoolctl_SOURCES = tools/xenpoolctl.c tools/ctl.c tools/ctl.h \
	tools/ctl_api.c tools/ctl_backup.c tools/ctl_check.c \
	tools/ctl_history.c tools/ctl_restore.c tools/ctl_status.c \
	tools/xenapi.c tools/xenapi.h
xenpoolctl_LDADD = $(POOL) raftdb/libraftdb.a $(RPC) $(RAFTDB_LIBS) \
	$(RPC_LIBS) $(SCHEMA_LIBS)

poolbench_SOURCES = tools/poolbench.c tools/bench_grpc.c \
	tools/bench_grpc.h tools/xenapi.c tools/xenapi.h
poolbench_LDADD = $(BASE) $(SSL_LIBS) $(SCHEMA_LIBS)

EXTRA_DIST += tools/demo.py tools/localpool.py tools/watch.py \
	tools/packages.list

# Services of a host with systemd; their folders follow the prefix, so that a
# build installs where it is told to.
systemddir = $(prefix)/lib/systemd/system
sysusersdir = $(prefix)/lib/sysusers.d
dist_sysusers_DATA = tools/systemd/xenpool.conf
completionsdir = $(datadir)/bash-completion/completions
dist_completions_DATA = tools/completion/xenpoolctl
services = xenpoold.service xenpool-executor.service
EXTRA_DIST += tools/systemd/xenpoold.conf tools/systemd/xenpoold.service.in \
	tools/systemd/xenpool-executor.service.in

# Paths are filled in now because prefix may be given to `make install`. What
# the administrator has written into the configuration stays.
install-data-local:
	$(MKDIR_P) "$(DESTDIR)$(sysconfdir)/xenpool" "$(DESTDIR)$(systemddir)"
	for unit in $(services); do \
		sed -e 's|@sbindir[@]|$(sbindir)|' \
			-e 's|@sysconfdir[@]|$(sysconfdir)|' \
			$(srcdir)/tools/systemd/$$unit.in \
			>"$(DESTDIR)$(systemddir)/$$unit" || exit 1; \
	done
	test -e "$(DESTDIR)$(sysconfdir)/xenpool/xenpoold.conf" || \
		$(INSTALL_DATA) $(srcdir)/tools/systemd/xenpoold.conf \
		"$(DESTDIR)$(sysconfdir)/xenpool"

uninstall-local:
	for unit in $(services); do \
		rm -f "$(DESTDIR)$(systemddir)/$$unit"; \
	done
