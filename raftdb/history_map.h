/* Changes of maps in the history: only the pairs that changed are kept, as two
 * maps, `old` of the pairs that went or were replaced, `new` of those that came.
 * A row with both maps whole reads the same way.
 */
#ifndef RAFTDB_HISTORY_MAP_H
#define RAFTDB_HISTORY_MAP_H

#include "base/buf.h"
#include "schema/value.h"

/* Two new maps, the caller's. */
void history_map_diff(const struct value *before, const struct value *after,
		      struct value **ret_old, struct value **ret_new);

/* Takes a change back: from the map's text the keys of new go, and the pairs of
 * old come. The three are texts as value_to_text() makes them. False, and text
 * as it was, when one is no map's text (it may have been cut). */
bool history_map_undo(struct buf *text, const char *old, const char *new);

#endif
