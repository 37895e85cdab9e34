"""Define the options of `train --data`, a training on a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RECIPE = 'recipe'  # folder below the work dir: the config, its lists and its summary


@dataclass(frozen=True)
class AutoTrainOptions:
    """Options of `train --data`; all but the first two may be omitted."""

    data: str
    model: str
    classes: Sequence[str] = ()
    ignore: Sequence[str] = ()
    binary: bool = False
    size: Sequence[int] | None = None
    epochs: float | None = None
    batch: int | None = None
    weights: str | None = None
    seed: int | None = None  # 0 if None
    val_share: float | None = None
    images: str | None = None
    masks: str | None = None
    skip_unpaired: bool = False
    allow_outside: bool = False
    work_dir: str | None = None
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """The work dir."""
        name = f'{Path(self.data).absolute().with_suffix("").name}_{Path(self.model).stem}'
        return Path(self.work_dir) if self.work_dir else Path('work_dirs') / name

    @property
    def config(self) -> Path:
        """Path of the config to write."""
        return self.folder / RECIPE / f'{self.folder.absolute().name}.py'
