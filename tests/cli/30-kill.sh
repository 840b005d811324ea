#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SIGKILL at random moments of a bake: the store is clean, no child survives, the next bake works.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap python3

rounds=${KILN_TEST_ROUNDS:-4}
seed=${KILN_TEST_SEED:-$$}
echo "# KILN_TEST_SEED=$seed"

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
    inline = ["cp -r /usr/share/doc /opt/one", "sync"]
  }
}
END

# How long a whole bake takes is the measure for the moments. It also fills the cache for the root.
start=$(date +%s)
ok 'an undisturbed bake' kiln bake kill.pkr.hcl || finish
whole=$(($(date +%s) - start))
[ "$whole" -le 60 ] || whole=60

round=1
while [ "$round" -le "$rounds" ]; do
    moment=$(python3 -c 'import random, sys; random.seed(sys.argv[1]); print(round(random.uniform(0.1, float(sys.argv[2])), 2))' \
        "$seed.$round" "$whole")
    "$KILN" bake -var "round=$round" kill.pkr.hcl >.out 2>.err &
    victim=$!
    sleep "$moment"
    kill -9 $victim 2>/dev/null
    wait $victim 2>/dev/null
    waited=0
    while [ -n "$(left_behind "$KILN_STORE")" ] && [ $waited -lt 5 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    is "killed after ${moment}s: no process after 5 seconds" "$(left_behind "$KILN_STORE")" ''
    ok "killed after ${moment}s: fsck is clean" kiln fsck
    round=$((round + 1))
done

ok 'the next bake works' kiln bake -var round=1 kill.pkr.hcl
ok 'and its data can be read' kiln fsck --read-data
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
