"""Versions, and whether what is installed can be imported."""

from __future__ import annotations

import contextlib
import re
import sys
from importlib import metadata
from pathlib import Path

from mmseg_volo_cli.doctor.report import NOTE, OK, WRONG, Finding, Findings, import_error

ROOT = Path(__file__).parents[2]  # of a checkout
MODULES = {
    'onedl-mmcv': 'mmcv',
    'onedl-mmengine': 'mmengine',
    'onedl-mmsegmentation': 'mmseg',
    'opencv-python': 'cv2',
    'pillow': 'PIL',
}
HEADLESS = 'opencv-python-headless'
# the same modules under other names, and the oldest version that does
INSTEAD = {
    'onedl-mmcv': {'mmcv': '2.1'},
    'onedl-mmengine': {'mmengine': '0.10'},
    'onedl-mmsegmentation': {'mmsegmentation': '1.2.2'},
    'opencv-python': {HEADLESS: '0', 'opencv-contrib-python': '0', 'opencv-contrib-python-headless': '0'},
}


def requirements() -> dict[str, tuple[str, bool]]:
    """Distribution -> (versions, whether it is optional), from the checkout or from the installed package."""
    listed = ROOT / 'requirements.txt'
    lines = listed.read_text().splitlines() if listed.is_file() else []
    with contextlib.suppress(metadata.PackageNotFoundError):
        lines += [line for line in metadata.requires('mmseg_volo') or [] if not lines or 'extra ==' in line]
    found: dict[str, tuple[str, bool]] = {}
    for line in lines:
        if match := re.match(r'\s*([\w.-]+)\s*\(?([^;)]*)', line):
            found.setdefault(match[1], (match[2].strip(), 'extra ==' in line))
    return found


def versions() -> Findings:
    for name, (rules, optional) in sorted(requirements().items(), key=lambda item: item[0] != 'torch'):
        yield _package(name, rules, optional)
    yield from _own()


def _package(name: str, rules: str, optional: bool) -> Finding:
    install = f"pip install '{name}{rules}'"
    installed = {n: v for n in (name, *INSTEAD.get(name, ())) if (v := _version(n)) is not None}
    if not installed:
        state = NOTE if optional else WRONG
        return Finding(state, f'{name} is not installed{" (optional)" * optional}', install)
    if len(installed) > 1:
        remedy = f'pip uninstall {" ".join(installed)}, then {install}'
        return Finding(NOTE, f'{" and ".join(installed)} are both installed and overwrite each other', remedy)
    ((given, version),) = installed.items()
    needed = rules if given == name else f'>={INSTEAD[name][given]}'
    if not fits(version, needed):
        return Finding(NOTE if optional else WRONG, f'{given} {version} does not fit: {needed} is needed', install)
    module = MODULES.get(name, name.replace('-', '_'))
    if optional:  # it is imported when it is asked for
        return Finding(OK, f'{given} {version} (optional)')
    if error := import_error(module):
        graphics = 'libGL' in error or 'libgthread' in error
        again = f"pip uninstall {given}, then pip install '{HEADLESS}'" if graphics else f'{install} --force-reinstall'
        return Finding(WRONG, f'{given} {version} cannot be imported: {error}', again)
    return Finding(OK, f'{given} {version}')


def _own() -> Findings:
    if error := import_error('mmseg_volo.register_all'):
        yield Finding(WRONG, f'mmseg_volo cannot be imported: {error}', 'put the packages above right first')
        return
    import mmseg_volo
    from mmseg_volo.config import shipped_configs
    from mmseg_volo.ops import outlook_cpu

    place = Path(mmseg_volo.__file__).parent
    yield Finding(OK, f'mmseg_volo {mmseg_volo.__version__} at {place}, {len(shipped_configs())} configs')
    if outlook_cpu.LIBRARY is None and sys.platform != 'win32':  # nothing is compiled there
        remedy = (
            f'for it install a C compiler (gcc or clang), then mmseg_volo again; {outlook_cpu.SWITCH}=0 turns it off'
        )
        yield Finding(NOTE, 'VOLO runs on CPUs without its compiled kernel, more slowly', remedy)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits(version: str, needed: str) -> bool:
    """Whether a version keeps rules as `>=2.6,<3`; parts that are no numbers, as `+cu128`, do not count."""
    own = _numbers(version)
    rules = re.findall(r'(>=|<=|==|<|>)\s*([\d.]+)', needed)
    tests = {'>=': own.__ge__, '<=': own.__le__, '==': own.__eq__, '<': own.__lt__, '>': own.__gt__}
    return all(tests[sign](_numbers(given)) for sign, given in rules)


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(n) for n in re.findall(r'\d+', re.match(r'[\d.]*', version)[0])][:4]
    return (*found, *[0] * (4 - len(found)))
