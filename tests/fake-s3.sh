# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# The bucket s3://bucket of tests/fake-s3.py, for scripts that source tests/lib.sh first: start_fake_s3; fake_s3 _fault JSON; fake_s3 _reset; s3_stats .in

start_fake_s3() {
    mkdir -p "$WORK/bucket-root/bucket"
    python3 -S "$TREE/tests/fake-s3.py" "$WORK/bucket-root" 0 >"$WORK/.s3-port" 2>"$WORK/.s3-err" &
    s3_pid=$!
    trap 'kill $s3_pid 2>/dev/null; cleanup' EXIT
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -s "$WORK/.s3-port" ] && break
        sleep 0.1
    done
    s3_port=$(cat "$WORK/.s3-port")
    AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
    AWS_ACCESS_KEY_ID=AKIDTEST
    AWS_SECRET_ACCESS_KEY=secret-of-test
    AWS_SHARED_CREDENTIALS_FILE=/dev/null
    AWS_CONFIG_FILE=/dev/null
    KILN_TEST_S3_DELAY=0.02
    export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE KILN_TEST_S3_DELAY
    [ -n "$s3_port" ]
}

fake_s3() { curl -s -o "$WORK/.s3-said" ${2:+-d "$2"} "http://127.0.0.1:$s3_port/$1"; }
s3_stats() { fake_s3 _stats; jq "$1" "$WORK/.s3-said"; }
