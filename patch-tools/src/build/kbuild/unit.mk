# Prints how a unit is compiled instead of compiling it. What the unit needs first (generated headers) is made.
include $(srctree)/scripts/Makefile.build

define rule_cc_o_c
	$(info @unit $@)$(info @source $<)$(info @module $(modname))$(info @compile $(cmd_cc_o_c))@:
endef
