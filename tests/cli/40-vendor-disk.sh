#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A disk image that kiln did not make: other partition numbers, ext4 with mke2fs's own features, the distribution's boot
# loader in its own way. It bakes, still boots, and what the bake deleted is in no byte of it.
. "$(dirname "$0")/../lib.sh"
require qemu-img sgdisk mke2fs umoci python3 curl
[ "$(id -u)" -eq 0 ] || { echo '1..0 # SKIP files of several owners need root'; exit 0; }
kiln export debian-web/oci root.oci --format=oci-dir 2>.err || { echo '1..0 # SKIP needs the image of 10-bake-web.sh'; exit 0; }

# A root with a kernel, as a folder.
tag=$(python3 -c 'import json; print(json.load(open("root.oci/index.json"))["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])')
umoci unpack --image "root.oci:$tag" bundle >/dev/null 2>&1
root=bundle/rootfs

# Containers have no kernel: it comes from the disk beside the container.
kiln export debian-web/disk web.raw 2>.err
cut_partition web.raw 1 web.ext4
for file in $(debugfs -R 'ls -p /boot' web.ext4 2>/dev/null | cut -d/ -f6 | grep -E '^(vmlinuz|initrd.img)-'); do
    debugfs -R "dump /boot/$file $root/boot/$file" web.ext4 2>/dev/null
done
rm -f web.raw web.ext4
secret="secret-$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
mkdir -p $root/root
for i in 1 2 3 4 5 6 7 8; do printf '%s\n' "$secret" "$i"; done >$root/root/secret.txt
printf '%s' "$secret" >$root/etc/small-secret
rm -f $root/boot/grub/grub.cfg
mkdir -p $root/boot/grub
kernel=$(basename "$(ls $root/boot/vmlinuz-* | tail -n 1)")
initrd=$(basename "$(ls $root/boot/initrd.img-* | tail -n 1)")
cat >$root/boot/grub/grub.cfg <<END
set timeout=0
menuentry "vendor" {
  search --no-floppy --label --set=root vendor
  linux /boot/$kernel root=LABEL=vendor ro console=ttyS0
  initrd /boot/$initrd
}
END
echo 'LABEL=vendor / ext4 defaults 0 1' >$root/etc/fstab
is 'the root has a kernel' "$(test -f "$root/boot/$kernel" && test -f "$root/boot/$initrd" && echo yes)" yes

# Partition 1 is the boot loader's, 2 is the root; nothing like kiln's own layout.
truncate -s 1536M vendor.raw
sgdisk -n 1:2048:+1M -t 1:ef02 -n 2:0:0 -t 2:8300 vendor.raw >/dev/null
set -- $(partition vendor.raw 2)
mke2fs -q -t ext4 -L vendor -d $root -E offset="$1" vendor.raw "$(($2 / 1024))k" 2>.err
rm -rf bundle root.oci
cat >early.cfg <<'END'
search --no-floppy --label --set=root vendor
set prefix=($root)/boot/grub
END
grub-mkimage -O i386-pc -p /boot/grub -c early.cfg -o core.img biosdisk part_gpt ext2 search search_label normal linux configfile 2>.err
python3 - vendor.raw core.img /usr/lib/grub/i386-pc/boot.img <<'END'
import struct, sys
disk, core, boot = open(sys.argv[1], "r+b"), bytearray(open(sys.argv[2], "rb").read()), open(sys.argv[3], "rb").read()
lba = 2048
core[0x1f4:0x200] = struct.pack("<QHH", lba + 1, (len(core) + 511) // 512 - 1, 0x820)
disk.seek(lba * 512)
disk.write(core)
mbr = bytearray(boot[:440])
mbr[0x5c:0x64] = struct.pack("<Q", lba)
mbr[0x66:0x68] = b"\x90\x90"
disk.seek(0)
disk.write(mbr)
END
qemu-img convert -f raw -O qcow2 vendor.raw vendor.qcow2
is 'the secret is in the vendor image' "$(($(grep -a -c "$secret" vendor.raw) > 0))" 1
sum=$(sha256sum vendor.qcow2 | cut -d' ' -f1)

cat >vendor.pkr.hcl <<END
source "disk" "vendor" {
  from     = "vendor.qcow2"
  checksum = "sha256:$sum"
}
build {
  name    = "vendor"
  sources = ["source.disk.vendor"]
  provisioner "shell" {
    inline = [
      "rm /root/secret.txt /etc/small-secret",
      "echo 'baked on a vendor disk' > /var/www/html/index.html",
    ]
  }
  output "disk" {}
  output "oci" {}
}
END
ok 'it bakes' kiln bake vendor.pkr.hcl || finish
cp .out first
disk=$(awk '$2 == "disk" { print $3 }' first)
oci=$(awk '$2 == "oci" { print $3 }' first)
ok 'it bakes again from the cache' kiln bake vendor.pkr.hcl
is 'with the same image IDs' "$(cat .out)" "$(cat first)"

ok 'export' kiln export "$disk" out.raw
is 'the secret is in no byte of the disk' "$(grep -a -c "$secret" out.raw)" 0
ok 'export the container' kiln export "$oci" out.oci --format=oci-dir
find out.oci/blobs -type f -exec sh -c 'gzip -dc "$1" 2>/dev/null || cat "$1"' _ {} \; | grep -a -c "$secret" >hits
is 'the secret is in no layer' "$(cat hits)" 0
is 'partitions are the vendor'\''s' "$(partition out.raw 2)" "$(partition vendor.raw 2)"
ok 'the root can be cut out' cut_partition out.raw 2 root.ext4
ok 'e2fsck finds it clean' e2fsck -fn root.ext4
is 'the label is the vendor'\''s' "$(e2label root.ext4)" vendor
port=$(free_port)
ok 'it still boots, with the new page' kiln boot "$disk" --forward "$port:80" --check "http://127.0.0.1:$port/" --timeout 240s
finish
