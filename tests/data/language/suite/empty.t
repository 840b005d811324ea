result = "read"

traversals {
}
