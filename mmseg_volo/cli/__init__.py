"""Implement the commands of `mmseg-volo`."""
