"""Empty files in the layouts of data sets, and the pairs that are discovered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmseg_volo.autotrain.discover import find_layout

Pairs = set[tuple[str, str | None, str | None]]

NAMES = [f'{number:02}' for number in range(6)]


def laid(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path, **options: object) -> Pairs:
    layout = find_layout(root, **options)
    name = lambda path: path and path.relative_to(root).as_posix()  # noqa: E731
    return {(name(pair.image), name(pair.mask), pair.split) for pair in layout.pairs}


def filled(root: Path, texts: Mapping[str, str], masks: str = 'masks/{}.png') -> Path:
    """Six pairs, and text files."""
    laid(root, *(f'images/{name}.jpg' for name in NAMES), *(masks.format(name) for name in NAMES), *texts)
    for name, text in texts.items():
        (root / name).write_text(text)
    return root


def splits(root: Path) -> dict[str | None, list[str]]:
    rows: dict[str | None, list[str]] = {}
    for image, _, split in sorted(found(root)):
        rows.setdefault(split, []).append(Path(image).stem)
    return rows


def lines(*names: str, pattern: str = '{}') -> str:
    return ''.join(f'{pattern.format(name, name)}\n' for name in names)


def both(image: str, mask: str, *names: str) -> list[str]:
    return [pattern.format(name) for name in names for pattern in (image, mask)]
