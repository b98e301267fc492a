/* What a simulated disk holds. */
#include "tests/sim/sim.h"

#include <string.h>

void entry_free(struct disk_entry *e)
{
	free(e->data);
}

void snapshot_free(struct disk_snapshot *s)
{
	if (!s)
		return;
	free(s->configuration);
	free(s->data);
	free(s);
}

uint64_t disk_last(const struct disk *d)
{
	return d->first + d->n_entries - 1;
}

void disk_truncate(struct disk *d, uint64_t index)
{
	while (d->n_entries > 0 && disk_last(d) >= index)
		entry_free(&d->entries[--d->n_entries]);
	d->unsynced = MIN(d->unsynced, d->n_entries);
}

void disk_drop_until(struct disk *d, uint64_t index)
{
	size_t n = 0;

	while (n < d->n_entries && d->first + n <= index)
		entry_free(&d->entries[n++]);
	memmove(d->entries, d->entries + n,
		(d->n_entries - n) * sizeof(*d->entries));
	d->n_entries -= n;
	d->first += n;
	d->unsynced = MIN(d->unsynced, d->n_entries);
}

void disk_append(struct disk *d, uint64_t index, struct disk_entry *e)
{
	if (d->n_entries == 0)
		d->first = index;
	xassert(index == d->first + d->n_entries);
	if (d->n_entries == d->cap) {
		d->cap = MAX(d->cap * 2, (size_t)64);
		d->entries = xrealloc(d->entries, d->cap * sizeof(*d->entries));
	}
	d->entries[d->n_entries++] = *e;
	e->data = NULL;
}

void disk_free_all(struct disk *d)
{
	disk_truncate(d, 0);
	free(d->entries);
	snapshot_free(d->snapshot);
	memset(d, 0, sizeof *d);
	d->first = 1;
}
