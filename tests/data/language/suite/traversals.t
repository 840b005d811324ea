result = {
  a = [1, 3]
}
result_type = object({
  a = tuple([number, number])
})

traversals {
  expect {
    ref = one.two[0]
    from {
      line   = 1
      column = 6
      byte   = 5
    }
    to {
      line   = 1
      column = 16
      byte   = 15
    }
  }
  expect {
    ref = three
    from {
      line   = 1
      column = 18
      byte   = 17
    }
    to {
      line   = 1
      column = 23
      byte   = 22
    }
  }
}
