noinst_LIBRARIES += rpc/librpc.a
rpc_librpc_a_SOURCES = \
	rpc/client.c rpc/client.h \
	rpc/conn.c rpc/conn.h \
	rpc/dispatch.c rpc/dispatch.h \
	rpc/front.c rpc/front.h \
	rpc/http.c rpc/http.h \
	rpc/jsonrpc.c rpc/jsonrpc.h \
	rpc/request.c rpc/request.h \
	rpc/route.c rpc/route.h \
	rpc/tls.c rpc/tls.h \
	rpc/xmlrpc.c rpc/xmlrpc.h
