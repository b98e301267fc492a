UNIT_TESTS = \
	tests/unit/test_base \
	tests/unit/test_console \
	tests/unit/test_bench_grpc \
	tests/unit/test_db \
	tests/unit/test_db_random \
	tests/unit/test_dispatch \
	tests/unit/test_executor \
	tests/unit/test_executor_limits \
	tests/unit/test_executor_migrate \
	tests/unit/test_failpoint \
	tests/unit/test_guest \
	tests/unit/test_http \
	tests/unit/test_image \
	tests/unit/test_job_config \
	tests/unit/test_jsonrpc \
	tests/unit/test_link \
	tests/unit/test_pool_event \
	tests/unit/test_pool_generic \
	tests/unit/test_pool_session \
	tests/unit/test_pool_task \
	tests/unit/test_pool_where \
	tests/unit/test_pooldb \
	tests/unit/test_raft_guards \
	tests/unit/test_raftmsg \
	tests/unit/test_rfb_watch \
	tests/unit/test_role_keys \
	tests/unit/test_sandbox \
	tests/unit/test_schema \
	tests/unit/test_store \
	tests/unit/test_store_random \
	tests/unit/test_txn \
	tests/unit/test_value \
	tests/unit/test_db_faults \
	tests/unit/test_vm \
	tests/unit/test_vm_host \
	tests/unit/test_vm_pool \
	tests/unit/test_websocket \
	tests/unit/test_xl_config \
	tests/unit/test_xl_link \
	tests/unit/test_xl_process \
	tests/unit/test_xl_watch \
	tests/unit/test_xmlrpc \
	tests/unit/test_xs_watch
check_PROGRAMS += $(UNIT_TESTS) tests/schema/dump_schema tests/wire/front_echo \
	tests/bench/make_image tests/console/rfb_view \
	tests/unit/bench_db tests/unit/fakexen.so

tests_unit_test_base_SOURCES = tests/unit/test_base.c
tests_unit_test_base_LDADD = $(BASE) $(BASE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_bench_grpc_SOURCES = tests/unit/test_bench_grpc.c \
	tools/bench_grpc.c tools/bench_grpc.h
tests_unit_test_bench_grpc_LDADD = $(BASE) $(BASE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_console_SOURCES = tests/unit/test_console.c
tests_unit_test_console_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_db_SOURCES = tests/unit/test_db.c
tests_unit_test_db_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_db_random_SOURCES = tests/unit/test_db_random.c
tests_unit_test_db_random_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_dispatch_SOURCES = tests/unit/test_dispatch.c
tests_unit_test_dispatch_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_executor_SOURCES = tests/unit/test_executor.c
tests_unit_test_executor_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_executor_limits_SOURCES = tests/unit/test_executor_limits.c
tests_unit_test_executor_limits_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_executor_migrate_SOURCES = tests/unit/test_executor_migrate.c
tests_unit_test_executor_migrate_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_failpoint_SOURCES = tests/unit/test_failpoint.c
tests_unit_test_failpoint_LDADD = $(BASE) $(BASE_LIBS) $(CMOCKA_LIBS)
tests_unit_test_guest_SOURCES = tests/unit/test_guest.c
tests_unit_test_guest_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_http_SOURCES = tests/unit/test_http.c
tests_unit_test_http_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_image_SOURCES = tests/unit/test_image.c
tests_unit_test_image_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_job_config_SOURCES = tests/unit/test_job_config.c
tests_unit_test_job_config_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(RPC) \
	$(RPC_LIBS) $(EXECUTOR) $(XEN_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_jsonrpc_SOURCES = tests/unit/test_jsonrpc.c
tests_unit_test_jsonrpc_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_link_SOURCES = tests/unit/test_link.c
tests_unit_test_link_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pool_event_SOURCES = tests/unit/test_pool_event.c
tests_unit_test_pool_event_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pool_generic_SOURCES = tests/unit/test_pool_generic.c
tests_unit_test_pool_generic_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pool_session_SOURCES = tests/unit/test_pool_session.c
tests_unit_test_pool_session_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pool_task_SOURCES = tests/unit/test_pool_task.c
tests_unit_test_pool_task_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pool_where_SOURCES = tests/unit/test_pool_where.c
tests_unit_test_pool_where_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_pooldb_SOURCES = tests/unit/test_pooldb.c
tests_unit_test_pooldb_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_raftmsg_SOURCES = tests/unit/test_raftmsg.c
tests_unit_test_raftmsg_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_raft_guards_SOURCES = tests/unit/test_raft_guards.c \
	tests/unit/raft_cluster.c tests/unit/raft_cluster.h tests/raft_requests.h
tests_unit_test_raft_guards_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_rfb_watch_SOURCES = tests/unit/test_rfb_watch.c
tests_unit_test_rfb_watch_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_role_keys_SOURCES = tests/unit/test_role_keys.c
tests_unit_test_role_keys_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_sandbox_SOURCES = tests/unit/test_sandbox.c
tests_unit_test_sandbox_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_schema_SOURCES = tests/unit/test_schema.c
tests_unit_test_schema_LDADD = $(SCHEMA) $(SCHEMA_LIBS) $(CMOCKA_LIBS)
tests_unit_test_store_SOURCES = tests/unit/test_store.c
tests_unit_test_store_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_store_random_SOURCES = tests/unit/test_store_random.c
tests_unit_test_store_random_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_txn_SOURCES = tests/unit/test_txn.c
tests_unit_test_txn_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_value_SOURCES = tests/unit/test_value.c
tests_unit_test_value_LDADD = $(SCHEMA) $(SCHEMA_LIBS) $(CMOCKA_LIBS)
tests_unit_test_db_faults_SOURCES = tests/unit/test_db_faults.c
tests_unit_test_db_faults_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)
tests_unit_test_vm_SOURCES = tests/unit/test_vm.c
tests_unit_test_vm_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_vm_host_SOURCES = tests/unit/test_vm_host.c
tests_unit_test_vm_host_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_vm_pool_SOURCES = tests/unit/test_vm_pool.c
tests_unit_test_vm_pool_LDADD = $(POOL) $(RAFTDB) $(RAFTDB_LIBS) $(CRYPT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_websocket_SOURCES = tests/unit/test_websocket.c
tests_unit_test_websocket_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xmlrpc_SOURCES = tests/unit/test_xmlrpc.c
tests_unit_test_xmlrpc_LDADD = $(RPC) $(RPC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xl_config_SOURCES = tests/unit/test_xl_config.c
tests_unit_test_xl_config_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xl_link_SOURCES = tests/unit/test_xl_link.c
tests_unit_test_xl_link_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xl_process_SOURCES = tests/unit/test_xl_process.c
tests_unit_test_xl_process_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xl_watch_SOURCES = tests/unit/test_xl_watch.c
tests_unit_test_xl_watch_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
tests_unit_test_xs_watch_SOURCES = tests/unit/test_xs_watch.c
tests_unit_test_xs_watch_LDADD = $(EXECUTOR) $(XEN_LIBS) $(CMOCKA_LIBS)
# Loaded before a program that knows nothing of sanitizers.
tests_unit_fakexen_so_SOURCES = tests/unit/fakexen.c
tests_unit_fakexen_so_CFLAGS = -fPIC $(WARN_CFLAGS)
tests_unit_fakexen_so_LDFLAGS = -shared
tests_unit_bench_db_SOURCES = tests/unit/bench_db.c
tests_unit_bench_db_LDADD = $(RAFTDB) $(RAFTDB_LIBS) $(CMOCKA_LIBS)

tests_schema_dump_schema_SOURCES = tests/schema/dump_schema.c
tests_schema_dump_schema_LDADD = $(SCHEMA) $(SCHEMA_LIBS)
tests_bench_make_image_SOURCES = tests/bench/make_image.c
tests_bench_make_image_LDADD = $(RAFTDB) $(RAFTDB_LIBS)
tests_console_rfb_view_SOURCES = tests/console/rfb_view.c xen/vncterm_font.c
tests_console_rfb_view_LDADD = $(VNCCLIENT_LIBS)
tests_wire_front_echo_SOURCES = tests/wire/front_echo.c
tests_wire_front_echo_LDADD = $(RPC) $(RPC_LIBS)

.PHONY: check-programs
check-programs: $(check_PROGRAMS)

# Everything that needs no other host's address, client or kill.
AM_TESTS_ENVIRONMENT = XENPOOL_BUILD='$(abs_builddir)'; \
	XENPOOL_TOP='$(abs_top_srcdir)'; export XENPOOL_BUILD XENPOOL_TOP;
TEST_EXTENSIONS = .py
PY_LOG_COMPILER = $(PYTHON)
TESTS = $(UNIT_TESTS) tests/check_layers.py tests/check_style.py \
	tests/check_lists.py tests/check_schema.py tests/wire/test_front.py
EXTRA_DIST += tests/unit/db_help.h tests/unit/executor_host.h tests/unit/pool_calls.h tests/unit/pool_help.h tests/unit/reply.h tests/unit/store_help.h tests/unit/vm_world.h tests/unit/vm_world_calls.h
EXTRA_DIST += tests/run.py tests/check_layers.py tests/check_style.py \
	tests/check_lists.py tests/check_schema.py \
	tests/schema/check_facts.py tests/schema/alerts.tsv \
	tests/schema/classes.tsv tests/schema/enums.tsv \
	tests/schema/errors.tsv tests/schema/fields.tsv \
	tests/schema/methods.tsv tests/schema/relations.tsv \
	tests/schema/role_sets.tsv tests/schema/roles.tsv \
	tests/wire tests/integration tests/clients tests/lifecycle tests/xenlab

include tests/sim/local.mk

# Run by hand on a real Xen.
check_PROGRAMS += tests/xen/drive
EXTRA_DIST += tests/xen/json_value.h tests/unit/xl_config
tests_xen_drive_SOURCES = tests/xen/drive.c
tests_xen_drive_LDADD = $(XEN) $(XEN_LIBS)
