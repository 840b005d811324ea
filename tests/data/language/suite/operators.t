result = {
  compare = {
    "<" = { less = true, same = false, more = false }
    "<=" = { less = true, same = true, more = false }
    ">" = { less = false, same = false, more = true }
    ">=" = { less = false, same = true, more = true }
  }
  logic = {
    "&&" = { tt = true, tf = false, ff = false }
    "||" = { tt = true, tf = true, ff = false }
  }
  equal = { text = true, other = false, kinds = false, unequal = true }
  sums = {
    add       = 3.5
    take      = -1.5
    times     = 4.5
    part      = 0.125
    rest      = 2
    rest_part = 0.80000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000024
    minus     = -4
  }
  choice = { yes = "a", no = "b", not = false }
}
result_type = object({
  compare = map(object({ less = bool, same = bool, more = bool }))
  logic   = map(object({ tt = bool, tf = bool, ff = bool }))
  equal   = object({ text = bool, other = bool, kinds = bool, unequal = bool })
  sums = object({
    add       = number
    take      = number
    times     = number
    part      = number
    rest      = number
    rest_part = number
    minus     = number
  })
  choice = object({ yes = string, no = string, not = bool })
})
