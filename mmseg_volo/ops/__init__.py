"""Define operators that have their own kernels."""
