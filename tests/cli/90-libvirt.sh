#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The libvirt driver on two real hosts: each a libvirtd of its own in its own namespaces, one reached by its socket (it sees our files), one by TCP
# (it has files of its own). Guests are emulated and get as far as their boot sector.
. "$(dirname "$0")/../lib.sh"
trap '' PIPE # a probe that died is told by the next command
require libvirtd virtlogd virsh qemu-system-x86_64 unshare nsenter cc pkg-config
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP two libvirtd need root"; exit 0; }
unshare -m -n true 2>/dev/null || { echo "1..0 # SKIP no namespaces can be made here"; exit 0; }

build=$(dirname "$KILN")
probe=$build/tests/driver-probe
images=$WORK/images
store=$WORK/store
mkdir -p "$build/tests"
chmod 755 "$WORK"
export KILN_ACCEL=tcg

# shellcheck disable=SC2046,SC2086 # words are wanted
ok 'the probe builds' cc -std=gnu11 -D_GNU_SOURCE -O1 -g -I"$TREE" $(pkg-config --cflags glib-2.0 jansson libvirt) -o "$probe" "$TREE/tests/deploy/driver-probe.c" \
    "$TREE/tests/unit/disk-image-support.c" "$build/libkiln.a" $(link_words) || finish

. "$TREE/tests/deploy/hosts.sh"

unshare -n sleep 600 &
network=$!
tidy() {
    exec 3>&-
    power_off a
    power_off b
    kill "$network" 2>/dev/null
    [ -z "${session:-}" ] || kill "$session" 2>/dev/null
    cleanup
}
trap tidy EXIT
sleep 0.2
nsenter -t "$network" -n sh -c 'ip link set lo up'
ok 'a first libvirtd' host a - "$network" || finish
ok 'a second libvirtd' host b 16599 "$network" || finish
uri_a="qemu+unix:///system?socket=$WORK/a/run/libvirt-sock"
uri_b='qemu+tcp://127.0.0.1:16599/system'

# --- talking to the probe ---

# begin GROUP HOSTS-JSON SHAPE-JSON [FIREWALL]: a probe that reads commands from descriptor 3, in the hosts' network
begin() {
    rm -f "$WORK/commands"
    mkfifo "$WORK/commands"
    : >"$WORK/answers"
    nsenter -t "$network" -n "$probe" "$store" libvirt "$1" \
        "{\"hosts\":$2,\"image_dir\":\"$images\",\"pool\":\"kiln-test\",\"console\":\"log\",\"firewall\":\"${4:-auto}\"}" "$3" <"$WORK/commands" >"$WORK/answers" 2>"$WORK/messages" &
    session=$!
    exec 3>"$WORK/commands"
}
end() {
    exec 3>&-
    wait "$session"
    ended=$?
    session=
    return $ended
}
# One command; its answer is in $answer.
say() {
    before=$(wc -l <"$WORK/answers")
    echo "$*" >&3
    tries=0
    while :; do
        answer=$(tail -n "+$((before + 1))" "$WORK/answers")
        case $answer in done\ * | failed:* | *"
done "* | *"
failed: "*) break ;; esac
        tries=$((tries + 1))
        [ $tries -lt 250 ] && kill -0 "$session" 2>/dev/null || { answer="no answer: $(tail -n 3 "$WORK/messages")"; break; }
        sleep 0.1
    done
}
does() { # description, command
    what=$1
    shift
    say "$@"
    matches "$what" "$answer" '^done '
}
refuses() { # description, expression, command
    what=$1
    expression=$2
    shift 2
    say "$@"
    matches "$what" "$answer" "^failed: .*($expression)"
}

# --- two hosts ---

begin web "[\"$uri_a\",\"$uri_b\"]" '{"memory":50331648}'
say publish web 1 4194304
hex=$(printf '%s\n' "$answer" | sed -n 's/^sha256://p')
file=$images/$hex.raw
say needs 2
matches 'a plan knows what is to be moved to the first host' "$answer" '^host 0 move=[1-9][0-9]* disk=[0-9]+ memory=234881024 room=known'
matches 'and to the second' "$answer" '^host 1 move=[1-9]'
does 'the image is brought to both hosts' prepare
is 'on ours it is a read-only file' "$(stat -c '%a %s %U' "$file")" '444 4194304 root'
ok 'on the other it is in the pool' sh -c "ls $WORK/b/images | grep -q '^$hex\..*\.raw\$' && cmp $file $WORK/b/images/$hex.*.raw"
matches 'holes stay holes' "$(du -k "$file" | cut -f1) $(du -k "$WORK/b/images/$hex".*.raw | cut -f1)" '^[0-9]{2,3} [0-9]{2,3}$'
say needs 2
matches 'nothing is left to move' "$answer" '^host 1 move=0 '
does 'again costs nothing' prepare

does 'an instance on the first host' create 0 0
does 'one on the second' create 1 1
does 'creating it again makes no second one' create 0 0
say observe
matches 'the first one runs' "$answer" '^web-r1-0-a1 host=0 running known address=- epoch=3 drift=-$'
matches 'the second one runs' "$answer" '^web-r1-1-a1 host=1 running known address=- epoch=3 drift=-$'
is 'there are two' "$(printf '%s\n' "$answer" | grep -c '^web-')" 2
say attest web-r1-0-a1
matches 'the first one is proven' "$answer" '^metadata\+chain\+digest$'
say attest web-r1-1-a1
matches 'the second one is proven' "$answer" '^metadata\+chain\+digest$'
booted() {
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        grep -q KILN-BOOTED "$WORK/$1/log/qemu/$2.console.log" 2>/dev/null && return 0
        sleep 0.5
    done
    return 1
}
ok 'the first one boots its disk' booted a web-r1-0-a1
ok 'the second one boots its disk' booted b web-r1-1-a1
is 'the base was never given to the guest' "$(stat -c '%a %U' "$file") $(stat -c '%a %U' "$WORK/b/images/$hex".*.raw)" '444 root 444 root'

# --- attacks ---

on a metadata web-r1-0-a1 --uri urn:kiln:instance:1 --key kiln --set '<instance>{"instance":{"group":"web"}}</instance>' --live >/dev/null
say observe
matches 'an edited identity is seen' "$answer" '^web-r1-0-a1 host=0 running unknown .* drift=its identity cannot be read'
does 'a destroyed instance' destroy web-r1-0-a1 0 0
is 'its overlay went with it' "$(find "$images" -name '*TRANSIENT*' | wc -l)" 0

flip() { # file: one bit, with its time put back
    touch -r "$1" "$WORK/time"
    chmod u+w "$1"
    printf '\377' | dd of="$1" bs=1 seek=2100000 conv=notrunc status=none
    chmod u-w "$1"
    touch -r "$WORK/time" "$1"
}
flip "$file"
refuses 'a bit that flipped in the file is found before a create' 'not the image' create 2 0
flip "$WORK/b/images/$hex".*.raw
refuses 'and in the pool' 'not the image' create 3 1
refuses 'an instance that runs from it is not proven' 'not the image' attest web-r1-1-a1
does 'preparing again brings a good one to both' prepare
matches 'and says why' "$(cat "$WORK/messages")" 'written again'
does 'then instances can be made' create 2 0
does 'also there' create 3 1
say observe
say attest web-r1-3-a1
matches 'and are proven' "$answer" '^metadata\+chain\+digest$'
refuses 'the old one runs from another file' 'image.s file is' attest web-r1-1-a1

# --- loss of a host ---

power_off b
say observe
matches 'a host that lost its power is told as silent' "$answer" '^host 1 silent$'
matches 'within the time' "$answer" '^done ([0-9]|1[0-4])\.'
matches 'the other one goes on' "$answer" '^web-r1-2-a1 host=0 running known'
refuses 'a create there fails and says so' '127.0.0.1:16599.*does not answer|does not answer' create 4 1
ok 'its libvirtd comes back' host b 16599 "$network"
say observe
matches 'it answers again' "$answer" '^host 1 answers$'
is 'its guests are gone' "$(printf '%s\n' "$answer" | grep -c 'host=1')" 0
does 'an instance can be made in the same place again' create 3 1

kill -STOP "$(daemon b)"
say observe
matches 'a libvirtd that hangs is told as silent, too' "$answer" '^host 1 silent$'
matches 'within the time' "$answer" '^done ([0-9]|1[0-5])\.'
say observe
matches 'and so is the attempt to connect again' "$answer" '^done ([0-9]|1[0-5])\.'
say observe
matches 'from then on at once' "$answer" '^done [01]\.'
kill -CONT "$(daemon b)"
sleep 1
say observe
say observe
matches 'it is there again when it goes on' "$answer" '^web-r1-3-a1 host=1 running known'

does 'all are destroyed' destroy web-r1-2-a1 0 0
does 'there, too' destroy web-r1-3-a1 1 0
does 'an absent one is success' destroy web-r1-1-a1 1 0
does 'images that nothing needs are forgotten' forget
is 'on ours' "$(find "$images" -name '*.raw*' | wc -l)" 0
is 'and on the other' "$(find "$WORK/b/images" -name '*.raw*' | wc -l)" 0
ok 'the probe ends' end

# --- user-mode network, seed and volume on this host ---

begin db "[\"$uri_a\"]" '{"memory":50331648,"port":8080,"addresses":"127.0.2.1-127.0.2.4","user_data":"#cloud-config\nhostname: x\n","agent":true,"volumes":{"data":2097152}}'
say publish db 2 2097152
does 'an image for one with a volume' prepare
does 'an instance with a forwarded port' create 0 0 127.0.2.1
say observe
matches 'its address is the planned one' "$answer" '^db-r1-0-a1 host=0 running known address=127.0.2.1 .*drift=-$'
matches 'the port is forwarded from it' "$(nsenter -t "$network" -n ss -Hltn)" '127\.0\.2\.1:8080'
ok 'it has a seed' test -s "$images/db-r1-0-a1.seed.iso"
is 'that is cloud-init'"'"'s' "$(blkid -o value -s LABEL "$images/db-r1-0-a1.seed.iso")" cidata
ok 'and a volume' test -s "$WORK/volumes/db.data.0.volume"
refuses 'a port that is taken is told' '127.0.2.1:8080 cannot be forwarded' create 1 0 127.0.2.1
not_ok 'and leaves no seed' test -e "$images/db-r1-1-a1.seed.iso"
say observe
say attest db-r1-0-a1
matches 'an agent that is not there takes nothing away' "$answer" '^metadata\+chain\+digest$'
say ping db-r1-0-a1
matches 'and does not answer' "$answer" '^failed: cannot ask the agent'
does 'it goes' destroy db-r1-0-a1 0 1
ok 'the volume stays' test -s "$WORK/volumes/db.data.0.volume"
not_ok 'the seed goes' test -e "$images/db-r1-0-a1.seed.iso"
does 'until volumes are destroyed' destroy-volumes
not_ok 'then it goes' test -e "$WORK/volumes/db.data.0.volume"
ok 'the probe ends' end

# --- a libvirt network: reservations and filters ---

echo "<network><name>kiln-test</name><bridge name='kilntest0'/><ip address='10.77.3.1' netmask='255.255.255.0'><dhcp><range start='10.77.3.100' \
end='10.77.3.200'/></dhcp></ip></network>" >network.xml
if on a net-define "$WORK/network.xml" >/dev/null 2>&1 && on a net-start kiln-test >/dev/null 2>&1; then
    begin lan "[\"$uri_a\"]" '{"memory":50331648,"port":80,"network":"kiln-test","allow":["tcp/80"]}' nwfilter
    say publish lan 3 2097152
    does 'an image' prepare
    say firewall
    matches 'a plan knows the firewall' "$answer" '^nwfilter$'
    does 'an instance in a libvirt network' create 0 0 10.77.3.50
    matches 'its address is reserved' "$(on a net-dumpxml kiln-test)" "<host mac='52:54:.*' name='lan-r1-0-a1' ip='10.77.3.50'/>"
    filter=$(on a nwfilter-list | awk '/kiln-lan-/ { print $2 }')
    matches 'its card has a filter' "$(on a dumpxml lan-r1-0-a1)" "<filterref filter='$filter'/>"
    refuses 'an address that another one has is refused' 'reserve 10.77.3.50' create 1 0 10.77.3.50
    say observe
    matches 'and nothing comes of it' "$answer" '^lan-r1-0-a1 host=0 running known address=10.77.3.50 epoch=3 drift=-$'
    is 'only one is there' "$(printf '%s\n' "$answer" | grep -c '^lan-')" 1
    does 'it goes' destroy lan-r1-0-a1 0 0
    is 'with its reservation' "$(on a net-dumpxml kiln-test | grep -c '<host ')" 0
    is 'and the filter that nobody uses' "$(on a nwfilter-list | grep -c kiln-lan)" 0
    ok 'the probe ends' end
else
    skip 'a libvirt network' 'it cannot be started here'
fi
finish
