#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Buckets of another's making: moto's server, where it is installed (pip install 'moto[server]'; Debian has no server of this protocol but Ceph's).
# And many cuts at random offsets against the fake one.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4 python3 curl
. "$TREE/tests/fake-s3.sh"
KILN_STORE=$WORK/store
store_of() { echo "$WORK/store-$1"; }
said() { kiln --store "$1" --json images | jq -cS '[.images[] | [.name, .kind, .id]] | sort'; }

mkdir one
head -c 14000000 /dev/urandom >one/data
truncate -s 32M one.raw
mkfs.ext4 -q -F -d one one.raw
ok 'a disk' kiln import one.raw one

# --- cuts ---
start_fake_s3 || { result 1 'a fake S3'; finish; }
ok 'it goes to a bucket' kiln sync push s3://bucket/x one
bad=0
for n in $(seq "${KILN_TEST_CUTS:-200}"); do
    at=$(python3 -c "import random; print(random.randrange(14000000))")
    fake_s3 _fault "{\"method\": \"GET\", \"match\": \"segments/\", \"do\": \"cut\", \"after\": $at}"
    rm -rf "$(store_of cut)"
    kiln --store "$(store_of cut)" sync pull s3://bucket/x one >/dev/null 2>"$WORK/.cut" || { bad=$((bad + 1)); explain "$WORK/.cut"; }
    [ $((n % 20)) -ne 0 ] || kiln --store "$(store_of cut)" fsck --read-data >/dev/null 2>&1 || bad=$((bad + 1))
    fake_s3 _reset
done
is 'cut at random offsets, every pull ends well' $bad 0

# --- moto ---
if have moto_server; then
    port=$(free_port)
    moto_server -H 127.0.0.1 -p "$port" >"$WORK/moto.log" 2>&1 &
    moto=$!
    trap 'kill $moto $s3_pid 2>/dev/null; cleanup' EXIT
    AWS_ENDPOINT_URL=http://127.0.0.1:$port
    for _ in $(seq 100); do curl -s -o "$WORK/.moto" "$AWS_ENDPOINT_URL/" && break; sleep 0.2; done
    curl -s -X PUT -o "$WORK/.moto" "$AWS_ENDPOINT_URL/bucket"
    for part in 32M 5M; do
        ok "it goes to moto, in parts of $part" env KILN_TEST_S3_PART=$part "$KILN" sync push "s3://bucket/by-$part" one
        ok 'again' kiln sync push "s3://bucket/by-$part" one
        ok 'and comes back' kiln --store "$(store_of "$part")" sync pull "s3://bucket/by-$part" one
        is 'as it was' "$(said "$(store_of "$part")")" "$(said "$KILN_STORE")"
        ok 'whole' kiln --store "$(store_of "$part")" fsck --read-data
    done
    fails 1 'a bucket that is none' 'NoSuchBucket' kiln sync push s3://nothing one
else
    skip 'buckets of moto' 'moto_server is not installed'
fi
finish
