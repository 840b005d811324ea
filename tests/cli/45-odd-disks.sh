#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Small disks of an unusual kind: a root that no tool recognises (busybox, no fstab), without journal, with 1 KiB blocks. It bakes, ends
# cleanly unmounted, holds nothing of what was deleted, and shares no state with a disk that has the same root and another table.
. "$(dirname "$0")/../lib.sh"
require busybox sfdisk mke2fs e2fsck dumpe2fs
KILN_STORE=$WORK/store # this script runs beside those that share one

mkdir -p root/bin root/etc/ssh root/root root/proc root/sys root/dev
cp "$(command -v busybox)" root/bin/busybox
for applet in sh ls cat rm mkdir chmod echo env; do ln -s busybox "root/bin/$applet"; done
printf 'ID=odd\nNAME=Odd\n' >root/etc/os-release
echo 'root:x:0:0:root:/root:/bin/sh' >root/etc/passwd
echo 'host-key-of-the-vendor' >root/etc/ssh/ssh_host_rsa_key
truncate -s 64M one.raw
printf 'label: dos\nlabel-id: 0x11111111\nstart=2048, type=83\n' | sfdisk -q one.raw
mke2fs -q -t ext4 -b 1024 -O ^has_journal -d root -E offset=1048576 one.raw 63m 2>.err
cp one.raw two.raw
sfdisk -q --disk-id two.raw 0x22222222

secret="secret-$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
for disk in one two; do
    cat >$disk.pkr.hcl <<END
source "disk" "odd" {
  from = "$disk.raw"
}
build {
  name    = "odd-$disk"
  sources = ["source.disk.odd"]
  provisioner "shell" {
    inline = ["for i in 1 2 3 4 5 6 7 8; do echo $secret > /root/s\$i; done; ln -s $secret$secret /root/link; mkdir /root/$secret"]
  }
  provisioner "shell" {
    inline = ["rm -r /root/s? /root/link /root/$secret", "echo baked > /etc/baked"]
  }
  output "disk" {}
}
END
    ok "$disk bakes" kiln bake $disk.pkr.hcl || finish
    ok "$disk: export" kiln export odd-$disk/disk $disk.out.raw
    is "$disk: its own table" "$(head -c 512 $disk.out.raw | sha256sum)" "$(head -c 512 $disk.raw | sha256sum)"
    is "$disk: no deleted secret" "$(grep -a -c "$secret" $disk.out.raw)" 0
    is "$disk: no host key" "$(grep -a -c host-key-of-the-vendor $disk.out.raw)" 0
    dd if=$disk.out.raw of=part bs=1M skip=1 status=none
    ok "$disk: e2fsck" e2fsck -fn part
    matches "$disk: unmounted" "$(dumpe2fs -h part 2>/dev/null)" 'state: +clean'
done
finish
