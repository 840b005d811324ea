diagnostics {
  error {
    from {
      line   = 1
      column = 19
      byte   = 18
    }
    to {
      line   = 1
      column = 20
      byte   = 19
    }
  }
  error {
    from {
      line   = 2
      column = 19
      byte   = 52
    }
    to {
      line   = 3
      column = 1
      byte   = 53
    }
  }
  error {
    from {
      line   = 4
      column = 19
      byte   = 73
    }
    to {
      line   = 5
      column = 1
      byte   = 74
    }
  }
  error {
    from {
      line   = 6
      column = 8
      byte   = 97
    }
    to {
      line   = 6
      column = 14
      byte   = 103
    }
  }
}
