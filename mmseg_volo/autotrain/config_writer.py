"""Write a readable config, and the lists of files beside it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yapf.yapflib.yapf_api import FormatCode

from mmseg_volo.autotrain.adapt import HERE
from mmseg_volo.config import READ_KEYS, literally, load_config
from mmseg_volo.errors import UsageError
from mmseg_volo.io.text_files import hidden
from mmseg_volo.utils.files import write_whole

STYLE = dict(based_on_style='facebook', column_limit=116, space_between_ending_comma_and_closing_bracket=False)
WRITTEN = '.written.json'  # SHA-256 of each file of a recipe when it was written
SECTIONS = {  # heading -> keys, in this order
    'data': ('data_root', 'num_classes', 'ignore_index', 'class_weight', 'crop_size'),
    'model': ('model',),
    'pipelines of images and masks': ('train_pipeline', 'test_pipeline', 'tta_pipeline', 'tta_model'),
    'data loaders': ('train_dataloader', 'val_dataloader', 'test_dataloader', 'auto_scale_lr'),
    'metrics': ('val_evaluator', 'test_evaluator'),
    'optimiser, schedule and length': ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg'),
    'hooks and seed': ('default_hooks', 'custom_hooks', 'randomness'),
    'runtime, as in the shipped configs': (),
}


def config_text(cfg: Mapping[str, Any], docstring: str) -> str:
    """Return the text of a config file, in sections; keys that nothing reads are left out.

    Args:
        cfg: returned by `fit_recipe`.
        docstring: its recipe card.
    """
    known = [key for keys in SECTIONS.values() for key in keys]
    others = [key for key in cfg if key in READ_KEYS and key not in known]
    blocks = ['"""' + docstring.replace('\\', '/').replace('"""', "'''") + '\n"""']
    for heading, keys in SECTIONS.items():
        lines = [f'{key} = {literal(cfg[key])}' for key in keys or others if key in cfg]
        if lines:
            blocks.append('\n'.join([f'# {heading}', *lines]))
    text, _ = FormatCode('\n\n'.join(blocks) + '\n', style_config=STYLE)
    return literally(text).replace(f"'{literally(HERE)}", f"'{HERE}")


def literal(value: Any) -> str:
    """Return plain data as Python source on one line, with `dict(...)` where all keys are identifiers."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({", ".join(f"{key}={literal(v)}" for key, v in value.items())})'
        return f'{{{", ".join(f"{key!r}: {literal(v)}" for key, v in value.items())}}}'
    if not isinstance(value, (list, tuple)):
        return repr(value)
    items = ', '.join(map(literal, value))
    return f'[{items}]' if isinstance(value, list) else f'({items}{"," * (len(value) == 1)})'


def edited(folder: Path) -> list[str]:
    """List the files of a recipe that changed since they were written; none if that is unknown."""
    try:
        known = json.loads((folder / WRITTEN).read_text(encoding='utf-8'))
        return [name for name, digest in known.items() if (folder / name).is_file() and _hash(folder / name) != digest]
    except (OSError, ValueError, AttributeError):
        return []


def refuse_folders(data: str, work_dir: str) -> None:
    """Refuse names of folders that a config cannot hold.

    Configs, logs and tables show them verbatim, and mmengine substitutes the folder of a config into its text.

    Raises:
        UsageError: a path has control characters, or the work dir characters with a meaning in configs.
    """
    for option, path in (('--data', data), ('--work-dir', work_dir)):
        if hidden(path):
            raise UsageError(f'{option} {path!r} has control characters in a name: rename it, or choose another folder')
    code = next((code for code in ("'", '{{', '\\' * (os.name == 'posix')) if code and code in work_dir), None)
    if code:
        raise UsageError(f'--work-dir {work_dir} contains {code}, which means something in a config: choose another')


def refuse_unlisted(paths: Iterable[Path], root: Path) -> None:
    """Refuse files that a list cannot hold: names are written verbatim, and read without the spaces around them.

    Raises:
        UsageError: a path has control characters, or spaces at its ends.
    """
    for path in paths:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        if hidden(name) or name != name.strip():
            raise UsageError(
                f'{name!r} cannot be written to a list: rename the file, without control characters or spaces at the '
                f'ends'
            )


def refuse_edited(folder: Path, names: Sequence[str]) -> None:
    """Refuse to overwrite edited files.

    Args:
        folder: of a recipe.
        names: of its edited files.

    Raises:
        UsageError: there are some.
    """
    if names:
        config = next(iter(sorted(folder.glob('*.py'))), folder)
        raise UsageError(
            f'{folder / names[0]} was edited since it was written, and the edits would be lost: train with them by '
            f'mmseg-volo train {config}, choose another --work-dir, or remove {folder} to have it written anew'
        )


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note_written(folder: Path, paths: Sequence[Path]) -> None:
    """Record that files of a recipe are unedited as they are now."""
    try:
        known = json.loads((folder / WRITTEN).read_text(encoding='utf-8'))
    except (OSError, ValueError):  # an older recipe has no digests
        return
    known.update({path.name: _hash(path) for path in paths})
    write_whole(folder / WRITTEN, json.dumps(known, indent=1).encode())


def write_recipe(folder: Path, files: Mapping[str, str], overwrite: bool = False) -> None:
    """Write the files of a recipe, and load its config once.

    Args:
        folder: created if missing.
        files: name -> text.
        overwrite: whether to replace the training in the parent folder.

    Raises:
        UsageError: a file cannot be written or was edited, or the parent folder holds another training.
    """
    texts = {folder / name: text for name, text in files.items()}
    trained = sorted(folder.parent.glob('*.pth'))
    differs = [path for path, text in texts.items() if path.is_file() and path.read_bytes() != text.encode()]
    if trained and not overwrite and (differs or not folder.is_dir()):
        why = f'{differs[0].name} would change' if differs else 'it has no recipe'
        raise UsageError(
            f'{folder.parent} holds another training ({trained[0].name}; {why}): --resume goes on with it as it was, '
            f'--overwrite replaces it; or choose another --work-dir'
        )
    known = (folder / WRITTEN).is_file()  # an older recipe has no digests: files that differ may have been edited
    refuse_edited(folder, [path.name for path in differs if not known or path.name in edited(folder)])
    digests = {path.name: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_whole(path, text.encode())
        write_whole(folder / WRITTEN, json.dumps(digests, indent=1).encode())
    except OSError as error:
        raise UsageError(
            f'{folder} cannot be written ({error.strerror}): make room, or choose another --work-dir'
        ) from (error)
    for path in texts:
        if path.suffix == '.py':
            load_config(path)
