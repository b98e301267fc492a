/* What xenpoolctl asks of a member through host.call_plugin "xenpool" and that
 * takes files or time: history, at, backup, check. Work is done on the loop's
 * worker threads, a few at a time.
 */
#ifndef POOL_TOOLS_H
#define POOL_TOOLS_H

#include "pool/pool.h"
#include "raftdb/db.h"
#include "raftdb/pooldb.h"

struct tools {
	uv_loop_t *loop;
	struct db *db;
	struct pooldb *pooldb;
	const char *data_dir; /* borrowed */
	unsigned running;
};

/* As the hook `tool` of pool/pool.h. */
bool tools_call(struct tools *t, const char *fn, const struct value *args,
		pool_tool_cb cb, void *cb_data);

#endif
