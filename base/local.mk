noinst_LIBRARIES += base/libbase.a
base_libbase_a_SOURCES = \
	base/buf.c base/buf.h \
	base/env.c base/env.h \
	base/failpoint.c base/failpoint.h \
	base/lease.c base/lease.h \
	base/list.h \
	base/log.c base/log.h \
	base/map.c base/map.h \
	base/memory.c base/memory.h \
	base/text.c base/text.h \
	base/util.c base/util.h
