result = {
  kept = {
    plain         = "one\n  two\n"
    closing_inset = "    one\n"
    value         = "  one\n  two\n"
    near          = "  NEAR END\n"
  }
  flush = {
    all         = "one\n  two\nthree\n"
    least       = "  one\ntwo\n"
    value       = "one\n  two\n"
    value_inset = "  one\n  two\n"
    tab         = "one\n two\n"
    blank       = "one\n\ntwo\n"
  }
}
result_type = object({
  kept  = map(string)
  flush = map(string)
})
