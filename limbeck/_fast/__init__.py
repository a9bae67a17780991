"""Computing faster to the same values: folded norms, memory layout, low precision, and who can do it."""
