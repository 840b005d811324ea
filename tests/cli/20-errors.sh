#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every mistake has one sentence, exit status 1 or 2, and leaves nothing behind.
. "$(dirname "$0")/../lib.sh"
require python3

shared=$KILN_STORE
KILN_STORE=$WORK/store

scratch() { # file, body of the build
    cat >"$1" <<END
source "oci" "nothing" {
  from = "scratch"
  size = "128M"
}
build {
  name    = "errors"
  sources = ["source.oci.nothing"]
$2
}
END
}
clean() {
    is "$1: nothing is left" "$(left_behind "$KILN_STORE")$(ls -A "$KILN_STORE/tmp" 2>/dev/null)" ''
}

# The template.
scratch variable.pkr.hcl '  provisioner "file" {
    content     = var.nope
    destination = "/x"
  }'
fails 2 'unknown variable' 'nope' kiln bake variable.pkr.hcl
matches 'the place is told: file, line, column' "$(cat .err)" 'variable\.pkr\.hcl:9:[0-9]+: '
matches 'with a caret' "$(cat .err)" '^ *\^|\| *\^'

scratch provisioner.pkr.hcl '  provisioner "shel" { inline = ["true"] }'
fails 2 'unknown provisioner' 'shel' kiln bake provisioner.pkr.hcl
scratch argument.pkr.hcl '  provisioner "shell" { inlin = ["true"] }'
fails 2 'unknown argument' 'inlin' kiln bake argument.pkr.hcl
scratch upload.pkr.hcl '  provisioner "file" {
    source      = "no-such-file"
    destination = "/x"
  }'
fails 12 'missing upload' 'no-such-file' kiln bake upload.pkr.hcl
printf 'build {\n  sources = ["source.oci.nothing"]\n' >syntax.pkr.hcl
fails 2 'a brace that is never closed' 'syntax.pkr.hcl:' kiln bake syntax.pkr.hcl

# The source.
echo 'this is no disk' >text.img
echo 'source "disk" "d" { from = "text.img" }
build { sources = ["source.disk.d"] }' >text.pkr.hcl
fails 1 'an image that is no disk' 'disk' kiln bake text.pkr.hcl
zeroes=$(printf '%064d' 0)
echo "source \"disk\" \"d\" {
  from     = \"text.img\"
  checksum = \"sha256:$zeroes\"
}
build { sources = [\"source.disk.d\"] }" >checksum.pkr.hcl
fails 1 'a wrong checksum' "$zeroes" kiln bake checksum.pkr.hcl
matches 'tells the right one too' "$(cat .err)" "$(sha256sum text.img | cut -d' ' -f1)"
echo 'source "disk" "d" { from = "https://example.org/a.img" }
build { sources = ["source.disk.d"] }' >unpinned.pkr.hcl
fails 2 'a download without checksum' 'checksum' kiln bake unpinned.pkr.hcl
mkdir -p files
cp text.img files/a.img
sed 's|from = .*|from = "https://example.org/a.img"|' checksum.pkr.hcl >mapped.pkr.hcl
fails 1 'a wrong checksum of a mapped URL' "$zeroes" kiln --url-map "https://example.org/=$WORK/files" bake mapped.pkr.hcl
if have qemu-img; then
    truncate -s 64M backing.raw
    qemu-img create -q -f qcow2 -F raw -b backing.raw backed.qcow2
    echo 'source "disk" "d" { from = "backed.qcow2" }
build { sources = ["source.disk.d"] }' >backed.pkr.hcl
    fails 1 'a qcow2 with a backing file' 'backing' kiln bake backed.pkr.hcl
fi
echo 'source "bootstrap" "b" { suite = "nosuchsuite" }
build { sources = ["source.bootstrap.b"] }' >suite.pkr.hcl
if have mmdebstrap && curl -sfo /dev/null --max-time 20 http://deb.debian.org/debian/dists/bookworm/InRelease; then
    fails 1 'an unknown suite' 'nosuchsuite' kiln bake suite.pkr.hcl
    echo 'source "bootstrap" "b" {
  suite    = "bookworm"
  packages = ["no-such-package-anywhere"]
}
build { sources = ["source.bootstrap.b"] }' >package.pkr.hcl
    fails 1 'a package that does not exist' 'no-such-package-anywhere' kiln bake package.pkr.hcl
else
    skip 'an unknown suite' 'the archive is out of reach'
    skip 'a package that does not exist' 'the archive is out of reach'
fi
clean 'refused sources'

# The kernel.
scratch nokernel.pkr.hcl '  output "disk" {}'
fails 1 'no kernel in /boot' 'kernel' kiln bake nokernel.pkr.hcl
mkdir -p root/boot root/etc
echo 'no kernel at all' >root/boot/vmlinuz-6.1.0-1-amd64
tar -C root -cf root.tar boot etc
oci_layout bad root.tar >/dev/null
echo 'source "oci" "bad" { from = "oci:bad:v1" }
build {
  sources = ["source.oci.bad"]
  output "disk" {}
}' >badkernel.pkr.hcl
fails 1 'a file in /boot that is no kernel' 'kernel' kiln bake badkernel.pkr.hcl
clean 'kernels'

# The store.
scratch good.pkr.hcl ''
ok 'a template with no steps bakes' kiln bake good.pkr.hcl
cp -a store newer
for number in 999; do sed -i "s/[0-9][0-9]*/$number/" newer/format; done
fails 1 'a store of a newer version' 'newer' kiln --store "$WORK/newer" stats
mkdir other && echo hello >other/file
fails 1 'a folder that is no store' 'other' kiln --store "$WORK/other" bake good.pkr.hcl
is 'that folder is left alone' "$(ls -A other)" file
trap 'umount "$WORK/small" 2>/dev/null; cleanup' EXIT
if [ "$(id -u)" -eq 0 ] && mkdir -p small && mount -t tmpfs -o size=3m none small 2>/dev/null; then
    head -c 8000000 /dev/urandom >big
    scratch space.pkr.hcl '  provisioner "file" {
    source      = "big"
    destination = "/big"
  }'
    fails 1 'no space left' 'space' timeout -s INT 150 "$KILN" --store "$WORK/small/store" bake space.pkr.hcl
    is 'no space left: no process is left' "$(left_behind "$WORK/small")" ''
    umount small
else
    skip 'no space left' 'a small file system cannot be mounted here'
fi

# Steps.
if have mmdebstrap && [ -d "$shared" ]; then
    KILN_STORE=$shared
    cat >exit3.pkr.hcl <<'END'
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "errors"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["echo before", "exit 3"]
  }
}
END
    fails 1 'a script that exits 3' '3' kiln bake exit3.pkr.hcl
    matches 'its output was shown' "$(cat .err)" 'before'
    is 'a failed step leaves no process' "$(left_behind "$KILN_STORE")" ''
    ok 'and the store is clean' kiln fsck
fi
finish
