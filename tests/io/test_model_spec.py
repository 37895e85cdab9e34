"""What a checkpoint says of itself: which parts it may ask for, and its checksum."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import folder_data, tiny_training
from helpers.files import Trap
from mmengine.registry import MODELS, DefaultScope
from mmseg.apis import inference_model
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import mmseg_volo
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint_content import to_plain
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import (
    CHECKSUM,
    RECORD,
    decode_metadata,
    encode_metadata,
    read_checkpoint,
    save_safetensors,
)
from mmseg_volo.io.model_spec import config_of
from mmseg_volo.models.normalisation import PIXELS
from mmseg_volo_cli import main


def record_of(name: str) -> dict[str, Any]:
    cfg = load_config(name)
    return to_plain({key: cfg[key] for key in ('model', 'test_pipeline')})


def popen(trace: Path) -> dict[str, Any]:
    return dict(type='subprocess.Popen', args=['mkdir', str(trace)])


READER = dict(type='LoadBiomedicalData', decode_backend='pickle', backend_args=dict(backend='local'))
CLASS_WEIGHTS = ('pkl', 'pickle', 'yaml', 'yml', 'json')  # mmseg reads the files of these names
EVIL = {
    'a dotted name': lambda model, trace: model.update(popen(trace)),
    'a dotted name within': lambda model, trace: model['decode_head'].update(loss_decode=[popen(trace)]),
    'a file of class weights': lambda model, trace: model['decode_head']['loss_decode'].update(class_weight='/w.pkl'),
    'a part that reads files': lambda model, trace: model.update(backbone=dict(type='VPD', diffusion_cfg={})),
    'a part that asks the network': lambda model, trace: model.update(backbone=dict(type='TIMMBackbone')),
    'another scope': lambda model, trace: model['decode_head'].update(_scope_='subprocess'),
    'a module': lambda model, trace: model.update(type='antigravity'),
    'no name': lambda model, trace: model.update(type=7),
    'a scope': lambda model, trace: model['backbone'].update(type='mmpretrain.ConvNeXt', arch='tiny'),
    'a default that is a module': lambda model, trace: model.update(
        decode_head=dict(type='IterativeDecodeHead', num_stages=1, kernel_update_head=[dict(type='KernelUpdateHead')])
    ),
    'a key': lambda model, trace: model.update({'__class__': 'a'}),
    'an argument in no list': lambda model, trace: model['decode_head'].update(norm_cfg=dict(type='BN', device='cuda')),
    'a word in no list': lambda model, trace: model['decode_head'].update(interpolate_mode='__class__'),
    'a word for a number': lambda model, trace: model['decode_head'].update(channels='pkl'),
    'no finite number': lambda model, trace: model['decode_head'].update(dropout_ratio=float('inf')),
    'far too many classes': lambda model, trace: model['decode_head'].update(num_classes=10**9),
    'far too many layers': lambda model, trace: model['backbone'].update(arch=dict(depths=[10**6] * 4, dims=[8] * 4)),
    'a reader behind the images': lambda model, trace: model.update(test_pipeline=[READER]),
} | {
    f'class_weight={word}': lambda model, trace, word=word: model['decode_head']['loss_decode'].update(
        class_weight=word
    )
    for word in CLASS_WEIGHTS
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
    with pytest.raises(
        UsageError, match='asks for .*, which is not on the allow-list for checkpoints: read its config'
    ):
        mmseg_volo.load(path)
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('name', shipped_configs())
def test_what_our_configs_ask_for_is_taken(name: str) -> None:
    record = record_of(name)
    assert config_of({'meta': {RECORD: record}}, name).test_pipeline == record['test_pipeline']
    assert decode_metadata(encode_metadata(record)) == record


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


def write(path: Path, record: dict[str, Any], weights: dict[str, torch.Tensor], **meta: Any) -> Path:
    shown = dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]])
    save_safetensors(weights, path, {}, {RECORD: record, 'dataset_meta': shown, **meta})
    return path


@pytest.mark.parametrize('word', CLASS_WEIGHTS)
def test_no_file_is_taken_for_class_weights(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `mmseg-volo predict` in a folder with such a file."""
    record = record_of('volo_demo')
    record['model']['decode_head']['loss_decode']['class_weight'] = word
    monkeypatch.chdir(tmp_path)
    (tmp_path / word).write_bytes(pickle.dumps(Trap(tmp_path / 'trace')))
    write(Path('evil.safetensors'), record, {'w': torch.zeros(1)})
    Image.new('RGB', (8, 8)).save('a.png')
    assert main(['predict', 'evil.safetensors', 'a.png', '--out', 'out']) == 2
    assert not Path('trace').exists()


FLIPPED = dict(type='RandomFlip', prob=1.0, direction='horizontal')  # leaves that word in the results
PIPELINES = {
    'the image itself': [READER, dict(type='PackSegInputs')],
    'a file of a usual word': [
        dict(type='LoadImageFromFile'),
        FLIPPED,
        dict(type='KeyMapper', mapping=dict(img_path='flip_direction'), transforms=[READER]),
        dict(type='PackSegInputs'),
    ],
}


@pytest.mark.parametrize('way', PIPELINES)
def test_no_image_is_unpickled(way: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tiny_training.predictor(tmp_path)
    content = read_checkpoint(checkpoint)
    content['meta'][RECORD]['test_pipeline'] = PIPELINES[way]
    torch.save(content, checkpoint)
    for name in ('sample.bmp', 'horizontal'):
        Path(name).write_bytes(as_bitmap_too(pickle.dumps(Trap(tmp_path / 'trace'))))
    with DefaultScope.overwrite_default_scope('mmseg'):  # as in applications of MMSegmentation
        assert main(['predict', str(checkpoint), 'sample.bmp', '--out', 'out']) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        with contextlib.suppress(UsageError):
            inference_model(mmseg_volo.load(checkpoint), 'sample.bmp')
    assert not Path('trace').exists()
    assert re.search(
        r"asks for test_pipeline\[\d\].type='(LoadBio|KeyMapper)\w*', which is not on the allow-list", error
    ), error


def as_bitmap_too(content: bytes) -> bytes:
    """A BMP of 64x64 pixels whose bytes, unpickled, are this pickle: `B` begins bytes of a length, `0` drops them."""
    with io.BytesIO() as file:
        Image.new('RGB', (64, 64)).save(file, 'BMP')
        picture = bytearray(file.getvalue())
    picture[1:5] = b'M' + bytes(3)  # 77 bytes, which end within the pixels
    picture[5 + 77 : 6 + 77 + len(content)] = b'0' + content
    return bytes(picture)


def test_the_bitmap_is_a_picture_and_a_pickle(tmp_path: Path) -> None:
    content = as_bitmap_too(pickle.dumps(Trap(tmp_path / 'trace')))
    assert Image.open(io.BytesIO(content)).size == (64, 64)
    pickle.loads(content)
    assert (tmp_path / 'trace').exists()


def test_a_model_takes_no_more_than_its_weights(tmp_path: Path) -> None:
    checkpoint = tiny_training.predictor(tmp_path)
    content = read_checkpoint(checkpoint)
    model = content['meta'][RECORD]['model']
    model['decode_head'].update(num_classes=65536, channels=65536)  # 17 GB
    torch.save(content, checkpoint)
    with pytest.raises(UsageError, match='predictor_0.pth describes a model that is much larger than its weights'):
        mmseg_volo.load(checkpoint)


ODD_NAMES = {
    'classes and colours of other numbers': dict(classes=['a'], palette=[]),
    'control characters': dict(classes=['a\x1b[2J'] * 10, palette=[[0, 0, 0]] * 10),
    'no names': dict(classes=[7] * 10, palette=[[0, 0, 0]] * 10),
    'no colours': dict(classes=['a'] * 10, palette=['red'] * 10),
    'no palette': dict(classes=['a'] * 10),
    'a text': 'cityscapes',
}


@pytest.mark.parametrize('odd', ODD_NAMES)
def test_classes_are_names_and_colours(odd: str, tmp_path: Path) -> None:
    checkpoint = tiny_training.predictor(tmp_path)
    content = read_checkpoint(checkpoint)
    content['meta']['dataset_meta'] = ODD_NAMES[odd]
    torch.save(content, checkpoint)
    for arguments in ((checkpoint,), (tmp_path / 'small.py', checkpoint)):
        with pytest.raises(UsageError, match='predictor_0.pth(:| names)') as caught:
            mmseg_volo.load(*arguments)
        assert '\x1b' not in str(caught.value)


def test_weights_write_no_code_into_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file says of its pixels was written into the recipe, where mmengine replaces `{{$NAME:...}}`."""
    monkeypatch.chdir(tmp_path)
    marks = '""{{$NOWHERE:""}}'
    order = f'x {marks} ; __import__("os").mkdir({str(tmp_path / "trace")!r}) ; {marks} '
    weights = MODELS.build(dict(type='T2TViT', arch='7')).state_dict()
    save_safetensors(weights, 'evil.safetensors', {}, {PIXELS: dict(mean=[1] * 4, std=[1] * 4, order=order)})
    data = folder_data.write(Path('data'), 4)
    command = ['train', '--data', str(data), '--model', 't2t_vit_7', '--weights', 'evil.safetensors', '--plan-only']
    assert main([*command, '--work-dir', 'work']) == 0
    assert 'NOWHERE' not in Path('work/recipe/work.py').read_text() and not Path('trace').exists()


def test_a_resume_removes_no_other_files_than_best_ones(tmp_path: Path) -> None:
    data = scenes.generate(tmp_path / 'scenes', 4, 1, 64, 128)
    best = "default_hooks['checkpoint'].update(save_best='mIoU')\ntrain_cfg.update(val_interval=1)\n"
    config = tiny_training.write_config(tmp_path, best)
    assert tiny_training.train(config, data, tmp_path / 'work', 'train_cfg.max_iters=1') == 0
    checkpoint = tmp_path / 'work/iter_1.pth'
    content = torch.load(checkpoint, weights_only=True)
    content['message_hub']['runtime_info'].update(best_ckpt='/a/notes.txt', best_score=-1.0)
    torch.save(content, checkpoint)
    (tmp_path / 'work/notes.txt').write_text('mine')
    assert tiny_training.train(config, data, tmp_path / 'work', '--resume', 'train_cfg.max_iters=2') == 0
    assert (tmp_path / 'work/notes.txt').exists()
