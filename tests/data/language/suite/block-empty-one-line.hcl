disk {}
