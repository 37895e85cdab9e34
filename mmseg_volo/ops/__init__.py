"""Operators with kernels of their own."""
