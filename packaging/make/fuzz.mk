# SPDX-License-Identifier: Apache-2.0
# `make fuzz` runs every fuzzer for FUZZ_SECONDS with clang's libFuzzer and the sanitizers; seeds and old crashes are in tests/data/fuzz/NAME/, and the shipped templates serve as seeds too.
FUZZ_SECONDS ?= 30
FUZZ_C     := $(wildcard tests/fuzz/*.c)
FUZZ_FLAGS := -O1 -g -fsanitize=address,undefined
FUZZ_LIB_O := $(LIB_C:%.c=build-fuzz/lib/%.o)

build-fuzz/lib/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $@"
	@clang $(KCFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

build-fuzz/%: tests/fuzz/%.c $(FUZZ_LIB_O)
	@mkdir -p $(@D)
	@echo "  FUZZ  $@"
	@clang $(KCFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $< $(FUZZ_LIB_O) $(LIBS)

.SECONDARY: $(FUZZ_LIB_O)

-include $(FUZZ_LIB_O:.o=.d)

fuzz: $(FUZZ_C:tests/fuzz/%.c=build-fuzz/%)
	@for f in $^; do name=$$(basename $$f); mkdir -p build-fuzz/corpus/$$name tests/data/fuzz/$$name; \
	  echo "== $$name"; ASAN_OPTIONS=detect_leaks=0 $$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=5 \
	  -print_final_stats=0 -verbosity=0 build-fuzz/corpus/$$name tests/data/fuzz/$$name templates/library || exit 1; done

.PHONY: fuzz
