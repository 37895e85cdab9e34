"""The page of all configs, and the index that OpenMMLab's tools read: complete, up to date, honest, read by them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.experiments import ALL, KINDS
from helpers.paths import ROOT
from mmengine.config import Config
from mmseg.apis import MMSegInferencer

from mmseg_volo.config import shipped_configs
from mmseg_volo.zoo import pages as model_zoo

PAGE, METAFILE, INDEX = (ROOT / name for name in ('docs/model_zoo.md', 'configs/metafile.yml', 'model-index.yml'))


@pytest.fixture(scope='module')
def models() -> list[model_zoo.Model]:
    """All configs; sizes are counted for `KINDS` or, on demand, all, and taken from the index for the others."""
    known = {entry['Name']: _size(entry['Metadata']) for entry in yaml.safe_load(METAFILE.read_text())['Models']}
    return [model_zoo.describe(name, None if ALL or name in KINDS else known[name]) for name in shipped_configs()]


def _size(metadata: dict) -> model_zoo.Size:
    gmacs, height, width = re.fullmatch(r'([\d.]+) at (\d+)x(\d+)', metadata['GMACs']).groups()
    parameters = metadata['Parameters'], metadata['Parameters without Auxiliary Head']
    return model_zoo.Size(*parameters, float(gmacs) * 1e9, (int(height), int(width)))


def test_page_and_index_are_up_to_date(models: list[model_zoo.Model]) -> None:
    assert PAGE.read_text() == model_zoo.page(models), 'run python tools/model_zoo.py'
    assert METAFILE.read_text() == model_zoo.metafile(models), 'run python tools/model_zoo.py'


def test_every_config_is_on_the_page_once() -> None:
    links = re.findall(r'^\| \[(\w+)\]\(\.\./(configs/\w+\.py)\) \|', PAGE.read_text(), re.M)
    assert sorted(name for name, _ in links) == shipped_configs()
    assert all((ROOT / path).is_file() and Path(path).stem == name for name, path in links)


def test_published_numbers_are_those_of_the_papers() -> None:
    """Against the list that the project was given, so that a slip in the data shows."""
    known = {
        'volo_d1_cityscapes': '– / 83.1',
        'volo_d4_cityscapes': '– / 84.3',
        'volo_d4_cityscapes_160k': '– / 84.3',
        'volo_d1_ade20k': '– / 50.5',
        'volo_d3_ade20k': '– / 52.9',
        'volo_d5_ade20k': '– / 54.3',
        'convformer_s18_ade20k': '47.5 / 48.6',
        'convformer_s36_ade20k': '49.6 / 50.7',
        'convformer_m36_ade20k': '50.4 / 51.3',
        'caformer_s18_ade20k': '48.1 / 48.9',
        'caformer_s36_ade20k': '50.6 / 50.8',
        'caformer_m36_ade20k': '51.7 / 51.7',
    }
    assert dict(re.findall(r'^\| \[(\w+)\].* \| (\S+ / [\d.]+) \| ', PAGE.read_text(), re.M)) == known


def test_nothing_is_claimed_that_was_not_trained(models: list[model_zoo.Model]) -> None:
    entries = yaml.safe_load(METAFILE.read_text())['Models']
    assert {e['Name']: e['Results'] for e in entries if e['Results']} == {
        'volo_camvid': [{'Task': 'Semantic Segmentation', 'Dataset': 'CamVid', 'Metrics': {'mIoU': 49.9}}]
    }
    assert all(e['Weights'] is None for e in entries)
    for model, entry in zip(models, entries, strict=True):
        assert entry['Metadata']['Published by Others'] == str(model.results.published)
        assert entry['Metadata']['Ours'] == str(model.results.ours)


def test_mmengine_lists_our_models() -> None:
    assert MMSegInferencer.list_models('mmseg_volo') == shipped_configs()
    assert MMSegInferencer.list_models('mmseg_volo', 'volo_d4') == ['volo_d4_cityscapes', 'volo_d4_cityscapes_160k']
    assert len(MMSegInferencer.list_models('mmseg')) > 500  # theirs are there as before


def test_mims_parser_finds_nothing_wrong() -> None:
    parser = pytest.importorskip('modelindex.load_model_index', reason='model-index, which mim reads the index with')
    index = parser.load(str(INDEX))
    assert index.check(silent=True) == []
    assert sorted(m.name for m in index.models) == shipped_configs()
    assert {m.in_collection for m in index.models} == {c.name for c in index.collections}
    for m in index.models:
        assert (ROOT / m.config).is_file() and m.metadata.data['Batch Size'] > 0
        [result.metrics for result in m.results]  # as mim does, also where there are none


def test_an_installed_package_is_listed_too(tmp_path: Path) -> None:
    pytest.importorskip('setuptools', reason='builds the package')
    source, target = tmp_path / 'source', tmp_path / 'target'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'requirements.txt', INDEX.name):
        shutil.copy(ROOT / name, source)
    for name in ('mmseg_volo', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*pip, '--target', str(target), str(source)], check=True, capture_output=True, text=True)
    program = (
        'import json, mmseg_volo, mmseg_volo.config as c; from mmseg.apis import MMSegInferencer as i;'
        "print(json.dumps([mmseg_volo.__file__, str(c.find_config('volo_demo')), i.list_models('mmseg_volo')]))"
    )
    environment = {**os.environ, 'PYTHONPATH': str(target)}
    command = [sys.executable, '-c', program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path)
    package, found, names = json.loads(done.stdout.splitlines()[-1])
    assert Path(package).is_relative_to(target) and Path(found).is_relative_to(target)
    assert names == shipped_configs()
    assert Config.fromfile(found).model.backbone.type == 'VOLO'
