# SPDX-License-Identifier: Apache-2.0
# Programs that the tests of rolling out and the demo use: a service, clients that count losses (both static: they also run in guests and
# containers), and a probe that speaks to a balancer member.
rollout-tools: $O/tests/backend $O/tests/load $O/tests/balance

$O/tests/backend $O/tests/load: $O/tests/%: tests/deploy/%.c
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) -std=gnu11 -O2 -Wall -Wextra -Wno-unused-parameter $(if $(DEVELOPER),-Werror) -D_GNU_SOURCE -pthread -static -o $@ $<

$O/tests/balance: tests/deploy/balance.c $O/libkiln.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(KCFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $O/libkiln.a $(LIBS)

.PHONY: rollout-tools
