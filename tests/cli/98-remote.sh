#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Published sets go to a folder and to a bucket, and come back in another store: only what they need, only what is missing, cut off or not.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4 debugfs python3 curl zstd
. "$TREE/tests/fake-s3.sh"
KILN_STORE=$WORK/store
folder=file:$WORK/folder

# Two disks that have most of their blocks in common; the first has a secret, too.
mkdir one two
head -c 3000000 /dev/urandom >one/common
cp one/common two/common
yes 'the secret of the first image' | head -n 1000 >one/secret
head -c 300000 /dev/urandom >two/more
for d in one two; do
    truncate -s 16M $d.raw
    mkfs.ext4 -q -F -U 11111111-1111-1111-1111-111111111111 -d $d $d.raw || { result 1 'disks'; finish; }
done
ok 'a disk with a secret' kiln import one.raw one
ok 'a disk that shares its blocks' kiln import two.raw two
tar cf layer.tar -C two more common
oci_layout box layer.tar >/dev/null
ok 'a container image with those files' kiln import box box

two=$(kiln --json show two | jq -r .id)
store_of() { echo "$WORK/store-$1"; }
said() { kiln --store "$1" --json images | jq -cS '[.images[] | [.name, .kind, .id]] | sort'; }

# --- a folder ---
fails 2 'what is no remote' 'file:DIR or s3://BUCKET/PREFIX' kiln sync push ftp://x two
fails 1 'a folder that is none' 'is no remote' kiln sync list "file:$WORK"
ok 'the second disk is pushed' kiln sync push "$folder" two
matches 'and listed' "$(kiln sync list "$folder")" "^two disk $two "
is 'again: nothing moves' "$(kiln --json sync push "$folder" two 2>/dev/null | jq -c '[.bytes, .segments, .blobs]')" '[0,0,0]'
# A segment is a zstd stream from end to end.
seen=0
for f in "$WORK"/folder/segments/*/*; do
    zstd -dqc "$f" | grep -q 'the secret' && seen=1
    is "a segment under its name" "$(sha256sum <"$f")" "$(basename "$f")  -"
done
is 'no byte of the first disk is there' $seen 0
ok 'it comes back in another store' kiln --store "$(store_of a)" sync pull "$folder" two
is 'as what it was' "$(kiln --store "$(store_of a)" --json show two | jq -r .id)" "$two"
ok 'its bytes' kiln --store "$(store_of a)" export two two-back.raw
ok 'are the same' cmp two.raw two-back.raw
ok 'the store is whole' kiln --store "$(store_of a)" fsck --read-data
is 'again: nothing moves' "$(kiln --store "$(store_of a)" --json sync pull "$folder" two 2>/dev/null | jq -c '[.bytes, .sets[0].new]')" '[0,false]'
ok 'all go' kiln sync push "$folder" --all
ok 'all come' kiln --store "$(store_of a)" sync pull "$folder" --all
is 'the same images in both' "$(said "$(store_of a)")" "$(said "$KILN_STORE")"
ok 'the store is whole' kiln --store "$(store_of a)" fsck --read-data
ok 'the container in the first' kiln export box before.tar --format=oci-archive
ok 'and in the second' kiln --store "$(store_of a)" export box after.tar --format=oci-archive
ok 'is the same' cmp before.tar after.tar
ok 'gc takes nothing of it' kiln --store "$(store_of a)" gc --grace 0
ok 'nothing' kiln --store "$(store_of a)" fsck --read-data
ok 'what came goes on to another remote' kiln --store "$(store_of a)" sync push "file:$WORK/second" --all
ok 'and into a third store' kiln --store "$(store_of b)" sync pull "file:$WORK/second" --all
is 'where it is the same' "$(said "$(store_of b)")" "$(said "$KILN_STORE")"
ok 'and whole' kiln --store "$(store_of b)" fsck --read-data

# --- somebody changes it ---
for f in "$WORK"/second/segments/*/*; do printf x | dd of="$f" bs=1 seek=500 conv=notrunc status=none; done
fails 1 'other bytes in a segment' 'other bytes than its name says' kiln --store "$(store_of c)" sync pull "file:$WORK/second" two
is 'leave nothing' "$(said "$(store_of c)")" '[]'
ok 'not even a damaged file' kiln --store "$(store_of c)" fsck --read-data
# An index that says of the second disk that its blocks are the first one's.
python3 - "$WORK/folder" <<'END'
import glob, json, sys
def load(name):
    path = glob.glob(f"{sys.argv[1]}/index/{name}/*")[0]
    envelope = json.load(open(path))
    return path, envelope, json.loads(envelope["payload"])
_, _, one = load("one")
path, envelope, two = load("two")
image = two["record"]["images"][0]
for reference in two["record"]["references"]:
    if reference[3] == image["map"]:
        reference[3] = one["record"]["images"][0]["map"]
image["map"] = one["record"]["images"][0]["map"]
two["unit"] = one["unit"] | {"blobs": one["unit"]["blobs"] + two["unit"]["blobs"]}
envelope["payload"] = json.dumps(two)
json.dump(envelope, open(path, "w"))
END
fails 1 'another disk under its ID' 'other blocks than its image ID says' kiln --store "$(store_of c)" sync pull "$folder" two
is 'is not taken over' "$(said "$(store_of c)")" '[]'
kiln sign --generate signer >/dev/null 2>&1
kiln sign --generate other >/dev/null 2>&1
fails 1 'a pull that wants signatures' 'has no set' kiln --store "$(store_of c)" sync pull --key signer.pub "$folder" two
ok 'a signed push writes the index anew' kiln sync push --sign signer "$folder" two
ok 'which can be pulled' kiln --store "$(store_of c)" sync pull --key signer.pub "$folder" two
fails 1 'but not with another key' 'has no set' kiln --store "$(store_of d)" sync pull --key other.pub "$folder" two

# --- a bucket ---
start_fake_s3 || { result 1 'a fake S3'; finish; }
bucket=s3://bucket/of/kiln
ok 'everything goes to a bucket' kiln sync push $bucket --all
ok 'and comes out of it' kiln --store "$(store_of e)" sync pull $bucket --all
is 'as it was' "$(said "$(store_of e)")" "$(said "$KILN_STORE")"
ok 'whole' kiln --store "$(store_of e)" fsck --read-data
fake_s3 _reset
ok 'again' kiln sync push $bucket --all
is 'nothing is sent' "$(s3_stats .in)" 0

# Bad days: answers that pass, cut connections, and one that stays away.
fake_s3 _fault '{"method": "GET", "match": "segments/", "do": "cut", "after": 100000, "times": 3}'
fake_s3 _fault '{"method": "GET", "match": "blobs/", "do": "status", "status": 503, "code": "SlowDown", "times": 2}'
fake_s3 _fault '{"method": "GET", "match": "moved/", "do": "drop", "times": 1}'
ok 'a pull through a bad hour' kiln --store "$(store_of f)" sync pull $bucket --all
ok 'is whole' kiln --store "$(store_of f)" fsck --read-data
fake_s3 _fault '{"method": "GET", "match": "segments/", "do": "wrong", "times": 1}'
fails 1 'wrong bytes' 'other bytes than its name says' kiln --store "$(store_of g)" sync pull $bucket one
ok 'a second try' kiln --store "$(store_of g)" sync pull $bucket one
AWS_SECRET_ACCESS_KEY=x fails 1 'who has the wrong key' 'SignatureDoesNotMatch' kiln --store "$(store_of g)" sync pull $bucket two
AWS_ENDPOINT_URL=http://192.0.2.1 fails 2 'a bucket in the clear' '--plain-http' kiln sync push $bucket two

# Killed while putting: what is there later is whole, and a second push goes on.
for n in 1 3 5 7; do
    rm -rf "$WORK/bucket-root/bucket/kill"
    fake_s3 _fault "{\"method\": \"PUT\", \"match\": \"kill/\", \"do\": \"wait\", \"seconds\": 3, \"skip\": $n}"
    kiln sync push s3://bucket/kill --all >/dev/null 2>&1 &
    pid=$!
    sleep 0.6
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    fake_s3 _reset
    kiln --store "$(store_of "k$n")" sync pull s3://bucket/kill --all >/dev/null 2>&1
    ok "after a kill ($n) what shows is whole" kiln --store "$(store_of "k$n")" fsck --read-data
    ok 'the next push goes on' kiln sync push s3://bucket/kill --all
    ok 'and everything comes' kiln --store "$(store_of "k$n")" sync pull s3://bucket/kill --all
    is 'as it was' "$(said "$(store_of "k$n")")" "$(said "$KILN_STORE")"
done

# Two at once.
kiln sync push s3://bucket/both --all >/dev/null 2>&1 &
pid=$!
kiln --store "$(store_of e)" sync push s3://bucket/both --all >/dev/null 2>&1
wait $pid
ok 'what two pushed at once' kiln --store "$(store_of h)" sync pull s3://bucket/both --all
is 'is all there' "$(said "$(store_of h)")" "$(said "$KILN_STORE")"
ok 'and whole' kiln --store "$(store_of h)" fsck --read-data
finish
