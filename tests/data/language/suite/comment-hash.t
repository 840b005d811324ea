result = "read"
