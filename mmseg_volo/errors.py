"""The one error that tools show without a traceback."""

from __future__ import annotations


class UsageError(ValueError):
    """What the user gave cannot work; the message says what was given, what was expected and what to do."""
