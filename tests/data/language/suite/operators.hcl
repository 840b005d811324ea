compare "<" {
  less = 1 < 2
  same = 2 < 2
  more = 3 < 2
}
compare "<=" {
  less = 1 <= 2
  same = 2 <= 2
  more = 3 <= 2
}
compare ">" {
  less = 1 > 2
  same = 2 > 2
  more = 3 > 2
}
compare ">=" {
  less = 1 >= 2
  same = 2 >= 2
  more = 3 >= 2
}
logic "&&" {
  tt = true && true
  tf = true && false
  ff = false && false
}
logic "||" {
  tt = true || true
  tf = true || false
  ff = false || false
}
equal {
  text    = "a" == "a"
  other   = "a" == "b"
  kinds   = "1" == 1
  unequal = "true" != true
}
sums {
  add       = 1.5 + 2
  take      = 1 - 2.5
  times     = 3 * 1.5
  part      = 1 / 8
  rest      = 17 % 5
  rest_part = 11 % 5.1
  minus     = -4
}
choice {
  yes = true ? "a" : "b"
  no  = false ? "a" : "b"
  not = !true
}
