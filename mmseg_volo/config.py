"""Find, load and check configs before any work starts."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmseg_volo.cfg_options import merge
from mmseg_volo.errors import UsageError
from mmseg_volo.redaction import redact, redact_log_record
from mmseg_volo.utils.text import did_you_mean

PACKAGE = Path(__file__).parent
# beside the package in a checkout, in OpenMMLab's folder `.mim` of an installed package
CONFIGS = next(p for p in (PACKAGE.parent / 'configs', PACKAGE / '.mim/configs') if (p / '_base_').is_dir())

RUNNER_KEYS = frozenset(inspect.signature(Runner).parameters) - {'cfg'}
READ_KEYS = RUNNER_KEYS | frozenset(  # keys that mmengine, mmseg or this package reads
    ['custom_imports', 'runner_type', 'sync_bn', 'find_unused_parameters', 'model_wrapper_cfg', 'compile']
    + ['test_pipeline', 'tta_pipeline', 'tta_model', 'activation_checkpointing', 'efficient_conv_bn_eval', 'fsdp']
)
VARIABLES = frozenset(  # names that configs define only to use them in the above
    ['data_root', 'train_pipeline', 'vis_backends', 'norm_cfg', 'crop_size', 'num_classes', 'max_iters']
)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


class FormattedConfig(Config):
    """A config that caches its formatted text until it changes: mmengine's runner formats it four times, 0.1 s each.

    The text has no secrets, and no `{{`, which mmengine would replace by environment variables when it reads the file.
    """

    _last: ClassVar[dict[str, str]] = {}

    @property
    def pretty_text(self) -> str:
        content = repr(self._cfg_dict)
        if content not in self._last:
            self._last.clear()
            self._last[content] = literally(Config(redact(self.to_dict())).pretty_text)
        return self._last[content]

    def dump(self, file: str | Path | None = None) -> str | None:
        if str(file or self.filename or '.py').endswith('.py'):
            return super().dump(file)
        return Config(redact(self.to_dict()), filename=self.filename).dump(file)


def formatted(cfg: Config) -> FormattedConfig:
    """Return the same config as a `FormattedConfig`."""
    copy = FormattedConfig()
    copy.__setstate__(cfg.__getstate__())
    return copy


def without_secrets(cfg: Config) -> FormattedConfig:
    """Return the same config with its secrets redacted, to be stored."""
    return formatted(Config(redact(cfg.to_dict()), filename=cfg.filename))


def literally(text: str) -> str:
    """Escape `{{` in the source of a config, where it occurs only in strings: before mmengine parses a file, it
    substitutes `{{ fileDirname }}` and `{{$HOME:}}`.
    """
    return text.replace('{{', '{\\x7b')


def shipped_configs() -> list[str]:
    """List the names of the configs that come with the package, without `.py`."""
    return sorted(p.stem for p in CONFIGS.glob('*.py'))


def find_config(name: str | Path) -> Path:
    """Return the path of a config, given its path or the name of a shipped one.

    Args:
        name: e.g. `my.py`, `volo_d4_cityscapes`, `configs/volo_d4_cityscapes.py`.

    Raises:
        UsageError: there is no such file and no such shipped config.
    """
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    stem = path.name.removesuffix('.py')
    if path.parent in (Path('.'), Path('configs')) and (CONFIGS / f'{stem}.py').is_file():
        return CONFIGS / f'{stem}.py'
    hint = did_you_mean(stem, shipped_configs())
    raise UsageError(f'no config at {path.absolute()}, and none of that name comes with the package{hint}')


def load_config(name: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and apply `--cfg-options`.

    Args:
        name: see `find_config`.
        options: dotted keys to values. `data_root` is set in all data loaders.

    Raises:
        UsageError: the config does not exist or does not load, or a key is unknown.
    """
    path = find_config(name)
    logger = MMLogger.get_current_instance()
    logger.addFilter(redact_log_record)  # mmengine logs the values of `{{$NAME:}}`
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # the config's own code may raise anything
        raise UsageError(f'{path} does not load: {type(error).__name__}: {error}') from error
    finally:
        logger.removeFilter(redact_log_record)
    known = READ_KEYS | VARIABLES
    for key in cfg:
        # READ_KEYS may be in the config too, from its base; variables may differ little, as train_pipeline_2
        others = READ_KEYS | (VARIABLES - cfg.keys())
        close = [name for name in others if sorted(name) == sorted(key)] or difflib.get_close_matches(
            key, others, 1, 0.85
        )
        if key not in known and close:
            raise UsageError(
                f'{path}: unknown key {key!r}; did you mean {close[0]!r}? (give a variable of your own another name)'
            )
    for key in options or {}:
        first = key.split('.')[0]
        if first not in cfg and first not in known:
            raise UsageError(
                f'--cfg-options {key}: {path.name} has no {first!r}{did_you_mean(first, [*cfg.keys(), *known])}'
            )
        if first in VARIABLES - {'data_root'}:
            raise UsageError(
                f'--cfg-options {key}: {first} is a variable that {path.name} has already used{_uses(cfg, first)}'
            )
    if options:
        merge(cfg, options)
    if options and 'data_root' in options:
        for loader in LOADERS:
            if cfg.get(loader):
                cfg[loader].dataset.data_root = options['data_root']
    return formatted(cfg)


def _uses(cfg: Config, name: str) -> str:
    """Name the keys to set instead of a variable."""
    if name.endswith('_pipeline'):
        return f': set {name.removesuffix("_pipeline")}_dataloader.dataset.pipeline.N.KEY'

    def uses(value: Any, parent: str) -> Iterable[str]:
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            dotted = f'{parent}.{key}'.removeprefix('.')
            same = key == name or isinstance(inner, (list, tuple)) and inner == cfg.get(name)
            yield from [dotted] if same and parent else uses(inner, dotted)

    keys = [*uses({key: value for key, value in cfg.to_dict().items() if key in READ_KEYS}, '')]
    return f': set {" ".join(keys[:4])}' if keys else ': set the keys that use it'
