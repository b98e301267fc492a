/* What libraft's own libuv I/O has the library do in every turn of the loop, by
 * a function that the library keeps to itself: the callbacks of requests that
 * have ended. Who stands in for that I/O does it, too. All requests begin with
 * the same fields. */
#ifndef TESTS_RAFT_REQUESTS_H
#define TESTS_RAFT_REQUESTS_H

#include <raft.h>
#include <stddef.h>

static void raft_fire_request(struct raft_apply *req)
{
	switch (req->type) {
	case RAFT_COMMAND:
		req->cb(req, req->status, req->result);
		break;
	case RAFT_BARRIER:
		((struct raft_barrier *)req)
			->cb((struct raft_barrier *)req, req->status);
		break;
	case RAFT_CHANGE:
		((struct raft_change *)req)
			->cb((struct raft_change *)req, req->status);
		break;
	default:
		((struct raft_transfer *)req)->cb((struct raft_transfer *)req);
	}
}

static void raft_fire_requests(struct raft *r)
{
	void **head = r->legacy.requests;

	while (head[0] != (void *)head) {
		void **q = head[0];

		((void **)q[1])[0] = q[0];
		((void **)q[0])[1] = q[1];
		raft_fire_request(
			(struct raft_apply *)((char *)q -
					      offsetof(struct raft_apply,
						       queue)));
	}
}

#endif
