# Writes the environment in which the kernel's top Makefile runs the Makefile of a directory, so that later
# questions about one directory need not go through the top again.
include $(abs_srctree)/Makefile

.PHONY: write-environment
write-environment: ; @env -0 > $(ENVIRONMENT)
