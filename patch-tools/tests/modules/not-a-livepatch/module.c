#include "livepatch.h"

MODULE("not_a_livepatch");

INIT { return helper(1); }
