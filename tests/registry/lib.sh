# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Registries for tests: Debian's docker-registry, and one of our own that goes wrong on request (fake.py).
export DOCKER_CONFIG="$WORK/docker" XDG_RUNTIME_DIR="$WORK/run" XDG_CONFIG_HOME="$WORK/config" KILN_CERTS_D="$WORK/certs.d"
export CONTAINERS_REGISTRIES_CONF="$WORK/registries.conf"
unset REGISTRY_AUTH_FILE
mkdir -p "$DOCKER_CONFIG" "$XDG_RUNTIME_DIR" "$XDG_CONFIG_HOME" "$KILN_CERTS_D"
: >"$CONTAINERS_REGISTRIES_CONF"
servers=

stop_servers() {
    for server in $servers; do
        kill "$server" 2>/dev/null
    done
    servers=
    cleanup
}
trap stop_servers EXIT

wait_for() { # URL
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        curl -sk -o /dev/null --noproxy '*' "$1" && return 0
        sleep 0.1
    done
    return 1
}

# registry FOLDER: docker-registry on $registry (127.0.0.1:PORT); its log is FOLDER.log
registry() {
    port=$(free_port)
    registry=127.0.0.1:$port
    cat >"$1.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $1}, delete: {enabled: true}}
http: {addr: $registry}
END
    docker-registry serve "$1.yml" >"$1.log" 2>&1 &
    servers="$servers $!"
    wait_for "http://$registry/v2/"
}

# fake FOLDER [--referrers]: on $fake
fake() {
    port=$(free_port)
    fake=127.0.0.1:$port
    mkdir -p "$1"
    python3 "$TREE/tests/registry/fake.py" "$port" "$@" >"$1.err" 2>&1 &
    servers="$servers $!"
    wait_for "http://$fake/v2/"
}

raw_digest() { skopeo inspect --raw --tls-verify=false "$1" | sha256sum | cut -d' ' -f1; }
