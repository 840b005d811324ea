result = {
  name   = "web"
  count  = 3
  absent = null
}
result_type = object({
  name   = string
  count  = number
  absent = bool
})
