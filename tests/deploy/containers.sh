# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Groups of containers behind a real HAProxy. Source it after tests/deploy/lib.sh; needs haproxy, runc, umoci and the rollout tools.

tools=$(dirname "$KILN")/tests
net=${KILN_TEST_NET:-127.94}
front=$net.0.1:18940
load=

# Containers whose only file is the test service: app:v1, app:v2 ...
make_service_images() {
    for v in "$@"; do
        rm -rf "oci$v"
        { umoci init --layout "oci$v" && umoci new --image "oci$v:latest" && tar -C "$tools" --owner=0 --group=0 -cf "layer$v.tar" backend &&
            umoci raw add-layer --image "oci$v:latest" "layer$v.tar" &&
            umoci config --image "oci$v:latest" --config.entrypoint /backend --config.env "KILN_VERSION=v$v"; } >umoci.log 2>&1 ||
            { explain umoci.log; return 1; }
        kiln import "oci$v" app >ids 2>err || { explain err; return 1; }
        eval "image$v=$(id_of app oci <ids)"
        kiln promote app "v$v" >/dev/null 2>&1 || return
    done
}

strategy_block() {
    case $1 in
    rolling) printf 'strategy "rolling" { max_surge = 1 }' | sed 's/{ /{\n/; s/ }/\n}/' ;;
    canary) printf 'strategy "canary" {\n steps = [25, 50, 100]\n hold = "1s"\n max_surge = 2\n}' ;;
    bluegreen) printf 'strategy "bluegreen" {}' ;;
    esac
}

service_group() { # version, strategy
    cat >app.group.hcl <<EOT
group "app" {
  size  = ${size:-4}
  image = "app:v$1"
  driver "runc" {
    state_dir = "$WORK/containers"
  }
  network {
    addresses = ["$net.1.10-$net.1.60"]
  }
  balancer "haproxy" {
${balancer_lines:-    sockets    = [\"$WORK/haproxy.sock\"]
    state_file = \"$WORK/haproxy.state\"
    map        = \"$WORK/haproxy.map\"}
    backend    = "${backend:-app}"
  }
  health {
    http          = "/"
    port          = 8000
    interval      = "200ms"
    rise          = 2
    fall          = 3
    start_timeout = "20s"
  }
  drain {
    deadline = "15s"
  }
  rollback {
    keep = "${keep:-0s}"
  }
  $(strategy_block "$2")
  ephemeral = true
}
EOT
}

start_balancer() {
    : >haproxy.map
    rm -f haproxy.state haproxy.sock
    kiln deploy balancer-config app.group.hcl >lines || return
    awk -v bind="$front" '
        /^frontend/ { print "defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n    timeout tunnel 30s\n    retries 0\n" }
        { sub(/bind :80/, "bind " bind); print }' lines >haproxy.cfg
    haproxy -D -f haproxy.cfg -p haproxy.pid >haproxy.log 2>&1 || { explain haproxy.log; return 1; }
}
stop_balancer() { [ ! -f haproxy.pid ] || kill -9 "$(cat haproxy.pid)" 2>/dev/null; rm -f haproxy.pid; }

start_load() { # result, more...
    out=$1
    shift
    "$tools/load" "$front" --timeout 30 "$@" >"$out" 2>load.err &
    load=$!
}
stop_load() {
    [ -n "$load" ] || return 0
    kill "$load" 2>/dev/null
    wait "$load"
    load=
}

end_all() {
    [ -z "$load" ] || kill -9 "$load" 2>/dev/null
    kiln --quiet deploy destroy app >/dev/null 2>&1
    stop_balancer
}
