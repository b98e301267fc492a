#include "tests/sim/sim.h"

void lin_check(void)
{
}
