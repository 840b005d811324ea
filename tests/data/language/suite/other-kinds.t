result = {
  size   = "1G"
  tags   = { a = "b", c = "5" }
  port   = [{ number = 22 }, { number = 80 }]
  both   = [1, 2]
  double = 2
}
result_type = object({
  size   = string
  tags   = map(string)
  port   = set(object({ number = number }))
  both   = tuple([number, number])
  double = number
})
