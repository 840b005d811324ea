#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images leave the store in every form, and other tools agree about each; a disk is read over NBD before anything is copied.
. "$(dirname "$0")/../lib.sh"
require mkfs.ext4 qemu-img qemu-io python3 skopeo

KILN_STORE=$WORK/store
export KILN_STORE

# A disk with files, its end not on the grid; a container image with a layer made elsewhere.
mkdir -p root/etc root/usr/bin
echo web >root/etc/hostname
head -c 3000000 /dev/urandom >root/usr/bin/tool
seq 200000 >root/etc/numbers
ln root/etc/numbers root/etc/twice
truncate -s 32M disk.raw
mkfs.ext4 -q -F -d root disk.raw
truncate -s $((32 * 1048576 + 1536)) disk.raw
ok 'a disk is imported' kiln import disk.raw disk || finish
tar -C root --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1600000000 -cf layer.tar .
oci_layout layout layer.tar >/dev/null
ok 'a container image is imported' kiln import layout app || finish
kiln --json show app >app.json 2>.err
id=$(sed -n 's/.*"id": *"sha256:\([0-9a-f]*\)".*/\1/p' app.json | head -n 1)

# Disks.
ok 'raw' kiln export disk out.raw
ok 'it is the disk' cmp disk.raw out.raw
kiln export disk - --format=raw 2>.err | cmp - disk.raw
is 'raw into a pipe' $? 0
ok 'qcow2' kiln export disk out.qcow2
ok 'qemu-img finds the disk in it' qemu-img compare -q -f raw -F qcow2 disk.raw out.qcow2
ok 'gce by suffix' kiln export disk out.tar.gz
mkdir gce
ok 'tar reads the sparse file' tar -C gce -xzf out.tar.gz
is 'which is all there is' "$(ls gce)" disk.raw
cp disk.raw padded.raw
truncate -s 1G padded.raw
ok 'it is the disk, and as long as a multiple of 1 GiB' qemu-img compare -q -s -f raw -F raw padded.raw gce/disk.raw
rm -r padded.raw gce
kiln export disk - --format=gce 2>.err | cmp - out.tar.gz
is 'gce into a pipe is the same bytes' $? 0

# Container images.
ok 'a docker archive by suffix' kiln export app out.docker.tar
ok 'a docker archive into a pipe' sh -c '"$1" export app - --format=docker-archive >again.tar' - "$KILN"
ok 'is the same bytes' cmp out.docker.tar again.tar
ok 'skopeo reads it' skopeo copy -q --insecure-policy docker-archive:out.docker.tar dir:copied
is 'its config is the image ID' "$(sha256sum "copied/$id" 2>/dev/null | cut -c 1-64)" "$id"
is 'its layer is what went in' "$(tar -xOf out.docker.tar "$(sha256sum layer.tar | cut -c 1-64).tar" | sha256sum)" "$(sha256sum <layer.tar)"
ok 'the root file system as a tar' kiln export app root.tar --format=tar
mkdir unpacked
tar -C unpacked -xf root.tar
ok 'has the files' diff -r root unpacked
is 'and the hard link' "$(stat -c %h unpacked/etc/twice)" 2
ok 'of a disk as well' kiln export disk disk.tar --format=tar
is 'with the same content' "$(tar -xOf disk.tar etc/numbers | cksum)" "$(cksum <root/etc/numbers)"

# Where to.
echo old >target.raw
chmod 600 target.raw
fails 1 'a folder is not replaced' 'is a folder' kiln export disk unpacked --format=raw
fails 1 'nor by an archive' 'is a folder' kiln export app unpacked --format=tar
fails 2 'a name that tells nothing' 'does not tell the format' kiln export disk thing
fails 2 'a format there is not' "did you mean 'gce'" kiln export disk thing --format=gcee
is 'nothing half-made stays' "$(find . -name '*.kiln-*')" ''

# NBD.
serve() { # arguments of kiln nbd
    : >uri
    "$KILN" nbd "$@" >>uri 2>nbd.err & # not in a subshell: signals are for kiln
    server=$!
    for i in $(seq 100); do
        [ -s uri ] && return 0
        kill -0 $server 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}
trap 'kill $server 2>/dev/null; cleanup' EXIT
ok 'a disk is served' serve disk --socket s
uri=$(cat uri)
matches 'its address is printed' "$uri" '^nbd\+unix:///\?socket=/.*/s$'
ok 'qemu-img sees the exported disk' qemu-img compare -q -f raw -F raw out.raw "$uri"
ok 'several clients at once' sh -c 'for i in 1 2 3; do qemu-img convert -f raw -O raw "$1" c$i.raw & p="${p:-} $!"; done; for i in $p; do wait $i || exit 1; done' - "$uri"
for i in 1 2 3; do cmp -n $((32 * 1048576 + 1536)) c$i.raw disk.raw || echo "$i"; done >differ 2>&1
is 'all read the disk' "$(cat differ)" ''
if have nbdcopy; then
    nbdcopy "$uri" - 2>.err | cmp - disk.raw
    is 'nbdcopy reads the disk' $? 0
else
    skip 'nbdcopy reads the disk' 'nbdcopy is not installed'
fi
not_ok 'nobody can write' qemu-io -f raw -c 'write 0 4096' "$uri"
qemu-img create -q -f qcow2 -F raw -b "$uri" overlay.qcow2
ok 'an overlay over it takes writes' qemu-io -f qcow2 -c 'write -P 7 1M 64k' -c 'read -P 7 1M 64k' overlay.qcow2
ok 'and the disk stays as it was' qemu-img compare -q -f raw -F raw out.raw "$uri"
fails 1 'a socket in use is left alone' 'listens on the socket' kiln nbd disk --socket s
fails 1 'so is a file' 'no socket' kiln nbd disk --socket out.raw
fails 2 'no address' 'usage: kiln nbd' kiln nbd disk
fails 2 'two addresses' 'usage: kiln nbd' kiln nbd disk --socket t --port 5
fails 1 'container images are no disks' 'app' kiln nbd app --socket t

# Ctrl-C.
kill -INT $server
wait $server
is 'Ctrl-C ends it well' $? 0
ok 'and the socket is gone' test ! -e s
is 'no process stays' "$(left_behind "$KILN_STORE")" ''
is 'nothing stays in the store' "$(ls "$KILN_STORE/tmp")" ''

# The lease: removed and collected, and its blocks stay until it is no longer served.
head -c 2000000 /dev/urandom >root/usr/bin/tool
truncate -s 8M other.raw
mkfs.ext4 -q -F -d root other.raw
kiln import other.raw other >/dev/null 2>&1
before=$(du -s "$KILN_STORE/segments" | cut -f 1)
ok 'a disk is served' serve other --socket s
kiln rm other >/dev/null 2>&1
kiln gc --grace 0 >/dev/null 2>&1
is 'gc leaves what is served' "$(du -s "$KILN_STORE/segments" | cut -f 1)" "$before"
ok 'which can be read' qemu-img compare -q -f raw -F raw other.raw "$uri"
kill -INT $server
wait $server
kiln gc --grace 0 >/dev/null 2>&1
ok 'and takes it afterwards' test "$(du -s "$KILN_STORE/segments" | cut -f 1)" -lt "$before"

# Killed: the socket stays, and the next one takes its place.
ok 'served again' serve disk --socket s
kill -KILL $server
wait $server 2>/dev/null
for i in $(seq 50); do
    [ -z "$(left_behind "$KILN_STORE")" ] && break
    sleep 0.1
done
is 'a kiln that is killed takes nbdkit along' "$(left_behind "$KILN_STORE")" ''
ok 'and its socket is used again' serve disk --socket s
kill -INT $server
wait $server

port=$(free_port)
ok 'over a port' serve disk --port "$port"
is 'of this machine alone' "$(cat uri)" "nbd://127.0.0.1:$port"
ok 'qemu-img sees the disk' qemu-img compare -q -f raw -F raw out.raw "nbd://127.0.0.1:$port"
fails 1 'a port in use' "127.0.0.1:$port" kiln nbd disk --port "$port"

kill -INT $server
wait $server

# Damage is told by kiln, not only to the client.
find "$KILN_STORE/segments" -type f -size +1M | while read -r segment; do
    printf 'xxxxxxxx' | dd of="$segment" bs=1 seek=1000000 conv=notrunc status=none
done
ok 'a damaged disk is served' serve disk --socket s
not_ok 'a damaged block is an error' qemu-img convert -f raw -O raw "$uri" bad.raw
kill -INT $server
wait $server
is 'the server went on' $? 0
matches 'and says where' "$(cat nbd.err)" 'frame [0-9]+ of segment'
finish
