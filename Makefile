# SPDX-License-Identifier: Apache-2.0
# kiln. `make` builds into build/; DEVELOPER=1 turns warnings into errors; SANITIZE=1 builds with ASan and UBSan into build-asan/.

PREFIX    ?= /usr/local
DESTDIR   ?=
CC        ?= gcc
CFLAGS    ?= -O2 -g
O         := $(if $(SANITIZE),build-asan,build)

PACKAGES  := glib-2.0 jansson libcrypto libcurl libarchive libzstd zlib expat yaml-0.1 sqlite3 ext2fs com_err mpfr gmp libguestfs libvirt libvirt-qemu libmicrohttpd
KCFLAGS   := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -fPIC -Wall -Wextra -Wno-unused-parameter \
             -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 $(shell pkg-config --cflags $(PACKAGES))
LIBS      := $(shell pkg-config --libs $(PACKAGES)) -pthread -lcrypt -lm
ifdef DEVELOPER
KCFLAGS   += -Werror
endif
ifdef SANITIZE
KCFLAGS   += -fsanitize=address,undefined -fno-omit-frame-pointer
LIBS      += -fsanitize=address,undefined
endif

COMMA     := ,
ROOMS     := base store templates templates/language provisioner deploy baker
PLUGIN_C  := store/nbd-plugin.c
EXT4_C    := store/ext4-main.c
LIB_C     := $(filter-out $(PLUGIN_C) $(EXT4_C),$(foreach r,$(ROOMS),$(wildcard $(r)/*.c)))
CLI_C     := $(wildcard baker/cli/*.c)
TEST_C    := $(filter-out tests/unit/%-support.c,$(wildcard tests/unit/*.c))
TESTSUP_C := $(wildcard tests/unit/*-support.c)
RUNNER_C  := $(wildcard provisioner/runner/*.c)
ANSIBLE_PY := $(wildcard provisioner/ansible/*/*.py)
INIT_C    := baker/appliance/init.c

LIB_O     := $(LIB_C:%.c=$O/%.o)
CLI_O     := $(CLI_C:%.c=$O/%.o)
PLUGIN_O  := $(PLUGIN_C:%.c=$O/%.o)
TESTS     := $(TEST_C:tests/unit/%.c=$O/tests/%)
# The longest go first, and some more than there are processors side by side, for they also wait.
LONGEST   := $(patsubst %,$O/tests/test-%,repack crash overlay scrub faults driver-runc conform-driver prune ansible render ext4-reader guest-mounts)
UNIT_LANES := $(shell expr $$(nproc) + 2)
UNIT      := prove --timer -j $(UNIT_LANES) -e tests/run-unit $(LONGEST) $(filter-out $(LONGEST),$(TESTS)) :: --tap

all: $O/kiln $O/kiln-ext4 $O/kiln-runner $O/kiln-appliance-init $O/kiln-nbd-plugin.so $(ANSIBLE_PY:provisioner/%=$O/%)

$O/libkiln.a: $(LIB_O)
	@rm -f $@
	@ar rcs $@ $^

$O/kiln: $(CLI_O) $O/libkiln.a
	@echo "  LINK  $@"
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(CLI_O) $O/libkiln.a $(LIBS)

$O/kiln-nbd-plugin.so: $(PLUGIN_O) $O/libkiln.a
	@echo "  LINK  $@"
	@$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $(PLUGIN_O) $O/libkiln.a -Wl,--exclude-libs,ALL $(LIBS)

# Reads file systems of strangers, so it has as little in it as can be.
$O/kiln-ext4: $(EXT4_C:%.c=$O/%.o) $O/libkiln.a
	@echo "  LINK  $@"
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -Wl,--gc-sections $(if $(SANITIZE),-fsanitize=address$(COMMA)undefined) $(shell pkg-config --libs ext2fs com_err glib-2.0)

# Runs inside any guest, so it needs nothing of the guest: static, plain libc.
$O/kiln-runner: $(RUNNER_C) $(wildcard provisioner/runner/*.h)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) -O2 -Wall -Wextra $(if $(DEVELOPER),-Werror) -D_GNU_SOURCE -I. -static -o $@ $(RUNNER_C)

# The first process of the appliance, which has no libraries yet.
$O/kiln-appliance-init: $(INIT_C)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) -O2 -Wall -Wextra $(if $(DEVELOPER),-Werror) -D_GNU_SOURCE -static -o $@ $(INIT_C)

# Plugins for the host's Ansible, beside the program as they are beside it when installed.
$O/ansible/%.py: provisioner/ansible/%.py
	@mkdir -p $(@D)
	@cp $< $@

$O/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(KCFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$O/tests/%: tests/unit/%.c $(TESTSUP_C) $O/libkiln.a
	@mkdir -p $(@D)
	@echo "  TEST  $@"
	@$(CC) $(KCFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(TESTSUP_C) $O/libkiln.a $(LIBS)

-include $(LIB_O:.o=.d) $(EXT4_C:%.c=$O/%.d) $(CLI_O:.o=.d) $(PLUGIN_O:.o=.d)

# Two lanes side by side: scripts that share a store (each goes on with what the ones before it baked), one after the other; and those with
# a store of their own.
LANES     := -j 2 --rules 'seq=tests/cli/{00-,10-,20-,30-,40-,47-disk,50-,70-lang,72-,86-}*' --rules 'seq=tests/cli/*'

deps:
	@packaging/deps/install build run deploy test

# Everything below installs what it needs by itself, as root or through sudo.
check-unit: all $(TESTS)
	@$(UNIT)

check: deps
	@$(MAKE) --no-print-directory all $(TESTS) lint hdr-check
	@$(UNIT)
	@prove --timer --verbose $(LANES) tests/cli/*.sh

# Hours, not minutes: many kills, the guest's every promise in the appliance, equal bakes, fuzzing.
check-long: deps
	@$(MAKE) --no-print-directory all $(TESTS)
	@KILN_TEST_ROUNDS=50 prove --timer --verbose tests/cli/*.sh tests/guest/*.sh tests/long/*.sh
	@$(MAKE) --no-print-directory FUZZ_SECONDS=300 fuzz

demo:
	@packaging/deps/install build run
	@$(MAKE) --no-print-directory all
	@packaging/demo

bench: deps
	@$(MAKE) --no-print-directory all $O/bench-figures
	@packaging/bench

demo-deploy:
	@packaging/deps/install build run deploy
	@$(MAKE) --no-print-directory all rollout-tools
	@packaging/demo-deploy

bench-store:
	@packaging/deps/install build run bench
	@$(MAKE) --no-print-directory all
	@packaging/bench-store

clean:
	rm -rf build build-asan build-fuzz

.PHONY: all deps check-unit check check-long demo bench demo-deploy bench-store clean

include $(wildcard packaging/make/*.mk)
