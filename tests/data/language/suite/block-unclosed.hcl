disk {
