# SPDX-License-Identifier: Apache-2.0
# `make fuzz` runs every fuzzer for FUZZ_SECONDS with clang's libFuzzer and the sanitizers; seeds and old crashes are in tests/data/fuzz/NAME/, and the shipped templates serve as seeds too.
FUZZ_SECONDS ?= 30
FUZZ_C := $(wildcard tests/fuzz/*.c)

build-fuzz/%: tests/fuzz/%.c $(LIB_C)
	@mkdir -p $(@D)
	@echo "  FUZZ  $@"
	@clang $(KCFLAGS) -O1 -g -fsanitize=fuzzer,address,undefined -o $@ $< $(LIB_C) $(LIBS)

fuzz: $(FUZZ_C:tests/fuzz/%.c=build-fuzz/%)
	@for f in $^; do name=$$(basename $$f); mkdir -p build-fuzz/corpus/$$name tests/data/fuzz/$$name; \
	  echo "== $$name"; ASAN_OPTIONS=detect_leaks=0 $$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=5 \
	  -print_final_stats=0 -verbosity=0 build-fuzz/corpus/$$name tests/data/fuzz/$$name templates/library || exit 1; done

.PHONY: fuzz
