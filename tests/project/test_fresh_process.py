"""Every public function as the first act of a process, from an empty folder: results depend on arguments alone."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import cv2
import pytest
from helpers import folder_data, fresh, tiny_training
from helpers.fresh_modules import EXPRESSIONS as OF_MODULES
from helpers.fresh_modules import NOT_RUN
from helpers.fresh_packages import EXPRESSIONS as OF_PACKAGES
from helpers.paths import ROOT

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

PACKAGE = ROOT / 'mmseg_volo'
# modules whose functions are public; of packages what `__all__` names is, too
MODULES = {
    path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')
    for folder in ('', 'io', 'models', 'utils', 'zoo')
    for path in (PACKAGE / folder).glob('*.py')
    if path.name not in ('__init__.py', '__main__.py', 'parts.py', 'register_all.py', 'registry.py', 'version.py')
}
MODULES |= {'autotrain.batch_size', 'autotrain.recipe', 'autotrain.run', 'cli.prepare', 'cli.quickstart', 'cli.weights'}
MODULES |= {'datasets.check.config', 'datasets.check.survey', 'datasets.image_folder', 'datasets.prepare.prepare'}
MODULES |= {'datasets.synthetic.scenes', 'engine.init_cfg', 'evaluation.mask_writer', 'inference.api'}
MODULES |= {'inference.sources'}
EXPRESSIONS = OF_MODULES | OF_PACKAGES
BARE = (
    'load',
    'datasets.check.config.files_of',
    'zoo.cost.build_on_meta',
)  # before mmseg is imported, which takes each seconds


@pytest.fixture(scope='module')
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that snippets are about, by the name that they have there."""
    folder = tmp_path_factory.mktemp('given')
    data = scenes.generate(folder / 'scenes', 2, 2, 64, 128)
    shapes = folder_data.write(folder / 'shapes', 8, folder_data.as_colours)
    image, label = (next(data.glob(f'{kind}/val/*/*.png')) for kind in ('leftImg8bit', 'gtFine'))
    checkpoint, config = tiny_training.predictor(folder), folder / 'small.py'
    plan = ['train', '--data', str(shapes), '--model', str(config), '--plan-only', '--work-dir', str(folder / 'plan')]
    assert main(plan) == 0
    (recipe,) = (folder / 'plan/recipe').glob('*.py')
    bands = folder / 'bands.npy'
    folder_data.five_channels(bands, cv2.imread(str(image)))
    found = dict(CHECKPOINT=checkpoint, CONFIG=config, DATA=data, SHAPES=shapes, IMAGE=image, LABEL=label)
    return found | dict(RECIPE=recipe, BANDS=bands, ROOT=ROOT)


def snippet(name: str) -> str:
    """Imports what a name of `EXPRESSIONS` stands for, alone, and evaluates its expression."""
    module, _, function = name.rpartition('.')
    return f'from mmseg_volo{"." * bool(module)}{module} import {function}\n{EXPRESSIONS[name]}\n'


def test_every_public_function_is_here() -> None:
    public = {name for name in import_module('mmseg_volo').__all__ if name not in ('backbones', 'necks')}
    for path in PACKAGE.glob('*/**/__init__.py'):
        package = path.parent.relative_to(PACKAGE).as_posix().replace('/', '.')
        public |= {f'{package}.{name}' for name in getattr(import_module(f'mmseg_volo.{package}'), '__all__', ())}
    for module in MODULES:
        tree = ast.parse((PACKAGE / f'{module.replace(".", "/")}.py').read_text())
        functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
        public |= {f'{module}.{name}' for name in functions if not name.startswith('_')}
    public -= {f'inference.api.{name}' for name in ('load', 'predict', 'predict_each')}  # `mmseg_volo.load`
    known = EXPRESSIONS.keys() | NOT_RUN.keys()
    missing = sorted(public - known)
    assert missing == [], (
        'add these to tests/helpers/fresh_modules.py or tests/helpers/fresh_packages.py, each with what calls it'
    )
    assert sorted(known - public) == [], 'there are no such public functions'


def test_first_acts(given: dict[str, Path], tmp_path: Path) -> None:
    snippets = {name: snippet(name) for name in EXPRESSIONS if name not in BARE}
    assert not fresh.failures(snippets, tmp_path, fresh.MMSEG, **given)


def test_first_acts_before_mmseg_is_imported(given: dict[str, Path], tmp_path: Path) -> None:
    assert not fresh.failures({name: snippet(name) for name in BARE}, tmp_path, **given)


REGISTRY = re.compile(r'\b(?:MODELS|DATASETS|TRANSFORMS|METRICS|HOOKS|TASK_UTILS)\.(?:build|get)\(|\bmodule_dict\b')
REGISTER = re.compile(r'(?:from|import) mmseg_volo[^(\n]*\b(?:datasets|segmentors)\b')
ONLY_OURS = {  # ask for backbones, which `import mmseg_volo` registers
    'autotrain/initial_weights.py',
    'autotrain/recipe.py',
    'cli/weights.py',
    'models/pretrained.py',
}


def test_who_asks_a_registry_imports_what_registers() -> None:
    asking = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob('*.py') if REGISTRY.search(p.read_text())}
    assert {'inference/api.py', 'engine/runner.py'} < asking and asking > ONLY_OURS
    own = {name for name in asking if name.startswith('datasets/')}  # ask for data sets, and lie in their package
    importing = {name for name in asking if REGISTER.search((PACKAGE / name).read_text())}
    assert asking - importing - own == ONLY_OURS
