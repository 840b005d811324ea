#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a rendered disk is besides its root: its size, given or not, and given anew; a root that takes a larger disk; kernel arguments; the paths that a template calls
# volatile, in disk and container; a login on the serial console by BIOS and by UEFI.
. "$(dirname "$0")/../lib.sh"
require qemu-system-x86_64 mmdebstrap jq

write_template() { # volatile path
    cat >form.pkr.hcl <<END
variable "size" {
  type    = string
  default = null
}
source "bootstrap" "base" {
  suite            = "bookworm"
  size             = var.size
  grow             = true
  kernel_arguments = "console=tty0 console=ttyS0,115200 kiln.test=here"
}
build {
  name           = "form"
  sources        = ["source.bootstrap.base"]
  volatile_paths = ["/srv/app/*.pid", "/opt/**/cache", $1]
  provisioner "shell" {
    inline = [
      "mkdir -p /srv/app /opt/a/b/cache && touch /srv/app/one.pid /srv/app/one.conf /srv/app/other /opt/a/b/cache/x /opt/a/b/kept",
    ]
  }
  provisioner "file" {
    destination = "/etc/systemd/system/report.service"
    content     = <<-EOT
      [Unit]
      After=local-fs.target
      Before=getty.target serial-getty@ttyS0.service
      [Service]
      Type=oneshot
      StandardOutput=journal+console
      ExecStart=/bin/sh -c 'echo "root of \$\$(df -BM --output=size / | tail -n 1) MiB, \$\$(cat /proc/cmdline)"'
      [Install]
      WantedBy=multi-user.target
    EOT
  }
  provisioner "shell" {
    inline = ["systemctl enable report.service"]
  }
  output "disk" {}
  output "oci" { cmd = ["/bin/sh"] }
}
END
}

write_template '"/nothing"'
fails 2 'a pattern for the whole image' 'whole image' sh -c 'sed "s|/nothing|/*|" form.pkr.hcl >bad.pkr.hcl; "$0" validate bad.pkr.hcl' "$KILN"
ok 'it bakes' kiln bake form.pkr.hcl || finish
cp .out first
disk=$(id_of form disk <first)
oci=$(id_of form oci <first)
is 'a disk without a size' "$(kiln --json show "$disk" | jq .size)" $((2 << 30))
for kind in disk oci; do
    is "$kind: volatile paths" "$(kiln files form/$kind /srv/app | sed 's/.* //' | tr '\n' ' ')" '/srv/app /srv/app/one.conf /srv/app/other '
    is "$kind: volatile paths at any depth" "$(kiln files form/$kind /opt/a | sed 's/.* //' | tr '\n' ' ')" '/opt/a /opt/a/b /opt/a/b/kept '
done

write_template '"/srv/app/other"'
ok 'another list' kiln --json bake form.pkr.hcl
is 'runs the seal alone' "$(jq -r '[.bakes[0].steps[] | select(.cached | not) | .type] | join(" ")' .out)" seal
is 'another image' "$(jq -r '.artifacts[] | select(.kind == "disk") | .id' .out | grep -c "$disk")" 0
is 'without that path' "$(kiln files form/oci /srv/app | sed 's/.* //' | tr '\n' ' ')" '/srv/app /srv/app/one.conf '

write_template '"/nothing"'
ok 'the first list again' kiln bake form.pkr.hcl
is 'gives the first images' "$(cat .out)" "$(cat first)"
ok 'another size' kiln bake -var size=3G form.pkr.hcl
is 'has that size' "$(kiln --json show form/disk | jq .size)" $((3 << 30))
is 'and the same container' "$(id_of form oci <.out)" "$oci"

boots() { # description, firmware, size, least MiB, most MiB
    # shellcheck disable=SC2086 # words
    ok "$1: a login" kiln boot "$disk" --firmware "$2" $3 --until login: --timeout 400s
    line=$(tr -d '\r' <.out | grep -a 'root of ' | tail -n 1)
    matches "$1: the kernel's arguments" "$line" 'root=UUID=[0-9a-f-]* ro console=tty0 console=ttyS0,115200 kiln.test=here'
    mib=$(echo "$line" | sed -n 's/.*root of *\([0-9]*\)M.*/\1/p')
    is "$1: a root of ${mib:-no} MiB" "$((${mib:-0} >= $4 && ${mib:-0} <= $5))" 1
}
boots 'BIOS, a disk of 6 GiB' bios '--disk-size 6G' 5600 6100
if have_uefi; then
    boots 'UEFI, the disk as it is' uefi '' 1800 2000
else
    skip 'UEFI' 'ovmf is not installed'
fi
finish
