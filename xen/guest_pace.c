#include "xen/guest_pace.h"

#define SCAN_COST ((int64_t)GUEST_MAX_STEPS * 1000)
#define FULL ((int64_t)GUEST_TOKENS_MAX * 1000)

void guest_pace_init(struct guest_pace *p, int64_t now)
{
	*p = (struct guest_pace){ .tokens = FULL, .at_ms = now, .dirty = true,
				  .due_ms = now + GUEST_GATHER_MS };
}

/* One token a second is one thousandth a millisecond. */
static int64_t tokens_at(const struct guest_pace *p, int64_t now)
{
	int64_t passed = MAX(now - p->at_ms, (int64_t)0);

	if (passed > FULL / GUEST_TOKENS_PER_S * 2)
		return FULL;
	return MIN(p->tokens + passed * GUEST_TOKENS_PER_S, FULL);
}

void guest_pace_spend(struct guest_pace *p, int64_t now, unsigned tokens)
{
	p->tokens = tokens_at(p, now) - (int64_t)tokens * 1000;
	p->at_ms = now;
}

void guest_pace_event(struct guest_pace *p, int64_t now)
{
	guest_pace_spend(p, now, 1);
	if (!p->dirty)
		p->due_ms = now + GUEST_GATHER_MS;
	p->dirty = true;
	p->deaf = p->deaf || p->tokens < 0;
}

bool guest_pace_due(struct guest_pace *p, int64_t now)
{
	if (guest_pace_wait(p, now) > 0)
		return false;
	p->dirty = p->deaf = false;
	return true;
}

int64_t guest_pace_wait(const struct guest_pace *p, int64_t now)
{
	int64_t lacking = SCAN_COST - tokens_at(p, now);
	int64_t wait = MAX(p->due_ms - now, (int64_t)0);

	if (!p->dirty)
		return INT64_MAX;
	if (lacking > 0)
		wait = MAX(wait, lacking / GUEST_TOKENS_PER_S + 1);
	return wait;
}
