# SPDX-License-Identifier: Apache-2.0
#
# The site of `make demo-deploy`: one page that names its version. The version "broken" has a mistake in nginx's configuration. A server that
# cannot serve switches itself off: there is nothing to repair in an instance.

variable "version" {
  type        = string
  description = "What the page says; \"broken\" is a version that does not start."
}

# An instance lives for one version and does one thing: what else Debian starts at boot only makes it slower to arrive.
locals {
  not_needed = [
    "systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer",
    "systemd-resolved.service", "systemd-logind.service", "dbus.socket", "dbus.service", "getty@tty1.service", "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service", "systemd-journal-flush.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-random-seed.service", "systemd-machine-id-commit.service", "systemd-fsck-root.service", "systemd-user-sessions.service",
    "modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service",
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
  ]
}

source "bootstrap" "debian" {
  suite = "bookworm"
  size  = "2G"
}

build {
  name    = "site"
  sources = ["source.bootstrap.debian"]

  provisioner "packages" {
    install = ["nginx-light"]
    network = true
  }

  provisioner "file" {
    destination = "/var/www/html/index.html"
    content     = "version ${var.version}\n"
  }

  provisioner "file" {
    destination = "/etc/nginx/conf.d/site.conf"
    content     = var.version == "broken" ? "sevrer_tokens off;\n" : "server_tokens off;\n"
  }

  provisioner "file" {
    destination = "/etc/systemd/system/nginx.service.d/site.conf"
    content     = "[Unit]\nFailureAction=poweroff-force\n"
  }

  provisioner "shell" {
    inline = [
      "rm -f /var/www/html/index.nginx-debian.html",
      "sed -i 's/listen 80 default_server/listen 8080 default_server/; s/listen \\[::\\]:80 default_server/listen [::]:8080 default_server/' /etc/nginx/sites-available/default",
      "systemctl mask ${join(" ", local.not_needed)} 2>/dev/null",
    ]
  }

  output "disk" {}
}
