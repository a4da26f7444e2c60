# Prints the units of a directory and of all below it that the configuration builds, and what else is made there:
# objects of programs other than the kernel, files with offsets, linker scripts.
include $(srctree)/scripts/Makefile.build

$(info @directory $(obj))
$(info @builtin $(real-obj-y) $(lib-y))
$(info @module $(real-obj-m))
$(info @other $(targets) $(extra-y))

# Not below any directory that is built on the way to the kernel.
apart := $(if $(filter .,$(obj)),arch/x86/boot arch/x86/boot/compressed arch/x86/realmode/rm)
below := $(addprefix units-,$(subdir-ym) $(foreach one,$(apart),$(if $(wildcard $(srctree)/$(one)/Makefile),$(one))))

.PHONY: units $(below)
units: $(below) ; @:
$(below): units-%: ; @$(MAKE) -r -R -s -f $(UNITS_MK) --include-dir=$(srctree) obj=$* need-modorder=1 units
