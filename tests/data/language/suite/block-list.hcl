disk {
  size = "1G"
}
disk {
  size = "2G"
  part {}
}
