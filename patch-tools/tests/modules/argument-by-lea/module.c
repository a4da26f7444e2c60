/* flags: -fpie -mcmodel=small */
#include "../one-function/module.c"
