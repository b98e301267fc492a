/* Between the core of the simulation and its main. */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "tests/sim/sim.h"

void run_core_init(uint64_t seed);
void run_core_free(void);
/* The next event; false: there is none. */
bool run_event(void);
void run_turn_at(struct life *l, int64_t at);
void run_inbox(struct life *l);
void run_drop_inbox(struct life *l);
_noreturn_ void run_failed(const char *checker, const char *what);

#endif
