result = {
  whole    = 5
  part     = 3.25
  long     = 2.7182818284590452353602874713526624977572470936999595749669676
  ascii    = "hello"
  wide     = "ЯЯ"
  astral   = "👨‍👩‍👧"
  composed = "año"
  "true"   = true
  "false"  = false
  "null"   = null
}
