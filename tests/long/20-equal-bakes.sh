#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cold bakes of one template under other umasks, zones, folders and loads: equal image IDs, raw disks and OCI manifests.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap sha256sum jq

bakes=${KILN_TEST_BAKES:-20}
cat >equal.pkr.hcl <<'END_OF_TEMPLATE'
source "bootstrap" "base" {
  suite    = "bookworm"
  packages = ["openssh-server", "python3-minimal"]
}
build {
  name    = "equal"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = [
      "useradd -m alice",
      "mkdir -p /srv/data && for i in $(seq 200); do echo line $i > /srv/data/$i; done",
      "ln /srv/data/1 /srv/data/one; setcap cap_net_raw+ep /usr/bin/true 2>/dev/null || true",
      "date > /etc/built; python3 -c 'import json; print(json.dumps({\"a\": 1}))' > /etc/json",
    ]
  }
  output "disk" {}
  output "oci" { cmd = ["/bin/bash"] }
}
END_OF_TEMPLATE

one_bake() { # number
    mkdir -p "folder $1"
    cp equal.pkr.hcl "folder $1/"
    (
        cd "folder $1" || exit 1
        umask "0$(($1 % 3 * 11 + 22))" 2>/dev/null || umask 022
        TZ="Etc/GMT+$(($1 % 12))" KILN_STORE="$WORK/store-$1" "$KILN" bake --no-cache equal.pkr.hcl >ids 2>log || exit 1
        KILN_STORE="$WORK/store-$1" "$KILN" export equal/disk - --format=raw 2>/dev/null | sha256sum | cut -c1-64 >raw
        KILN_STORE="$WORK/store-$1" "$KILN" show equal/oci --json | jq -r .manifest >manifest
    )
}

bake=1
while [ "$bake" -le "$bakes" ]; do
    ok "bake $bake" one_bake "$bake" || { explain "folder $bake/log"; finish; }
    if [ "$bake" -gt 1 ]; then
        is "bake $bake: the image IDs" "$(cat "folder $bake/ids")" "$(cat 'folder 1/ids')"
        is "bake $bake: the raw disk" "$(cat "folder $bake/raw")" "$(cat 'folder 1/raw')"
        is "bake $bake: the OCI manifest" "$(cat "folder $bake/manifest")" "$(cat 'folder 1/manifest')"
        rm -rf "$WORK/store-$bake"
    fi
    bake=$((bake + 1))
done
finish
