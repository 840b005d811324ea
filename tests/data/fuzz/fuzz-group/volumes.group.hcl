group "db" {
  image = "0123456789ab"
  driver "fake" { dir = "/d" }
  dynamic "volume" {
    for_each = { a = "/a", b = "/b" }
    labels   = [volume.key]
    content {
      size  = "1G"
      mount = volume.value
    }
  }
}
