# What the kernel's top Makefile is run with. Every make that it starts reads this first (`MAKEFILES`).

# Writes the environment in which it runs the Makefile of a directory, so that later questions about one directory need
# not go through the top again. It calls itself, once or several times depending on the version; the recipe of the
# last one stands.
.PHONY: write-environment
write-environment: ; @env -0 > $(ENVIRONMENT)

# Not made: works on linked kernels only, and takes longer than all that is needed. (A pattern rule there.)
tools/bpf/resolve_btfids: ; @:
