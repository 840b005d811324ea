#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Registries and lines that go wrong: what breaks goes on where it was, or ends in one sentence, and nothing wrong enters the store.
. "$(dirname "$0")/../lib.sh"
require skopeo jq python3 mke2fs debugfs curl
. "$TREE/tests/registry/lib.sh"
KILN_STORE=$WORK/store
other() { KILN_STORE=$WORK/other "$KILN" "$@"; }
fake "$WORK/fake"
faults() { echo "$1" >"$WORK/fake/faults.json"; }
log() { cat "$WORK/fake/log"; }

mkdir root tree
head -c 9000000 /dev/urandom >root/big
head -c 3000000 /dev/urandom >root/second
tar -C root -cf layer.tar .
oci_layout layout layer.tar >/dev/null
kiln import layout box >/dev/null 2>&1
head -c 20000000 /dev/urandom >tree/noise
seq 1 900000 >tree/numbers
mke2fs -q -t ext4 -b 4096 -d tree one.raw 64M 2>/dev/null >/dev/null
kiln import one.raw disk >/dev/null 2>&1

# --- cuts ---
# Each transfer of a blob is cut at a random place with a probability of 0.6; pushes and pulls until 200 were.
cuts=0
round=0
bad=0
while [ $cuts -lt "${KILN_TEST_CUTS:-200}" ] && [ $round -lt 100 ]; do
    round=$((round + 1))
    faults '{"cut": 0.6}'
    rm -rf "$WORK/fake/blobs" "$WORK/other"
    mkdir "$WORK/fake/blobs"
    for image in box disk; do
        kiln --quiet push $image docker://$fake/$image:1 >/dev/null 2>"$WORK/problem" || { bad=$((bad + 1)); sed 's/^/# push: /' "$WORK/problem"; }
        other --quiet pull docker://$fake/$image:1 >/dev/null 2>"$WORK/problem" || { bad=$((bad + 1)); sed 's/^/# pull: /' "$WORK/problem"; }
    done
    other export disk out.raw >/dev/null 2>&1
    cmp -s out.raw one.raw || bad=$((bad + 1))
    other fsck --read-data >/dev/null 2>&1 || bad=$((bad + 1))
    [ "$(other --json images | jq -r '.images[] | .id' | sort)" = "$(kiln --json images | jq -r '.images[] | .id' | sort)" ] || bad=$((bad + 1))
    cuts=$(awk '$1 == "PATCH" && $3 == 0 { n++ } $1 == "PUT" && $3 == 0 { n++ } $1 == "GET" && $2 ~ /blobs/ && $7 != "-" { n++ } END { print n + 0 }' "$WORK/fake/log")
done
is "every push and pull through $cuts cuts in $round rounds came to its end, whole" $bad 0
ok 'there were as many' test "$cuts" -ge "${KILN_TEST_CUTS:-200}"
ok 'downloads went on in the middle' sh -c "grep -Eq 'GET .*blobs.* 206 ' '$WORK/fake/log'"

# --- lies ---
fresh() {
    rm -rf "$WORK/other"
    faults '{}'
    : >"$WORK/fake/log"
}
fresh
kiln push box docker://$fake/box:1 >/dev/null 2>&1
kiln push disk docker://$fake/disk:1 >/dev/null 2>&1
for image in box disk; do
    fresh
    faults '{"lie": true}'
    fails 1 "$image: a registry that lies about a digest" 'does not have its digest' other pull docker://$fake/$image:1
    faults '{"short": true}'
    fails 1 "$image: short bodies" 'sent less' other pull docker://$fake/$image:1
    faults '{"redirect": "loop"}'
    fails 1 "$image: redirects in a circle" 'redirects' other pull docker://$fake/$image:1
    is "$image: none of that left an image" "$(other --json images | jq '.images | length')" 0
    ok "$image: the store is whole" other fsck --read-data
    faults '{}'
    ok "$image: then all is well" other pull docker://$fake/$image:1
done
first=$fake
fake "$WORK/fake2"
cp -r "$WORK"/fake/blobs/. "$WORK/fake2/blobs"
fresh
printf '{"auths": {"%s": {"auth": "%s"}}}' "$first" "$(printf ann:pw | base64)" >"$DOCKER_CONFIG/config.json"
faults "{\"redirect\": \"http://localhost:${fake#*:}\", \"auth\": {\"user\": \"ann\", \"password\": \"pw\", \"requests\": 4}}"
ok 'blobs come from another host, tokens end on the way' other pull docker://$first/disk:1
is 'which never sees who we are' "$(grep -c ' auth ' "$WORK/fake2/log")" 0
rm "$DOCKER_CONFIG/config.json"
fake=$first

# --- refusals ---
fresh
faults '{"status": [["GET", "manifests", 429, 2, 1], ["GET", "blobs", 500, 3, null], ["GET", "blobs", 503, 2, 0]]}'
ok '429 with a time to wait, 500 and 503' other pull docker://$fake/box:1
fresh
faults '{"status": [["GET", "blobs", 500, 1000, 0]]}'
fails 1 '500 for ever' 'answered 500' other pull docker://$fake/box:1
fresh
faults '{"status": [["PATCH", ".", 500, 2, 0], ["PUT", "uploads", 502, 2, 0], ["PUT", "manifests", 503, 1, 0], ["POST", "uploads", 429, 2, 0]]}'
rm -rf "$WORK/fake/blobs"
mkdir "$WORK/fake/blobs"
ok 'a push through 429, 500, 502 and 503' kiln push disk docker://$fake/disk:again
fresh
faults '{"status": [["PUT", "manifests", 403, 1000, null]]}'
fails 1 'no right to push' 'does not allow' kiln push box docker://$fake/box:1
fresh
printf '{"auths": {"%s": {"auth": "%s"}}}' "$fake" "$(printf ann:pw | base64)" >"$DOCKER_CONFIG/config.json"
faults '{"auth": {"user": "ann", "password": "pw", "requests": 1}, "cut": 0.3}'
rm -rf "$WORK/fake/blobs"
mkdir "$WORK/fake/blobs"
ok 'each token is good for one request, and uploads are cut' kiln push disk docker://$fake/disk:tokens
ok 'pulls, too' other pull docker://$fake/disk:tokens
rm "$DOCKER_CONFIG/config.json"

fresh
faults '{"cut_at": [["manifests/1", 5, 9], ["blobs", 0, 10]]}'
ok 'small answers, of which nothing is won, break off ten times' other pull docker://$fake/disk:1
fresh
faults '{"cut_at": [["blobs", 0, 100000]]}'
fails 1 'for ever they are given up' 'given up after' env KILN_PATIENCE=0 "$KILN" --store "$WORK/other" pull docker://$fake/disk:1
fresh
start=$(date +%s)
fails 1 'a registry that is not there is given up soon' 'connect' other pull docker://127.0.0.1:1/disk:1
ok 'within seconds' test $(($(date +%s) - start)) -lt 10
fresh
away=$(free_port)
(sleep 3 && exec python3 "$TREE/tests/registry/fake.py" "$away" "$WORK/fake2" 2>/dev/null) &
servers="$servers $!"
faults "{\"redirect\": \"http://127.0.0.1:$away\"}"
ok 'one that is away for three seconds in the middle is waited for' other pull docker://$fake/disk:1

# --- ranges ---
fresh
other import one.raw base >/dev/null 2>&1
cp one.raw two.raw
head -c 6000000 /dev/urandom >more
debugfs -w -R 'write more more' two.raw >/dev/null 2>&1
kiln import two.raw two >/dev/null 2>&1
rm -rf "$WORK/fake/blobs"
mkdir "$WORK/fake/blobs"
faults '{}'
kiln --store "$WORK/whole" import two.raw two >/dev/null 2>&1 # all in one segment: kiln here would send what is new as another
kiln --store "$WORK/whole" push two docker://$fake/alone:1 >/dev/null 2>&1
: >"$WORK/fake/log"
got=$(other --json pull docker://$fake/alone:1 2>/dev/null)
ok 'of a whole new repository only what is missing is fetched' test "$(echo "$got" | jq .bytes)" -lt 9000000
ok 'in ranges' grep -q ' 206 ' "$WORK/fake/log"
ok 'at most one for each MiB' test "$(grep -c ' 206 ' "$WORK/fake/log")" -le 9
ok 'and is what it was' sh -c "KILN_STORE='$WORK/other' '$KILN' export alone out.raw && cmp out.raw two.raw"
rm -rf "$WORK/other"
other import one.raw base >/dev/null 2>&1
faults '{"no_ranges": true}'
ok 'a registry that answers no ranges' other pull docker://$fake/alone:1
ok 'gives the same' sh -c "KILN_STORE='$WORK/other' '$KILN' export alone out.raw && cmp out.raw two.raw"

# --- killed ---
bad=0
for at in 1 2 3 4 5 6 7 8; do
    rm -rf "$WORK/other"
    faults '{"cut": 0.5}'
    KILN_STORE=$WORK/other "$KILN" --quiet pull docker://$fake/alone:1 >/dev/null 2>&1 &
    sleep 0.$at
    kill -9 $! 2>/dev/null
    wait $! 2>/dev/null
    faults '{}'
    other --quiet pull docker://$fake/alone:1 >/dev/null 2>&1 || bad=$((bad + 1))
    other export alone out.raw >/dev/null 2>&1
    cmp -s out.raw two.raw || bad=$((bad + 1))
    other fsck --read-data >/dev/null 2>&1 || bad=$((bad + 1))
    [ -z "$(ls "$WORK/other/cache/downloads")" ] || bad=$((bad + 1))
done
is 'pulls that are killed are continued, and leave nothing' $bad 0
finish
