result = [
  { size = "1G", bus = null, part = [] },
  { size = "2G", bus = null, part = [{}] },
]
result_type = list(object({
  size = string
  bus  = string
  part = list(object({}))
}))
