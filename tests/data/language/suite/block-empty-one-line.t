result = {}
result_type = object({})
