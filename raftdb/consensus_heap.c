#include "raftdb/consensus_heap.h"

#include <raft.h>
#include <stdlib.h>

#include "base/util.h"

static void *do_malloc(void *data, size_t n)
{
	return xmalloc(n);
}

static void do_free(void *data, void *p)
{
	free(p);
}

static void *do_calloc(void *data, size_t n, size_t size)
{
	return xcalloc(n, size);
}

static void *do_realloc(void *data, void *p, size_t n)
{
	return xrealloc(p, n);
}

static void *do_aligned_alloc(void *data, size_t alignment, size_t n)
{
	void *p = aligned_alloc(alignment, n);

	xassert(p);
	return p;
}

static void do_aligned_free(void *data, size_t alignment, void *p)
{
	free(p);
}

void consensus_heap_set(void)
{
	static struct raft_heap heap = {
		.malloc = do_malloc,
		.free = do_free,
		.calloc = do_calloc,
		.realloc = do_realloc,
		.aligned_alloc = do_aligned_alloc,
		.aligned_free = do_aligned_free,
	};

	raft_heap_set(&heap);
}
