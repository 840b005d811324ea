# SPDX-License-Identifier: Apache-2.0
#
# A Debian 12 web server with one page, as a bootable disk and as a container image.
#
#   kiln bake debian-web.pkr.hcl
#   kiln bake -var 'greeting=Good morning' debian-web.pkr.hcl

variable "greeting" {
  type        = string
  default     = "Hello from kiln"
  description = "The headline of the page."

  validation {
    condition     = length(var.greeting) > 0 && length(var.greeting) <= 200
    error_message = "The greeting has 1 to 200 characters."
  }
}

variable "size" {
  type        = string
  default     = "2G"
  description = "Size of the disk."
}

locals {
  packages = ["nginx-light"]
  server   = "/usr/sbin/nginx"
}

source "bootstrap" "debian" {
  suite = "bookworm"
  size  = var.size
}

build {
  name        = "debian-web"
  description = "nginx on Debian 12"
  sources     = ["source.bootstrap.debian"]

  provisioner "packages" {
    install = local.packages
    network = true
  }

  provisioner "file" {
    destination = "/var/www/html/index.html"
    content     = <<-EOT
      <!DOCTYPE html>
      <html lang="en">
      <head><meta charset="utf-8"><title>${build.name}</title></head>
      <body>
      <h1>${var.greeting}</h1>
      <p>This is ${build.name}, made from ${source.type}.${source.name} with ${join(", ", local.packages)}.</p>
      </body>
      </html>
    EOT
  }

  # nginx starts at boot by itself: Debian's package enables its service.

  output "disk" {}

  output "oci" {
    entrypoint = [local.server, "-g", "daemon off;"]
    expose     = [80]
  }

  post-processor "manifest" {}
}
