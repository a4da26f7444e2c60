# Prints the units of a directory and of all below it that the configuration builds.
include $(srctree)/scripts/Makefile.build

$(info @directory $(obj))
$(info @builtin $(real-obj-y) $(lib-y))
$(info @module $(real-obj-m))

below := $(addprefix units-,$(subdir-ym))

.PHONY: units $(below)
units: $(below) ; @:
$(below): units-%: ; @$(MAKE) -r -R -s -f $(UNITS_MK) --include-dir=$(srctree) obj=$* need-modorder=1 units
