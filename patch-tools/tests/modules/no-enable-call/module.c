#include "livepatch.h"

MODULE("no_enable_call");
LIVEPATCH;

INIT { return helper(1); }
