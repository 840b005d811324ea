name = "web"
xtra = 1
