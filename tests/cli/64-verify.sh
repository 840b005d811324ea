#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two cold bakes under other circumstances: equal where a template is reproducible, else every path that is not, with its step and bytes.
. "$(dirname "$0")/../lib.sh"
. "$TREE/tests/root.sh"
require python3 jq ldd bash
KILN_STORE=$WORK/store

mkdir -p root/many
python3 -c '
for i in range(100): open("root/many/file-%d" % i, "w")'
small_root sh bash ls cat head od mkdir hostname

template() { # name, command of the last step
    cat >"$1.pkr.hcl" <<END
source "oci" "root" { from = "oci:parent:v1" }
build {
  name    = "$1"
  sources = ["source.oci.root"]
  provisioner "shell" {
    name   = "steady"
    inline = ["echo 1 > /one"]
  }
  provisioner "shell" {
    name   = "$1"
    inline = [$2]
  }
}
END
}
template good '"umask > /mask; hostname > /host; echo $TZ > /zone; ls /many > /names"'
template bad '"ls -U /many > /order; head -c 8 /dev/urandom | od -An -tx1 > /random; echo same > /same"'

ok 'a template that is reproducible' kiln verify good.pkr.hcl
matches 'is told to be' "$(cat .out)" '^good oci equal sha256:[0-9a-f]{64}$'
is 'nothing is published' "$(kiln images --json | jq '.images | length')" 0
is 'two bakes ran' "$(grep -c 'step 2 of' .err)" 2
not_ok 'one that is not' kiln verify --json bad.pkr.hcl
is 'exactly what differs is named, with the step that wrote it' \
    "$(jq -r '.images[0] | .verdict + " " + ([.differences[] | .path + ":" + .what + ":" + .step] | join(" "))' .out)" \
    'different /order:content:2 bad /random:content:2 bad'
matches 'and the bytes' "$(jq -r '.images[0].differences[1].bytes' .out)" '^at [0-9]+: [0-9a-f ]+ \| [0-9a-f ]+$'
matches 'nothing of it is in the cache' "$(kiln plan --json good.pkr.hcl | jq -r '.plans[0].why')" 'not in the store yet'
is 'and leaves no process' "$(left_behind "$KILN_STORE")" ''
ok 'the store is whole' kiln fsck
finish
