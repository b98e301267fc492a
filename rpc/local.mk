noinst_LIBRARIES += rpc/librpc.a
rpc_librpc_a_SOURCES = \
	rpc/client.c rpc/client.h \
	rpc/conn.c rpc/conn.h \
	rpc/console.c rpc/console.h \
	rpc/dispatch.c rpc/dispatch.h \
	rpc/front.c rpc/front.h \
	rpc/http.c rpc/http.h \
	rpc/jsonrpc.c rpc/jsonrpc.h \
	rpc/param.c rpc/param.h \
	rpc/request.c rpc/request.h \
	rpc/rfb_watch.c rpc/rfb_watch.h \
	rpc/route.c rpc/route.h \
	rpc/stream.c rpc/stream.h \
	rpc/tls.c rpc/tls.h \
	rpc/websocket.c rpc/websocket.h \
	rpc/xmlrpc.c rpc/xmlrpc.h
