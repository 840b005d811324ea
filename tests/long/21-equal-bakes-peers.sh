#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The test of 20-equal-bakes.sh beside others: the same small image made twice by kiln, by virt-customize (what virt-builder does once it has its template, which
# it would fetch from the internet) and by mkosi, each as far as it can be pinned: fixed machine ID, SOURCE_DATE_EPOCH. Kiln's must be equal; of the others it is
# shown in how much they differ, by 4 KiB blocks. A peer that is missing or does not work here is skipped, visibly.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap sha256sum cmp
export SOURCE_DATE_EPOCH=1700000000 LIBGUESTFS_BACKEND=direct
unset KILN_STORE
"$KILN" doctor | grep -q '^ok.*KVM' || export LIBGUESTFS_BACKEND_SETTINGS=force_tcg

# "equal", or how many blocks of 4 KiB differ.
compare() { # a b
    if cmp -s "$1" "$2"; then echo "equal"; return; fi
    cmp -l "$1" "$2" 2>/dev/null | awk '{ b = int(($1 - 1) / 4096); if (b != last || NR == 1) n++; last = b } END { printf "%d blocks of 4 KiB differ", n }'
}
shown() { # who, what
    printf '# %-16s %s\n' "$1" "$2"
    echo "$1: $2" >>table
}

cat >small.pkr.hcl <<'END'
source "bootstrap" "base" {
  suite = "bookworm"
  size  = "1G"
}
build {
  name    = "small"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["echo hello > /etc/hello", "mkdir -p /srv/many && for i in $(seq 300); do echo $i > /srv/many/$i; done"]
  }
  output "disk" {}
}
END
by_kiln() { kiln --store "store-$1" --quiet bake --no-cache small.pkr.hcl && kiln --store "store-$1" --quiet export small/disk "kiln-$1.raw"; }
ok 'kiln, once' by_kiln 1 || finish
ok 'kiln, again' by_kiln 2 || finish
shown kiln "$(compare kiln-1.raw kiln-2.raw)"
is 'kiln: equal disks' "$(tail -n 1 table)" 'kiln: equal'
rm -rf store-1 store-2 kiln-2.raw

# The same commands on the same disk, as the step of kiln's bake.
by_virt_customize() {
    cp --sparse=always kiln-1.raw "virt-$1.raw"
    virt-customize -q --format raw -a "virt-$1.raw" --no-network --run-command 'echo hello > /etc/hello' \
        --run-command 'mkdir -p /srv/many && for i in $(seq 300); do echo $i > /srv/many/$i; done' >virt.log 2>&1
}
if have virt-customize && by_virt_customize 1 && by_virt_customize 2; then
    shown virt-customize "$(compare virt-1.raw virt-2.raw)"
    ok 'virt-customize: two disks' test -s virt-2.raw
else
    skip 'virt-customize' "$(have virt-customize && tail -n 1 virt.log || echo 'it is not installed')"
fi
rm -f virt-1.raw virt-2.raw

by_mkosi() {
    mkdir "mkosi-$1"
    (cd "mkosi-$1" && timeout 1800 mkosi -d debian -r bookworm -t gpt_ext4 --root-size 1G -o disk.raw --with-docs --machine-id=0123456789abcdef0123456789abcdef \
        --hostname equal --force build) >mkosi.log 2>&1 && mv "mkosi-$1/disk.raw" "mkosi-$1.raw"
}
if [ "$(id -u)" -eq 0 ] && have mkosi && have debootstrap && by_mkosi 1 && by_mkosi 2; then
    shown mkosi "$(compare mkosi-1.raw mkosi-2.raw)"
    ok 'mkosi: two disks' test -s mkosi-2.raw
else
    skip 'mkosi' "$(have mkosi && [ -s mkosi.log ] && tail -n 1 mkosi.log || echo 'it is not installed, or cannot work here')"
fi
finish
