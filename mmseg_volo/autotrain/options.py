"""What a user wants of a training on a folder: the options of `train --data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RECIPE = 'recipe'  # folder below the work dir: the config, its lists, and what was understood


@dataclass(frozen=True)
class AutoTrainOptions:
    """What the user gives; all but the first two may be left out."""

    data: str
    model: str
    classes: Sequence[str] = ()
    ignore: Sequence[str] = ()
    binary: bool = False
    size: Sequence[int] | None = None
    epochs: float | None = None
    batch: int | None = None
    weights: str | None = None
    seed: int | None = None  # 0
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
        """The config that is written."""
        return self.folder / RECIPE / f'{self.folder.absolute().name}.py'
