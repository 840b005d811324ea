#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SIGKILL at random moments of a bake, of kiln itself, of nbdkit and of qemu: the store is clean, no process survives, what
# was reported as done is not done again, and the next bake works.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap python3 pgrep

rounds=${KILN_TEST_ROUNDS:-1} # of each kind of victim
seed=${KILN_TEST_SEED:-$$}
victims=${KILN_TEST_VICTIMS:-kiln nbdkit qemu-system}
echo "# KILN_TEST_SEED=$seed"

# The container is made of the round's own bytes, so that every round has states, a seal and a set of its own to publish.
cat >kill.pkr.hcl <<'END'
variable "round" { default = "0" }
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "kill"
  sources = ["source.bootstrap.base"]
  provisioner "file" {
    content     = "round ${var.round}"
    destination = "/etc/round"
  }
  provisioner "shell" {
    inline = ["cp -r /usr/share/doc /opt/one", "echo one"]
  }
  provisioner "shell" {
    inline = ["tar -C /usr/share -cf /opt/zoneinfo.tar zoneinfo", "echo two"]
  }
  provisioner "shell" {
    inline = ["rm -r /opt/one", "cp -r /usr/lib/systemd /opt/two", "sync"]
  }
  output "disk" {}
  output "oci" { cmd = ["/bin/true"] }
}
END

now() { date +%s.%N; }

# Seconds, drawn from the seed: moment WHAT FROM TO
moment() {
    python3 -c 'import random, sys; random.seed(sys.argv[1]); print(round(random.uniform(*map(float, sys.argv[2:])), 2))' "$seed.$1" "$2" "$3"
}

# The pid of a child of the bake, as soon as there is one; kiln is the bake itself.
find_victim() { # kind, pid of the bake
    [ "$1" != kiln ] || { echo "$2"; return; }
    while kill -0 "$2" 2>/dev/null; do
        pgrep -P "$2" "$1" && return
        sleep 0.05
    done
}

# Waits for the bake, but not for ever: a kiln that waits for a dead child is what this test is there to find.
wait_for_bake() { # pid, seconds; sets $ended_with
    ended_with=hangs
    waited=0
    while kill -0 "$1" 2>/dev/null; do
        [ "$waited" -lt $(($2 * 10)) ] || { kill -9 "$1"; wait "$1" 2>/dev/null; return; }
        sleep 0.1
        waited=$((waited + 1))
    done
    wait "$1" 2>/dev/null
    ended_with=$?
}

gone_soon() {
    waited=0
    while [ -n "$(left_behind "$KILN_STORE")" ] && [ $waited -lt 50 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    left_behind "$KILN_STORE"
}

# How many steps a bake's log says are done, and how many of them a plan takes from the cache.
done_steps() { grep -Ec '^    .* done in ' "$1"; }
hits() { awk '$1 == "hit" { n++ } $1 != "hit" && $1 != "kill:" { exit } END { print n + 0 }' "$1"; }

# The life of each victim is the measure for its moments, taken from a bake that nobody disturbs.
ok 'an undisturbed bake, which fills the cache for the root' kiln bake kill.pkr.hcl || finish
start=$(now)
"$KILN" bake -var "round=$seed measured" kill.pkr.hcl >.out 2>.err &
bake=$!
for kind in $victims; do
    { victim=$(find_victim "$kind" "$bake"); born=$(now); while kill -0 "$victim" 2>/dev/null; do sleep 0.1; done
      echo "$born $(now)" >"life.$kind"; } &
done
wait "$bake"
is 'and one to measure' $? 0
wait
steps=$(done_steps .err)
is 'which runs every step and the seal' "$steps" 5
life() { # kind: seconds from its first moment to its last
    awk -v start="$start" -v kind="$1" '{ print $2 - (kind == "kiln" ? start : $1) }' "life.$1"
}

one_round() { # kind, number
    place="$1 $2"
    at=$(moment "$place" 0.05 "$(life "$1")")
    "$KILN" bake -var "round=$seed $place" kill.pkr.hcl >.out 2>.err &
    bake=$!
    victim=$(find_victim "$1" "$bake")
    sleep "$at"
    kill -9 "$victim" 2>/dev/null && killed=yes || killed=no
    told="$1 killed after ${at}s"
    wait_for_bake "$bake" 60
    reported=$(done_steps .err)
    case $1-$killed-$ended_with in
    kiln-yes-137) ;;
    qemu-system-yes-0) told="$told while it started, and another one did" ;;
    *-0) # the bake was done, or did not need its victim any more
        told="$told (too late)"
        too_late=$((too_late + 1))
        ;;
    *)
        is "$told: kiln fails" "$ended_with" 1
        is "$told: with one sentence" "$(grep -c '^kiln: ' .err)" 1
        matches "$told: that says who died" "$(grep '^kiln: ' .err)" "$(expected_words "$1")"
        ;;
    esac
    echo "# $told: status $ended_with, $reported steps done; $(grep '^kiln: ' .err)"
    is "$told: no process after 5 seconds" "$(gone_soon)" ''
    ok "$told: fsck is clean" kiln fsck
    kiln plan -var "round=$seed $place" kill.pkr.hcl >.plan 2>&1
    [ "$(hits .plan)" -ge "$reported" ]
    result $? "$told: the $reported steps reported as done are known" || { explain .plan; explain .err; }
    ok "$told: the next bake works" kiln --json bake -var "round=$seed $place" kill.pkr.hcl
    ran=$(python3 -c 'import json; print(sum(not s["cached"] for s in json.load(open(".out"))["bakes"][0]["steps"]))')
    [ "$ran" -le $((steps - reported)) ]
    result $? "$told: and runs no more than what was missing ($ran of $steps)" || explain .err
}

expected_words() {
    case $1 in
    nbdkit) echo 'nbdkit' ;;
    *) echo 'virtual machine' ;;
    esac
}

# A moment that came too late killed nobody: another one is drawn, some times.
for kind in $victims; do
    round=1
    too_late=0
    while [ "$round" -le $((rounds + too_late)) ] && [ "$too_late" -le "$rounds" ]; do
        one_round "$kind" "$round"
        last="$kind $round"
        round=$((round + 1))
    done
    echo "# $kind was killed $((round - 1 - too_late)) times"
done

# An interrupted bake's image is the one that an undisturbed bake makes.
ok 'the last image again, from the source on' kiln --json bake --no-cache -var "round=$seed $last" kill.pkr.hcl
python3 -c 'import json; print(*sorted(a["id"] for a in json.load(open(".out"))["artifacts"]))' >again
kiln --json bake -var "round=$seed $last" kill.pkr.hcl >.out 2>.err
is 'is the same' "$(python3 -c 'import json; print(*sorted(a["id"] for a in json.load(open(".out"))["artifacts"]))')" "$(cat again)"
ok 'everything can be read' kiln fsck --read-data
is 'recovery removed what the killed ones left' "$(ls -A "$KILN_STORE/tmp")" ''

# Ctrl-C is polite: 130, and nothing stays.
"$KILN" bake -var round=interrupt kill.pkr.hcl >.out 2>.err &
victim=$!
sleep 6
kill -INT $victim
wait $victim
is 'an interrupted bake ends with 130' $? 130
is 'and leaves no process' "$(left_behind "$KILN_STORE")" ''
is 'and no temporary file' "$(ls -A "$KILN_STORE/tmp")" ''
finish
