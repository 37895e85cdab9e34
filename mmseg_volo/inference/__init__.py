"""Predict one image (`api`), or files, with masks and other outputs written to a folder (`files`).

The names below are imported on first use, because they import mmseg, which takes seconds, and `import mmseg_volo`
imports `api` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmseg_volo.inference.files import predict_files
    from mmseg_volo.inference.options import OUTPUTS, Options

__all__ = ['OUTPUTS', 'Options', 'predict_files']
MODULES = {'OUTPUTS': 'options', 'Options': 'options', 'predict_files': 'files'}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{MODULES[name]}'), name)
