#include "kernel.h"

void warn_slowpath_null(const char *file, int line);
void warn_slowpath_fmt(const char *file, int line, const char *format, ...);
void assfail(const char *expression, const char *file, int line);
void acpi_error(const char *module, unsigned int line, const char *format, ...);

int checked(int value)
{
	if (unlikely(value > 100))
		warn_slowpath_null(__FILE__, __LINE__);
	if (unlikely(value < 3))
		warn_slowpath_fmt(__FILE__, __LINE__, "value %d", value);
	if (unlikely(value == 17))
		assfail("value != 17", __FILE__, __LINE__);
	acpi_error("unit", __LINE__, "value %d", value);
	return value + 1;
}
