variable "n" { default = 4 }
group "web" {
  size     = var.n
  image    = "web/disk:prod"
  approval = "another person"
  deadline = "30m"
  instance {
    memory      = "256M"
    environment = { B = "2", A = 1 }
  }
  driver "fake" { dir = "/d" }
  network {
    bridge    = "br0"
    addresses = ["10.0.0.10-10.0.0.14", "10.0.0.20/23"]
    gateway   = "10.0.0.1"
  }
  balancer "fake" { dir = "/d" }
  health {
    http     = "/ready"
    port     = 80
    interval = "500ms"
  }
  firewall { allow = ["tcp/80", "tcp/8000-8100", "icmp"] }
  strategy "canary" {
    steps           = [{ count = 1 }, 50]
    gate            = "manual"
    max_unavailable = "30%"
    analysis "balancer" {}
    analysis "prometheus" {
      url            = "http://127.0.0.1:9090"
      query_canary   = "a"
      query_baseline = "b"
    }
    analysis "command" { command = ["/bin/check", "-x"] }
  }
  phoenix { max_age = "7d" }
  drift {
    ignore = ["/var/cache/**"]
    cure   = "replace"
  }
}
