// one
// two ${x}
