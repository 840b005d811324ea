disk { size = "2G" }
