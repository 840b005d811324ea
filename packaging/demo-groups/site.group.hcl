# SPDX-License-Identifier: Apache-2.0
#
# The group of `make demo-deploy`: two guests on this machine behind one HAProxy. Guests have no network of their own: each
# one's port 8080 is forwarded from an address of 127.0.0.0/8.

variable "socket" {
  type        = string
  description = "HAProxy's admin socket."
}

variable "state_file" {
  type        = string
  description = "HAProxy's server-state file."
}

variable "images" {
  type        = string
  description = "Folder for the images that guests run from."
}

group "site" {
  size  = 2
  image = "site/disk:prod"

  instance {
    memory = "256M"
    cpus   = 1
  }

  driver "libvirt" {
    hosts     = ["qemu:///system"]
    image_dir = var.images
  }

  network {
    addresses = ["127.0.81.10-127.0.81.20"]
  }

  balancer "haproxy" {
    sockets    = [var.socket]
    backend    = "site"
    state_file = var.state_file
  }

  health {
    http          = "/"
    port          = 8080
    interval      = "1s"
    rise          = 2
    fall          = 3
    start_timeout = "180s"
  }

  drain {
    deadline = "20s"
  }

  strategy "rolling" {
    max_surge       = 1
    max_unavailable = 0
    start_retries   = 0
  }

  rollback {
    keep = "1s"
  }

  ephemeral = true
}
