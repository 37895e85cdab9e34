"""What a checkpoint says of itself: which parts it may ask for, and its checksum."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import mmseg_volo
from mmseg_volo.checkpoint_files import CHECKSUM, RECORD, decode, encode, read_checkpoint, save_safetensors
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.engine.hooks import plain
from mmseg_volo.errors import UsageError
from mmseg_volo.records import config_of


def record_of(name: str) -> dict[str, Any]:
    cfg = load_config(name)
    return plain({key: cfg[key] for key in ('model', 'test_pipeline')})


def popen(trace: Path) -> dict[str, Any]:
    return dict(type='subprocess.Popen', args=['mkdir', str(trace)])


EVIL = {
    'a dotted name': lambda model, trace: model.update(popen(trace)),
    'a dotted name within': lambda model, trace: model['decode_head'].update(loss_decode=[popen(trace)]),
    'a file of class weights': lambda model, trace: model['decode_head']['loss_decode'].update(class_weight='/w.pkl'),
    'a part that reads files': lambda model, trace: model.update(backbone=dict(type='VPD', diffusion_cfg={})),
    'a part that asks the network': lambda model, trace: model.update(backbone=dict(type='TIMMBackbone')),
    'another scope': lambda model, trace: model['decode_head'].update(_scope_='subprocess'),
    'a module': lambda model, trace: model.update(type='antigravity'),
    'no name': lambda model, trace: model.update(type=7),
}


@pytest.mark.parametrize('evil', EVIL)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_checkpoint_may_not_ask_for_any_part(evil: str, suffix: str, tmp_path: Path) -> None:
    weights, meta, path = {'w': torch.zeros(1)}, {RECORD: record_of('volo_demo')}, tmp_path / f'evil{suffix}'
    EVIL[evil](meta[RECORD]['model'], tmp_path / 'trace')
    if suffix == '.pth':
        torch.save(dict(state_dict=weights, meta=meta), path)
    else:
        save_safetensors(weights, path, {}, meta)
    with pytest.raises(UsageError, match='asks for .*, which is not taken from a checkpoint: read its config'):
        mmseg_volo.load(path)
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('name', shipped_configs())
def test_what_our_configs_ask_for_is_taken(name: str) -> None:
    record = record_of(name)
    assert config_of({'meta': {RECORD: record}}, name).test_pipeline == record['test_pipeline']
    assert decode(encode(record)) == record


def test_a_checksum_in_safetensors_is_held_to(tmp_path: Path) -> None:
    weights, path = (
        {'w': torch.arange(4.0), 'n': torch.tensor(3), 'half': torch.ones(2, 0).bfloat16()},
        tmp_path / 'w.safetensors',
    )
    save_safetensors(weights, path, {'source': 'x'})
    assert all(torch.equal(read_checkpoint(path)['state_dict'][key], value) for key, value in weights.items())
    with safe_open(path, 'pt') as file:
        metadata = file.metadata()
    for changed, said in (
        ({'w': torch.ones(4)}, {}),
        ({}, {'source': 'y'}),
        ({}, {CHECKSUM: '0' * 64}),
        ({}, {RECORD: '[]'}),
    ):
        save_file({**weights, **changed}, path, {**metadata, **said})
        with pytest.raises(
            UsageError, match='w.safetensors is not a readable .safetensors file .its checksum is wrong'
        ):
            read_checkpoint(path)
    save_file(weights, path)  # by others: has none
    assert torch.equal(read_checkpoint(path)['state_dict']['w'], weights['w'])


def test_a_record_that_calls_itself_a_folder_is_found(tmp_path: Path) -> None:
    """torch's reader does not read such a record, and returns memory that nobody has written to."""
    path = tmp_path / 'w.pth'
    torch.save({'w': torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as archive:
        (place,) = (i for i, info in enumerate(archive.infolist()) if info.filename.endswith('data/0'))
        entries = archive.start_dir
    content = bytearray(path.read_bytes())
    for _ in range(place + 1):
        entry = entries = content.index(b'PK\x01\x02', entries) + 4
    content[entry + 34] |= 0x10  # the attributes are the 38th byte of an entry
    path.write_bytes(content)
    with pytest.raises(UsageError, match='w.pth is not a readable checkpoint .its record .* calls itself a folder'):
        read_checkpoint(path)
