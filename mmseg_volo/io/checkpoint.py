"""Read and write checkpoints as plain data: nothing in them is executed, and checksums reveal damage.

torch stores a CRC-32 of every record of its files but verifies none; this module does. safetensors has no checksums:
the files written here hold a SHA-256 of their weights and metadata. Files of torch before 1.6 and .safetensors of
others have no checksum: there, damage is detected only if it breaks the structure, not if it changes a number.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmseg_volo.errors import UsageError, printable
from mmseg_volo.io.unpickling import STAND_INS, to_data
from mmseg_volo.utils.files import AtomicFile, remove_scratch_files
from mmseg_volo.utils.locks import Lock
from mmseg_volo.utils.progress import ProgressBar

RECORD = 'mmseg_volo'  # meta[RECORD] holds what inference needs, as data: no config text is ever executed
CHECKSUM = f'{RECORD}.sha256'  # in the metadata of .safetensors, beside RECORD
AS_FOLDER = 0x10  # attribute of a zip's record, for which torch's reader silently leaves the weights uninitialised
DEEPEST, LARGEST = 100, 10_000_000  # levels of nested containers, and values in all of them
TUPLE = '()'  # marks a list of JSON that was a tuple: some transforms accept nothing else

_READING = threading.Lock()  # torch's allow-list is global to the process


def _renew() -> None:
    global _READING
    _READING = threading.Lock()


if hasattr(os, 'register_at_fork'):  # the thread that held it does not exist in the child
    os.register_at_fork(after_in_child=_renew)


def find_damage(path: Path) -> str | None:
    """Verify the checksums of a checkpoint that torch wrote.

    Returns:
        What is damaged, in a few words; None if the file is intact.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
            folder = next((info.filename for info in archive.infolist() if info.external_attr & AS_FOLDER), None)
    except Exception as error:  # flipped bits make zipfile raise anything
        return f'truncated or damaged, {error}'
    if folder:
        return f'its record {folder} calls itself a folder'
    return f'the checksum of its record {record} is wrong' if record else None


def read_checkpoint(path: str | Path, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a .safetensors or torch file as plain data, on the CPU; .safetensors give `state_dict` and `meta`.

    torch files are read with `weights_only=True`; there is no unsafe fallback. Besides torch's own allow-list,
    `STAND_INS` are accepted: classes that keep the data of NumPy's and mmengine's objects and execute none of their
    code.

    Args:
        path: of the file.
        trust_pickle: unpickle a torch file without these limits, which runs any code that it holds.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no checkpoint, is damaged, or holds more than data.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path.absolute()}: give the path of a .pth or .safetensors file')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'  # not so before torch 1.6
    if zipped and (damage := find_damage(path)):
        raise UsageError(f'{path} is not a readable checkpoint ({damage}): fetch or save it again')
    try:
        content = _read_pickle(path, trust_pickle)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f'{path} holds more than weights, or is no checkpoint, and was not loaded ({reason(error)}): get it '
            f'from its publisher as .safetensors, or as a plain state_dict, or see `mmseg-volo weights convert --help`'
        ) from None
    except Exception as error:  # flipped bits make torch raise anything
        raise UsageError(f'{path} is not a readable checkpoint ({reason(error)}): fetch or save it again') from None
    if not isinstance(content, dict):
        raise UsageError(f'{path} holds a {type(content).__name__}, expected a dict of weights')
    return content


def _read_pickle(path: Path, trust_pickle: bool) -> Any:
    if trust_pickle:
        content = torch.load(path, map_location='cpu', weights_only=False)
        return dict(content) if isinstance(content, Mapping) else content
    with _READING, torch.serialization.safe_globals(STAND_INS):
        content = torch.load(path, map_location='cpu', weights_only=True)
    _check_depth(content)
    return to_data(content)


def _check_depth(content: Any) -> None:
    """Check that a recursive walk through the content ends; it would not if a container held itself.

    Raises:
        ValueError: it is nested too deeply, or too large.
    """
    kinds, level, left = (dict, list, tuple), [content], LARGEST
    for _ in range(DEEPEST):
        opened = (dict.values(value) if isinstance(value, dict) else value for value in level)
        left -= sum(map(len, level))  # a list that occurs a million times in another one counts a million times
        if left < 0:
            break
        level = [inner for values in opened for inner in values if isinstance(inner, kinds)]
        if not level:
            return
    raise ValueError(
        f'its content is nested more than {DEEPEST} levels deep or without end, or has over {LARGEST} values'
    )


def reason(error: Exception) -> str:
    """Return the message of an error, in one line without control characters."""
    if match := re.search(r'GLOBAL (\S+)', str(error)):
        return f'it asks for {one_line(match[1])}'
    lines = str(error).rpartition('UnpicklingError: ')[2].strip().splitlines()
    return one_line(re.sub(r'\x1b\[[\d;]*m', '', lines[0])) if lines else type(error).__name__


def one_line(text: str, most: int = 200) -> str:
    """Return text of a file for a message: at most `most` characters, with control characters escaped."""
    shortened = text if len(text) <= most else f'{text[:most]}...'
    return printable(shortened).replace('\n', r'\n').replace('\t', r'\t')


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        ours = metadata.keys() & {RECORD, CHECKSUM}
        if ours and metadata.get(CHECKSUM) != checksum(weights, metadata):
            raise ValueError('its checksum is wrong')
        meta = decode_metadata(metadata[RECORD]) if ours else {}
        _check_depth([meta])
    except Exception as error:  # flipped bits make safetensors and JSON raise anything
        raise UsageError(
            f'{path} is not a readable .safetensors file ({reason(error)}): fetch or convert it again'
        ) from None
    return {'state_dict': weights, 'meta': meta}


def save_safetensors(
    weights: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str], meta: Mapping[str, Any] | None = None
) -> None:
    """Write weights as plain data, with a checksum. The file appears under its name once it is complete.

    Args:
        weights: tensors, which may be views of one another.
        path: in a folder that exists; an existing file is replaced.
        metadata: for the file's header.
        meta: of a checkpoint, for the file's header too: `read_checkpoint` returns it as `meta`.

    Raises:
        UsageError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    plain = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in weights.items()}
    header = {'format': 'pt', RECORD: encode_metadata(meta or {}), **metadata}
    try:
        with Lock(path.with_name(f'.{path.name}.lock')) as lock:  # save_file replaces the file, and so drops its lock
            lock.take(wait=True)
            remove_scratch_files(path.parent, glob.escape(path.name))
            with AtomicFile(path) as partial:
                save_file(plain, partial, {**header, CHECKSUM: checksum(plain, header)})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UsageError(
            f'{path.absolute()} cannot be written ({reason}): make room, or choose another place'
        ) from None


def checksum(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and values, and of the metadata without the checksum itself."""
    described = sorted((k, v) for k, v in metadata.items() if k != CHECKSUM)
    tensors = sorted((name, str(v.dtype), list(v.shape)) for name, v in weights.items())
    digest = hashlib.sha256(json.dumps([described, tensors]).encode())
    for name in ProgressBar(sorted(weights), 'checksum of the weights', unit='tensor', leave=False):
        digest.update(weights[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def encode_metadata(value: Any) -> str:
    """Encode plain data as JSON that distinguishes tuples from lists.

    Raises:
        UsageError: JSON cannot represent it.
    """
    try:
        text = json.dumps(_marked(value))
    except TypeError as error:
        raise UsageError(
            f'the description of the model is not plain data ({error}): convert the backbone alone'
        ) from None
    if decode_metadata(text) != value:  # e.g. numbers as keys
        raise UsageError('the description of the model changes when stored as JSON: convert the backbone alone')
    return text


def _marked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _marked(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        marked = [_marked(v) for v in value]
        return {TUPLE: marked} if isinstance(value, tuple) else marked
    return value


def decode_metadata(text: str) -> Any:
    """Decode the JSON of `encode_metadata`."""
    return json.loads(text, object_hook=lambda table: tuple(table[TUPLE]) if table.keys() == {TUPLE} else table)
