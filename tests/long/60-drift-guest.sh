#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a Debian that nobody touched writes to its disk: nothing that kiln's own list does not know. And what somebody does to it is told.
# KILN_TEST_DRIFT_REF may name a disk image of $KILN_STORE that serves HTTP; otherwise the library's web server is baked.
. "$(dirname "$0")/../lib.sh"
require qemu-system-x86_64 qemu-img socat mmdebstrap curl pkg-config cc

probe=$WORK/overlay-probe
# shellcheck disable=SC2046 # words are wanted
ok 'the probe builds' cc -std=gnu11 -D_GNU_SOURCE -I"$TREE" $(pkg-config --cflags glib-2.0) -o "$probe" \
    "$TREE/tests/guest/overlay-probe.c" "$(dirname "$KILN")/libkiln.a" \
    $(link_words) || finish

ref=${KILN_TEST_DRIFT_REF:-debian-web/disk}
[ -n "${KILN_TEST_DRIFT_REF:-}" ] || ok 'the web server is baked' kiln bake "$TREE/templates/library/debian-web.pkr.hcl" || finish
ok 'the disk is exported' kiln export "$ref" base.raw --format=raw || finish
ok 'an overlay' qemu-img create -q -f qcow2 -b "$WORK/base.raw" -F raw overlay.qcow2
port=$(free_port)

monitor() { # command
    { echo "$1"; sleep 1; } | socat -t 2 - UNIX-CONNECT:"$WORK/monitor" >>"$WORK/.monitor" 2>&1
}

guest_start() {
    qemu-system-x86_64 -nodefaults -no-user-config -machine pc,accel=tcg -cpu max -smp 1 -m 512M -display none -vga std \
        -serial file:"$WORK/serial" -monitor unix:"$WORK/monitor",server=on,wait=off \
        -blockdev driver=qcow2,node-name=disk0,file.driver=file,file.filename="$WORK/overlay.qcow2" -device virtio-blk-pci,drive=disk0,bootindex=1 \
        -netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:"$port"-:80 -device virtio-net-pci,netdev=net0,romfile= -device virtio-rng-pci &
    guest=$!
}

guest_stop() {
    [ -n "${guest:-}" ] && kill "$guest" 2>/dev/null && wait "$guest" 2>/dev/null
    guest=
}
trap 'guest_stop; cleanup' EXIT

guest_answers() {
    tries=0
    until curl -sf -m 5 -o /dev/null "http://127.0.0.1:$port/"; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || return 1
        sleep 2
    done
}

# Everything told, and with the shipped list taken out.
look() {
    monitor stop
    "$probe" "$KILN_STORE" "$ref" overlay.qcow2 base.raw >all 2>figures
    status=$?
    monitor cont
    grep -v '^ignored ' all >told
    sed 's/^/# /' figures
    return $status
}

unread_is_bounded() { awk '{ exit !($3 < 3 && $5 < 128 * 1024) }' figures; }

guest_start
ok 'the guest serves its page' guest_answers || { explain serial; finish; }
sleep "${KILN_TEST_SETTLE:-20}" # its journal is written out, and late units have run
ok 'the overlay of the paused guest is read' look || { explain figures; finish; }
is 'an untouched boot changes nothing that is not expected' "$(cat told)" ''
ok 'the boot itself was seen' grep -q '/var/log/' all
ok 'in little time and memory' unread_is_bounded

# A power cut and another boot on the same disk.
guest_stop
guest_start
ok 'the guest serves its page again' guest_answers || { explain serial; finish; }
sleep "${KILN_TEST_SETTLE:-20}"
ok 'its overlay is read' look
is 'a second boot changes nothing either' "$(cat told)" ''

# An overlay that was touched while nobody ran it: a file through the host.
guest_stop
if have debugfs && have e2fsck; then
    start=$(partition base.raw 1 | cut -d' ' -f1)
    qemu-img convert -O raw overlay.qcow2 now.raw
    dd if=now.raw of=root.img iflag=skip_bytes bs=1M skip="$start" conv=sparse status=none
    e2fsck -fy root.img >/dev/null 2>&1
    echo evil >evil
    debugfs -w -R 'write evil /etc/evil' root.img >/dev/null 2>&1
    debugfs -w -R 'sif /usr/bin/passwd mode 0100777' root.img >/dev/null 2>&1
    dd if=root.img of=now.raw oflag=seek_bytes bs=1M seek="$start" conv=notrunc,sparse status=none
    qemu-img convert -f raw -O qcow2 -B "$WORK/base.raw" -F raw now.raw overlay.qcow2
    ok 'a touched overlay is read' "$probe" "$KILN_STORE" "$ref" overlay.qcow2 base.raw
    is 'what was done is told, and nothing else' "$(grep -v '^ignored ' .out | sort)" "$(printf 'added\t/etc/evil\nmode changed\t/usr/bin/passwd')"
else
    skip 'a touched overlay' 'debugfs is not installed'
fi
finish
