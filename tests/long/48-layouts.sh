#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Vendors' layouts that the host cannot read whole: a root on LVM with its own /boot, ESP and an xfs /var; btrfs subvolumes, compressed; an xfs
# root with SELinux and an /etc/resolv.conf that leads nowhere. They bake with every file system mounted, are clean afterwards and hold nothing of
# what was deleted; their trees are what an independent reader (libguestfs's tar) sees; a container, a child and a booted machine come of them.
# KILN_LAYOUTS names a folder that keeps the three disks for another run.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap guestfish python3 mkfs.xfs mkfs.btrfs qemu-system-x86_64 umoci sha256sum
KILN_STORE=$WORK/store
export LIBGUESTFS_BACKEND=direct
[ "${KILN_ACCEL:-tcg}" = kvm ] || export LIBGUESTFS_BACKEND_SETTINGS=force_tcg
disks=${KILN_LAYOUTS:-$WORK/disks}
mkdir -p "$disks"

fish() { timeout 1800 guestfish "$@"; }

make_root() {
    SOURCE_DATE_EPOCH=1700000000 mmdebstrap --quiet --mode=unshare --variant=minbase --aptopt='APT::Install-Recommends "false"' \
        --include=systemd-sysv,udev,linux-image-cloud-amd64,initramfs-tools,lvm2,xfsprogs,btrfs-progs,libcap2-bin,attr,acl,policycoreutils \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --customize-hook='chroot "$1" passwd -d root' --customize-hook='echo layouts >"$1/etc/hostname"' bookworm "$disks/root.tar"
}

# A policy that is one rule long: that setfiles gets to work on all of the disk is what matters.
make_disks() {
    printf '%s\n' '/dev/mapper/vg0-root / ext4 defaults 0 1' 'LABEL=boot /boot ext4 defaults 0 2' 'LABEL=EFI /boot/efi vfat umask=0077 0 1' \
        '/dev/vg0/var /var xfs defaults 0 2' >fstab.lvm
    printf '%s\n' 'LABEL=pool / btrfs subvol=@,compress=zstd 0 0' 'LABEL=pool /home btrfs subvol=@home 0 0' 'LABEL=pool /var btrfs subvol=@var 0 0' \
        >fstab.btrfs
    echo 'LABEL=root / xfs defaults 0 0' >fstab.xfs
    printf 'SELINUX=enforcing\nSELINUXTYPE=mini\n' >selinux.config
    printf '/.* system_u:object_r:default_t:s0\n/etc(/.*)? system_u:object_r:etc_t:s0\n/dev(/.*)? system_u:object_r:device_t:s0\n' >file_contexts
    for disk in lvm btrfs xfs; do truncate -s 2G "$disks/$disk.raw"; done
    fish -a "$disks/lvm.raw" -a "$disks/btrfs.raw" -a "$disks/xfs.raw" <<END
run
part-init /dev/sda gpt
part-add /dev/sda p 2048 67583
part-set-gpt-type /dev/sda 1 C12A7328-F81F-11D2-BA4B-00A0C93EC93B
part-add /dev/sda p 67584 591871
part-add /dev/sda p 591872 -2048
mkfs vfat /dev/sda1 label:EFI
mkfs ext4 /dev/sda2 label:boot
pvcreate /dev/sda3
vgcreate vg0 /dev/sda3
lvcreate root vg0 1000
lvcreate var vg0 400
mkfs ext4 /dev/vg0/root
mkfs xfs /dev/vg0/var
mount /dev/vg0/root /
mkdir /boot
mkdir /var
mount /dev/sda2 /boot
mount /dev/vg0/var /var
mkdir /boot/efi
mount /dev/sda1 /boot/efi
tar-in $disks/root.tar / xattrs:true acls:true
upload fstab.lvm /etc/fstab
write /boot/efi/hello.txt hello
umount-all
part-disk /dev/sdb gpt
mkfs btrfs /dev/sdb1 label:pool
mount /dev/sdb1 /
btrfs-subvolume-create /@
btrfs-subvolume-create /@home
btrfs-subvolume-create /@var
umount /
mount-options compress=zstd,subvol=@ /dev/sdb1 /
mkdir /home
mkdir /var
mount-options subvol=@home /dev/sdb1 /home
mount-options subvol=@var /dev/sdb1 /var
tar-in $disks/root.tar / xattrs:true acls:true
btrfs-subvolume-create /srv/nested
write /srv/nested/in-it nested
upload fstab.btrfs /etc/fstab
umount-all
part-disk /dev/sdc gpt
mkfs xfs /dev/sdc1 label:root
mount /dev/sdc1 /
tar-in $disks/root.tar / xattrs:true acls:true
upload fstab.xfs /etc/fstab
mkdir-p /etc/selinux/mini/contexts/files
mkdir-p /etc/selinux/mini/policy
upload file_contexts /etc/selinux/mini/contexts/files/file_contexts
upload selinux.config /etc/selinux/config
touch /.autorelabel
rm-f /etc/resolv.conf
ln-s ../run/nowhere/stub-resolv.conf /etc/resolv.conf
END
}

if [ ! -s "$disks/done" ]; then
    ok 'a root' make_root || finish
    ok 'the disks' make_disks || finish
    echo done >"$disks/done"
fi

# Random bytes, which no file system can compress: found in a disk only where the file's blocks are. What stays shows that they can be found.
head -c 6000000 /dev/urandom >gone.bin
head -c 6000000 /dev/urandom >kept.bin
cat >found.py <<'END'
import mmap, sys
# How many of 20 places in the file, each within a block of its own, are somewhere in the disk.
image = open(sys.argv[1], "rb")
disk = mmap.mmap(image.fileno(), 0, prot=mmap.PROT_READ)
data = open(sys.argv[2], "rb").read()
print(sum(disk.find(data[at : at + 64]) >= 0 for at in range(4096 * 7 + 100, len(data), 4096 * 73)))
END
for disk in lvm btrfs xfs; do
    cat >$disk.pkr.hcl <<END
source "disk" "vendor" {
  from = "$disks/$disk.raw"
}
build {
  name              = "l-$disk"
  sources           = ["source.disk.vendor"]
  source_date_epoch = 1700000000
  provisioner "file" {
    sources     = ["gone.bin", "kept.bin"]
    destination = "/var/"
  }
  provisioner "shell" {
    inline = [
      "grep '^/dev/' /proc/mounts | cut -d' ' -f2,3 | sort > /etc/mounted",
      "echo one > /var/lib/one", "echo boot > /boot/from-step", "[ ! -d /boot/efi ] || echo esp > /boot/efi/from-step",
    ]
  }
  provisioner "shell" {
    inline = [
      "rm /var/gone.bin", "mkdir -p /srv/www", "echo two > /srv/www/two", "ln /srv/www/two /srv/www/two-again",
      "cp /bin/true /srv/www/t && setcap cap_net_raw+ep /srv/www/t", "setfattr -n user.k -v v /var/lib/one",
      "setfacl -m u:33:r /srv/www/two", "mknod /srv/null c 1 3", "mkfifo /srv/fifo", "truncate -s 300M /srv/sparse; echo end >> /srv/sparse",
      "for i in 1 2 3 4 5 6 7 8 9; do cat /var/lib/dpkg/status; done > /srv/compresses", ": > /srv/empty", "ln -s ../nowhere /srv/link",
      "mkdir /srv/acl && setfacl -d -m u:33:rwx /srv/acl", "printf x > /srv/inline",
    ]
  }
  output "disk" {}
$([ $disk = lvm ] && echo '  output "oci" {}')
}
END
    ok "$disk: bakes" kiln bake $disk.pkr.hcl || continue
    grep -E 'read in|done in' .err | sed 's/^/# /'
    cp .out $disk.ids
    ok "$disk: once more" kiln bake $disk.pkr.hcl
    is "$disk: the same images, no machine started" "$(sort .out; grep -c 'starting the appliance' .err)" "$(sort $disk.ids; echo 0)"
    ok "$disk: written out" kiln export l-$disk/disk $disk.out.raw
    is "$disk: what stays is found in its blocks" "$(python3 found.py $disk.out.raw kept.bin)" 20
    is "$disk: nothing of what was deleted" "$(python3 found.py $disk.out.raw gone.bin)" 0
    ok "$disk: its tree" kiln export l-$disk/disk $disk.kiln.tar --format=tar
done

is 'lvm: all was mounted' "$(kiln cat l-lvm/disk /etc/mounted | tr '\n' ' ')" '/ ext4 /boot ext4 /boot/efi vfat /var xfs '
is 'btrfs: all was mounted' "$(kiln cat l-btrfs/disk /etc/mounted | tr '\n' ' ')" '/ btrfs /home btrfs /var btrfs '
is 'xfs: all was mounted' "$(kiln cat l-xfs/disk /etc/mounted)" '/ xfs'
is 'cat: of a nested subvolume' "$(kiln cat l-btrfs/disk /srv/nested/in-it)" nested
is 'cat: of /var' "$(kiln cat l-lvm/disk /var/lib/one)" one
matches 'files: of the ESP' "$(kiln files l-lvm/disk /boot/efi)" 'hello.txt'
matches 'blame: the step' "$(kiln blame l-lvm/disk /srv/www/two)" 'step +3 shell'
matches 'blame: another one' "$(kiln blame l-btrfs/disk /boot/from-step)" 'step +2 shell'
is 'blame: labels are no work of the seal' "$(kiln blame l-xfs/disk /srv/www/two | grep -c "seal's")" 0
matches 'blame: the package' "$(kiln blame l-lvm/disk /usr/bin/env)" 'package +coreutils'
matches 'sbom: the packages in /var' "$(kiln sbom l-lvm/disk)" '"coreutils"'
matches 'find: too' "$(kiln find --package bash)" 'l-btrfs +disk'
matches 'diff: of two layouts' "$(kiln diff l-lvm/disk l-btrfs/disk)" 'srv/nested'
kiln export l-lvm/oci oci --format=oci-dir >/dev/null 2>&1
ok 'the container is unpacked' umoci unpack --rootless --image oci:l-lvm bundle
is 'and has what lies in /var, not in /boot' "$(cat bundle/rootfs/var/lib/one; ls bundle/rootfs/boot | grep -c vmlinuz)" "one
0"

# --- the independent reader ---
ok 'read by libguestfs' fish --ro -a lvm.out.raw -a btrfs.out.raw -a xfs.out.raw <<END
run
mount-ro /dev/vg0/root /
mount-ro /dev/sda2 /boot
mount-ro /dev/sda1 /boot/efi
mount-ro /dev/vg0/var /var
tar-out / lvm.fish.tar numericowner:true xattrs:true acls:true selinux:true
umount-all
mount-vfs ro,subvol=@ btrfs /dev/sdb1 /
mount-vfs ro,subvol=@home btrfs /dev/sdb1 /home
mount-vfs ro,subvol=@var btrfs /dev/sdb1 /var
tar-out / btrfs.fish.tar numericowner:true xattrs:true acls:true selinux:true
umount-all
mount-ro /dev/sdc1 /
tar-out / xfs.fish.tar numericowner:true xattrs:true acls:true selinux:true
umount-all
!echo fscks
debug sh "e2fsck -fn /dev/vg0/root >/dev/null 2>&1; echo \$?"
debug sh "e2fsck -fn /dev/sda2 >/dev/null 2>&1; echo \$?"
xfs-repair /dev/vg0/var nomodify:true
xfs-repair /dev/sdc1 nomodify:true
btrfs-fsck /dev/sdb1
!echo clean
END
is 'fsck, xfs_repair -n and btrfs check are clean' "$(sed -n '/^fscks/,$p' .out | grep . | tr '\n' ' ')" 'fscks 0 0 0 0 clean '

cat >compare.py <<'END'
import hashlib, sys, tarfile
# Every entry of two tars: type, mode, owner, mtime, link group, device, content, xattrs.
def read(name):
    entries, first = {}, {}
    for m in (tar := tarfile.open(name)):
        path = m.name.lstrip("./") if m.name not in (".", "./") else ""
        x = {k[13:]: v for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr.")}
        acl = {k[11:]: v for k, v in m.pax_headers.items() if k.startswith("SCHILY.acl.")}
        if "RHT.security.selinux" in m.pax_headers:
            x["security.selinux"] = m.pax_headers["RHT.security.selinux"]
        x = {k: v.rstrip("\0") for k, v in x.items() if not k.startswith(("system.", "btrfs."))}
        kind = "f" if m.isreg() else "h" if m.islnk() else m.type.decode()
        data = hashlib.sha256(tar.extractfile(m).read()).hexdigest() if kind == "f" else None
        link = m.linkname.lstrip("./") if kind == "h" else m.linkname if m.issym() else None
        entries[path] = [kind, m.mode & 0o7777, m.uid, m.gid, int(m.mtime), link, (m.devmajor, m.devminor) if m.ischr() or m.isblk() else None, data, x]
    for path, e in entries.items():  # a group's members are all what its first name is
        if e[0] == "h":
            first.setdefault(e[5], [e[5]]).append(path)
    for names in first.values():
        whole = next(entries[n] for n in names if n in entries and entries[n][0] != "h")
        for n in names:
            entries[n] = whole[:5] + [sorted(names)] + whole[6:]
    return entries
ours, theirs, labels = read(sys.argv[1]), read(sys.argv[2]), len(sys.argv) > 3
left = ("lost+found",)
bad = 0
for path in sorted(set(ours) | set(theirs)):
    a, b = ours.get(path), theirs.get(path)
    if path in left or path.startswith(("tmp/", "run/")) or (b and b[0] not in "fh0123456" and a is None):
        continue
    if a and b and a[0] == "2":
        a, b = a[:1] + a[2:], b[:1] + b[2:]
    if a and b and path in ("", "tmp", "run", "boot", "var/tmp"):
        a, b = a[:4] + a[5:], b[:4] + b[5:]  # emptied, or a folder that lost what is left out
    if a and b:
        a, b = [min(v, 1700000000) if type(v) is int and v > 100000000 else v for v in a], [min(v, 1700000000) if type(v) is int and v > 100000000 else v for v in b]
    if a != b:
        bad += 1
        print("differs:", path, a, b)
    elif labels and "security.selinux" not in a[-1]:
        bad += 1
        print("no label:", path)
print(len(ours), "entries")
sys.exit(bad > 0)
END
for disk in lvm btrfs xfs; do
    ok "$disk: entry by entry" python3 compare.py $disk.kiln.tar $disk.fish.tar $([ $disk = xfs ] && echo labels)
    tail -n 1 .out | sed 's/^/# /'
done
is 'xfs: the link stays a link' "$(kiln files l-xfs/disk /etc/resolv.conf | grep -c nowhere)" 1
is 'xfs: not left to the first boot' "$(kiln files l-xfs/disk / | grep -c ' /[.]autorelabel')" 0

# --- a child, and a machine ---
cat >child.pkr.hcl <<'END'
source "disk" "parent" {
  from = "image:l-lvm/disk"
}
build {
  name    = "l-child"
  sources = ["source.disk.parent"]
  provisioner "shell" {
    inline = ["echo child > /var/lib/child"]
  }
  output "disk" {}
}
END
ok 'a child bakes' kiln bake child.pkr.hcl
matches 'and differs by its file' "$(kiln diff l-lvm/disk l-child/disk)" 'var/lib/child'
matches 'blame goes on to the parent' "$(kiln blame l-child/disk /srv/www/two)" 'step +3 shell'

kernel=$(kiln files l-child/disk /boot | grep -o 'vmlinuz-[^ ]*' | head -n 1)
kiln cat l-child/disk "/boot/$kernel" >kernel
kiln cat l-child/disk "/boot/initrd.img-${kernel#vmlinuz-}" >initrd
kiln export l-child/disk child.raw >/dev/null 2>&1
timeout 1200 qemu-system-x86_64 -accel "${KILN_ACCEL:-tcg}" -cpu max -m 1024 -nographic -no-reboot -net none -kernel kernel -initrd initrd \
    -append 'root=/dev/mapper/vg0-root ro console=ttyS0 systemd.default_timeout_start_sec=1000' -drive file=child.raw,format=raw,if=virtio,snapshot=on >console 2>&1 </dev/null &
machine=$!
while kill -0 $machine 2>/dev/null && ! grep -q 'login:' console; do sleep 2; done
result $((! $(grep -c 'layouts login:' console || true) > 0)) 'LVM, ext4 and xfs boot to a login' || explain console
is 'with every file system mounted' "$(grep -c -i 'failed to mount\|dependency failed' console)" 0
kill $machine 2>/dev/null
wait $machine 2>/dev/null
finish
