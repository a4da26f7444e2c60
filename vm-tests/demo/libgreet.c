/* The library that has versions: GREETING is set by the compiler's command line. */
const char *greet(void)
{
    return GREETING;
}
