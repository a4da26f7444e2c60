/* flags: -pg -mfentry -mrecord-mcount */
#include "livepatch.h"

MODULE("loop");

/* A module that is patched: a function that ftrace can hook, and one that it cannot. */
int lo_release(void *disk) { return helper(1) + 1; }
__attribute__((no_instrument_function)) int lo_hidden(void *disk) { return helper(2) + 2; }

INIT { return helper(4); }
