disk {
}
