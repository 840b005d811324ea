# SPDX-License-Identifier: Apache-2.0
# Targets that look after the tree: lint, style, hdr-check, checks with other tools, install.

libexecdir ?= $(PREFIX)/lib/kiln
mandir     ?= $(PREFIX)/share/man
datadir    ?= $(PREFIX)/share/kiln

# What grep can check: arrows, faces, doors, licences, paths. Each script prints what it found.
lint:
	@for script in arrows doors licence paths text; do packaging/lint/$$script || exit 1; done

# Reports only: clang-format's word is taken by hand.
style:
	@clang-format-14 --dry-run $(shell git ls-files '*.c' '*.h' 2>/dev/null) 2>&1 | grep -c 'warning:' | \
	  sed 's/$$/ places differ from .clang-format (clang-format-14 -i FILE settles them)/'

hdr-check:
	@packaging/lint/headers $(CC) $(KCFLAGS) -Werror

# Only the end-to-end scripts; `make check` runs these too. They go in order and share one store (tests/lib.sh).
check-cli: all
	@prove --timer $(LANES) tests/cli/*.sh

check-asan:
	@$(MAKE) SANITIZE=1 all
	@ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 $(MAKE) SANITIZE=1 check-unit

check-valgrind: all $(TESTS)
	@for test in $(TESTS); do echo "== $$test"; \
	  G_SLICE=always-malloc valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
	  --child-silent-after-fork=yes $$test --tap >/dev/null || exit 1; done

unitdir = $(PREFIX)/lib/systemd/system
sysusersdir = $(PREFIX)/lib/sysusers.d
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(libexecdir) $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(datadir)/templates
	install -m 755 $O/kiln $(DESTDIR)$(libexecdir)/kiln
	install -m 755 $O/kiln-ext4 $(DESTDIR)$(libexecdir)/kiln-ext4
	install -m 755 $O/kiln-runner $(DESTDIR)$(libexecdir)/kiln-runner
	install -m 755 $O/kiln-appliance-init $(DESTDIR)$(libexecdir)/kiln-appliance-init
	install -m 644 $O/kiln-nbd-plugin.so $(DESTDIR)$(libexecdir)/kiln-nbd-plugin.so
	for file in $(ANSIBLE_PY:provisioner/%=%); do install -D -m 644 $O/$$file $(DESTDIR)$(libexecdir)/$$file; done
	ln -sf $(libexecdir)/kiln $(DESTDIR)$(PREFIX)/bin/kiln
	install -m 644 templates/library/*.hcl $(DESTDIR)$(datadir)/templates/
	install -d $(DESTDIR)$(unitdir)
	for unit in packaging/systemd/*; do \
	  sed 's#/usr/bin/kiln#$(PREFIX)/bin/kiln#' $$unit >$(DESTDIR)$(unitdir)/$$(basename $$unit); done
	install -D -m 644 packaging/sysusers/kiln.conf $(DESTDIR)$(sysusersdir)/kiln.conf
	@if command -v pandoc >/dev/null; then \
	  for page in packaging/manual/*.[1-9].md; do pandoc -s -t man -o $(DESTDIR)$(mandir)/man1/$$(basename $$page .md) $$page; done; \
	else echo "pandoc is absent: the manual stays in packaging/manual/"; fi

.PHONY: lint style hdr-check check-cli check-asan check-valgrind install
