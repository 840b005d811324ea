result = {
  size = "2G"
}
result_type = object({
  size = string
})
