# What it defines itself - libuv's loop, the links, libraft's I/O, the data
# folder, the log - the linker does not look for in the libraries; the wrapped
# functions are the real ones with a look, or a mistake, in between.
check_PROGRAMS += tests/sim/sim
tests_sim_sim_SOURCES = \
	tests/sim/sim.c tests/sim/sim.h tests/sim/sim_run.h \
	tests/raft_requests.h \
	tests/sim/sim_check.c \
	tests/sim/sim_disk.c \
	tests/sim/sim_faults.c \
	tests/sim/sim_image.c \
	tests/sim/sim_io.c \
	tests/sim/sim_lin.c \
	tests/sim/sim_link.c \
	tests/sim/sim_load.c \
	tests/sim/sim_main.c \
	tests/sim/sim_many.c \
	tests/sim/sim_net.c \
	tests/sim/sim_node.c \
	tests/sim/sim_uv.c
tests_sim_sim_LDADD = $(RAFTDB) $(RAFTDB_LIBS)
tests_sim_sim_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=store_apply,--wrap=store_load,--wrap=relate_derived \
	-Wl,--wrap=store_add_tombstone,--wrap=image_pack,--wrap=image_unpack \
	-Wl,--wrap=xmalloc,--wrap=xcalloc,--wrap=xrealloc,--wrap=xstrdup \
	-Wl,--wrap=xstrndup
EXTRA_DIST += tests/sim/test_sim.py
