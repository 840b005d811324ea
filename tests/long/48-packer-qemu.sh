#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Templates in the way of public ones: Packer's qemu source with disk_image = true, on a Debian cloud image (cloud-init, sudo, sshd) that is made here and given
# by --url-map. They bake without an edit; the second run starts no machine; the booted image shows the change.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap qemu-system-x86_64 curl genisoimage sgdisk e2fsck qemu-img
KILN_STORE=$WORK/store

cat >cloud.pkr.hcl <<'END'
source "bootstrap" "cloudbase" {
  suite    = "bookworm"
  size     = "1536M"
  packages = ["cloud-init", "openssh-server", "sudo"]
}
build { sources = ["source.bootstrap.cloudbase"] }
END
ok 'a cloud image is made' kiln bake cloud.pkr.hcl || finish
mkdir -p mirror/cloud/bookworm/latest
image=debian-12-genericcloud-amd64.qcow2
ok 'export' kiln export cloudbase/disk mirror/cloud/bookworm/latest/$image
(cd mirror/cloud/bookworm/latest && sha512sum $image >SHA512SUMS)
sum=$(sha256sum mirror/cloud/bookworm/latest/$image | cut -d' ' -f1)
map="https://cloud.debian.org/images/=$WORK/mirror"

# 1. A CD made by cd_content, a password of its seed, scripts by sudo, a larger disk, a wait for cloud-init.
cat >web.pkr.hcl <<'END'
packer {
  required_version = ">= 1.7.0"
  required_plugins {
    qemu = {
      version = "~> 1"
      source  = "github.com/hashicorp/qemu"
    }
  }
}

variable "ssh_password" {
  type      = string
  default   = "packer-secret"
  sensitive = true
}

locals {
  user_data = {
    ssh_pwauth = true
    users = [
      "default",
      {
        name              = "packer"
        plain_text_passwd = var.ssh_password
        lock_passwd       = false
        groups            = ["adm", "sudo"]
        shell             = "/bin/bash"
        sudo              = "ALL=(ALL) NOPASSWD:ALL"
      },
    ]
    growpart = { mode = "auto", devices = ["/"] }
    locale   = "C.UTF-8"
    timezone = "Europe/Berlin"
    write_files = [{
      path        = "/etc/motd"
      content     = "made by a seed\n"
      permissions = "0644"
    }]
    runcmd = [["sh", "-c", "echo ran >/etc/seed-ran"]]
  }
}

source "qemu" "Debian_Web" {
  accelerator      = "kvm"
  boot_wait        = "10s"
  cd_content       = { "meta-data" = "instance-id: packer\nlocal-hostname: web\n", "user-data" = format("#cloud-config\n%s", jsonencode(local.user_data)) }
  cd_label         = "cidata"
  cpus             = 2
  disk_compression = true
  disk_image       = true
  disk_interface   = "virtio"
  disk_size        = "3G"
  format           = "qcow2"
  headless         = true
  iso_checksum     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
  iso_url          = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
  memory           = 2048
  net_device       = "virtio-net"
  output_directory = "artifacts/qemu/${source.name}"
  qemuargs         = [["-cpu", "host"], ["-serial", "mon:stdio"]]
  shutdown_command = "echo '${var.ssh_password}' | sudo -S shutdown -P now"
  ssh_password     = var.ssh_password
  ssh_timeout      = "20m"
  ssh_username     = "packer"
  vm_name          = "${source.name}.qcow2"
}

build {
  sources = ["source.qemu.Debian_Web"]

  provisioner "shell" {
    inline = [
      "while [ ! -f /var/lib/cloud/instance/boot-finished ]; do echo 'Waiting for cloud-init...'; sleep 1; done",
      "cloud-init status --wait",
    ]
  }

  provisioner "file" {
    source      = "site.service"
    destination = "/tmp/site.service"
  }

  provisioner "shell" {
    execute_command  = "echo '${var.ssh_password}' | {{ .Vars }} sudo -S -E bash -eux '{{ .Path }}'"
    environment_vars = ["DEBIAN_FRONTEND=noninteractive", "PAGE=hello from a template"]
    inline = [
      "id packer",
      "mkdir -p /srv/www",
      "echo \"$PAGE\" > /srv/www/index.html",
      "mv /tmp/site.service /etc/systemd/system/site.service",
      "systemctl enable site.service",
      "systemctl restart ssh",
    ]
  }

  provisioner "shell" {
    inline = [
      "sudo -u packer sh -c 'id -un' | grep packer",
      "sudo cloud-init clean --logs",
      "sudo rm -f /etc/ssh/ssh_host_*",
      "sudo truncate -s 0 /etc/machine-id",
      "df --output=size -BM / | tail -n 1",
    ]
  }
}
END
cat >site.service <<'END'
[Unit]
Description=A page
After=network.target
[Service]
ExecStart=/usr/bin/python3 -m http.server 80 --directory /srv/www
[Install]
WantedBy=multi-user.target
END
ok 'a template with a CD bakes' kiln --url-map "$map" bake web.pkr.hcl || finish
cp .err web.err
matches 'the seed was applied' "$(cat web.err)" 'seed: .*user debian, user packer'
is 'the password is printed nowhere' "$(grep -c packer-secret web.err)" 0
matches 'the root grew' "$(cat web.err)" 'shell: +(2[89]|30)[0-9][0-9]M'
ok 'the file is where Packer leaves it' qemu-img check -q artifacts/qemu/Debian_Web/Debian_Web.qcow2
ok 'again' kiln --url-map "$map" bake web.pkr.hcl
matches 'all of it is known' "$(cat .err)" 'nothing to do'
matches 'no machine was started' "$(grep -c 'starting the appliance' .err)" '^0$'
kiln files debian_web/disk >list
is 'of the shims nothing is left' "$(grep -cE '/\.kiln|boot-finished|result.json' list)" 0
is 'cloud-init is the guest'\''s own' "$(kiln cat debian_web/disk /usr/bin/cloud-init | head -n 1)" '#!/usr/bin/python3'
matches 'the user is there' "$(kiln cat debian_web/disk /etc/passwd)" '^packer:x:100[0-9]:'
matches 'with a password' "$(kiln cat debian_web/disk /etc/shadow)" '^packer:\$6\$'
port=$(free_port)
ok 'the booted image serves the page' kiln boot debian_web/disk --forward "$port:80" --check "http://127.0.0.1:$port/" --timeout 300s
qemu-img convert -O raw artifacts/qemu/Debian_Web/Debian_Web.qcow2 web.raw
matches 'its table is whole' "$(sgdisk -v web.raw 2>&1)" 'No problems found'
cut_partition web.raw 1 web.ext4
ok 'its file system is clean' e2fsck -fn web.ext4
rm -f web.raw web.ext4

# 2. A seed over HTTP that -smbios names, several URLs of which the first is gone, a bare checksum, a raw disk as it is; cloud-init's package upgraded under its shim.
mkdir -p http/seed
printf 'instance-id: two\nlocal-hostname: two\n' >http/seed/meta-data
cat >http/seed/user-data <<'END'
#cloud-config
user:
  name: builder
  sudo: ["ALL=(ALL) NOPASSWD:ALL"]
  shell: /bin/bash
password: builder
chpasswd: { expire: false }
ssh_authorized_keys:
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA builder
package_update: true
packages:
  - tree
END
cat >two.pkr.hcl <<END
source "qemu" "two" {
  disk_image       = true
  skip_resize_disk = true
  skip_compaction  = true
  format           = "raw"
  http_directory   = "http"
  iso_checksum     = "$sum"
  iso_urls         = ["https://cloud.debian.org/images/gone.qcow2", "https://cloud.debian.org/images/cloud/bookworm/latest/$image"]
  qemuargs         = [["-smbios", "type=1,serial=ds=nocloud-net;instance-id=packer;seedfrom=http://{{ .HTTPIP }}:{{ .HTTPPort }}/seed/"]]
  ssh_username     = "builder"
  ssh_password     = "builder"
}
build {
  sources = ["source.qemu.two"]
  provisioner "shell" {
    inline = ["/usr/bin/cloud-init status --wait", "sudo apt-get install -y --reinstall cloud-init", "cloud-init --version 2>&1 | grep -v kiln-", "which tree"]
  }
}
END
ok 'a template with a seed over HTTP bakes' kiln --url-map "$map" bake two.pkr.hcl || finish
is 'what the store has by its checksum is fetched from nowhere' "$(grep -cE '^download|next of iso_urls' .err)" 0
ok 'its file is raw and of the size of the image' test "$(stat -c %s output-two/packer-two)" -eq $((1536 * 1024 * 1024))
matches 'the main user has the key' "$(kiln cat two/disk /home/builder/.ssh/authorized_keys)" ' builder$'
matches 'and the password' "$(kiln cat two/disk /etc/shadow)" '^builder:\$6\$'
is 'a reinstalled cloud-init is its own' "$(kiln cat two/disk /usr/bin/cloud-init | head -n 1)" '#!/usr/bin/python3'
is 'and alone' "$(kiln files two/disk | grep -c '/\.kiln')" 0

# 3. A cidata drive in qemuargs; what waits for a boot ends at its limit, with the reason.
printf 'instance-id: three\n' >meta-data
printf '#cloud-config\nhostname: three\nruncmd:\n  - touch /etc/from-iso\n' >user-data
genisoimage -quiet -output seed.iso -volid cidata -joliet -rock user-data meta-data 2>.err
cat >three.pkr.hcl <<END
source "qemu" "three" {
  disk_image   = true
  disk_size    = "2048"
  iso_checksum = "sha256:$sum"
  iso_url      = "https://cloud.debian.org/images/cloud/bookworm/latest/$image"
  qemuargs     = [["-drive", "file=seed.iso,format=raw,media=cdrom"], ["-drive", "file=output-three/{{ .Name }},if=virtio"]]
  ssh_username = "debian"
}
build {
  sources = ["source.qemu.three"]
  provisioner "shell" { inline = ["test -f /etc/from-iso"] }
  provisioner "shell" {
    pause_before = "1s"
    timeout      = "8s"
    max_retries  = 1
    inline       = ["until systemctl is-system-running --wait; do sleep 1; done"]
  }
}
END
fails 1 'a loop that waits for a boot ends at its limit' 'nothing boots in a bake' kiln --url-map "$map" bake three.pkr.hcl
cp .err three.err
matches 'after another try' "$(cat three.err)" 'trying again \(1 of 1\)'
matches 'with its pause each time' "$(grep -c 'pausing for' three.err)" '^2$'
sed -i 's/timeout      = "8s"/timeout = "8s"\n    continue_on_error = true/' three.pkr.hcl
ok 'a failure that the template allows' kiln --url-map "$map" bake three.pkr.hcl
is 'the drive'\''s seed was applied' "$(kiln cat three/disk /etc/hostname)" three
finish
