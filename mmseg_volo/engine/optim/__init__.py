"""Optimisers, parameter groups and precision."""
