"""Check the versions of the required packages, and whether they can be imported."""

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
INSTALL_PACKAGING = 'pip install packaging'
# distribution -> others that provide the same modules, and the oldest version that works
INSTEAD = {
    'onedl-mmcv': {'mmcv': '2.1'},
    'onedl-mmengine': {'mmengine': '0.10'},
    'onedl-mmsegmentation': {'mmsegmentation': '1.2.2'},
    'opencv-python': {HEADLESS: '0', 'opencv-contrib-python': '0', 'opencv-contrib-python-headless': '0'},
}


def requirements() -> dict[str, tuple[str, bool]]:
    """Return distribution -> (version specifier, whether optional), from the checkout or the installed package."""
    listed = ROOT / 'requirements.txt'
    lines = listed.read_text().splitlines() if listed.is_file() else []
    with contextlib.suppress(metadata.PackageNotFoundError):
        lines += [line for line in metadata.requires('mmseg_volo') or [] if not lines or 'extra ==' in line]
    required: dict[str, tuple[str, bool]] = {}
    for line in lines:
        if match := re.match(r'\s*([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)', line):
            required.setdefault(match[1], (match[2].strip(), 'extra ==' in line))
    return required


def versions() -> Findings:
    """Check each required package, then `mmseg_volo` itself."""
    error = import_error('packaging.specifiers')
    if error:
        yield Finding(WRONG, f'versions cannot be compared: packaging cannot be imported ({error})', INSTALL_PACKAGING)
    for name, (rules, optional) in sorted(requirements().items(), key=lambda item: item[0] != 'torch'):
        yield _package(name, rules, optional, compare=not error)
    yield from _own()


def _package(name: str, rules: str, optional: bool, compare: bool) -> Finding:
    install = f"pip install '{name}{rules}'"
    installed = {n: v for n in (name, *INSTEAD.get(name, ())) if (v := _version(n)) is not None}
    if not installed:
        state = NOTE if optional else WRONG
        return Finding(state, f'{name} is not installed{" (optional)" * optional}', install)
    if len(installed) > 1:
        remedy = f'pip uninstall {" ".join(installed)}, then {install}'
        return Finding(NOTE, f'{" and ".join(installed)} are both installed and overwrite each other', remedy)
    ((provider, version),) = installed.items()
    needed = rules if provider == name else f'>={INSTEAD[name][provider]}'
    if compare and not fits(version, needed):
        return Finding(NOTE if optional else WRONG, f'{provider} {version} does not fit: {needed} is needed', install)
    module = MODULES.get(name, name.replace('-', '_'))
    if optional:  # imported only by the command that needs it
        return Finding(OK, f'{provider} {version} (optional)')
    if error := import_error(module):
        graphics = 'libGL' in error or 'libgthread' in error
        headless = f"pip uninstall {provider}, then pip install '{HEADLESS}'"
        remedy = headless if graphics else f'{install} --force-reinstall'
        return Finding(WRONG, f'{provider} {version} cannot be imported: {error}', remedy)
    return Finding(OK, f'{provider} {version}')


def _own() -> Findings:
    if error := import_error('mmseg_volo.register_all'):
        yield Finding(WRONG, f'mmseg_volo cannot be imported: {error}', 'fix the packages above first')
        return
    import mmseg_volo
    from mmseg_volo.config import shipped_configs
    from mmseg_volo.ops import outlook_cpu

    folder = Path(mmseg_volo.__file__).parent
    yield Finding(OK, f'mmseg_volo {mmseg_volo.__version__} at {folder}, {len(shipped_configs())} configs')
    if outlook_cpu.LIBRARY is None and sys.platform != 'win32':  # the kernel is not compiled on Windows
        remedy = f'install a C compiler (gcc or clang), then mmseg_volo again; {outlook_cpu.SWITCH}=0 disables it'
        yield Finding(NOTE, 'VOLO runs on CPUs without its compiled kernel, more slowly', remedy)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits(version: str, needed: str) -> bool:
    """Return whether a version satisfies a specifier such as `>=2.6,<3`, by PEP 440.

    A pre-release does not satisfy `>=` of its release, local labels such as `+cu128` are ignored, and a version that
    does not follow PEP 440 satisfies only an empty specifier.
    """
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        public = Version(version).public
    except InvalidVersion:
        return not needed
    return SpecifierSet(needed).contains(public, prereleases=True)
