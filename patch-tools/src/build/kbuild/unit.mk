# Prints how the unit UNIT is compiled instead of compiling it. What the unit needs first (generated headers) is
# made. The unit must not be a goal itself: Makefile.build hands a goal below a subdirectory on to that
# subdirectory's Makefile, even where this one builds it (drivers/gpu/drm/bridge/panel.o).
include $(srctree)/scripts/Makefile.build

# Where objtool only runs on what is linked (because of IBT, or for livepatches), it is not part of the command.
print-delayed = $(info @objtool $(if $(delay-objtool),$(if $(is-standard-object),$(objtool) $(objtool-args) $@)))

print-command = $(info @unit $@)$(info @source $<)$(info @module $(modname))$(info @compile $(cmd_$(1)))$(print-delayed)@:

define rule_cc_o_c
	$(call print-command,cc_o_c)
endef

define rule_as_o_S
	$(call print-command,as_o_S)
endef

# Linker scripts have no rule of their own to replace; those that are made on the way to the goal are made.
$(eval make-if-changed = $(value if_changed_dep))
if_changed_dep = $(if $(and $(filter cpp_lds_S,$(1)),$(filter $@,$(UNIT))),$(call print-command,$(1)),$(make-if-changed))

.PHONY: ask
ask: $(UNIT)
	@:
