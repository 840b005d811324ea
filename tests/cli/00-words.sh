#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command line itself. Also makes room for the store that the scripts after this one share.
. "$(dirname "$0")/../lib.sh"

[ -n "${KILN_TEST_KEEP_STORE:-}" ] || rm -rf "$KILN_STORE"

KILN_STORE=$WORK/none
ok 'version' kiln version
matches 'version prints a number' "$(kiln version)" '^kiln [0-9]+\.[0-9]+'
ok 'help' kiln --help
matches 'help lists the verbs' "$(kiln --help)" '^ +bake '
fails 2 'no verb is a usage error' 'usage: kiln' kiln
fails 2 'a mistyped verb is told its neighbour' "did you mean 'bake'" kiln bakee x
fails 2 'an unknown option is a usage error' 'unknown option' kiln bake -nonsense x.pkr.hcl
fails 2 'a verb without its argument' 'usage: kiln' kiln export
fails 12 'a template that is not there' 'absent.pkr.hcl' kiln validate absent.pkr.hcl
fails 1 'a store that is not there' 'none' kiln --store "$WORK/none" stats
ok 'doctor speaks JSON' sh -c '"$0" --json doctor | python3 -c "import json, sys; json.load(sys.stdin)" || test $? -eq 1' "$KILN"
is 'no store was made' "$(ls -A "$WORK" | grep -v '^\.')" ''
finish
