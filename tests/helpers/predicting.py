"""Calls of `mmseg-volo predict`, and what they wrote."""

from __future__ import annotations

from pathlib import Path

import cv2

from mmseg_volo.datasets.synthetic import scenes


def write_photos(folder: Path) -> Path:
    """Three pictures of scenes, two of them of the same stem."""
    for i, name in enumerate(('a.png', 'b.png', 'deep/a.jpg')):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), scenes.scene(i, 48 + 16 * i, 96)[0][..., ::-1])
    return folder


def command(checkpoint: Path, *given: object) -> list[str]:
    return ['predict', str(checkpoint), *map(str, given), '--device', 'cpu']


def times(out: Path) -> dict[str, int]:
    """When each result was written."""
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in out.rglob('*') if p.is_file() and p.parent != out}
