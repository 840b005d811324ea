x = 1
y = 2
tags {
  a = "b"
  c = 5
}
port {
  number = 80
}
port {
  number = 22
}
port {
  number = 80
}
