# SPDX-License-Identifier: Apache-2.0
# `make bench-growth`: what a store costs with 10, 100 and 1,000 images and ten million blocks. Minutes, and 2 GB in GROWTH_DIR.
GROWTH_DIR ?= $O/growth

$O/growth-bench: tests/bench/growth.c $O/libkiln.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(KCFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $O/libkiln.a $(LIBS)

bench-growth: all $O/growth-bench
	@rm -rf $(GROWTH_DIR)
	@$O/growth-bench $(abspath $O/kiln) $(abspath $(GROWTH_DIR))
	@rm -rf $(GROWTH_DIR)

# What `make bench` asks of the libraries themselves.
$O/bench-figures: tests/bench/figures.c $O/libkiln.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(KCFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $O/libkiln.a $(LIBS)

.PHONY: bench-growth
