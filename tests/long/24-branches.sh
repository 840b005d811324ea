#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Steps for one output only run on a branch, and what is baked from such a set goes on from each kind's own root.
. "$(dirname "$0")/../lib.sh"
. "$TREE/tests/root.sh"
require python3 jq ldd bash
KILN_STORE=$WORK/store
kernel=$(ls /boot/vmlinuz-* 2>/dev/null | head -n 1)
[ -n "$kernel" ] || { echo '1..0 # SKIP no kernel in /boot'; exit 77; }
mkdir -p root/boot
cp "$kernel" root/boot/
echo 'nothing here boots it' >"root/boot/initrd.img-${kernel##*vmlinuz-}"
small_root sh bash cat mkdir chmod

cat >split.pkr.hcl <<'END'
source "oci" "root" { from = "oci:parent:v1" }
build {
  name    = "split"
  sources = ["source.oci.root"]
  provisioner "shell" { inline = ["echo all > /all"] }
  provisioner "shell" {
    inline      = ["echo disk > /disk-only"]
    only_output = ["disk"]
  }
  provisioner "shell" {
    inline      = ["echo oci > /oci-only"]
    only_output = ["oci"]
  }
  output "disk" {}
  output "oci" {}
}
END
cat >next.pkr.hcl <<'END'
source "disk" "split" { from = "image:split" }
build {
  name    = "next"
  sources = ["source.disk.split"]
  provisioner "shell" { inline = ["for f in /disk-only /oci-only; do if [ -e $f ]; then echo again >> $f; fi; done"] }
}
END
sed -e 's/"next"/"same"/' -e '/provisioner/d' next.pkr.hcl >same.pkr.hcl

contents() { # ref
    for path in /all /disk-only /oci-only; do
        kiln cat "$1" "$path" 2>/dev/null | tr '\n' ' '
    done
}

# What a container engine would see: the layers, one after the other.
unpacked() { # ref
    rm -rf layout merged
    kiln export "$1" layout --format=oci-dir >/dev/null 2>&1
    mkdir merged
    for layer in $(jq -r '.layers[].digest | sub("sha256:"; "")' "layout/blobs/sha256/$(jq -r '.manifests[0].digest | sub("sha256:"; "")' layout/index.json)"); do
        tar -C merged -xzf "layout/blobs/sha256/$layer"
    done
    for path in all disk-only oci-only; do
        cat "merged/$path" 2>/dev/null | tr '\n' ' '
    done
}

ok 'it bakes' kiln bake split.pkr.hcl
is 'the common step ran once' "$(grep -c 'shell done' .err)" 3
is 'the disk has its own' "$(contents split/disk)" 'all disk '
is 'the container has its own' "$(contents split/oci)" 'all oci '
ok 'another bake goes on from both' kiln bake next.pkr.hcl
is 'the disk from the disk' "$(contents next/disk)" 'all disk again '
is 'the container from the container' "$(contents next/oci)" 'all oci again '
is 'and so do its layers' "$(unpacked next/oci)" 'all oci again '
ok 'nothing to do' kiln bake same.pkr.hcl
is 'gives the parent' "$(cut -d' ' -f3 .out)" "$(kiln images --json | jq -r '.images[] | select(.name == "split") | .kind + " " + .id' | sort | cut -d' ' -f2)"
ok 'the set is rebuilt' kiln verify next
is 'and is equal' "$(cut -d' ' -f2-3 .out)" "$(printf 'disk equal\noci equal')"
ok 'the store is whole' kiln fsck
finish
