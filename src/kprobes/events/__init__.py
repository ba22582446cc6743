"""Records of the ring -> events; raw maps -> Python values."""
