# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Libvirt hosts that are nobody else's. Source it after tests/lib.sh, as root; $images names the image folder. Needs libvirtd, virtlogd, virsh, unshare, nsenter.

# A libvirtd with its own /run, /var/lib, /etc/libvirt, its own processes and the network of process $3: host NAME PORT NETWORK. PORT "-": no TCP.
# Host "b" also has its own files where "a" has ours.
host() {
    dir=$WORK/$1
    mkdir -p "$dir/run" "$dir/lib" "$dir/etc" "$dir/log" "$dir/cache" "$dir/images" "$images"
    cat >"$dir/inside" <<END
set -e
mkdir -p /run/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind "$dir/run" /run/libvirt
mount --bind "$dir/lib" /var/lib/libvirt
mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
[ $1 = a ] || mount --bind "$dir/images" "$images"
cp -a /etc/libvirt/. "$dir/etc/"
printf '%s\n' 'user = "libvirt-qemu"' 'group = "kvm"' 'security_driver = "none"' 'namespaces = []' 'cgroup_controllers = []' >>"$dir/etc/qemu.conf"
printf '%s\n' 'listen_tls = 0' 'listen_tcp = 1' 'tcp_port = "$2"' 'listen_addr = "127.0.0.1"' 'auth_tcp = "none"' 'auth_unix_rw = "none"' >>"$dir/etc/libvirtd.conf"
mount --bind "$dir/etc" /etc/libvirt
rm -f /run/libvirt/*.pid /run/libvirt/virtlogd*
mkdir -p /var/log/libvirt/qemu /var/lib/libvirt/images /var/lib/libvirt/qemu/channel/target
chown libvirt-qemu:kvm /var/lib/libvirt/qemu /var/lib/libvirt/qemu/channel /var/lib/libvirt/qemu/channel/target
virtlogd -d -p /run/libvirt/virtlogd.pid
# Not in this process's place: the first process of a namespace has to reap what guests leave, or libvirtd waits for their end for ever.
libvirtd -p /run/libvirt/libvirtd.pid $([ "$2" = - ] || echo -l) &
echo libvirtd is there
wait
END
    [ "$2" != - ] || sed -i 's/ .listen_tcp = 1. .tcp_port = "-"..listen_addr = "127.0.0.1". .auth_tcp = "none".//' "$dir/inside"
    nsenter -t "$3" -n unshare -m -p -f --kill-child=KILL --mount-proc --propagation private sh "$dir/inside" >"$dir/out" 2>&1 3>&- &
    echo $! >"$dir/pid"
    tries=0
    until [ -S "$dir/run/libvirt-sock" ] && on "$1" uri >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { echo "# libvirtd does not start:"; explain "$dir/out"; return 1; }
        sleep 0.1
    done
}
on() { # host, virsh's words
    name=$1
    shift
    timeout 20 virsh -c "qemu+unix:///system?socket=$WORK/$name/run/libvirt-sock" "$@"
}
# Everything of a host at once, as when its power fails: the first process of its namespace takes all others along.
power_off() {
    kill -KILL "$(cat "$WORK/$1/pid")" 2>/dev/null
    wait "$(cat "$WORK/$1/pid")" 2>/dev/null
    rm -f "$WORK/$1/run/libvirt-sock"
}

# The libvirtd of a host, by its number among our processes.
daemon() {
    first=$(pgrep -P "$(cat "$WORK/$1/pid")")
    pgrep -P "$first" -x libvirtd
}

