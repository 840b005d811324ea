# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# The end-to-end tests' few words, in TAP. A script reads:
#
#   . "$(dirname "$0")/../lib.sh"
#   require qemu-img mkfs.ext4          # skips the whole script, visibly, where a program is absent
#   ok 'it bakes' kiln bake web.pkr.hcl
#   is 'the page is there' "$(cat page)" hello
#   fails 2 'unknown variable' 'sentence' kiln bake bad.pkr.hcl
#   finish
#
# Every script runs in a fresh empty folder ($WORK) and uses the store $KILN_STORE, which the scripts share so that a
# root is bootstrapped once. 00-words.sh starts it anew; KILN_TEST_KEEP_STORE=1 keeps an old one, KILN_TEST_KEEP=1 the folders.
set -u

TREE=$(cd "$(dirname "$0")/../.." && pwd)
KILN=${KILN:-$TREE/build/kiln}
NAME=$(basename "$0" .sh)
KILN_TEST_DIR=${KILN_TEST_DIR:-$TREE/build/check}
mkdir -p "$KILN_TEST_DIR"
WORK=$(mktemp -d "$KILN_TEST_DIR/$NAME.XXXXXX")
KILN_STORE=${KILN_TEST_STORE:-$KILN_TEST_DIR/store}
KILN_RESERVE=${KILN_RESERVE:-1M}
export KILN_STORE KILN_RESERVE
PATH=$PATH:/usr/sbin:/sbin
count=0
failed=0

cleanup() {
    cd / || exit 1
    [ -z "${SHORT:-}" ] || rm -rf "$SHORT"
    if [ -z "${KILN_TEST_KEEP:-}" ]; then
        rm -rf "$WORK"
    else
        echo "# kept: $WORK"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$WORK" || exit 1

kiln() { "$KILN" "$@"; }

# What a program of a test's own is linked with, beside libkiln.a: as the Makefile does it.
link_words() { printf '%s -pthread -lcrypt -lm\n' "$(pkg-config --libs $(sed -n 's/^PACKAGES *:= *//p' "$TREE/Makefile"))"; }

# A folder whose path is short, wherever the tests are: podman takes no runroot of over 50 characters.
short_folder() { SHORT=$(mktemp -d /tmp/kiln-XXXXXX); }

# Moves the script to where syncing costs nothing, if there is room: for those that make many stores and test other things than durability.
in_memory() { # MiB that it takes at most
    room=$(df --output=avail -BM /dev/shm 2>/dev/null | tail -n 1 | tr -dc 0-9)
    [ "${room:-0}" -gt $((4 * $1)) ] && [ -w /dev/shm ] || return 0
    rmdir "$WORK"
    WORK=$(mktemp -d "/dev/shm/kiln-$NAME.XXXXXX")
    cd "$WORK" || exit 1
}

# Comment lines of a failure, short enough to read.
explain() { tail -n "${2:-25}" "$1" | sed 's/^/# /'; }

result() { # 0 or not, description
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count - $2"
    else
        echo "not ok $count - $2"
        failed=$((failed + 1))
    fi
    return "$1"
}

ok() { # description, command...
    what=$1
    shift
    "$@" >"$WORK/.out" 2>"$WORK/.err"
    status=$?
    result $((status != 0)) "$what" || {
        echo "# exit status $status of: $*"
        explain "$WORK/.out" 8
        explain "$WORK/.err"
    }
    return $status
}

not_ok() { # description, command... that must fail
    what=$1
    shift
    if "$@" >"$WORK/.out" 2>"$WORK/.err"; then
        result 1 "$what"
    else
        result 0 "$what"
    fi
}

is() { # description, got, expected
    [ "$2" = "$3" ]
    result $? "$1" || echo "#      got: $2
# expected: $3"
}

matches() { # description, text, extended regular expression
    printf '%s\n' "$2" | grep -Eq -- "$3"
    result $? "$1" || { echo "# no match for: $3"; printf '%s\n' "$2" | tail -n 12 | sed 's/^/# /'; }
}

# An error told once: exit status ("1", or "12" for 1 or 2), a fragment of the sentence, and no noise from below.
fails() { # status, description, fragment, command...
    expected=$1
    what=$2
    fragment=$3
    shift 3
    "$@" >"$WORK/.out" 2>"$WORK/.err"
    status=$?
    good=0
    case $expected in *$status*) ;; *) good=1 ;; esac
    grep -Fqi -- "$fragment" "$WORK/.err" || good=1
    [ "$(grep -c '^kiln: ' "$WORK/.err")" -le 1 ] || good=1
    grep -Eq 'Segmentation|Assertion|CRITICAL|AddressSanitizer' "$WORK/.err" && good=1
    result $good "$what" || {
        echo "# exit status $status (expected $expected), looked for: $fragment"
        explain "$WORK/.err"
    }
}

skip() { # description, why
    count=$((count + 1))
    echo "ok $count - $1 # SKIP $2"
}

# Skips the whole script.
require() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "1..0 # SKIP $tool is not installed"; exit 0; }
    done
}
have() { command -v "$1" >/dev/null; }
have_uefi() { [ -r /usr/share/ovmf/OVMF.fd ] || [ -r /usr/share/qemu/OVMF.fd ]; }

finish() {
    echo "1..$count"
    [ $failed -eq 0 ]
    exit
}

# IMAGE-ID of the last bake's artifact: id_of NAME KIND < stdout of kiln bake
id_of() { awk -v n="$1" -v k="$2" '$1 == n && $2 == k { id = $3 } END { print id }'; }

# Start and size in bytes of GPT partition $2 of the raw disk $1.
partition() {
    sgdisk -i "$2" "$1" | awk '/^First sector/ { first = $3 } /^Partition size/ { size = $3 } END { print first * 512, size * 512 }'
}

# Copies partition $2 of the raw disk $1 to file $3, holes kept.
cut_partition() {
    set -- "$1" "$3" $(partition "$1" "$2")
    dd if="$1" of="$2" bs=1M iflag=skip_bytes,count_bytes skip="$3" count="$4" conv=sparse status=none
}

# Processes of ours that must not outlive a bake: those whose command line names the store.
left_behind() {
    for process in /proc/[0-9]*; do
        [ "$process" = "/proc/$$" ] && continue
        { tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null | grep -E 'qemu-system|nbdkit|mmdebstrap' | grep -F -- "$1" &&
            echo "$process"
    done
    return 0
}

# An OCI layout with one image "v1" of one layer: oci_layout FOLDER LAYER.tar
oci_layout() {
    python3 - "$1" "$2" <<'END'
import gzip, hashlib, json, os, sys
out, layer = sys.argv[1], open(sys.argv[2], "rb").read()
os.makedirs(out + "/blobs/sha256")
def blob(kind, data):
    name = hashlib.sha256(data).hexdigest()
    open(f"{out}/blobs/sha256/{name}", "wb").write(data)
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + name, "size": len(data)}
config = {"architecture": "amd64", "os": "linux", "created": "2020-09-13T12:26:40Z", "config": {"Env": ["A=1"]},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
layers = [blob("layer.v1.tar+gzip", gzip.compress(layer, mtime=0))]
manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", json.dumps(config).encode()), "layers": layers}
entry = blob("manifest.v1+json", json.dumps(manifest).encode())
entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
json.dump({"schemaVersion": 2, "manifests": [entry]}, open(out + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(out + "/oci-layout", "w"))
print(layers[0]["digest"])
END
}

# A free TCP port of the loopback device.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
