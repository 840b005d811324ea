# SPDX-License-Identifier: Apache-2.0
# The program by which HCL's specification suite judges the language; tests/long/15-hcl-judges.sh runs it.
language-tools: $O/tests/hcldec

$O/tests/hcldec: tests/language/hcldec.c tests/unit/hcl-spec-support.c tests/unit/hcl-spec-support.h $O/libkiln.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(KCFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.a,$^) $(LIBS)

.PHONY: language-tools
