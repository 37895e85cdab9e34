"""What a checkpoint may ask for is closed: an audit hook hears whatever is opened, imported, executed or called.

`RECORDS=20000 RECORDS_SEED=7 AUDIT_EVERY=1 pytest -s tests/io/test_allowed.py` for more records, and every value of
every argument.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmseg
import pytest
from helpers.paths import environment
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmseg.registry import MODELS as MMSEGS

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.io.allowed.kinds import Either, Kind, Needed, NotTaken, Part, Several, Table, Word
from mmseg_volo.io.allowed.types import GROUPS, MODEL, PIPELINE
from mmseg_volo.models.backbones import coatnet, metaformer, t2t_vit, volo

RECORDS, SEED = int(os.environ.get('RECORDS', 1000)), int(os.environ.get('RECORDS_SEED', 0))
OF_FULL_MMCV = {'CCHead', 'PointHead', 'PSAHead'}  # need operators that mmcv-lite lacks


def test_nothing_that_a_checkpoint_may_ask_for_opens_anything(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'helpers.audited', tmp_path, str(RECORDS), str(SEED)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(said, indent=1))
    assert said['found'] == {} and not said['records']['trace']
    assert said['parts']['built'] > said['parts']['failed']
    assert said['parts']['never'].keys() <= OF_FULL_MMCV, said['parts']['never']
    ends = said['records']['ends']
    assert sum(ends.values()) == RECORDS and ends['UsageError'] > RECORDS / 2 and ends['used'] > RECORDS / 50


def test_the_hook_hears(tmp_path: Path) -> None:
    code = (
        "from helpers.audited import Watch; w = Watch(); w.call('x', open, 'trap'); w.call('y', __import__, 'this'); "
    )
    code += "import importlib; w.call('z', importlib.import_module, 'NoSuchModule'); "
    code += 'said = " ".join(w.found); assert all(f in said for f in ("open \'trap\' by x", "this", "NoSuch")), said'
    subprocess.run([sys.executable, '-c', code], env=environment(), check=True, capture_output=True)


def registered(group: str, name: str) -> Any:
    registry = {'transforms': TRANSFORMS, 'samplers': TASK_UTILS}.get(group, MODELS)
    return registry.children['mmseg'].get(name)


def test_every_type_has_only_arguments_that_it_takes() -> None:
    for group, types in GROUPS.items():
        for name, arguments in types.items():
            known = set()
            for cls in inspect.getmro(registered(group, name)):
                if '__init__' in vars(cls):
                    known |= inspect.signature(cls.__init__).parameters.keys()
            assert arguments.keys() - {'requires_grad'} <= known, name


def test_the_sizes_of_our_backbones_are_all_there() -> None:
    backbones = GROUPS['backbones']
    archs = {**metaformer.ARCHS, 'CoAtNet': coatnet.ARCHS, 'T2TViT': t2t_vit.ARCHS, 'VOLO': volo.ARCHS}
    for name, table in archs.items():
        words, size = backbones[name]['arch'].kinds
        assert set(words.words) == set(table)
        assert size.arguments.keys() == type(next(iter(table.values()))).__annotations__.keys()
        assert backbones[name].keys() | {'init_cfg'} == inspect.signature(MODELS.get(name)).parameters.keys()


def kinds_below(kind: Kind, above: tuple[Any, ...] = ()) -> Iterator[Kind]:
    """A kind and all in it; ends, as no part holds one like itself."""
    yield kind
    inner: list[Kind] = []
    if isinstance(kind, (Several, Needed)):
        inner = [kind.kind]
    elif isinstance(kind, Either):
        inner = [*kind.kinds]
    elif isinstance(kind, Table):
        inner = [*kind.arguments.values()]
    elif isinstance(kind, Part):
        assert id(kind.types()) not in above
        above += (id(kind.types()),)
        inner = [each for arguments in kind.types().values() for each in arguments.values()]
    for each in inner:
        yield from kinds_below(each, above)


def test_records_are_bounded_and_no_word_names_a_file_or_a_format() -> None:
    words = {word for kind in kinds_below(MODEL) if isinstance(kind, Word) for word in kind.words}
    words |= {word for kind in kinds_below(PIPELINE) if isinstance(kind, Word) for word in kind.words}
    assert words.isdisjoint({'pkl', 'pickle', 'json', 'yaml', 'yml', 'npy', 'nifti', 'petrel', 'http', 'lmdb'})
    assert all(word.replace('_', '').replace('-', '').isalnum() for word in words)


STOCK = sorted((Path(inspect.getfile(mmseg)).parent / '.mim/configs/_base_/models').glob('*.py'))
NOT_OURS = {
    'san_vit-b16.py',
    'vpd_sd.py',
    'upernet_convnext.py',
    'fpn_poolformer_s12.py',
}  # read files, or mmpretrain's


@pytest.mark.skipif(not STOCK, reason='mmseg was installed without its configs')
def test_mmsegs_models_are_taken() -> None:
    for path in STOCK:
        model = Config.fromfile(path, import_custom_modules=False).model.to_dict()
        if path.name in NOT_OURS:
            with pytest.raises(NotTaken):
                MODEL.take(model, 'model')
        else:
            MODEL.take(model, 'model')
    assert 'VPD' in MMSEGS
