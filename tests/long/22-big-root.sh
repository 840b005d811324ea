#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A root of 150,000 entries and every oddity, through disk, tree and layer, read back by the kernel, GNU tar, umoci and podman; 1,000 equal renders.
# Root, some 10 GB in TMPDIR or KILN_TEST_DIR, minutes.
set -eu
cd "$(dirname "$0")/../.."
nice make --no-print-directory build/tests/test-big-root >&2
export KILN_TEST_BIG=1
exec build/tests/test-big-root --tap
