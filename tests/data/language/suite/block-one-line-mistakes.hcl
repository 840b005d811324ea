disk { size = "2G", bus = "ide" }
disk { size = "2G"
}
disk { size = "2G"
  bus = "ide" }
disk { part {} }
