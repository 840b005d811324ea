# one
  # two, with a "quote and a {
