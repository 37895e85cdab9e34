"""Check that every image has a mask and every mask an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmseg_volo.autotrain.pairing import Pair
from mmseg_volo.errors import UsageError

SHOWN = 5


def complete(
    root: Path, pairs: Sequence[Pair], masks: Sequence[Path], skip_unpaired: bool
) -> tuple[list[Pair], list[str]]:
    """Return the pairs that can be used, and notes on files that are left out.

    Test images need no masks. If no validation image has a mask, as in competitions, all are left out.

    Args:
        root: folder of the data.
        pairs: some may have no mask.
        masks: those without image.
        skip_unpaired: leave out files without partner.

    Raises:
        UsageError: files have no partner, and `skip_unpaired` is False.
    """
    held = {pair.split for pair in pairs if pair.mask}
    bare = {split: [p.image for p in pairs if p.split == split] for split in {'val', 'test'} - held}
    whole = {image for images in bare.values() for image in images}
    lone = [pair.image for pair in pairs if pair.mask is None and pair.image not in whole]
    problems = _lone('images have no mask', lone, root) + _lone('masks have no image', masks, root)
    if problems and not skip_unpaired:
        used = {path.parent for pair in pairs if pair.mask for path in (pair.image, pair.mask)}
        apart = {path.parent for path in (*lone, *masks)}.isdisjoint(used)
        folders = ', or say with --images FOLDER --masks FOLDER which folders count' if apart else ''
        raise UsageError(
            f'{"; ".join(problems)}; complete or remove them, or leave them out with --skip-unpaired{folders}'
        )
    gone = {*lone, *bare.get('val', ())}
    notes = [f'left out: {problem}' for problem in problems]
    if bare.get('val'):
        notes.append(f'{len(bare["val"])} validation images have no mask and are left out')
    if bare.get('test'):
        notes.append(f'{len(bare["test"])} test images have no mask and are not scored')
    return [pair for pair in pairs if pair.image not in gone], notes


def _lone(what: str, files: Sequence[Path], root: Path) -> list[str]:
    names = [str(path.relative_to(root)) for path in files]
    return [f'{len(names)} {what} ({", ".join(names[:SHOWN])}{", ..." * (len(names) > SHOWN)})'] if names else []
