"""A plain config, as one writes it by hand, and the lists of files beside it."""

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
WRITTEN = '.written.json'  # SHA-256 of each file of a recipe, as it was written
SECTIONS = {  # heading -> keys, in this order
    'what is trained on': ('data_root', 'num_classes', 'ignore_index', 'class_weight', 'crop_size'),
    'the model': ('model',),
    'what is done with images and masks': ('train_pipeline', 'test_pipeline', 'tta_pipeline', 'tta_model'),
    'which files, how many at a time': ('train_dataloader', 'val_dataloader', 'test_dataloader', 'auto_scale_lr'),
    'how scores are counted': ('val_evaluator', 'test_evaluator'),
    'how the weights change, and how long': ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg'),
    'what happens meanwhile': ('default_hooks', 'custom_hooks', 'randomness'),
    'as in every config of ours': (),
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
    """Names of the files of a recipe that are not as they were written; none where that is not known."""
    try:
        known = json.loads((folder / WRITTEN).read_text(encoding='utf-8'))
        return [name for name, digest in known.items() if (folder / name).is_file() and _hash(folder / name) != digest]
    except (OSError, ValueError, AttributeError):
        return []


def refuse_folders(data: str, work_dir: str) -> None:
    """Configs, logs and tables show the names of folders as they are; the folder of a config is put into its text.

    Raises:
        UsageError: a path has characters that cannot be shown, or the work dir some that are code there.
    """
    for option, path in (('--data', data), ('--work-dir', work_dir)):
        if hidden(path):
            raise UsageError(f'{option} {path!r} has control characters in a name: rename it, or give another folder')
    code = next((code for code in ("'", '{{', '\\' * (os.name == 'posix')) if code and code in work_dir), None)
    if code:
        raise UsageError(f'--work-dir {work_dir} has {code} in a name, which means something in a config: give another')


def refuse_unlisted(paths: Iterable[Path], root: Path) -> None:
    """Lists of files hold names as they are, and are read without the spaces around a name.

    Raises:
        UsageError: a path cannot stand in a list.
    """
    for path in paths:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        if hidden(name) or name != name.strip():
            raise UsageError(
                f'{name!r} cannot stand in a list: rename the file, without control characters and spaces at the ends'
            )


def refuse_edited(folder: Path, names: Sequence[str]) -> None:
    """What somebody edited is not written over.

    Args:
        folder: of a recipe.
        names: of the files that differ from what is to be written.

    Raises:
        UsageError: there are some.
    """
    if names:
        config = next(iter(sorted(folder.glob('*.py'))), folder)
        raise UsageError(
            f'{folder / names[0]} was edited since it was written and would be lost: mmseg-volo train {config} takes '
            f'it as it is, --work-dir names another place; to have it written anew, remove {folder} first'
        )


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note_written(folder: Path, paths: Sequence[Path]) -> None:
    """Files of a recipe are from now on as they were written."""
    try:
        known = json.loads((folder / WRITTEN).read_text(encoding='utf-8'))
    except (OSError, ValueError):  # an older recipe
        return
    known.update({path.name: _hash(path) for path in paths})
    write_whole(folder / WRITTEN, json.dumps(known, indent=1).encode())


def write_recipe(folder: Path, files: Mapping[str, str], overwrite: bool = False) -> None:
    """Writes a config, its lists and what else belongs to it.

    Args:
        folder: made if need be.
        files: name -> text.
        overwrite: whether the training in the folder above is to be replaced.

    Raises:
        UsageError: they cannot be written, one was edited, or the folder above holds another training.
    """
    texts = {folder / name: text for name, text in files.items()}
    trained = sorted(folder.parent.glob('*.pth'))
    differs = [path for path, text in texts.items() if path.is_file() and path.read_bytes() != text.encode()]
    if trained and not overwrite and (differs or not folder.is_dir()):
        what = f'{differs[0].name} would change' if differs else 'it has no recipe'
        raise UsageError(
            f'{folder.parent} holds another training ({trained[0].name}; {what}): --resume goes on with it as it was, '
            f'--overwrite replaces it, --work-dir names another place'
        )
    known = (folder / WRITTEN).is_file()  # older recipes say nothing: whoever differs may have been edited
    refuse_edited(folder, [path.name for path in differs if not known or path.name in edited(folder)])
    digests = {path.name: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_whole(path, text.encode())
        write_whole(folder / WRITTEN, json.dumps(digests, indent=1).encode())
    except OSError as error:
        raise UsageError(f'{folder} cannot be written ({error.strerror}): make room, or name another --work-dir') from (
            error
        )
    for path in texts:
        if path.suffix == '.py':
            load_config(path)
