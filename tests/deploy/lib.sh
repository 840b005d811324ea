# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the scripts about groups share. Source it after tests/lib.sh: it makes a store of its own with three small disks, app:1, app:2 and app:3 by
# channel, and knows how to write a group of fake instances.

KILN_STORE=$WORK/store
export KILN_STORE
world=$WORK/world
mkdir -p "$world"
PATH=$TREE/build:$PATH

# Three disks that differ; their IDs are $image1, $image2, $image3.
make_images() {
    for v in 1 2 3; do
        truncate -s 4M "app$v.raw"
        mkfs.ext4 -q -F -U "11111111-1111-1111-1111-11111111111$v" "app$v.raw" || return
        kiln import "app$v.raw" app >ids 2>err || { explain err; return 1; }
        eval "image$v=$(id_of app disk <ids)"
        kiln promote app "v$v" >/dev/null 2>&1 || return
    done
}

# group VERSION SIZE [STRATEGY-BLOCK [MORE]]: writes app.group.hcl
hosts='"a", "b"'
group() {
    strategy=${3:-}
    [ -n "$strategy" ] || strategy='strategy "rolling" { max_surge = 1 }'
    cat >app.group.hcl <<EOT
group "app" {
  size  = $2
  image = "app:v$1"
  driver "fake" {
    dir  = "$world"
    boot = ${boot:-0}
    hosts = [$hosts]
  }
  balancer "fake" {
    dir    = "$world"
    places = ${places:-64}
  }
  health {
    port          = 80
    start_timeout = "${start_timeout:-5s}"
  }
  drain {
    deadline = "${drain_deadline:-3s}"
  }
  rollback {
    keep = "${keep:-0s}"
  }
  $(printf '%s' "$strategy")
  ephemeral = true
  ${4:-}
}
EOT
}

# Names of the instances that exist in the fake world, sorted.
instances() { (cd "$world" && find . -name 'app-r*.json' -path './*/app-r*' ! -path './changed/*' | sed 's#.*/##; s#\.json$##' | sort) | tr '\n' ' ' | sed 's/ $//'; }

status_of() { kiln --json deploy status app 2>/dev/null | jq -r "$1"; }
