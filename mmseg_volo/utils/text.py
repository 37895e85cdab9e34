"""Format text for messages: tables, ranges of numbers, suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def format_ranges(values: Iterable[int]) -> str:
    """Write whole numbers as ranges, e.g. `0 to 18 and 255`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ' and '.join(str(low) if low == high else f'{low} to {high}' for low, high in runs)


def format_table(rows: Sequence[Sequence[object]]) -> str:
    """Align the columns of a table as text."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join(
        '  '.join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for a message, or nothing if no known word is close."""
    close = difflib.get_close_matches(word, {*known}, n=3, cutoff=0.6)
    return f'; did you mean {" or ".join(close)}?' if close else ''
