"""Drop masks that repeat others in colours, by instances or in other ids, by the last word of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmseg_volo.autotrain.pairing import File

INDICES = ('labeltrainids', 'labelids')  # as Cityscapes names them; the first that exists counts
OTHERS = ('color', 'labelcolor', 'instanceids', 'instancetrainids')


def without_twins(masks: Sequence[File]) -> tuple[list[File], list[str]]:
    """Return masks without those in colours or of instances beside one of indices, and a note on these."""
    groups: dict[tuple[Path, str], dict[str, File]] = {}
    for mask in masks:
        start, _, end = mask.path.stem.rpartition('_')
        if end.lower() in INDICES + OTHERS:
            groups.setdefault((mask.path.parent, start), {})[end] = mask
    used, gone = dict[str, None](), dict[str, None]()
    left: set[Path] = set()
    for ends in groups.values():
        chosen = min(
            (end for end in ends if end.lower() in INDICES), key=lambda e: INDICES.index(e.lower()), default=''
        )
        others = {end: mask.path for end, mask in ends.items() if chosen and end != chosen}
        left.update(others.values())
        used |= dict.fromkeys([chosen] * bool(others))
        gone |= dict.fromkeys(sorted(others))
    if not left:
        return [*masks], []
    names, unused = (', '.join(f'*_{end}' for end in ends) for ends in (used, gone))
    note = f'masks named {names} are used, those of the same images named {unused} are not'
    return [mask for mask in masks if mask.path not in left], [note]
