"""Fixtures of several tests of models."""

from helpers.tiny_coatnet import small

__all__ = ['small']
