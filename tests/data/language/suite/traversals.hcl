a = [one.two[0], three]
