noinst_LIBRARIES += raftdb/libraftdb.a
raftdb_libraftdb_a_SOURCES = \
	raftdb/consensus.c raftdb/consensus.h \
	raftdb/consensus_aio.c raftdb/consensus_aio.h \
	raftdb/consensus_heap.c raftdb/consensus_heap.h \
	raftdb/consensus_send.c raftdb/consensus_send.h \
	raftdb/consensus_wire.c raftdb/consensus_wire.h \
	raftdb/db.c raftdb/db.h \
	raftdb/db_compare.c raftdb/db_compare.h \
	raftdb/db_disk.c \
	raftdb/db_folder.c \
	raftdb/db_heal.c raftdb/db_heal.h \
	raftdb/db_impl.h \
	raftdb/db_members.c raftdb/db_members.h \
	raftdb/db_reads.c \
	raftdb/db_seed.c \
	raftdb/db_snaps.c \
	raftdb/db_txns.c \
	raftdb/image.c \
	raftdb/image_impl.h \
	raftdb/image_json.c \
	raftdb/image_load.c \
	raftdb/image_table.c \
	raftdb/ioguard.c raftdb/ioguard.h \
	raftdb/link.c raftdb/link.h \
	raftdb/link_conn.c \
	raftdb/link_impl.h \
	raftdb/link_tls.c \
	raftdb/history.c raftdb/history.h \
	raftdb/history_map.c raftdb/history_map.h \
	raftdb/peers.c raftdb/peers.h \
	raftdb/pooldb.c raftdb/pooldb.h \
	raftdb/pooldb_file.c \
	raftdb/pooldb_history.c \
	raftdb/pooldb_impl.h \
	raftdb/raftmsg.c raftdb/raftmsg.h \
	raftdb/store.c raftdb/store.h \
	raftdb/store_apply.c \
	raftdb/store_check.c raftdb/store_check.h \
	raftdb/store_impl.h \
	raftdb/store_index.c \
	raftdb/store_relate.c \
	raftdb/store_view.c \
	raftdb/txn.c raftdb/txn.h \
	raftdb/txn_read.h
