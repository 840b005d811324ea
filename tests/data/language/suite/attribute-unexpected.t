diagnostics {
  error {
    from {
      line   = 2
      column = 1
      byte   = 13
    }
    to {
      line   = 2
      column = 5
      byte   = 17
    }
  }
}
