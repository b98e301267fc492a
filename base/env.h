/* Clock and randomness, replaceable as a whole so that a simulation can drive
 * them from a seed. */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include "base/util.h"

struct env_ops {
	int64_t (*wall_ms)(void *data); /* Unix time */
	int64_t (*mono_ms)(void *data); /* never falls */
	void (*random)(void *data, void *out, size_t n);
	void *data;
};

/* NULL goes back to the real ones. Call before threads start. */
void env_replace(const struct env_ops *ops);

int64_t env_wall_ms(void);
int64_t env_mono_ms(void);
/* Real one: getrandom(2); ends the process when the kernel refuses. */
void env_random(void *out, size_t n);

#endif
