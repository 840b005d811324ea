#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kiln's own appliance: made once, found again, made anew when it must be, done without where it cannot be had.
. "$(dirname "$0")/../lib.sh"
require supermin cpio qemu-system-x86_64 mke2fs sgdisk
KILN_STORE=$WORK/store # this script runs beside those that share one
export KILN_CACHE="$WORK/cache"
build=$(dirname "$KILN")

ok 'it is made' kiln appliance build
path=$(cat .out)
matches 'how long that took is told' "$(cat .err)" 'made in [0-9]'
is 'with all its files' "$(ls "$path" | tr '\n' ' ')" 'README.fixed initrd kernel root '
is 'and nothing else is left' "$(ls "$KILN_CACHE/appliance" | grep -vc -e lock -e "$(basename "$path")")" 0
ok 'its root is a clean file system' e2fsck -fn "$path/root"
is 'its first program is ours' "$(cpio -i --quiet --to-stdout init <"$path/initrd" | sha256sum)" "$(sha256sum <"$build/kiln-appliance-init")"
ok 'the second time' kiln appliance build
is 'it is found' "$(cat .out)" "$path"
matches 'which is told' "$(cat .err)" 'up to date'
before=$(stat -c %i "$path/root")
ok 'unless it is asked for' kiln --json appliance build --force
is 'JSON says that it was made' "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["built"])' <.out)" True
not_ok 'it is a new one' test "$(stat -c %i "$path/root")" = "$before"
fails 2 'appliances are built, nothing else' "can 'build', not 'destroy'" kiln appliance destroy

# A changed input is another appliance; half a one is none.
mkdir libexec
cp "$build/kiln-appliance-init" "$build/kiln-runner" libexec
printf 'changed' >>libexec/kiln-appliance-init
KILN_LIBEXEC_DIR=$WORK/libexec kiln appliance build >other 2>.err
not_ok 'a changed input makes another one' test "$(cat other)" = "$path"
rm "$path/README.fixed"
ok 'half a one is made anew' kiln appliance build
is 'in its place' "$(cat .out)" "$path"
ok 'and is whole' test -e "$path/README.fixed"

# Two at once: one builds, the other waits for it.
rm -rf "$KILN_CACHE/appliance"
kiln appliance build >one 2>one.err &
kiln appliance build >two 2>two.err
wait $!
is 'two at once make one' "$(cat one two | sort -u)" "$path"
is 'and only one works' "$(cat one.err two.err | grep -c 'made in')" 1

# A bake in it, and one that does without.
cat >disk.pkr.hcl <<END
variable "round" { default = "1" }
source "oci" "empty" { from = "scratch" }
build {
  name    = "appliance"
  sources = ["source.oci.empty"]
  provisioner "file" {
    content     = var.round
    destination = "/round"
  }
}
END
ok 'a bake takes it' kiln --verbose bake disk.pkr.hcl
matches 'by itself' "$(cat .err)" "appliance: $path"
first=$(id_of appliance oci <.out)
if [ "$(id -u)" = 0 ]; then
    printf x >broken
    export KILN_CACHE=$WORK/broken
    ok 'where none can be made a bake goes on' kiln --verbose bake --no-cache disk.pkr.hcl
    matches 'and says why' "$(cat .err)" "libguestfs's own appliance is used"
    is 'to the same image' "$(id_of appliance oci <.out)" "$first"
    export KILN_CACHE=$WORK/cache
fi

# Disks with more than plain partitions get the other one.
truncate -s 64M mixed.raw
sgdisk -n 1:2048:+32M -n 2:0:+16M mixed.raw >/dev/null
mkdir -p root/etc
echo 'ID=test' >root/etc/os-release
mke2fs -q -t ext4 -d root -E offset=1048576 mixed.raw 32M
printf 'LUKS\272\276' | dd of=mixed.raw bs=1 seek=$(partition mixed.raw 2 | cut -d' ' -f1) conv=notrunc status=none
cat >mixed.pkr.hcl <<'END'
source "disk" "mixed" { from = "mixed.raw" }
build {
  name    = "appliance-mixed"
  sources = ["source.disk.mixed"]
  provisioner "file" {
    content     = "x"
    destination = "/etc/x"
  }
}
END
ok 'a disk with a locked partition' kiln --verbose bake mixed.pkr.hcl
matches 'is worked on in the stock appliance' "$(cat .err)" "appliance: libguestfs's own, as the disk holds more"

# The processor.
ok 'emulated by order' env KILN_ACCEL=tcg "$KILN" --verbose bake -var round=2 disk.pkr.hcl
is 'no process is left' "$(left_behind "$KILN_STORE")" ''
finish
